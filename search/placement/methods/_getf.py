"""GETF (Su, Ren, Vardi, Wierman, arXiv 2004.14639): devices grouped by speed, a linear program chooses groups, ETF does the rest."""

import time
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.optimize import linprog

from .._bounds import units
from .._problem import Problem
from ._list_scheduling import earliest_first
from ._sct import LP_SECONDS

_RATIO_OF_TWO = 2.0  # of speeds in a group where log m / log log m says nothing: two devices


def speeds(problem: Problem) -> Float[np.ndarray, "D"]:
    """Speed of each device, 1: as fast as the fastest at every task. The machines of the paper are related, so that one number says
    it; here work at its fastest over the time that the device takes for it (of tasks that it runs)."""
    runs = np.isfinite(problem.times)
    fastest = problem.times.min(axis=1)[:, None]
    done, takes = np.where(runs, fastest, 0.0).sum(axis=0), np.where(runs, problem.times, 0.0).sum(axis=0)
    return np.where(takes > 0, done / np.where(takes > 0, takes, 1.0), 1.0) * runs.any(axis=0)


def speed_groups(speed: Float[np.ndarray, "D"]) -> Int[np.ndarray, "D"]:
    """Group of each device, 0 the slowest: devices in a group differ by less than gamma = log m / log log m (base 2, where
    the paper says none; 2 for two devices)."""
    m = len(speed)
    gamma = np.log2(m) / np.log2(np.log2(m)) if m > 2 else _RATIO_OF_TWO
    slowest = speed[speed > 0].min(initial=np.inf)
    if not np.isfinite(slowest):
        return np.zeros(m, int)
    number = np.floor(np.log(np.maximum(speed, slowest) / slowest) / np.log(gamma) + 1e-9).astype(int)
    return np.unique(number, return_inverse=True)[1]


class Relaxed(NamedTuple):
    """A solution `x [N, D]` of the program and its value; `x` None: not solved (`value` infinite: nothing fits, else 0).
    `whole`: all of the program, not only its assignment (then still a bound, where all devices are in it)."""

    x: Float[np.ndarray, "N D"] | None
    value: float
    whole: bool = True


def relaxed_assignment(problem: Problem, use: Bool[np.ndarray, "D"], time_limit_s: float | None = None) -> Relaxed:
    """min T with sum_k x_jk = 1, t_j = sum_k p_jk x_jk <= C_j, C_i + t_j <= C_j for i before j, sum_j p_jk x_jk <= T, C_j <= T;
    memory of the devices and colocation groups (one x a group) are added. With all devices in `use` the value bounds every makespan
    from below.

    Without the chains C_j first, which is much easier: where no chain of its t_j is longer than its T, that is the answer. What is
    left of the time goes to the whole program; if that is too little, the answer without chains stays."""
    begun, limit = time.perf_counter(), LP_SECONDS if time_limit_s is None else time_limit_s
    first = _solved(problem, use, limit, chains=False)
    if first.x is None or not len(problem.source):
        return first._replace(whole=True)
    takes = (first.x * np.where(np.isfinite(problem.times) & use, problem.times, 0.0)).sum(axis=1)
    end = np.zeros(problem.n_tasks)
    for j in problem.order.tolist():
        before = [end[problem.source[e]] for e in problem.inputs[j].tolist() if e >= 0]
        end[j] = takes[j] + max(before, default=0.0)
    if end.max() <= first.value:
        return first._replace(whole=True)
    second = _solved(problem, use, limit - (time.perf_counter() - begun), chains=True)
    return first if second.x is None else second


