"""Programs of torch.export, written by PyTorch itself (tests/data/torch/export.py): against the zoo, by hand, and damaged."""

import json
import sys
import types
import warnings
import zipfile
from collections import Counter
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.models import ImportedModelWarning, import_file, is_importable
from perfmodel.workload import KINDS

DATA = Path(__file__).parents[2] / "data" / "torch"
FILES = sorted(path.stem for path in DATA.glob("*.pt2"))


def kinds(w):
    return Counter(KINDS[k] for k in w.operators.kind)


def load(name, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportedModelWarning)
        return pm.import_torch(DATA / f"{name}.pt2", **options)


def program(name):
    """(name of the member, its JSON) of a file."""
    with zipfile.ZipFile(DATA / f"{name}.pt2") as archive:
        member = next(n for n in archive.namelist() if n.endswith("models/model.json"))
        return member, json.loads(archive.read(member))


def written(tmp_path, content, member="m/models/model.json", name="m.pt2"):
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content if isinstance(content, bytes | str) else json.dumps(content))
    return path


def rows(w):
    return {name: i for i, name in enumerate(w.names)}


def test_resnet50_is_the_zoos():
    w, zoo = load("resnet50", batch=1, dtype="int8"), pm.models.load("resnet50")
    assert w.macs == zoo.macs == 4_089_184_256
    assert w.parameters == zoo.parameters == 25_557_032  # torchvision's count of version 1.5
    assert kinds(w) == kinds(zoo)
    assert w.weight_bytes == zoo.weight_bytes and w.batch.tolist() == [1]
    for amount in ("in_elements", "out_elements", "lane_ops"):  # every operator moves and does the same
        assert Counter(getattr(w.operators, amount).tolist()) == Counter(getattr(zoo.operators, amount).tolist())
    assert load("resnet50", batch=3).macs == 3 * zoo.macs and load("resnet50", batch=3).batch.tolist() == [3]


def test_gpt2_is_the_zoos():
    w = load("gpt2", bind={"tokens[0]": 1, "tokens[1]": 1024}, dtype="int8")
    zoo = pm.models.load("gpt2", lm_head=True)
    assert w.macs == zoo.macs and w.parameters == zoo.parameters == 124_439_808  # the head is tied: stored once
    for kind in ("gemm", "attention_gemm", "softmax", "layer_norm", "gelu"):
        assert kinds(w)[kind] == kinds(zoo)[kind], kind
    assert kinds(w)["embedding"] == 2  # tokens and positions, added; one row in the zoo
    assert w.n_operators == zoo.n_operators + 2
    assert w.names[4] == "model.transformer.h.0.attn.c_attn"


def test_bert_is_the_zoos():
    w, zoo = load("bert"), pm.models.load("bert-base", batch=2, seq_len=64)
    assert w.macs == zoo.macs and w.parameters == zoo.parameters == 109_482_240  # bert-base-uncased with its pooler


def test_core_aten_is_the_same_model():
    """The same model after `run_decompositions`: linear layers became addmm and bmm, attention its parts."""
    w = load("bert-core")
    layer, tokens = 12 * 768 * 768, 2 * 64
    attention = 2 * 2 * 12 * 64 * 64 * 64
    assert w.macs == 2 * (tokens * layer + attention) + 2 * 768 * 768  # two layers and the pooler
    assert kinds(w)["gemm"] == 2 * 6 + 1 and kinds(w)["attention_gemm"] == 4
    assert w.parameters == (30522 + 512 + 2) * 768 + 2 * 768 + 2 * (layer + 13 * 768) + 768 * 768 + 768


def test_llama():
    """Two layers of width 256, 8 heads on 2 of keys and values: every product by hand; the norm is one row again."""
    w = load("llama", bind={"tokens[0]": 3, "tokens[1]": 100})
    layer = 256 * (256 + 2 * 64 + 256) + 3 * 256 * 688
    assert w.macs == 300 * (2 * layer + 256 * 1000) + 2 * 3 * 8 * 2 * 100 * 100 * 32
    assert w.parameters == 2 * (layer + 2 * 256) + 256 + 2 * 256 * 1000
    assert kinds(w)["rms_norm"] == 5 and kinds(w)["silu"] == 2 and kinds(w)["softmax"] == 2
    scores = next(i for i, name in enumerate(w.names) if name.endswith("attention.scores"))
    assert w.operators.groups[scores] == 3 * 2 and w.operators.p[scores] == 4 * 100  # keys are read once for four heads


