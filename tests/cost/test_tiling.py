"""Which tile stays in the buffer: by hand, against an enumeration of blocks, and properties."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.cost import tiling
from perfmodel.workload import operator_row, stack_operators


def chip(buffer, rows=64, columns=64):
    one = jax.tree.map(lambda x: x[0], pm.systems.load("mcm-2x2").chiplets)
    new = (np.float32(rows), np.float32(columns), np.float32(buffer))
    return eqx.tree_at(lambda c: (c.rows, c.columns, c.buffer_bytes), one, new)


def one(kind="conv", **sizes):
    return jax.tree.map(lambda x: jnp.asarray(x[0]), stack_operators([operator_row(kind, **sizes)]))


run = jax.jit(tiling, static_argnames="smooth")


def test_everything_fits_in_ten_megabytes(both, mcm):
    table = pm.cost_table(both, mcm)
    assert (np.asarray(table.input_refetch) == 1).all() and (np.asarray(table.weight_refetch) == 1).all()


@pytest.mark.parametrize("buffer, fetches", [
    # GEMM, 1024 x 768 x 768: a pixel of the block costs 768 inputs + 64 sums of 5 bytes = 1088, a filter the same;
    # two streaming tiles of 64 x 768 take 98304.  One pass over everything is 786432 + 589824 bytes.
    (98304 + 1024 * 1088, (1, 1)),  # all pixels fit
    (98304 + 768 * 1088, (1, 1)),  # all filters fit
    (98304 + 512 * 1088, (1, 2)),  # half of the pixels: the weights twice (+589824); filters: 512 of 768, inputs twice
    (98304 + 384 * 1088, (2, 1)),  # half of the filters: the inputs twice (+786432); pixels: the weights three times
    (98304 + 1088, (8, 11)),  # one of either; a square of 99 x 99 sums in half of the buffer: 768/99, 1024/99
    (1000, (77, 103)),  # no streaming tile fits; a square of 10 x 10
])  # fmt: skip
def test_fetches_by_hand(buffer, fetches):
    got = run(one("gemm", k=768, c=768, p=1024), chip(buffer))
    assert (got.input_refetch, got.weight_refetch) == fetches


def test_working_set_by_hand():
    # a 64 x 64 unit of sums (4 bytes) and results (1 byte), two slices of 64 weights and 64 inputs
    assert run(one(k=64, c=3, p=112, q=112, r=7, s=7), chip(1e7)).working_bytes == 64 * 64 * 5 + 2 * 128
    assert run(one(k=10, c=3, p=2, q=3), chip(1e7)).working_bytes == 10 * 6 * 5 + 2 * 16
    assert run(one("relu", k=10), chip(1e7)).working_bytes == 2 * 256 * 2  # two vectors of 256 lanes, in and out


def test_vector_operators_read_once_whatever_the_buffer():
    got = run(one("add", k=1000, p=1000), chip(100))
    assert (got.input_refetch, got.weight_refetch) == (1, 1)


def enumerate_blocks(op, buffer, rows, columns):
    """Least bytes moved (both operands of one group) over all blocks of whole pixels, filters, squares of sums."""
    pixels, depth = int(op.batch * op.p * op.q), int(op.c * op.r * op.s)
    k, buffer = int(op.k), buffer * (1 + 1e-9)  # what fits exactly fits
    per_pixel = float(op.in_elements) / (int(op.groups) * pixels)
    if op.is_attention:  # every GEMM of the batch by itself; a pixel reads its C inputs
        pixels, per_pixel = int(op.p * op.q), depth
    inputs, weights, sums = pixels * per_pixel, k * depth, 4 + 1
    k_unit, p_unit = min(k, rows), min(pixels, columns)
    best = None
    for block in range(1, pixels + 1):
        if 2 * k_unit * depth + block * (per_pixel + k_unit * sums) <= buffer:
            best = min(best or np.inf, inputs + weights * -(-pixels // block))
    for block in range(1, k + 1):
        if 2 * p_unit * per_pixel + block * (depth + p_unit * sums) <= buffer:
            best = min(best or np.inf, inputs * -(-k // block) + weights)
    for side in range(1, max(k, pixels) + 1):
        if 2 * side * side * sums <= buffer:
            best = min(best or np.inf, inputs * -(-k // side) + weights * -(-pixels // side))
    return best


def moved(op, got):
    if op.is_attention:
        return float(got.input_refetch * op.in_elements / (op.groups * op.batch))
    return float(got.input_refetch * op.in_elements / op.groups + got.weight_refetch * op.k * op.c * op.r * op.s)


def small(kind="conv", **sizes):
    if kind == "attention_gemm":
        sizes.update(q=1, r=1, s=1)
    return one(kind, **sizes)


SMALL = st.fixed_dictionaries({
    "kind": st.sampled_from(["conv", "attention_gemm"]),
    "groups": st.integers(1, 3), "batch": st.integers(1, 2), "k": st.integers(1, 24), "c": st.integers(1, 24),
    "p": st.integers(1, 6), "q": st.integers(1, 6), "r": st.integers(1, 3), "s": st.integers(1, 3),
})  # fmt: skip


@given(SMALL, st.integers(10, 4000), st.integers(1, 16), st.integers(1, 16))
def test_equal_to_the_best_enumerated_block(sizes, buffer, rows, columns):
    op = small(**sizes)
    best = enumerate_blocks(op, buffer, rows, columns)
    assert best is not None  # a 1 x 1 square of sums takes ten bytes
    assert moved(op, run(op, chip(buffer, rows, columns))) == pytest.approx(best, rel=1e-5)


def test_no_block_is_lost_where_the_divisor_is_a_constant():
    """XLA then multiplies with its reciprocal: the quotient may land just below the whole number that it is."""
    op, at = one("gemm", k=8, c=7, p=32), chip(0)
    closed = jax.jit(lambda buffer: tiling(op, eqx.tree_at(lambda c: c.buffer_bytes, at, buffer)))
    # a pixel costs 7 inputs + 8 sums of 5 bytes, the streaming tiles 2 * 8 * 7: exactly 16 of 32 pixels fit
    assert closed(np.float32(2 * 8 * 7 + 16 * 47)).weight_refetch == 2


@given(SMALL, st.integers(10, 4000), st.integers(0, 4000), st.booleans())
def test_more_buffer_never_moves_more(sizes, buffer, more, smooth):
    op = small(**sizes)
    less = moved(op, run(op, chip(buffer, 8, 8), smooth=smooth))
    assert moved(op, run(op, chip(buffer + more, 8, 8), smooth=smooth)) <= less * (1 + 1e-5)


@given(SMALL, st.integers(1, 4000), st.booleans())
def test_everything_is_fetched_at_least_once(sizes, buffer, smooth):
    got = run(small(**sizes), chip(buffer, 8, 8), smooth=smooth)
    assert got.input_refetch >= 1 and got.weight_refetch >= 1 and np.isfinite(got.input_refetch + got.weight_refetch)


@pytest.mark.parametrize("buffer, fetched", [
    # 1024 x 64 by 64 x 1024, 65536 bytes either operand; a pixel of the block costs 64 + 64 sums of 5 bytes = 384, two
    # streaming tiles of 64 x 64 take 8192
    (8192 + 1024 * 384, 2 * 65536),
    (8192 + 512 * 384, 3 * 65536),  # half of the pixels: the second operand twice
    (2**18, 3 * 65536),  # 661 pixels
    (8192 + 384, (36 + 36) * 65536),  # a square of 29 x 29 sums in half of the buffer: 1024/29 of either
])  # fmt: skip
@pytest.mark.parametrize("groups, batch", [(1, 1), (12, 1), (3, 4)])
def test_attention_pays_for_the_operand_that_is_fetched_again(buffer, fetched, groups, batch):
    """Both operands of an attention GEMM arrive as inputs, so `input_refetch` is the only factor applied to them."""
    got = run(one("attention_gemm", groups=groups, batch=batch, k=1024, c=64, p=1024), chip(buffer))
    assert got.weight_refetch == 1
    assert float(got.input_refetch) * 2 * 65536 == pytest.approx(fetched)


def test_attention_of_operands_of_different_size():
    # 100 pixels of 64 against 1000 filters of 64: all pixels stay, the filters pass once; then half of them, twice
    op = one("attention_gemm", k=1000, c=64, p=100)
    assert run(op, chip(8192 + 100 * 384)).input_refetch == 1
    assert float(run(op, chip(8192 + 50 * 384)).input_refetch) == pytest.approx((100 + 2 * 1000) / 1100)


def test_a_gemm_without_parameters_keeps_its_inputs_apart():
    op, stored = one("gemm", k=768, c=768, p=4, parameters=0), one("gemm", k=768, c=768, p=4)
    for buffer in (1000, 10**4, 10**6):
        assert run(op, chip(buffer)) == run(stored, chip(buffer))
