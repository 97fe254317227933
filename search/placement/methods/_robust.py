"""Placement under uncertain links, its price, and re-placement when a device is lost."""

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .._problem import Infeasible, Problem
from .._result import makespan
from .search._starts import Start, best_start, heuristic_starts, packing, ranked_orders, value

DISTRIBUTIONS = ("lognormal", "uniform")


def robust(
    problem: Problem, samples: int = 32, spread: float = 0.3, worst_case: bool = False, key: int = 0,
    distribution: str = "lognormal", symmetric: bool = True,
) -> Problem:  # fmt: skip
    """The same problem over `samples` drawn link speeds: its makespan is their mean, or the worst.

    **Arguments:** `spread`: of the factors on every link's transfer time: standard deviation of their logarithm (lognormal, median
    1), or half the width around 1 (uniform, below 1); `symmetric`: both directions of a link are slow together; `key`: seed.

    Raises ValueError for no samples, a spread that makes negative times, or an unknown distribution.
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"{problem.name}: distribution is {distribution!r}; allowed: {', '.join(DISTRIBUTIONS)}")
    most = 1.0 if distribution == "uniform" else np.inf
    if samples < 1 or not 0 <= spread < most:
        raise ValueError(
            f"{problem.name}: {samples} samples of spread {spread:g}; allowed: at least 1, and 0 to below {most:g}"
        )
    rng, d = np.random.default_rng(key), problem.n_devices
    if distribution == "lognormal":
        factors = np.exp(spread * rng.normal(size=(samples, d, d)))
    else:
        factors = 1.0 + spread * rng.uniform(-1, 1, size=(samples, d, d))
    if symmetric:
        factors = np.where(np.tri(d, dtype=bool), factors, factors.swapaxes(1, 2))
    factors[:, range(d), range(d)] = 1.0
    return replace(problem, link_factors=factors, worst_case=worst_case)


class Price(NamedTuple):
    """Makespans of the placement found for nominal links and of the one found for the robust problem, each under both."""

    nominal_nominal: float
    nominal_robust: float
    robust_nominal: float
    robust_robust: float

    @property
    def price(self) -> float:
        """What robustness costs while links are nominal, as a share."""
        return self.robust_nominal / self.nominal_nominal - 1.0

    @property
    def gain(self) -> float:
        """What it saves over the drawn links (in the mean or the worst), as a share."""
        return 1.0 - self.robust_robust / self.nominal_robust


def price_of_robustness(problem: Problem, uncertain: Problem, **options) -> tuple[Price, tuple, tuple]:
    """Place for nominal links and for `uncertain` ones (see `robust`) and judge both under both: the price, and (placement, order)
    of each. The robust search begins at the nominal result, among others, so `robust_robust <= nominal_robust`.

    **Arguments:** `options`: of `search`.
    """
    from .search._search import search

    nominal = replace(problem, link_factors=None, worst_case=False)
    first = search(nominal, **options)[:2]
    starts = [Start("nominal", *first), *heuristic_starts(uncertain, lambda: np.inf, 2.0)]
    second = search(uncertain, starts=starts, **options)[:2]
    if makespan(nominal, *second) < makespan(nominal, *first):
        first = second
    judged = (makespan(p, *found) for found in (first, second) for p in (nominal, uncertain))
    return Price(*judged), first, second


def replace_after_loss(
    problem: Problem, placement: Int[np.ndarray, "N"], order: Int[np.ndarray, "N"], device: int, *, time_limit_s: float = 0.8,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, dict]:  # fmt: skip
    """A placement without `device`, from the one that ran when it disappeared; devices keep their numbers.

    The lost device gets infinite times and no memory rather than being cut out, so shapes stay and nothing compiles that the
    problem's `search` (or an earlier loss) has compiled. Returns placement, order and info: `moved` (tasks on another device than
    before), `patched` (makespan before improvement), `evaluations`, `seconds`.

    Raises ValueError for a device that is none, Infeasible where the rest cannot take its tasks.
    """
    began = time.perf_counter()
    if not 0 <= device < problem.n_devices:
        raise ValueError(f"{problem.name}: device is {device}; allowed: 0 to {problem.n_devices - 1}")
    masked = without(problem, device)
    placement, order = np.asarray(placement), np.asarray(order)
    rng = np.random.default_rng(seed)
    starts = patches(masked, placement, order, rng)
    best, _ = best_start(masked, starts)
    patched = value(masked, best) if masked.excess_bytes(best.placement) == 0 else np.inf
    left = lambda: time_limit_s - (time.perf_counter() - began)  # noqa: E731
    evaluations = len(starts)
    if masked.congestion or len(masked.factors) > 1:
        from .search._islands import Islands, binds

        islands = Islands(masked, starts, value(masked, best), seed, memory=binds(problem), heat=((1e-3, 1e-5),))
        done = islands.run(None, left, time_limit_s, 0.0)
        evaluations += done.evaluations
        if done.placement is not None:
            starts.append(Start("annealing", done.placement, done.order))
    else:
        from .search._greedy import Lines

        lines = Lines(masked, starts, seed)
        lines.run(lambda _, last: left() > 2 * last + 0.02, ranked_orders)
        evaluations += lines.evaluations
        starts += lines.starts()
    best, _ = best_start(masked, starts)
    if masked.excess_bytes(best.placement) > 0 or not np.isfinite(value(masked, best)):
        raise Infeasible(f"{problem.name}: no placement without {problem.device_names[device]} was found that fits; the best takes "
                         f"{masked.excess_bytes(best.placement):.15g} bytes too many")  # fmt: skip
    info = {"moved": int((best.placement != placement).sum()), "patched": patched, "evaluations": evaluations,
            "seconds": time.perf_counter() - began}  # fmt: skip
    return best.placement, best.order, info


def without(problem: Problem, device: int) -> Problem:
    """The problem with a device that runs and holds nothing; shapes stay. Raises Infeasible where a task ran nowhere else."""
    times, capacity = problem.times.copy(), problem.capacity_bytes.copy()
    times[:, device], capacity[device] = np.inf, 0.0
    only = np.flatnonzero(~np.isfinite(times).any(axis=1))
    if len(only):
        raise Infeasible(f"{problem.name}: task {problem.names[only[0]]} runs on {problem.device_names[device]} only")
    return replace(problem, times=times, capacity_bytes=capacity)


def patches(masked: Problem, placement, order, rng: np.random.Generator) -> list[Start]:
    """First answers to a loss: what stood there inserted elsewhere, all placed anew by insertion, a packing that fits."""
    from .search._insert import Plan

    plan, n = Plan(masked), np.arange(masked.n_tasks)
    stays = np.isfinite(masked.times[n, placement])
    firm = 1e3 * np.abs(masked.times[np.isfinite(masked.times)]).sum()
    kept: Float[np.ndarray, "N D"] = np.zeros_like(masked.times)
    kept[n[stays], placement[stays]] = -firm
    found = []
    for name, bias in (("kept", kept), ("kept, thrifty", kept + plan.waste), ("anew", plan.waste)):
        found.append(Start(name, *plan.place(order, bias)))
    found.append(
        Start("anew, by rank", *plan.place(ranked_orders(masked, found[-1].placement[None], 0.0, rng)[0], plan.waste))
    )
    if all(masked.excess_bytes(s.placement) > 0 for s in found):
        found.append(packing(masked))
    return found
