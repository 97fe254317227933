"""What a method hands back, and its makespan as the one evaluator sees it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ._evaluate import timeline
from ._problem import Problem


class Placed(NamedTuple):
    """A placement found by `method`: device of each task, a topological order, the makespan of both and a bound that no
    placement goes below (0 where none is known); seconds it took; `note`: what is worth knowing about how it was found."""

    method: str
    placement: Int[np.ndarray, "N"]
    order: Int[np.ndarray, "N"]
    makespan: float
    lower_bound: float
    seconds: float
    note: str = ""

    @property
    def gap(self) -> float:
        """Share of the makespan above the bound."""
        return 1.0 - self.lower_bound / self.makespan if self.makespan > 0 else 0.0


def makespans(problem: Problem, placement, order) -> Float[np.ndarray, "S"]:
    """Makespan in each of the link scenarios."""
    return np.asarray([timeline(problem, placement, order, s).makespan for s in range(len(problem.factors))])


def makespan(problem: Problem, placement, order) -> float:
    """Makespan of a placement; over scenarios the worst (`worst_case`) or the mean."""
    each = makespans(problem, placement, order)
    return float(each.max() if problem.worst_case else each.mean())


def placed(method: str, problem: Problem, placement, order, seconds: float, info: dict) -> Placed:
    """The result of a method's (placement, order, info), judged by the evaluator."""
    return Placed(
        method, np.asarray(placement), np.asarray(order), makespan(problem, placement, order),
        float(info.get("lower_bound", 0.0)), seconds, str(info.get("note", "")),
    )  # fmt: skip
