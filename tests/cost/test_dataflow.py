"""What happens inside one chiplet: cycles and bytes worked out by hand, a simulated array, and the smooth ceiling."""

from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel._numerics import ceil_divide
from perfmodel.cost import on_chip
from perfmodel.hardware import DATAFLOWS
from perfmodel.workload import operator_row, stack_operators

CODE = {name: code for code, name in enumerate(DATAFLOWS)}


def chip(flow="ws", rows=64, columns=64, lanes=256):
    """One chiplet of mcm-2x2, changed, as scalars."""
    one = jax.tree.map(lambda x: x[0], pm.systems.load("mcm-2x2").chiplets)
    new = (np.float32(rows), np.float32(columns), np.int32(CODE[flow]), np.float32(lanes))
    return eqx.tree_at(lambda c: (c.rows, c.columns, c.dataflow, c.lanes), one, new)


def one(kind, **sizes):
    """A single operator as scalars."""
    return jax.tree.map(lambda x: jnp.asarray(x[0]), stack_operators([operator_row(kind, **sizes)]))


run = jax.jit(on_chip, static_argnames="smooth")

CONV1 = dict(k=64, c=3, p=112, q=112, r=7, s=7, stride=2)  # of ResNet: 112*112 = 12544 pixels, 3*49 = 147 deep
GEMM = dict(k=768, c=768, p=1024)  # 1024 tokens through a 768 x 768 matrix
SCORES = dict(groups=12, k=1024, c=64, p=1024)  # 12 heads of 64, 1024 tokens


@pytest.mark.parametrize("flow, kind, sizes, cycles", [
    # ws: one K tile, one C tile, 49 taps, every pixel
    ("ws", "conv", CONV1, 1 * 1 * 49 * 112 * 112),
    # os: 2 x 2 folds of 64 x 64 pixels, each 64 filters of depth 147
    ("os", "conv", CONV1, 2 * 2 * 64 * 3 * 49),
    # os-flex: 64 filters over rows, 12544 pixels over columns in 196 tiles, depth 147: less than 37632
    ("os-flex", "conv", CONV1, 196 * 147),
    # ws: 12 tiles of K, 12 of C, 1024 rows each
    ("ws", "gemm", GEMM, 12 * 12 * 1024),
    # os: 1024 rows fit the 4096 PEs in one fold; 768 columns one after the other, each 768 deep
    ("os", "gemm", GEMM, 1 * 768 * 768),
    # os-flex: 12 tiles of columns, 16 of rows, 768 deep
    ("os-flex", "gemm", GEMM, 12 * 16 * 768),
    ("ws", "attention_gemm", SCORES, 12 * 16 * 1 * 1024),
    ("os", "attention_gemm", SCORES, 12 * 1 * 1024 * 64),
    ("os-flex", "attention_gemm", SCORES, 12 * 16 * 16 * 64),
    # one row through a matrix: ws keeps the array busy one cycle a tile, os uses one PE
    ("ws", "gemm", dict(k=768, c=768), 12 * 12),
    ("os", "gemm", dict(k=768, c=768), 768 * 768),
    ("os-flex", "gemm", dict(k=768, c=768), 12 * 768),
    # a batch of 3 pictures of 65 x 1 pixels is a GEMM of 65 rows, three times
    ("os", "conv", dict(batch=3, k=2, c=5, p=65), 3 * 1 * 2 * 5),
    ("os", "conv", dict(batch=3, k=2, c=5, p=65, q=2), 3 * 2 * 1 * 2 * 5),
])  # fmt: skip
def test_cycles_by_hand(flow, kind, sizes, cycles):
    got = run(one(kind, **sizes), chip(flow))
    assert got.cycles == cycles
    assert got.fill_cycles == 128  # through the rows and out of the columns


@pytest.mark.parametrize("flow, kind, sizes, nbytes", [
    # inputs: for each of 112 rows of results 7 rows of 111 * 2 + 7 = 229 pixels, 3 channels; weights once; results of one byte once
    ("ws", "conv", CONV1, 112 * 7 * 229 * 3 + 64 * 147 + 12544 * 64),
    # inputs: 3 channels of the 117 x 117 pixels under 56 x 56 results, for each of 64 filters and four folds; weights in each fold
    ("os", "conv", CONV1, 64 * 4 * 3 * 117 * 117 + 4 * 64 * 147 + 12544 * 64),
    # 64 results side by side: 7 rows of 63 * 2 + 7 = 133 pixels, one pass over K; weights for each of 196 tiles
    ("os-flex", "conv", CONV1, 196 * 3 * 7 * 133 + 196 * 64 * 147 + 12544 * 64),
    # inputs for each of 12 K tiles; weights once; sums of 4 bytes out and back between 12 C tiles, results once
    ("ws", "gemm", GEMM, 1024 * 768 * 12 + 768 * 768 + 1024 * 768 * (2 * 11 * 4 + 1)),
    ("os", "gemm", GEMM, 768 * 1024 * 768 + 768 * 768 + 1024 * 768),
    ("os-flex", "gemm", GEMM, 12 * 1024 * 768 + 16 * 768 * 768 + 1024 * 768),
    # a 1x1 window that skips every other pixel reads each pixel it needs once
    ("ws", "conv", dict(k=64, c=64, p=10, q=10, stride=2), 100 * 64 + 64 * 64 + 100 * 64),
])  # fmt: skip
def test_buffer_bytes_by_hand(flow, kind, sizes, nbytes):
    assert run(one(kind, **sizes), chip(flow)).buffer_bytes == pytest.approx(nbytes, rel=1e-6)


