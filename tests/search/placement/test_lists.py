"""List schedulers by their published names: cases worked out by hand, figures of others, and what must hold for any problem."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.placement_problems import problem, random_problem

from search.placement import NO_GROUP, Infeasible, critical_path, load_instance, makespan, placed, timeline
from search.placement.methods import (
    Fit,
    best_device,
    chosen_groups,
    coplaced,
    earliest_first,
    favourites,
    getf,
    heft,
    m_etf,
    m_sct,
    m_topo,
    relaxed_assignment,
    speed_groups,
    speeds,
    upward_ranks,
)

METHODS = {"m-topo": m_topo, "m-etf": m_etf, "m-sct": m_sct, "getf": getf, "heft": heft}
DATA = Path(__file__).parents[2] / "data" / "moirai"

# Topcuoglu, Hariri, Wu 2002, figure 2: times on three processors, and data along 15 edges
TIMES = [[14, 16, 9], [13, 19, 18], [11, 13, 19], [13, 8, 17], [12, 13, 10], [13, 16, 9], [7, 15, 11], [5, 11, 14], [18, 12, 20],
         [21, 7, 16]]  # fmt: skip
EDGES = [(1, 2, 18), (1, 3, 12), (1, 4, 9), (1, 5, 11), (1, 6, 14), (2, 8, 19), (2, 9, 16), (3, 7, 23), (4, 8, 27), (4, 9, 23),
         (5, 9, 13), (6, 8, 15), (7, 10, 17), (8, 10, 11), (9, 10, 13)]  # fmt: skip


@pytest.fixture(scope="module")
def classic():
    return problem(TIMES, [(a - 1, b - 1, c) for a, b, c in EDGES], name="classic")


@pytest.fixture(scope="module")
def example():
    return load_instance(DATA / "example-1.json")


def test_heft_on_its_own_example(classic):
    ranks = [108.000, 77.000, 80.000, 80.000, 69.000, 63.333, 42.667, 35.667, 44.333, 14.667]  # table 3
    np.testing.assert_allclose(upward_ranks(classic), ranks, atol=5e-4)
    placement, order, info = heft(classic)
    assert info["planned"] == makespan(classic, placement, order) == 80  # figure 3(a)
    assert placement.tolist() == [2, 0, 2, 1, 2, 1, 2, 0, 1, 1]
    line = timeline(classic, placement, order)
    assert line.start.tolist() == [0, 27, 9, 18, 28, 26, 38, 57, 56, 73]


def test_heft_fills_gaps():
    # t2 (long) goes first by rank and waits for t0's tensor on d1; t3 fits in front of it
    p = problem([[4, 9], [90, 6], [90, 3]], [(0, 1, 1)])
    placement, order, _ = heft(p)
    line = timeline(p, placement, order)
    assert placement.tolist() == [0, 1, 1] and line.start.tolist() == [0, 5, 0] and order.tolist() == [2, 0, 1]


@pytest.mark.parametrize("name, scale, reference", [
    ("GoogLeNet", 1, 1.385), ("GoogLeNet", 0.1, 1.073), ("GoogLeNet", 0.01, 1.064),
    ("yolov5x", 1, 23.502), ("yolov5x", 0.1, 22.701), ("yolov5x", 0.01, 22.701),
])  # fmt: skip
def test_heft_reference_values(name, scale, reference):
    p = load_instance(DATA / f"{name}.json", comm_scale=scale)
    placement, order, _ = heft(p)
    assert makespan(p, placement, order) == pytest.approx(reference, abs=5.1e-4)


@pytest.mark.parametrize("name, device, best, path", [("GoogLeNet", 0, 2.336, 0.817), ("yolov5x", 3, 24.169, 22.331)])
def test_best_device_and_critical_path(name, device, best, path):
    p = load_instance(DATA / f"{name}.json")
    placement, order, _ = best_device(p)
    assert set(placement.tolist()) == {device}
    assert makespan(p, placement, order) == pytest.approx(best, abs=5.1e-4)
    assert critical_path(p) == pytest.approx(path, abs=5.1e-4)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("congestion", [False, True])
def test_example_1_is_exactly_full(example, name, congestion):
    p = replace(example, congestion=congestion)
    placement, order, info = METHODS[name](p)
    assert p.used_bytes(placement).tolist() == [14, 14, 16]
    assert 30 <= makespan(p, placement, order) <= 60
    assert info.get("lower_bound", 0) <= 30


def test_m_topo_by_hand():
    # cap = 12 / 2 + 4 = 10: the first device takes 4 + 4 + 2, the second the rest
    p = problem([[1, 1]] * 4, [(0, 1, 1), (1, 2, 1), (2, 3, 1)], memory=[4, 4, 2, 2], capacity=[12, 12])
    placement, order, info = m_topo(p)
    assert placement.tolist() == [0, 0, 0, 1] and order.tolist() == [0, 1, 2, 3] and info["note"] == ""
    assert m_topo(replace(p, capacity_bytes=np.asarray([8.0, 8.0])))[0].tolist() == [0, 0, 1, 1]


def test_m_etf_by_hand():
    # 0: t3 on d0 (ends first), then t0 on d1; 1: t1 on d0; 3: t2 where its input is, on the slow device
    p = problem([[2, 3], [3, 3], [2, 4], [1, 10]], [(0, 2, 1)])
    placement, order, info = m_etf(p)
    assert placement.tolist() == [1, 0, 1, 0] and order.tolist() == [3, 0, 1, 2]
    assert info["planned"] == makespan(p, placement, order) == 7


def test_a_device_waits_for_its_favourite_child():
    # t0 (d0) and t1 (d1) end at 2; t2 could start on d0 at 3 and on d1 at 5; t3 wants d0 at 2
    times = [[2, 9], [9, 2], [4, 4], [5, 5]]
    edges = [(0, 2, 3), (1, 2, 1), (0, 3, 3)]
    p = problem(times, edges)
    assert timeline(p, *m_etf(p)[:2]).start.tolist() == [0, 0, 5, 2]
    placement, order, _ = earliest_first(p, favourite=np.asarray([2, -1, -1, -1]))
    line = timeline(p, placement, order)
    assert placement.tolist() == [0, 1, 0, 1] and line.start.tolist() == [0, 0, 3, 5]
    assert line.sent[0] == line.arrived[0]  # nothing is moved between a parent and its favourite child


def test_urgent_tasks_go_before_a_favourite_child():
    # d0 waits for t2 until 6; t3 could start everywhere at 2 and does
    p = problem([[2, 9], [9, 2], [4, 4], [1, 1]], [(0, 2, 5), (1, 2, 4), (0, 3, None)])
    placement, order, _ = earliest_first(p, favourite=np.asarray([2, -1, -1, -1]))
    assert placement.tolist() == [0, 1, 0, 0] and timeline(p, placement, order).start.tolist() == [0, 0, 6, 2]


@pytest.mark.parametrize("times, edges, value", [
    ([3, 3], [(0, 1, 2)], 6.0),  # an only child is the favourite
    ([2, 2, 2], [(0, 1, 1), (0, 2, 1)], 4.5),  # of two the half of each pays
    ([2, 2, 2], [(0, 2, 1), (1, 2, 1)], 4.5),
    ([1, 1, 1], [(0, 1, 10), (0, 2, 10)], 7.0),  # no bound: one device needs 3
    ([1, 1, 5], [(0, 1, 4), (0, 2, 4)], 6.0),  # t2 is the favourite, t1 pays
])  # fmt: skip
def test_favourite_children_by_hand(times, edges, value):
    p = problem([[t, t] for t in times], edges)
    found = favourites(p, np.asarray(times, float), np.asarray([e[2] for e in edges], float))
    assert found.value == pytest.approx(value, rel=1e-7)
    if value == 6.0:
        assert found.child.tolist() == ([1, -1] if len(times) == 2 else [2, -1, -1])


def test_the_program_is_a_bound_only_where_transfers_are_short():
    short = problem([[2, 2]] * 3, [(0, 1, 1), (0, 2, 1)])
    placement, order, info = m_sct(short)
    assert info["lower_bound"] == pytest.approx(4.5, rel=1e-6) and makespan(short, placement, order) == 5.0
    long = problem([[1, 1]] * 3, [(0, 1, 10), (0, 2, 10)])
    placement, order, info = m_sct(long)
    assert "lower_bound" not in info and makespan(long, placement, order) == 3.0


def test_getf_by_hand():
    group = speed_groups(np.asarray([1.0, 0.4, 1.0, 0.45]))  # four devices: gamma = 2
    assert group.tolist() == [1, 0, 1, 0]
    speed = np.asarray([1.0, 0.5, 0.5, 0.5, 0.5])  # five: gamma = 1.91; together the slow ones are faster
    group = speed_groups(speed)
    assert group.tolist() == [1, 0, 0, 0, 0]
    x = np.asarray([[0.5, 0.5, 0, 0, 0], [0.49, 0.51, 0, 0, 0], [0, 0, 0, 0, 1]])
    assert chosen_groups(x, speed, group).tolist() == [1, 0, 0]
    assert chosen_groups(x[:, :2], np.asarray([1.0, 0.5]), np.asarray([1, 0])).tolist() == [1, 1, 1]


def test_getf_keeps_to_groups_and_leaves_slow_devices_out():
    p = problem([[2, 2, 20]] * 3, [])
    np.testing.assert_allclose(speeds(p), [1, 1, 0.1])
    placement, order, info = getf(p)
    assert (
        2 not in placement and "left out, slower than the fastest / 3: d2" in info["note"] and "lower_bound" not in info
    )
    assert makespan(p, placement, order) == 4
    tight = replace(p, memory_bytes=np.ones(3), capacity_bytes=np.ones(3))  # memory wants it back
    placement, order, info = getf(tight)
    assert sorted(placement.tolist()) == [0, 1, 2] and info["note"] == ""


def test_relaxed_assignment_by_hand():
    every = np.ones(2, bool)
    load = problem([[2, 2]] * 3, [])
    assert relaxed_assignment(load, every).value == pytest.approx(3)  # work over devices
    chain = problem([[2, 4], [3, 1]], [(0, 1, 9)])
    assert relaxed_assignment(chain, every).value == pytest.approx(3)  # fastest devices, transfers free
    assert relaxed_assignment(problem([[2, 2]] * 2, [(0, 1, 9)]), every).value == pytest.approx(
        4
    )  # the chain, not the load of 2
    full = replace(chain, memory_bytes=np.ones(2), capacity_bytes=np.asarray([2.0, 0.5]))
    assert relaxed_assignment(full, every).value == pytest.approx(4)  # half of t1 on each: 2 + (3 + 1) / 2
    assert relaxed_assignment(replace(full, capacity_bytes=np.ones(2) / 2), every)[:2] == (None, np.inf)


def test_solvers_out_of_time_are_replaced_and_say_so(example):
    for method, said in ((m_sct, "upward rank instead"), (getf, "fastest device instead")):
        placement, order, info = method(example, time_limit_s=0.0)
        assert said in info["note"] and "lower_bound" not in info
        assert example.excess_bytes(placement) == 0 and makespan(example, placement, order) >= 30


def judged(p, method):
    """What must hold of any method on any problem."""
    placement, order, info = method(p)
    assert np.isfinite(p.times[np.arange(p.n_tasks), placement]).all()
    assert p.excess_bytes(placement) == 0
    for g in set(p.group.tolist()) - {NO_GROUP}:
        assert len(set(placement[p.group == g].tolist())) == 1
    end = makespan(p, placement, order)  # raises for an order that is none
    assert end >= critical_path(p) - 1e-9
    assert end >= info.get("lower_bound", 0.0) - 1e-6
    return end, info


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), memory=st.sampled_from(["loose", "exact"]))
def test_any_problem(name, seed, memory):
    p = random_problem(seed, memory=memory)
    end, info = judged(p, METHODS[name])
    # in list order everything starts as early as the method itself had it, or earlier
    assert end <= info.get("planned", np.inf) + 1e-9


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), memory=st.sampled_from(["loose", "exact"]))
def test_any_problem_with_congestion(name, seed, memory):
    p = random_problem(seed, memory=memory, congestion=True)
    end, info = judged(p, METHODS[name])
    if name != "heft":  # plans without
        assert end <= info.get("planned", np.inf) + 1e-9


@given(seed=st.integers(0, 10_000))
def test_best_device_on_any_problem(seed):
    p = random_problem(seed)
    if not np.isfinite(p.times.sum(axis=0)).any():
        with pytest.raises(Infeasible, match="no single device runs every task"):
            best_device(p)
    else:
        end, _ = judged(p, best_device)
        assert end == p.times.sum(axis=0).min()


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000))
def test_deterministic(seed):
    p = random_problem(seed, memory="exact")
    for method in METHODS.values():
        assert all(np.array_equal(a, b) for a, b in zip(method(p, seed=1)[:2], method(p, seed=2)[:2], strict=True))


def test_coplacement():
    # t0 -> t1 -> {t2, t3} -> t4: t0 joins t1 (its only consumer), t2 and t3 join t4; t1 has two consumers
    p = problem([[1, 1]] * 5, [(0, 1, 1), (1, 2, 1), (1, 3, 1), (2, 4, 1), (3, 4, 1)], memory=[1] * 5, capacity=[3, 3])
    g = coplaced(p).group
    assert g[0] == g[1] != g[4] and g[2] == g[3] == g[4]
    small = coplaced(replace(p, capacity_bytes=np.asarray([2.0, 2.0]))).group
    assert small[3] == small[4] != small[2]  # a group stays small enough for some device
    judged(coplaced(p), m_etf)


def test_what_does_not_fit_is_told_in_bytes():
    p = problem([[1, 1]] * 3, [], memory=[3, 3, 3], capacity=[5, 5], name="p")
    with pytest.raises(
        Infeasible, match=r"^p: does not fit: .* 9 of 10 bytes.* at least 1 bytes are too many; the largest is task t0"
    ):
        m_etf(p)
    with pytest.raises(
        Infeasible, match=r"the tasks take 9 bytes, 1 more than all devices hold \(8\); the largest is task t0 \(3\)"
    ):
        heft(replace(p, capacity_bytes=np.asarray([4.0, 4.0])))
    with pytest.raises(Infeasible, match=r"task t0 takes 3 bytes, 1 more than any device that runs it holds \(2\)"):
        m_topo(replace(p, capacity_bytes=np.asarray([2.0, 2.0])))
    with pytest.raises(Infeasible, match=r"group 4 \(tasks t0, t2\) takes 6 bytes, 1 more than any device"):
        getf(replace(p, group=np.asarray([4, -1, 4])))
    with pytest.raises(
        Infeasible, match=r"the tasks take 9 bytes, 4 more than d0 holds \(5\); the largest is task t0 \(3\)"
    ):
        best_device(p)
    apart = problem([[1, np.inf], [np.inf, 1]], [], group=[1, 1])
    with pytest.raises(Infeasible, match=r"group 1 \(tasks t0, t1\): no device runs all of it"):
        m_sct(apart)


def test_devices_without_a_link():
    wall = [[0, np.inf], [np.inf, 0]]
    p = problem([[1, 5], [9, 2]], [(0, 1, wall)])
    for name, method in METHODS.items():
        if name != "m-topo":  # looks at no times at all
            end, _ = judged(p, method)
            assert np.isfinite(end)
    split = problem([[1, np.inf], [np.inf, 2]], [(0, 1, wall)])
    with pytest.raises(Infeasible, match="task t1"):
        m_etf(split)
    with pytest.raises(Infeasible, match="task t1"):
        heft(split)


def test_memory_never_leads_into_a_dead_end():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        home = rng.integers(0, 4, 24)
        size = rng.integers(1, 9, 24)
        p = problem(rng.integers(1, 9, (24, 4)), [], memory=size, capacity=np.bincount(home, size, minlength=4))
        fit = Fit(p)
        for task in rng.permutation(24).tolist():
            wanted = [d for d in rng.permutation(4).tolist() if fit.take(task, d)]
            assert wanted  # some device always takes it
        assert p.used_bytes(fit.at).tolist() == p.capacity_bytes.tolist()


def test_links_that_vary_are_planned_with_their_mean():
    p = problem([[1, 1], [1, 1], [9, 1]], [(0, 2, 2)], link_factors=np.stack([np.full((2, 2), f) for f in (1.0, 3.0)]))
    placement, order, info = heft(p)
    assert placement[0] == 0 and placement[2] == 1 and info["planned"] == 1 + 2 * 2 + 1
    result = placed("heft", p, [0, 0, 1], [0, 1, 2], 0.5, {"lower_bound": 3, "note": "n"})
    assert result.makespan == 1 + (2 + 6) / 2 + 1 and result.gap == 0.5 and result.note == "n"
    assert makespan(replace(p, worst_case=True), [0, 0, 1], [0, 1, 2]) == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m-topo", "m-etf", "heft"])
def test_ten_thousand_tasks(name):
    rng = np.random.default_rng(0)
    n, d = 10_000, 16
    edges = [(int(i), j, 1.0 + j % 5) for j in range(100, n) for i in rng.integers(j - 100, j, 2)]
    size = rng.integers(1, 100, n)
    p = problem(rng.integers(1, 9, (n, d)), edges, memory=size, capacity=[size.sum() * 1.01 // d] * d)
    end, info = judged(p, METHODS[name])
    assert end <= info.get("planned", np.inf) + 1e-9
