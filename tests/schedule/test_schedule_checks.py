"""The schedule itself: what belongs to a workload and a package, and segments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel import Schedule

L = 9  # operators of `tiny`


def zeros(n=L):
    return np.zeros(n, np.int32)


@pytest.mark.parametrize("schedule, said", [
    (Schedule(zeros(8)), r"schedule.assignment has shape \(8,\); needed: \(9,\)"),
    (Schedule(np.zeros((9, 4), np.int32)), r"schedule.assignment has shape \(9, 4\); needed: \(9,\)"),
    (Schedule.relaxed(np.ones((9, 3)) / 3), r"schedule.assignment has shape \(9, 3\); needed: \(9, 4\)"),
    (Schedule.relaxed(np.ones(9)), r"needed: \(9, 4\)"),
    (Schedule(np.full(9, 4)), "schedule.assignment contains 4; allowed: 0 to 3"),
    (Schedule(np.full(9, -1)), "schedule.assignment contains -1; allowed: 0 to 3"),
    (Schedule(zeros(), order=np.arange(8)), r"schedule.order has shape \(8,\); needed: \(9,\)"),
    (Schedule(zeros(), order=zeros()), "schedule.order is not a permutation"),
    (Schedule(zeros(), order=np.arange(1, 10)), "schedule.order is not a permutation"),
    (Schedule(zeros(), window=zeros(3), n_windows=2), r"schedule.window has shape \(3,\); needed: \(9,\)"),
    (Schedule(zeros(), window=np.full(9, 2), n_windows=2), "schedule.window contains 2; allowed: 0 to 1"),
    (Schedule(zeros(), window=np.full(9, -1), n_windows=2), "schedule.window contains -1; allowed: 0 to 1"),
])  # fmt: skip
def test_what_cannot_belong_is_refused(schedule, said, tiny, mcm):
    with pytest.raises(ValueError, match=said):
        schedule.check(tiny, mcm.n_chiplets)
    with pytest.raises(ValueError, match=said):
        pm.evaluate(tiny, mcm, schedule)


@pytest.mark.parametrize("schedule", [
    Schedule(zeros()), Schedule(np.full(9, 3, np.int8)), Schedule.relaxed(np.full((9, 4), 0.25)),
    Schedule(zeros(), order=np.arange(9)[::-1]),  # against the edges: infeasible is a result, not an error
    Schedule(zeros(), window=np.ones(9, int), n_windows=2),
])  # fmt: skip
def test_what_may_belong_passes(schedule, tiny, mcm):
    assert schedule.check(tiny, mcm.n_chiplets) is None
    assert schedule.is_relaxed == (schedule.assignment.ndim == 2)


def test_check_works_in_a_trace(tiny, mcm):
    @jax.jit
    def checked(assignment):
        Schedule(assignment).check(tiny, mcm.n_chiplets)
        return assignment

    checked(jnp.zeros(L, jnp.int8))
    with pytest.raises(ValueError, match="schedule.assignment has shape"):
        checked(jnp.zeros(8, jnp.int8))


def test_concrete_jax_arrays_are_checked_too(tiny, mcm):
    with pytest.raises(ValueError, match="schedule.assignment contains 7"):
        Schedule(jnp.full(L, 7)).check(tiny, mcm.n_chiplets)
    with pytest.raises(ValueError, match="schedule.window contains 2"):
        Schedule(zeros(), window=jnp.full(L, 2), n_windows=2).check(tiny, mcm.n_chiplets)
    with pytest.raises(ValueError, match="schedule.order is not a permutation"):
        Schedule(zeros(), order=jnp.zeros(L, int)).check(tiny, mcm.n_chiplets)


@pytest.mark.parametrize("chiplet", range(4))
def test_on_chiplet_is_one_segment_a_model(chiplet, tiny, both):
    schedule = Schedule.on_chiplet(tiny, chiplet)
    assert schedule.assignment.tolist() == [chiplet] * L and schedule.sub_batch == 1 and not schedule.is_relaxed
    assert schedule.segments(tiny) == [(0, L, chiplet)]
    assert Schedule.on_chiplet(both, chiplet).segments(both) == [(0, 146, chiplet), (146, 320, chiplet)]


def test_segments_by_hand(tiny):
    assignment = np.asarray([0, 0, 1, 1, 1, 0, 2, 2, 2])
    assert Schedule(assignment).segments(tiny) == [(0, 2, 0), (2, 5, 1), (5, 6, 0), (6, 9, 2)]
    order = np.asarray([0, 1, 5, 2, 3, 4, 6, 7, 8])
    assert Schedule(assignment, order=order).segments(tiny) == [(0, 3, 0), (3, 6, 1), (6, 9, 2)]


def test_segments_of_interleaved_models_are_each_models_own(tiny):
    two = pm.merge([tiny, tiny])
    order = np.arange(2 * L).reshape(2, L).T.ravel()  # 0, 9, 1, 10, ...
    assert len(Schedule(np.zeros(2 * L, np.int32), order=order).segments(two)) == 2


def test_segments_go_window_by_window(tiny):
    assignment, window = np.asarray([0, 1, 0, 1, 0, 1, 0, 1, 0]), np.asarray([0, 1, 0, 1, 0, 1, 0, 1, 0])
    schedule = Schedule(assignment, window=window, n_windows=2)
    assert schedule.segments(tiny) == [(0, 5, 0), (5, 9, 1)]


@given(st.lists(st.integers(0, 3), min_size=L, max_size=L))
def test_segments_partition_and_are_maximal(assignment):
    workload = pm.models.load("gpt2", seq_len=1)
    full = np.resize(np.asarray(assignment), workload.n_operators)
    segments = Schedule(full).segments(workload)
    assert [s[0] for s in segments] == [0, *(s[1] for s in segments[:-1])] and segments[-1][1] == len(full)
    for start, stop, chiplet in segments:
        assert stop > start and (full[start:stop] == chiplet).all()
    assert all(a[2] != b[2] for a, b in zip(segments[:-1], segments[1:], strict=True))
