"""Workload files: what they mean, and what is said about bad ones."""

import json

import numpy as np
import pytest
import yaml

import perfmodel as pm

GOOD = """
name: tiny
batch: 2
operators:
  - {name: relu, kind: relu, k: 64, p: 112, q: 112, inputs: [conv]}
  - {name: conv, kind: conv, k: 64, c: 3, p: 112, q: 112, r: 7, s: 7, stride: 2}
  - {name: sum, kind: add, k: 64, p: 112, q: 112, inputs: [relu, conv]}
"""


def write(tmp_path, text, name="model.yaml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_file_in_any_order(tmp_path):
    w = pm.models.load(write(tmp_path, GOOD))
    assert w.names == ("conv", "relu", "sum") and w.model_names == ("tiny",) and w.batch.tolist() == [2.0]
    assert list(zip(w.source.tolist(), w.target.tolist(), strict=True)) == [(0, 1), (1, 2), (0, 2)]
    assert w.macs == 64 * 3 * 49 * 112 * 112 and w.parameters == 64 * 3 * 49
    # read from memory: what the 7x7 window touches at stride 2, (111 * 2 + 7)^2 pixels of three channels
    assert w.outside_in_bytes.tolist() == [3 * 229 * 229, 0, 0]
    assert w.outside_out_bytes.tolist() == [0, 0, 64 * 112 * 112]
    np.testing.assert_array_equal(w.edge_bytes, 64.0 * 112 * 112)


def first_of_a_chain_wins(self, node):
    """As PyYAML 6.0.4 merges: a key is what its text's `id` says, so of two `k` the first is kept, of two `name` both."""
    merged, seen = [], set()
    for key, value in [pair for pair in node.value if pair[0].tag == MERGE]:
        node.value.remove((key, value))
        for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            self.flatten_mapping(source)
            for pair in source.value:
                if id(pair[0].value) not in seen:
                    seen.add(id(pair[0].value))
                    merged.append(pair)
    node.value = merged + node.value


def last_of_a_chain_wins(self, node):
    """As PyYAML 6.0.2 and 6.0.3 merge."""
    merged = []
    for key, value in [pair for pair in node.value if pair[0].tag == MERGE]:
        node.value.remove((key, value))
        for source in reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]:
            self.flatten_mapping(source)
            merged.extend(source.value)
    node.value = merged + node.value


def nothing_to_merge(self, node):
    assert [key for key, _ in node.value if key.tag == MERGE] == []


MERGE = "tag:yaml.org,2002:merge"
VERSIONS = {"installed": None, "6.0.3": last_of_a_chain_wins, "6.0.4": first_of_a_chain_wins, "none": nothing_to_merge}


@pytest.fixture(params=VERSIONS)
def pyyaml(request, monkeypatch):
    """Whatever PyYAML's own merging does."""
    if VERSIONS[request.param] is not None:
        monkeypatch.setattr(yaml.constructor.SafeConstructor, "flatten_mapping", VERSIONS[request.param])
    return request.param


CHAIN = """
name: x
operators:
  - &first {name: a, kind: gemm, k: 8, c: 4}
  - &second {<<: *first, name: b, k: 16}
  - {<<: *second, name: c, p: 2}
"""


def test_keys_that_are_merged_in_may_be_overridden(tmp_path, pyyaml):
    w = pm.models.load(write(tmp_path, CHAIN))
    assert w.names == ("a", "b", "c") and w.operators.k.tolist() == [8, 16, 16] and w.macs == 32 + 64 + 128


def test_versions_of_pyyaml_do_differ(monkeypatch):
    """What this guards against: k of the third operator."""
    for version, k in (("6.0.3", 16), ("6.0.4", 8)):
        monkeypatch.setattr(yaml.constructor.SafeConstructor, "flatten_mapping", VERSIONS[version])
        assert yaml.safe_load(CHAIN)["operators"][2]["k"] == k


# each by hand from yaml.org/type/merge.html: own keys first, of a list the earlier, and a mapping is merged with what it merges
MERGES = {
    "own key before": ("<<: *a", "k: 3, <<: *a", (3, 4, 7)),
    "own key after": ("<<: *a", "<<: *a, k: 3", (3, 4, 7)),
    "the earlier of a list": ("<<: *a", "<<: [*a, *b]", (8, 4, 7)),
    "the earlier of a list, turned": ("<<: *a", "<<: [*b, *a]", (16, 5, 6)),
    "a chain": ("<<: *a, k: 9, weight_bits: 2", "<<: *c", (9, 4, 2)),
    "a chain in a list": ("<<: *a, k: 9, weight_bits: 2", "<<: [*b, *c]", (16, 5, 6)),
    "a chain in a list, turned": ("<<: *a, k: 9, weight_bits: 2", "<<: [*c, *b]", (9, 4, 2)),
    "a chain of lists": ("<<: [*b, *a]", "<<: [*c, *a], c: 6", (16, 6, 6)),
    "the same twice": ("<<: [*a, *a]", "<<: [*c, *c, *a]", (8, 4, 7)),
    "written in place": ("<<: *a", "<<: [{k: 2, <<: *b}, *a]", (2, 5, 6)),
    "an empty list": ("k: 1, <<: []", "k: 1, c: 2, weight_bits: 3, <<: []", (1, 2, 3)),
}


