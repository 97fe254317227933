"""A placement problem: tasks with unequal times on unlike devices, transfers between them, memory, colocation.

Nothing is said of units: times may be seconds or whatever a file holds; the makespan has the same. Everything derived from the
graph (predecessors, a topological order) is worked out once here, on the host.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

NO_GROUP = -1


class Infeasible(ValueError):
    """No placement that fits; one line says by how many bytes, and which task or group."""


@dataclass(frozen=True, eq=False)
class Problem:
    """`N` tasks on `D` devices with `E` edges.

    - `times`: `[N, D]`, infinite where a device cannot run a task.  `memory_bytes`: `[N]`.  `capacity_bytes`: `[D]`.
    - `source, target`: tasks of each edge.  `transfer`: `[E, D, D]` time from the producer's device to the consumer's (0 on the
      diagonal).  `moves`: `[E]` whether the edge carries data at all (precedence alone never waits for a link).
    - `group`: `[N]` tasks of the same group (>= 0) stand on one device; `NO_GROUP`: alone.
    - `congestion`: two transfers out of (or into) one device never overlap.
    - `link_factors`: `[S, D, D]` scenarios: every transfer takes so many times as long; one scenario of ones if nothing varies.
    - `worst_case`: the makespan of a robust problem is the worst over scenarios (else their mean).
    """

    times: Float[np.ndarray, "N D"]
    memory_bytes: Float[np.ndarray, "N"]
    capacity_bytes: Float[np.ndarray, "D"]
    source: Int[np.ndarray, "E"]
    target: Int[np.ndarray, "E"]
    transfer: Float[np.ndarray, "E D D"]
    moves: Bool[np.ndarray, "E"]
    group: Int[np.ndarray, "N"]
    names: tuple[str, ...]
    device_names: tuple[str, ...]
    name: str = "problem"
    congestion: bool = False
    link_factors: Float[np.ndarray, "S D D"] | None = None
    worst_case: bool = False
    # derived
    order: Int[np.ndarray, "N"] = field(init=False)  # a topological order, file order where free
    inputs: Int[np.ndarray, "N I"] = field(init=False)  # edges into each task, -1: none
    outputs: Int[np.ndarray, "N O"] = field(init=False)  # edges out of each task, -1: none

    def __post_init__(self):
        _check(self)
        set_ = object.__setattr__
        set_(self, "order", _topological(self))
        set_(self, "inputs", _edges_at(self.target, self.n_tasks))
        set_(self, "outputs", _edges_at(self.source, self.n_tasks))

    @property
    def n_tasks(self) -> int:
        return self.times.shape[0]

    @property
    def n_devices(self) -> int:
        return self.times.shape[1]

    @property
    def factors(self) -> Float[np.ndarray, "S D D"]:
        """Scenarios of the links; a single one where nothing varies."""
        if self.link_factors is not None:
            return self.link_factors
        return np.ones((1, self.n_devices, self.n_devices))

    def scaled(self, comm_scale: float) -> "Problem":
        """The same problem with every transfer `comm_scale` times as long. Raises ValueError for a negative scale."""
        if not (np.isfinite(comm_scale) and comm_scale >= 0):
            raise ValueError(f"{self.name}: comm_scale is {comm_scale!r}; allowed: a number of at least 0")
        return replace(self, transfer=self.transfer * comm_scale)

    def without_device(self, device: int) -> "Problem":
        """The same problem after one device is gone. Raises ValueError if it is the last, or some task ran nowhere else."""
        if not 0 <= device < self.n_devices:
            raise ValueError(f"{self.name}: device is {device}; allowed: 0 to {self.n_devices - 1}")
        if self.n_devices == 1:
            raise ValueError(f"{self.name}: device {self.device_names[device]} is the last one")
        keep = np.delete(np.arange(self.n_devices), device)
        return replace(
            self, times=self.times[:, keep], capacity_bytes=self.capacity_bytes[keep],
            transfer=self.transfer[:, keep][:, :, keep], device_names=tuple(self.device_names[d] for d in keep),
            link_factors=None if self.link_factors is None else self.link_factors[:, keep][:, :, keep],
        )  # fmt: skip

    def used_bytes(self, placement) -> Float[np.ndarray, "D"]:
        """Memory that a placement takes of each device."""
        return np.bincount(np.asarray(placement), weights=self.memory_bytes, minlength=self.n_devices)

    def excess_bytes(self, placement) -> float:
        """By how much a placement exceeds the memory of devices, added up; 0 if it fits."""
        return float(np.maximum(self.used_bytes(placement) - self.capacity_bytes, 0.0).sum())


def _check(p: Problem) -> None:
    n, d, e = p.n_tasks, p.n_devices, len(p.source)
    if n == 0 or d == 0:
        raise ValueError(f"{p.name}: {n} tasks on {d} devices; at least one of each is needed")
    for name, shape in (("memory_bytes", (n,)), ("capacity_bytes", (d,)), ("target", (e,)), ("transfer", (e, d, d)), ("moves", (e,)),
                        ("group", (n,))):  # fmt: skip
        if getattr(p, name).shape != shape:
            raise ValueError(f"{p.name}: {name} has shape {getattr(p, name).shape}; needed: {shape}")
    if len(p.names) != n or len(p.device_names) != d:
        raise ValueError(
            f"{p.name}: {len(p.names)} task names and {len(p.device_names)} device names; needed: {n} and {d}"
        )
    bad = np.argwhere(np.isnan(p.times) | (p.times < 0))
    if len(bad):
        i, k = bad[0]
        raise ValueError(
            f"{p.name}: task {p.names[i]}: time on {p.device_names[k]} is {p.times[i, k]:g}; allowed: at least 0"
        )
    nowhere = np.flatnonzero(~np.isfinite(p.times).any(axis=1))
    if len(nowhere):
        raise ValueError(f"{p.name}: task {p.names[nowhere[0]]} runs on no device; at least one time must be finite")
    for name in ("memory_bytes", "capacity_bytes"):
        values = getattr(p, name)
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(wrong):
            who = (p.names if name == "memory_bytes" else p.device_names)[wrong[0]]
            raise ValueError(f"{p.name}: {who}: {name} is {values[wrong[0]]:g}; allowed: a number of at least 0")
    for name in ("source", "target"):
        ends = getattr(p, name)
        if e and (ends.min() < 0 or ends.max() >= n):
            i = int(np.flatnonzero((ends < 0) | (ends >= n))[0])
            raise ValueError(f"{p.name}: edge {i}: {name} is {ends[i]}; allowed: 0 to {n - 1}")
    wrong = np.argwhere(np.isnan(p.transfer) | (p.transfer < 0))
    if len(wrong):
        i, a, b = wrong[0]
        raise ValueError(
            f"{p.name}: edge {p.names[p.source[i]]} -> {p.names[p.target[i]]}: transfer from {p.device_names[a]} to "
            f"{p.device_names[b]} is {p.transfer[i, a, b]:g}; allowed: at least 0"
        )
    factors = p.factors
    if (
        factors.ndim != 3
        or factors.shape[1:] != (d, d)
        or not len(factors)
        or not (np.isfinite(factors) & (factors >= 0)).all()
    ):
        raise ValueError(
            f"{p.name}: link_factors have shape {factors.shape}; needed: (S, {d}, {d}), finite, at least 0"
        )


def _topological(p: Problem) -> np.ndarray:
    """Kahn's order, smallest index first among the ready (a heap): file order where free. ValueError for a cycle."""
    import heapq

    waiting = np.bincount(p.target, minlength=p.n_tasks)
    after: list[list[int]] = [[] for _ in range(p.n_tasks)]
    for a, b in zip(p.source.tolist(), p.target.tolist(), strict=True):
        after[a].append(b)
    ready = np.flatnonzero(waiting == 0).tolist()
    heapq.heapify(ready)
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for j in after[i]:
            waiting[j] -= 1
            if waiting[j] == 0:
                heapq.heappush(ready, j)
    if len(order) < p.n_tasks:
        stuck = int(np.flatnonzero(waiting > 0)[0])
        raise ValueError(f"{p.name}: the graph has a cycle through or before task {p.names[stuck]}; it must be acyclic")
    return np.asarray(order, np.int32)


def _edges_at(ends: np.ndarray, n: int) -> np.ndarray:
    """Edges at each task, padded with -1."""
    count = np.bincount(ends, minlength=n)
    table = np.full((n, max(int(count.max(initial=0)), 1)), -1, np.int32)
    place = np.zeros(n, np.int64)
    for edge, task in enumerate(ends.tolist()):
        table[task, place[task]] = edge
        place[task] += 1
    return table
