"""Where `search` begins: heuristics, single devices, insertion that looks further, relaxed placements."""

import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..._bounds import units
from ..._evaluate import timeline
from ..._problem import Infeasible, Problem
from ..._result import makespan

RELAXED_STARTS = 16
CLIMBS = 400  # placements by insertion beyond which they gain little


class Start(NamedTuple):
    """Where a search begins: a placement, an order, and who found it."""

    name: str
    placement: Int[np.ndarray, "N"]
    order: Int[np.ndarray, "N"]


def heuristic_starts(problem: Problem, left, share_s: float) -> list[Start]:
    """Single devices and every heuristic, cheap ones first; the dear ones only while less than `share_s` has been spent."""
    from .._getf import getf
    from .._heft import heft
    from .._sct import m_sct
    from .._topo_etf import m_etf, m_topo

    began, found = time.perf_counter(), single_devices(problem)
    for name, method in (("heft", heft), ("m-etf", m_etf), ("m-topo", m_topo), ("getf", getf), ("m-sct", m_sct)):
        spent = time.perf_counter() - began
        if spent > share_s:
            break
        try:
            placement, order, _ = method(problem, time_limit_s=min(max(share_s - spent, 0.1), max(left(), 0.1), 1e6))
        except Infeasible:  # of this method; where nothing fits, the search itself says so
            continue
        found.append(Start(name, np.asarray(placement), np.asarray(order)))
    return found


def single_devices(problem: Problem) -> list[Start]:
    """Everything on one device; what it cannot run, where that is fastest."""
    able, fastest = np.isfinite(problem.times), problem.times.argmin(axis=1)
    of = units(problem).of
    together = np.ones((of.max() + 1, problem.n_devices), bool)
    np.logical_and.at(together, of, able)
    slow = np.zeros((of.max() + 1, problem.n_devices))
    np.add.at(slow, of, np.where(able, problem.times, 0.0))
    fastest = np.where(together, slow, np.inf).argmin(axis=1)
    return [
        Start(f"device {problem.device_names[d]}", np.where(together[of, d], d, fastest[of]), problem.order)
        for d in range(problem.n_devices)
    ]


def packing(problem: Problem) -> Start:
    """A placement that fits and runs, whatever it costs. Raises Infeasible where none is found."""
    from .._fit import Fit

    fit = Fit(problem)
    return Start("packing", fit.at[fit.of].astype(int), problem.order)


def insertion_starts(problem: Problem, found: list[Start], more, rng: np.random.Generator) -> list[Start]:
    """Placements by insertion with far-sighted scores, from those that there are, while `more(number made)`."""
    from .._heft import upward_ranks
    from ._insert import Recipe, climb

    begun = [
        Recipe(value(problem, s), s.placement, s.order, 0.0, 1.0)
        for s in found
        if problem.excess_bytes(s.placement) == 0
    ]
    begun = [r for r in begun if np.isfinite(r.value)]

    def worth(placement, order) -> float:
        return makespan(problem, placement, order) if problem.excess_bytes(placement) == 0 else np.inf

    by_mean = problem.order[np.argsort(-upward_ranks(problem)[problem.order], kind="stable")]
    kept = climb(problem, begun, worth, ranked_orders, by_mean, more, rng)
    known = {id(r) for r in begun}
    return [Start("insertion", r.placement, r.order) for r in kept if id(r) not in known]


def relaxed_starts(problem: Problem, best: Start, rng: np.random.Generator, steps: int = 60) -> list[Start]:
    """Placements that gradients found, half of them begun near the best start."""
    from ..._arrays import compiled, nodes_of
    from ._evolve import linearisation
    from ._relax import descend, starting_logits

    c, found = compiled(problem), units(problem)
    n = len(found.memory_bytes)
    able = found.sum((~np.isfinite(problem.times)).astype(float)) == 0
    _, first = np.unique(found.of[linearisation(problem, rng)], return_index=True)
    logits = starting_logits(rng, RELAXED_STARTS, n, problem.n_devices, np.argsort(first))
    where = np.zeros(n, int)
    where[found.of] = best.placement
    logits[::2, np.arange(n), where] += 1.0
    placements = np.repeat(best.placement[None], RELAXED_STARTS, 0)
    orders = ranked_orders(problem, placements, 0.2, rng)
    orders[0] = best.order
    rows = descend(c, found.of, found.memory_bytes, problem.capacity_bytes, able, logits, np.stack([nodes_of(c, o) for o in orders]),
                   scale=makespan(problem, best.placement, best.order), seed=int(rng.integers(2**31)), steps=steps)  # fmt: skip
    placements = rows[:, found.of].astype(int)
    orders = ranked_orders(problem, placements, 0.0, rng)
    return [Start("relaxed", p, o) for p, o in zip(placements, orders, strict=True)]


def ranked_orders(problem: Problem, placements, noise: float, rng: np.random.Generator) -> Int[np.ndarray, "B N"]:
    """Topological orders by falling upward rank under each placement `[B, N]`; `noise`: spread of the factors on every time."""
    placements = np.asarray(placements)
    batch, n = placements.shape
    lane = np.arange(batch)
    factor = np.exp(noise * rng.normal(size=(batch, n)))
    rank = problem.times[np.arange(n), placements] * factor
    for task in problem.order[::-1].tolist():
        tail = np.zeros(batch)
        for e in problem.outputs[task].tolist():
            if e >= 0:
                to = problem.target[e]
                tail = np.maximum(tail, rank[:, to] + problem.transfer[e][placements[:, task], placements[lane, to]])
        rank[:, task] += tail
    # sorted stably from a topological order: equal ranks stay in it
    return problem.order[np.argsort(-rank[:, problem.order], axis=1, kind="stable")]


def best_start(problem: Problem, starts: list[Start], known: dict | None = None) -> tuple[Start, dict[str, float]]:
    """The best start that fits (else the one that exceeds memory least), and the makespan of each kind that fits.

    `known`: values by `id` of the placement, kept from call to call while the starts live.
    """
    known, table = {} if known is None else known, {}
    for s in starts:
        if id(s.placement) not in known:
            known[id(s.placement)] = (problem.excess_bytes(s.placement), value(problem, s))
        excess, span = known[id(s.placement)]
        if excess == 0:
            table[s.name] = min(span, table.get(s.name, np.inf))
    return min(starts, key=lambda s: known[id(s.placement)]), table


def slack(problem: Problem, placement, order) -> Float[np.ndarray, "N"]:
    """By how much each task could end later without the whole ending later, device order kept (nominal links, no congestion)."""
    t = timeline(problem, placement, order)
    latest = np.full(problem.n_tasks, t.makespan)
    successor = np.full(problem.n_devices, t.makespan)
    for task in order[::-1].tolist():
        here = placement[task]
        end = successor[here]
        for e in problem.outputs[task].tolist():
            if e >= 0:
                to = problem.target[e]
                move = t.arrived[e] - t.finish[task]
                end = min(end, latest[to] - problem.times[to, placement[to]] - move)
        latest[task] = end
        successor[here] = end - problem.times[task, here]
    return np.maximum(latest - t.finish, 0.0)


def value(problem: Problem, s: Start) -> float:
    """Makespan of a start."""
    return makespan(problem, s.placement, s.order)