@pytest.mark.parametrize("what", MERGES)
def test_merges(what, tmp_path, pyyaml):
    third, fourth, (k, c, bits) = MERGES[what]
    text = f"""
    name: x
    operators:
      - &a {{name: a, kind: gemm, k: 8, c: 4, weight_bits: 7}}
      - &b {{name: b, kind: gemm, k: 16, c: 5, weight_bits: 6}}
      - &c {{kind: gemm, {third}, name: c}}
      - {{kind: gemm, {fourth}, name: d}}
    """
    op = pm.models.load(write(tmp_path, text)).operators
    assert (op.k[3], op.macs[3] / op.k[3], op.weight_bits[3]) == (k, c, bits)


def test_a_quoted_merge_is_a_key(tmp_path):
    with pytest.raises(ValueError, match="unknown field <<"):
        pm.models.load(write(tmp_path, '{"name": "x", "operators": [], "<<": {"batch": 2}}', "model.json"))


def test_a_key_twice_in_json(tmp_path):
    path = write(tmp_path, '{"name": "x",\n "operators": [],\n "name": "y"}', "model.json")
    with pytest.raises(ValueError, match="model.json: not valid YAML at line 3: key 'name' stands twice"):
        pm.models.load(path)


def test_json_is_the_same(tmp_path):
    rows = [
        {"name": "a", "kind": "gemm", "k": 8, "c": 4, "bits": 16},
        {"name": "b", "kind": "gelu", "k": 8, "inputs": ["a"]},
    ]
    w = pm.models.load(write(tmp_path, json.dumps({"name": "j", "operators": rows}), "model.json"))
    assert w.names == ("a", "b") and w.macs == 32 and w.weight_bytes == 64 and w.outside_in_bytes.tolist() == [8, 0]


def test_every_operand_may_have_bits_of_its_own(tmp_path):
    text = "{name: x, operators: [{name: a, kind: gemm, k: 8, c: 4, bits: 16, weight_bits: 4.5, lane_ops: 3}]}"
    w = pm.models.load(write(tmp_path, text))
    assert (
        w.weight_bytes == 32 * 4.5 / 8 and w.outside_in_bytes.tolist() == [8] and w.outside_out_bytes.tolist() == [16]
    )
    assert w.operators.lane_ops.tolist() == [3]


def test_parameters_may_be_stated(tmp_path):
    text = "{name: x, operators: [{name: a, kind: gemm, k: 8, c: 4, parameters: 40}]}"
    assert pm.models.load(write(tmp_path, text)).parameters == 40


def test_vector_operators_read_all_that_their_inputs_bring(tmp_path):
    pool = "  - {name: pool, kind: max_pool, k: 64, p: 56, q: 56, r: 3, s: 3, stride: 2, inputs: [sum]}\n"
    w = pm.models.load(write(tmp_path, GOOD + pool))
    reads = dict(zip(w.names, (w.operators.in_elements * w.operators.in_bits / 8).tolist(), strict=True))
    assert reads["sum"] == 2 * 64 * 112 * 112 and reads["pool"] == 64 * 112 * 112
    np.testing.assert_array_equal([reads[n] for n in w.names[1:]], w.input_bytes.sum(axis=1)[1:])


def test_matrix_operators_read_what_their_loops_say(tmp_path):
    rows = ["name: a, kind: relu, k: 64, p: 10", "name: b, kind: gemm, k: 8, c: 64, p: 5, inputs: [a]"]
    assert pm.models.load(write(tmp_path, operators(*rows))).operators.in_elements.tolist() == [640, 320]


def operators(*rows):
    return "name: x\noperators:\n" + "".join(f"  - {{{row}}}\n" for row in rows)


