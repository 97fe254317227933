"""Layers that follow shapes: sizes, bytes and edges against hand counts; views cost nothing."""

import numpy as np
import pytest

from perfmodel.models import Net
from perfmodel.workload import KINDS, exact_macs, precision


def row(net: Net, tensor) -> dict:
    return net.rows[tensor.parts[-1][0]]


def test_a_convolution():
    net = Net("x", dtype="bf16", weight_dtype="int8")
    y = net.conv("c", net.input(2, 6, 9, 7), 8, 3, 2, groups=2, bias=True)
    assert y.shape == (2, 8, 5, 4) and y.elements == 2 * 8 * 5 * 4
    got = row(net, y)
    assert [got[n] for n in ("groups", "batch", "k", "c", "p", "q", "r", "s", "stride")] == [2, 2, 4, 3, 5, 4, 3, 3, 2]
    assert got["in_elements"] == 2 * 6 * 9 * 7 and got["parameters"] == 8 * 3 * 9 + 8
    assert (got["in_bits"], got["weight_bits"], got["out_bits"]) == (16, 8, 16)
    w = net.build()
    assert w.macs == 2 * 8 * 5 * 4 * 3 * 9 and w.outside_in_bytes.tolist() == [2 * 6 * 9 * 7 * 2]
    assert w.weight_bytes == 8 * 3 * 9 + 8


@pytest.mark.parametrize(
    "padding, dilation, size", [("valid", 1, 8), (1, 1, 10), ("same", 1, 10), (0, 2, 6), ((2, 0), 1, None)]
)
def test_padding(padding, dilation, size):
    net = Net("x")
    y = net.conv("c", net.input(1, 1, 10, 10), 1, 3, padding=padding, dilation=dilation)
    assert y.shape[2:] == ((12, 8) if size is None else (size, size))


def test_a_transposed_convolution_counts_every_pixel_once():
    net = Net("x")
    y = net.transposed_conv("t", net.input(1, 3, 5, 5), 7, 2, 2, bias=True)
    assert y.shape == (1, 7, 10, 10)
    w = net.build()
    assert w.macs == 5 * 5 * 3 * 7 * 4 and w.parameters == 3 * 7 * 4 + 7
    assert w.operators.out_elements.tolist() == [700] and w.operators.lane_ops.tolist() == [5 * 5 * 7 * 4]


def test_pools_round_as_they_are_told():
    net = Net("x")
    x = net.input(1, 4, 112, 112)
    assert net.pool("a", "max_pool", x, 3, 2).shape == (1, 4, 56, 56)
    assert net.pool("b", "max_pool", x, 3, 2, padding="valid").shape == (1, 4, 55, 55)
    assert net.pool("c", "max_pool", x, 3, 2, padding="valid", ceil=True).shape == (1, 4, 56, 56)
    y = net.global_pool("d", x)
    assert y.shape == (1, 4) and row(net, y)["lane_ops"] == 4 * 112 * 112


def test_views_cost_nothing_and_carry_shares():
    net = Net("x", dtype="bf16")
    a = net.vector("a", "relu", net.input(1, 4, 3, 3))
    b = net.vector("b", "relu", net.input(1, 2, 3, 3))
    both = net.concat(a, b)
    assert both.shape == (1, 6, 3, 3) and len(net.rows) == 2
    first, second = net.split(a, 1, 3)
    assert first.shape == (1, 1, 3, 3) and second.elements == 27
    net.vector("c", "relu", both)
    net.vector("d", "relu", first)
    net.vector("e", "add", a, a)  # the same tensor twice is one edge of twice the bytes
    w = net.build()
    edges = {(w.names[s], w.names[t]): n for s, t, n in zip(w.source, w.target, w.edge_bytes, strict=True)}
    assert edges == {("a", "c"): 72, ("b", "c"): 36, ("a", "d"): 18, ("a", "e"): 144}
    assert net.input(2, 3).reshaped(6).shape == (6,)


def test_a_sparse_weight_shortens_the_contraction():
    net = Net("x", dtype="bf16", weight_dtype="bf16-sparse87.5")
    net.linear("l", net.input(5, 64), 10, bias=True)
    w = net.build()
    assert w.macs == 5 * 8 * 10 and w.parameters == 8 * 10 + 10 and w.operators.in_elements.tolist() == [320]


