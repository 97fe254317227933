"""The allocator: which tier everything lives in, and at which address. On the host, for one hard schedule.

Static lifetimes share addresses; what has to leave a tier is what moves the fewest bytes; weights come first (SN40L, arXiv 2405.07518:
'spilled in increasing order of transfer need', footprint x reuse). Traffic is the evaluator's own account, row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._names import unknown_name
from ..cost import CostTable, cost_table
from ..hardware import System
from ..workload import KINDS, Workload
from ._schedule import Schedule
from ._tiers import CLASSES, TierShares, amounts
from ._timeline import recorded

ORDERS = ("traffic", "density")
_FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Allocation:
    """`N` objects in `T` tiers (host arrays), and the shares that `Schedule.tiers` takes.

    - `names, kind, row`: `[N]` operator and `weights`, `caches` or `activations` (`CLASSES`).
    - `tier, memory, offset_bytes, size_bytes`: where it lies; `memory`: chiplet whose own tier that is, -1 where it is shared.
    - `begin, end`: first and last position in execution order that need it (all of time: 0 and the largest integer).
    - `model`: objects of two models are live together whenever.  `traffic_bytes`: of it in a round, read and written.
    - `used_bytes`: `[T]` highest address in use (of own tiers: of the fullest).  `spilled_bytes`: `[T]` of objects that found no room
      there and went further.  `over_bytes`: `[T]` beyond capacity, which only the last tier can be.
    """

    shares: TierShares
    names: list[str]
    kind: list[str]
    row: np.ndarray
    tier: np.ndarray
    memory: np.ndarray
    offset_bytes: np.ndarray
    size_bytes: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    model: np.ndarray
    traffic_bytes: np.ndarray
    used_bytes: np.ndarray
    spilled_bytes: np.ndarray
    over_bytes: np.ndarray

    @property
    def fits(self) -> bool:
        return not self.over_bytes.any()


@dataclass(frozen=True)
class _Objects:
    names: list[str]
    kind: list[str]
    part: np.ndarray  # which share: 0 weights, 1 results, 2 outside
    row: np.ndarray
    size: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    model: np.ndarray
    traffic: np.ndarray


def allocate(
    workload: Workload, system: System, schedule: Schedule, *, table: CostTable | None = None,
    priority: Sequence[str] = CLASSES, by: str = "traffic",
) -> Allocation:  # fmt: skip
    """Tier and address of everything that a hard schedule keeps in memory.

    Objects are taken class by class in the order of `priority` (classes left out come together at the end: `()` for no
    priorities), within one by falling `traffic` (bytes moved in a round) or `density` (the same a byte of size); each goes to
    the fastest tier that has room for all of its lifetime, at the lowest address.

    Raises ValueError for a relaxed schedule, an unknown class or an unknown order."""
    if schedule.is_relaxed:
        raise ValueError("allocate needs a hard schedule; got simplex rows")
    for name in priority:
        if name not in CLASSES:
            raise unknown_name("priority", name, CLASSES)
    if by not in ORDERS:
        raise unknown_name("by", by, ORDERS)
    schedule.check(workload, system.n_chiplets, system.memory.n_tiers)
    table = cost_table(workload, system, schedule.sub_batch) if table is None else table
    found = _objects(workload, system, schedule, table)
    ranks = {name: i for i, name in enumerate(priority)}
    rank = np.asarray([ranks.get(kind, len(ranks)) for kind in found.kind])
    worth = found.traffic / found.size if by == "density" else found.traffic
    n, memory = len(found.size), system.memory
    capacity, share = np.asarray(memory.capacity_bytes, np.float64), np.asarray(memory.share, np.float64)
    chiplet = np.asarray(schedule.assignment)[found.row]
    own = [memory.is_own(t) and system.n_chiplets > 1 for t in range(memory.n_tiers)]
    spaces: dict[tuple[int, int], _Space] = {}
    tier, where, offset = np.zeros(n, np.int64), np.full(n, -1, np.int64), np.zeros(n, np.int64)
    spilled = np.zeros(memory.n_tiers)
    for i in np.lexsort((-worth, rank)):
        for t in range(memory.n_tiers):
            key = (t, int(chiplet[i]) if own[t] else -1)
            space = spaces.setdefault(key, _Space(found))
            at = space.lowest(i)
            room = capacity[t] * share[t] if own[t] else capacity[t]
            if at + found.size[i] <= room or t == memory.n_tiers - 1:
                space.put(i, at)
                tier[i], where[i], offset[i] = *key, at
                break
            spilled[t] += found.size[i]
    used, over = np.zeros(memory.n_tiers), np.zeros(memory.n_tiers)
    for (t, _), space in spaces.items():
        used[t] = max(used[t], space.top)
        over[t] += max(space.top - (capacity[t] * share[t] if own[t] else capacity[t]), 0.0)
    shares = np.zeros((3, workload.n_operators, memory.n_tiers), np.float32)
    shares[..., -1] = 1.0  # what needs no memory
    shares[found.part, found.row] = np.eye(memory.n_tiers, dtype=np.float32)[tier]
    return Allocation(
        TierShares(*shares), found.names, found.kind, found.row, tier, where, offset, found.size, found.begin, found.end,
        found.model, found.traffic, used, spilled, over,
    )  # fmt: skip


class _Space:
    """Addresses of one memory and who holds them when."""

    def __init__(self, objects: _Objects):
        self.of, self.top = objects, 0
        self.held = np.zeros(len(objects.size), bool)
        self.offset = np.zeros(len(objects.size), np.int64)

    def lowest(self, i: int) -> int:
        """Lowest address at which object i meets nobody."""
        o = self.of
        meets = self.held & ((o.model != o.model[i]) | ((o.begin <= o.end[i]) & (o.end >= o.begin[i])))
        there = np.flatnonzero(meets)
        there = there[np.argsort(self.offset[there], kind="stable")]
        starts = np.append(self.offset[there], _FOREVER)
        ends = np.maximum.accumulate(np.append(0, self.offset[there] + o.size[there]))
        return int(ends[np.argmax(starts - ends >= o.size[i])])

    def put(self, i: int, at: int) -> None:
        self.held[i], self.offset[i] = True, at
        self.top = max(self.top, at + int(self.of.size[i]))


def _objects(workload: Workload, system: System, schedule: Schedule, table: CostTable) -> _Objects:
    """Everything that lies in memory: size, lifetime, and what a round moves of it."""
    n, scale = workload.n_operators, float(schedule.sub_batch)
    # what goes through memory does not depend on where it lives there
    _, seen, order = recorded(workload, system, replace(schedule, tiers=None), table)
    assert seen is not None
    position = np.arange(n)
    if order is not None:
        position = np.empty(n, np.int64)
        position[np.asarray(order)] = np.arange(n)

    def column(name: str) -> np.ndarray:
        return np.asarray(getattr(seen, name), np.float64)[position]

    has = amounts(workload, scale, np.float32)
    kept, passing = np.asarray(has.kept, np.float64), np.asarray(has.passing, np.float64)
    loads, outside_read = column("weights_read"), column("outside_read")
    made, by_memory, late = column("written"), column("input_read"), column("input_late")
    tables = np.asarray(workload.operators.kind) == KINDS.index("embedding")
    moved, begin, end = made.copy(), np.full(n, _FOREVER), position.copy()
    begin[made > 0] = position[made > 0]
    for i in range(workload.inputs.shape[1]):
        source = workload.inputs[:, i]
        there = np.flatnonzero(source >= 0)
        np.add.at(moved, source[there], by_memory[there, i] + late[there, i])
        np.maximum.at(end, source[there], position[there])
        spilled = there[late[there, i] > 0]
        np.minimum.at(begin, source[spilled], position[spilled])
    stored = np.asarray(has.weights, np.float64)
    result = np.asarray(workload.operators.out_elements * workload.operators.out_bits / 8, np.float64) * scale
    outside = np.where(tables, 0.0, outside_read) + np.asarray(workload.outside_out_bytes, np.float64) * scale
    rate = np.asarray(workload.rate, np.float64)[workload.model]
    zero, forever = np.zeros(n, np.int64), np.full(n, _FOREVER)
    parts = [
        (0, "weights", stored, zero, forever, loads + np.where(tables, outside_read, 0.0)),
        (1, "activations", np.where(moved > 0, result, 0.0), begin, end, moved),
        (2, "caches", kept, zero, forever, outside),
        (2, "activations", np.where(kept > 0, 0.0, passing), position, position, outside),
    ]
    rows = [np.flatnonzero(part[2] > 0) for part in parts]

    def joined(i: int) -> np.ndarray:
        return np.concatenate([np.asarray(part[i])[r] for part, r in zip(parts, rows, strict=True)])

    row = np.concatenate(rows)
    return _Objects(
        [workload.names[r] for r in row], [part[1] for part, r in zip(parts, rows, strict=True) for _ in r],
        np.concatenate([np.full(len(r), part[0]) for part, r in zip(parts, rows, strict=True)]), row,
        np.ceil(joined(2)).astype(np.int64), joined(3).astype(np.int64), joined(4).astype(np.int64),
        np.asarray(workload.model)[row], joined(5) * rate[row],
    )  # fmt: skip