BAD = {
    "unknown kind": (operators("name: a, kind: cnov, k: 1"), ["operator 'a': kind is 'cnov'", "did you mean conv"]),
    "missing field": (operators("name: a, kind: relu"), ["missing", "k", "$.operators[0]"]),
    "extra field": (operators("name: a, kind: relu, k: 1, stirde: 2"), ["stirde", "$.operators[0]"]),
    "size 0": (operators("name: a, kind: conv, k: 0"), ["operator 'a'", "k is 0", "allowed: an integer from 1"]),
    "negative size": (operators("name: a, kind: conv, k: 4, q: -3"), ["operator 'a'", "q is -3", "allowed"]),
    "size as text": (operators("name: a, kind: relu, k: many"), ["int", "$.operators[0].k", "got 'many'"]),
    "fraction": (operators("name: a, kind: relu, k: 1.5"), ["int", "$.operators[0].k", "got 1.5"]),
    "huge size": (operators("name: a, kind: relu, k: 99999999999"), ["k is 99999999999", "allowed"]),
    "bits": (operators("name: a, kind: relu, k: 1, bits: 0"), ["operator 'a'", "bits is 0", "allowed: 1 to 64"]),
    "parameters": (operators("name: a, kind: gemm, k: 1, parameters: -1"), ["parameters is -1", "allowed"]),
    "bits of weights": (operators("name: a, kind: gemm, k: 1, weight_bits: 65"), ["weight_bits is 65", "allowed: 1 to 64"]),
    "lane operations": (operators("name: a, kind: relu, k: 1, lane_ops: -2"), ["lane_ops is -2", "allowed: 0 to"]),
    "missing input": (operators("name: conv1, kind: relu, k: 1", "name: b, kind: relu, k: 1, inputs: [conv2]"),
                      ["operator 'b': input is 'conv2'", "did you mean conv1"]),
    "cycle": (operators("name: a, kind: relu, k: 1, inputs: [b]", "name: b, kind: relu, k: 1, inputs: [a]"),
              ["cycle through operator", "acyclic"]),
    "own input": (operators("name: a, kind: relu, k: 1, inputs: [a]"), ["cycle through operator 'a'"]),
    "name twice": (operators("name: a, kind: relu, k: 1", "name: a, kind: relu, k: 2"), ["'a' stands twice"]),
    "no operators": ("name: x\noperators: []", ["operators is empty"]),
    "batch 0": ("{name: x, batch: 0, operators: [{name: a, kind: relu, k: 1}]}", ["batch is 0", "allowed"]),
    "not a mapping": ("- a\n- b\n", ["object", "array"]),
    "empty": ("", ["object", "null"]),
    "not YAML": ("name: [x\noperators: }", ["not valid YAML at line 2"]),
    "key twice": ("name: x\noperators:\n  - {name: a, kind: relu,\n     k: 1, k: 2}",
                  ["not valid YAML at line 4", "key 'k' stands twice; keys must be distinct"]),
    "key twice at the top": ("name: x\noperators: []\nname: y", ["at line 3", "key 'name' stands twice"]),
    "line break in a key": ('"two\\nlines": 1', ["unknown field two lines"]),
    "two merges": ("a: &a {}\nb: &b {}\nx:\n  <<: *a\n  <<: *b",
                   ["not valid YAML at line 5", "key '<<' stands twice; several mappings are merged by one, <<: [*first, *second]"]),
    "key twice beside a merge": ("a: &a {k: 1}\nb:\n  k: 1\n  <<: *a\n  k: 2", ["not valid YAML at line 5", "key 'k' stands twice"]),
    "merge of a number": ("name: x\n<<: 3", ["not valid YAML at line 2", "key '<<' merges a mapping or a list of mappings; got '3'"]),
    "merge of nothing": ("name: x\n<<:", ["not valid YAML at line 2", "merges a mapping or a list of mappings; got ''"]),
    "merge of words": ("name: x\n<<: [{}, y]", ["not valid YAML at line 2", "or a list of mappings; got 'y'"]),
    "merge of lists": ("name: x\n<<: [[{}]]", ["not valid YAML at line 2", "or a list of mappings; got a list in a list"]),
    "merge of itself": ("&x\nname: x\n<<: *x", ["not valid YAML at line 3", "key '<<' merges what it stands in"]),
    "merge of what is around": ("&x\nname:\n  <<: *x", ["not valid YAML at line 3", "key '<<' merges what it stands in"]),
    "merge of the list around": ("name: &x\n- {}\n- <<: *x", ["not valid YAML at line 3", "key '<<' merges what it stands in"]),
    "a list as a key": ("a: &a {[1]: 2}\nb: {<<: *a, [1]: 2}", ["not valid YAML at line 1", "unhashable key"]),
    "key like a path": ("'x at `$.y': 1", ["unknown field x at $.y"]),
    "bad tag": ("name: !!bool maybe", ["not valid YAML: 'maybe'"]),
    "too deep": ("name: " + "[" * 5000, ["not valid YAML: nested too deeply"]),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_files(what, tmp_path):
    text, fragments = BAD[what]
    path = write(tmp_path, text)
    with pytest.raises(ValueError) as error:
        pm.models.load(path)
    said = str(error.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    assert [f for f in fragments if f not in said] == []


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="none.yaml: cannot be read: No such file"):
        pm.models.load(str(tmp_path / "none.yaml"))


def test_a_file_takes_no_options(tmp_path):
    with pytest.raises(ValueError, match="takes no options; got batch"):
        pm.models.load(write(tmp_path, GOOD), batch=2)


def test_a_long_chain_is_no_problem(tmp_path):
    rows = [f"name: r{i}, kind: relu, k: 1, inputs: [{f'r{i + 1}' if i < 2999 else ''}]" for i in range(3000)]
    w = pm.models.load(write(tmp_path, operators(*rows)))
    assert w.names[0] == "r2999" and w.n_slots == 1
