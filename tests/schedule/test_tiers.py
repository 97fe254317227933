"""Memory tiers in the evaluator: by hand, gradients, batches, capacity, tiers of each chiplet's own, descent on shares."""

import itertools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiled import evaluate
from tier_systems import FAST, SLOW, load

import perfmodel as pm
from perfmodel.schedule import TierShares, default_shares, device_bytes, least_devices, violation_names
from perfmodel.workload import GraphBuilder, operator_row


def two_operators():
    """GEMM 64 x 64 x 64, then ReLU; 4096 bytes in, between and out; 4096 weights."""
    g = GraphBuilder("two")
    first = g.add("gemm", operator_row("gemm", k=64, c=64, p=64), [], outside_bytes=4096)
    g.add("relu", operator_row("relu", k=64, p=64), [first])
    return g.build()


def shares(weights, results, outside):
    """Tiers of every row, hard."""
    return TierShares(*(np.eye(2, dtype=np.float32)[np.asarray(each)] for each in (weights, results, outside)))


def scheduled(workload, tiers=None):
    return replace(pm.Schedule.on_chiplet(workload, 0), tiers=tiers)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return load(tmp_path_factory.mktemp("tiers"))


@pytest.fixture(scope="module")
def bare(system):
    """No buffer to speak of: everything goes through memory."""
    return eqx.tree_at(lambda s: s.chiplets.buffer_bytes, system, np.asarray([1.0]))


def named(m, system):
    return dict(zip(system.resource_names, np.asarray(m.busy_s), strict=True))


def test_a_tensor_costs_what_its_tier_costs_by_hand(system, x64):
    """Input read from the slow tier: 200 ns + 4096 B / 10 GB/s; output to the fast one: 100 ns + 4096 / 50 GB/s."""
    two = two_operators()
    m = evaluate(two, system, scheduled(two, shares([0, 0], [0, 0], [1, 0])))
    into, out = 200e-9 + 409.6e-9, 100e-9 + 81.92e-9
    np.testing.assert_allclose(m.latency_s, into + 384e-9 + 32e-9 + out, rtol=1e-9)
    busy = named(m, system)
    np.testing.assert_allclose([busy["memory fast"], busy["memory slow"]], [81.92e-9, 409.6e-9], rtol=1e-9)
    memory_j = float(m.energy_parts_j[pm.schedule.ENERGY_PARTS.index("memory")])
    np.testing.assert_allclose(memory_j, 4096 * 8e-12 * (1 + 10), rtol=1e-9)
    assert bool(m.feasible) and m.violations.shape == (5,)
    assert violation_names(system)[3:] == ("memory_bytes fast", "memory_bytes slow")
    # half of everything in either: bytes, energy and the time of the tensor are means
    half = evaluate(two, system, scheduled(two, TierShares(*[np.full((2, 2), 0.5, np.float32)] * 3)))
    busy = named(half, system)
    np.testing.assert_allclose(
        [busy["memory fast"], busy["memory slow"]], [(20.48 + 40.96) * 1e-9, 409.6e-9], rtol=1e-6
    )
    np.testing.assert_allclose(
        half.latency_s, 150e-9 + 2048 / 100e9 + 2048 / 10e9 + 416e-9 + 150e-9 + 2048 / 50e9 + 2048 / 10e9, rtol=1e-6
    )


@pytest.mark.parametrize("weights, result", [(0, 1), (1, 0)])
def test_weights_and_results_through_memory_by_hand(bare, weights, result, x64):
    two = two_operators()
    table = pm.cost_table(two, bare)
    again, loads = float(table.input_refetch[0, 0]), float(table.weight_refetch[0, 0])
    m = evaluate(two, bare, scheduled(two, shares([weights] * 2, [result] * 2, [0, 0])), table=table)
    read, write, wait = np.array([100e9, 10e9]), np.array([50e9, 10e9]), np.array([100e-9, 200e-9])
    size = 4096.0
    from_tier = np.zeros(2)  # what lives in one tier is read one after another
    from_tier[0] += size * again / read[0]
    from_tier[weights] += size * loads / read[weights]
    ready = max(from_tier[t] + wait[t] for t in {0, weights})
    middle = size / write[result] + size * float(table.input_refetch[1, 0]) / read[result] + 2 * wait[result]
    end = ready + float(table.exec_s[0, 0]) + middle + float(table.exec_s[1, 0]) + size / write[0] + wait[0]
    np.testing.assert_allclose(m.latency_s, end, rtol=1e-9)
    moved = np.zeros(2)
    moved[0] += size * again / read[0] + size / write[0]
    moved[weights] += size * loads / read[weights]
    moved[result] += size / write[result] + size * float(table.input_refetch[1, 0]) / read[result]
    np.testing.assert_allclose(np.asarray(m.busy_s)[-2:], moved, rtol=1e-9)


