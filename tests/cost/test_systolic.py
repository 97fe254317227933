"""Systolic arrays against operands that are walked through an array one by one, and the shapes of the elementwise code."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.cost import on_chip, operator_cost
from perfmodel.hardware import DATAFLOWS
from perfmodel.workload import operator_row, stack_operators

FLOWS = ("os-systolic", "ws-systolic", "is-systolic")


def chip(flow, rows=32.0, columns=32.0):
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), pm.systems.load("mcm-2x2").chiplets)
    new = [jnp.asarray(v, jnp.result_type(float)) for v in (rows, columns)]
    return eqx.tree_at(lambda c: (c.rows, c.columns, c.dataflow), one, (*new, jnp.int32(DATAFLOWS.index(flow))))


def one(kind="gemm", **sizes):
    return jax.tree.map(lambda x: jnp.asarray(x[0]), stack_operators([operator_row(kind, **sizes)]))


run = jax.jit(on_chip, static_argnames="smooth")


def walk(flow, rows, columns, m, n, depth):
    """(cycles, inputs read, weights read, outputs written) of a GEMM, from when and where each operand enters the array."""
    down, across = {"os": (m, n), "ws": (depth, n), "is": (depth, m)}[flow]
    cycles, reads, done = 0, [0, 0], set()
    writes = 0
    for top in range(0, down, rows):
        for left in range(0, across, columns):
            here = [(i, j) for i in range(top, min(top + rows, down)) for j in range(left, min(left + columns, across))]
            height, width = len({i for i, _ in here}), len({j for _, j in here})
            if flow == "os":  # inputs come in on the left, weights from above; both enter a row or column later each
                done |= {(i, j, k) for i, j in here for k in range(depth)}
                last = max(k + i + j for i in range(rows) for j in range(columns) for k in range(depth))
                reads[0] += height * depth
                reads[1] += width * depth
                writes += len(here)
            else:  # what stays is pushed in for `rows` cycles; the other streams by, sums leave at the bottom
                streams = m if flow == "ws" else n
                done |= {(x, j, i) if flow == "ws" else (j, x, i) for i, j in here for x in range(streams)}
                last = rows + max(x + i + j for i in range(rows) for j in range(columns) for x in range(streams))
                reads[1 if flow == "ws" else 0] += len(here)
                reads[0 if flow == "ws" else 1] += height * streams
                writes += width * streams
            cycles += last + 1
    assert len(done) == m * n * depth  # every product once
    return cycles, *reads, writes


@given(
    st.sampled_from(FLOWS), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9),
    st.integers(1, 2),
)  # fmt: skip
def test_a_walk_through_the_array(flow, rows, columns, m, n, depth, heads):
    got = run(one("attention_gemm", groups=heads, p=m, k=n, c=depth), chip(flow, rows, columns))
    cycles, inputs, weights, outputs = walk(flow[:2], rows, columns, m, n, depth)
    counts = (got.cycles + got.fill_cycles, got.input_reads, got.weight_reads, got.output_writes)
    assert [float(x) for x in counts] == [heads * x for x in (cycles, inputs, weights, outputs)]
    # int8 operands and results, sums of 4 bytes that go out are read back, but for the last
    final = m * n
    sums = 2 * 4 * (outputs - final) + final
    assert got.buffer_bytes == heads * (inputs + weights + sums)
    # what stays goes into its store and out once, and so do the inputs of `os` at the edge, and sums where they leave the array
    assert got.local_bytes == heads * 2 * (sums + (weights if flow == "ws-systolic" else inputs))


@pytest.mark.parametrize("flow, cycles", [
    # 3 x 3 on 64 channels, 56 x 56: M = 3136, N = 64, K = 576; SCALE-Sim prints one less
    ("os-systolic", 98 * 2 * (576 + 62)), ("ws-systolic", 18 * 2 * (3136 + 94)), ("is-systolic", 18 * 98 * (64 + 94)),
])  # fmt: skip
def test_convolutions_run_as_the_gemm_of_im2col(flow, cycles):
    conv = run(one("conv", k=64, c=64, p=56, q=56, r=3, s=3), chip(flow))
    assert conv.cycles + conv.fill_cycles == cycles
    gemm = run(one("gemm", p=3136, k=64, c=576), chip(flow))
    assert [float(x) for x in conv] == [float(x) for x in gemm]
    grouped = run(one("conv", groups=4, k=64, c=64, p=56, q=56, r=3, s=3), chip(flow))
    assert grouped.cycles == 4 * conv.cycles and grouped.fill_cycles == 4 * conv.fill_cycles


def test_attention_of_several_inputs_shares_no_operand():
    apart, together = (one("attention_gemm", p=40, k=50, c=64, **n) for n in (dict(batch=3), dict(groups=3)))
    for flow in FLOWS:
        assert [float(x) for x in run(apart, chip(flow))] == [float(x) for x in run(together, chip(flow))]


def test_the_cost_table_has_the_same_cycles():
    op, at = one("conv", k=64, c=3, p=112, q=112, r=7, s=7, stride=2), chip("ws-systolic")
    row, inside = jax.jit(operator_cost)(op, at), run(op, at)
    np.testing.assert_allclose(row.compute_s * at.clock_hz, inside.cycles, rtol=1e-6)
    np.testing.assert_allclose((row.fill_s - at.launch_s) * at.clock_hz, inside.fill_cycles, rtol=1e-5)


@pytest.mark.parametrize("flow", [*FLOWS, "ws", "os", "os-flex", "rs"])
def test_gradients_are_those_of_central_differences(flow, x64):
    op = one("conv", k=100, c=70, p=30, q=31, r=3, s=3)

    def total(x):
        got = on_chip(op, chip(flow, x[0], x[1]), smooth=True)
        return got.cycles + got.fill_cycles + 1e-3 * (got.buffer_bytes + got.local_bytes)

    at = jnp.asarray([12.3, 14.4])
    slope, h = jax.jit(jax.grad(total))(at), 1e-4
    f = jax.jit(total)
    for i in range(2):
        step = jnp.zeros(2).at[i].set(h)
        difference = float(f(at + step) - f(at - step)) / (2 * h)
        assert float(slope[i]) == pytest.approx(difference, rel=1e-5, abs=1e-6)
    # a row-stationary array holds whole sets: its mapping does not move with a fraction of a row
    assert np.isfinite(slope).all() and (flow == "rs" or (np.abs(slope) > 0).all())


def test_eager_jit_and_a_table_of_mixed_dataflows_agree():
    ops = stack_operators([operator_row("conv", k=64, c=3, p=28, q=28, r=7, s=7, stride=2), operator_row("gelu", k=100),
                           operator_row("gemm", k=100, c=200, p=30)])  # fmt: skip
    chips = [chip(flow, 12.0, 14.0) for flow in DATAFLOWS]  # seven, an odd number
    columns = jax.tree.map(lambda *x: jnp.stack(x)[None, :], *chips)
    rows = jax.tree.map(lambda x: jnp.asarray(x)[:, None], ops)
    table = jax.jit(on_chip)(rows, columns)
    mapped = jax.jit(jax.vmap(on_chip, in_axes=(None, 0)))(
        jax.tree.map(jnp.asarray, ops), jax.tree.map(lambda *x: jnp.stack(x), *chips)
    )
    for d, flow in enumerate(DATAFLOWS):
        for i in range(3):
            op = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), ops)
            alone = run(op, chips[d])
            for field, a, b, c in zip(table._fields, table, mapped, alone, strict=True):
                np.testing.assert_allclose([a[i, d], b[d, i]], float(c), rtol=1e-6, err_msg=f"{flow} {field}")
            if flow in ("os-systolic", "rs"):
                eager = on_chip(op, chips[d])
                np.testing.assert_allclose([float(x) for x in eager], [float(x) for x in alone], rtol=1e-6)
