"""Operators of ONNX one by one, against counts worked out by hand; parameters and graphs."""

import string
import warnings
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402
from onnx_nodes import BOOL, I8, I64, U8, F, ints, kinds, load_in, node, number, row, value, weight  # noqa: E402

from perfmodel.models import ImportedModelWarning  # noqa: E402
from perfmodel.workload import exact_macs  # noqa: E402


@pytest.fixture
def load(tmp_path):
    return lambda *args, **options: load_in(tmp_path, *args, **options)


@pytest.mark.parametrize("x, w, attributes, out", [
    ((2, 3, 32, 32), (8, 3, 3, 3), {}, (30, 30)),
    ((2, 3, 32, 32), (8, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, (16, 16)),
    ((1, 8, 17, 9), (12, 2, 3, 5), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 1]}, (9, 9)),
    ((1, 8, 17, 19), (12, 8, 3, 3), {"dilations": [2, 3], "auto_pad": "VALID"}, (13, 13)),
    ((2, 6, 50), (4, 6, 5), {"strides": [3], "pads": [2, 2]}, (17,)),  # one axis
    ((2, 3, 8, 16, 16), (4, 3, 3, 3, 3), {"pads": [1] * 6, "strides": [2, 1, 1]}, (4, 16, 16)),  # three
    ((1, 8, 10, 10), (8, 1, 3, 3), {"group": 8}, (8, 8)),  # depthwise
])  # fmt: skip
def test_conv(load, x, w, attributes, out):
    got = load(
        [node("Conv", ["x", "w", "b"], ["y"], **attributes)],
        [value("x", *x)],
        ["y"],
        [weight("w", *w), weight("b", w[0])],
    )
    assert got.macs == x[0] * prod(out) * w[0] * prod(w[1:])
    assert got.parameters == prod(w) + w[0] and got.batch.tolist() == [x[0]]
    one = row(got, 0)
    assert one["in_elements"] == prod(x) and one["out_elements"] == x[0] * w[0] * prod(out)
    assert one["groups"] == attributes.get("group", 1) and got.outside_in_bytes.tolist() == [4 * prod(x)]


@pytest.mark.parametrize("w, attributes, out", [
    ((6, 4, 3, 3), {"strides": [2, 2]}, (4, 15, 15)),
    ((6, 2, 3, 3), {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}, (4, 14, 14)),
    ((6, 4, 2, 2), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, (4, 14, 14)),
])  # fmt: skip
def test_conv_transpose(load, w, attributes, out):
    got = load(
        [node("ConvTranspose", ["x", "w"], ["y"], **attributes)], [value("x", 2, 6, 7, 7)], ["y"], [weight("w", *w)]
    )
    assert got.macs == 2 * 49 * prod(w) and got.operators.lane_ops[0] == 2 * 49 * w[1] * 9 * attributes.get(
        "group", 1
    ) * (prod(w[2:]) / 9)
    assert got.operators.out_elements[0] == 2 * prod(out)


@pytest.mark.parametrize("a, b, groups, p, k, c", [
    ((5, 7), (7, 9), 1, 5, 9, 7),
    ((2, 3, 5, 7), (2, 3, 7, 9), 6, 5, 9, 7),
    ((2, 3, 5, 7), (7, 9), 1, 30, 9, 7),  # axes of one factor join its rows
    ((2, 3, 5, 7), (3, 7, 9), 3, 10, 9, 7),
    ((2, 1, 5, 7), (1, 3, 7, 9), 1, 10, 27, 7),
    ((7,), (2, 7, 9), 1, 1, 18, 7),
])  # fmt: skip
def test_matmul(load, a, b, groups, p, k, c):
    y = np.matmul(np.zeros(a), np.zeros(b)).shape
    both = load([node("MatMul", ["a", "b"], ["y"])], [value("a", *a), value("b", *b)], [value("y", *y)])
    one = row(both, 0)
    assert kinds(both) == {"attention_gemm": 1} and both.parameters == 0
    assert [one[n] for n in ("groups", "p", "k", "c")] == [groups, p, k, c]
    assert one["out_elements"] == prod(y) and both.macs == prod(y) * c
    fixed = load([node("MatMul", ["a", "b"], ["y"])], [value("a", *a)], ["y"], [weight("b", *b)])
    assert kinds(fixed) == {"gemm": 1} and fixed.macs == both.macs and fixed.parameters == prod(b)
    other = load([node("MatMul", ["a", "b"], ["y"])], [value("b", *b)], ["y"], [weight("a", *a)])
    assert other.macs == both.macs and other.parameters == prod(a)


