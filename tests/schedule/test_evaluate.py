"""The evaluator: worked out by hand, against its NumPy twin, gradients, jit, vmap, windows and orders, properties."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.numpy_evaluate import evaluate_numpy

import perfmodel as pm
from perfmodel.schedule import CONTENTION_EXPONENT, contended_s, greedy_schedule, timeline
from perfmodel.workload import GraphBuilder, operator_row

COSTS = ("exec_s", "onchip_j", "input_refetch", "weight_refetch", "working_bytes")
FIELDS = ("throughput_per_s", "latency_s", "energy_j", "busy_s", "period_s")


def two_operators():
    """GEMM 64 x 64 x 64, then ReLU; 4096 bytes in, between and out; 4096 weights."""
    g = GraphBuilder("two")
    first = g.add("gemm", operator_row("gemm", k=64, c=64, p=64), [], outside_bytes=4096)
    g.add("relu", operator_row("relu", k=64, p=64), [first])
    return g.build()


def float64_costs(table):
    return {name: np.asarray(getattr(table, name), np.float64) for name in COSTS}


def test_two_operators_on_two_chiplets_by_hand(mcm):
    """ws: 64 cycles + 128 to fill = 384 ns; ReLU: 4096 / 256 lanes = 16 cycles = 32 ns. Both chiplets keep their weights."""
    with jax.enable_x64(True):
        m = jax.tree.map(np.asarray, evaluate(two_operators(), mcm, pm.Schedule(np.array([0, 1], np.int32))))
    # input from memory: 200 ns + 4096 B / 64 GB/s = 264 ns; hop: 4096 / 100 GB/s + 35 ns = 75.96 ns; output: 264 ns
    np.testing.assert_allclose(m.latency_s, 264e-9 + 384e-9 + 75.96e-9 + 32e-9 + 264e-9, rtol=1e-9)
    busy = dict(zip(mcm.resource_names, np.asarray(m.busy_s), strict=True))
    np.testing.assert_allclose(busy["chiplet c00"], 384e-9, rtol=1e-9)
    np.testing.assert_allclose(busy["chiplet c10"], 32e-9, rtol=1e-9)
    np.testing.assert_allclose(busy["link c00->c10"], 40.96e-9, rtol=1e-9)
    np.testing.assert_allclose(busy["port out c00"], 40.96e-9, rtol=1e-9)
    np.testing.assert_allclose(busy["memory dram"], 128e-9, rtol=1e-9)
    assert busy["link c10->c00"] == 0 and busy["port out c10"] == 0
    used = np.array([384, 32, 40.96, 40.96, 40.96, 128]) * 1e-9
    np.testing.assert_allclose(m.period_s, np.sum(used**CONTENTION_EXPONENT) ** (1 / CONTENTION_EXPONENT), rtol=1e-9)
    np.testing.assert_allclose(m.throughput_per_s, 1 / m.period_s, rtol=1e-12)
    parts = dict(zip(pm.schedule.ENERGY_PARTS, np.asarray(m.energy_parts_j), strict=True))
    np.testing.assert_allclose(parts["network"], 4096 * 8 * 2.04e-12, rtol=1e-9)
    np.testing.assert_allclose(parts["memory"], 8192 * 8 * 14.8e-12, rtol=1e-9)
    np.testing.assert_allclose(parts["static"], (4 * 0.2 + 0.3) * float(m.period_s), rtol=1e-9)
    np.testing.assert_allclose(parts["buffer_off_chip"], 4 * 4096 * 18.61 * 0.56e-12, rtol=1e-9)
    np.testing.assert_allclose(m.energy_j, sum(parts.values()), rtol=1e-12)
    np.testing.assert_allclose(m.edp_js, m.energy_j * m.latency_s, rtol=1e-12)
    assert bool(m.feasible) and mcm.resource_names[int(m.bottleneck)] == "chiplet c00"
    assert np.asarray(m.resident).tolist() == [1, 0, 0, 0]  # chiplet c10 holds no weights


@pytest.mark.parametrize("name", ["mcm-2x2", pytest.param("mcm-3x3", marks=pytest.mark.slow)])
@pytest.mark.parametrize("buffer_scale", [1.0, 0.06])
def test_a_batch_of_odd_size_equals_the_numpy_twin(both, name, buffer_scale):
    system = pm.systems.load(name)
    system = eqx.tree_at(lambda s: s.chiplets.buffer_bytes, system, system.chiplets.buffer_bytes * buffer_scale)
    n = system.n_chiplets
    rng = np.random.default_rng(1)
    assignment = rng.integers(0, n, (33, both.n_operators)).astype(np.int8)
    assignment[1::2] = np.sort(assignment[1::2], axis=1)  # long segments
    table = pm.cost_table(both, system)
    got = pm.evaluate_many(both, system, pm.Schedule(assignment), table=table)
    want = evaluate_numpy(both, system, assignment, float64_costs(table))
    for field in FIELDS:
        if field != "latency_s":
            np.testing.assert_allclose(getattr(got, field), want[field], rtol=1e-5, err_msg=field)
    # whether a transfer fits a gap may hang on the last bit of float32
    apart = np.abs(np.asarray(got.models.latency_s, float) / want["model_latency_s"] - 1)
    assert np.mean(apart > 1e-5) <= 0.05
    assert apart.max() < 2e-3


@pytest.fixture(scope="module")
def jitted():
    return eqx.filter_jit(lambda w, s, sched, t: pm.evaluate(w, s, sched, table=t))


def assert_same(a, b, rtol=2e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x, float), np.asarray(y, float), rtol=rtol, atol=1e-30)


def test_jit_vmap_loop_hard_and_one_hot_agree(tiny, tiny_table, mcm, jitted):
    rng = np.random.default_rng(2)
    assignment = rng.integers(0, 4, (7, tiny.n_operators)).astype(np.int32)
    batch = pm.evaluate_many(tiny, mcm, pm.Schedule(assignment.astype(np.int8)), table=tiny_table)
    vmapped = jax.vmap(lambda a: pm.evaluate(tiny, mcm, pm.Schedule(a), table=tiny_table))(jnp.asarray(assignment))
    assert_same(batch, vmapped)
    for i in (0, 6):
        one = jitted(tiny, mcm, pm.Schedule(assignment[i]), tiny_table)
        assert_same(one, jax.tree.map(lambda x, i=i: x[i], batch))
        eager = pm.evaluate(tiny, mcm, pm.Schedule(assignment[i]), table=tiny_table)
        assert_same(one, eager)
        relaxed = jitted(tiny, mcm, pm.Schedule.relaxed(np.eye(4, dtype=np.float32)[assignment[i]]), tiny_table)
        assert_same(one, relaxed, rtol=1e-5)


@pytest.mark.slow
def test_kinds_and_recompute_equal_a_system_of_that_mix(tiny, mcm):
    rng = np.random.default_rng(3)
    assignment = rng.integers(0, 4, (5, tiny.n_operators)).astype(np.int8)
    kinds = rng.integers(0, 3, (5, 4)).astype(np.int8)
    by_type = pm.cost_table(tiny, mcm, by_type=True)
    mixed = pm.evaluate_many(tiny, mcm, pm.Schedule(assignment), table=by_type, kinds=kinds)
    own = eqx.tree_at(lambda s: s.chiplets, mcm, mcm.types.pick(kinds.astype(np.int32)))
    made = pm.evaluate_many(tiny, own, pm.Schedule(assignment), recompute=True)
    assert_same(mixed, made, rtol=1e-5)
    for i in range(5):
        system = mcm.with_types([mcm.type_names[k] for k in kinds[i]])
        assert_same(
            jax.tree.map(lambda x, i=i: x[i], mixed),
            evaluate(tiny, system, pm.Schedule(assignment[i].astype(np.int32))),
            1e-5,
        )


@pytest.mark.slow
def test_kernels_agree(tiny, tiny_table, mcm):
    assignment = np.random.default_rng(4).integers(0, 4, (9, tiny.n_operators)).astype(np.int8)
    scan, fused = (
        pm.evaluate_many(tiny, mcm, pm.Schedule(assignment), table=tiny_table, kernel=k) for k in pm.schedule.KERNELS
    )
    assert_same(scan, fused)
    with pytest.raises(ValueError, match="kernel is 'magic'; allowed: scan, fused"):
        pm.evaluate_many(tiny, mcm, pm.Schedule(assignment), table=tiny_table, kernel="magic")


def test_batch_sizes_up_to_a_chunk_share_one_trace(tiny, tiny_table, mcm):
    from perfmodel.schedule._batch import _compiled

    run = _compiled(jax.default_backend(), "scan", False, True, True)
    assignment = np.zeros((300, tiny.n_operators), np.int8)
    before = run._cache_size()
    for n in (65, 100, 127, 128):
        assert pm.evaluate_many(tiny, mcm, pm.Schedule(assignment[:n]), table=tiny_table, chunk=128).period_s.shape == (
            n,
        )
    pm.evaluate_many(tiny, mcm, pm.Schedule(assignment), table=tiny_table, chunk=128, temperature=0.3)
    assert run._cache_size() - before == 1


PARAMETERS = {
    "clock": lambda s: s.chiplets.clock_hz,
    "memory bandwidth": lambda s: s.memory.bytes_per_s,
    "memory energy": lambda s: s.memory.j_per_byte,
    "link bandwidth": lambda s: s.package.link_bytes_per_s,
    "static power": lambda s: s.chiplets.static_w,
    "buffer energy": lambda s: s.chiplets.buffer_j_per_byte,
}


@pytest.mark.parametrize("smooth", [pytest.param(False, marks=pytest.mark.slow), True])
def test_gradients_equal_central_differences(tiny, mcm, smooth):
    """Of log throughput + log latency + log energy, every hardware parameter scaled by one factor each."""
    schedule = pm.Schedule(np.array([0, 0, 1, 1, 2, 2, 3, 3, 0], np.int32)[: tiny.n_operators])
    # where a link is exactly as wide as a port, their slopes are not unique
    wide = eqx.tree_at(lambda s: s.package.port_bytes_per_s, mcm, 1.3 * mcm.package.port_bytes_per_s)

    @jax.jit
    def value(factors):
        system = wide
        for where, factor in zip(PARAMETERS.values(), factors, strict=True):
            system = eqx.tree_at(where, system, jnp.asarray(where(system)) * factor)
        m = evaluate(tiny, system, schedule, smooth=smooth)
        return jnp.log(m.throughput_per_s) + jnp.log(m.latency_s) + jnp.log(m.energy_j)

    with jax.enable_x64(True):
        at = jnp.ones(len(PARAMETERS))
        slope = jax.grad(value)(at)
        h = 1e-6
        for i, name in enumerate(PARAMETERS):
            step = jnp.zeros(len(PARAMETERS)).at[i].set(h)
            np.testing.assert_allclose(
                slope[i], (value(at + step) - value(at - step)) / (2 * h), rtol=1e-5, atol=1e-8, err_msg=name
            )


@pytest.mark.slow
def test_gradient_of_a_relaxed_placement(tiny, tiny_table, mcm):
    rng = np.random.default_rng(5)
    with jax.enable_x64(True):
        logits = jnp.asarray(rng.normal(size=(tiny.n_operators, 4)))
        away = jnp.asarray(rng.normal(size=(tiny.n_operators, 4)))

        @jax.jit
        def value(x):
            m = evaluate(
                tiny, mcm, pm.Schedule.relaxed(jax.nn.softmax(x)), table=tiny_table, smooth=True, temperature=0.1
            )
            return jnp.log(m.period_s) + jnp.log(m.energy_j)

        slope = jnp.sum(jax.grad(value)(logits) * away)
        h = 1e-6
        np.testing.assert_allclose(slope, (value(logits + h * away) - value(logits - h * away)) / (2 * h), rtol=1e-5)
        assert abs(float(slope)) > 1e-6


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), factor=st.floats(1.1, 8.0))
def test_more_is_never_slower_and_bounds_hold(tiny, tiny_table, mcm, jitted, seed, factor):
    schedule = pm.Schedule(np.random.default_rng(seed).integers(0, 4, tiny.n_operators).astype(np.int32))
    m = jitted(tiny, mcm, schedule, tiny_table)
    assert 0 < float(m.utilisation) <= 1 and float(m.energy_j) > 0 and bool(m.feasible)
    assert float(m.period_s) >= float(np.max(m.busy_s)) * (1 - 1e-6)
    for where in (
        lambda s: s.memory.bytes_per_s,
        lambda s: s.package.link_bytes_per_s,
        lambda s: s.package.port_bytes_per_s,
    ):
        better = jitted(tiny, eqx.tree_at(where, mcm, np.asarray(where(mcm)) * factor), schedule, tiny_table)
        assert float(better.throughput_per_s) >= float(m.throughput_per_s) * (1 - 1e-6)
        assert float(better.latency_s) <= float(m.latency_s) * (1 + 1e-6)


def test_an_order_that_changes_nothing_changes_nothing(both, mcm):
    table = pm.cost_table(both, mcm)
    assignment = np.random.default_rng(6).integers(0, 4, both.n_operators).astype(np.int32)
    plain = evaluate(both, mcm, pm.Schedule(assignment), table=table)
    order = np.argsort(np.r_[np.arange(146) * 2, np.arange(174) * 2 + 1]).astype(np.int32)  # models interleaved
    assert_same(plain, evaluate(both, mcm, pm.Schedule(assignment, order=order), table=table), 1e-5)
    backwards = evaluate(both, mcm, pm.Schedule(assignment, order=order[::-1].copy()), table=table)
    assert not bool(backwards.feasible) and float(backwards.violations[2]) == len(both.source)


def test_windows_run_one_after_another(tiny, tiny_table, mcm):
    n = tiny.n_operators
    assignment = (np.arange(n) % 4).astype(np.int32)
    one = evaluate(tiny, mcm, pm.Schedule(assignment), table=tiny_table)
    cut = (np.arange(n) >= n // 2).astype(np.int32)
    two = evaluate(tiny, mcm, pm.Schedule(assignment, window=cut, n_windows=2), table=tiny_table)
    np.testing.assert_allclose(two.busy_s, one.busy_s, rtol=1e-6)
    assert float(two.period_s) > float(one.period_s) and float(two.latency_s) >= float(one.latency_s) * (1 - 1e-6)


def test_contention_by_hand():
    np.testing.assert_allclose(contended_s(jnp.asarray([1.0, 0.0, 0.0])), 1.0, rtol=1e-6)
    np.testing.assert_allclose(contended_s(jnp.asarray([3.0, 3.0, 3.0, 3.0])), 3.0 * 4 ** (1 / 16), rtol=1e-6)


def test_sub_batch_amortises_weights_and_scales_the_rest(resnet50, mcm):
    a = np.zeros(resnet50.n_operators, np.int32)
    one = evaluate(resnet50, mcm, pm.Schedule(a))
    four = evaluate(resnet50, mcm, pm.Schedule(a, sub_batch=np.float32(4)))
    assert float(four.throughput_per_s) >= float(one.throughput_per_s) * 0.999
    assert float(four.energy_parts_j[3]) < 4 * float(one.energy_parts_j[3])  # weights once for four
    assert float(four.latency_s) > 3 * float(one.latency_s)


def test_a_buffer_too_small_is_infeasible_not_a_crash(tiny, mcm):
    system = eqx.tree_at(lambda s: s.chiplets.buffer_bytes, mcm, np.full(4, 100.0))
    m = evaluate(tiny, system, pm.Schedule.on_chiplet(tiny, 0))
    assert not bool(m.feasible) and float(m.violations[1]) > 0
    assert all(np.all(np.isfinite(np.asarray(x, float))) for x in jax.tree.leaves(m))


def test_the_timeline_is_the_latency(both, mcm):
    schedule = greedy_schedule(both, mcm)
    seen = timeline(both, mcm, schedule)
    m = evaluate(both, mcm, schedule)
    for i in range(2):
        end = seen.finish_s[both.model == i].max()
        assert end <= float(m.models.latency_s[i]) <= end * 1.05  # then the output is written
    for d in range(4):  # one operator at a time
        for i in range(2):
            on = np.flatnonzero((seen.chiplet == d) & (both.model == i))
            assert np.all(seen.start_s[on[1:]] >= seen.finish_s[on[:-1]] * (1 - 1e-6))
    with pytest.raises(ValueError, match="hard schedule"):
        timeline(both, mcm, pm.Schedule.relaxed(np.full((both.n_operators, 4), 0.25, np.float32)))
