"""The mixed-integer model: equal to brute force, cuts no schedule off, proves example-1, and says so when it cannot finish."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from oracles.placement_brute_force import best_makespan, orders, placements, small_problem
from oracles.placement_problems import problem

from search.placement import Infeasible, load_instance, makespan, timeline
from search.placement.methods.milp import build, columns_of, milp, reachable, schedule_of, solve

DATA = Path(__file__).parents[2] / "data" / "moirai"
CLOSE = dict(rel=1e-5, abs=1e-9)
MANY = 10**7


def scenarios(seed, n_devices):
    return np.random.default_rng(seed).uniform(0.2, 3.0, (3, n_devices, n_devices))


def built(p, horizon, **more):
    model = build(p, horizon, 0.0, most_cells=MANY, **more)
    assert model is not None
    return model


def solved(p, horizon, **more):
    model = built(p, horizon, **more)
    return model, solve(model, 60.0)


@pytest.mark.parametrize("seed", range(16))
def test_model_alone_is_brute_force(seed):
    """Without heuristics and bounds, from a horizon three times too long."""
    p = small_problem(seed, memory=("loose", "exact")[seed % 2])
    best = best_makespan(p)
    model, found = solved(p, 3 * best + 1)
    assert found.closed and found.bound == pytest.approx(best, **CLOSE)
    placement, order = schedule_of(model, p, found.values)
    assert p.excess_bytes(placement) == 0
    assert makespan(p, placement, order) == pytest.approx(best, **CLOSE)


@pytest.mark.parametrize("seed", range(12))
def test_method_is_brute_force(seed):
    p = small_problem(100 + seed, memory=("loose", "exact")[seed % 2])
    best = best_makespan(p)
    placement, order, info = milp(p, time_limit_s=60.0)
    assert makespan(p, placement, order) == pytest.approx(best, **CLOSE) == info["lower_bound"]
    assert info["optimal"] and info["gap"] == 0


@pytest.mark.parametrize("worst_case", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_robust_model_is_brute_force(seed, worst_case):
    p = small_problem(seed, worst_case=worst_case, link_factors=scenarios(seed, small_problem(seed).n_devices))
    best = best_makespan(p)
    assert solved(p, 3 * best + 1)[1].bound == pytest.approx(best, **CLOSE)
    placement, order, info = milp(p, time_limit_s=60.0)
    assert makespan(p, placement, order) == pytest.approx(best, **CLOSE) == info["lower_bound"]


@pytest.mark.parametrize("seed", range(12))
def test_congested_schedules_are_real_and_no_list_is_better(seed):
    """The model may send transfers in any order, the evaluator only in that of its list: the bound is below brute force."""
    p = small_problem(seed, congestion=True, memory=("loose", "exact")[seed % 2])
    best = best_makespan(p)
    model, found = solved(p, 3 * best + 1)
    assert found.closed and found.bound <= best * (1 + 1e-6)
    assert found.bound >= best_makespan(small_problem(seed, memory=("loose", "exact")[seed % 2])) * (1 - 1e-6)
    check_schedule(p, model, found)
    placement, order, info = milp(p, time_limit_s=60.0)
    assert info["lower_bound"] <= best * (1 + 1e-9) and makespan(p, placement, order) >= best
    assert info["optimal"] == (info["gap"] == 0) == (info["lower_bound"] == makespan(p, placement, order))


INF = np.inf


@pytest.mark.parametrize(
    "times, edges, best",
    [
        # a on d0 feeds b on d1 and c on d2, 3 each way, one after the other
        ([[1, INF, INF], [INF, 1, INF], [INF, INF, 1]], [(0, 1, 3), (0, 2, 3)], 8.0),
        # a on d0 and b on d1 feed c on d2: 3 and 2, one after the other
        ([[1, INF, INF], [INF, 1, INF], [INF, INF, 1]], [(0, 2, 3), (1, 2, 2)], 7.0),
        # the same two transfers on links of their own: at once
        ([[1, INF, INF, INF], [INF, 1, INF, INF], [INF, INF, 1, INF], [INF, INF, INF, 1]], [(0, 2, 3), (1, 3, 2)], 5.0),
        # the second edge moves nothing
        ([[1, INF, INF], [INF, 1, INF], [INF, INF, 1]], [(0, 2, 3), (1, 2, None)], 5.0),
    ],
)
def test_congestion_by_hand(times, edges, best):
    assert solved(problem(times, edges, congestion=True), 20.0)[1].bound == pytest.approx(best, **CLOSE)


def check_schedule(p, model, found):
    """The solver's own start times against the rules, one by one."""
    slack, v = 1e-5 * found.bound + 1e-9, found.values / model.scale
    place = schedule_of(model, p, found.values)[0]
    start = v[model.starts[0]]
    end = start + p.times[np.arange(p.n_tasks), place]
    assert end.max() <= found.bound + slack and p.excess_bytes(place) == 0
    for i, j in combinations(range(p.n_tasks), 2):
        assert place[i] != place[j] or end[i] <= start[j] + slack or end[j] <= start[i] + slack
        assert p.group[i] < 0 or p.group[i] != p.group[j] or place[i] == place[j]
    transfers = []
    for e, (a, b) in enumerate(zip(p.source, p.target, strict=True)):
        takes = p.transfer[e, place[a], place[b]]
        assert start[b] >= end[a] + takes - slack
        if e in model.sent and place[a] != place[b]:
            sent = float(v[model.sends[0]][list(model.sent).index(e)])
            assert end[a] <= sent + slack and sent + takes <= start[b] + slack
            transfers.append((place[a], place[b], sent, sent + takes))
    for one, other in combinations(transfers, 2):
        if one[0] == other[0] or one[1] == other[1]:
            assert one[3] <= other[2] + slack or other[3] <= one[2] + slack