def test_gemm_and_a_bias_added_after_a_product(load):
    stored = [weight("w", 9, 7), weight("c", 9), weight("v", 9, 4), weight("d", 4)]
    nodes = [
        node("Gemm", ["x", "w", "c"], ["y"], transA=1, transB=1), node("MatMul", ["y", "v"], ["m"]), node("Add", ["d", "m"], ["z"]),
    ]  # fmt: skip
    got = load(nodes, [value("x", 7, 5)], ["z"], stored)
    assert kinds(got) == {"gemm": 2} and got.macs == 5 * 7 * 9 + 5 * 9 * 4
    assert got.operators.parameters.tolist() == [63 + 9, 36 + 4]
    several = load([*nodes, node("Relu", ["m"], ["r"])], [value("x", 7, 5)], ["z", "r"], stored)
    assert kinds(several) == {"gemm": 2, "add": 1, "relu": 1}  # the product itself is read: the sum stays


@settings(max_examples=60)
@given(st.data())
def test_einsum_of_two_operands_counts_every_combination(tmp_path_factory, data):
    sizes = dict(
        zip(string.ascii_lowercase, data.draw(st.lists(st.integers(2, 5), min_size=2, max_size=6)), strict=False)
    )
    labels = list(sizes)
    role = {label: data.draw(st.sampled_from(["both", "sum", "left", "right"])) for label in labels}
    role[labels[0]] = "sum"
    left = [x for x in labels if role[x] != "right"]
    right = data.draw(st.permutations([x for x in labels if role[x] != "left"]))
    out = data.draw(st.permutations([x for x in labels if role[x] != "sum"]))
    text = f"{''.join(left)},{''.join(right)}->{''.join(out)}"
    values = [value(n, *(sizes[x] for x in each)) for n, each in (("a", left), ("b", right))]
    got = load_in(tmp_path_factory.mktemp("einsum"), [node("Einsum", ["a", "b"], ["y"], equation=text)], values, ["y"])
    assert got.macs == prod(sizes.values())
    shape = np.einsum(text, *(np.zeros([sizes[x] for x in each]) for each in (left, right))).shape
    assert got.operators.out_elements[0] == prod(shape)


@pytest.mark.parametrize("text, shapes, macs, parameters", [
    ("bij,jk->bik", [(2, 3, 4), (4, 5)], 2 * 3 * 4 * 5, 20),
    ("...ij,...jk->...ik", [(6, 2, 3, 4), (2, 4, 5)], 6 * 2 * 3 * 4 * 5, 40),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], 2 * 3 * 4 + 2 * 4 * 5, 12 + 20),  # from the left
    ("ij,kj", [(2, 3), (4, 3)], 24, 12),
])  # fmt: skip
def test_einsum_with_weights(load, text, shapes, macs, parameters):
    names = "abc"[: len(shapes)]
    stored = [weight(n, *s) for n, s in zip(names[1:], shapes[1:], strict=True)]
    got = load([node("Einsum", list(names), ["y"], equation=text)], [value("a", *shapes[0])], ["y"], stored)
    assert (got.macs, got.parameters) == (macs, parameters)


