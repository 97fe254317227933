"""Kernel models of GPUs: hand-worked values, an independent restatement, gradients, bounds, monotonicity."""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.cost import (
    CollectiveParameters,
    DecodeParameters,
    ElementwiseParameters,
    GemmParameters,
    MoeParameters,
    PrefillParameters,
    SmoothRooflineParameters,
    collective_s,
    decode_attention_s,
    elementwise_s,
    expert_loads,
    gemm_s,
    moe_s,
    plain_roofline_s,
    prefill_attention_s,
    slowdown_at_power_limit,
    smooth_roofline_s,
)
from perfmodel.hardware import gpu

A100, H100, L40S = gpu("A100-SXM-80GB"), gpu("H100-SXM-80GB"), gpu("L40S")
SIZES = st.sampled_from([1, 2, 16, 33, 64, 128, 200, 512, 1000, 4096])


def changed(tree, **values):
    """`tree` with leaves replaced."""
    for name, value in values.items():
        tree = eqx.tree_at(lambda t, n=name: getattr(t, n), tree, value)
    return tree


# ---- hand-worked -------------------------------------------------------------------------------------------------------------

# Only the tensor cores cost anything: no operand path, no latency, endless memory, splits out of question.
BARE = GemmParameters(tensor_efficiency=1.0, balanced_edge=1e-9, load_latency_s=1e-15, split_cost=1e9, pj_per_op=1e-3,
                      launch_cycles=1000.0, block_cycles=500.0)  # fmt: skip
ONE_SM = changed(A100, multiprocessors=1.0, peak_16bit_ops_per_s=2e12, dram_bytes_per_s=1e18, l2_bytes_per_cycle=1e12,
                 clock_hz=1e9)  # fmt: skip


def test_one_tile_one_wave():
    # 2 * 128 * 256 * 4096 / 2e12 = 134.218 us in one 128 x 256 tile, + 1.5 us launch and block
    assert float(gemm_s(BARE, ONE_SM, 128, 256, 4096)) == pytest.approx(134.217728e-6 + 1.5e-6, rel=1e-4)


def test_a_row_more_is_padded_to_the_tile_that_wastes_least():
    # one shape of tile covers 129 rows: waves of blocks, each with its full tile's work
    work_s = 2 * 256 * 4096 / 2e12
    tiles = [
        (16, 64),
        (16, 128),
        (32, 64),
        (32, 128),
        (64, 64),
        (64, 128),
        (64, 256),
        (128, 64),
        (128, 128),
        (128, 256),
        (256, 128),
    ]
    waves = [math.ceil(129 / rows) * math.ceil(256 / columns) for rows, columns in tiles]
    best = min(1e-6 + 0.5e-6 * n + n * r * c / 256 * work_s for n, (r, c) in zip(waves, tiles, strict=True))
    assert float(gemm_s(BARE, ONE_SM, 129, 256, 4096)) == pytest.approx(best, rel=1e-4)


def test_streamed_row_is_bytes_over_bandwidth():
    # M = 1: 2 * 8192 * 8192 bytes at half of 2e12 B/s, overlap with L2 negligible
    machine = changed(A100, dram_bytes_per_s=2e12, l2_bytes_per_cycle=1e9)
    parameters = GemmParameters(dram_efficiency=0.5, launch_cycles=1.41, gemv_share=1.0, block_cycles=1e6)
    moved = 2.0 * 8192 * 8192 + 2 * 8192  # weights and results; the one input row stays in L2
    assert float(gemm_s(parameters, machine, 1, 8192, 8192)) == pytest.approx(moved / 1e12 + 1e-9, rel=1e-4)


def test_power_limit_is_the_cube_root():
    # 0.95 pJ at 1.7 GHz, H100 at 1.83 GHz: 0.95e-12 * (1.83/1.7)^2 * 989e12 = 1088.8 W against 700 W
    assert float(slowdown_at_power_limit(H100, 0.95)) == pytest.approx((1088.76 / 700) ** (1 / 3), rel=1e-3)
    assert float(slowdown_at_power_limit(A100, 0.5)) == 1.0


def test_decode_of_one_block():
    # one sequence, one head, 64 keys: 1 wave of 1 block and 1 step of 300 + 150 cycles, 8000 + 5 + 2500 fixed, 1 cycle = 1 ns
    machine = changed(A100, clock_hz=1e9, dram_bytes_per_s=1e18, l2_bytes_per_cycle=1e9)
    assert float(decode_attention_s(DecodeParameters(), machine, 1, 64, 1, 1, 128)) == pytest.approx(
        10.955e-6, rel=1e-4
    )