def test_the_way_to_a_slow_tier_is_its_copy_link(tmp_path, x64):
    narrow = load(tmp_path, tiers=(FAST, SLOW | {"copy_bandwidth": "1 GB/s"}))
    two = two_operators()
    m = evaluate(two, narrow, scheduled(two, shares([0, 0], [0, 0], [1, 0])))
    np.testing.assert_allclose(named(m, narrow)["memory slow"], 4096e-9, rtol=1e-9)
    np.testing.assert_allclose(m.latency_s, 200e-9 + 4096e-9 + 416e-9 + 100e-9 + 81.92e-9, rtol=1e-9)


def test_what_does_not_fit_a_tier_by_hand(bare, x64):
    """10,000 B of the fast tier: 4096 of weights, 4096 of the result and at the ReLU 4096 of the output beside it."""
    two = two_operators()
    everything = evaluate(two, bare, scheduled(two, shares([0, 0], [0, 0], [0, 0])))
    over = dict(zip(violation_names(bare), np.asarray(everything.violations), strict=True))
    assert over["memory_bytes fast"] == 3 * 4096 - 10_000 and over["memory_bytes slow"] == 0
    assert over["memory_bytes"] == over["memory_bytes fast"] and not bool(everything.feasible)
    spilled = evaluate(two, bare, scheduled(two, shares([1, 1], [0, 0], [0, 0])))
    assert float(spilled.violations[0]) == 0


def test_tiers_fill_from_the_fastest_by_class(system, x64):
    """10,000 B: all weights (4096), then 5904 of at most 4096 + 4096 live at a time (result and input, or output)."""
    two = two_operators()
    made = default_shares(two, system, np.zeros(2, np.int32), 1.0, jnp.float64)
    share = 5904 / 8192
    np.testing.assert_allclose(made.weights, [[1, 0]] * 2, rtol=1e-12)
    np.testing.assert_allclose(made.results, [[share, 1 - share]] * 2, rtol=1e-12)
    plain = evaluate(two, system, scheduled(two))
    stated = evaluate(two, system, scheduled(two, made))
    np.testing.assert_allclose(plain.latency_s, stated.latency_s, rtol=1e-12)
    assert bool(plain.feasible)
    small = eqx.tree_at(lambda s: s.memory.capacity_bytes, system, np.array([1000.0, 2000.0]))
    m = evaluate(two, small, scheduled(two))
    over = dict(zip(violation_names(small), np.asarray(m.violations), strict=True))
    # the result stays in the buffer: 4096 of weights, and at a time 4096 of input or output
    assert over["memory_bytes slow"] == pytest.approx(4096 - 1000 + 4096 - 2000) and over["memory_bytes fast"] == 0


def test_gradients_of_bandwidths_are_central_differences(bare, x64):
    two = two_operators()
    tiers = TierShares(*[np.array([[0.3, 0.7], [0.6, 0.4]])] * 3)
    copied = eqx.tree_at(lambda s: s.memory.copy_bytes_per_s, bare, np.array([100e9, 7e9]))  # binds reads and writes

    for given, fields in (
        (bare, ("bytes_per_s", "write_bytes_per_s", "latency_s", "j_per_byte")),
        (copied, ("copy_bytes_per_s",)),
    ):
        # what binds by itself: copies no narrower than the tier
        free = (
            eqx.tree_at(lambda s: s.memory.copy_bytes_per_s, given, np.array([1e12, 1e12])) if given is bare else given
        )

        def value(log_scale, free=free, fields=fields):
            found = [getattr(free.memory, f) * jnp.exp(log_scale[i]) for i, f in enumerate(fields)]
            changed = eqx.tree_at(lambda s: [getattr(s.memory, f) for f in fields], free, found)
            m = evaluate(two, changed, scheduled(two, tiers))
            return jnp.log(m.latency_s) + jnp.log(m.period_s) + jnp.log(m.energy_j)

        value = jax.jit(value)
        at = jnp.zeros((len(fields), 2))
        got = jax.grad(value)(at)
        for i, t in itertools.product(range(len(fields)), range(2)):
            step = jnp.zeros_like(at).at[i, t].set(1e-5)
            want = (value(step) - value(-step)) / 2e-5
            np.testing.assert_allclose(got[i, t], want, rtol=1e-5, atol=1e-9, err_msg=f"{fields[i]} {t}")
        assert np.abs(got[0]).max() > 0.01


