"""What goes wrong: damaged and meaningless files say so in one line that names the file; nothing crashes, nothing hangs."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfmodel.models import ImportedModelWarning, import_onnx
from perfmodel.workload import Workload

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FILES = Path(__file__).parents[2] / "data" / "onnx"
node, value = helper.make_node, helper.make_tensor_value_info
F = TensorProto.FLOAT


def model(nodes, inputs, outputs=("y",), stored=()):
    ends = [value(o, F, None) if isinstance(o, str) else o for o in outputs]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, ends, stored), opset_imports=[helper.make_opsetid("", 21)]
    )


def x(*dims, name="x"):
    return value(name, F, dims)


def ints(name, *numbers):
    return numpy_helper.from_array(np.asarray(numbers, np.int64), name)


def weight(name, *dims):
    return TensorProto(name=name, data_type=F, dims=dims)


def nested(depth):
    """If in If in If."""
    leaf = helper.make_graph([node("Relu", ["x"], ["z"])], "leaf", [], [x(4, name="z")])
    inner = leaf
    for i in range(1, depth):
        made = node("If", ["c"], [f"z{i}"], then_branch=inner, else_branch=leaf)
        inner = helper.make_graph([made], "b", [], [x(4, name=f"z{i}")])
    return [node("If", ["c"], ["y"], then_branch=inner, else_branch=leaf)]


RELU = [node("Relu", ["x"], ["y"])]
HUGE = weight("w", 2**40, 2**40)


def doubled(k):
    """A tensor twice as long with every node."""
    return [node("Concat", [f"a{i}" if i else "x"] * 2, [f"a{i + 1}"], axis=0) for i in range(k)] + [
        node("Relu", [f"a{k}"], ["y"])
    ]


BAD = {
    "cycle": (model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])], [x(4)]),
              "the graph has a cycle through"),
    "undefined": (model([node("Add", ["x", "q"], ["y"])], [x(4)]), "input 'q' is neither an input of the graph nor made"),
    "no outputs": (model(RELU, [x(4)], []), "has no outputs"),
    "output of nobody": (model(RELU, [x(4)], ["z"]), "output 'z' is made by no node"),
    "made twice": (model([*RELU, node("Tanh", ["x"], ["y"])], [x(4)]), "value 'y' is made by two nodes, 'Relu_y' and 'Tanh_y'"),
    "stored twice": (model([node("Add", ["x", "w"], ["y"])], [x(4)], stored=[weight("w", 4)] * 2), "initialiser 'w' stands twice"),
    "input twice": (model(RELU, [x(4), x(5)]), "input 'x' stands twice"),
    "no shape": (model(RELU, [value("x", F, None)]), "input 'x' has no shape in the file; bind its axes: bind={'x[0]': 1"),
    "no type": (model(RELU, [value("x", 0, [4])]), "input 'x' has the element type 0"),
    "empty tensor": (model(RELU, [x(4, 0, 3)]), "input 'x' has the shape (4, 0, 3); every size must be at least 1"),
    "empty result": (model([node("Slice", ["x", "z", "z"], ["y"])], [x(4)], stored=[ints("z", 0)]), "output 'y' has no elements"),
    "empty product": (model([node("MatMul", ["x", "w"], ["y"])], [x(4, 3)], stored=[weight("w", 3, 0)]), "result 'y' has no elements"),
    "too many axes": (model(RELU, [x(*[1] * 40)]), "has 40 axes; allowed: at most 32"),
    "negative weight": (model([node("Add", ["x", "w"], ["y"])], [x(4)], stored=[weight("w", -4)]), "has a negative size"),
    "huge weight": (model([node("MatMul", ["x", "w"], ["y"])], [x(4, 2**40)], stored=[HUGE]), "more than 2**62 elements"),
    "huge result": (model(doubled(62), [x(4)]), "more than 2**62 elements"),
    "large axis": (model([node("MatMul", ["x", "w"], ["y"])], [x(4, 2**33)], stored=[weight("w", 2**33, 2)]), "allowed: an integer"),
    "matmul": (model([node("MatMul", ["x", "w"], ["y"])], [x(4, 3)], stored=[weight("w", 4, 3)]), "do not go together"),
    "conv": (model([node("Conv", ["x", "w"], ["y"])], [x(1, 3, 8, 8)], stored=[weight("w", 4, 2, 3, 3)]), "do not fit an input"),
    "window": (model([node("Conv", ["x", "w"], ["y"])], [x(1, 3, 2, 2)], stored=[weight("w", 4, 3, 3, 3)]), "does not fit (2, 2)"),
    "reshape": (model([node("Reshape", ["x", "s"], ["y"])], [x(4, 3)], stored=[ints("s", 5, -1)]), "does not fit into [5, -1]"),
    "reshape to what": (model([node("Reshape", ["x", "s"], ["y"])], [x(4), value("s", 7, [1])]),
                        "depends on the elements of 's', which are not in the file"),
    "axis": (model([node("Softmax", ["x"], ["m"], axis=1), node("ReduceMax", ["m", "a"], ["y"])], [x(4)], stored=[ints("a", 3)]),
             "axis 3 is none of a tensor of rank 1"),
    "perm": (model([node("Transpose", ["x"], ["y"], perm=[0, 0])], [x(4, 3)]), "perm [0, 0] does not order the 2 axes"),
    "einsum": (model([node("Einsum", ["x"], ["y"], equation="ij->k")], [x(4, 3)]), "has a label that no operand has"),
    "lstm": (model([node("LSTM", ["x", "w", "w"], ["y"])], [x(4, 3, 2)], stored=[weight("w", 1, 8, 3)]), "do not fit an input"),
    "outputs": (model([node("Relu", ["x"], ["y", "z"])], [x(4)], ["y", "z"]), "has 2 outputs; allowed: at most 1"),
    "deep": (model(nested(30), [x(4), value("c", 9, [])]), "deep in each other"),
    "constants": (model([node("Relu", ["w"], ["y"])], [], stored=[weight("w", 4)]), "nothing is computed when it runs"),
    "loop for ever": (model([node("Loop", ["", "", "x"], ["y"], body=helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("Relu", ["v"], ["w"])], "b",
        [value("i", 7, []), value("c", 9, []), x(4, name="v")], [value("d", 9, []), x(4, name="w")]))], [x(4)]),
        "does not end within 2048 trips; bind its trip count"),
    "sequence": (model([node("SequenceAt", ["x", "i"], ["y"])], [helper.make_tensor_sequence_value_info("x", F, [4])],
                       stored=[ints("i", 0)]), "is a sequence or a map"),
}  # fmt: skip


def fails(path, **options) -> str:
    with pytest.raises(ValueError) as error:
        import_onnx(path, **options)
    said = str(error.value)
    assert said.startswith(str(path)) and "\n" not in said
    return said


@pytest.mark.parametrize("name", BAD)
def test_meaningless_models(tmp_path, name):
    made, why = BAD[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(made.SerializeToString())
    assert why in fails(path)


def test_files_that_are_none(tmp_path):
    assert "cannot be read (No such file" in fails(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    assert "is a directory" in fails(tmp_path / "folder.onnx")
    for content, why in (
        (b"", "is empty"), (b"just some text\n" * 20, "is not an ONNX file"), (b"\x00" * 100, "is not an ONNX file"),
        ((FILES / "resnet50.onnx").read_bytes()[:5000], "is not an ONNX file"), (b"\x08\x08", "there is no graph in it"),
        (b"\x3a\xff\xff\xff\xff\x0f", "is not an ONNX file"),  # four gigabytes are announced
    ):  # fmt: skip
        path = tmp_path / "bad.onnx"
        path.write_bytes(content)
        assert why in fails(path)


def test_without_the_package_onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"needs the package onnx: pip install 'perfmodel\[onnx\]'"):
        import_onnx(FILES / "resnet50.onnx")


@pytest.mark.parametrize("options, why", [
    ({"bind": {"sequenc": 4}}, "bind is 'sequenc': did you mean sequence? allowed: batch, sequence"),
    ({"bind": {"batch": 0}}, "batch is bound to 0; allowed: an integer from 1"),
    ({"bind": {"batch": 2.5}}, "batch is bound to 2.5"),
    ({"batch": True}, "batch is bound to True"),
    ({"batch": 2, "bind": {"batch": 3}}, "batch is 2 and batch is bound to 3"),
    ({"bind": {"batch": 1, "sequence": 2**31}}, "allowed: an integer from 1 to 2147483647"),
])  # fmt: skip
def test_bad_sizes(options, why):
    assert why in fails(FILES / "gpt2-dynamic.onnx", **options)


def test_sizes_that_are_fixed():
    path = FILES / "gpt2.onnx"
    assert "batch is 4, but the first axis of input 'input_ids' is 1 in the file" in fails(path, batch=4)
    assert import_onnx(path, batch=1).batch.tolist() == [1]
    assert "input_ids[1] is bound to 5, but fixed at 1024" in fails(path, bind={"input_ids[1]": 5})
    assert "the file has no open dimension" in fails(path, bind={"sequence": 5})


def test_bad_precision():
    with pytest.raises(ValueError, match="dtype is 'int9'"):
        import_onnx(FILES / "gpt2.onnx", dtype="int9")
    with pytest.raises(ValueError, match="only weights may be sparse"):
        import_onnx(FILES / "gpt2.onnx", dtype="int8-sparse50")


def test_an_input_without_shape_can_be_bound(tmp_path):
    path = tmp_path / "open.onnx"
    path.write_bytes(BAD["no shape"][0].SerializeToString())
    assert import_onnx(path, bind={"x[0]": 3, "x[1]": 5}).operators.out_elements.tolist() == [15]


def test_errors_name_dimensions_left_open(tmp_path):
    path = tmp_path / "open.onnx"
    made = model([node("Conv", ["x", "w"], ["y"])], [x(1, 3, "height", "width")], stored=[weight("w", 4, 3, 3, 3)])
    path.write_bytes(made.SerializeToString())
    said = fails(path)
    assert "node 'Conv_y' (Conv)" in said and said.endswith("dimensions set to 1 as they are not bound: height, width")


# fuzzing

SMALL = [(FILES / name).read_bytes() for name in ("silero-vad.onnx", "ppocr-cls.onnx")]
FUZZ = settings(
    deadline=10_000, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def survives(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ImportedModelWarning)
        try:
            made = import_onnx(path)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert isinstance(made, Workload) and made.macs >= 0


places = st.integers(0, 2**20)


@FUZZ
@given(st.sampled_from(SMALL), st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes(tmp_path, content, changes):
    made = bytearray(content)
    for at, byte in changes:
        made[at % len(made)] = byte
    survives(tmp_path / "fuzz.onnx", bytes(made))


@FUZZ
@given(st.sampled_from(SMALL), st.sampled_from(SMALL), places, places, st.integers(0, 400), st.integers(0, 400))
def test_truncated_and_spliced_bytes(tmp_path, content, other, at, source, dropped, taken):
    at, source = at % len(content), source % len(other)
    rest = content[at + dropped :] if taken else b""
    survives(tmp_path / "fuzz.onnx", content[:at] + other[source : source + taken] + rest)


def graphs(graph):
    yield graph
    for each in graph.node:
        for attribute in each.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


NUMBERS = st.sampled_from([0, -1, 1, 2, 3, 7, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1, 100_000])
OPERATORS = st.sampled_from([
    "Attention", "BatchNormalization", "Concat", "ConstantOfShape", "Conv", "ConvTranspose", "CumSum", "DFT", "Div", "Einsum",
    "Expand", "Foo", "Gather", "Gemm", "If", "LSTM", "Loop", "MatMul", "MaxPool", "Mod", "NonZero", "OneHot", "Pad", "Pow",
    "Range", "Reshape", "Resize", "STFT", "Scan", "SequenceAt", "Slice", "Softmax", "Split", "SplitToSequence", "Squeeze",
    "Tile", "TopK", "Transpose",
])  # fmt: skip


@FUZZ
@given(st.sampled_from(SMALL), st.data())
def test_rewired_graphs_and_random_sizes(tmp_path, content, data):
    made = onnx.ModelProto.FromString(content)
    for _ in range(data.draw(st.integers(1, 4))):
        graph = data.draw(st.sampled_from(list(graphs(made.graph))))
        if not graph.node:
            continue
        each = graph.node[data.draw(st.integers(0, len(graph.node) - 1))]
        names = [name for n in graph.node for name in [*n.output, *n.input]]
        what = data.draw(st.sampled_from(["input", "more", "output", "operator", "attribute", "dim", "shape", "drop"]))
        if what == "input" and each.input:
            each.input[data.draw(st.integers(0, len(each.input) - 1))] = data.draw(st.sampled_from(names))
        elif what == "more":
            each.input.append(data.draw(st.sampled_from(names)))
        elif what == "output":
            each.output[0] = data.draw(st.sampled_from(names))
        elif what == "operator":
            each.op_type = data.draw(OPERATORS)
        elif what == "attribute" and each.attribute:
            attribute = data.draw(st.sampled_from(list(each.attribute)))
            if attribute.ints:
                attribute.ints[data.draw(st.integers(0, len(attribute.ints) - 1))] = data.draw(NUMBERS)
            elif attribute.HasField("t") and attribute.t.data_type == TensorProto.INT64 and attribute.t.raw_data:
                size = len(attribute.t.raw_data) // 8
                numbers = data.draw(st.lists(NUMBERS, min_size=size, max_size=size)) if size < 9 else [7] * size
                attribute.t.raw_data = np.asarray(numbers, np.int64).tobytes()
            else:
                attribute.i = data.draw(NUMBERS)
        elif what == "dim" and graph.initializer:
            tensor = data.draw(st.sampled_from(list(graph.initializer)))
            tensor.dims.append(data.draw(NUMBERS))
        elif what == "shape":
            dims = data.draw(st.sampled_from(list(made.graph.input))).type.tensor_type.shape.dim
            if dims:
                dims[data.draw(st.integers(0, len(dims) - 1))].dim_value = data.draw(NUMBERS)
        elif what == "drop":
            graph.node.remove(each)
    survives(tmp_path / "fuzz.onnx", made.SerializeToString())