def test_prefill_walks_the_causal_triangle():
    # one sequence of 256 tokens, one head of 128, on one multiprocessor at 1e12 op/s: tiles of 64 walk 64 + 128 + 192 + 256 keys,
    # 4 * 64 * 128 operations a key; mean load plus the tail of a full machine (half of the longest block)
    machine = changed(A100, multiprocessors=1.0, peak_16bit_ops_per_s=1e12, clock_hz=1e9, dram_bytes_per_s=1e18,
                      l2_bytes_per_cycle=1e9)  # fmt: skip
    p = PrefillParameters(tensor_efficiency=1.0, step_cycles=1e-9, block_cycles=1000.0, launch_cycles=2000.0,
                          sequence_cycles=1e-9, pj_per_op=1e-6)  # fmt: skip
    key_s = {64: 4 * 64 * 128 / 1e12, 128: 4 * 128 * 128 / 1e12}
    small = 640 * key_s[64] + 4e-6 + (256 * key_s[64] + 1e-6) / 2
    large = 384 * key_s[128] + 2e-6 + (256 * key_s[128] + 1e-6) / 2
    expected = 2e-6 + min(small, large)
    assert float(prefill_attention_s(p, machine, 1, 256, 256, 1, 1, 128)) == pytest.approx(expected, rel=1e-4)


def test_ring_all_reduce_of_a_large_message():
    # 8 ranks, 1 GB, A100: 2 * 7/8 GB over 0.9 * 300 GB/s, 2.5 GB through DRAM, 25 us + 14 steps of 2 us
    expected = 1.75e9 / 270e9 + 2.5e9 / 2039e9 + 53e-6
    assert float(collective_s(CollectiveParameters(), A100, 1e9, 8)) == pytest.approx(expected, rel=1e-5)


def test_small_all_reduce_is_latency():
    # 256 B between 2: 8 us + one hop of 1 us + 256 B over 0.4 * 300 GB/s
    assert float(collective_s(CollectiveParameters(), A100, 256, 2)) == pytest.approx(9e-6 + 256 / 120e9, rel=1e-5)


def test_elementwise_moves_its_bytes():
    # 4096 x 8192 additions, three times 2 bytes, not kept by L2; 5 waves of rows
    p = ElementwiseParameters(passes=1.0, l2_efficiency=1e6)
    expected = (4000 + 5 * 500) / 1.41e9 + 3 * 2 * 4096 * 8192 / 2039e9
    assert float(elementwise_s(p, A100, 4096, 8192, kind="add")) == pytest.approx(expected, rel=1e-3)


def test_balanced_experts_share_the_choices():
    np.testing.assert_allclose(expert_loads(16.0, 2.0, 8.0)[:9], [4.0] * 8 + [0.0], rtol=1e-6)
    assert float(jnp.sum(expert_loads(16.0, 2.0, 8.0, 0.0, 4.0))) == pytest.approx(8.0)


def test_skewed_experts_keep_the_total_and_the_order():
    loads = np.asarray(expert_loads(1000.0, 2.0, 64.0, 1.2))
    assert loads.sum() == pytest.approx(2000, rel=0.02)
    assert (np.diff(loads) <= 1e-4).all() and loads[0] > 5 * loads[30]


def test_rooflines():
    assert float(plain_roofline_s(A100, 312e12, 1.0)) == pytest.approx(1.0)
    p = SmoothRooflineParameters(compute_efficiency=1.0, memory_efficiency=1.0, overhead_s=0.5)
    assert float(smooth_roofline_s(p, A100, 312e12, 2039e9)) == pytest.approx(0.5 + 2**0.25, rel=1e-5)


# ---- an independent restatement of the GEMM ----------------------------------------------------------------------------------


