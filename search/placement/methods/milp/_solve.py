"""HiGHS on a model: through scipy, or through highspy where that is installed, which can start from a known schedule."""

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import Bounds, LinearConstraint
from scipy.optimize import milp as _highs

from ..._evaluate import Timeline
from ..._problem import Problem
from ._model import Model
from ._pairs import Pairs

REL_GAP = 1e-7
_THREADS = 2


class Solution(NamedTuple):
    """`values`: of the columns, None where nothing was found; `bound`: of the makespan, in the problem's time (-inf: none);
    `closed`: the search ended by itself: `values` are best, or there are none."""

    values: Float[np.ndarray, "V"] | None
    bound: float
    closed: bool


def solve(
    model: Model, time_limit_s: float, start: Float[np.ndarray, "V"] | None = None, low=None, high=None
) -> Solution:
    """Minimise; `low, high`: other limits of the columns (a neighbourhood). `start`: a solution to begin with, which scipy
    cannot take and highspy can."""
    low, high = model.low if low is None else low, model.high if high is None else high
    time_limit_s = max(time_limit_s, 0.05)
    if start is not None and find_spec("highspy"):
        return _through_highspy(model, time_limit_s, start, low, high)
    found = _highs(
        model.cost, integrality=model.integer, bounds=Bounds(low, high),
        constraints=LinearConstraint(model.matrix, model.row_low, model.row_high),
        options={"time_limit": time_limit_s, "mip_rel_gap": REL_GAP},
    )  # fmt: skip
    if found.status == 2:
        return Solution(None, np.inf, True)
    bound = found.mip_dual_bound
    bound = -np.inf if bound is None or not np.isfinite(bound) else float(bound) / model.scale
    return Solution(found.x, bound, found.status == 0)


def _through_highspy(model: Model, time_limit_s: float, start, low, high) -> Solution:
    import highspy  # pyright: ignore[reportMissingImports]

    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(model.cost), len(model.row_low)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = model.cost, low, high
    lp.row_lower_, lp.row_upper_ = model.row_low, model.row_high
    columns = model.matrix.tocsc()
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = columns.indptr, columns.indices, columns.data
    lp.integrality_ = [highspy.HighsVarType.kInteger if i else highspy.HighsVarType.kContinuous for i in model.integer]
    solver = highspy.Highs()
    for option, value in (
        ("output_flag", False),
        ("time_limit", time_limit_s),
        ("mip_rel_gap", REL_GAP),
        ("threads", _THREADS),
    ):
        solver.setOptionValue(option, value)
    solver.passModel(lp)
    known = highspy.HighsSolution()
    known.col_value = list(start)
    solver.setSolution(known)
    solver.run()
    status, info = solver.getModelStatus(), solver.getInfo()
    if status == highspy.HighsModelStatus.kInfeasible:
        return Solution(None, np.inf, True)
    found = info.primal_solution_status == 2  # feasible
    bound = info.mip_dual_bound / model.scale if np.isfinite(info.mip_dual_bound) else -np.inf
    values = np.asarray(solver.getSolution().col_value) if found else None
    return Solution(values, bound, status == highspy.HighsModelStatus.kOptimal)


def columns_of(
    model: Model, problem: Problem, placement: Int[np.ndarray, "N"], runs: list[Timeline]
) -> Float[np.ndarray, "V"]:
    """A known schedule (its timeline in every scenario) as values of the model's columns."""
    values, every = np.zeros(len(model.cost)), np.arange(problem.n_tasks)
    values[model.x[every, placement]] = 1.0
    q = np.arange(len(model.moved))
    values[model.ways[q, placement[problem.source[model.moved]], placement[problem.target[model.moved]]]] = 1.0
    first = runs[0]
    middle, at = first.start + first.finish, placement
    _before(values, model.tasks, model.task_before, middle, at[model.tasks.first] == at[model.tasks.second])
    out, into = at[problem.source[model.sent]], at[problem.target[model.sent]]
    q, r = model.links.first, model.links.second
    meet = ((out[q] == out[r]) | (into[q] == into[r])) & (out != into)[q] & (out != into)[r]
    _before(values, model.links, model.link_before, first.sent[model.sent] + first.arrived[model.sent], meet)
    for i, run in enumerate(runs):
        values[model.starts[i]] = run.start * model.scale
        values[model.sends[i]] = run.sent[model.sent] * model.scale
        values[model.makespans[i]] = max(run.makespan * model.scale, values[model.makespans[i]])
    return values


def _before(values, pairs: Pairs, columns, middle, meet) -> None:
    first = middle[pairs.first] <= middle[pairs.second]
    values[columns] = np.stack([first & meet, ~first & meet], axis=1)


def schedule_of(model: Model, problem: Problem, values: Float[np.ndarray, "V"]):
    """Placement and order of a solution: an order that keeps the sequence of tasks on each device and, with congestion, of
    transfers out of and into each (their consumers, or else their producers, are listed in that sequence), if there is one.

    Sequences go by the middles of tasks and transfers, which neither rounding nor zero durations can turn round."""
    every = np.arange(problem.n_tasks)
    placement = np.argmax(values[model.x], axis=1).astype(np.int32)
    middle = values[model.starts[0]] + 0.5 * problem.times[every, placement] * model.scale
    wishes = []
    for k in range(problem.n_devices):
        here = every[placement == k]
        here = here[np.argsort(middle[here], kind="stable")]
        wishes += zip(here[:-1], here[1:], strict=True)
    a, b = placement[problem.source[model.sent]], placement[problem.target[model.sent]]
    sent = values[model.sends[0]] + 0.5 * problem.transfer[model.sent, a, b] * problem.factors[0][a, b] * model.scale
    for ends, others in ((a, b), (b, a)):
        for k in range(problem.n_devices):
            used = np.flatnonzero((ends == k) & (others != k))
            line = model.sent[used[np.argsort(sent[used], kind="stable")]]
            for end in (problem.target, problem.source):
                same = problem.target[line[:-1]] == problem.target[line[1:]]
                use = same if end is problem.source else ~same
                wishes += zip(end[line[:-1]][use], end[line[1:]][use], strict=True)
    return placement, listed(problem, middle, [(i, j) for i, j in wishes if i != j])


def listed(problem: Problem, key, wishes: list[tuple[int, int]]) -> Int[np.ndarray, "N"]:
    """A topological order by `key` with i before j for each wish (i, j), unless wishes contradict each other."""
    waiting, wished = np.bincount(problem.target, minlength=problem.n_tasks), np.zeros(problem.n_tasks, int)
    later: list[list[int]] = [[] for _ in range(problem.n_tasks)]
    for i, j in wishes:
        later[i].append(j)
        wished[j] += 1
    order, left = [], np.ones(problem.n_tasks, bool)
    for _ in range(problem.n_tasks):
        ready = np.flatnonzero(left & (waiting == 0))
        i = int(ready[np.lexsort((key[ready], wished[ready] > 0))[0]])
        order.append(i)
        left[i] = False
        np.subtract.at(wished, later[i], 1)
        edges = problem.outputs[i]
        np.subtract.at(waiting, problem.target[edges[edges >= 0]], 1)
    return np.asarray(order, np.int32)
