"""The one exact evaluator of placements: a timeline by list order, and its makespan.

Tasks are walked in `order` (topological). A task starts when its device is free and every input has arrived: the producer's
finish, plus the transfer if the two devices differ. With congestion, transfers are sent in the order in which they are needed,
those of one consumer in the list order of their producers: one starts when its data is there, its producer's device is not
sending and its consumer's is not receiving, and neither sends (receives) anything else until it is done. Without congestion, any
schedule walked in the order of its starts ends no later.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ._problem import Problem


class Timeline(NamedTuple):
    """When each task runs, and when each edge's transfer does (start = finish where nothing moves); in the problem's units."""

    start: Float[np.ndarray, "N"]
    finish: Float[np.ndarray, "N"]
    sent: Float[np.ndarray, "E"]
    arrived: Float[np.ndarray, "E"]
    makespan: float


def timeline(problem: Problem, placement, order=None, scenario: int = 0) -> Timeline:
    """The timeline of a hard placement on the host (NumPy, float64): slow and plain, for one candidate.

    **Arguments:** `placement`: device of each task; `order`: a topological order (default: the problem's own);
    `scenario`: which of the link scenarios.

    Raises ValueError for a placement of another shape, out of range or on a device that cannot run the task, or for an order
    that is no topological permutation.
    """
    placement = np.asarray(placement)
    order = problem.order if order is None else np.asarray(order)
    check_candidate(problem, placement, order)
    n, factors = problem.n_tasks, problem.factors[scenario]
    start, finish = np.zeros(n), np.zeros(n)
    sent, arrived = np.zeros(len(problem.source)), np.zeros(len(problem.source))
    free, sending, receiving = (np.zeros(problem.n_devices) for _ in range(3))
    position = np.empty(n, int)
    position[order] = np.arange(n)
    for task in order.tolist():
        here, ready = placement[task], 0.0
        edges = problem.inputs[task]
        edges = edges[edges >= 0]
        for edge in edges[np.argsort(position[problem.source[edges]], kind="stable")].tolist():
            there = placement[problem.source[edge]]
            sent[edge] = arrived[edge] = finish[problem.source[edge]]
            if there != here:
                if problem.congestion and problem.moves[edge]:
                    sent[edge] = max(sent[edge], sending[there], receiving[here])
                arrived[edge] = sent[edge] + problem.transfer[edge, there, here] * factors[there, here]
                if problem.congestion and problem.moves[edge]:
                    sending[there] = receiving[here] = arrived[edge]
            ready = max(ready, arrived[edge])
        start[task] = max(ready, free[here])
        finish[task] = free[here] = start[task] + problem.times[task, here]
    return Timeline(start, finish, sent, arrived, float(finish.max()))


def check_candidate(problem: Problem, placement: np.ndarray, order: np.ndarray) -> None:
    """Raise ValueError where a hard candidate cannot belong to the problem."""
    n, d = problem.n_tasks, problem.n_devices
    if placement.shape != (n,) or order.shape != (n,):
        raise ValueError(
            f"{problem.name}: placement and order have shapes {placement.shape}, {order.shape}; needed: ({n},)"
        )
    if placement.min() < 0 or placement.max() >= d:
        raise ValueError(f"{problem.name}: placement contains {placement.max() if placement.max() >= d else placement.min()}; "
                         f"allowed: 0 to {d - 1}")  # fmt: skip
    unable = np.flatnonzero(~np.isfinite(problem.times[np.arange(n), placement]))
    if len(unable):
        i = unable[0]
        raise ValueError(f"{problem.name}: task {problem.names[i]} cannot run on {problem.device_names[placement[i]]}")
    if not np.array_equal(np.sort(order), np.arange(n)):
        raise ValueError(f"{problem.name}: order is not a permutation of the {n} tasks")
    position = np.empty(n, int)
    position[order] = np.arange(n)
    late = np.flatnonzero(position[problem.source] > position[problem.target])
    if len(late):
        e = late[0]
        raise ValueError(
            f"{problem.name}: order puts {problem.names[problem.target[e]]} before {problem.names[problem.source[e]]}"
        )