def slow_gemm_s(p, g, m, n, k, footprint):
    """Loops instead of arrays; 16 bits."""
    p, g = ({f: float(getattr(t, f)) for f in t.__dataclass_fields__} for t in (p, g))
    l2_rate = p["l2_efficiency"] * g["l2_bytes_per_cycle"] * g["clock_hz"]
    dram_rate = p["dram_efficiency"] * g["dram_bytes_per_s"]
    cache = p["l2_share"] * g["l2_bytes"]

    def miss(touched):
        return 1 - 1 / (1 + min(touched / cache, 10) ** 20)

    weights, inputs, outputs = 2 * k * n, 2 * m * k, 2 * m * n
    dram = (weights * miss(footprint + inputs + outputs) + inputs * miss(2 * inputs) + outputs) / dram_rate
    l2 = (weights + inputs + outputs) / l2_rate
    watts = p["pj_per_op"] * 1e-12 * g["energy_scale"] * (g["clock_hz"] / 1.7e9) ** 2 * g["peak_16bit_ops_per_s"]
    slow = max(watts / g["tdp_w"], 1) ** (1 / 3) - 1
    best = math.inf
    tiles = [
        (16, 64),
        (16, 128),
        (32, 64),
        (32, 128),
        (64, 64),
        (64, 128),
        (64, 256),
        (128, 64),
        (128, 128),
        (128, 256),
        (256, 128),
    ]
    if g["tensor_copies"]:
        tiles += [(128, 160), (128, 192)]
    for a, b in tiles:
        for s in (1, 2, 3, 4, 6, 8, 12, 16):
            steps = math.ceil(k / s / 64)
            waves = math.ceil(math.ceil(m / a) * math.ceil(n / b) * s / g["multiprocessors"])
            tensor = (
                waves
                * 2
                * a
                * b
                * steps
                * 64
                / (p["tensor_efficiency"] * g["peak_16bit_ops_per_s"] / g["multiprocessors"])
            )
            feed = tensor * p["tensor_efficiency"] * p["balanced_edge"] * (1 / a + 1 / b) / 2
            stages = g["shared_memory_bytes"] / (128 * (a + b))
            if not g["tensor_copies"]:
                stages = min(stages, p["copy_stages"])
            latency = waves * steps * p["load_latency_s"] / stages
            held = tensor * (1 + slow * tensor / (tensor + p["settle_s"]))
            t = sum(x**4 for x in (held, feed, latency, dram, l2)) ** 0.25
            t += (p["launch_cycles"] + waves * p["block_cycles"]) / g["clock_hz"]
            if s > 1:
                t += s * outputs * 4 / l2_rate + p["split_cost"] * 1000 / g["clock_hz"]
            best = min(best, t)
    if m == 1:
        best = min(best, p["gemv_share"] * p["launch_cycles"] / g["clock_hz"] + (dram**4 + l2**4) ** 0.25)
    return best


@pytest.mark.parametrize("machine", [A100, H100, L40S], ids=["A100", "H100", "L40S"])
def test_gemm_equals_the_restatement(machine, x64):
    for m, n, k in [
        (1, 4096, 4096),
        (16, 1024, 8192),
        (129, 5120, 5120),
        (512, 6144, 4096),
        (8192, 8192, 8192),
        (300, 100, 70),
    ]:
        for footprint in (1e9, 1e6):
            fast = float(gemm_s(GemmParameters(), machine, m, n, k, footprint_bytes=footprint))
            assert fast == pytest.approx(slow_gemm_s(GemmParameters(), machine, m, n, k, footprint), rel=1e-9)


def test_long_products_are_numbers_in_float32():
    """Thirty seconds of a GPU: fourth powers of nanoseconds would overflow."""
    sizes = (2.0**23, 28672.0, 2.0**16)
    narrow = float(_gemm(A100, *sizes))
    with jax.enable_x64(True):
        wide = float(_gemm(A100, *sizes))
    assert 30 < wide < 300 and narrow == pytest.approx(wide, rel=1e-5)


def test_slope_is_that_of_the_best_tile(x64):
    """Over a range of bandwidths in which several tiles win."""

    def seconds(log_rate):
        return _gemm(changed(A100, dram_bytes_per_s=jnp.exp(log_rate)), 48, 2048, 8192)

    logs, step = jnp.linspace(np.log(200e9), np.log(4000e9), 41), 1e-6
    run = jax.jit(jax.vmap(seconds))
    central = (run(logs + step) - run(logs - step)) / (2 * step)
    backward = jax.jit(jax.vmap(jax.grad(seconds)))(logs)
    forward = jax.jit(jax.vmap(lambda x: jax.jvp(seconds, (x,), (1.0,))[1]))(logs)
    np.testing.assert_allclose(backward, central, rtol=1e-5)
    np.testing.assert_allclose(forward, backward, rtol=1e-12)
    assert (np.asarray(backward) < 0).all()


# ---- properties --------------------------------------------------------------------------------------------------------------


@given(m=SIZES, n=SIZES, k=SIZES)
def test_gemm_never_beats_the_roofline(m, n, k):
    least = plain_roofline_s(H100, 2.0 * m * n * k, 2.0 * n * k)
    assert float(_gemm(H100, m, n, k)) >= float(least)


@jax.jit
def _gemm(machine, m, n, k):
    return gemm_s(GemmParameters(), machine, m, n, k)


@given(m=SIZES, n=SIZES, k=SIZES, leaf=st.sampled_from(["dram_bytes_per_s", "peak_16bit_ops_per_s", "l2_bytes_per_cycle", "tdp_w",
                                                       "l2_bytes", "shared_memory_bytes"]))  # fmt: skip
def test_more_hardware_is_never_slower(m, n, k, leaf):
    better = changed(A100, **{leaf: getattr(A100, leaf) * 1.3})
    # more peak means more power: the limit must grow with it
    better = changed(better, tdp_w=better.tdp_w * (1.3 if leaf == "peak_16bit_ops_per_s" else 1.0))
    assert float(_gemm(better, m, n, k)) <= float(_gemm(A100, m, n, k)) * (1 + 1e-5)