@pytest.mark.parametrize("kind, gates, lanes", [("LSTM", 4, 17), ("GRU", 3, 14), ("RNN", 1, 3)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers(load, kind, gates, lanes, directions):
    steps, batch, depth, width = 11, 3, 5, 7
    stored = [weight("w", directions, gates * width, depth), weight("r", directions, gates * width, width),
              weight("b", directions, 2 * gates * width)]  # fmt: skip
    where = "bidirectional" if directions == 2 else "forward"
    made = node(kind, ["x", "w", "r", "b"], ["y", "h"], hidden_size=width, direction=where)
    got = load([made], [value("x", steps, batch, depth)], ["y", "h"], stored)
    assert got.macs == directions * steps * batch * gates * width * (depth + width)
    assert got.parameters == directions * gates * width * (depth + width + 2)
    assert got.operators.lane_ops.tolist() == [0, 0, lanes * directions * steps * batch * width]
    assert got.operators.groups.tolist() == [directions] * 3 and got.operators.p.tolist() == [steps * batch] * 3


def attention_macs(got):
    return [n for n in exact_macs(got.operators) if n]


def test_attention_of_onnx_with_grouped_heads_and_a_cache(load):
    b, heads, kv, q, new, past, d, dv = 2, 8, 2, 5, 5, 11, 16, 24
    inputs = [value("q", b, q, heads * d), value("k", b, new, kv * d), value("v", b, new, kv * dv), value("m", q, new + past),
              value("pk", b, kv, past, d), value("pv", b, kv, past, dv)]  # fmt: skip
    made = node("Attention", ["q", "k", "v", "m", "pk", "pv"], ["y", "ok", "ov"], q_num_heads=heads, kv_num_heads=kv)
    got = load([made], inputs, ["y", "ok", "ov"], opset=23)
    assert attention_macs(got) == [b * heads * q * (new + past) * d, b * heads * q * (new + past) * dv]
    scores = row(got, got.names.index("Attention_y.scores"))
    assert (scores["groups"], scores["p"], scores["k"], scores["c"]) == (b * kv, q * heads // kv, new + past, d)
    assert scores["in_elements"] == b * q * heads * d + b * kv * (new + past) * d  # keys once for all heads


def test_attention_of_onnx_runtime(load):
    b, s, heads, d = 2, 6, 4, 8
    wide = heads * d
    x = value("x", b, s, wide)
    packed = load(
        [node("Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=heads)], [x], ["y"],
        [weight("w", wide, 3 * wide), weight("b", 3 * wide)],
    )  # fmt: skip
    one = b * heads * s * s * d
    assert attention_macs(packed) == [b * s * wide * 3 * wide, one, one] and packed.parameters == 3 * wide * (wide + 1)
    names, many = ["x", "k", "v"], [x, value("k", b, s, wide), value("v", b, s, wide)]
    heads_of = load([node("MultiHeadAttention", names, ["y"], domain="com.microsoft", num_heads=heads)], many, ["y"])
    assert attention_macs(heads_of) == [one, one]
    cache = [value("pk", b, 1, 10, d), value("pv", b, 1, 10, d), value("l", b, elem=6), ints("t", 16)]
    made = node("GroupQueryAttention", ["x", "k", "v", "pk", "pv", "l", "t"], ["y", "a", "b"], domain="com.microsoft",
                num_heads=heads, kv_num_heads=1, do_rotary=1)  # fmt: skip
    grouped = load([made], [x, value("k", b, s, d), value("v", b, s, d), *cache[:3]], ["y", "a", "b"], cache[3:])
    assert attention_macs(grouped) == [b * heads * s * 16 * d] * 2 and kinds(grouped)["rope"] == 2


def test_quantised_operators_and_pairs_of_quantise_and_dequantise(load):
    x, s, z = value("x", 1, 3, 8, 8), number("s", 0.1), number("z", 0, np.uint8)
    stored = [s, z, weight("w", 4, 3, 3, 3, elem=I8), weight("zs", 4, elem=I8), weight("ws", 4), weight("b", 4, elem=6)]
    pairs = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]), node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "zs"], ["wd"], axis=0), node("Conv", ["xd", "wd"], ["y"]),
        node("QuantizeLinear", ["y", "s", "z"], ["yq"]), node("DequantizeLinear", ["yq", "s", "z"], ["yd"]),
    ]  # fmt: skip
    got = load(pairs, [x], ["yd"], stored)
    assert kinds(got) == {"quantize": 2, "conv": 1} and got.parameters == 4 * 27
    conv = row(got, got.names.index("Conv_y"))
    assert (conv["in_bits"], conv["weight_bits"], conv["out_bits"]) == (8, 8, 32) and got.weight_bytes == 108
    direct = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("QLinearConv", ["xq", "s", "z", "w", "ws", "zs", "s", "z", "b"], ["y"]),
    ]
    got = load(direct, [x], [value("y", 1, 4, 6, 6, elem=U8)], stored)
    assert got.macs == 36 * 108 and got.parameters == 108 + 4
    assert (row(got, 1)["in_bits"], row(got, 1)["out_bits"]) == (8, 8)
    for kind, names in (("MatMulInteger", ["a", "v"]), ("QLinearMatMul", ["a", "s", "z", "v", "s", "z", "s", "z"])):
        got = load([node(kind, names, ["y"])], [value("a", 5, 7, elem=U8)], ["y"], [s, z, weight("v", 7, 9, elem=U8)])
        assert got.macs == 5 * 7 * 9 and got.parameters == 63 and row(got, 0)["weight_bits"] == 8