@pytest.mark.parametrize("congestion", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_no_schedule_is_cut_off(seed, congestion):
    """Any list's timeline, as columns, keeps every row of the model whose horizon it just meets."""
    p = small_problem(200 + seed, congestion=congestion, link_factors=None if seed % 3 else
                      scenarios(seed, small_problem(200 + seed, congestion=congestion).n_devices), worst_case=seed % 2 == 0)  # fmt: skip
    rng = np.random.default_rng(seed)
    places, lists = placements(p), orders(p)
    for _ in range(5):
        place, order = places[rng.integers(len(places))], lists[rng.integers(len(lists))]
        if (horizon := makespan(p, place, order)) == 0:
            continue
        model = built(p, horizon)
        values = columns_of(model, p, place, [timeline(p, place, order, s) for s in range(len(p.factors))])
        rows = model.matrix @ values
        assert np.all(rows >= model.row_low - 1e-4) and np.all(rows <= model.row_high + 1e-4)
        assert np.all(values >= model.low - 1e-9) and np.all(values <= model.high + 1e-4)
        assert model.cost @ values == pytest.approx(horizon * model.scale)


@pytest.mark.parametrize("seed", range(6))
def test_without_sequence_it_is_a_relaxation(seed):
    p = small_problem(seed)
    best = best_makespan(p)
    relaxed = solved(p, best + 1, pairs=False)[1].bound
    assert 0 <= relaxed <= best * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_no_model_below_the_optimum(seed):
    """A horizon below the optimum: recognised while building, or infeasible."""
    p = small_problem(seed)
    best = best_makespan(p)
    model = build(p, 0.99 * best, 0.0, most_cells=MANY) if best > 0 else None
    assert model is None or (solve(model, 60.0).values is None and solve(model, 60.0).bound == np.inf)


def test_example_1_is_proven():
    p = load_instance(DATA / "example-1.json")
    placement, order, info = milp(p, time_limit_s=60.0)
    assert makespan(p, placement, order) == info["lower_bound"] == 30.0
    assert info["optimal"] and "optimal" in info["note"]
    assert p.used_bytes(placement).tolist() == [14, 14, 16]


def test_example_1_with_congestion():
    p = load_instance(DATA / "example-1.json", congestion=True)
    placement, order, info = milp(p, time_limit_s=60.0)
    assert makespan(p, placement, order) == pytest.approx(30.0) == info["lower_bound"]
    assert info["optimal"]


def test_closure_orders_what_is_connected():
    p = problem([[1]] * 5, [(0, 1, None), (1, 2, None), (3, 2, None)])
    want = np.zeros((5, 5), bool)
    want[[0, 0, 1, 3], [1, 2, 2, 2]] = True
    np.testing.assert_array_equal(reachable(p), want)


def test_time_out_returns_the_incumbent_and_says_so():
    p = load_instance(DATA / "GoogLeNet.json")
    placement, order, info = milp(p, time_limit_s=2.0)
    value = makespan(p, placement, order)
    assert value <= 1.386  # HEFT's
    assert info["gap"] == pytest.approx(1 - info["lower_bound"] / value) and 0 < info["gap"] < 0.4
    assert not info["optimal"] and "time ran out" in info["note"] and "gap" in info["note"]


def test_too_large_a_model_is_left_alone():
    p = load_instance(DATA / "GoogLeNet.json")
    placement, order, info = milp(p, time_limit_s=30.0, most_cells=10)
    assert "too large" in info["note"] and info["gap"] > 0
    assert makespan(p, placement, order) <= 1.386


def test_warm_start_is_where_it_begins():
    p = load_instance(DATA / "example-1.json")
    best = milp(p, time_limit_s=60.0)
    assert makespan(p, *milp(p, time_limit_s=10.0, most_cells=10)[:2]) > 30.0  # the heuristics alone
    placement, order, info = milp(p, time_limit_s=10.0, most_cells=10, warm_start=best[:2])
    assert makespan(p, placement, order) == 30.0 and "began with 30" in info["note"]
    with pytest.raises(ValueError, match="not a permutation"):
        milp(p, most_cells=10, warm_start=(best[0], np.zeros(14, int)))
    crowded = milp(p, time_limit_s=10.0, most_cells=10, warm_start=(np.zeros(14, int), p.order))
    assert p.excess_bytes(crowded[0]) == 0 and "exceeds memory" in crowded[2]["note"]


@pytest.mark.parametrize(
    "memory, capacity, message",
    [([4, 4, 4], [5, 5], "2 bytes"), ([9, 1, 1], [5, 8], r"t0.* 1 more than"), ([3, 3, 3], [5, 5], "bytes")],
)
def test_what_cannot_fit_says_by_how_much(memory, capacity, message):
    p = problem([[1, 1]] * 3, [(0, 1, 1)], memory=memory, capacity=capacity)
    with pytest.raises(Infeasible, match=message):
        milp(p, time_limit_s=5.0)


def test_tasks_without_a_duration():
    p = problem([[0, 0]] * 4, [(0, 1, 1), (0, 2, 1)])
    placement, order, info = milp(p, time_limit_s=5.0)
    assert makespan(p, placement, order) == info["lower_bound"] == info["gap"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("scale, heft", [(1.0, 1.385), (0.1, 1.073), (0.01, 1.064)])
def test_neighbourhoods_improve_on_heft(scale, heft):
    p = load_instance(DATA / "GoogLeNet.json", comm_scale=scale)
    placement, order, info = milp(p, time_limit_s=60.0)
    assert info["lower_bound"] < makespan(p, placement, order) < 0.97 * heft


@pytest.mark.parametrize("seed", range(4))
def test_highspy_agrees(seed):
    pytest.importorskip("highspy")
    p = small_problem(seed, congestion=seed % 2 == 1)
    place, order = placements(p)[0], orders(p)[0]
    model = built(p, max(makespan(p, place, order), 1e-3))
    start = columns_of(model, p, place, [timeline(p, place, order)])
    assert solve(model, 60.0, start).bound == pytest.approx(solve(model, 60.0).bound, **CLOSE)


def test_gurobi_agrees():
    """A commercial solver on the same matrices, where one is installed and licensed."""
    gurobi = pytest.importorskip("gurobipy")
    p = load_instance(DATA / "example-1.json", congestion=True)
    model = built(p, 40.0)
    try:
        program = gurobi.Model()
        kinds = np.where(model.integer, "B", "C")
        v = program.addMVar(len(model.cost), lb=model.low, ub=model.high, obj=model.cost, vtype=kinds)
        below, above = np.isfinite(model.row_high), np.isfinite(model.row_low)
        program.addConstr(model.matrix[below] @ v <= model.row_high[below])
        program.addConstr(model.matrix[above] @ v >= model.row_low[above])
        program.optimize()
    except gurobi.GurobiError as error:
        pytest.skip(f"no licence: {error}")
    assert program.ObjVal / model.scale == pytest.approx(30.0, rel=1e-5)
