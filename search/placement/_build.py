"""Placement problems from a workload and machines: times by the cost table, transfers by the links, memory by what is stored."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from perfmodel.cost import CostTable, cost_table, supported
from perfmodel.hardware import System
from perfmodel.workload import KINDS, Fusion, Workload, coarsen, fuse

from ._cluster import Cluster
from ._problem import NO_GROUP, Problem

_EMBEDDING = KINDS.index("embedding")


def from_workload(
    workload: Workload, machine: Cluster | System, *, fusion: str | Fusion | None = None, congestion: bool = False,
    sub_batch: int = 1, name: str | None = None,
) -> Problem:  # fmt: skip
    """The problem of placing a workload's operators on the devices of a cluster, or on the chiplets of a system. Seconds and bytes.

    - *Tasks* are operators, or the groups of `fusion` (a backend of `perfmodel.workload.BACKENDS`, or groups made by `fuse`).
    - *Time*: `exec_s` of the cost table for `sub_batch` inferences at once; infinite where a device does not run the kind. What is
      not a GPU fetches weights and the model's inputs meanwhile, at an even share of the system's memory bandwidth, and takes as
      long as the longer of both. A group takes the sum of its members, less what fusion saves: launches of all rows but
      the first, and of vector kernels on GPUs what they need not move (as `perfmodel.evaluate` has it, where streams fit).
    - *Transfer*: latency + bytes / bandwidth of the link; in a package, hops and the slower of link and port. A tensor that several
      members of a group read is sent once.
    - *Memory* of a task: stored weights, and an even share of its model's KV cache for each attention row (in proportion to
      what the rows read of it). *Capacity*: the device's memory (a package's, divided evenly), less what one pass of every model holds at
      its fullest: intermediate results are freed along the way, and may all stand on one device.
    - *Colocation*: rows that read weights which another row stores (a tied head, a backward pass) stand with that row; found by
      name (`fc.dgrad` with `fc`), else by size where only one row of the model has that many.

    Raises ValueError for an unknown backend, or a `sub_batch` below 1."""
    if sub_batch < 1:
        raise ValueError(f"sub_batch is {sub_batch}; allowed: at least 1")
    if fusion is None or isinstance(fusion, str):
        fusion = fuse(workload, fusion or "none")
    devices = (
        _cluster(workload, machine, sub_batch)
        if isinstance(machine, Cluster)
        else _package(workload, machine, sub_batch)
    )
    coarse = coarsen(workload, fusion)
    n, d = len(coarse.names), len(devices.names)
    times = np.zeros((n, d))
    np.add.at(times, fusion.group, seconds(workload, fusion, devices))
    nbytes = coarse.edge_bytes * sub_batch
    transfer = devices.latency_s + nbytes[:, None, None] / devices.bytes_per_s
    transfer[:, np.arange(d), np.arange(d)] = 0.0
    transfer[nbytes == 0] = 0.0
    alive = sum(workload.live_bytes[workload.model == m].max() for m in range(workload.n_models)) * sub_batch
    kv = np.bincount(fusion.group, weights=_kv_bytes(workload) * sub_batch, minlength=n)
    return Problem(
        times=times,
        memory_bytes=np.ceil(np.asarray(coarse.weight_bytes, np.float64) + kv),
        capacity_bytes=np.floor(np.maximum(devices.memory_bytes - np.ceil(alive), 0.0)),
        source=np.asarray(coarse.source, np.int64), target=np.asarray(coarse.target, np.int64), transfer=transfer, moves=nbytes > 0,
        group=_colocated(workload, fusion, n), names=_distinct(coarse.names), device_names=devices.names,
        name=name or f"{'+'.join(workload.model_names)} on {machine.name}", congestion=congestion,
    )  # fmt: skip


class _Devices(NamedTuple):
    exec_s: Float[np.ndarray, "L D"]  # of the unfused rows
    launch_s: Float[np.ndarray, "L D"]
    moving_s: Float[np.ndarray, "L D"]
    memory_bytes: Float[np.ndarray, "D"]
    latency_s: Float[np.ndarray, "D D"]
    bytes_per_s: Float[np.ndarray, "D D"]
    names: tuple[str, ...]


def _columns(workload: Workload, system: System, sub_batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`exec_s, launch_s, moving_s` of every row on every chiplet, weights from memory included."""
    table: CostTable = cost_table(workload, system, sub_batch)
    exec_s, launch, moving = (np.asarray(x, np.float64) for x in (table.exec_s, table.launch_s, table.moving_s))
    fetched = np.asarray(table.weight_bytes * table.weight_refetch, np.float64)
    outside = (workload.outside_in_bytes + workload.outside_out_bytes)[:, None] * sub_batch
    share = float(np.asarray(system.memory.bytes_per_s).sum()) / system.n_chiplets
    kind = np.asarray(system.kind)
    gpu = np.asarray([bool(system.gpu_names and system.gpu_names[k]) for k in kind])
    exec_s = np.where(gpu, exec_s, np.maximum(exec_s, (fetched + outside) / share))
    runs: Bool[np.ndarray, "L D"] = supported(system)[kind][:, np.asarray(workload.operators.kind)].T
    return np.where(runs, exec_s, np.inf), launch, moving


