"""List scheduling with insertion whose scores look further than the earliest finish, repeated: the best starts of `search`.

    score[d] = finish on d (in the first gap that holds the task) + alpha OCT[task, d] + thrift waste[task, d] - pull (d = parent's)

OCT: optimistic cost still to come (Arabnejad and Barbosa, IEEE TPDS 25(3), 2014). Waste: what the task's time on d costs others
there, i.e. its time times the devices' *rents* (dual prices of the assignment LP) beyond the cheapest device. Earliest finish
alone spends good devices on tasks that gain little by them: on large random graphs thrift is worth 6 % of the makespan. With
alpha = thrift = 0 this is HEFT. Repeated with the upward ranks of what came out, and with all of it varied, it climbs on.
"""

from bisect import bisect_right
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..._bounds import units
from ..._problem import Problem

KEPT = 8  # placements that the climb remembers
_FIRST = (
    (0.0, 1.0),
    (0.0, 0.0),
    (0.0, 1.5),
    (0.25, 1.5),
    (0.5, 1.0),
    (1.0, 1.0),
    (0.0, 0.5),
    (0.25, 0.0),
)  # alpha, thrift


class Recipe(NamedTuple):
    """What a placement was made with, and its worth."""

    value: float
    placement: Int[np.ndarray, "N"]
    order: Int[np.ndarray, "N"]
    alpha: float
    thrift: float