def test_capacity_moves_the_default(bare, x64):
    """Through the default shares, a byte more of the fast tier is worth time."""
    two = two_operators()

    def latency(capacity):
        changed = eqx.tree_at(lambda s: s.memory.capacity_bytes, bare, jnp.stack([capacity, jnp.asarray(1e9)]))
        return evaluate(two, changed, scheduled(two)).latency_s

    latency = jax.jit(latency)
    slope = jax.grad(latency)(7000.0)
    np.testing.assert_allclose(slope, (latency(7001.0) - latency(6999.0)) / 2, rtol=1e-6)
    assert slope < 0


def test_batched_vmapped_and_single_agree(bare):
    two = two_operators()
    table = pm.cost_table(two, bare)
    rng = np.random.default_rng(0)
    many = TierShares(*(rng.dirichlet([1.0, 1.0], (7, 2)).astype(np.float32) for _ in range(3)))
    batch = pm.evaluate_many(two, bare, pm.Schedule(np.zeros((7, 2), np.int8), tiers=many), table=table)
    one = jax.jit(lambda tiers: pm.evaluate(two, bare, scheduled(two, tiers), table=table))
    vmapped = jax.vmap(one)(jax.tree.map(jnp.asarray, many))
    for i in range(7):
        single = one(jax.tree.map(lambda x, i=i: x[i], many))
        for a, b, c in zip(*(jax.tree.leaves(m) for m in (single, batch, vmapped)), strict=True):
            np.testing.assert_allclose(np.asarray(a, float), np.asarray(b[i], float), rtol=2e-6, atol=1e-30)
            np.testing.assert_allclose(np.asarray(a, float), np.asarray(c[i], float), rtol=2e-6, atol=1e-30)
    default = pm.evaluate_many(two, bare, pm.Schedule(np.zeros((3, 2), np.int8)), table=table)
    np.testing.assert_allclose(
        default.latency_s, float(evaluate(two, bare, scheduled(two), table=table).latency_s), rtol=1e-6
    )


def test_equal_tiers_are_one_tier(tmp_path, tiny):
    """Two halves of one memory, all alike, move what the whole does, however things are shared among them; but each has a queue
    of its own."""
    split = load(tmp_path, tiers=(SLOW, SLOW | {"name": "more"}), buffer="4 kB")
    (tmp_path / "whole").mkdir()
    whole = load(tmp_path / "whole", tiers=(SLOW,), buffer="4 kB")
    rng = np.random.default_rng(1)
    tiers = TierShares(*(rng.dirichlet([1.0, 1.0], tiny.n_operators).astype(np.float32) for _ in range(3)))
    a, b = evaluate(tiny, split, scheduled(tiny, tiers)), evaluate(tiny, whole, scheduled(tiny))
    assert 0.5 * float(b.latency_s) < float(a.latency_s) < float(b.latency_s)
    np.testing.assert_allclose(a.energy_j - a.energy_parts_j[4], b.energy_j - b.energy_parts_j[4], rtol=1e-5)
    np.testing.assert_allclose(np.sum(np.asarray(a.busy_s)[-2:]), np.asarray(b.busy_s)[-1], rtol=1e-5)