CYCLES, OUT = 49 * 12544, 12544 * 64


@pytest.mark.parametrize("flow, kind, sizes, nbytes", [
    # ws: weights into their store, and out once for a row of 112 results; pixels into the store beside a column, and one a cycle and
    # channel out; 49 visits of a 4-byte sum, 48 of them find one, the last leaves a byte, which is read once to leave the store
    ("ws", "conv", CONV1, 64 * 147 + OUT * 147 / 112 + 112 * 7 * 229 * 3 + 3 * CYCLES + OUT * ((48 + 48) * 4 + 1 + 1)),
    # os: pixels into the plane, and one a MAC out; a result into its store and out
    ("os", "conv", CONV1, 64 * 4 * 3 * 117 * 117 + OUT * 147 + 2 * OUT),
    # os-flex: 64 filters share each of 64 pixels of a cycle
    ("os-flex", "conv", CONV1, 196 * 3 * 7 * 133 + 64 * 196 * 147 + 2 * OUT),
    # ws: a weight stays at the multiplier for all 1024 rows; inputs for each of 12 tiles of K; sums of 12 tiles of C, in and out again
    ("ws", "gemm", GEMM, 2 * 768 * 768 + 2 * 12 * 1024 * 768 + 2 * 1024 * 768 * (2 * 11 * 4 + 1)),
])  # fmt: skip
def test_local_bytes_by_hand(flow, kind, sizes, nbytes):
    assert run(one(kind, **sizes), chip(flow)).local_bytes == pytest.approx(nbytes, rel=1e-6)


@pytest.mark.parametrize("kind, sizes, cycles, nbytes", [
    ("relu", dict(k=64, p=112, q=112), 802816 / 256, 2 * 802816),
    ("add", dict(k=64, p=112, q=112, in_elements=2 * 802816), 802816 / 256, 3 * 802816),
    ("layer_norm", dict(k=768, p=1024, parameters=1536), 6 * 786432 / 256, 2 * 786432 + 1536),
    ("softmax", dict(groups=12, k=1024, p=1024), 5 * 12 * 1024 * 1024 / 256, 2 * 12 * 1024 * 1024),
    ("max_pool", dict(k=64, p=56, q=56, r=3, s=3, stride=2, in_elements=802816), 9 * 200704 / 256, 802816 + 200704),
    ("gelu", dict(k=100, bits=16), 1, 400),  # 200 operations on 256 lanes
    ("gelu", dict(k=129), 2, 258),
])  # fmt: skip
def test_vector_operators_by_hand(kind, sizes, cycles, nbytes):
    got = run(one(kind, **sizes), chip())
    assert (got.cycles, got.fill_cycles, got.buffer_bytes, got.local_bytes) == (cycles, 0, nbytes, 0)


def simulate(flow, rows, columns, *, groups=1, n=1, k=1, c=1, p=1, q=1, r=1, s=1):
    """Cycles of an array, one after the other; checks that every MAC is done exactly once and by a PE of its own."""

    def tiles(size, width):
        return [range(a, min(a + width, size)) for a in range(0, size, width)]

    pixels = list(product(range(n), range(p), range(q)))
    cycles, done = 0, set()

    def cycle(macs):
        nonlocal cycles
        assert len(macs) <= rows * columns and done.isdisjoint(macs)
        cycles += 1
        done.update(macs)

    for g in range(groups):
        taps = list(product(range(c), range(r), range(s)))
        if flow == "ws":
            for ks, cs, rr, ss, pixel in product(tiles(k, rows), tiles(c, columns), range(r), range(s), pixels):
                cycle({(g, kk, (cc, rr, ss), pixel) for kk in ks for cc in cs})
        elif flow == "os" and q == 1:  # rows of a GEMM over all PEs
            for b, ps, kk, tap in product(range(n), tiles(p, rows * columns), range(k), taps):
                cycle({(g, kk, tap, (b, pp, 0)) for pp in ps})
        elif flow == "os":
            for b, ps, qs, kk, tap in product(range(n), tiles(p, rows), tiles(q, columns), range(k), taps):
                cycle({(g, kk, tap, (b, pp, qq)) for pp in ps for qq in qs})
        else:  # "kp": filters over rows, pixels over columns
            for ks, block, tap in product(tiles(k, rows), tiles(len(pixels), columns), taps):
                cycle({(g, kk, tap, pixels[i]) for kk in ks for i in block})
    assert len(done) == groups * n * k * c * p * q * r * s
    return cycles


