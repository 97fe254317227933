"""The best of all placements times all topological orders, as the evaluator times them."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
from oracles.placement_problems import random_problem

from search.placement import NO_GROUP, Problem, timeline

_MOST = 12_000  # candidates of a problem called small


def orders(problem: Problem) -> list[np.ndarray]:
    ends = list(zip(problem.source.tolist(), problem.target.tolist(), strict=True))
    found = []
    for order in permutations(range(problem.n_tasks)):
        position = np.argsort(order)
        if all(position[a] < position[b] for a, b in ends):
            found.append(np.asarray(order))
    return found


def placements(problem: Problem) -> list[np.ndarray]:
    """Those that run, keep groups together and fit."""
    able = [np.flatnonzero(np.isfinite(t)) for t in problem.times]
    found = []
    for place in map(np.asarray, product(*able)):
        groups = {g: set(place[problem.group == g]) for g in problem.group if g != NO_GROUP}
        if all(len(devices) == 1 for devices in groups.values()) and problem.excess_bytes(place) == 0:
            found.append(place)
    return found


def best_makespan(problem: Problem) -> float:
    """Infinite if nothing fits."""
    combine = np.max if problem.worst_case else np.mean
    listed, scenarios = orders(problem), range(len(problem.factors))
    return min(
        (float(combine([timeline(problem, place, order, s).makespan for s in scenarios]))
         for place in placements(problem) for order in listed), default=np.inf,
    )  # fmt: skip


def small_problem(seed: int, *, congestion: bool = False, memory: str = "loose", **more) -> Problem:
    """The `seed`-th random problem of 3 to 6 tasks on 2 or 3 devices that brute force can do."""
    at = 1000 * seed
    while True:
        p = random_problem(at, congestion=congestion, memory=memory, largest=7)
        at += 1
        if p.n_tasks >= 3 and p.n_devices in (2, 3) and len(orders(p)) * p.n_devices**p.n_tasks <= _MOST:
            return replace(p, **more)
