"""What list schedulers share: a schedule in the making, and the walk through time that always starts the earliest task.

`earliest_first` is ETF (Hwang et al. 1989) as Baechi has it (arXiv 2301.08695, the released code): time goes from event to event; a
task is ready when all before it have ended; of all (ready task, idle device) that can start now, the one that ends first goes
first, then the first in the file. With favourite children it is SCT's rule for idle devices.
"""

from heapq import heappop, heappush
from math import inf

import numpy as np
from jaxtyping import Bool, Float, Int

from .._problem import NO_GROUP, Infeasible, Problem
from ._fit import Fit


class Partial:
    """A schedule in the making: `place [N]` (-1: not yet), `start, finish [N]`, `free [D]`, tasks in the order of placing.

    Transfers take the mean over link scenarios. With congestion they are booked when their consumer is placed, as the evaluator
    does.
    """

    def __init__(self, problem: Problem):
        self.problem, n = problem, problem.n_tasks
        self.fit = Fit(problem)
        self.times = problem.times
        factors = problem.factors.mean(axis=0)
        self.transfer = problem.transfer if (factors == 1).all() else problem.transfer * factors
        self.before = [[(e, int(problem.source[e])) for e in row if e >= 0] for row in problem.inputs.tolist()]
        self.after = [[int(problem.target[e]) for e in row if e >= 0] for row in problem.outputs.tolist()]
        self.place: list[int] = [-1] * n
        self.start, self.finish = [0.0] * n, [0.0] * n
        self.free: list[float] = [0.0] * problem.n_devices
        self.sequence: list[int] = []
        self._position = [n] * n
        self._sending, self._receiving = [0.0] * problem.n_devices, [0.0] * problem.n_devices

    def arrivals(self, task: int) -> Float[np.ndarray, "D"]:
        """When all inputs of a task are on each device; its predecessors are placed."""
        ready = np.zeros(len(self.free))
        if self.problem.congestion:
            for d in range(len(ready)):
                ready[d] = self._arrival(task, d)
            return ready
        for edge, there in self.before[task]:
            np.maximum(ready, self.finish[there] + self.transfer[edge, self.place[there]], out=ready)
        return ready

    def _arrival(self, task: int, device: int, book: bool = False) -> float:
        """The same on one device, transfers sent one after another."""
        ready, receiving = 0.0, self._receiving[device]
        for edge, producer in sorted(self.before[task], key=lambda x: self._position[x[1]]):
            there, at = self.place[producer], self.finish[producer]
            if there != device:
                moves = self.problem.moves[edge]
                if moves:
                    at = max(at, self._sending[there], receiving)
                at += self.transfer[edge, there, device]
                if moves:
                    receiving = at
                    if book:
                        self._sending[there] = self._receiving[device] = at
            ready = max(ready, at)
        return ready

    def put(self, task: int, device: int, start: float) -> None:
        """Run a task on a device from `start` on; its memory has been taken."""
        if self.problem.congestion:
            self._arrival(task, device, book=True)
        self.place[task], self.start[task] = device, start
        self.finish[task] = start + float(self.times[task, device])
        self.free[device] = max(self.free[device], self.finish[task])
        self._position[task] = len(self.sequence)
        self.sequence.append(task)

    def result(self) -> tuple[np.ndarray, np.ndarray, dict]:
        """Placement, order, and what the method itself expects (`planned`)."""
        return np.asarray(self.place), np.asarray(self.sequence), {"planned": max(self.finish)}