def test_the_busiest_chiplet_bounds_memory_of_its_own(tmp_path, x64):
    """All on one of two chiplets: its own tier has half of the package's bandwidth and capacity."""
    own = load(tmp_path, chiplets=2, tiers=(FAST | {"attachment": "chiplet"}, SLOW))
    two = two_operators()
    in_fast = shares([0, 0], [0, 0], [0, 0])
    m = evaluate(two, own, scheduled(two, in_fast))
    assert float(own.memory.bytes_per_s[0]) == 200e9
    np.testing.assert_allclose(named(m, own)["memory fast"], 4096 / 100e9 + 4096 / 50e9, rtol=1e-9)
    over = dict(zip(violation_names(own), np.asarray(m.violations), strict=True))
    assert over["memory_bytes fast"] == 0
    apart = replace(pm.Schedule(np.array([0, 1], np.int32)), tiers=in_fast)
    busy = named(evaluate(two, own, apart), own)  # reads 4096 on one, writes 4096 on the other
    np.testing.assert_allclose(busy["memory fast"], 4096 / 50e9, rtol=1e-9)
    small = eqx.tree_at(lambda s: s.memory.capacity_bytes, own, np.array([10_000.0, 1e9]))  # 5000 each
    over = evaluate(two, small, scheduled(two, in_fast)).violations
    assert float(over[3]) == pytest.approx(2 * 4096 - 5000)
    made = default_shares(two, small, np.zeros(2, np.int32), 1.0, jnp.float64)
    np.testing.assert_allclose(made.results[0], [904 / 8192, 1 - 904 / 8192], rtol=1e-9)


@pytest.mark.slow
def test_gpus_stage_what_lives_in_the_host(gpt2):
    """Kernels hold the time of device memory; weights in the host cost their bytes over its link besides."""
    system = pm.systems.load("dgx-a100")
    one = GraphBuilder("one")
    one.add("gemm", operator_row("gemm", k=4096, c=4096, p=16, bits=16), outside_bytes=16 * 4096 * 2)
    one = one.build()
    table = pm.cost_table(one, system)
    here, there = (
        evaluate(one, system, scheduled(one, TierShares(w, *TierShares_all(system)))) for w in hard_weights()
    )
    weights = 4096 * 4096 * 2
    exec_s = float(table.exec_s[0, 0])
    assert float(here.latency_s) == pytest.approx(exec_s, rel=1e-5)
    assert float(there.latency_s) == pytest.approx(exec_s + weights / 32e9 + 1e-6, rel=1e-5)
    busy = named(there, system)
    assert busy["memory host"] == pytest.approx(weights / 32e9, rel=1e-5)
    more = busy["memory hbm"] - named(here, system)["memory hbm"]  # staged: written once more
    assert more == pytest.approx(weights / 2039e9, rel=1e-4)


def hard_weights():
    return np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)


def TierShares_all(system):
    row = np.array([[1.0, 0.0]], np.float32)
    return row, row


def chain(n=3):
    """GEMMs of unlike sizes."""
    g = GraphBuilder("chain")
    row = None
    for i, (k, c) in enumerate([(64, 96), (128, 64), (48, 128), (64, 48)][:n]):
        row = g.add(
            f"g{i}",
            operator_row("gemm", k=k, c=c, p=64),
            [] if row is None else [row],
            outside_bytes=64 * c if row is None else 0,
        )
    return g.build()