def test_weights_of_four_bits(load):
    made = node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=64, N=10, bits=4, block_size=32)
    stored = [weight("w", 10, 2, 16, elem=U8), weight("s", 20)]
    got = load([made], [value("x", 3, 64)], ["y"], stored)
    assert got.macs == 3 * 64 * 10 and got.parameters == 640 and got.weight_bytes == 640 / 2 + 20 * 4
    four = [weight("w", 64, 10, elem=TensorProto.INT4), weight("s", 10)]
    nodes = [node("DequantizeLinear", ["w", "s"], ["d"], axis=1), node("MatMul", ["x", "d"], ["y"])]
    got = load(nodes, [value("x", 3, 64)], ["y"], four)
    assert got.parameters == 640 and got.weight_bytes == 320


# parameters


def test_shared_weights_count_once(load):
    nodes = [node("Gather", ["t", "i"], ["e"]), node("Transpose", ["t"], ["tt"]), node("MatMul", ["e", "tt"], ["y"])]
    got = load(nodes, [value("i", 5, elem=I64)], ["y"], [weight("t", 100, 16)])
    assert got.operators.parameters.tolist() == [1600, 0] and got.operators.weight_elements.tolist() == [0, 1600]


def test_what_is_a_parameter(load):
    stored = [weight("g", 8), weight("pos", 32, 8), weight("mask", 4, 8, elem=BOOL), number("half", 0.5), ints("p", 0, 1, 2, 3),
              weight("f", 4)]  # fmt: skip
    nodes = [
        node("Gather", ["pos", "p"], ["table"]),  # learned positions, looked up once and for all
        node("Add", ["x", "table"], ["a"]), node("Mul", ["a", "g"], ["b"]), node("Mul", ["b", "half"], ["c"]),
        node("Where", ["mask", "c", "a"], ["d"]),
        node("Concat", ["f", "f"], ["ff"], axis=0), node("Cos", ["ff"], ["cos"]), node("Mul", ["d", "cos"], ["y"]),
    ]  # fmt: skip
    assert load(nodes, [value("x", 4, 8)], ["y"], stored).parameters == 8 + 32 * 8


def test_sparse_weights(load):
    values = helper.make_tensor("w", F, [6], [1.0] * 6)
    sparse = helper.make_sparse_tensor(values, ints("i", *range(6)), [8, 3])
    got = load([node("MatMul", ["x", "w"], ["y"])], [value("x", 4, 8)], ["y"], sparse=[sparse])
    assert got.parameters == 6 and got.macs == 4 * 2 * 3  # a quarter of the depth is left


def test_external_data_there_or_not(load, tmp_path):
    shape = ints("s", 2, 16)
    shape.ClearField("raw_data")
    shape.data_location = TensorProto.EXTERNAL
    for key, said in (("location", "data.bin"), ("offset", "8"), ("length", "16")):
        shape.external_data.add(key=key, value=said)
    nodes, x = [node("Reshape", ["x", "s"], ["r"]), node("Relu", ["r"], ["y"])], value("x", 4, 8)
    with pytest.raises(ValueError, match="elements of 's', which are not in the file"):
        load(nodes, [x], [helper.make_tensor_value_info("y", F, None)], [shape])
    (tmp_path / "data.bin").write_bytes(np.asarray([9, 2, 16], np.int64).tobytes())
    assert load(nodes, [x], ["y"], [shape]).operators.k.tolist() == [16]
    shape.external_data[0].value = "../data.bin"  # never outside the folder
    with pytest.raises(ValueError, match="which are not in the file"):
        load(nodes, [x], ["y"], [shape])


