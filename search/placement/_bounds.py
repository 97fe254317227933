"""Lower bounds of a placement problem's makespan, each valid for every placement and order the evaluator can be handed.

- *critical path*: every task at its fastest device, transfers free.
- *path with transfers*: the same, but a chain that changes device pays the transfer. `head[i, k]`: no schedule starts task i on
  device k earlier; `tail[i, k]`: what must still follow when it ends there.
- *assignment LP*: least T with sum_k x_ik = 1, sum_i p_ik x_ik <= T and the memory of devices, x fractional.
- *m-SCT LP*: Hanen and Munier's favourite children (arXiv 2301.08695), transfers cut down to where it is a bound at all.
- *windows*: suppose a makespan of T. Devices on which head + time + tail > T are then out, and the tasks of one device that start
  after r and leave q to be done load it for at most T - r - q. Where that assignment LP exceeds T, no schedule of T exists.
"""

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.optimize import linprog

from ._problem import NO_GROUP, Problem

_SAFETY = 1e-7  # relative; what a bound gives away for the tolerance of floating-point LPs
_BISECTIONS = 10
_MOST_CELLS = 8_000  # tasks x devices up to which windows are tried: some twenty LPs
_GRID = 8  # starts r and remainders q of the windows, per device


class Units(NamedTuple):
    """Tasks that move together, as one column: `of [N]` the unit of each task, `memory_bytes [U]`."""

    of: Int[np.ndarray, "N"]
    memory_bytes: Float[np.ndarray, "U"]

    def sum(self, values: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "U D"]:
        out = np.zeros((len(self.memory_bytes), values.shape[1]))
        np.add.at(out, self.of, values)
        return out


def units(problem: Problem) -> Units:
    """Groups first met first; a task without a group is a unit of its own."""
    n = problem.n_tasks
    alone = problem.group == NO_GROUP
    key = np.where(alone, problem.group.max(initial=NO_GROUP) + 1 + np.arange(n), problem.group)
    _, of = np.unique(key, return_inverse=True)
    return Units(of, np.bincount(of, weights=problem.memory_bytes))


def in_scenario(problem: Problem, factors: Float[np.ndarray, "D D"]) -> Problem:
    """The problem with one set of link speeds, worked into its transfers (within a device there is none)."""
    between = factors * ~np.eye(problem.n_devices, dtype=bool)
    return replace(problem, transfer=problem.transfer * between, link_factors=None, worst_case=False)


def over_scenarios(problem: Problem, values) -> float:
    """The makespan of a robust problem from those of its scenarios."""
    return float(np.max(values) if problem.worst_case else np.mean(values))


def critical_path(problem: Problem) -> float:
    """Longest path, every task at its fastest device, transfers free."""
    fastest, done = problem.times.min(axis=1), np.zeros(problem.n_tasks)
    for i in problem.order.tolist():
        before = [problem.source[e] for e in problem.inputs[i].tolist() if e >= 0]
        done[i] = fastest[i] + (done[before].max() if before else 0.0)
    return float(done.max())


def heads_tails(problem: Problem, times=None) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N D"]]:
    """Earliest start of each task on each device, and least time from its end there to the end of all; infinite where it
    cannot be. Every chain chooses its devices freely (tasks of one group share theirs). `times`: others than the problem's,
    such as with devices ruled out."""
    times = problem.times if times is None else times
    head, tail = np.zeros_like(times), np.zeros_like(times)
    together = (problem.group[problem.source] != NO_GROUP) & (
        problem.group[problem.source] == problem.group[problem.target]
    )
    for j in problem.order.tolist():
        for e in problem.inputs[j].tolist():
            if e >= 0:
                done = head[problem.source[e]] + times[problem.source[e]]
                there = done if together[e] else (done[:, None] + problem.transfer[e]).min(axis=0)
                head[j] = np.maximum(head[j], there)
    for i in problem.order[::-1].tolist():
        for e in problem.outputs[i].tolist():
            if e >= 0:
                rest = times[problem.target[e]] + tail[problem.target[e]]
                there = rest if together[e] else (problem.transfer[e] + rest).min(axis=1)
                tail[i] = np.maximum(tail[i], there)
    return head, tail


def path_bound(problem: Problem) -> float:
    """Longest path, devices chosen along it, changes of device paid for. At least the critical path."""
    head, tail = heads_tails(problem)
    return float((head + problem.times + tail).min(axis=1).max())