def test_descent_on_shares_finds_what_enumeration_finds(bare):
    """Three weights, two results: 32 hard decisions; 21 kB of the fast tier cannot hold all."""
    work = chain(3)
    system = eqx.tree_at(lambda s: s.memory.capacity_bytes, bare, np.array([21e3, 1e9]))
    table = pm.cost_table(work, system)
    n = work.n_operators

    def metrics(tiers):
        return evaluate(work, system, scheduled(work, tiers), table=table)

    fixed = np.tile(np.array([[0.0, 1.0]], np.float32), (n, 1))  # inputs and outputs in the slow tier
    choices = np.asarray(list(itertools.product([0, 1], repeat=5)))
    eye = np.eye(2, dtype=np.float32)
    weights, results = (
        eye[choices[:, :3]],
        np.concatenate([eye[choices[:, 3:]], np.tile(fixed[:1], (32, 1, 1))], axis=1),
    )
    every = jax.jit(jax.vmap(metrics))(TierShares(weights, results, np.tile(fixed, (32, 1, 1))))
    period = np.where(np.asarray(every.violations)[:, 0] == 0, np.asarray(every.busy_s).sum(axis=1), np.inf)
    best = int(np.argmin(period))
    assert np.isfinite(period).sum() > 1 and period[0] == np.inf  # all in the fast tier does not fit

    def loss(logits):
        tiers = TierShares.from_logits(logits)
        m = metrics(eqx.tree_at(lambda t: t.outside, tiers, jnp.asarray(fixed)))
        return jnp.log(jnp.sum(m.busy_s)) + 4.0 * m.violations[3] / 21e3

    step = optax.adam(0.1)

    @jax.jit
    def descend(logits):
        def one(carry, _):
            logits, state = carry
            updates, state = step.update(jax.grad(loss)(logits), state)
            return (optax.apply_updates(logits, updates), state), None

        return jax.lax.scan(one, (logits, step.init(logits)), None, length=300)[0][0]

    start = TierShares(*(jnp.zeros((n, 2)) for _ in range(3)))
    logits = descend(start)
    found = np.concatenate([np.argmax(logits.weights, axis=1), np.argmax(logits.results, axis=1)[:2]])
    assert found.tolist() == choices[best].tolist()


def test_least_devices(system, tmp_path):
    assert device_bytes(system) == 1e9 + 10e3
    assert least_devices(1e9, system) == 1 and least_devices(3e9, system) == 3
    own = load(tmp_path, chiplets=4, tiers=(FAST | {"attachment": "chiplet"}, SLOW))
    assert device_bytes(own) == 10e3 + 0.25e9 and least_devices(1e9, own) == 4
    dgx = pm.systems.load("dgx-a100")
    assert device_bytes(dgx) == 80e9 + 250e9


def test_bad_shares_are_refused(system):
    two = two_operators()
    row = np.full((2, 2), 0.5)
    for wrong, said in (
        (TierShares(row[:, :1], row, row), r"tiers.weights has shape \(2, 1\); needed: \(2, 2\)"),
        (TierShares(row, row * 3, row), r"tiers.results\[0\] is \[1.5, 1.5\]; allowed: shares"),
        (TierShares(row, row, np.array([[0.5, 0.5], [-1.0, 2.0]])), r"tiers.outside\[1\]"),
    ):
        with pytest.raises(ValueError, match=said):
            pm.evaluate(two, system, scheduled(two, wrong))
    with pytest.raises(ValueError, match=r"tier is 2; allowed: 0 to 1 \(fast, slow\)"):
        TierShares.all_in(two, system, 2)
    np.testing.assert_array_equal(TierShares.all_in(two, system, 1).results, [[0, 1], [0, 1]])


@pytest.mark.slow
def test_relaxed_placements_on_tiers_of_their_own(tmp_path, x64):
    """One-hot rows are the hard placement; mixtures overfill nothing that has room; every gradient is finite."""
    own = load(tmp_path, chiplets=2, tiers=(FAST | {"attachment": "chiplet"}, SLOW))
    own = eqx.tree_at(lambda s: s.chiplets.buffer_bytes, own, np.asarray([1.0, 1.0]))
    work = chain(3)
    table = pm.cost_table(work, own)

    @jax.jit
    def metrics(placed, capacity):
        system = eqx.tree_at(lambda s: s.memory.capacity_bytes, own, capacity)
        return evaluate(work, system, pm.Schedule(placed), table=table)

    capacity = jnp.asarray(own.memory.capacity_bytes)
    hard = metrics(np.array([0, 1, 1], np.int32), capacity)
    relaxed = metrics(np.eye(2)[[0, 1, 1]], capacity)
    for field in ("latency_s", "period_s", "energy_j", "busy_s", "violations"):
        np.testing.assert_allclose(getattr(relaxed, field), getattr(hard, field), rtol=1e-9, atol=1e-30, err_msg=field)
    mixed = np.random.default_rng(0).dirichlet([1.0, 1.0], 3)
    assert float(metrics(mixed, capacity).violations[0]) == 0
    slopes = jax.grad(lambda p, c: metrics(p, c).latency_s + metrics(p, c).period_s, argnums=(0, 1))(mixed, capacity)
    assert all(bool(jnp.isfinite(g).all()) for g in slopes) and float(slopes[1][0]) < 0
