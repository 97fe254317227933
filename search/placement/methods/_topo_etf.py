"""m-TOPO and m-ETF of Baechi (SoCC 2020, arXiv 2301.08695), and everything on the best single device."""

from dataclasses import replace

import numpy as np

from .._problem import NO_GROUP, Infeasible, Problem
from ._fit import Fit
from ._list_scheduling import earliest_first


def m_topo(
    problem: Problem, *, seed: int = 0, time_limit_s: float | None = None
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Devices are filled one after another in topological order, each up to (all memory) / devices + the largest unit.

    A unit that would leave no room for the rest goes to the next device that takes it; so does one that a device cannot run.
    Returns placement, order, info. Raises Infeasible where memory cannot be packed."""
    fit = Fit(problem)
    cap = np.minimum(problem.memory_bytes.sum() / problem.n_devices + fit.size.max(), problem.capacity_bytes)
    used, place, current, moved = np.zeros(problem.n_devices), np.full(problem.n_tasks, -1), 0, 0
    for task in problem.order.tolist():
        if (device := fit.device(task)) < 0:
            unit = fit.of[task]
            while current < problem.n_devices - 1 and used[current] + fit.size[unit] > cap[current]:
                current += 1
            devices = [d for d in range(current, problem.n_devices) if used[d] + fit.size[unit] <= cap[d]]
            device = next((d for d in devices if fit.take(task, d)), -1)
            if device < 0:
                device = fit.reserve(task)
                fit.take(task, device)
            moved += device != current
            used[device] += fit.size[unit]
        place[task] = device
    note = (
        f"{moved} units off the device that was being filled, for memory or because it cannot run them" if moved else ""
    )
    return place, np.asarray(problem.order), {"note": note}


def m_etf(problem: Problem, *, seed: int = 0, time_limit_s: float | None = None) -> tuple[np.ndarray, np.ndarray, dict]:
    """Earliest task first, on devices with memory left. A task's memory stays taken (a problem says what it needs, not when).

    Returns placement, order, info. Raises Infeasible where memory cannot be packed."""
    return earliest_first(problem)


def best_device(
    problem: Problem, *, seed: int = 0, time_limit_s: float | None = None
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Everything on the device that is fastest at it, of those that run and hold all of it.

    Returns placement, order, info. Raises Infeasible where none does, with the bytes that the roomiest lacks."""
    total, demand = problem.times.sum(axis=0), float(problem.memory_bytes.sum())
    runs = np.isfinite(total)
    if not runs.any():
        raise Infeasible(f"{problem.name}: no single device runs every task")
    fits = runs & (demand <= problem.capacity_bytes)
    if not fits.any():
        d = int(np.where(runs, problem.capacity_bytes, -1.0).argmax())
        most = float(problem.capacity_bytes[d])
        largest = int(problem.memory_bytes.argmax())
        raise Infeasible(
            f"{problem.name}: no single device holds everything: the tasks take {demand:.15g} bytes, {demand - most:.15g} more than "
            f"{problem.device_names[d]} holds ({most:.15g}); the largest is task {problem.names[largest]} "
            f"({problem.memory_bytes[largest]:.15g})"
        )
    device = int(np.where(fits, total, np.inf).argmin())
    return np.full(problem.n_tasks, device), np.asarray(problem.order), {"planned": float(total[device])}


def coplaced(problem: Problem) -> Problem:
    """The problem with Baechi's co-placement: a task with exactly one consumer joins its consumer's group, transitively, as long
    as the group fits some device that runs all of it."""
    parent = list(range(problem.n_tasks))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for group in np.unique(problem.group[problem.group != NO_GROUP]).tolist():
        first, *rest = np.flatnonzero(problem.group == group).tolist()
        for i in rest:
            parent[i] = first
    memory, runs = np.zeros(problem.n_tasks), np.isfinite(problem.times)
    for i in range(problem.n_tasks):
        memory[find(i)] += problem.memory_bytes[i]
        if find(i) != i:
            runs[find(i)] &= runs[i]
    for i in problem.order[::-1].tolist():
        consumers = {int(problem.target[e]) for e in problem.outputs[i].tolist() if e >= 0}
        if len(consumers) == 1:
            a, b = find(i), find(consumers.pop())
            if a != b and ((memory[a] + memory[b] <= problem.capacity_bytes) & runs[a] & runs[b]).any():
                parent[a] = b
                memory[b] += memory[a]
                runs[b] &= runs[a]
    return replace(problem, group=np.asarray([find(i) for i in range(problem.n_tasks)]))