def test_many_kinds_of_layers():
    with pytest.warns(ImportedModelWarning, match="cond: which branch runs is not known: the costlier is taken"):
        w = pm.import_torch(DATA / "layers.pt2")
    macs = {name: int(n) for name, n in zip(w.names, np.asarray(w.operators.macs), strict=True)}
    steps = 2 * 7
    assert macs["stem"] == 2 * 16 * 15 * 12 * 3 * 15
    assert macs["grouped"] == 2 * 12 * 11 * 24 * (12 // 4) * 9
    assert macs["up"] == 2 * 12 * 11 * 24 * 8 * 16  # every pixel meets the window once
    assert macs["line"] == 2 * (26 * 24 - 2) * 5 * 8 * 3
    assert macs["volume"] == 2 * 5 * 7 * 7 * 4 * 2 * 18
    recurrent = [n for name, n in macs.items() if name.startswith(("lstm", "gru"))]
    assert sum(recurrent) == steps * (2 * 128 * (16 + 32) + 2 * 128 * (64 + 32) + 72 * (64 + 24))
    assert sum(n for name, n in macs.items() if name.startswith("einsum")) == steps * 24 * 24 + steps * 24
    assert macs["scaled_dot_product_attention.scores"] == 2 * 6 * 7 * 7 * 4
    assert macs["matmul"] == steps * 24 * 40 and macs["matmul#2"] == 2 * 7 * 7 * 40  # the branch with the product
    quantised = rows(w)["matmul"]
    assert w.operators.weight_bits[quantised] == 8 and w.operators.parameters[quantised] == 24 * 40
    assert w.operators.weight_bits[rows(w)["stem"]] == 32
    of = kinds(w)
    assert (
        of["batch_norm"] == of["group_norm"] == of["max_pool"] == of["avg_pool"] == of["top_k"] == 1
        and of["embedding"] == 2
    )
    # written in place: what follows reads the new value
    assert w.source[w.target == rows(w)["matmul#2"]].tolist() == [rows(w)["add#2"]]


@pytest.mark.parametrize("name", FILES)
def test_parameters_are_those_of_the_archive(name):
    """All parameters that PyTorch lists, tied ones once, and buffers that are 8-bit weights."""
    with zipfile.ZipFile(DATA / f"{name}.pt2") as archive:
        member = next(n for n in archive.namelist() if n.endswith("weights_config.json"))
        config = json.loads(archive.read(member))["config"]
    stored = {
        weight["path_name"]: np.prod([size["as_int"] for size in weight["tensor_meta"]["sizes"]], dtype=int)
        for weight in config.values()
        if weight["is_param"] or weight["tensor_meta"]["dtype"] == 2
    }
    assert load(name).parameters == sum(stored.values())


@pytest.mark.parametrize("name", FILES)
def test_bytes_on_edges_are_bytes_of_operators(name):
    w = load(name)
    entering = w.input_bytes.sum(axis=1) + w.outside_in_bytes
    np.testing.assert_allclose(entering, w.operators.in_elements * w.operators.in_bits / 8, rtol=1e-12)


def test_open_sizes():
    path = DATA / "gpt2.pt2"
    with pytest.warns(
        ImportedModelWarning, match=r"not bound are those of the exported example: s\d+ = 2 \(tokens\[0\]\), s\d+ = 64"
    ):
        example = pm.import_torch(path)
    symbols = {size["as_expr"]["expr_str"].split("'")[1] for size in program("gpt2")[1]["graph_module"]["graph"]["tensor_values"]
               ["tokens"]["sizes"]}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        every = pm.import_torch(path, bind=dict.fromkeys(symbols, 8))
    by_place = pm.import_torch(path, bind={"tokens[1]": 8}, batch=8)
    assert every.macs == by_place.macs < example.macs and every.batch.tolist() == by_place.batch.tolist() == [8]


def test_precision():
    w = load("gpt2", bind={"tokens[0]": 1, "tokens[1]": 8}, dtype="bf16", weight_dtype="int4")
    assert w.weight_bytes == 124_439_808 / 2
    gemm = KINDS.index("gemm")
    assert set(w.operators.in_bits[w.operators.kind == gemm]) == {16} and load("bert").weight_bytes == 4 * 109_482_240


def test_files_go_to_the_importer(tmp_path):
    path = DATA / "resnet50.pt2"
    assert is_importable(str(path))
    assert import_file(path, batch=2).macs == pm.models.load(str(path), batch=2).macs == 2 * 4_089_184_256


def test_a_live_program_is_saved_and_read(monkeypatch):
    class ExportedProgram:
        graph_signature = ()

    def save(program, buffer):
        buffer.write((DATA / "bert.pt2").read_bytes())

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(export=types.SimpleNamespace(save=save)))
    w = pm.import_torch(ExportedProgram(), name="live")
    assert w.macs == load("bert").macs and w.model_names == ("live",)


