"""m-SCT of Baechi (SoCC 2020, arXiv 2301.08695): ETF with favourite children from a linear program (Hanen, Munier 1995)."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.optimize import linprog

from .._problem import Problem
from ._heft import upward_ranks
from ._list_scheduling import earliest_first, mean_transfer

LP_SECONDS = 90.0  # unless a method is given a limit
_LARGE = 1000  # tasks from which HiGHS's interior point is the faster


class Favourites(NamedTuple):
    """`child [N]`: -1 where none.  `value` of the program, None where it was not solved.  `pays [E]`: x of each edge."""

    child: Int[np.ndarray, "N"]
    value: float | None
    pays: Float[np.ndarray, "E"] | None


def favourites(problem: Problem, times, transfer, time_limit_s: float | None = None) -> Favourites:
    """Favourite child of each task, by the relaxed program of one time a task (`times [N]`) and one a transfer (`[E]`):
    min w with s_i + p_i + c_ij x_ij <= s_j, s_i + p_i <= w, and at least all but one of the children (and of the parents) paying
    x. The favourite pays less than half; of several the last.

    Where HiGHS is not done in time, instead the child on the longest way to the end (upward rank), `value` None."""
    n, e = problem.n_tasks, len(problem.source)
    source, target, rows = problem.source, problem.target, np.arange(len(problem.source))
    # columns: s [N], x [E], w
    after = sp.csr_matrix(
        (np.concatenate([np.ones(e), -np.ones(e), transfer]),
         (np.tile(rows, 3), np.concatenate([source, target, n + rows]))), (e, n + e + 1),
    )  # fmt: skip
    end = sp.hstack([sp.identity(n), sp.csr_matrix((n, e)), -np.ones((n, 1))])
    parts, limits = [after, end], [-times[source], -times]
    for ends in (source, target):
        degree = np.bincount(ends, minlength=n)
        some = np.flatnonzero(degree > 1)  # of one child nothing is asked
        number = np.full(n, -1)
        number[some] = np.arange(len(some))
        edges = np.flatnonzero(degree[ends] > 1)
        parts.append(sp.csr_matrix((-np.ones(len(edges)), (number[ends[edges]], n + edges)), (len(some), n + e + 1)))
        limits.append(1.0 - degree[some])
    found = linprog(
        np.append(np.zeros(n + e), 1.0), A_ub=sp.vstack(parts).tocsr(), b_ub=np.concatenate(limits),
        bounds=np.column_stack([np.zeros(n + e + 1), np.concatenate([np.full(n, np.inf), np.ones(e), [np.inf]])]),
        method="highs-ipm" if n > _LARGE else "highs", options={"time_limit": LP_SECONDS if time_limit_s is None else time_limit_s},
    )  # fmt: skip
    child = np.full(n, -1)
    if found.status != 0:
        rank = upward_ranks(problem)
        for i in problem.order.tolist():
            outputs = [e for e in problem.outputs[i].tolist() if e >= 0]
            if outputs:
                child[i] = target[max(outputs, key=lambda e: (transfer[e] + rank[target[e]], e))]
        return Favourites(child, None, None)
    pays = np.asarray(found.x[n : n + e])
    liked = np.flatnonzero(pays < 0.5)
    child[source[liked]] = target[liked]  # of several the last one stays
    return Favourites(child, float(found.fun), pays)


def m_sct(problem: Problem, *, seed: int = 0, time_limit_s: float | None = None) -> tuple[np.ndarray, np.ndarray, dict]:
    """m-ETF in which an idle device waits for the favourite child of its last task, where that is ready and could not start
    earlier elsewhere; meanwhile it takes urgent tasks only, which could start on every device.

    The program is of related, equal machines; here a task takes its time on its fastest device, a transfer its mean over pairs of
    devices. `info["lower_bound"]` is given only where the program is a bound: transfers at their least, and none longer than the
    shortest task. Returns placement, order, info. Raises Infeasible where memory cannot be packed."""
    times, transfer = problem.times.min(axis=1), mean_transfer(problem)
    found = favourites(problem, times, transfer, time_limit_s)
    placement, order, info = earliest_first(problem, favourite=found.child)
    if found.value is None:
        info["note"] = "the linear program was not solved in time; favourite children by upward rank instead"
    elif (bound := sct_bound(problem, times, transfer, found.value)) is not None:
        info["lower_bound"] = bound
    return placement, order, info


def sct_bound(problem: Problem, times, transfer, value: float) -> float | None:
    """The value of the program where it bounds every makespan from below, else None: one scenario, every transfer equal for all
    pairs of devices and none longer than the shortest task (papers disagree only in silence: with a parent, two children, all of
    length 1, and transfers of 10 the program says 7 where one device needs 3)."""
    if len(problem.factors) > 1 or (problem.factors != 1).any() or not len(transfer):
        return None
    apart = problem.transfer[:, ~np.eye(problem.n_devices, dtype=bool)]
    equal = apart.size and np.allclose(apart, transfer[:, None], rtol=1e-12, atol=0.0)
    return value * (1 - 1e-9) if equal and transfer.max() <= times.min() else None
