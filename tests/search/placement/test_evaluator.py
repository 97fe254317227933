"""The evaluator in JAX against `timeline`, and the relaxed one against it and against central differences."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.placement_problems import problem, random_problem

from search.placement import bucket, compiled, load_instance, nodes_of, positions, tasks_of, timeline
from search.placement import jax_makespan as makespan
from search.placement import jax_makespans as makespans
from search.placement import makespan as judged
from search.placement.methods.search import descend, ranked_orders, relaxed_makespan, starting_logits

DATA = Path(__file__).parents[2] / "data" / "moirai"


@pytest.fixture(scope="module")
def example():
    return load_instance(DATA / "example-1.json")


def candidates(p, batch: int, seed: int = 0):
    """Placements that run (memory is no matter of the evaluator), and topological orders."""
    rng = np.random.default_rng(seed)
    able = np.isfinite(p.times)
    draw = np.where(able, rng.random((batch, *able.shape)), -1.0)
    placements = draw.argmax(axis=-1)
    return placements, ranked_orders(p, placements, 1.0, rng)


def expected(p, placements, orders):
    orders = np.broadcast_to(orders, placements.shape)
    return np.asarray([judged(p, a, b) for a, b in zip(placements, orders, strict=True)])


@pytest.mark.parametrize("batch", [1, 33, 1001])
def test_equals_timeline_at_odd_batch_sizes(example, batch):
    placements, orders = candidates(example, batch)
    assert np.array_equal(makespans(example, placements, orders), expected(example, placements, orders))
    assert np.array_equal(makespans(example, placements, orders[0]), expected(example, placements, orders[0]))
    assert np.array_equal(makespans(example, placements), expected(example, placements, example.order))


@pytest.mark.parametrize("congestion", [False, True])
@pytest.mark.parametrize("worst", [False, True])
def test_scenarios_and_congestion(example, congestion, worst):
    factors = np.random.default_rng(1).uniform(0.5, 2.0, (3, 3, 3))
    p = replace(example, congestion=congestion, link_factors=factors, worst_case=worst)
    placements, orders = candidates(p, 33)
    np.testing.assert_allclose(makespans(p, placements, orders), expected(p, placements, orders), rtol=1e-6)
    np.testing.assert_allclose(makespans(p, placements, orders[1]), expected(p, placements, orders[1]), rtol=1e-6)


def test_a_task_with_many_inputs_and_a_link_that_does_not_exist():
    far = np.array([[0.0, np.inf], [3.0, 0.0]])
    p = problem(np.ones((9, 2)), [(i, 8, far if i == 3 else float(i)) for i in range(8)])
    c = compiled(p)
    assert c.n_nodes == 9 + 6  # 8 inputs, two a node: six collectors
    placements, orders = candidates(p, 33)
    assert np.array_equal(makespans(c, placements, orders), expected(p, placements, orders))
    assert np.array_equal(makespans(c, placements, orders[5]), expected(p, placements, orders[5]))
    assert np.isinf(makespans(c, placements)).any()


def test_random_problems_with_everything_in_them():
    for seed in (3, 5, 8, 13):
        p = random_problem(seed)
        placements, orders = candidates(p, 33)
        assert np.array_equal(makespans(p, placements, orders), expected(p, placements, orders))


def test_float64_is_exact(x64):
    p = load_instance(DATA / "GoogLeNet.json")
    placements, orders = candidates(p, 33)
    c = compiled(p)
    assert c.arrays.times.dtype == jnp.float64
    for order in (orders, orders[0]):
        np.testing.assert_allclose(makespans(c, placements, order), expected(p, placements, order), rtol=1e-13)


def test_jit_is_eager_and_batch_is_loop(example):
    c = compiled(example)
    placements, orders = candidates(example, 5)
    nodes = np.stack([nodes_of(c, o) for o in orders])
    place = placements[:, np.asarray(c.arrays.owner)]
    one = [float(makespan(c.arrays, place[i], nodes[i])) for i in range(5)]
    assert np.array_equal(one, jax.vmap(lambda a, b: makespan(c.arrays, a, b, shared=False))(place, nodes))
    assert np.array_equal(one, makespans(c, placements, orders))


def test_selects_are_gathers(example):
    c = compiled(example)
    placements, _ = candidates(example, 5)
    place = jnp.asarray(placements.T[np.asarray(c.arrays.owner)])
    selects, gathers = (makespan(c.arrays, place, jnp.asarray(c.order), select_devices=most) for most in (99, 0))
    assert selects.shape == (5,) and np.array_equal(selects, gathers)


def test_eager_is_jit():
    p = problem([[1.0, 2], [3, 1]], [(0, 1, 2.0)])
    c = compiled(p)
    place = np.zeros(len(c.order), np.int8)
    place[1] = 1
    with jax.disable_jit():
        assert float(makespan(c.arrays, jnp.asarray(place), jnp.asarray(c.order))) == 4.0
    assert makespans(c, place[None, :2]) == [4.0]


def test_orders_of_nodes():
    p = problem(np.ones((6, 2)), [(i, 5, 1.0) for i in range(5)])
    c = compiled(p)
    order = np.array([4, 2, 0, 1, 3, 5])
    nodes = nodes_of(c, order)
    assert np.array_equal(tasks_of(c, nodes), order)
    assert sorted(nodes.tolist()) == list(range(len(nodes)))
    assert set(nodes[5:8].tolist()) == {6, 7, 8}  # collectors right before the task that has five inputs
    assert np.array_equal(np.asarray(positions(jnp.asarray(nodes)))[nodes], np.arange(len(nodes)))


def test_buckets_waste_at_most_a_quarter():
    sizes = np.arange(16, 5000)
    padded = np.asarray([bucket(int(n)) for n in sizes])
    assert (padded >= sizes).all() and (padded <= 1.25 * sizes + 4).all() and len(set(padded.tolist())) < 40


def hard_rows(p, placement):
    return jnp.eye(p.n_devices)[placement]


def test_relaxed_at_hard_rows_lies_within_its_bound(example, x64):
    c = compiled(example)
    placements, orders = candidates(example, 7)
    relaxed = jax.jit(relaxed_makespan)
    for placement, order in zip(placements, orders, strict=True):
        true, nodes = timeline(example, placement, order).makespan, nodes_of(c, order)
        for temperature in (1e-6, 0.05, 1.0):
            found = float(relaxed(c.arrays, hard_rows(example, placement), nodes, temperature))
            m, k = c.arrays.source.shape
            assert true - 1e-9 <= found <= true + temperature * (c.n_nodes * np.log(k + 1) + np.log(m)) + 1e-9


def test_relaxed_gradient_is_the_central_difference(example, x64):
    c = compiled(example)
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(example.n_tasks, example.n_devices)))
    nodes = nodes_of(c, example.order)
    call = jax.jit(lambda x, t: relaxed_makespan(c.arrays, jax.nn.softmax(x), nodes, t))
    slope, of_temperature = jax.jit(jax.grad(lambda x, t: call(x, t), (0, 1)))(logits, 0.3)
    for i, d in ((0, 1), (5, 0), (9, 2), (12, 1)):
        step = jnp.zeros_like(logits).at[i, d].set(1e-5)
        central = (call(logits + step, 0.3) - call(logits - step, 0.3)) / 2e-5
        np.testing.assert_allclose(slope[i, d], central, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(of_temperature, (call(logits, 0.3 + 1e-5) - call(logits, 0.3 - 1e-5)) / 2e-5, rtol=1e-6)
    assert (np.abs(np.asarray(slope)).sum(axis=1) > 0).any()


def test_descent_leaves_a_slow_device_and_forbidden_ones():
    """A chain with dear transfers: everything belongs on device 1; task 2 cannot run on device 0."""
    times = np.array([[5.0, 1.0], [5.0, 1.0], [np.inf, 1.0], [5.0, 1.0]])
    p = problem(times, [(0, 1, 9.0), (1, 2, 9.0), (2, 3, 9.0)])
    c = compiled(p, np.float32)
    logits = starting_logits(np.random.default_rng(0), 3, 4, 2, np.arange(4))
    orders = np.stack([c.order] * 3)
    found = descend(
        c, np.arange(4), np.zeros(4), np.ones(2), np.isfinite(times), logits, orders, scale=4.0, seed=0, steps=30
    )
    assert found.shape == (3, 4) and (found[:, 2] == 1).all()
    assert (found == 1).all(axis=1).any()
