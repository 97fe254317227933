"""HEFT with insertion (Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002)."""

from bisect import bisect_left
from dataclasses import replace
from math import inf

import numpy as np
from jaxtyping import Float

from .._problem import Infeasible, Problem
from ._list_scheduling import Partial, mean_times, mean_transfer


def upward_ranks(problem: Problem) -> Float[np.ndarray, "N"]:
    """rank_u: longest way from a task to the end, times and transfers averaged over devices and pairs of unlike devices."""
    rank, transfer, target = mean_times(problem), mean_transfer(problem), problem.target
    for i in problem.order[::-1].tolist():
        rank[i] += max((transfer[e] + rank[target[e]] for e in problem.outputs[i].tolist() if e >= 0), default=0.0)
    return rank


def heft(problem: Problem, *, seed: int = 0, time_limit_s: float | None = None) -> tuple[np.ndarray, np.ndarray, dict]:
    """Tasks by falling upward rank (ties: topological order), each into the gap of the device where it ends first (ties: the first
    device); of those with room for it and for all that is to come. Plans without congestion; the order is that of the starts.

    Returns placement, order, info. Raises Infeasible where memory cannot be packed, or where inputs can never arrive."""
    plan = Partial(replace(problem, congestion=False))
    position = np.empty(problem.n_tasks, np.int64)
    position[problem.order] = np.arange(problem.n_tasks)
    gaps = [_Gaps() for _ in range(problem.n_devices)]
    for task in np.lexsort((position, -upward_ranks(problem))).tolist():
        ready = plan.arrivals(task).tolist()
        times = problem.times[task].tolist()
        fixed = plan.fit.device(task)
        starts = {
            d: gaps[d].earliest(ready[d], times[d])
            for d in (range(problem.n_devices) if fixed < 0 else [fixed])
            if times[d] < inf and ready[d] < inf
        }
        ends = sorted((start + times[d], d) for d, start in starts.items())
        device = next((d for _, d in ends if plan.fit.take(task, d)), -1)
        if device < 0:
            raise Infeasible(
                f"{problem.name}: the inputs of task {problem.names[task]} reach no device that may still run it"
            )
        plan.put(task, device, starts[device])
        gaps[device].fill(starts[device], plan.finish[task])
    place, _, info = plan.result()
    # what takes no time stands before what starts with it; chains of such tasks stand in topological order
    return place, np.lexsort((position, plan.finish, plan.start)), info


class _Gaps:
    """Idle time of one device: disjoint [begin, end] in order, the last without end."""

    def __init__(self):
        self.begin, self.end = [0.0], [inf]

    def earliest(self, ready: float, seconds: float) -> float:
        """Earliest start, not before `ready`, of something that takes `seconds`."""
        at = bisect_left(self.end, ready)
        while max(self.begin[at], ready) + seconds > self.end[at]:
            at += 1
        return max(self.begin[at], ready)

    def fill(self, start: float, finish: float) -> None:
        """Take [start, finish] out of the gap that holds it; what takes no time divides it: nothing else may run then."""
        at = bisect_left(self.end, finish)
        begin, end = self.begin[at], self.end[at]
        pieces = [(a, b) for a, b in ((begin, start), (finish, end)) if a < b]
        self.begin[at : at + 1] = [a for a, _ in pieces]
        self.end[at : at + 1] = [b for _, b in pieces]
