"""The search: moves stay inside the space, selection keeps the best, exact optima of a space small enough to enumerate."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
import search
from search import Population, costs, offspring, random_population, select

OBJECTIVES = ("throughput", "energy")


@pytest.mark.slow
def test_children_stay_inside_the_space():
    a, k = random_population(jax.random.key(0), 33, 20, 4, 3)
    population = Population(a, k, jax.random.uniform(jax.random.key(1), (33, 2)))
    for seed in range(4):
        x, t = offspring(jax.random.key(seed), population, 4, 3)
        assert x.shape == (33, 20) and x.dtype == jnp.int8 and 0 <= int(x.min()) and int(x.max()) < 4
        assert 0 <= int(t.min()) and int(t.max()) < 3
        assert float(jnp.mean(jnp.any(x != a, axis=1))) > 0.5


def test_selection_keeps_the_front_and_drops_copies():
    a = jnp.asarray(np.eye(8, 12, dtype=np.int8))
    k = jnp.zeros((8, 4), jnp.int8)
    c = jnp.asarray([[i, 7.0 - i] for i in range(4)] + [[9.0 + i, 9.0] for i in range(4)])
    chosen = select(Population(a, k, c), Population(a, k, c))
    assert len({tuple(r) for r in np.asarray(chosen.assignment)}) == 8  # every distinct one, no copy
    worse = select(Population(a, k, c + 20), Population(a + 1, k, c))
    assert {tuple(r) for r in np.asarray(worse.costs)} >= {(float(i), 7.0 - i) for i in range(4)}


@pytest.fixture(scope="module")
def four():
    g = pm.workload.GraphBuilder("four")
    row = pm.workload.operator_row
    a = g.add("conv", row("conv", k=64, c=3, p=56, q=56, r=7, s=7, stride=2), [], outside_bytes=1e5)
    b = g.add("gemm", row("gemm", k=256, c=64, p=784), [a])
    c = g.add("relu", row("relu", k=256, p=784), [b])
    g.add("add", row("add", k=256, p=784), [c, b])
    return g.build()


@pytest.mark.slow
def test_explore_finds_the_exact_optima(four, mcm):
    table = pm.cost_table(four, mcm, by_type=True)
    every = np.asarray(list(itertools.product(range(4), repeat=4)), np.int8)
    best = np.full(2, np.inf)
    for kinds in itertools.product([0, 1], repeat=4):
        rows = np.broadcast_to(np.asarray(kinds, np.int8), (len(every), 4))
        best = np.minimum(
            best,
            np.asarray(costs(pm.evaluate_many(four, mcm, pm.Schedule(every), table=table, kinds=rows), OBJECTIVES)).min(
                0
            ),
        )
    front = search.explore(
        four, search.Space.mix(mcm, ["ws", "os"]), OBJECTIVES, 1, settings=search.Settings(16, 20, 64, 30)
    )
    np.testing.assert_allclose(front.costs.min(axis=0), best, atol=1e-5)
    assert front.evaluations == front.exact_evaluations + 3 * 16 * 20
    assert np.all(np.diff(front.costs[:, 0]) > 0) and np.all(np.diff(front.costs[:, 1]) < 0)


@pytest.mark.slow
def test_relaxation_improves_on_where_it_started(four, mcm):
    told = []
    search.explore(four, search.Space.mix(mcm, ["ws", "os"]), OBJECTIVES, 2, settings=search.Settings(16, 40, 64, 0), greedy=False,
                   progress=told.append)  # fmt: skip
    assert [t["phase"] for t in told] == ["relax", "relax"] and told[-1]["evaluations"] > told[0]["evaluations"]


@pytest.mark.slow
def test_the_same_key_gives_the_same_front(four, mcm):
    run = [
        search.explore(four, search.Space.fixed(mcm), OBJECTIVES, 5, settings=search.Settings(0, 0, 32, 8))
        for _ in range(2)
    ]
    np.testing.assert_array_equal(run[0].assignment, run[1].assignment)
    assert all(run[0].mix(i) == "3 ws + 1 os" for i in range(len(run[0])))


def test_infeasible_candidates_are_worse_but_stay(four, mcm):
    m = pm.evaluate_many(four, mcm, pm.Schedule(np.zeros((2, 4), np.int8)))
    import equinox as eqx

    broken = eqx.tree_at(lambda x: x.violations, m, m.violations.at[0, 1].set(100.0))
    c = np.asarray(costs(broken, OBJECTIVES))
    assert np.all(c[0] > c[1] + 9) and np.all(np.isfinite(c))


def test_monolithic_twin_equals_the_catalogue(mcm):
    twin, ours = search.monolithic(mcm), pm.systems.load("monolithic-os")
    for field in (
        "rows",
        "columns",
        "lanes",
        "buffer_bytes",
        "buffer_bytes_per_s",
        "static_w",
        "clock_hz",
        "mac_j",
        "dataflow",
    ):
        np.testing.assert_allclose(
            getattr(twin.chiplets, field), getattr(ours.chiplets, field), rtol=1e-12, err_msg=field
        )


def test_too_small_a_system_is_refused(four, mcm):
    import equinox as eqx

    small = eqx.tree_at(lambda s: s.memory.capacity_bytes, mcm, np.array([10.0]))
    with pytest.raises(ValueError, match="memory.capacity is 10 bytes"):
        search.check_possible(four, search.Space.fixed(small))
    small = eqx.tree_at(lambda s: s.types.buffer_bytes, mcm, np.full(3, 10.0))
    with pytest.raises(ValueError, match="buffer is 10 bytes; operator"):
        search.check_possible(four, search.Space.mix(small, ["ws"]))


def test_unknown_objectives_and_types_are_named(four, mcm):
    with pytest.raises(ValueError, match="objectives is 'sped'"):
        search.explore(four, search.Space.fixed(mcm), ("sped",))
    with pytest.raises(ValueError, match="chiplet type is 'oss'.*did you mean os"):
        search.Space.mix(mcm, ["oss"])


@pytest.mark.slow
def test_sample_default_scenario_beats_a_homogeneous_package(both, mcm):
    settings = search.Settings(32, 20, 128, 60)
    mixed = search.explore(both, search.Space.mix(mcm, ["ws", "os"]), OBJECTIVES, 0, settings=settings)
    plain = search.explore(both, search.Space.fixed(mcm.with_types(["ws"] * 4)), OBJECTIVES, 0, settings=settings)
    assert mixed.metrics.throughput_per_s.max() > plain.metrics.throughput_per_s.max()