def _solved(problem: Problem, use, time_limit_s: float, *, chains: bool) -> Relaxed:
    n, d = problem.n_tasks, problem.n_devices
    e = len(problem.source) if chains else 0
    unit = units(problem)
    u = len(unit.memory_bytes)
    able = np.isfinite(problem.times) & use
    takes = np.where(able, problem.times, 0.0)
    task, device = np.nonzero(able)
    x = unit.of[task] * d + device  # columns: x [U, D], t [N], C [N], T
    width, t, c = u * d + 2 * n + 1, u * d + np.arange(n), u * d + n + np.arange(n)
    last, here, rows = width - 1, np.arange(n), np.arange(e)

    def matrix(n_rows, *parts):
        row, column, value = (np.concatenate([np.broadcast_to(p[i], p[0].shape) for p in parts]) for i in range(3))
        return sp.csr_matrix((value.astype(float), (row, column)), (n_rows, width))

    size = max(float(unit.memory_bytes.max(initial=0.0)), 1.0)
    cells, kinds = np.arange(u * d), np.tile(np.arange(d), u)
    equal = [matrix(u, (np.repeat(np.arange(u), d), cells, 1.0))]
    less = [
        matrix(d, (device, x, takes[task, device]), (np.arange(d), np.full(d, last), -1.0)),
        matrix(d, (kinds, cells, np.repeat(unit.memory_bytes / size, d))),
    ]
    if chains:
        equal.append(matrix(n, (task, x, takes[task, device]), (here, t, -1.0)))
        less += [
            matrix(n, (here, t, 1.0), (here, c, -1.0)),
            matrix(e, (rows, c[problem.source], 1.0), (rows, t[problem.target], 1.0), (rows, c[problem.target], -1.0)),
            matrix(n, (here, c, 1.0), (here, np.full(n, last), -1.0)),
        ]
    a, b = sp.vstack(less).tocsr(), sp.vstack(equal).tocsr()
    most, cost = np.full(width, np.inf), np.zeros(width)
    most[: u * d] = (unit.sum((~able).astype(float)) == 0).ravel()
    cost[last] = 1.0
    found = linprog(
        cost, A_ub=a, b_ub=np.concatenate([np.zeros(d), problem.capacity_bytes / size, np.zeros((2 * n + e) * chains)]),
        A_eq=b, b_eq=np.concatenate([np.ones(u), np.zeros(n * chains)]), bounds=np.column_stack([np.zeros(width), most]),
        method="highs-ds", options={"time_limit": max(time_limit_s, 0.0)},
    )  # fmt: skip
    if found.status != 0:
        return Relaxed(None, np.inf if found.status == 2 else 0.0, chains)
    return Relaxed(np.asarray(found.x[: u * d]).reshape(u, d)[unit.of], float(found.fun), chains)


def chosen_groups(x: Float[np.ndarray, "N D"], speed, group: Int[np.ndarray, "D"]) -> Int[np.ndarray, "N"]:
    """Group of each task: l = the fastest group such that at least half of x lies in it or faster ones; of those, the group of
    greatest total speed (of equals the fastest)."""
    n_groups = int(group.max()) + 1
    of = group[:, None] == np.arange(n_groups)
    share = (x @ of)[:, ::-1].cumsum(axis=1)[:, ::-1]  # in this group or a faster one
    least = n_groups - 1 - (share[:, ::-1] >= 0.5 - 1e-9).argmax(axis=1)
    total = speed @ of
    best = [n_groups - 1 - int(total[g:][::-1].argmax()) for g in range(n_groups)]
    return np.asarray(best)[least]


def getf(problem: Problem, *, seed: int = 0, time_limit_s: float | None = None) -> tuple[np.ndarray, np.ndarray, dict]:
    """Each task keeps to the devices of its group; always the ready task that can start earliest goes first.

    Devices slower than fastest / m are left out, unless what remains cannot run or hold everything. `info["lower_bound"]` is the
    program's value where it covers all devices. Returns placement, order, info. Raises Infeasible where memory cannot be packed.

    For machines that are not related: p_jk in place of p_j / s_k, `speeds` for s_k. A task leaves its group where memory, or what
    a device can run, forces it."""
    speed, m = speeds(problem), problem.n_devices
    use, notes = speed >= speed.max() / m, []
    enough = float(problem.capacity_bytes[use].sum()) >= float(problem.memory_bytes.sum())
    if not (enough and np.isfinite(problem.times[:, use]).any(axis=1).all()):
        use = np.ones(m, bool)
    found = relaxed_assignment(problem, use, time_limit_s)
    if found.x is None and np.isinf(found.value) and not use.all():
        use = np.ones(m, bool)
        found = relaxed_assignment(problem, use, time_limit_s)
    x = found.x
    if x is None:  # a packing that is infeasible is told by the scheduler, with what does not fit
        notes.append("the linear program was not solved in time; each task in the group of its fastest device instead")
        x = np.eye(m)[np.where(use, problem.times, np.inf).argmin(axis=1)]
    elif not found.whole:
        notes.append("the linear program was not solved in time; its assignment without the chains instead")
    group = np.full(m, -1)
    group[use] = speed_groups(speed[use])
    mine = chosen_groups(x[:, use], speed[use], group[use])
    placement, order, info = earliest_first(problem, allowed=mine[:, None] == group)
    if not use.all():
        notes.append(f"left out, slower than the fastest / {m}: {', '.join(np.asarray(problem.device_names)[~use])}")
    elif found.x is not None:
        info["lower_bound"] = found.value * (1 - 1e-7)
    return placement, order, {**info, "note": "; ".join(notes)}
