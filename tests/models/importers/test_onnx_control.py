"""Control flow of ONNX: loops, scans, branches, functions."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import helper  # noqa: E402
from onnx_nodes import BOOL, I64, ints, kinds, load_in, node, number, value, weight  # noqa: E402

from perfmodel.models import ImportedModelWarning  # noqa: E402


@pytest.fixture
def load(tmp_path):
    return lambda *args, **options: load_in(tmp_path, *args, **options)


def body(nodes, inputs, outputs, stored=()):
    return helper.make_graph(nodes, "body", inputs, outputs, stored)


def dense_loop(trips, **more):
    """x = x @ w, so many times."""
    inner = body(
        [node("Identity", ["c"], ["co"]), node("MatMul", ["h", "w"], ["ho"])],
        [value("i", elem=I64), value("c", elem=BOOL), value("h", 4, 8)], [value("co", elem=BOOL), value("ho", 4, 8)],
    )  # fmt: skip
    return [node("Loop", [trips, "", "x"], ["y"], body=inner, name="loop", **more)]


@pytest.mark.parametrize("trips", [1, 7, 2047, 2049, 100_000])
def test_loop_is_its_body_times_its_trips(load, trips):
    got = load(dense_loop("n"), [value("x", 4, 8)], ["y"], [ints("n", trips), weight("w", 8, 8)])
    assert got.macs == trips * 4 * 8 * 8 and got.parameters == 64
    assert got.n_operators == (trips if 2 * trips <= 4096 else 1)


def test_a_long_loop_that_ends_at_once(load):
    nodes = dense_loop("n")
    nodes[0].attribute[0].g.node[0].CopyFrom(node("Identity", ["never"], ["co"]))
    stored = [ints("n", 100_000), weight("w", 8, 8), number("never", False, np.bool_)]
    assert load(nodes, [value("x", 4, 8)], ["y"], stored).macs == 256


def test_loop_of_unknown_length(load):
    inputs, stored = [value("x", 4, 8), value("n", elem=I64)], [weight("w", 8, 8)]
    with pytest.warns(ImportedModelWarning, match="trip count of 'loop' is not known and set to 1"):
        assert load(dense_loop("n"), inputs, ["y"], stored).macs == 256
    assert load(dense_loop("n"), inputs, ["y"], stored, bind={"loop": 50}).macs == 50 * 256


def test_while_loop_whose_condition_is_arithmetic(load):
    inner = body(
        [node("Add", ["k", "one"], ["ko"]), node("Less", ["ko", "five"], ["co"]), node("MatMul", ["h", "w"], ["ho"])],
        [value("i", elem=I64), value("c", elem=BOOL), value("k", elem=I64), value("h", 4, 8)],
        [value("co", elem=BOOL), value("ko", elem=I64), value("ho", 4, 8)],
    )  # fmt: skip
    loop = node("Loop", ["", "true", "zero", "x"], ["k", "y"], body=inner)
    stored = [number("one", 1, np.int64), number("five", 5, np.int64), number("zero", 0, np.int64), number("true", True, np.bool_),
              weight("w", 8, 8)]  # fmt: skip
    assert load([loop], [value("x", 4, 8)], ["y"], stored).macs == 5 * 256


def test_loop_whose_state_grows(load):
    """A cache that gets one row longer in each of six trips: 2 + 3 + ... + 7 products of eight."""
    nodes = [node("Identity", ["c"], ["co"]), node("Concat", ["h", "x"], ["ho"], axis=0), node("MatMul", ["ho", "t"], ["s"]),
             node("ReduceSum", ["s"], ["r"])]  # fmt: skip
    starts = [value("i", elem=I64), value("c", elem=BOOL), value("h", "n", 8)]
    ends = [value("co", elem=BOOL), value("ho", "n", 8), value("r", 1, 1)]
    loop = node("Loop", ["n", "", "x"], ["h", "sums"], body=body(nodes, starts, ends))
    start = node("Transpose", ["x"], ["t"])
    got = load([start, loop], [value("x", 1, 8)], ["h", "sums"], [ints("n", 6)])
    assert got.macs == 8 * sum(range(2, 8)) and kinds(got)["attention_gemm"] == 6
    uneven = node("Loop", ["n", "", "x"], ["h", "sums"], body=body(nodes, starts, [*ends[:2], value("s", "n", 1)]))
    with pytest.raises(ValueError, match="results of different shapes do not stack"):
        load([start, uneven], [value("x", 1, 8)], ["h", "sums"], [ints("n", 6)])


@pytest.mark.parametrize("steps", [9, 5000])
def test_scan(load, steps):
    inner = body(
        [node("MatMul", ["e", "w"], ["a"]), node("MatMul", ["h", "r"], ["b"]), node("Add", ["a", "b"], ["s"]),
         node("Tanh", ["s"], ["ho"]), node("Identity", ["ho"], ["out"])],
        [value("h", 2, 8), value("e", 2, 5)], [value("ho", 2, 8), value("out", 2, 8)],
    )  # fmt: skip
    scan = node("Scan", ["h0", "x"], ["h", "y"], body=inner, num_scan_inputs=1)
    head = node("MatMul", ["y", "v"], ["z"])
    stored = [weight("w", 5, 8), weight("r", 8, 8), weight("v", 8, 3), weight("h0", 2, 8)]
    got = load([scan, head], [value("x", steps, 2, 5)], ["z", "h"], stored)
    assert got.macs == steps * 2 * (5 * 8 + 8 * 8 + 8 * 3)
    assert got.parameters - 16 * (got.parameters > 128) <= 40 + 64 + 24
    assert got.operators.in_elements[-1] == steps * 16
    entering = got.input_bytes.sum(axis=1) + got.outside_in_bytes
    np.testing.assert_allclose(entering, got.operators.in_elements * got.operators.in_bits / 8)


def branches():
    small = body([node("MatMul", ["x", "w"], ["p"])], [], [value("p", 4, 8)])
    large = body([node("MatMul", ["x", "w"], ["q"]), node("MatMul", ["q", "w"], ["r"])], [], [value("r", 4, 8)])
    return node("If", ["c"], ["y"], then_branch=small, else_branch=large, name="if")


def test_if_with_a_known_and_with_an_unknown_condition(load):
    x, w = value("x", 4, 8), weight("w", 8, 8)
    assert load([branches()], [x], ["y"], [w, number("c", True, np.bool_)]).macs == 256
    assert load([branches()], [x], ["y"], [w, number("c", False, np.bool_)]).macs == 512
    with pytest.warns(
        ImportedModelWarning, match="condition of 'if' is not known; the costlier branch is taken .else_branch"
    ):
        assert load([branches()], [x, value("c", elem=BOOL)], ["y"], [w]).macs == 512


def test_functions_of_the_model_are_run_in_place(load):
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    inner = helper.make_function("own", "Twice", ["a", "m"], ["b"],
                                 [node("MatMul", ["a", "m"], ["t"]), node("MatMul", ["t", "m"], ["b"])], opsets)  # fmt: skip
    flat = node("Flatten", ["a"], ["f"])
    flat.attribute.append(onnx.AttributeProto(name="axis", ref_attr_name="at", type=onnx.AttributeProto.INT))
    outer = helper.make_function("own", "Outer", ["a", "m"], ["b"], [flat, node("Twice", ["f", "m"], ["b"], domain="own")],
                                 opsets, attributes=["at"])  # fmt: skip
    nodes = [node("Outer", ["x", "w"], ["y"], domain="own", at=2)]
    got = load(nodes, [value("x", 3, 4, 8)], ["y"], [weight("w", 8, 8)], functions=[inner, outer])
    assert got.macs == 2 * 12 * 64 and got.parameters == 64
    again = helper.make_function("own", "Outer", ["a"], ["b"], [node("Outer", ["a"], ["b"], domain="own")], opsets)
    with pytest.raises(ValueError, match="more than 24 deep"):
        load([node("Outer", ["x"], ["y"], domain="own")], [value("x", 1)], ["y"], functions=[again])
