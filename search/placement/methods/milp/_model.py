"""Moirai's mixed-integer model (arXiv 2312.04025, equations 1-7) as matrices, tightened without losing a schedule.

Columns: `x[unit, k]` where tasks run (one unit a colocation group); `u[q, k1, k2]` which way edge q goes; `before[pair, 2]` who
comes first; starts of tasks and, with congestion, of transfers; the makespan (starts and makespan per scenario of the links).
Against the paper's text:

- rows and columns of u add up to x of the edge's ends (4, 6), so u needs no integrality, and z = 1 - sum_k u[q, k, k];
- big-M is the horizon less what must precede and follow; pairs that this settles are out, like those in the transitive closure;
- who comes first does not depend on the device: before_ij + before_ji >= x_ik + x_jk - 1, instead of one disjunction a device;
- devices on which a task cannot be within the horizon are out; heads, tails and loads of `_bounds` are rows.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from ..._bounds import heads_tails, in_scenario, loads, path_bound, units, within
from ..._problem import Problem
from ._pairs import Pairs, TooLarge, reachable, task_pairs, transfer_pairs

HORIZON = 100.0  # of the scaled model, so that the solver's tolerances are relative
_GRID = 6


@dataclass(frozen=True)
class Model:
    """min cost . v with row_low <= matrix v <= row_high, low <= v <= high, v integer where `integer`."""

    cost: Float[np.ndarray, "V"]
    matrix: sp.csr_matrix
    row_low: Float[np.ndarray, "R"]
    row_high: Float[np.ndarray, "R"]
    low: Float[np.ndarray, "V"]
    high: Float[np.ndarray, "V"]
    integer: Bool[np.ndarray, "V"]
    scale: float  # of times
    unit: Int[np.ndarray, "N"]
    x: Int[np.ndarray, "N D"]  # columns of each task's unit
    ways: Int[np.ndarray, "M D D"]  # columns u
    moved: Int[np.ndarray, "M"]  # their edges
    sent: Int[np.ndarray, "Q"]  # edges whose transfers have a start of their own (congestion)
    starts: Int[np.ndarray, "S N"]
    sends: Int[np.ndarray, "S Q"]
    makespans: Int[np.ndarray, "S"]
    tasks: Pairs
    task_before: Int[np.ndarray, "P 2"]
    links: Pairs
    link_before: Int[np.ndarray, "L 2"]


def build(problem: Problem, horizon: float, lower: float, *, most_cells: int, pairs: bool = True) -> Model | None:
    """The model of all schedules whose makespan is at most `horizon` (finite, above 0); None if there is none.

    `lower`: a valid bound of the makespan.  `pairs=False`: the relaxation without 5 and 7.

    Raises TooLarge if the matrix would have more than about `most_cells` entries.
    """
    d, s = problem.n_devices, len(problem.factors)
    cells = len(problem.source) * d * d * (3 + s)
    if cells > most_cells:
        raise TooLarge(f"{len(problem.source)} edges with {d * d} ways each")
    scenarios = [in_scenario(problem, f) for f in problem.factors]
    limit = horizon  # of every scenario; where the mean counts, one may take what the others need not
    if s > 1 and not problem.worst_case:
        each = [path_bound(p) for p in scenarios]
        limit = s * horizon - sum(each) + min(each)
    least = units(problem)
    narrowed = within(in_scenario(problem, problem.factors.min(axis=0)), limit, least)
    if narrowed is None:
        return None
    windows = [heads_tails(p, narrowed[0]) for p in scenarios]
    if any(not np.isfinite((head + narrowed[0] + tail).min(axis=1)).all() for head, tail in windows):
        return None
    return _Builder(
        problem, scenarios, least, narrowed, windows, horizon, limit, lower, (most_cells - cells) if pairs else 0, pairs
    ).model()


class _Builder:
    """Gathers rows in blocks; one method an equation."""

    def __init__(self, problem, scenarios, least, narrowed, windows, horizon, limit, lower, most_cells, pairs):
        d, s = problem.n_devices, len(scenarios)
        self.problem, self.scenarios, self.least, self.windows = problem, scenarios, least, windows
        self.narrowed, self.lower = narrowed, min(lower, horizon)
        self.scale = HORIZON / horizon
        self.limit = limit * self.scale
        self.can = np.isfinite(narrowed[0])
        self.p = np.where(self.can, narrowed[0], 0.0) * self.scale
        self.one_end = problem.worst_case or s == 1
        apart = least.of[problem.source] != least.of[problem.target]
        self.moved = np.flatnonzero(apart & (problem.transfer.any(axis=(1, 2)) | (problem.congestion & problem.moves)))
        self.sent = self.moved[problem.moves[self.moved]] if problem.congestion and pairs else self.moved[:0]
        head, tail = (np.min([w[i] for w in windows], axis=0) for i in (0, 1))
        self.early, self.late = head.min(axis=1) * self.scale, self.limit - tail.min(axis=1) * self.scale
        done, rest = (np.where(self.can, v + narrowed[0], np.inf).min(axis=1) * self.scale for v in (head, tail))
        self.ready, self.due = done[problem.source], self.limit - rest[problem.target]
        self.tasks, self.links = Pairs.none(d), Pairs.none(1)
        if pairs:
            reach = reachable(problem)
            self.tasks = task_pairs(reach, narrowed[0], head, tail, limit, most_cells // (4 * d + 2 * s * (3 + d)))
            most = most_cells // (4 * d * d + 2 * s * (3 + d * d))
            self.links = transfer_pairs(problem, self.sent, reach, self.ready[self.sent], self.due[self.sent], most)
        self._columns(d, s)
        self.rows = 0
        self.blocks: list[tuple] = []
        self.row_low: list[np.ndarray] = []
        self.row_high: list[np.ndarray] = []

    def _columns(self, d: int, s: int) -> None:
        self.width = 0

        def take(*shape: int):
            first, self.width = self.width, self.width + int(np.prod(shape))
            return np.arange(first, self.width).reshape(shape)

        self.unit_columns = take(len(self.least.memory_bytes), d)
        self.x = self.unit_columns[self.least.of]
        self.ways = take(len(self.moved), d, d)
        self.task_before, self.link_before = take(len(self.tasks.first), 2), take(len(self.links.first), 2)
        self.starts, self.sends = take(s, self.problem.n_tasks), take(s, len(self.sent))
        self.makespans = np.repeat(take(1), s) if self.one_end else take(s)
        self.ways_of = np.full(len(self.problem.source), -1)
        self.ways_of[self.moved] = np.arange(len(self.moved))

    def add(self, low, high, *entries) -> None:
        """Rows `low <= sum of entries <= high`; entries: (row of this block, column, value), broadcast."""
        low, high = np.broadcast_arrays(np.asarray(low, float), np.asarray(high, float))
        for rows, columns, values in entries:
            rows, columns, values = (np.ravel(v) for v in np.broadcast_arrays(rows, columns, values))
            used = values != 0
            self.blocks.append((self.rows + rows[used], columns[used], values[used]))
        self.row_low.append(low)
        self.row_high.append(high)
        self.rows += len(low)

    def model(self) -> Model:
        self.assignment()
        for i, scenario in enumerate(self.scenarios):
            wait = np.where(np.isfinite(scenario.transfer), scenario.transfer, 0.0) * self.scale
            self.precedence(i, wait)
            self.windows_and_loads(i)
            self.sequence(i, wait)
        self.sharing()
        low, high, integer = np.zeros(self.width), np.ones(self.width), np.zeros(self.width, bool)
        high[self.unit_columns] = self.least.sum((~self.can).astype(float)) == 0
        high[self.ways] = np.isfinite(self.problem.transfer[self.moved])
        high[self.task_before] = self.tasks.may.any(axis=2)
        high[np.r_[self.starts.ravel(), self.sends.ravel(), self.makespans]] = self.limit
        cost = np.zeros(self.width)
        np.add.at(cost, self.makespans, 1.0 / len(self.makespans))
        used = np.unique(self.makespans)
        self.add([self.lower * self.scale], [HORIZON], (np.zeros(len(used), int), used, 1.0 / len(used)))
        for columns in (self.unit_columns, self.task_before, self.link_before):
            integer[columns] = True
        rows, columns, values = (np.concatenate(part) for part in zip(*self.blocks, strict=True))
        matrix = sp.csr_matrix((values, (rows, columns)), shape=(self.rows, self.width))
        return Model(
            cost, matrix, np.concatenate(self.row_low), np.concatenate(self.row_high), low, high, integer, self.scale,
            self.least.of, self.x, self.ways, self.moved, self.sent, self.starts, self.sends, self.makespans, self.tasks,
            self.task_before, self.links, self.link_before,
        )  # fmt: skip

    def assignment(self) -> None:
        """3, 4 and 6: one device each, memory, and the way of every edge from the devices of its ends."""
        n, d = self.unit_columns.shape
        self.add(np.ones(n), 1.0, (np.arange(n)[:, None], self.unit_columns, 1.0))
        memory = self.least.memory_bytes
        if memory.any():
            share, room = memory / memory.max(), self.problem.capacity_bytes / memory.max()
            self.add(np.full(d, -np.inf), room, (np.arange(d)[None, :], self.unit_columns, share[:, None]))
        row = np.arange(len(self.moved) * d).reshape(-1, d)
        for end, at in ((self.problem.source, row[:, :, None]), (self.problem.target, row[:, None, :])):
            self.add(np.zeros(row.size), 0.0, (at, self.ways, 1.0), (row, self.x[end[self.moved]], -1.0))

    def precedence(self, i: int, wait) -> None:
        """1, 2: a task (a transfer) starts when what it needs has ended (arrived)."""
        a, b, begin = self.problem.source, self.problem.target, self.starts[i]
        direct = np.setdiff1d(np.arange(len(a)), self.sent)
        r, pays = np.arange(len(direct)), self.ways_of[direct] >= 0
        self.add(np.zeros(len(r)), np.inf, *self._finish(r, a[direct], begin), (r, begin[b[direct]], 1.0),
                 (r[pays, None, None], self.ways[self.ways_of[direct[pays]]], -wait[direct[pays]]))  # fmt: skip
        r = np.arange(len(self.sent))
        self.add(np.zeros(len(r)), np.inf, *self._finish(r, a[self.sent], begin), (r, self.sends[i], 1.0))
        self.add(np.zeros(len(r)), np.inf, *self._arrival(r, r, i, wait), (r, begin[b[self.sent]], 1.0))

    def _finish(self, r, task, begin):
        return (r, begin[task], -1.0), (r[:, None], self.x[task], -self.p[task])

    def _arrival(self, r, q, i: int, wait):
        ways = self.ways[self.ways_of[self.sent[q]]]
        return (r, self.sends[i][q], -1.0), (r[:, None, None], ways, -wait[self.sent[q]])

    def windows_and_loads(self, i: int) -> None:
        """No start before the head, no end of all before the tail; every device has time for its load."""
        begin, end, n = self.starts[i], self.makespans[i], np.arange(self.problem.n_tasks)
        head, tail = (np.where(self.can & np.isfinite(v), v, 0.0) * self.scale for v in self.windows[i])
        self.add(np.zeros(len(n)), np.inf, (n, begin, 1.0), (n[:, None], self.x, -head))
        self.add(np.zeros(len(n)), np.inf, (n, end, 1.0), (n, begin, -1.0), (n[:, None], self.x, -(self.p + tail)))
        if i == 0 or not self.one_end:
            least = self.lower if self.one_end else 0.0
            work = loads(self.problem, self.least, *self.narrowed, lower=least, grid=_GRID)
            entry = work.work.tocoo()
            r = np.arange(len(work.after))
            load = (entry.row, entry.col, -self.scale * np.asarray(entry.data, float))  # columns of units come first
            self.add(work.after * self.scale, np.inf, (r, end, 1.0), load)

    def sequence(self, i: int, wait) -> None:
        """5, 7: if i comes before j, j starts when i has ended; big-M: i's latest end less j's earliest start."""
        begin = self.starts[i]
        for side in (0, 1):
            first, second = self.tasks[side], self.tasks[1 - side]
            use = self.tasks.may[:, side].any(axis=1)
            a, b, before = first[use], second[use], self.task_before[use, side]
            r, big = np.arange(len(a)), np.maximum(self.late[a] - self.early[b], 0.0)
            self.add(-big, np.inf, *self._finish(r, a, begin), (r, begin[b], 1.0), (r, before, -big))
            q, then, before = self.links[side], self.links[1 - side], self.link_before[:, side]
            r, big = np.arange(len(q)), np.maximum(self.due[self.sent[q]] - self.ready[self.sent[then]], 0.0)
            self.add(-big, np.inf, *self._arrival(r, q, i, wait), (r, self.sends[i][then], 1.0), (r, before, -big))

    def sharing(self) -> None:
        """5, 7: of two tasks on one device, two transfers out of one device or into one, one comes first."""
        d = self.problem.n_devices
        a, b, may = self.tasks
        both = np.flatnonzero((self.can[a] & self.can[b]).ravel())
        pair, k, r = both // d, both % d, np.arange(len(both))
        same = self.least.of[a[pair]] == self.least.of[b[pair]]  # then x_ik + x_jk - 1 is x_ik
        sides = [(r, self.task_before[pair, side], may[pair, side, k].astype(float)) for side in (0, 1)]
        self.add(np.where(same, 0.0, -1.0), np.inf, *sides, (r, self.x[a[pair], k], -1.0),
                 (r, self.x[b[pair], k], np.where(same, 0.0, -1.0)))  # fmt: skip
        q, then, _ = self.links
        r, away = np.arange(len(q) * d).reshape(-1, d), -(~np.eye(d, dtype=bool)).astype(float)
        ways = self.ways[self.ways_of[self.sent]]
        for spread in (ways, ways.swapaxes(1, 2)):  # [.., k, the other end's device]
            self.add(np.full(r.size, -1.0), np.inf, (r[:, :, None], self.link_before[:, None, :], 1.0),
                     (r[:, :, None], spread[q], away), (r[:, :, None], spread[then], away))  # fmt: skip