def test_weights_that_are_shared_are_read_but_not_stored():
    net = Net("x")
    net.linear("l", net.input(5, 64), 10, stored=False)
    w = net.build()
    assert w.parameters == 0 and w.operators.weight_elements.tolist() == [640]


def test_products_read_both_operands_and_caches():
    net = Net("x", dtype="bf16")
    q, k = net.input(3, 2, 8), net.input(3, 1, 8)
    y = net.product("qk", q, k, groups=3, p=2, k=11, c=8, cached=3 * 10 * 8, cache_bits=8.0, outside_out_bytes=24.0)
    assert y.shape == (3, 2, 11)
    w = net.build()
    reads = 48 + 24 + 240
    assert w.macs == 3 * 2 * 11 * 8 and w.operators.in_elements.tolist() == [reads]
    np.testing.assert_allclose(w.operators.in_elements * w.operators.in_bits / 8, 48 * 2 + 24 * 2 + 240)
    assert w.outside_in_bytes.tolist() == [48 * 2 + 24 * 2 + 240]
    assert w.outside_out_bytes.tolist() == [24 + 3 * 2 * 11 * 2]  # the cache and, since nobody reads it, the result


def test_experts_share_tokens_and_idle_ones_are_not_read():
    net = Net("x")
    x = net.vector("x", "relu", net.input(10, 4))
    y = net.experts("e", x, 6, [4, 3, 3], total=8)
    assert y.shape == (10, 6) and y.elements == sum(n for _, n in y.parts)
    w = net.build()
    assert w.macs == 10 * 4 * 6 and w.parameters == 8 * 24 and w.operators.weight_elements.sum() == 3 * 24
    assert w.edge_bytes.tolist() == [16, 24]
    with pytest.raises(ValueError, match="e: experts get 3 rows; the input has 10"):
        net.experts("e", x, 6, [3], total=8)


def test_tables_are_looked_up_in_memory():
    net = Net("x", dtype="bf16")
    net.table("t", 7, 1000, 32, looked_up=3)
    w = net.build()
    assert w.parameters == 32000 and w.operators.weight_elements.tolist() == [0]
    assert w.outside_in_bytes.tolist() == [3 * 7 * 32 * 2] and w.outside_out_bytes.tolist() == [7 * 32 * 2]


def test_many_inputs_are_copied_together_eight_at_a_time():
    net = Net("x")
    parts = [net.vector(f"a{i}", "relu", net.input(1, 2)) for i in range(20)]
    net.vector("all", "relu", net.concat(*parts))
    w = net.build()
    assert w.inputs.shape[1] == 8 and sum(KINDS[k] == "copy" for k in w.operators.kind) == 2
    into = w.input_bytes[w.names.index("all")].sum()
    assert into == 40 and w.operators.out_elements.max() == 40


BAD = {
    "dtype": (lambda net: Net("x", dtype="int9"), "dtype is 'int9': did you mean int8"),
    "sparse activations": (lambda net: Net("x", dtype="int8-sparse50"), "dtype is 'int8-sparse50'; only weights may be sparse"),
    "sparsity": (lambda net: precision("bf16-sparse100"), "allowed after -sparse: per cent of zeros, at least 0 and below 100"),
    "sparsity text": (lambda net: precision("bf16-sparsemany"), "below 100"),
    "groups": (lambda net: net.conv("c", net.input(1, 3, 4, 4), 4, 1, groups=2), "c: 3 channels into 4 do not divide into 2"),
    "window": (lambda net: net.conv("c", net.input(1, 3, 4, 4), 4, 9, padding=0), "a window of 9 does not fit 4 pixels"),
    "concat": (lambda net: net.concat(net.input(1, 2, 3), net.input(1, 2, 4)), "do not go together along axis 1"),
    "split": (lambda net: net.split(net.input(1, 4), 1, 2), "parts (1, 2) do not add up to axis 1 of shape (1, 4)"),
    "reshape": (lambda net: net.input(1, 4).reshaped(3), "shape (1, 4) has 4 elements; (3,) has 3"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input(what):
    call, said = BAD[what]
    with pytest.raises(ValueError) as error:
        call(Net("x"))
    assert said in str(error.value)


def test_macs_beyond_doubles_are_exact():
    net = Net("x")
    net.linear("l", net.input(2**20 + 1, 2**17 + 1), 2**18 + 1)
    w = net.build()
    assert w.macs == (2**20 + 1) * (2**17 + 1) * (2**18 + 1) > 2**53 and exact_macs(w.operators) == [w.macs]