def test_the_layout_of_older_versions(tmp_path):
    """Up to PyTorch 2.6: the program at the top of the archive, symbols as plain arithmetic."""
    content = program("gpt2")[1]
    text = json.dumps(content)
    for size in content["graph_module"]["graph"]["tensor_values"]["tokens"]["sizes"]:
        long = size["as_expr"]["expr_str"]
        text = text.replace(json.dumps(long), json.dumps(long.split("'")[1]))
    path = written(tmp_path, text, "serialized_exported_program.json")
    w = pm.import_torch(path, bind={"tokens[0]": 1, "tokens[1]": 16})
    assert w.macs == load("gpt2", bind={"tokens[0]": 1, "tokens[1]": 16}).macs
    # without the list of weights ties are not known, but PyTorch names a tied parameter once
    assert w.parameters == 124_439_808


@pytest.mark.parametrize("expression, size", [
    ("2*s0 + 1", 11), ("s0//2", 2), ("Add(Mul(Integer(2), Symbol('s0', positive=True, integer=True)), Integer(-1))", 9),
    ("FloorDiv(Symbol('s0', integer=True), Integer(3))", 1), ("Pow(Symbol('s0', integer=True), Integer(2))", 25),
    ("Max(Integer(1), Symbol('s0', integer=True))", 5), ("CeilDiv(Symbol('s0', integer=True), Integer(3))", 2),
    ("Mod(Symbol('s0', integer=True), 3)", 2), ("ceiling(s0/2)", 3),
    # not an expression of known sizes: that of the example
    ("u0", 77), ("__import__('os')", 77), ("9**9**9**9", 77), ("s0.real", 77), ("[s0]*10**9", 77), ("s0 +", 77), ("1/0", 77),
    ("(" * 500 + "s0" + ")" * 500, 77), ("Pow(2, Pow(2, Pow(2, 64)))", 77), ("s0" + " + s0" * 5000, 77),
])  # fmt: skip
def test_expressions_of_sizes(expression, size, tmp_path):
    def symbolic(text):
        return {"as_expr": {"expr_str": text, "hint": {"as_int": 77}}}

    graph = {
        "inputs": [{"as_tensor": {"name": "x"}}],
        "outputs": [{"as_tensor": {"name": "y"}}],
        "nodes": [{"target": "torch.ops.aten.exp.default", "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "x"}}}],
                   "outputs": [{"as_tensor": {"name": "y"}}]}],
        "tensor_values": {
            "x": {"dtype": 7, "sizes": [symbolic("Symbol('s0', integer=True)"), {"as_int": 16}]},
            "y": {"dtype": 7, "sizes": [symbolic(expression), {"as_int": 16}]},
        },
    }  # fmt: skip
    path = written(tmp_path, {"graph_module": {"graph": graph, "signature": {"input_specs": []}}})
    assert pm.import_torch(path, bind={"s0": 5}).operators.out_elements.tolist() == [size * 16]


def small(**changes):
    """A program of one linear layer, as a dictionary to spoil."""

    def tensor(name):
        return {"as_tensor": {"name": name}}

    def meta(*sizes):
        return {"dtype": 7, "sizes": [{"as_int": size} for size in sizes]}

    graph = {
        "inputs": [tensor("w"), tensor("x")],
        "outputs": [tensor("y")],
        "nodes": [{"target": "torch.ops.aten.linear.default", "outputs": [tensor("y")], "inputs": [
            {"name": "input", "arg": tensor("x")}, {"name": "weight", "arg": tensor("w")}]}],
        "tensor_values": {"w": meta(16, 8), "x": meta(4, 8), "y": meta(4, 16)},
    } | changes  # fmt: skip
    specs = [{"parameter": {"arg": {"name": "w"}, "parameter_name": "weight"}}]
    return {"graph_module": {"graph": graph, "signature": {"input_specs": specs}}}


