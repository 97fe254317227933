"""Memory while a method places one task after another: what is taken never leads into a dead end.

A complete packing of all units (colocation groups, or single tasks) stands behind every step. A unit may go to a device if the
packing can be mended to agree: it fits there as it is, or a few units not yet placed move elsewhere, or change places, or all of
them are packed anew (best fit, largest first), or an integer program finds a packing (HiGHS, a few times, for few units).
Where none of these finds one, the device is refused; the packing's own device never is.
"""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.optimize import Bounds, LinearConstraint, milp

from .._bounds import units
from .._problem import NO_GROUP, Infeasible, Problem

_EXACT_CELLS = 400  # units x devices of an integer program, while placing
_EXACT_CALLS = 60
_EXACT_SECONDS = 20.0  # of the one that decides whether anything fits at all
_EVICTED = 64  # units tried to make room for one
_SWAPS, _SWAPPED = 200, 200  # swaps to mend one packing; units looked at on either side
_SWAP_CALLS = 20_000
_REPACKED = 300_000  # units looked at by packing anew, all in all


class Fit:
    """Which device each unit may take. `U` units.

    `of [N]`: unit of each task; `size [U]` bytes; `able [U, D]`: devices that run all its tasks and hold it alone;
    `at [U]`: its device in the packing; `done [U]`: whether it has been placed there for good.

    Raises Infeasible where no packing is found.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        found = units(problem)
        self.of, self.size = found.of, found.memory_bytes
        finite = found.sum(np.where(np.isfinite(problem.times), 0.0, 1.0)) == 0
        self.capacity = problem.capacity_bytes
        self.able: Bool[np.ndarray, "U D"] = finite & (self.size[:, None] <= self.capacity)
        self.done = np.zeros(len(self.size), bool)
        self._exact_calls, self._repacked, self._swap_calls = 0, 0, 0
        self._check(finite)
        self.at: Int[np.ndarray, "U"] = self._first()
        self.used: Float[np.ndarray, "D"] = np.bincount(self.at, self.size, minlength=problem.n_devices)

    def device(self, task: int) -> int:
        """Device that the task's unit has been placed on; -1: none yet."""
        unit = self.of[task]
        return int(self.at[unit]) if self.done[unit] else -1

    def reserve(self, task: int) -> int:
        """Device that the packing holds ready for the task; never refused."""
        return int(self.at[self.of[task]])

    def take(self, task: int, device: int) -> bool:
        """Place the task's unit on `device` for good, if the rest still finds room; else False and nothing changes."""
        unit = self.of[task]
        if self.done[unit]:
            return bool(self.at[unit] == device)
        if self.at[unit] != device and not (self.able[unit, device] and self._mend(unit, device)):
            return False
        self.done[unit] = True
        return True

    def _mend(self, unit: int, device: int) -> bool:
        size = self.size[unit]
        if self.used[device] + size <= self.capacity[device]:
            return self._accept(np.asarray([unit]), np.asarray([device]))
        return (
            self._evict(unit, device)
            or self._swap(unit, device)
            or self._repack(unit, device)
            or self._exactly(unit, device)
        )

    def _accept(self, which, where) -> bool:
        self.at[which] = where
        self.used = np.bincount(self.at, self.size, minlength=len(self.capacity))
        return True

    def _evict(self, unit: int, device: int) -> bool:
        """Units not yet placed make room one by one, the smallest that suffices first."""
        left = self.capacity - self.used
        left[self.at[unit]] += self.size[unit]
        left[device] -= self.size[unit]
        here = np.flatnonzero((self.at == device) & ~self.done & (self.size > 0))
        here = here[np.argsort(self.size[here], kind="stable")]
        enough = np.searchsorted(self.size[here], -left[device])
        which, where = [unit], [device]
        if not len(here) or self.size[here[0]] > np.delete(left, device).max(initial=0.0):
            return False
        for v in [*here[enough:], *here[:enough][::-1]][:_EVICTED]:
            room = np.where(self.able[v] & (left >= self.size[v]), left, np.inf)
            room[device] = np.inf
            to = int(room.argmin())
            if np.isfinite(room[to]):
                left[to] -= self.size[v]
                left[device] += self.size[v]
                which, where = [*which, v], [*where, to]
                if left[device] >= 0:
                    return self._accept(np.asarray(which), np.asarray(where))
        return False

    def _free(self, unit: int, device: int) -> tuple[np.ndarray, np.ndarray]:
        """Units to be packed anew, and the room for them, with `unit` on `device`."""
        free = ~self.done
        free[unit] = False
        room = self.capacity - np.bincount(self.at[self.done], self.size[self.done], minlength=len(self.capacity))
        room[device] -= self.size[unit]
        return np.flatnonzero(free), room

    def _swap(self, unit: int, device: int) -> bool:
        """As it is with the unit moved, then units change places."""
        free, room = self._free(unit, device)
        self._swap_calls += 1
        if self._swap_calls > _SWAP_CALLS or room[device] < 0:
            return False
        where = self.at[free].copy()
        return _swapped(where, self.size[free], self.able[free], room) and self._accept(
            np.append(free, unit), np.append(where, device)
        )

    def _repack(self, unit: int, device: int) -> bool:
        free, room = self._free(unit, device)
        self._repacked += len(free)
        if self._repacked > _REPACKED or room[device] < 0:
            return False
        where = _best_fit(self.size[free], self.able[free], room)
        return where is not None and self._accept(np.append(free, unit), np.append(where, device))

    def _exactly(self, unit: int, device: int) -> bool:
        free, room = self._free(unit, device)
        self._exact_calls += 1
        if self._exact_calls > _EXACT_CALLS or len(free) * len(room) > _EXACT_CELLS or room[device] < 0:
            return False
        where, excess = _pack_exactly(self.size[free], self.able[free], room)
        return where is not None and excess == 0 and self._accept(np.append(free, unit), np.append(where, device))

    def _check(self, finite) -> None:
        """Raise Infeasible where sizes alone forbid everything."""
        p, total = self.problem, float(self.size.sum() - self.capacity.sum())
        nowhere = np.flatnonzero(~self.able.any(axis=1))
        if len(nowhere):
            unit = nowhere[int(self.size[nowhere].argmax())]
            if not finite[unit].any():
                raise Infeasible(f"{p.name}: {self._name(unit)}: no device runs all of it")
            most = float(self.capacity[finite[unit]].max())
            raise Infeasible(
                f"{p.name}: {self._name(unit)} takes {self.size[unit]:.15g} bytes, {self.size[unit] - most:.15g} more than any "
                f"device that runs it holds ({most:.15g})"
            )
        if total > 0:
            raise Infeasible(
                f"{p.name}: does not fit: the tasks take {self.size.sum():.15g} bytes, {total:.15g} more than all devices hold "
                f"({self.capacity.sum():.15g}); the largest is {self._name(int(self.size.argmax()))} "
                f"({self.size.max():.15g})"
            )

    def _first(self) -> np.ndarray:
        where = _best_fit(self.size, self.able, self.capacity)
        if where is not None:
            return where
        where, excess = _pack_exactly(self.size, self.able, self.capacity)
        if where is not None and excess == 0:
            return where
        largest = f"the largest is {self._name(int(self.size.argmax()))} ({self.size.max():.15g})"
        by = (
            f"at least {excess:.15g} bytes are too many"
            if np.isfinite(excess)
            else "found no division of them that fits"
        )
        raise Infeasible(
            f"{self.problem.name}: does not fit: the tasks take {self.size.sum():.15g} of {self.capacity.sum():.15g} bytes, but not "
            f"as they divide over devices: {by}; {largest}"
        )

    def _name(self, unit: int) -> str:
        tasks = np.flatnonzero(self.of == unit)
        names = self.problem.names
        if self.problem.group[tasks[0]] == NO_GROUP:
            return f"task {names[tasks[0]]}"
        some = ", ".join(names[i] for i in tasks[:3]) + (", ..." if len(tasks) > 3 else "")
        return f"group {self.problem.group[tasks[0]]} (tasks {some})"