def within(problem: Problem, horizon: float, least: Units | None = None):
    """`times [N, D], head, tail` of schedules no longer than `horizon`: infinite where a task cannot be in any (its group
    neither). None if some task is left without a device."""
    least = units(problem) if least is None else least
    times = problem.times
    while True:
        head, tail = heads_tails(problem, times)
        out = ~(head + times + tail <= horizon * (1 + _SAFETY))
        out = (least.sum(out.astype(float)) > 0)[least.of]
        if out.all(axis=1).any():
            return None
        if np.array_equal(out, np.isinf(times)):
            return times, head, tail
        times = np.where(out, np.inf, times)


class Loads(NamedTuple):
    """Rows `sum_u work_u x_u,device + after <= T`: one a device and window."""

    work: sp.csr_matrix  # [C, U * D]
    after: Float[np.ndarray, "C"]


def loads(problem: Problem, least: Units, times, head, tail, lower: float, grid: int = 1) -> Loads:
    """What every device must do, in all and between windows. `lower`: a makespan that is known to be needed; a window counts
    its start and remainder only so far, since they are waited for only if a task of the window is there at all."""
    d = problem.n_devices
    rows, columns, values, after, count = [], [], [], [], 0
    for k in range(d):
        can = np.isfinite(times[:, k])
        if not can.any():
            continue
        starts, rests = (_levels(v[can, k], grid) for v in (head, tail))
        seen = set()
        for r in starts:
            for q in rests:
                inside = np.flatnonzero(can & (head[:, k] >= r) & (tail[:, k] >= q))
                if not len(inside) or inside.tobytes() in seen:
                    continue
                seen.add(inside.tobytes())
                rows.append(np.full(len(inside), count))
                columns.append(least.of[inside] * d + k)
                values.append(times[inside, k])
                after.append(min(head[inside, k].min() + tail[inside, k].min(), lower))
                count += 1
    shape = (count, len(least.memory_bytes) * d)
    work = sp.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
    return Loads(work, np.asarray(after))


def _levels(values, grid: int):
    return np.unique(np.quantile(values, np.linspace(0, 1, grid, endpoint=False), method="lower"))


