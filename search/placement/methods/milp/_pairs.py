"""Which tasks (and which transfers) may meet at one place, so that the model must decide who comes first."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ..._problem import Problem


class TooLarge(Exception):
    """The model would have more entries than asked for."""


class Pairs(NamedTuple):
    """Two of a kind that precedence leaves unordered. `may [P, 2, D]`: whether the first (the second) can come first there."""

    first: Int[np.ndarray, "P"]
    second: Int[np.ndarray, "P"]
    may: Bool[np.ndarray, "P 2 D"]

    @classmethod
    def none(cls, n_devices: int) -> "Pairs":
        return cls(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2, n_devices), bool))


def reachable(problem: Problem) -> Bool[np.ndarray, "N N"]:
    """Transitive closure: [i, j] whether i precedes j."""
    reach = np.zeros((problem.n_tasks, problem.n_tasks), bool)
    for i in problem.order[::-1].tolist():
        after = problem.target[problem.outputs[i][problem.outputs[i] >= 0]]
        reach[i] = reach[after].any(axis=0)
        reach[i, after] = True
    return reach


def task_pairs(
    reach: Bool[np.ndarray, "N N"], times: Float[np.ndarray, "N D"], head, tail, horizon: float, most: int
) -> Pairs:
    """Pairs of tasks that fit one after the other on some device within the horizon, in at least one order, and whose windows
    [earliest start, latest end] meet. `times, head, tail`: infinite where a task cannot be. Raises TooLarge beyond `most`."""
    n, d = times.shape
    unordered = ~(reach | reach.T)
    if (int(unordered.sum()) - n) // 2 > most:
        raise TooLarge(f"{(int(unordered.sum()) - n) // 2} unordered pairs of tasks")
    i, j = np.nonzero(np.triu(unordered, 1))
    late, early = horizon - tail.min(axis=1), head.min(axis=1)
    meet = (late[i] > early[j]) & (late[j] > early[i])
    i, j = i[meet], j[meet]
    may = np.empty((len(i), 2, d), bool)
    for side, (a, b) in enumerate(((i, j), (j, i))):
        may[:, side] = np.maximum(head[a] + times[a], head[b]) + times[b] + tail[b] <= horizon * (1 + 1e-7)
    return Pairs(i, j, may)


def transfer_pairs(
    problem: Problem, sent: Int[np.ndarray, "Q"], reach: Bool[np.ndarray, "N N"], ready, due, most: int
) -> Pairs:
    """Pairs of transfers (positions in `sent`) that may be under way at the same time. `ready, due`: when each is there to be
    sent at the earliest, and must have arrived at the latest. Raises TooLarge beyond `most`."""
    if len(sent) * (len(sent) - 1) // 2 > 20 * most:
        raise TooLarge(f"{len(sent)} transfers, all of which might meet")
    a, b = problem.source[sent], problem.target[sent]
    follows = reach[b[:, None], a[None, :]] | (b[:, None] == a[None, :])  # [q, r]: q has arrived before r is there
    q, r = np.nonzero(np.triu(~(follows | follows.T), 1))
    meet = (due[q] > ready[r]) & (due[r] > ready[q])
    if int(meet.sum()) > most:
        raise TooLarge(f"{int(meet.sum())} unordered pairs of transfers")
    return Pairs(q[meet], r[meet], np.ones((int(meet.sum()), 2, 1), bool))
