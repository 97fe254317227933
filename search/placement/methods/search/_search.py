"""`search`: every heuristic and far-sighted insertion as starts, then large neighbourhoods, then annealed evolution.

1. Starts: single devices, the published heuristics, insertion with rents, gradient-relaxed placements.
2. Lines of large neighbourhoods (`_greedy`): windows of the order decided anew, the rest kept. Most of what large problems gain.
3. Islands of annealed candidates (`_evolve`): assignment and order move by move. Most of what small problems gain.

Lines and islands run one a core, each a thread, and hand over their best now and then. With a budget of `rounds` the result
depends on the seed alone; with a time limit also on the machine. Nothing returned is worse than any start: candidates are
compared by the exact evaluator in float64.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..._bounds import critical_path
from ..._problem import Infeasible, Problem
from ..._result import makespan
from ._starts import (
    CLIMBS,
    Start,
    best_start,
    heuristic_starts,
    insertion_starts,
    packing,
    ranked_orders,
    relaxed_starts,
    value,
)

SMALL = 40  # up to so many tasks a plain loop on the host is done before a program has compiled
ANNEALED = 4000  # beyond, annealing move by move gets nowhere in minutes
RELAXED = 1500  # beyond, reverse mode through the walk takes quadratic time
SHARES = (
    0.2,
    0.15,
    0.2,
)  # of the time: heuristics, insertion, large neighbourhoods (the rest: annealing, where there is any)


def search(
    problem: Problem, *, seed: int = 0, time_limit_s: float | None = 30.0, rounds: int | None = None,
    starts: list[Start] | None = None, bound: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, dict]:  # fmt: skip
    """The best placement and order found within `time_limit_s` (compilation included), or in `rounds` rounds of every step.

    **Arguments:** `rounds`: a budget instead of a time limit: 20 insertions, 10 neighbourhoods and one round of annealing each;
    `starts`: instead of the heuristics; `bound`: a makespan known to be least (the search stops there).

    Returns placement, order and info: `evaluations`, `starts` (makespan of each), `won` (where the best came from), `found_s`
    (when the last improvement was seen), `compile_s`, `note`. Raises Infeasible where no placement is found that fits.
    """
    clock = _Clock(None if rounds is not None else 30.0 if time_limit_s is None else float(time_limit_s))
    rng, bound = np.random.default_rng(seed), max(bound, critical_path(problem))
    large = problem.n_tasks > SMALL
    lined = large and not problem.congestion and len(problem.factors) == 1
    annealed = large and (problem.n_tasks <= ANNEALED or not lined) and (rounds is not None or clock.limit >= 5)
    known: dict = {}  # what has been evaluated already
    with ThreadPoolExecutor(1) as pool:  # compile while the heuristics run
        ready = pool.submit(_warm, problem, lined, annealed)
        found = heuristic_starts(problem, clock.left, SHARES[0] * clock.limit) if starts is None else starts
        best, table = best_start(problem, found, known)
        if problem.excess_bytes(best.placement) > 0 or not np.isfinite(value(problem, best)):
            found = [*found, packing(problem)]
        until = clock.share(SHARES[1] if annealed else 2 * SHARES[1])
        if large:
            more = (lambda k: k < CLIMBS and clock.spent() < until) if rounds is None else (lambda k: k < 20 * rounds)
            found = [*found, *insertion_starts(problem, found, more, rng)]
            best, table = best_start(problem, found, known)
            clock.note(best, problem)
        compile_s = ready.result()
    evaluations = len(found)

    if lined and value(problem, best) > bound * (1 + 1e-9):
        from ._greedy import Lines

        until = clock.share(SHARES[2] if annealed else 1.0)
        lines = Lines(problem, found, seed)
        if rounds is None:
            lines.run(lambda _, last: clock.spent() + 1.5 * last < until, ranked_orders)
        else:
            lines.run(lambda done, _: done < 10 * rounds, ranked_orders)
        found, evaluations = [*found, *lines.starts()], evaluations + lines.evaluations
    if annealed and problem.n_tasks <= RELAXED and starts is None and (rounds is not None or clock.left() > 12):
        best, _ = best_start(problem, found, known)
        found = [*found, *relaxed_starts(problem, best, rng)]
    best, table = best_start(problem, found, known)
    clock.note(best, problem)

    if annealed:
        from ._islands import Islands

        islands = Islands(problem, found, makespan(problem, best.placement, best.order), seed)
        done = islands.run(rounds, clock.left, clock.limit, bound)
    elif large:
        done = None
    else:
        from ._small import anneal_small

        done = anneal_small(problem, best, rng, rounds, clock.left, bound)
    won = best.name
    if done is not None:
        evaluations += done.evaluations
        if done.placement is not None and problem.excess_bytes(done.placement) == 0:
            candidate = Start(f"{best.name} + annealing", done.placement, done.order)
            if value(problem, candidate) < value(problem, best):
                best, won, clock.found_s = candidate, candidate.name, done.found_at - clock.began
    if problem.excess_bytes(best.placement) > 0 or not np.isfinite(value(problem, best)):
        raise Infeasible(f"{problem.name}: no placement found that fits; the best takes "
                         f"{problem.excess_bytes(best.placement):.15g} bytes too many")  # fmt: skip
    return best.placement, best.order, {
        "evaluations": evaluations, "starts": table, "won": won, "found_s": clock.found_s, "compile_s": compile_s,
        "note": f"{evaluations} evaluations; best from {won}",
    }  # fmt: skip


class _Clock:
    """Time since the start of a search, its limit (infinite: none), and when the best was last improved."""

    def __init__(self, limit: float | None):
        self.began, self.limit = time.perf_counter(), np.inf if limit is None else limit
        self.found_s, self.best = 0.0, np.inf

    def spent(self) -> float:
        return time.perf_counter() - self.began

    def left(self) -> float:
        return self.limit - self.spent()

    def share(self, share: float) -> float:
        """When a step that begins now and may take a share of all the time has to end."""
        return min(self.spent() + share * self.limit, 0.97 * self.limit) if np.isfinite(self.limit) else np.inf

    def note(self, best: Start, problem: Problem) -> None:
        now = value(problem, best)
        if now < self.best:
            self.best, self.found_s = now, self.spent()


def _warm(problem: Problem, lined: bool, annealed: bool) -> float:
    """Compile what the problem's shape needs; seconds it took."""
    began = time.perf_counter()
    if lined:
        from ._greedy import warm

        warm(problem)
    if annealed:
        from ._islands import warm

        warm(problem)
    return time.perf_counter() - began
