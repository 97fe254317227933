"""`search` and `placeto`: the known optimum, what must hold for any result, determinism; the steps one by one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracles.placement_brute_force import best_makespan, small_problem
from oracles.placement_problems import problem, random_problem
from scipy.optimize import linprog

from search.placement import NO_GROUP, Infeasible, Problem, load_instance, makespan, timeline
from search.placement.methods import heft, placeto, upward_ranks
from search.placement.methods.search import (
    Line,
    Plan,
    Start,
    coming,
    graph,
    heuristic_starts,
    linearisation,
    packing,
    quanta,
    ranked_orders,
    search,
    single_devices,
    slack,
    span_of,
    value,
    waste,
)

DATA = Path(__file__).parents[2] / "data" / "moirai"


@pytest.fixture(scope="module")
def example():
    return load_instance(DATA / "example-1.json")


def tangled(n: int = 48, d: int = 3, seed: int = 0, tight: float = 1.1, **more) -> Problem:
    """Random edges, groups, devices that cannot run a task, memory that binds."""
    rng = np.random.default_rng(seed)
    times = rng.uniform(1, 5, (n, d))
    times[::7, 0] = np.inf
    edges = [
        (int(i), j, float(rng.uniform(0, 4))) for j in range(1, n) for i in rng.choice(j, min(j, 2), replace=False)
    ]
    group = np.full(n, NO_GROUP)
    group[[3, 11, 30]], group[[14, 15]] = 0, 1
    memory = np.floor(rng.uniform(1, 50, n))
    return problem(
        times, edges, memory=memory, capacity=np.full(d, np.ceil(memory.sum() / d * tight)), group=group, **more
    )


def assert_holds(p, placement, order):
    timeline(p, placement, order)  # a placement that runs, a topological order
    assert p.excess_bytes(placement) == 0
    for g in set(p.group.tolist()) - {NO_GROUP}:
        assert len(set(placement[p.group == g].tolist())) == 1


def test_example_1_reaches_its_optimum(example):
    for seed in range(3):
        placement, order, info = search(example, seed=seed, rounds=15, bound=30.0)
        assert makespan(example, placement, order) == 30.0
        assert_holds(example, placement, order)
        assert min(info["starts"].values()) > 30.0 and info["evaluations"] > 0


@pytest.mark.parametrize("congestion", [False, True])
def test_small_problems_reach_the_optimum_of_enumeration(congestion):
    hits = 0
    for seed in range(6):
        p = small_problem(seed, congestion=congestion)
        placement, order, _ = search(p, seed=seed, rounds=6)
        assert_holds(p, placement, order)
        best, found = best_makespan(p), makespan(p, placement, order)
        assert found >= best - 1e-9
        hits += found <= best + 1e-9
    assert hits == 6


def test_the_plain_loop_times_as_the_evaluator_does():
    for seed in range(30):
        p = random_problem(seed, congestion=seed % 2 == 1)
        p = replace(
            p,
            link_factors=np.random.default_rng(seed).uniform(0.5, 2, (2, p.n_devices, p.n_devices)),
            worst_case=seed % 3 == 0,
        )
        placement = np.where(np.isfinite(p.times), 0, 1).argmin(axis=1)
        assert span_of(p)(placement.tolist(), p.order.tolist()) == pytest.approx(
            makespan(p, placement, p.order), rel=1e-12
        )


def test_large_path_is_never_worse_than_a_start_and_repeats():
    p = tangled()
    once = search(p, seed=1, rounds=2)
    again = search(p, seed=1, rounds=2)
    assert_holds(p, *once[:2])
    assert np.array_equal(once[0], again[0]) and np.array_equal(once[1], again[1])
    assert makespan(p, *once[:2]) <= min(once[2]["starts"].values()) + 1e-9
    assert makespan(p, *once[:2]) < makespan(p, *heft(p)[:2])


@pytest.mark.slow
def test_large_path_with_congestion_and_scenarios():
    factors = np.random.default_rng(0).uniform(0.5, 2, (2, 3, 3))
    p = replace(tangled(), congestion=True, link_factors=factors, worst_case=True)
    placement, order, info = search(p, seed=0, rounds=2)
    assert_holds(p, placement, order)
    assert makespan(p, placement, order) <= min(info["starts"].values()) + 1e-9


def test_what_cannot_fit_is_refused():
    p = tangled()
    with pytest.raises(Infeasible, match="bytes"):
        search(replace(p, capacity_bytes=p.capacity_bytes / 2), rounds=1)


@pytest.mark.slow
def test_googlenet_sample():
    p = load_instance(DATA / "GoogLeNet.json")
    placement, order, info = search(p, seed=0, time_limit_s=30)
    assert_holds(p, placement, order)
    assert makespan(p, placement, order) <= 1.25 and makespan(p, placement, order) <= min(info["starts"].values())


def test_insertion_without_foresight_is_heft():
    p = tangled(tight=9.0)
    p = replace(p, group=np.full(p.n_tasks, NO_GROUP))
    by_mean = p.order[np.argsort(-upward_ranks(p)[p.order], kind="stable")]
    mine, his = Plan(p).place(by_mean, np.zeros_like(p.times)), heft(p)
    assert makespan(p, *mine) == pytest.approx(makespan(p, *his[:2]))


def test_insertion_fills_a_gap():
    """Device 0 waits from 2 to 6 for task 1's data; task 3 (2 long) goes in between."""
    p = problem([[2, 9], [9, 2], [3, 9], [2, 9]], [(1, 2, 4.0)])
    placement, order = Plan(p).place(np.array([0, 1, 2, 3]), np.zeros((4, 2)))
    assert placement.tolist() == [0, 1, 0, 0] and makespan(p, placement, order) == 9.0
    assert order.tolist().index(3) < order.tolist().index(2)