class Plan:
    """Everything about a problem that every repetition needs. Links are nominal (the mean of the scenarios), not congested."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.transfer = problem.transfer * problem.factors.mean(axis=0)
        found = units(problem)
        self.of, self.size = found.of, found.memory_bytes
        able = found.sum((~np.isfinite(problem.times)).astype(float)) == 0
        self.unable = np.where(able[found.of], 0.0, np.inf)
        self.inputs = [[(e, int(problem.source[e])) for e in row if e >= 0] for row in problem.inputs.tolist()]

    @cached_property
    def coming(self) -> Float[np.ndarray, "N D"]:
        return coming(self.problem, self.transfer)

    @cached_property
    def waste(self) -> Float[np.ndarray, "N D"]:
        return waste(self.problem)

    def place(self, order, bias) -> tuple[np.ndarray, np.ndarray]:
        """Tasks by `order` (topological), each into the first gap of the device of least finish plus `bias` `[N, D]` that has room.

        Returns placement and order of starts. Where no device has room, the one that is exceeded least.
        """
        p, n, devices = self.problem, self.problem.n_tasks, range(self.problem.n_devices)
        start, finish, place = np.zeros(n), np.zeros(n), np.zeros(n, np.int64)
        home, used, capacity = np.full(len(self.size), -1), np.zeros(len(devices)), p.capacity_bytes
        begins, ends = [[0.0] for _ in devices], [[np.inf] for _ in devices]  # of the gaps
        times, source_times = p.times.tolist(), self.transfer
        bias = bias + self.unable
        with np.errstate(invalid="ignore"):
            for task in order.tolist():
                ready = np.zeros(len(devices))
                for e, source in self.inputs[task]:
                    np.maximum(ready, finish[source] + source_times[e, place[source]], out=ready)
                unit, spans, slots = self.of[task], times[task], []
                for d, earliest in enumerate(ready.tolist()):
                    until, since, span = ends[d], begins[d], spans[d]
                    k = min(bisect_right(until, earliest), len(until) - 1)
                    at = max(since[k], earliest)
                    while at + span > until[k] and k + 1 < len(until):
                        k += 1
                        at = max(since[k], earliest)
                    slots.append((at, k))
                if home[unit] >= 0:
                    d = int(home[unit])
                else:
                    score = np.asarray([at for at, _ in slots]) + p.times[task] + bias[task]
                    over = used + self.size[unit] - capacity
                    d = int(np.lexsort((score, np.maximum(over, 0.0), ~np.isfinite(score)))[0])
                    home[unit], used[d] = d, used[d] + self.size[unit]
                at, k = slots[d]
                end = at + spans[d]
                place[task], start[task], finish[task] = d, at, end
                since, until = begins[d], ends[d]
                if at > since[k] and end < until[k]:
                    until.insert(k, at)
                    since.insert(k + 1, end)
                elif at > since[k]:
                    until[k] = at
                else:
                    since[k] = end
        position = np.empty(n)
        position[order] = np.arange(n)
        return place, np.lexsort((position, start)).astype(np.int32)


def climb(problem: Problem, starts, worth, ranked_orders, mean_order, more, rng: np.random.Generator) -> list[Recipe]:
    """Placements by insertion, the best last-but-none first, while `more(number made)`.

    **Arguments:** `starts`: recipes to begin with; `worth(placement, order)`: makespan, infinite where it does not fit;
    `ranked_orders`: see `_orders`; `mean_order`: by upward ranks of mean times, as in HEFT.
    """
    plan, made = Plan(problem), 0
    kept: list[Recipe] = sorted(starts, key=lambda r: r.value)[:KEPT]
    while more(made):
        order, pull = mean_order, None
        if made < len(_FIRST) or not kept:
            alpha, thrift = _FIRST[made % len(_FIRST)]
        else:
            parent = kept[min(int(rng.exponential(1.5)), len(kept) - 1)]
            alpha, thrift = parent.alpha, parent.thrift
            if rng.random() < 0.6:
                alpha = max(0.0, alpha + 0.15 * rng.normal())
                thrift = max(0.0, thrift * np.exp(0.3 * rng.normal()) + 0.05 * rng.normal())
            if rng.random() < 0.85:
                noise = float(rng.choice([0.0, 0.02, 0.1]))
                order = ranked_orders(problem, parent.placement[None], noise, rng)[0]
            if rng.random() < 0.5 and np.isfinite(parent.value):
                pull = parent.value * 10 ** rng.uniform(-4, -1)
                pull = pull * (np.arange(problem.n_devices) == parent.placement[:, None])
        bias = alpha * plan.coming + thrift * plan.waste
        placement, order = plan.place(order, bias if pull is None else bias - pull)
        made += 1
        value = worth(placement, order)
        if np.isfinite(value) and all(abs(value - r.value) > 1e-9 * value for r in kept):
            kept = sorted([*kept, Recipe(value, placement, order, alpha, thrift)], key=lambda r: r.value)[:KEPT]
    return kept


def coming(problem: Problem, transfer) -> Float[np.ndarray, "N D"]:
    """OCT: the longest way to the end that must still follow a task on a device, every later task where that is least."""
    cost = np.zeros_like(problem.times)
    for task in problem.order[::-1].tolist():
        for e in problem.outputs[task].tolist():
            if e >= 0:
                to = problem.target[e]
                np.maximum(cost[task], (transfer[e] + (cost[to] + problem.times[to])).min(axis=1), out=cost[task])
    return cost


def waste(problem: Problem, steps: int = 300) -> Float[np.ndarray, "N D"]:
    """Rent of a task on each device beyond the least, in the problem's time: devices' rents average 1.

    Rents: mirror ascent on the dual of the assignment LP, sum over tasks of min over devices of rent times time.
    """
    times, devices = problem.times, problem.n_devices
    log_rent, total = np.zeros(devices), np.zeros(devices)
    for k in range(steps):
        rent = np.exp(log_rent - log_rent.max())
        rent /= rent.sum()
        total += rent
        chosen = (times * np.maximum(rent, 1e-12)).argmin(axis=1)
        load = np.bincount(chosen, times[np.arange(len(times)), chosen], devices)
        log_rent += 2.0 / np.sqrt(k + 4.0) * (load / max(load.max(), 1e-300) - 0.5)
    rented = times * np.maximum(total / total.sum() * devices, 1e-12)
    over = rented - rented.min(axis=1, keepdims=True)
    return np.where(np.isfinite(over), over, 0.0)