def test_a_small_program(tmp_path):
    w = pm.import_torch(written(tmp_path, small()), name="small")
    assert w.macs == 4 * 8 * 16 and w.parameters == 128 and w.names == ("linear",) and w.model_names == ("small",)


def test_unknown_operators_move_data(tmp_path):
    content = small()
    content["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.mylib.mixer.default"
    with pytest.warns(
        ImportedModelWarning, match="operator 'mylib.mixer.default' is not known: modelled as data movement"
    ):
        assert dict(kinds(pm.import_torch(written(tmp_path, content)))) == {"copy": 1}


META = {"dtype": 7, "sizes": [{"as_int": 4}]}


@pytest.mark.parametrize("content, options, said", [
    (small(nodes=[]), {}, "output 'y' is made by no node"),
    (small(tensor_values={}), {}, "tensor 'x' has no shape"),
    (small(tensor_values={"w": META, "x": {"dtype": 99, "sizes": []}, "y": META}), {}, "tensor 'x' has the dtype 99; allowed: 1, 2"),
    (small(tensor_values={"w": META, "x": {"dtype": 7, "sizes": [{"as_int": -4}]}, "y": META}), {}, "tensor 'x' has the size -4; allowed"),
    (small(tensor_values={"w": META, "x": {"dtype": 7, "sizes": [{"as_int": 0}]}, "y": META}), {}, "input 'x' has the shape (0,)"),
    (small(tensor_values={"w": META, "x": {"dtype": 7, "sizes": [{"as_int": 1}] * 20}, "y": META}), {}, "has 20 axes; allowed"),
    (small(nodes=3), {}, "does not follow the schema of torch.export: Expected `array`, got `int` - at `$.graph_module.graph.nodes`"),
    (small(outputs=[]), {}, "has no operators"),
    (small(), {"batch": 5}, "batch is 5, but the first axis of x was exported as 4"),
    (small(), {"bind": {"s0": 5}}, "bind is 's0'"),
    (small(), {"dtype": "bf61"}, "dtype is 'bf61': did you mean bf16"),
    (small(), {"weight_dtype": "bf16-sparse50"}, "dense formats"),
    ("{", {}, "does not follow the schema"),
    ("[" * 100_000, {}, "does not follow the schema"),
    (b"\xff\xfe", {}, "does not follow the schema"),
    ("{}", {}, "missing required field `graph_module`"),
])  # fmt: skip
def test_bad_programs(content, options, said, tmp_path):
    path = written(tmp_path, content)
    with pytest.raises(ValueError) as error:
        pm.import_torch(path, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_missing_arguments_name_the_node(tmp_path):
    content = small()
    content["graph_module"]["graph"]["nodes"][0]["inputs"].pop()
    with pytest.raises(
        ValueError, match=r"m.pt2: node 'torch.ops.aten.linear.default' cannot be read: \"?'weight'\"? is missing"
    ):
        pm.import_torch(written(tmp_path, content))


def test_bindings_that_are_not_allowed():
    with pytest.raises(ValueError, match=r"bind is 'tokens\[2\]': did you mean tokens\[.\]"):
        load("gpt2", bind={"tokens[2]": 3})
    for size in (0, -1, True, 2.5, 2**31):
        with pytest.raises(ValueError, match="is bound to .*; allowed: an integer from 1 to 2147483647"):
            load("gpt2", bind={"tokens[0]": size})
    with pytest.raises(ValueError, match="is bound to 3 and to 4"):
        load("gpt2", bind={"tokens[0]": 3}, batch=4)
    with pytest.raises(ValueError, match="has the size .*; allowed: 0 to 2147483647"):
        load("gpt2", bind={"tokens[0]": 2**31 - 1, "tokens[1]": 2**31 - 1})


def test_files_that_are_no_programs(tmp_path):
    for content, said in [
        (b"", "is no readable .pt2 archive"), (b"PK\3\4 nothing", "is no readable .pt2 archive"),
        ((DATA / "bert.pt2").read_bytes()[:3000], "is no readable .pt2 archive"),
    ]:  # fmt: skip
        (tmp_path / "x.pt2").write_bytes(content)
        with pytest.raises(ValueError, match=said):
            pm.import_torch(tmp_path / "x.pt2")
    with pytest.raises(ValueError, match="holds no program"):
        pm.import_torch(written(tmp_path, "{}", "m/other.json"))
    for source in (tmp_path / "nowhere.pt2", tmp_path):
        with pytest.raises(ValueError, match="there is no such file"):
            pm.import_torch(source)
    with pytest.raises(ValueError, match="allowed: a .pt2 file or a torch.export.ExportedProgram"):
        pm.import_torch(3)


def test_bombs_are_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("m/models/model.json", "w") as member:
            for _ in range(257):
                member.write(b" " * 2**20)
    assert path.stat().st_size < 2_000_000
    with pytest.raises(ValueError, match="bomb.pt2: m/models/model.json is larger than 268435456 bytes"):
        pm.import_torch(path)


def test_graphs_inside_graphs_end(tmp_path):
    inner = {
        "inputs": [{"as_tensor": {"name": "x"}}],
        "outputs": [{"as_tensor": {"name": "x"}}],
        "nodes": [],
        "tensor_values": {},
    }
    for _ in range(80):
        argument = {"name": "", "arg": {"as_graph": {"name": "g", "graph": inner}}}
        node = {"target": "torch.ops.higher_order.wrap", "outputs": [{"as_tensor": {"name": "y"}}],
                "inputs": [argument, {"name": "", "arg": {"as_tensor": {"name": "x"}}}]}  # fmt: skip
        inner = {"inputs": [{"as_tensor": {"name": "x"}}], "outputs": [{"as_tensor": {"name": "y"}}], "nodes": [node],
                 "tensor_values": {"x": META, "y": META}}  # fmt: skip
    path = written(tmp_path, {"graph_module": {"graph": inner, "signature": {}}})
    with pytest.raises(ValueError, match="graphs inside graphs are more than 50 deep"):
        pm.import_torch(path)


def attempt(path):
    """An import that works or says in one line why not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportedModelWarning)
        try:
            w = pm.import_torch(path)
        except ValueError as error:
            assert "\n" not in str(error) and str(path) in str(error)
        else:
            assert w.n_operators > 0


BYTES = {name: (DATA / f"{name}.pt2").read_bytes() for name in ("layers", "llama")}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(BYTES)), st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), max_size=8), st.floats(0, 1),
       st.booleans())  # fmt: skip
def test_mutated_bytes(tmp_path, name, changes, cut, whole):
    data = bytearray(BYTES[name])
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path / "f.pt2"
    path.write_bytes(data if whole else data[: int(cut * len(data))])
    attempt(path)


PROGRAMS = {name: program(name)[1] for name in ("layers", "llama")}
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.integers(-2, 3), st.floats(allow_nan=False), st.text(max_size=6),
    st.just([]), st.just({}),
    st.sampled_from([{"as_int": 2**31 - 1}, {"as_none": True}, {"as_tensor": {"name": "x"}}, [{"as_int": 0}], "as_int"]),
)  # fmt: skip


def damaged(content, changes, drop):
    """The program with some of its values replaced or removed."""
    for path, value in changes:
        here = content["graph_module"]
        for step in path:
            if not here:
                break
            keys = list(here) if isinstance(here, dict) else range(len(here))
            key = keys[step % len(keys)]
            inside = here[key]
            if not isinstance(inside, dict | list) or not inside or step == path[-1]:
                if drop:
                    del here[key]
                else:
                    here[key] = deepcopy(value)
                break
            here = inside
    return content


CHANGES = st.lists(
    st.tuples(st.lists(st.integers(0, 2**20), min_size=6, max_size=14), ANYTHING), min_size=1, max_size=4
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHANGES, st.booleans())
def test_mutated_values(tmp_path, changes, drop):
    attempt(written(tmp_path, damaged(deepcopy(PROGRAMS["layers"]), changes, drop)))


@pytest.mark.slow
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(PROGRAMS)), CHANGES, st.booleans())
def test_mutated_values_at_length(tmp_path, name, changes, drop):
    attempt(written(tmp_path, damaged(deepcopy(PROGRAMS[name]), changes, drop)))