def test_coming_is_the_optimistic_cost():
    p = problem([[2, 3], [4, 1]], [(0, 1, 5.0)])
    assert coming(p, p.transfer).tolist() == [[4.0, 1.0], [0.0, 0.0]]  # stay for 4, or move for 5 + 1; stay for 1
    assert coming(p.scaled(0.1), p.scaled(0.1).transfer).tolist()[0] == [1.5, 1.0]


def test_rents_are_the_dual_of_the_assignment_lp():
    rng = np.random.default_rng(0)
    times = rng.lognormal(0, 1, (60, 3))
    p = problem(times, [])
    over = waste(p, steps=3000)
    assert (over >= 0).all() and (over.min(axis=1) == 0).all()
    # least T with sum x = 1, sum p x <= T
    a = np.zeros((3, 181))
    for d in range(3):
        a[d, d:180:3], a[d, 180] = times[:, d], -1
    once = np.kron(np.eye(60), np.ones(3))
    lp = linprog(np.r_[np.zeros(180), 1], a, np.zeros(3), np.c_[once, np.zeros(60)], np.ones(60))
    rented = times * (-lp.ineqlin.marginals / -lp.ineqlin.marginals.sum()) * 3
    np.testing.assert_allclose(over, rented - rented.min(axis=1, keepdims=True), atol=0.05 * rented.mean())


def test_a_firm_parent_comes_back_and_memory_holds_in_a_neighbourhood():
    p = tangled()
    placement, order, _ = heft(p)
    line = Line(p, graph(p), placement, order, makespan(p, placement, order), 0)
    before = line.value
    for _ in range(12):
        line.generation(ranked_orders)
    assert_holds(p, line.placement, line.order)
    assert makespan(p, line.placement, line.order) == pytest.approx(line.value, rel=1e-5)
    assert line.value < before


def test_starts_are_placements_that_can_be_judged(example):
    found = heuristic_starts(example, lambda: 10.0, 10.0)
    assert {"heft", "m-etf", "m-topo", "getf", "m-sct"} <= {s.name for s in found}
    p = tangled()
    for s in (*single_devices(p), packing(p)):
        assert np.isfinite(value(p, s))
    assert p.excess_bytes(packing(p).placement) == 0


def test_ranked_orders_are_topological():
    for seed in range(20):
        p = random_problem(seed)
        placement = np.where(np.isfinite(p.times), 0, 1).argmin(axis=1)
        for order in ranked_orders(p, np.stack([placement] * 3), 0.5, np.random.default_rng(seed)):
            assert np.isfinite(makespan(p, placement, order))


def test_linearisations_are_topological_and_follow_a_chain():
    p = problem(
        np.ones((7, 1)), [(0, 1, 1.0), (1, 2, 1.0), (2, 6, 1.0), (0, 3, 1.0), (3, 4, 1.0), (4, 6, 1.0), (5, 6, 1.0)]
    )
    for kind in ("plain", "forward", "backward"):
        line = linearisation(p, np.random.default_rng(0), kind)
        assert np.isfinite(timeline(p, np.zeros(7, int), line).makespan)
        at = np.argsort(line)
        if kind != "plain":
            assert at[4] == at[3] + 1 and at[2] == at[1] + 1


def test_slack_is_what_a_task_may_be_late():
    p = problem([[2.0, 9], [9, 3], [4, 9]], [(0, 2, 1.0), (1, 2, 1.0)])
    placement, order = np.array([0, 1, 0]), np.array([0, 1, 2])
    assert slack(p, placement, order).tolist() == [2.0, 0.0, 0.0]


def test_quanta_are_exact_or_on_the_safe_side():
    size, capacity = quanta(np.array([6e9, 4e9, 2e9]), np.array([6e9, 1e30]))
    assert size.tolist() == [3, 2, 1] and capacity[0] == 3 and capacity[1] >= 6
    rng = np.random.default_rng(0)
    real = rng.uniform(0, 1e12, 50)
    size, capacity = quanta(real, np.array([real[:20].sum()]))
    assert size.sum() < 2**31 and size[:20].sum() >= capacity[0] - 1 and size[:19].sum() <= capacity[0]


@pytest.mark.slow
def test_placeto_improves_and_repeats(example):
    p = tangled(tight=1.5)
    once = placeto(p, seed=0, updates=25, rollouts=8)
    again = placeto(p, seed=0, updates=25, rollouts=8)
    assert_holds(p, *once[:2])
    assert np.array_equal(once[0], again[0]) and np.array_equal(once[1], again[1])
    assert makespan(p, *once[:2]) < once[2]["start"]


def test_value_of_a_start_is_its_makespan(example):
    s = Start("x", np.zeros(example.n_tasks, int), example.order)
    assert value(example, s) == makespan(example, s.placement, s.order) == 65.0