def test_shapes_are_computed_from_shapes(load):
    """What torch writes for x.view(x.size(0), -1, x.size(2) // 2)."""
    nodes = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]), node("Gather", ["s", "two"], ["w"]),
        node("Div", ["w", "two"], ["h"]), node("Unsqueeze", ["n", "z1"], ["nu"]), node("Unsqueeze", ["h", "z1"], ["hu"]),
        node("Concat", ["nu", "minus", "hu"], ["target"], axis=0), node("Reshape", ["x", "target"], ["y"]),
        node("MatMul", ["y", "v"], ["z"]),
    ]  # fmt: skip
    stored = [
        number("zero", 0, np.int64),
        number("two", 2, np.int64),
        ints("z1", 0),
        ints("minus", -1),
        weight("v", 5, 7),
    ]
    got = load(nodes, [value("x", "batch", 6, 10)], ["z"], stored, bind={"batch": 3})
    assert got.macs == 3 * 12 * 5 * 7 and got.batch.tolist() == [3]


def test_unknown_operators_are_data_movement(load):
    nodes = [
        node("Secret", ["x"], ["a"], domain="own"),
        node("Other", ["a"], ["b"], domain="own"),
        node("Relu", ["b"], ["y"]),
    ]
    with pytest.warns(ImportedModelWarning, match="unknown operators count as data movement: own.Secret, own.Other$"):
        assert kinds(load(nodes, [value("x", 4, 8)], ["y"])) == {"copy": 2, "relu": 1}


def test_dead_code_goes_and_components_need_not_be_connected(load):
    nodes = [node("Relu", ["x"], ["a"]), node("Tanh", ["z"], ["b"]), node("MatMul", ["x", "w"], ["unused"])]
    got = load(nodes, [value("x", 4, 8), value("z", 3)], ["a", "b"], [weight("w", 8, 8)])
    assert kinds(got) == {"relu": 1, "tanh": 1} and got.parameters == 0


def test_nodes_in_any_order(load):
    nodes = [node("Tanh", ["a"], ["y"]), node("Relu", ["x"], ["a"])]
    assert [n.split("_")[0] for n in load(nodes, [value("x", 4)], ["y"]).names] == ["Relu", "Tanh"]


def test_outputs_that_are_read_again_are_written_as_well(load):
    got = load([node("Relu", ["x"], ["a"]), node("Tanh", ["a"], ["b"])], [value("x", 4)], ["a", "b"])
    assert got.outside_out_bytes.tolist() == [16, 16]
    assert kinds(load([node("Reshape", ["x", "s"], ["y"])], [value("x", 4)], ["y"], [ints("s", 2, 2)])) == {"copy": 1}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["Relu", "Tanh", "Add", "Mul", "Transpose", "MatMul", "Concat"]), min_size=1, max_size=12)
)
def test_chains_of_operators_keep_their_amounts(tmp_path_factory, names):
    """Any chain: the edges carry what rows read, and the products count."""
    nodes, here, width, macs = [], "x", 4, 0
    for i, name in enumerate(names):
        more = {"Transpose": {"perm": [0, 1]}, "Concat": {"axis": 1}}.get(name, {})
        inputs = [here, here] if name in ("Add", "Mul", "Concat") else [here, "w"] if name == "MatMul" else [here]
        if name == "MatMul":
            inputs[1], macs = f"w{width}", macs + 3 * width * 4
        nodes.append(node(name, inputs, [f"v{i}"], **more))
        width = 4 if name == "MatMul" else 2 * width if name == "Concat" else width
        here = f"v{i}"
    stored = [weight(f"w{4 * 2**i}", 4 * 2**i, 4) for i in range(13)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = load_in(tmp_path_factory.mktemp("chain"), nodes, [value("x", 3, 4)], [here], stored)
    assert got.macs == macs
    entering = got.input_bytes.sum(axis=1) + got.outside_in_bytes
    np.testing.assert_allclose(entering, got.operators.in_elements * got.operators.in_bits / 8)
