"""Lower bounds: by hand, below every schedule that brute force finds, and never NaN where devices cannot run something."""

from pathlib import Path

import numpy as np
import pytest
from oracles.placement_brute_force import best_makespan, small_problem
from oracles.placement_problems import problem
from scipy.optimize import linprog

from search.placement import (
    assignment_lp,
    critical_path,
    favourite_lp,
    heads_tails,
    load_instance,
    loads,
    lower_bound,
    path_bound,
    units,
)

INF = np.inf
DATA = Path(__file__).parents[2] / "data" / "moirai"


def plain_assignment(p):
    zero = np.zeros_like(p.times)
    return assignment_lp(p, units(p), p.times, loads(p, units(p), p.times, zero, zero, 0.0))


def chain(**more):
    # a is fast on d0, b on d1; moving takes 3
    return problem([[1, 9], [8, 2], [1, 9]], [(0, 1, 3), (1, 2, 3)], **more)


def test_paths_by_hand():
    assert critical_path(chain()) == 4.0  # 1 + 2 + 1
    # d0 throughout: 10; via d1 for b: 1 + 3 + 2 + 3 + 1 = 10; a on d0, b and c on d1: 15
    assert path_bound(chain()) == 10.0
    head, tail = heads_tails(chain())
    assert head.tolist() == [[0, 0], [1, 4], [9, 6]]
    assert tail.tolist() == [[9, 6], [1, 4], [0, 0]]


def test_a_group_keeps_its_device_along_a_path():
    # the middle task joins the first: 1 + 8 + 1, or 9 + 2 + 9
    assert path_bound(chain(group=[0, 0, -1])) == 10.0
    apart = problem([[1, 9], [9, 1]], [(0, 1, 0)])
    assert path_bound(apart) == 2.0
    assert path_bound(problem([[1, 9], [9, 1]], [(0, 1, 0)], group=[4, 4])) == 10.0


def test_assignment_by_hand():
    # three tasks of 2 on either device: 3 each; of which one runs on d0 alone: still 3
    assert plain_assignment(problem([[2, 2]] * 3, [])) == pytest.approx(3.0)
    # d1 holds half a task: d0 takes 2.5 of them
    p = problem([[2, 2]] * 3, [], memory=[4, 4, 4], capacity=[12, 2])
    assert plain_assignment(p) == pytest.approx(5.0)
    # 4 and 2: x on d0 where both are equally busy, 4 x = 2 (2 - x)... in all: 1 / (1/8 + 1/4)
    assert plain_assignment(problem([[4, 2]] * 2, [])) == pytest.approx(8 / 3)
    assert plain_assignment(problem([[INF, 2]] * 2, [])) == pytest.approx(4.0)
    assert plain_assignment(problem([[2, 2]] * 3, [], memory=[4, 4, 4], capacity=[5, 5])) == INF


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_the_linear_program(seed):
    """The value worked out from dual weights is that of the primal program, written out row by row."""
    rng = np.random.default_rng(seed)
    n, d = 9, 3
    p = problem(rng.uniform(1, 5, (n, d)), [], memory=rng.uniform(1, 2, n), capacity=np.full(d, 5.5))
    upper, right = np.zeros((2 * d, n * d + 1)), np.zeros(2 * d)
    for k in range(d):
        upper[k, k : n * d : d], upper[k, -1] = p.times[:, k], -1
        upper[d + k, k : n * d : d], right[d + k] = p.memory_bytes, p.capacity_bytes[k]
    whole = np.concatenate([np.kron(np.eye(n), np.ones(d)), np.zeros((n, 1))], axis=1)
    want = linprog(np.eye(n * d + 1)[-1], A_ub=upper, b_ub=right, A_eq=whole, b_eq=np.ones(n)).fun
    assert plain_assignment(p) == pytest.approx(want, rel=1e-9)


def test_favourite_children_by_hand():
    # one parent, two children, p = 1, c = 0.5: one of them waits, 1 + 0.5 + 1
    small = problem([[1, 1]] * 3, [(0, 1, 0.5), (0, 2, 0.5)])
    assert favourite_lp(small) == pytest.approx(2.25)  # x = 1/2 for both
    # with c = 10 the bare program says 7, where one device needs 3: a transfer counts no more than the sibling
    large = problem([[1, 1]] * 3, [(0, 1, 10.0), (0, 2, 10.0)])
    assert favourite_lp(large) == pytest.approx(2.5)


def test_windows_beat_the_other_bounds():
    """Four branches between two tasks: each device has 4 to do between 1 and T - 1, and d1 is far away."""
    p = problem(
        [[1, 9], *[[2, 2]] * 4, [1, 9]], [(0, i, 0.5) for i in range(1, 5)] + [(i, 5, 0.5) for i in range(1, 5)]
    )
    value, which = lower_bound(p)
    assert which == "windows"
    assert 5.5 < value <= best_makespan(p) == 7.0


@pytest.mark.parametrize("congestion", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_bounds_stay_below_brute_force(seed, congestion):
    p = small_problem(seed, congestion=congestion, memory=("loose", "exact")[seed % 2])
    best = best_makespan(p)
    value, which = lower_bound(p)
    for name, bound in (
        (which, value),
        ("path", path_bound(p)),
        ("m-SCT", favourite_lp(p)),
        ("assignment", plain_assignment(p)),
    ):
        assert 0 <= bound <= best * (1 + 1e-9), name
    assert critical_path(p) <= path_bound(p) <= value


@pytest.mark.parametrize("worst_case", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_bounds_of_robust_problems(seed, worst_case):
    d = small_problem(seed).n_devices
    factors = np.random.default_rng(seed).uniform(0.2, 4.0, (3, d, d))
    p = small_problem(seed, link_factors=factors, worst_case=worst_case)
    assert lower_bound(p)[0] <= best_makespan(p) * (1 + 1e-9)


def test_released_instances():
    """Critical paths as published with the data; the assignment program of GoogLeNet is 0.716, and an assignment with no device
    busy for 0.8 exists (0.879, the time if every task were cut alike over devices, is no bound)."""
    google, yolo = (load_instance(DATA / f"{name}.json") for name in ("GoogLeNet", "yolov5x"))
    assert critical_path(google) == pytest.approx(0.817, abs=5e-4)
    assert critical_path(yolo) == pytest.approx(22.331, abs=5e-4)
    assert plain_assignment(google) == pytest.approx(0.71608, abs=1e-5)
    assert 1 / (1 / google.times.sum(axis=0)).sum() == pytest.approx(0.879, abs=5e-4)
    busy = np.zeros(4)
    for times in google.times[np.argsort(-google.times.min(axis=1))]:
        device = int(np.argmin(busy + times))
        busy[device] += times[device]
    assert plain_assignment(google) < busy.max() < 0.8
    value, which = lower_bound(google)
    assert which == "windows" and 0.92 < value < 0.95
    assert lower_bound(yolo.scaled(0.1))[0] == pytest.approx(22.701, abs=1e-9)  # what HEFT reaches


def test_time_limit_leaves_a_bound():
    p = load_instance(DATA / "GoogLeNet.json")
    value, which = lower_bound(p, time_limit_s=0.0)
    assert which == "path with transfers" and value == path_bound(p)


def test_upper_stops_the_windows():
    p = load_instance(DATA / "GoogLeNet.json")
    assert lower_bound(p, upper=0.9)[0] <= 0.9 + 1e-7