def test_weights_in_l2_are_faster():
    cold = gemm_s(GemmParameters(), L40S, 16, 4096, 4096)
    warm = gemm_s(GemmParameters(), L40S, 16, 4096, 4096, footprint_bytes=33e6)
    assert float(warm) < 0.6 * float(cold)


def test_splitting_helps_a_long_k_with_few_tiles():
    unsplit = eqx.tree_at(lambda p: p.split_cost, GemmParameters(), 1e9)
    assert float(gemm_s(GemmParameters(), A100, 16, 1024, 16384)) < 0.7 * float(gemm_s(unsplit, A100, 16, 1024, 16384))


def test_longer_context_and_more_sequences_are_slower():
    run = jax.jit(partial(decode_attention_s, DecodeParameters(), H100))
    times = [float(run(8, length, 32, 8, 128)) for length in (128, 1024, 8192, 65536)]
    assert times == sorted(times)
    assert float(run(64, 8192, 32, 8, 128)) > float(run(8, 8192, 32, 8, 128))


def test_decode_cannot_beat_dram_on_a_cold_cache():
    seconds = decode_attention_s(DecodeParameters(), H100, 64, 8192, 32, 8, 128, footprint=jnp.inf)
    assert float(seconds) > 2 * 64 * 8192 * 8 * 128 * 2 / 3350e9


def test_host_links_are_shared():
    two, four = (float(collective_s(CollectiveParameters(), L40S, 1e9, n)) for n in (2, 4))
    assert four > 3 * two


def test_limit_of_the_low_latency_kernel():
    run = partial(collective_s, CollectiveParameters(), A100, ranks=4, low_latency_limit_bytes=1e6)
    assert float(run(1.1e6)) > float(run(0.9e6)) + 20e-6


def test_unknown_names_are_refused():
    for call in (partial(gemm_s, GemmParameters(), A100, 1, 1, 1, kind="fp7"),
                 partial(collective_s, CollectiveParameters(), A100, 1, 2, kind="gossip"),
                 partial(elementwise_s, ElementwiseParameters(), A100, 1, 1, kind="noop")):  # fmt: skip
        with pytest.raises(ValueError, match="allowed"):
            call()


# ---- programs ----------------------------------------------------------------------------------------------------------------

CASES = {
    "gemm": (GemmParameters(), lambda p, g, x: gemm_s(p, g, x, 5120, 4096, footprint_bytes=1e9)),
    "gemm int4": (GemmParameters(), lambda p, g, x: gemm_s(p, g, x, 5120, 4096, kind="int4_wo")),
    "gemm fp8": (GemmParameters(), lambda p, g, x: gemm_s(p, g, x, 5120, 4096, kind="fp8")),
    "decode": (DecodeParameters(), lambda p, g, x: decode_attention_s(p, g, x, 2000, 32, 8, 128)),
    "prefill": (PrefillParameters(), lambda p, g, x: prefill_attention_s(p, g, 3, x, x, 32, 8, 128)),
    "moe": (MoeParameters(), lambda p, g, x: moe_s(p, g, x, 4096, 14336, 8, 2, skew=1.2, tensor_parallel=4)),
    "all-reduce": (CollectiveParameters(), lambda p, g, x: collective_s(p, g, x * 1e4, 8)),
    "elementwise": (ElementwiseParameters(), lambda p, g, x: elementwise_s(p, g, x, 4096)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences(name, x64):
    parameters, call = CASES[name]
    for machine in (gpu("H100-SXM-80GB"), gpu("L40S")):
        leaves, build = jax.tree.flatten(jax.tree.map(jnp.asarray, parameters))
        logs = jnp.log(jnp.stack(leaves))

        def log_s(logs, machine=machine, build=build):
            return jnp.log(call(jax.tree.unflatten(build, list(jnp.exp(logs))), machine, 100.0))

        run = jax.jit(log_s)
        slope = np.asarray(jax.jit(jax.grad(log_s))(logs))
        step = 1e-6
        central = [float(run(logs.at[i].add(step)) - run(logs.at[i].add(-step))) / (2 * step) for i in range(len(logs))]
        np.testing.assert_allclose(slope, central, atol=1e-6)
        assert np.abs(slope).sum() > 0.1


@pytest.mark.parametrize("name", CASES)
def test_jit_equals_eager_and_vmap_equals_loop(name):
    parameters, call = CASES[name]
    sizes = jnp.array([1.0, 7.0, 64.0, 500.0, 3000.0])
    run = partial(call, parameters, H100)
    loop = [float(run(size)) for size in sizes]
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(sizes), loop, rtol=1e-5)
    assert np.isfinite(loop).all() and min(loop) > 0
    assert np.isfinite(jax.vmap(jax.grad(run))(sizes)).all()