def _best_fit(size, able, room) -> np.ndarray | None:
    """Largest first, each to the device that is left with least (then: with most) room; what fits nowhere goes where most is left, and
    units change places until all fit. None where they cannot."""
    order = np.lexsort((able.sum(axis=1), -size))
    for sign in (1.0, -1.0):
        left, where = room.astype(float).copy(), np.zeros(len(size), np.int64)
        for u in order.tolist():
            score = np.where(able[u] & (left >= size[u]), sign * left, np.inf)
            where[u] = score.argmin()
            if not np.isfinite(score[where[u]]):
                where[u] = np.where(able[u], left, -np.inf).argmax()
            left[where[u]] -= size[u]
        if (left >= 0).all() or _swapped(where, size, able, room):
            return where
    return None


def _swapped(where, size, able, room) -> bool:
    """Mends a packing in place: the fullest device gives a unit away, or exchanges one for a smaller one, whichever leaves the least
    excess of all; True once everything fits."""
    n = len(size)
    for _ in range(_SWAPS):
        over = np.bincount(where, size, minlength=len(room)) - room
        full = int(over.argmax())
        if over[full] <= 0:
            return True
        here, there = np.flatnonzero((where == full) & (size > 0)), np.flatnonzero(where != full)
        if not len(here):
            return False
        here, there = (x[:: -(-len(x) // _SWAPPED)] if len(x) else x for x in (here, there))
        # the others' last column on each device is nothing: the unit is given away
        partner = np.concatenate([there, np.full(len(room), n)])
        to = np.concatenate([where[there], np.arange(len(room))])
        back = np.append(size, 0.0)[partner]
        may_return = np.append(able[:, full], True)[partner]
        change = size[here][:, None] - back
        excess = np.maximum(over[full] - change, 0.0) + np.maximum(over[to] + change, 0.0) - np.maximum(over[to], 0.0)
        excess[~(able[here][:, to] & may_return & (to != full))] = np.inf
        v, w = np.unravel_index(int(excess.argmin()), excess.shape)
        if not excess[v, w] < over[full]:
            return False
        where[here[v]] = to[w]
        if partner[w] < n:
            where[partner[w]] = full
    return False


def _pack_exactly(size, able, room) -> tuple[np.ndarray | None, float]:
    """(device of each unit, bytes too many): the least excess that HiGHS finds in time; (None, inf): nothing found.

    Excess is in whole bytes where it is the program's proven optimum, which may be 0."""
    u, d = able.shape
    room = np.maximum(room, 0.0)
    scale = max(float(size.max(initial=0.0)), 1.0)
    columns = np.arange(u * d).reshape(u, d)
    once = sp.csr_matrix((np.ones(u * d), (np.repeat(np.arange(u), d), columns.ravel())), (u, u * d + d))
    load = sp.csr_matrix(
        (np.concatenate([np.repeat(size / scale, d), -np.ones(d)]),
         (np.concatenate([np.tile(np.arange(d), u), np.arange(d)]), np.concatenate([columns.ravel(), u * d + np.arange(d)]))),
        (d, u * d + d),
    )  # fmt: skip
    found = milp(
        np.concatenate([np.zeros(u * d), np.ones(d)]),
        constraints=[LinearConstraint(once, 1, 1), LinearConstraint(load, -np.inf, room / scale)],
        integrality=np.concatenate([np.ones(u * d), np.zeros(d)]),
        bounds=Bounds(0, np.concatenate([able.ravel().astype(float), np.full(d, np.inf)])),
        options={"time_limit": _EXACT_SECONDS, "mip_rel_gap": 0.0},
    )
    if found.x is None:
        return None, np.inf
    where = found.x[: u * d].reshape(u, d).argmax(axis=1)
    excess = float(np.maximum(np.bincount(where, size, minlength=d) - room, 0.0).sum())
    return where, excess if found.status == 0 or excess == 0 else np.inf