def assignment_lp(problem: Problem, least: Units, times, rows: Loads, time_limit_s: float = 10.0) -> float:
    """Least T of the fractional assignment under `rows` and memory; infinite if nothing fits. The value is worked out from the
    dual weights, for which it is a bound however well the solver did: with shares w of the rows (adding up to 1) and prices v
    of memory, sum_u min_k(w-weighted work of u on k + v_k m_u) + w . after - v . capacity."""
    n, d = len(least.memory_bytes), problem.n_devices
    can = np.isfinite(least.sum(times)).ravel()
    scale = max(float(least.memory_bytes.max()), 1.0)
    column = np.arange(n * d)
    memory = sp.csr_matrix((np.repeat(least.memory_bytes / scale, d), (column % d, column)), shape=(d, n * d))
    upper = sp.bmat([[rows.work, -np.ones((len(rows.after), 1))], [memory, None]]).tocsr()
    whole = sp.csr_matrix((np.ones(n * d), (column // d, column)), shape=(n, n * d + 1))
    # no upper bound of 1 on x: the duals would hide in it, and it follows from the rows that add up to 1
    top = np.append(np.where(can, np.inf, 0.0), np.inf)
    found = linprog(
        np.append(np.zeros(n * d), 1.0), A_ub=upper, b_ub=np.append(-rows.after, problem.capacity_bytes / scale), A_eq=whole,
        b_eq=np.ones(n), bounds=np.stack([np.zeros(n * d + 1), top], axis=1), method="highs-ds",
        options={"time_limit": max(time_limit_s, 0.1)},
    )  # fmt: skip
    if found.status == 2:
        return np.inf
    share, price = np.full(len(rows.after), 1.0 / len(rows.after)), np.zeros(d)
    if found.status == 0:
        dual = np.maximum(-found.ineqlin.marginals, 0.0)
        if dual[: len(rows.after)].sum() > 0:
            share, price = dual[: len(rows.after)], dual[len(rows.after) :]
            price, share = price / share.sum(), share / share.sum()
    cost = np.where(can, rows.work.T @ share + memory.T @ price, np.inf).reshape(n, d).min(axis=1)
    return float(cost.sum() + share @ rows.after - price @ problem.capacity_bytes / scale)


def favourite_lp(problem: Problem, time_limit_s: float = 10.0) -> float:
    """m-SCT's LP. Of the children of i (the parents of j) one at most follows without a transfer; any other on the same device
    waits for a sibling at least, so a transfer counts for no more than the shortest sibling: where all transfers are shorter
    than all tasks, this changes nothing. Transfers and times: the least over devices. Nothing but 0 on a timeout."""
    n, d, e = problem.n_tasks, problem.n_devices, len(problem.source)
    if d == 1 or e == 0:
        return critical_path(problem)
    fastest = problem.times.min(axis=1)
    wait = problem.transfer[:, ~np.eye(d, dtype=bool)].min(axis=1)
    for ends, others in ((problem.outputs, problem.target), (problem.inputs, problem.source)):
        for row in ends:
            edges = row[row >= 0]
            for edge in edges if len(edges) > 1 else ():
                wait[edge] = min(wait[edge], fastest[others[edges[edges != edge]]].min())
    row = np.arange(e)
    follows = sp.csr_matrix(
        (np.r_[np.ones(e), -np.ones(e), wait], (np.r_[row, row, row], np.r_[problem.source, problem.target, n + row]))
    )  # s_i - s_j + wait x <= -p_i
    last = sp.hstack([sp.eye(n), sp.csr_matrix((n, e))])
    once = [
        sp.csr_matrix((-np.ones(e), (ends, n + row)), shape=(n, n + e)) for ends in (problem.source, problem.target)
    ]
    free = [1.0 - np.bincount(ends, minlength=n) for ends in (problem.source, problem.target)]
    total = sp.csr_matrix(np.r_[np.zeros(e), -np.ones(n), np.zeros(2 * n)][:, None])
    upper = sp.hstack([sp.vstack([follows, last, *once]), total]).tocsr()
    top = np.r_[np.full(n, np.inf), np.ones(e), np.inf]
    found = linprog(
        np.append(np.zeros(n + e), 1.0), A_ub=upper, b_ub=np.r_[-fastest[problem.source], -fastest, *free],
        bounds=np.stack([np.zeros(n + e + 1), top], axis=1), method="highs-ds", options={"time_limit": max(time_limit_s, 0.1)},
    )  # fmt: skip
    return float(found.fun) * (1 - _SAFETY) if found.status == 0 else 0.0


def lower_bound(problem: Problem, *, time_limit_s: float = 10.0, upper: float = np.inf) -> tuple[float, str]:
    """The best lower bound of the makespan (expected or worst over link scenarios) found in about `time_limit_s`, and its name.

    `upper`: a makespan that is known to be reached; no bound beyond it is looked for. Infinite if memory cannot do.
    """
    began = time.perf_counter()
    left = lambda: time_limit_s - (time.perf_counter() - began)  # noqa: E731
    easiest = in_scenario(problem, problem.factors.min(axis=0))
    found = {"critical path": critical_path(problem)}
    found["path with transfers"] = over_scenarios(
        problem, [path_bound(in_scenario(problem, f)) for f in problem.factors]
    )
    least, zero = units(problem), np.zeros_like(problem.times)
    plain = loads(problem, least, problem.times, zero, zero, 0.0)
    found["assignment LP"] = assignment_lp(problem, least, problem.times, plain, left())
    if left() > 0 and problem.n_tasks * problem.n_devices <= _MOST_CELLS:
        found["m-SCT LP"] = favourite_lp(easiest, left())
    which = max(found, key=lambda name: found[name])
    value = found[which]
    if value > 0 and np.isfinite(value) and problem.n_tasks * problem.n_devices <= _MOST_CELLS:
        better = _windows(easiest, least, value, upper, left)
        if better > value:
            return better, "windows"
    return value, which


def _windows(problem: Problem, least: Units, lower: float, upper: float, left) -> float:
    """Bisection for the longest makespan that windows refute."""
    high = min(upper, 1.5 * lower)
    for _ in range(_BISECTIONS):
        trial = 0.5 * (lower + high)
        if left() <= 0 or high - lower < 1e-4 * lower:
            break
        if _refuted(problem, least, trial, lower, left()):
            lower = trial
        else:
            high = trial
    return lower


def _refuted(problem: Problem, least: Units, trial: float, lower: float, time_limit_s: float) -> bool:
    narrowed = within(problem, trial, least)
    if narrowed is None:
        return True
    rows = loads(problem, least, *narrowed, lower=lower, grid=_GRID)
    return assignment_lp(problem, least, narrowed[0], rows, time_limit_s) > trial * (1 + _SAFETY)
