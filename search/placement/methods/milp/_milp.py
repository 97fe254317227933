"""Moirai's mixed-integer program (arXiv 2312.04025) without a commercial solver: HiGHS, from the best heuristic's placement.

In turn, while time is left and the bound is below the best schedule: the bounds of `_bounds`; the model without "one at a time"
(a relaxation: its value is a bound, its placement a candidate), with congestion also the model without that; large
neighbourhoods of the best schedule (all but a few units stay where they are and in sequence); the whole model. The best
schedule's makespan is the horizon of each model, which both cuts off what is worse and tightens big-M.
"""

import time
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from ..._bounds import lower_bound
from ..._evaluate import check_candidate, timeline
from ..._problem import Infeasible, Problem
from ..._result import makespan
from ._model import Model, build
from ._pairs import TooLarge
from ._solve import columns_of, listed, schedule_of, solve

_SECONDS = 60.0
_MOST_CELLS = 1_500_000  # entries of a matrix that HiGHS can at least begin with in a minute
_TOLERANCE = 1e-6  # relative: bound and makespan this close are the same
_SMALL = 400  # binaries up to which the whole model is worth most of the time
_FIRST_FREE = 8  # units of the first neighbourhoods
_NEIGHBOUR_SECONDS = 6.0


def milp(
    problem: Problem,
    *,
    seed: int = 0,
    time_limit_s: float | None = None,
    warm_start=None,
    most_cells: int = _MOST_CELLS,
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"], dict]:
    """Moirai's model, solved as far as `time_limit_s` (default 60) allows.

    `warm_start`: a (placement, order) to begin with, beside the heuristics. `most_cells`: entries of a matrix; a model
    with more is left alone.

    Returns placement, order and info: `lower_bound`; `gap`, the share of the makespan above it; `optimal`; `note`, which says
    where the bound comes from, and whether time ran out or the model was too large. With congestion the evaluator sends
    transfers in the order in which they are needed; the model's bound holds for every order.

    Raises Infeasible if nothing fits, ValueError for a warm start that is none.
    """
    run = _Run(
        problem,
        np.random.default_rng(seed),
        _SECONDS if time_limit_s is None else max(float(time_limit_s), 0.0),
        most_cells,
    )
    run.begin(warm_start)
    if not run.closed():
        run.raise_bound(*lower_bound(problem, time_limit_s=min(10.0, 0.25 * run.left()), upper=run.best))
    if not run.closed():
        run.stage("model without sequence", problem, 0.15, pairs=False)
    if problem.congestion and not run.closed():
        run.stage("model without congestion", replace(problem, congestion=False), 0.4)
    if not run.closed() and run.left() > 0:
        run.whole()
    return run.placement, run.order, run.info()


class _Run:
    """The best schedule and the best bound so far."""

    def __init__(self, problem: Problem, rng: np.random.Generator, seconds: float, most_cells: int):
        self.problem, self.rng, self.deadline = problem, rng, time.perf_counter() + seconds
        self.seconds, self.best, self.bound, self.by = seconds, np.inf, 0.0, "nothing"
        self.remarks: list[str] = []
        self.most_cells = most_cells

    def left(self) -> float:
        return self.deadline - time.perf_counter()

    def closed(self) -> bool:
        return self.bound >= self.best * (1 - _TOLERANCE)

    def offer(self, placement, order) -> bool:
        """Keep a candidate that fits and is better."""
        if self.problem.excess_bytes(placement) > 0:
            return False
        value = makespan(self.problem, placement, order)
        if not value < self.best:
            return False
        self.best, self.placement, self.order = value, np.asarray(placement, np.int32), np.asarray(order, np.int32)
        return True

    def raise_bound(self, value: float, by: str) -> None:
        if value > self.bound:
            self.bound, self.by = min(value, self.best), by

    def begin(self, warm_start) -> None:
        """The best of the heuristics that find a schedule in half the time, and of the warm start."""
        if warm_start is not None:
            placement, order = (np.asarray(v) for v in warm_start)
            check_candidate(self.problem, placement, order)
            if not self.offer(placement, order):
                self.remarks.append("the warm start exceeds memory")
        from .._getf import getf
        from .._heft import heft
        from .._sct import m_sct
        from .._topo_etf import best_device, m_etf, m_topo

        failed: Infeasible | None = None
        for method in (best_device, m_topo, heft, m_etf, m_sct, getf):
            if np.isfinite(self.best) and self.left() < 0.5 * self.seconds:
                break
            try:
                self.offer(*method(self.problem, time_limit_s=max(0.2 * self.seconds, 1.0))[:2])
            except Infeasible as error:
                failed = error
        if not np.isfinite(self.best):
            raise failed or Infeasible(f"{self.problem.name}: no placement lets every transfer arrive")
        self.remarks.append(f"began with {self.best:.6g}")

    def stage(self, name: str, problem: Problem, share: float, pairs: bool = True) -> None:
        """Solve a relaxation for a share of what time is left."""
        if (model := self.model(name, problem, pairs)) is None:
            return
        found = solve(model, share * self.left())
        self.raise_bound(found.bound, name)
        if found.values is not None:
            self.offer(*schedule_of(model, problem, found.values))

    def model(self, name: str, problem: Problem, pairs: bool = True) -> Model | None:
        try:
            model = build(problem, self.best, self.bound, most_cells=self.most_cells, pairs=pairs)
        except TooLarge as error:
            self.remarks.append(f"{name}: too large ({error})")
            return None
        if model is None:
            self.raise_bound(self.best, name)
        return model

    def whole(self) -> None:
        if (model := self.model("model", self.problem)) is None:
            return
        small = int(model.integer.sum()) <= _SMALL
        self.neighbourhoods(model, (0.1 if small else 0.7) * self.left())
        if (model := self.model("model", self.problem)) is None or self.left() <= 0:
            return
        found = solve(model, self.left(), self.known(model))
        self.raise_bound(found.bound, "model")
        if found.values is not None:
            schedule = schedule_of(model, self.problem, found.values)
            self.offer(*schedule)
            if self.problem.congestion and not self.closed():
                self.relist(*schedule, min(2.0, 0.1 * self.seconds))
        if found.closed and not self.closed():
            self.remarks.append("the model's best sends transfers in an order that no list tried here gives")

    def known(self, model: Model):
        runs = [timeline(self.problem, self.placement, self.order, s) for s in range(len(self.problem.factors))]
        return columns_of(model, self.problem, self.placement, runs)

    def relist(self, placement, order, seconds: float) -> None:
        """Other lists of a placement: with congestion, the list decides in which order the evaluator sends transfers."""
        until, n = time.perf_counter() + seconds, self.problem.n_tasks
        while time.perf_counter() < until and not self.closed():
            position = np.empty(n)
            position[order] = np.arange(n)
            other = listed(self.problem, position + self.rng.normal(0, 0.3 * n * self.rng.random(), n), [])
            order = other if self.offer(placement, other) else order

    def neighbourhoods(self, model: Model, seconds: float) -> None:
        """Free some units, those that run around the same time or are neighbours in the graph; all others keep their device,
        and their sequence among themselves. More units while that is solved quickly, fewer when time runs out."""
        until, count = time.perf_counter() + seconds, float(_FIRST_FREE)
        n_units = int(model.unit.max()) + 1
        values = self.known(model)
        while count < n_units and not self.closed() and (left := until - time.perf_counter()) > 0.05:
            free = self.some_units(model, values, min(int(count), n_units))
            low, high = model.low.copy(), model.high.copy()
            fixed = [model.x[~free[model.unit]].ravel()]
            keep = ~(free[model.unit[model.tasks.first]] | free[model.unit[model.tasks.second]])
            fixed.append(model.task_before[keep].ravel())
            ends = model.unit[self.problem.source[model.sent]], model.unit[self.problem.target[model.sent]]
            moves = free[ends[0]] | free[ends[1]]
            fixed.append(model.link_before[~(moves[model.links.first] | moves[model.links.second])].ravel())
            which = np.concatenate(fixed)
            low[which] = high[which] = np.minimum(np.round(values[which]), model.high[which])
            if len(np.unique(model.makespans)) == 1:
                high[model.makespans] = self.best * model.scale * (1 - 1e-5)
            found = solve(model, min(left, _NEIGHBOUR_SECONDS), None, low, high)
            if found.values is not None and self.offer(*schedule_of(model, self.problem, found.values)):
                values = self.known(model)
            elif found.closed:
                count = min(count * 1.1, float(n_units))
            else:
                count = max(0.7 * count, 3.0)

    def some_units(self, model: Model, values, count: int):
        start = values[model.starts[0]]
        centre = int(self.rng.integers(self.problem.n_tasks))
        far = np.abs(start - start[centre]) * self.rng.uniform(0.5, 1.5, len(start))
        if self.rng.random() < 0.5:  # by the graph rather than by time
            hops = np.full(len(start), np.inf)
            hops[centre] = 0
            for _ in range(count):
                near = np.minimum(hops[self.problem.source], hops[self.problem.target]) + self.rng.uniform(0.5, 1.5)
                before = hops.copy()
                np.minimum.at(hops, self.problem.source, near)
                np.minimum.at(hops, self.problem.target, near)
                if np.array_equal(before, hops):
                    break
            far = np.where(np.isfinite(hops), hops + 1e-3 * self.rng.random(len(hops)), len(start) + far)
        free = np.zeros(int(model.unit.max()) + 1, bool)
        for i in np.argsort(far, kind="stable"):
            free[model.unit[i]] = True
            if free.sum() >= count:
                break
        return free

    def info(self) -> dict:
        gap = 0.0 if self.best == 0 else max(1 - self.bound / self.best, 0.0)
        if self.closed():
            self.bound, gap = self.best, 0.0
            said = f"optimal (bound: {self.by})"
        else:
            why = "the time ran out" if self.left() <= 0 else "stopped"
            said = f"{why} after {self.seconds:g} s with a gap of {100 * gap:.2g} % (bound: {self.by})"
        return {
            "lower_bound": self.bound,
            "gap": gap,
            "optimal": self.closed(),
            "note": "; ".join([said, *self.remarks]),
        }
