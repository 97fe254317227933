"""Row-stationary arrays: passes worked out by hand, limits of the hardware, the search of a mapping."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.cost import RowMapping, best_row_mapping, on_chip, row_mappings, row_stationary_cost
from perfmodel.cost.nest import filling_mapping
from perfmodel.workload import operator_row, stack_operators


@pytest.fixture(scope="module")
def chip():
    return jax.tree.map(lambda x: jnp.asarray(x[0]), pm.systems.load("eyeriss").chiplets)


def conv(**sizes):
    row = operator_row("conv", bits=16, psum_bits=16, **sizes)
    return jax.tree.map(lambda x: jnp.asarray(x[0]), stack_operators([row]))


CONV3 = dict(batch=4, k=384, c=256, p=13, q=13, r=3, s=3)  # of AlexNet
CONV1 = dict(batch=4, k=96, c=3, p=55, q=55, r=11, s=11, stride=4)
cost_of, rule = jax.jit(row_stationary_cost), jax.jit(filling_mapping)


def test_a_layer_by_hand(chip):
    # whole maps of 4 images, 64 filters' sums in the buffer; 4 channels and 16 filters in a PE, 2 x 2 sets of 3 x 13 PEs
    got = cost_of(conv(**CONV3), chip, RowMapping(*map(jnp.float32, (13, 1, 4, 64, 16, 4, 2, 2))))
    passes = (384 // 32) * (256 // 8)
    # multiply 4 * 16 * 4 * 3 * 13 = 9984; sums 4 * 32 * 169 / 4 = 5408; inputs 4 * 8 * 15 * 15 = 7200
    assert got.cycles == passes * 9984
    assert got.ramp_cycles == passes * (32 * 8 * 9 / 4 + 15 * 8 * 3)
    assert got.active_pes == 3 * 13 * 4
    inputs, weights = 4 * 256 * 15 * 15, 384 * 256 * 9
    assert (got.input_reads, got.weight_reads, got.sum_passes) == (12 * inputs, weights, 32)
    assert (got.input_loads, got.weight_loads) == (6 * inputs, weights)


@pytest.mark.parametrize("mapping, cycles", [
    # one channel at a time: sums bind, 4 * 64 * 169 / 4 cycles in each of 6 * 256 passes
    ((13, 1, 4, 64, 16, 1, 1, 4), 6 * 256 * 4 * 64 * 169 / 4),
    # 16 channels at a time into 16 filters: the one word a cycle of the inputs binds
    ((13, 1, 4, 64, 16, 4, 4, 1), 24 * 16 * 4 * 16 * 225),
])  # fmt: skip
def test_what_binds(chip, mapping, cycles):
    assert cost_of(conv(**CONV3), chip, RowMapping(*map(jnp.float32, mapping))).cycles == cycles


def test_strips_read_their_halo_again(chip):
    # 55 rows in strips of 7: eight strips, of which 7 * 4 + 7 rows are read, but for the last with 6
    got = cost_of(conv(**CONV1), chip, RowMapping(*map(jnp.float32, (7, 1, 1, 96, 16, 1, 1, 2))))
    rows = 7 * (6 * 4 + 11) + (5 * 4 + 11)
    assert got.input_loads == 4 * 3 * rows * 227 and got.input_reads == 3 * got.input_loads
    assert got.weight_loads == 4 * 8 * 96 * 3 * 121 and got.active_pes == 154


def fits(row, op, banks=24):
    """The limits of the chip, by its own numbers."""
    e, cuts, n, m, p, q, r, t = row
    height, width, stride = int(op.r), int(op.s), int(op.stride)
    assert q * width <= 12 and p * q * width <= 224 and p <= 24
    folds = -(-e // 14)
    assert folds * r * t <= (12 // height) * (14 // -(-e // folds))
    assert p * t * q * r * height * width * 2 <= 8192  # two banks of filters
    w = -(-int(op.q) // cuts)
    inputs = q * r * ((e - 1) * stride + height) * ((w - 1) * stride + width) * 2
    assert -(-n * m * e * w * 2 // 4096) + -(-inputs // 4096) <= banks
    assert int(op.k) % m == 0 and m % (p * t) == 0 and int(op.c) % (q * r) == 0 and n in (1, int(op.batch))


@given(st.fixed_dictionaries({
    "batch": st.integers(1, 4), "k": st.sampled_from([1, 6, 64, 97]), "c": st.sampled_from([1, 3, 48, 64]), "p": st.integers(1, 60),
    "q": st.integers(1, 300), "r": st.integers(1, 12), "s": st.integers(1, 11), "stride": st.integers(1, 4),
}))  # fmt: skip
def test_every_mapping_keeps_to_the_hardware(sizes):
    op = conv(**sizes)
    rows = row_mappings(op, jax.tree.map(lambda x: x[0], pm.systems.load("eyeriss").chiplets))
    for row in rows[:: max(len(rows) // 50, 1)]:
        fits(row.astype(int), op)


@pytest.mark.parametrize("sizes, ratio, best", [
    # the paper's table III: e, n, m, p, q, r, t of CONV1, CONV2, CONV5 of AlexNet
    (CONV1, 1.0, (7, 1, 96, 16, 1, 1, 2)),
    (dict(groups=2, batch=4, k=128, c=48, p=27, q=27, r=5, s=5), 0.56, (27, 1, 64, 16, 2, 1, 1)),
    (dict(groups=2, batch=4, k=128, c=192, p=13, q=13, r=3, s=3), 0.56, (13, 4, 64, 16, 3, 2, 2)),
])  # fmt: skip
def test_the_search_finds_the_published_mapping(chip, sizes, ratio, best):
    mapping, cost = best_row_mapping(conv(**sizes), chip, ratio)
    assert (mapping.e, *mapping[2:]) == best
    again = cost_of(conv(**sizes), chip, RowMapping(*map(jnp.float32, mapping)))
    np.testing.assert_allclose([float(x) for x in again], cost, rtol=1e-6)


def test_the_search_is_of_least_traffic(chip):
    op = conv(k=12, c=6, p=20, q=20, r=3, s=3)
    rows = row_mappings(op, chip)
    cost = jax.jit(jax.vmap(lambda m: row_stationary_cost(op, chip, RowMapping(*m))))(jnp.asarray(rows, jnp.float32))
    mapping, best = best_row_mapping(op, chip)
    busy = cost.active_pes >= 0.9 * cost.active_pes.max()
    assert best.input_loads + best.weight_loads == pytest.approx(
        float((cost.input_loads + cost.weight_loads)[busy].min())
    )
    assert best.active_pes >= 0.9 * cost.active_pes.max() and len(mapping) == 8


def test_a_buffer_that_holds_nothing(chip):
    with pytest.raises(ValueError, match="no row-stationary mapping fits a buffer of 12288 bytes"):
        best_row_mapping(conv(**CONV1), eqx.tree_at(lambda c: c.buffer_bytes, chip, jnp.float32(12288)))


@given(st.fixed_dictionaries({
    "groups": st.integers(1, 3), "batch": st.integers(1, 4), "k": st.integers(1, 600), "c": st.integers(1, 600), "p": st.integers(1, 300),
    "q": st.integers(1, 300), "r": st.integers(1, 14), "s": st.integers(1, 14), "stride": st.integers(1, 4),
}))  # fmt: skip
def test_the_mapping_in_closed_form_keeps_to_the_hardware(sizes):
    op = conv(**sizes)
    at = jax.tree.map(lambda x: jnp.asarray(x[0]), pm.systems.load("eyeriss").chiplets)
    m, cost = rule(op, at), cost_of(op, at, rule(op, at))
    s = sizes["s"] if sizes["s"] <= 12 else sizes["s"] / 2  # cut to the scratchpad
    assert m.q * s <= 12 * (1 + 1e-6) and m.p <= 24 and m.p * m.q * s <= 224 * (1 + 1e-6)
    assert (
        m.r * m.t * min(sizes["r"], -(-sizes["r"] // (1 + (sizes["r"] > 12)))) * m.e <= 168 and cost.active_pes <= 168
    )
    assert m.m <= sizes["k"] and m.q * m.r <= sizes["c"] * 4
    # one MAC a PE and cycle, and every sum over the bus once for each pass over channels
    assert cost.cycles * 168 >= op.macs * (1 - 1e-5)
    outputs = float(op.out_elements)
    assert cost.cycles * 4 >= outputs * cost.sum_passes * (1 - 1e-5)


def test_a_gemm_and_attention_run_too(chip):
    run = jax.jit(on_chip)
    for kind, sizes in (("gemm", dict(k=1000, c=4096, p=4)), ("attention_gemm", dict(groups=12, k=64, c=1024, p=1024))):
        op = jax.tree.map(lambda x: jnp.asarray(x[0]), stack_operators([operator_row(kind, **sizes)]))
        got = run(op, chip)
        assert all(np.isfinite(x) and x > 0 for x in got) and got.cycles * 168 >= op.macs


def test_the_rule_is_near_the_search_on_small_maps(chip):
    for sizes in (
        CONV3,
        dict(batch=3, k=512, c=512, p=14, q=14, r=3, s=3),
        dict(batch=3, k=512, c=512, p=28, q=28, r=3, s=3),
    ):
        op = conv(**sizes)
        got, (_, best) = jax.jit(on_chip)(op, chip), best_row_mapping(op, chip, 0.56)
        assert got.cycles + got.fill_cycles == pytest.approx(best.cycles + best.ramp_cycles, rel=0.1)
