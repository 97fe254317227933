"""The timeline of a placement against an event simulation that knows no list order, and against hand-made cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.placement_problems import problem, random_problem
from oracles.placement_simulation import simulate

from search.placement import timeline


def candidate(p, seed):
    """A random placement on devices that can run the tasks, and a random topological order."""
    rng = np.random.default_rng(seed)
    placement = [int(rng.choice(np.flatnonzero(np.isfinite(p.times[i])))) for i in range(p.n_tasks)]
    done, order = set(), []
    while len(order) < p.n_tasks:
        ready = [i for i in range(p.n_tasks) if i not in done and all(s in done for s in p.source[p.target == i])]
        order.append(int(rng.choice(ready)))
        done.add(order[-1])
    return np.asarray(placement), np.asarray(order)


@given(seed=st.integers(0, 10_000), congestion=st.booleans())
def test_timeline_is_the_event_simulation(seed, congestion):
    p = random_problem(seed, congestion=congestion)
    placement, order = candidate(p, seed + 1)
    start, finish, makespan = simulate(p, placement, order)
    line = timeline(p, placement, order)
    np.testing.assert_array_equal(line.start, start)
    np.testing.assert_array_equal(line.finish, finish)
    assert line.makespan == makespan


@pytest.mark.parametrize("congestion, makespan", [(False, 5.0), (True, 8.0)])
def test_two_transfers_out_of_one_device(congestion, makespan):
    # a (1) on d0 feeds b on d1 and c on d2, 3 each way: at once, or one after the other; b and c take 1
    p = problem([[1, 1, 1]] * 3, [(0, 1, 3), (0, 2, 3)], congestion=congestion)
    for got in (timeline(p, [0, 1, 2], [0, 1, 2]).makespan, simulate(p, [0, 1, 2], [0, 1, 2])[2]):
        assert got == makespan


def test_two_transfers_into_one_device():
    # a on d0 and b on d1 end at 1; their tensors (3 and 2) reach d2 one after the other
    p = problem([[1, 1, 1]] * 3, [(0, 2, 3), (1, 2, 2)], congestion=True)
    assert simulate(p, [0, 1, 2], [0, 1, 2])[2] == timeline(p, [0, 1, 2], [0, 1, 2]).makespan == 7.0


def test_what_moves_nothing_waits_for_no_link():
    p = problem([[1, 1]] * 4, [(0, 1, 5), (0, 2, None), (2, 3, None)], congestion=True)
    # t1 and its tensor: 1 to 6; t2 runs on d1 at 1 all the same when it stands before t1
    order = [0, 2, 3, 1]
    assert simulate(p, [0, 1, 1, 1], order)[0] == timeline(p, [0, 1, 1, 1], order).start.tolist() == [0, 6, 1, 2]


def test_simulation_notices_the_order_on_a_device():
    p = problem([[2, 2], [3, 3], [1, 1]], [(0, 2, 4)])
    assert simulate(p, [0, 1, 1], [0, 1, 2])[2] == 7.0
    assert simulate(p, [0, 1, 1], [0, 2, 1])[2] == 10.0