def mean_transfer(problem: Problem) -> Float[np.ndarray, "E"]:
    """Mean transfer time of every edge over pairs of unlike devices that are connected (and over scenarios)."""
    d = problem.n_devices
    if d == 1 or not len(problem.source):
        return np.zeros(len(problem.source))
    apart = ~np.eye(d, dtype=bool)
    pairs = problem.transfer[:, apart] * problem.factors.mean(axis=0)[apart]
    known = np.isfinite(pairs)
    return np.where(known, pairs, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def mean_times(problem: Problem) -> Float[np.ndarray, "N"]:
    """Mean time of every task over the devices that run it."""
    known = np.isfinite(problem.times)
    return np.where(known, problem.times, 0.0).sum(axis=1) / known.sum(axis=1)


def earliest_first(
    problem: Problem, *, allowed: Bool[np.ndarray, "N D"] | None = None, favourite: Int[np.ndarray, "N"] | None = None
) -> tuple[np.ndarray, np.ndarray, dict]:
    """ETF. `allowed`: devices that each task should keep to (it leaves them only where memory forces it); `favourite`: child that
    each task would rather hand its device to (-1: none), which makes it SCT. Returns placement, order and info.

    Raises Infeasible where memory cannot be packed, or where inputs never arrive."""
    return _Walk(problem, allowed, favourite).run()


class _Walk:
    """Ready tasks wait at each device until their data is there (`waiting`), then stand in line by the time they take
    (`line`). `hopes [N]`: devices at which a ready task may still be placed."""

    def __init__(self, problem: Problem, allowed, favourite):
        self.plan = Partial(problem)
        self.able = np.isfinite(problem.times) if allowed is None else np.isfinite(problem.times) & allowed
        self.favourite = None if favourite is None else favourite.tolist()
        self.devices = range(problem.n_devices)
        self.waiting: list[list] = [[] for _ in self.devices]
        self.line: list[list] = [[] for _ in self.devices]
        self.everywhere: list = []  # (data on the last device, task) of ready tasks, for urgency
        self.data: dict[int, np.ndarray] = {}
        self.hopes = [0] * problem.n_tasks
        self.missing = [len(b) for b in self.plan.before]
        self.running: list[tuple[float, int]] = []
        self.last = [-1] * problem.n_devices
        self.refused: set[tuple[int, int]] = set()
        self.mates: dict[int, list[int]] = {}
        for i in np.flatnonzero(problem.group != NO_GROUP).tolist():
            self.mates.setdefault(int(problem.group[i]), []).append(i)

    def run(self):
        plan = self.plan
        for task in plan.problem.order.tolist():
            if not self.missing[task]:
                self.release(task)
        now = 0.0
        while len(plan.sequence) < plan.problem.n_tasks:
            while self.running and self.running[0][0] <= now:
                for child in plan.after[heappop(self.running)[1]]:
                    self.missing[child] -= 1
                    if not self.missing[child]:
                        self.release(child)
            best, wake = None, self.running[0][0] if self.running else inf
            for d in self.devices:
                if plan.free[d] <= now:
                    offer, later = self.offer(d, now)
                    wake = min(wake, later)
                    if offer is not None and (best is None or offer < best):
                        best = offer
            if best is not None:
                self.place(best[1], best[2], now)
            elif wake < inf:
                now = wake
            else:
                self.stuck()
        return plan.result()

    def release(self, task: int) -> None:
        """A task whose predecessors have all ended."""
        self.data[task] = data = self.plan.arrivals(task)
        fixed = self.plan.fit.device(task)
        devices = [fixed] if fixed >= 0 else np.flatnonzero(self.able[task] & np.isfinite(data)).tolist()
        for d in devices:
            self.hope(task, d)
        if not devices:
            self.hope(task, self.plan.fit.reserve(task))
        if self.favourite is not None:
            heappush(self.everywhere, (float(data.max()), task))

    def hope(self, task: int, device: int) -> None:
        if self.data[task][device] < inf:
            self.hopes[task] += 1
            heappush(self.waiting[device], (float(self.data[task][device]), task))

    def offer(self, device: int, now: float):
        """((end, task, device) to start now or None, when to look again) of an idle device."""
        waiting, line = self.waiting[device], self.line[device]
        while waiting and waiting[0][0] <= now:
            task = heappop(waiting)[1]
            heappush(line, (float(self.plan.times[task, device]), task))
        later = waiting[0][0] if waiting else inf
        if self.favourite is not None and (child := self.awaited(device)) >= 0:
            return self.awake(device, child, now)
        while line:
            seconds, task = line[0]
            if self.open(task, device):
                late = self.plan.problem.congestion and self.arrival(task, device)
                if not late or late <= now:
                    return (now + seconds, task, device), later
                heappush(waiting, (late, task))
                later = min(later, late)
            heappop(line)
        return None, later

    def arrival(self, task: int, device: int) -> float:
        """When its data is there, as links are booked by now."""
        if self.plan.problem.congestion:
            self.data[task][device] = self.plan._arrival(task, device)
        return float(self.data[task][device])

    def open(self, task: int, device: int) -> bool:
        """Whether a task may still be placed on a device, for all that is known."""
        return self.plan.place[task] < 0 and self.plan.fit.device(task) in (-1, device)

    def awaited(self, device: int) -> int:
        """The favourite child of a device's last task, if it is ready and could not start earlier elsewhere; else -1."""
        last = self.last[device]
        child = self.favourite[last] if self.favourite is not None and last >= 0 else -1
        if child < 0 or self.missing[child] or not self.open(child, device) or (child, device) in self.refused:
            return -1
        if not self.able[child, device]:
            return -1
        starts = [max(self.arrival(child, d), self.plan.free[d]) if self.able[child, d] else inf for d in self.devices]
        return child if starts[device] <= min(starts) and starts[device] < inf else -1

    def awake(self, device: int, child: int, now: float):
        """A device that waits for a favourite child takes urgent tasks, which could start on every device, and the child."""
        everywhere, times, idle = self.everywhere, self.plan.times, max(self.plan.free)
        while everywhere and self.plan.place[everywhere[0][1]] >= 0:
            heappop(everywhere)
        urgent = max(everywhere[0][0], idle) if everywhere else inf
        if urgent <= now:
            task = everywhere[0][1]
            if self.able[task, device] and self.open(task, device) and self.arrival(task, device) <= now:
                if (task, device) not in self.refused:
                    return (now + float(times[task, device]), task, device), inf
            urgent = inf
        ready = self.arrival(child, device)
        if ready <= now:
            return (now + float(times[child, device]), child, device), inf
        return None, min(ready, urgent)

    def place(self, task: int, device: int, now: float) -> None:
        """Start a task, or strike the device off its hopes where memory forbids it."""
        plan = self.plan
        fresh = plan.fit.device(task) < 0
        if not plan.fit.take(task, device):
            self.refused.add((task, device))
            line = self.line[device]
            if line and line[0][1] == task:
                heappop(line)
            self.hopes[task] -= 1
            if self.hopes[task] <= 0:
                self.widen(task)
            return
        plan.put(task, device, now)
        self.last[device] = task
        heappush(self.running, (plan.finish[task], task))
        group = int(plan.problem.group[task])
        if fresh and group != NO_GROUP:
            for mate in self.mates[group]:
                if plan.place[mate] < 0 and not self.missing[mate]:
                    self.hope(mate, device)

    def widen(self, task: int) -> None:
        """Hope for any device, after those that it should keep to; then for the one that the packing holds ready."""
        others = np.isfinite(self.plan.times[task]) & ~self.able[task]
        for d in np.flatnonzero(others).tolist():
            if (task, d) not in self.refused:
                self.hope(task, d)
        if self.hopes[task] <= 0:
            self.hope(task, self.plan.fit.reserve(task))

    def stuck(self) -> None:
        p, plan = self.plan.problem, self.plan
        task = next(i for i in p.order.tolist() if plan.place[i] < 0 and not self.missing[i])
        where = ", ".join(sorted({p.device_names[plan.place[b]] for _, b in plan.before[task]}))
        raise Infeasible(
            f"{p.name}: the inputs of task {p.names[task]} stand on {where}; no device that may run it is connected"
        )
