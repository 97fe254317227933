"""Vector operators and views of ONNX, and patterns of nodes that are one operator."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx_nodes import I64, ints, kinds, load_in, node, number, value, weight  # noqa: E402


@pytest.fixture
def load(tmp_path):
    return lambda *args, **options: load_in(tmp_path, *args, **options)


def test_norms_pools_reductions_embeddings(load):
    x = value("x", 2, 6, 8, 8)
    scale = [weight(n, 6) for n in "sbmv"]
    got = load([node("BatchNormalization", ["x", *"sbmv"], ["y"])], [x], ["y"], scale)
    assert kinds(got) == {"batch_norm": 1} and got.parameters == 12  # not the statistics
    for kind in ("InstanceNormalization", "GroupNormalization"):
        more = {"num_groups": 2} if kind.startswith("Group") else {}
        assert kinds(load([node(kind, ["x", "s", "b"], ["y"], **more)], [x], ["y"], scale)) == {"group_norm": 1}
    got = load([node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], [x], ["y"])
    assert got.operators.out_elements.tolist() == [2 * 6 * 16] and got.operators.lane_ops.tolist() == [2 * 6 * 16 * 9]
    got = load([node("GlobalAveragePool", ["x"], ["y"])], [x], ["y"])
    assert kinds(got) == {"avg_pool": 1} and got.operators.lane_ops.tolist() == [2 * 6 * 64]
    got = load([node("ReduceSum", ["x", "a"], ["y"], keepdims=0)], [x], ["y"], [ints("a", -1, 1)])
    assert (
        kinds(got) == {"reduce": 1} and got.operators.out_elements.tolist() == [16] and got.operators.lane_ops[0] == 768
    )
    got = load([node("Gather", ["t", "i"], ["y"])], [value("i", 2, 5, elem=I64)], ["y"], [weight("t", 100, 16)])
    assert kinds(got) == {"embedding": 1} and got.parameters == 1600 and got.operators.weight_elements[0] == 0
    assert got.outside_in_bytes[0] == 10 * 8 + 160 * 4
    got = load([node("TopK", ["x", "k"], ["y", "i"])], [x], ["y"], [ints("k", 3)])
    assert kinds(got) == {"top_k": 1} and got.operators.out_elements[0] == 2 * 6 * 8 * 3


def test_fourier_transforms(load):
    got = load([node("DFT", ["x"], ["y"], axis=1)], [value("x", 3, 64, 2)], ["y"], opset=17)
    assert kinds(got) == {"fft": 1} and got.operators.lane_ops[0] == 3 * 5 * 64 * 6
    got = load(
        [node("STFT", ["x", "st", "w"], ["y"])],
        [value("x", 2, 400)],
        ["y"],
        [number("st", 100, np.int64), weight("w", 128)],
    )
    assert got.operators.lane_ops[0] == 2 * 3 * 5 * 128 * 7 and got.operators.out_elements[0] == 2 * 3 * 65 * 2


def test_views_cost_nothing(load):
    nodes = [
        node("Split", ["x", "sizes"], ["a", "b"], axis=1), node("Reshape", ["a", "shape"], ["c"]), node("Cast", ["c"], ["d"], to=10),
        node("Relu", ["d"], ["e"]), node("Slice", ["b", "zero", "two", "zero"], ["f"]), node("Tanh", ["f"], ["g"]),
        node("Flatten", ["g"], ["h"]), node("Unsqueeze", ["h", "zero"], ["i"]), node("Concat", ["h", "h"], ["j"], axis=1),
        node("Sigmoid", ["j"], ["k"]),
    ]  # fmt: skip
    stored = [ints("sizes", 4, 2), ints("shape", 0, -1, 2), ints("zero", 0), ints("two", 2)]
    got = load(nodes, [value("x", 8, 6)], ["e", "k"], stored)
    assert kinds(got) == {"relu": 1, "tanh": 1, "sigmoid": 1}
    at = {name.split("_")[0]: i for i, name in enumerate(got.names)}
    assert got.outside_in_bytes[at["Relu"]] == 8 * 4 * 4 and got.outside_in_bytes[at["Tanh"]] == 2 * 2 * 4
    assert got.operators.out_bits[at["Relu"]] == 16
    assert got.input_bytes[at["Sigmoid"]].sum() == 4 * 4  # the same four elements twice: read once


def test_transpositions_cost_nothing_where_a_product_reads_them(load):
    x = value("x", 2, 8, 4, 16)
    heads = [node("Transpose", ["x"], ["t"], perm=[0, 2, 1, 3]), node("Transpose", ["t"], ["u"], perm=[0, 1, 3, 2]),
             node("MatMul", ["t", "u"], ["s"]), node("Transpose", ["s"], ["o"], perm=[0, 2, 1, 3])]  # fmt: skip
    assert kinds(load(heads, [x], ["o"])) == {"attention_gemm": 1, "copy": 1}  # the last one is an output
    assert kinds(load([*heads[:3], node("Relu", ["t"], ["r"])], [x], ["s", "r"])) == {
        "copy": 1,
        "attention_gemm": 1,
        "relu": 1,
    }
    still = [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("Relu", ["t"], ["y"])]
    assert kinds(load(still, [value("x", 1, 5, 7)], ["y"])) == {"relu": 1}  # moves no element


GELU = [node("Div", ["x", "r"], ["d"]), node("Erf", ["d"], ["e"]), node("Add", ["e", "one"], ["a"])]
TANH = [
    node("Pow", ["x", "three"], ["p"]), node("Mul", ["p", "r"], ["q"]), node("Add", ["x", "q"], ["s"]), node("Mul", ["s", "r"], ["t"]),
    node("Tanh", ["t"], ["u"]), node("Add", ["one", "u"], ["a"]),
]  # fmt: skip
ENDS = [
    [node("Mul", ["x", "a"], ["m"]), node("Mul", ["m", "h"], ["y"])],
    [node("Mul", ["x", "h"], ["m"]), node("Mul", ["m", "a"], ["y"])],
    [node("Mul", ["a", "h"], ["m"]), node("Mul", ["x", "m"], ["y"])],
]
SCALARS = [number(n, v) for n, v in (("r", 1.4), ("one", 1.0), ("h", 0.5), ("three", 3.0), ("eps", 1e-5), ("two", 2.0))]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("start", [GELU, TANH])
def test_gelu(load, start, end):
    got = load([*start, *end], [value("x", 4, 8)], ["y"], SCALARS)
    assert kinds(got) == {"gelu": 1} and got.operators.in_elements.tolist() == [32] and got.parameters == 0
    assert "gelu" not in kinds(load([*start, *end], [value("x", 4, 8)], ["y", "a"], SCALARS))  # its inside is read


def test_silu(load):
    nodes = [node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])]
    assert kinds(load(nodes, [value("x", 4, 8)], ["y"])) == {"silu": 1}
    other = [node("Sigmoid", ["x"], ["s"]), node("Mul", ["z", "s"], ["y"])]
    assert kinds(load(other, [value("x", 4, 8), value("z", 4, 8)], ["y"])) == {"sigmoid": 1, "mul": 1}


@pytest.mark.parametrize("square", [node("Pow", ["c", "two"], ["q"]), node("Mul", ["c", "c"], ["q"])])
@pytest.mark.parametrize("divided", [
    [node("Div", ["c", "r1"], ["n"])],
    [node("Reciprocal", ["r1"], ["i"]), node("Mul", ["c", "i"], ["n"])],
    [node("Div", ["one", "r1"], ["i"]), node("Mul", ["i", "c"], ["n"])],
])  # fmt: skip
def test_layer_and_rms_norm(load, square, divided):
    start = [node("ReduceMean", ["x"], ["m"], axes=[-1]), node("Sub", ["x", "m"], ["c"])]
    inside = [square, node("ReduceMean", ["q"], ["v"], axes=[-1]), node("Add", ["v", "eps"], ["w"]), node("Sqrt", ["w"], ["r1"]),
              *divided, node("Mul", ["n", "g"], ["y"])]  # fmt: skip
    stored = [*SCALARS, weight("g", 8), weight("b", 8)]
    layer = [*start, *inside, node("Add", ["y", "b"], ["z"])]
    got = load(layer, [value("x", 4, 8)], ["z"], stored, opset=13)
    assert kinds(got) == {"layer_norm": 1} and got.parameters == 16
    root = [node(n.op_type, ["x" if i == "c" else i for i in n.input], n.output) for n in inside]
    for made, source in zip(root, inside, strict=True):
        made.attribute.extend(source.attribute)
    got = load(root, [value("x", 4, 8)], ["y"], stored, opset=13)
    assert kinds(got) == {"rms_norm": 1} and got.parameters == 8