@given(
    st.sampled_from(("ws", "os", "os-flex")), st.integers(1, 3), st.integers(1, 4),
    st.fixed_dictionaries({
        "groups": st.integers(1, 2), "n": st.integers(1, 2), "k": st.integers(1, 4), "c": st.integers(1, 4),
        "p": st.integers(1, 5), "q": st.integers(1, 3), "r": st.integers(1, 2), "s": st.integers(1, 2),
    }),
)  # fmt: skip
def test_cycles_of_a_simulated_array(flow, rows, columns, sizes):
    op = one("conv", batch=sizes["n"], **{name: size for name, size in sizes.items() if name != "n"})
    got = run(op, chip(flow, rows, columns)).cycles
    if flow == "os-flex":
        ways = [("os", rows, columns), ("kp", rows, columns), ("kp", columns, rows)]
        assert got == min(simulate(*way, **sizes) for way in ways)
    else:
        assert got == simulate(flow, rows, columns, **sizes)


SIZE = st.integers(1, 300)
CONVS = st.fixed_dictionaries({
    "groups": st.integers(1, 8), "batch": st.integers(1, 3), "k": SIZE, "c": SIZE, "p": st.integers(1, 40),
    "q": st.integers(1, 40), "r": st.integers(1, 7), "s": st.integers(1, 7), "stride": st.integers(1, 3),
})  # fmt: skip


@given(CONVS, st.sampled_from(DATAFLOWS), st.integers(1, 128), st.integers(1, 128), st.booleans())
def test_never_more_than_one_mac_a_pe_and_cycle(sizes, flow, rows, columns, smooth):
    op, got = one("conv", **sizes), run(one("conv", **sizes), chip(flow, rows, columns), smooth=smooth)
    assert op.macs <= got.cycles * rows * columns * (1 + 1e-5)
    # every operand passes the buffer at least once
    least = op.weight_elements + op.out_elements
    assert got.buffer_bytes >= least * (1 - 1e-5) and got.local_bytes > 0


@given(CONVS, st.integers(1, 128), st.integers(1, 128))
def test_os_flex_is_never_slower_than_os(sizes, rows, columns):
    op = one("conv", **sizes)
    assert run(op, chip("os-flex", rows, columns)).cycles <= run(op, chip("os", rows, columns)).cycles


# not rs: its closed-form mapping fills the buffer with partial sums, and wider strips leave less of it to channels
@given(
    CONVS,
    st.sampled_from([flow for flow in DATAFLOWS if flow not in ("rs", "gpu")]),
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(0, 64),
    st.integers(0, 64),
)
def test_a_larger_array_is_never_slower(sizes, flow, rows, columns, more_rows, more_columns):
    op = one("conv", **sizes)
    larger = run(op, chip(flow, rows + more_rows, columns + more_columns)).cycles
    assert larger <= run(op, chip(flow, rows, columns)).cycles


@given(st.integers(1, 10**6), st.integers(1, 4096))
def test_ceilings(a, b):
    exact, smooth = (
        float(ceil_divide(jnp.float32(a), jnp.float32(b))),
        float(ceil_divide(jnp.float32(a), jnp.float32(b), True)),
    )
    assert exact == -(-a // b)
    upper = (a + b - 1) / b  # the smooth one lies between a/b and this, and at most (1 - 1/b)/2 from the exact one
    assert max(a / b, 1) * (1 - 1e-6) <= smooth <= max(upper, 1) * (1 + 1e-6)
    assert abs(smooth - exact) <= (1 - 1 / b) / 2 + 1e-6 * smooth


def test_ceilings_by_a_constant_in_jit_are_exact():
    a = np.arange(1, 4097)
    for b in (3, 7, 12, 13, 14, 24, 28, 49, 56, 96):
        got = jax.jit(lambda x, b=b: ceil_divide(x, jnp.float32(b)))(a.astype(np.float32))
        np.testing.assert_array_equal(got, -(-a // b))
        large = np.random.default_rng(b).integers(1, 2**23, 10_000)
        got = jax.jit(lambda x, b=b: ceil_divide(x, jnp.float32(b)))(large.astype(np.float32))
        np.testing.assert_array_equal(got, -(-large // b))


def test_smooth_ceiling_has_the_slope_of_the_ratio(x64):
    slope = jax.grad(lambda a: ceil_divide(a, 7.0, True))(40.0)
    assert slope == pytest.approx(1 / 7)
    assert jax.grad(lambda b: ceil_divide(40.0, b, True))(7.0) == pytest.approx(-40 / 49 + 0.5 / 49)
