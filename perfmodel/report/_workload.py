"""What a model asks of a machine before anything is scheduled: work, bytes, intensity, caches, and what would bound it."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ..cost import cost_table, supported
from ..hardware import DATAFLOWS, System
from ..schedule import least_devices
from ..workload import BACKENDS, CLASS_OF, CLASSES, KINDS, Workload, exact_macs, fuse, intensity

BOUNDS = ("compute", "buffer", "memory", "launch", "overhead")


@dataclass(frozen=True)
class ClassShare:
    """Operators of one class: how many, exact MACs, lane operations, bytes unfused, and time on a system (None without one)."""

    name: str
    operators: int
    macs: int
    lane_ops: float
    bytes: float
    time_s: float | None


@dataclass(frozen=True)
class FusedShare:
    """A workload fused by the rules of a backend: how many groups, bytes that cross their borders, operations a byte (movement
    is no operation)."""

    groups: int
    bytes: float
    intensity: float


@dataclass(frozen=True)
class SystemView:
    """Every operator alone on the chiplet type that runs it fastest, operands from and results to memory, nothing fused.

    - `time_s`: `[L]` the larger of time on the chiplet and in memory (a GPU's kernels hold both).  `on`: that type.
    - `bound`: `compute`, `buffer` (bytes between buffer and array), `memory`, `launch` (fill, drain, launch), or of a GPU's kernel
      `overhead`: what it takes beyond both of its roofs (launch, latency, waves, efficiency below peak).
    - `tier`: of memory, where it all is taken to lie: the fastest that holds it, else the last.
    - `balance`: operations a byte at which the fastest type's array is as busy as that tier.
    - `needed_bytes, capacity_bytes`: weights, KV cache, states and most live activations against all of memory.  `devices`: least
      number of devices that would hold them.
    - `unsupported`: kinds that no chiplet type of the system runs, with the names of the operators.
    """

    system: str
    time_s: np.ndarray
    on: list[str]
    bound: list[str]
    balance: float
    needed_bytes: float
    capacity_bytes: float
    tier: str
    devices: int
    unsupported: dict[str, list[str]]


@dataclass(frozen=True)
class WorkloadReport:
    """What `workload_report` found; amounts are of one pass of every model.

    - `macs, parameters`: exact.  `classes`: of `CLASSES`, those present.
    - `weight_bytes, kv_cache_bytes, kv_bytes_per_token` (of each model with one), `peak_activation_bytes` (most that is live at a
      time, and at which operator).
    - `bytes_by_bits`: weights stored and activations produced, by bits of an element.
    - `moved_bytes`: all operands and results of all operators, each once (nothing fused).  `least_bytes`: weights read, model inputs
      and caches read, model outputs and caches written.  `intensity, best_intensity`: operations (2 a MAC, 1 a lane operation) a byte.
    - `fused`: by backend, if every group of operators goes through memory.  `on`: what a named system makes of it, or None.
    """

    workload: Workload
    macs: int
    parameters: int
    classes: list[ClassShare]
    weight_bytes: float
    kv_cache_bytes: float
    kv_bytes_per_token: dict[str, float]
    peak_activation_bytes: float
    peak_at: str
    bytes_by_bits: dict[str, dict[float, float]] = field(repr=False)
    moved_bytes: float
    least_bytes: float
    intensity: float
    best_intensity: float
    fused: dict[str, FusedShare]
    on: SystemView | None


def workload_report(workload: Workload, system: System | None = None) -> WorkloadReport:
    """The analysis of a workload, on a system if one is given."""
    op, macs = workload.operators, exact_macs(workload.operators)
    moved = operator_bytes(workload)
    lanes = np.asarray(op.lane_ops, np.float64)
    seen = None if system is None else _on(workload, system, moved)
    which = np.asarray([CLASS_OF[KINDS[k]] for k in op.kind])
    shares = []
    for name in CLASSES:
        rows = np.flatnonzero(which == name)
        if len(rows):
            time = None if seen is None else float(seen.time_s[rows].sum())
            work = sum(macs[i] for i in rows)
            shares.append(ClassShare(name, len(rows), work, float(lanes[rows].sum()), float(moved[rows].sum()), time))
    least = (
        float(np.sum(op.weight_elements * op.weight_bits) / 8)
        + float(workload.outside_in_bytes.sum())
        + float(workload.outside_out_bytes.sum())
    )
    movement = np.isin(which, "embedding, movement")
    operations = 2 * sum(macs) + float(lanes[~movement].sum())
    peak = int(np.argmax(workload.live_bytes))
    tokens = dict(zip(workload.model_names, map(float, workload.kv_bytes_per_token), strict=True))
    return WorkloadReport(
        workload=workload, macs=sum(macs), parameters=workload.parameters, classes=shares, weight_bytes=workload.weight_bytes,
        kv_cache_bytes=workload.kv_cache_bytes, kv_bytes_per_token={m: b for m, b in tokens.items() if b > 0},
        peak_activation_bytes=float(workload.live_bytes[peak]), peak_at=workload.names[peak],
        bytes_by_bits={"weights": _by_bits(op.weight_bits, op.parameters), "activations": _by_bits(op.out_bits, op.out_elements)},
        moved_bytes=float(moved.sum()), least_bytes=least, intensity=operations / max(float(moved.sum()), 1.0),
        best_intensity=operations / max(least, 1.0), fused={name: _fused(workload, name) for name in BACKENDS}, on=seen,
    )  # fmt: skip


def _fused(workload: Workload, backend: str) -> FusedShare:
    fusion = fuse(workload, backend)
    found = intensity(workload, fusion)
    return FusedShare(fusion.n_groups, float(found.bytes.sum()), found.total)


def operator_bytes(workload: Workload) -> np.ndarray:
    """`[L]` bytes of each operator's operands, results, and what it writes to caches and states, each once, wherever they lie."""
    op = workload.operators
    parts = ((op.in_elements, op.in_bits), (op.weight_elements, op.weight_bits), (op.out_elements, op.out_bits))
    kept = np.asarray([KINDS[k] == "embedding" for k in op.kind])  # reads its table: `outside_in_bytes`, not weights
    total = sum((np.asarray(n, np.float64) * np.asarray(bits, np.float64) / 8 for n, bits in parts), np.zeros(len(op)))
    results = np.asarray(op.out_elements * op.out_bits / 8)
    sink = np.ones(len(op), bool)
    sink[workload.source] = False
    besides = workload.outside_out_bytes - np.where(sink, results, 0.0)  # written to caches and states
    return np.where(kept, workload.outside_in_bytes + results, total) + besides


def _by_bits(bits, elements) -> dict[float, float]:
    found: Counter = Counter()
    for each, n in zip(np.asarray(bits, float).tolist(), np.asarray(elements, float).tolist(), strict=True):
        if n:
            found[each] += n * each / 8
    return dict(sorted(found.items()))


def _on(workload: Workload, system: System, moved: np.ndarray) -> SystemView:
    op = workload.operators
    table = cost_table(workload, system, by_type=True)
    compute, buffer, launch = (
        np.asarray(x, np.float64) for x in (table.compute_s, table.transfer_s, table.fill_s)
    )  # L x K
    needed = workload.stored_bytes + float(workload.live_bytes.max())
    capacity = np.asarray(system.memory.capacity_bytes, np.float64)
    tier = int(np.argmax(np.append(capacity[:-1] >= needed, True)))
    bandwidth = float(system.memory.access_bytes_per_s()[0][tier])
    memory = np.broadcast_to((moved / bandwidth)[:, None], compute.shape)
    types = system.types
    peak = 2.0 * np.asarray(types.peak_macs_per_s, np.float64)
    is_gpu = np.asarray(types.dataflow) == DATAFLOWS.index("gpu")
    time = np.where(is_gpu, compute, np.maximum(np.maximum(compute, buffer) + launch, memory))
    best = np.argmin(time, axis=1)
    rows = np.arange(len(op))
    # what a GPU's kernel takes beyond both of its roofs is overhead
    whole = np.asarray(op.is_attention) | np.asarray(op.is_fused_attention)
    eight = (np.asarray(op.in_bits) <= 8) & (np.asarray(op.is_matrix) > 0) & ~whole
    faster = 1.0
    if system.gpus is not None:  # rate of 8-bit kernels over that of 16-bit ones
        faster = np.asarray(system.gpus.peak_8bit_ops_per_s, np.float64) / np.asarray(system.gpus.peak_16bit_ops_per_s)
    roofs = np.asarray(op.macs, np.float64)[:, None] * 2.0 / (peak * np.where(eight[:, None] & is_gpu, faster, 1.0))
    parts = np.stack([
        np.where(is_gpu, roofs, compute), np.where(is_gpu, 0.0, buffer), memory,
        np.where(is_gpu, 0.0, launch), np.where(is_gpu, compute - np.maximum(roofs, memory), 0.0),
    ])[:, rows, best]  # fmt: skip
    return SystemView(
        system=system.name, time_s=time[rows, best], on=[system.type_names[k] for k in best],
        bound=[BOUNDS[i] for i in np.argmax(parts, axis=0)], balance=float(peak.max()) / bandwidth, needed_bytes=needed,
        capacity_bytes=float(capacity.sum()), tier=system.memory.names[tier], devices=least_devices(needed, system),
        unsupported=_unsupported(workload, system),
    )  # fmt: skip


def _unsupported(workload: Workload, system: System) -> dict[str, list[str]]:
    """Kinds of operators that no type of chiplet runs."""
    able = supported(system)
    found: dict[str, list[str]] = {}
    for name, kind in zip(workload.names, workload.operators.kind, strict=True):
        if not able[:, kind].any():
            found.setdefault(KINDS[kind], []).append(name)
    return found
