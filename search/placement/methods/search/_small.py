"""Annealing of small problems in a plain loop on the host: done before a program for them would have compiled."""

import math
import time
from typing import NamedTuple

import numpy as np

from ..._bounds import units
from ..._problem import Problem

EXCESS = 0.1  # what one mean unit too much on a device costs, as a share of the reference makespan
_PER_TASK = 500  # evaluations per task and chain
_CHAINS = 40  # anneals one after another, each from the best so far
_HEAT = ((0.05, 0.01), (0.2, 0.02))  # first and last temperature of chains in turn, share of the makespan


class Done(NamedTuple):
    """The best candidate found (None where none fits), and what it took."""

    placement: np.ndarray | None
    order: np.ndarray | None
    evaluations: int
    found_at: float  # time.perf_counter() of the last improvement


def quanta(size, capacity) -> tuple[np.ndarray, np.ndarray]:
    """Memory as 32-bit integers whose sums are exact: in greatest common divisors where that fits, else rounded to the safe side."""
    total, whole = float(size.sum()), np.concatenate([size, np.minimum(capacity, size.sum())])
    quantum, exact = 1.0, bool((whole == np.floor(whole)).all()) and whole.max(initial=0.0) < 2**53
    if exact:
        quantum = float(max(np.gcd.reduce(whole[: len(size)].astype(np.int64)), 1))
    if total / quantum > 2**30 or not exact:
        quantum = max(total, 1.0) / 2**30
    return np.ceil(size / quantum).astype(np.int32), np.floor(np.minimum(capacity, total) / quantum).astype(np.int32)


def span_of(problem: Problem):
    """(placement list, order list) -> makespan: `timeline` without its checks and arrays, for problems of a few tasks."""
    times, congestion, devices = problem.times.tolist(), problem.congestion, range(problem.n_devices)
    scenarios = [(problem.transfer * f).tolist() for f in problem.factors]
    moves, sources = problem.moves.tolist(), problem.source.tolist()
    inputs = [[(e, sources[e]) for e in row if e >= 0] for row in problem.inputs.tolist()]

    def once(transfer, place, order) -> float:
        finish, free = [0.0] * len(times), [0.0 for _ in devices]
        sending, receiving = free[:], free[:]
        if congestion:
            position = {task: i for i, task in enumerate(order)}
        for task in order:
            here, begin = place[task], 0.0
            arriving = sorted(inputs[task], key=lambda x: position[x[1]]) if congestion else inputs[task]
            for e, source in arriving:
                there, at = place[source], finish[source]
                if there != here:
                    if congestion and moves[e]:
                        at = max(at, sending[there], receiving[here]) + transfer[e][there][here]
                        sending[there] = receiving[here] = at
                    else:
                        at += transfer[e][there][here]
                if at > begin:
                    begin = at
            if free[here] > begin:
                begin = free[here]
            finish[task] = free[here] = begin + times[task][here]
        return max(free)

    def span(place, order) -> float:
        each = [once(transfer, place, order) for transfer in scenarios]
        return max(each) if problem.worst_case else sum(each) / len(each)

    return span


def anneal_small(problem: Problem, best, rng: np.random.Generator, rounds: int | None, left, bound: float) -> Done:
    """Simulated annealing over devices of units, exchanges of two, and moves of a task within its window of the order."""
    began = time.perf_counter()
    found, devices = units(problem), problem.n_devices
    size, capacity = (x.tolist() for x in quanta(found.memory_bytes, problem.capacity_bytes))
    members = [np.flatnonzero(found.of == u).tolist() for u in range(len(size))]
    span, n, mean = span_of(problem), problem.n_tasks, max(float(np.mean(size)), 1.0)
    before = [[int(problem.source[e]) for e in row if e >= 0] for row in problem.inputs.tolist()]
    after = [[int(problem.target[e]) for e in row if e >= 0] for row in problem.outputs.tolist()]

    def excess(used):
        return sum(max(a - b, 0) for a, b in zip(used, capacity, strict=True))

    def begin(placement, order):
        used = [0] * devices
        for u, tasks in enumerate(members):
            used[placement[tasks[0]]] += size[u]
        return list(map(int, placement)), list(map(int, order)), used

    place, order, used = begin(best.placement, best.order)
    scale = span(place, order)
    scale = scale if 0 < scale < math.inf else 1.0
    energy = span(place, order) / scale + EXCESS * excess(used) / mean
    kept, kept_energy, found_at = None, math.inf, began
    if excess(used) == 0:
        kept, kept_energy = (place[:], order[:]), energy
    steps = _PER_TASK * n
    chains = _CHAINS if rounds is None else rounds
    done = 0
    for chain in range(chains):
        if chain and kept is not None:
            place, order, used = begin(*kept)
            energy = kept_energy
        draws, (hot, cold) = rng.random((steps, 5)).tolist(), _HEAT[chain % len(_HEAT)]
        for k, (kind, x, y, z, accept) in enumerate(draws):
            if (k & 63 == 0 and left() < 0.05) or kept_energy * scale <= bound * (1 + 1e-9):
                return _done(kept, done, found_at)
            changed, new_used, new_order = [], used, order
            if kind < 0.7:
                u, v = int(x * len(size)), int(y * len(size))
                a, b = place[members[u][0]], place[members[v][0]]
                changed = [(u, b), (v, a)] if kind < 0.25 else [(u, int(y * devices))]
                new_used = used[:]
                for unit, device in changed:
                    new_used[place[members[unit][0]]] -= size[unit]
                    new_used[device] += size[unit]
            if kind > 0.5:
                new_order = _shifted(order, before, after, int(z * n), x if kind < 0.7 else y)
            undo = [(t, place[t]) for unit, _ in changed for t in members[unit]]
            for unit, device in changed:
                for t in members[unit]:
                    place[t] = device
            new = span(place, new_order) / scale + EXCESS * excess(new_used) / mean
            done += 1
            heat = hot * (cold / hot) ** (k / steps)
            if new - energy < -heat * math.log(max(accept, 1e-12)):
                order, used, energy = new_order, new_used, new
                if new < kept_energy - 1e-12 and excess(new_used) == 0:
                    kept, kept_energy, found_at = (place[:], order[:]), new, time.perf_counter()
            else:
                for t, device in undo:
                    place[t] = device
    return _done(kept, done, found_at)


def _shifted(order, before, after, i: int, share: float):
    """The task at `i` moved to a share of the way between its last predecessor and its first successor."""
    task = order[i]
    low = max((order.index(t) for t in before[task]), default=-1) + 1
    high = min((order.index(t) for t in after[task]), default=len(order)) - 1
    rest = order[:i] + order[i + 1 :]
    j = low + int(share * (high - low + 1))
    return rest[:j] + [task] + rest[j:]


def _done(kept, evaluations: int, found_at: float) -> Done:
    if kept is None:
        return Done(None, None, evaluations, found_at)
    return Done(np.asarray(kept[0]), np.asarray(kept[1], np.int32), evaluations, found_at)