def _cluster(workload: Workload, cluster: Cluster, sub_batch: int) -> _Devices:
    columns: dict[int, tuple] = {}  # devices of one entry share a system
    for system in cluster.systems:
        if id(system) not in columns:
            columns[id(system)] = _columns(workload, system, sub_batch)
    exec_s, launch, moving = (
        np.concatenate(x, axis=1) for x in zip(*(columns[id(s)] for s in cluster.systems), strict=True)
    )
    memory = np.asarray([float(np.asarray(s.memory.capacity_bytes).sum()) for s in cluster.systems])
    return _Devices(exec_s, launch, moving, memory, cluster.latency_s, cluster.bytes_per_s, cluster.device_names)


def _package(workload: Workload, system: System, sub_batch: int) -> _Devices:
    d, package = system.n_chiplets, system.package
    memory = float(np.asarray(system.memory.capacity_bytes).sum()) / d
    speed = min(float(package.link_bytes_per_s), float(package.port_bytes_per_s))
    hops = np.asarray(package.hops, np.float64)
    return _Devices(*_columns(workload, system, sub_batch), np.full(d, memory), hops * float(package.hop_s),
                    np.full((d, d), speed), system.chiplet_names)  # fmt: skip


def seconds(workload: Workload, fusion: Fusion, devices: _Devices) -> Float[np.ndarray, "L D"]:
    """Seconds of every row inside its group.

    A row that reads a fused edge spares its launch. A vector kernel of a GPU does not read what comes fused, nor write a result that
    only its own group reads; a product's time keeps that write, which stands for the one at the end of the chain behind it."""
    op, f = workload.operators, np.asarray(fusion.fused, bool)
    if not f.any():
        return devices.exec_s
    source, target, n = workload.source, workload.target, workload.n_operators
    matrix, out = np.asarray(op.is_matrix) > 0, np.asarray(op.out_elements, np.float64)
    elements = np.asarray(workload.edge_bytes) * 8 / np.asarray(op.out_bits)[source]
    readers = np.bincount(source, minlength=n)
    streamed = (readers > 0) & (np.bincount(source, weights=~f, minlength=n) == 0)
    unread = np.bincount(target, weights=f * elements, minlength=n) + streamed * out
    unread += np.bincount(source, weights=f * elements * matrix[target], minlength=n)
    moved = np.asarray(op.in_elements, np.float64) + out
    joined = np.bincount(target, weights=f, minlength=n) > 0
    credit, saved = np.zeros(n), np.zeros(n)
    feeds: list[list[int]] = [[] for _ in range(n)]
    for e in np.flatnonzero(f).tolist():
        feeds[target[e]].append(int(source[e]))
    for i in range(n):  # rows stand in topological order
        due = sum(credit[s] for s in feeds[i])
        paid = 0.0 if streamed[i] else min(due, out[i])
        saved[i] = min((unread[i] + paid) / moved[i], 1.0) if moved[i] > 0 else 0.0
        credit[i] = streamed[i] * (out[i] if matrix[i] else due - paid) / max(readers[i], 1)
    spared = joined[:, None] * devices.launch_s + saved[:, None] * devices.moving_s
    return np.maximum(devices.exec_s - spared, 0.0)


def _kv_bytes(workload: Workload) -> Float[np.ndarray, "L"]:
    """The KV cache of each model, over its attention rows."""
    attention, share = np.asarray(workload.operators.is_attention), np.zeros(workload.n_operators)
    for m in range(workload.n_models):
        mine = workload.model == m
        for weight in (workload.outside_in_bytes * attention * mine, 1.0 * attention * mine, 1.0 * mine):
            if weight.sum() > 0:
                share += float(workload.kv_bytes_per_token[m] * workload.kv_tokens[m]) * weight / weight.sum()
                break
    return share


def _colocated(workload: Workload, fusion: Fusion, n_groups: int) -> np.ndarray:
    """Colocation groups of the tasks: those whose rows share weights."""
    op, parent = workload.operators, list(range(n_groups))

    def find(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    stored, read = np.asarray(op.parameters), np.asarray(op.weight_elements)
    by_name = {name: i for i, name in enumerate(workload.names)}
    joined = set()
    for i in np.flatnonzero((stored == 0) & (read > 0) & ~np.asarray(op.is_attention)).tolist():
        owner = by_name.get(workload.names[i].rpartition(".")[0], -1)
        if owner < 0 or stored[owner] == 0:
            mine = workload.model == workload.model[i]
            same = np.flatnonzero(mine & (stored == read[i]))
            tables = np.flatnonzero(mine & (np.asarray(op.kind) == _EMBEDDING) & (stored >= read[i]))
            some = same if len(same) else tables  # a table may have rows that the head does not read
            owner = int(some[0]) if len(some) == 1 else -1
        if owner >= 0:
            a, b = find(int(fusion.group[owner])), find(int(fusion.group[i]))
            parent[max(a, b)] = min(a, b)
            joined |= {int(fusion.group[owner]), int(fusion.group[i])}
    return np.asarray([find(g) if g in joined else NO_GROUP for g in range(n_groups)], np.int64)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as they are; a repeated one with its position."""
    seen: set[str] = set()
    out = []
    for i, name in enumerate(names):
        out.append(f"{name}#{i}" if name in seen else name)
        seen.add(name)
    return tuple(out)
