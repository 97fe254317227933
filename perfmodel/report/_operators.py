"""Where time and energy of a schedule go, operator by operator."""

from dataclasses import dataclass

import equinox as eqx
import numpy as np

from ..cost import Mappings, cost_table
from ..hardware import System
from ..schedule import ENERGY_PARTS, Metrics, Schedule, evaluate_one
from ..workload import KINDS, Workload
from ._shares import ON_CHIP, on_chip_parts, shares

# Parts of an operator's energy. `buffer`: to the array and for bytes that enter or leave the chiplet. `static`: of all static
# power of a period, in proportion to time computing.
ENERGY = ("mac", "lane", "local", "buffer", "network", "memory", "static")


@dataclass(frozen=True)
class OperatorReport:
    """Of one pass of each of the `L` operators under a hard schedule, host arrays in workload order; `T` memory tiers.

    - `latency_s`: on the chiplet, the larger of `compute_s` and `buffer_s` plus `launch_s` (fill, drain, launch), less what
      fusion saves.
      `start_s`: on the timeline of its model alone.  `wait_s`: idle time of its chiplet just before, for data or weights.
    - `memory_s`: what its bytes take of each tier, and its latency; `network_s`: the same of the links.  `memory_bytes`: of each tier.
    - `bound`: the largest of these: `compute`, `buffer`, `memory NAME`, `link` or `launch`.
    - `utilisation`: work / what the array (other operators: the lanes) could do in `latency_s`.
    - `energy_j`: by part (`ENERGY`).  `rate`: passes in a round; `rate * energy_j` adds up to the energy of a round.
    - `metrics`: of the whole schedule.  `tiers`: names of the tiers.
    """

    names: list[str]
    kinds: list[str]
    chiplets: list[str]
    latency_s: np.ndarray
    start_s: np.ndarray
    wait_s: np.ndarray
    compute_s: np.ndarray
    buffer_s: np.ndarray
    launch_s: np.ndarray
    memory_s: np.ndarray
    network_s: np.ndarray
    memory_bytes: np.ndarray
    network_bytes: np.ndarray
    bound: list[str]
    utilisation: np.ndarray
    energy_j: dict[str, np.ndarray]
    rate: np.ndarray
    metrics: Metrics
    tiers: tuple[str, ...] = ("memory",)

    @property
    def total_j(self) -> np.ndarray:
        """`[L]` energy of a pass of each operator."""
        return sum(self.energy_j.values(), np.zeros(len(self.names)))

    def rows(self) -> list[dict]:
        """One dictionary of plain numbers an operator, for JSON and CSV."""
        columns = dict(
            name=self.names, kind=self.kinds, chiplet=self.chiplets, bound=self.bound, latency_s=self.latency_s.tolist(),
            start_s=self.start_s.tolist(), wait_s=self.wait_s.tolist(), compute_s=self.compute_s.tolist(),
            buffer_s=self.buffer_s.tolist(), launch_s=self.launch_s.tolist(), memory_s=self.memory_s.sum(0).tolist(),
            network_s=self.network_s.tolist(), memory_bytes=self.memory_bytes.sum(0).tolist(),
            network_bytes=self.network_bytes.tolist(), utilisation=self.utilisation.tolist(), energy_j=self.total_j.tolist(),
            passes_per_round=self.rate.tolist(),
        )  # fmt: skip
        if len(self.tiers) > 1:
            columns |= {
                f"memory_bytes {name}": of.tolist() for name, of in zip(self.tiers, self.memory_bytes, strict=True)
            }
        flat = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for i, row in enumerate(flat):
            row["energy_parts_j"] = {part: float(value[i]) for part, value in self.energy_j.items()}
        return flat


def operator_report(
    workload: Workload, system: System, schedule: Schedule, mappings: Mappings | None = None
) -> OperatorReport:
    """Time, bound, utilisation and energy of every operator of a hard schedule (`mappings`: by the mapper's loop nests).

    Raises ValueError for a relaxed schedule, or one of another workload or system."""
    if schedule.is_relaxed:
        raise ValueError("the operator report needs a hard schedule; got simplex rows")
    schedule.check(workload, system.n_chiplets, system.memory.n_tiers)
    table = cost_table(workload, system, schedule.sub_batch, mappings=mappings)
    metrics, seen, order = _evaluated(workload, system, schedule, table)
    assert seen is not None
    start, finish = (_in_place(x, order) for x in (seen.start_s, seen.finish_s))
    parts = on_chip_parts(workload, system, schedule.sub_batch, mappings)
    share = shares(workload, system, schedule, table)
    n, where = workload.n_operators, np.asarray(schedule.assignment)

    def here(column) -> np.ndarray:
        """Of each operator, the column of the chiplet it runs on."""
        return np.asarray(column, np.float64)[np.arange(n), where]

    chip, package, tiers = system.chiplets, system.package, system.memory
    latency, compute, buffer, launch = (
        here(c) for c in (table.exec_s, table.compute_s, table.transfer_s, table.fill_s)
    )
    if schedule.fusion is not None:  # launches, and what kernels of GPUs move, that fusion saves
        latency = finish - start
    read, written = np.asarray(share.read_bytes, np.float64), np.asarray(share.written_bytes, np.float64)
    memory_bytes = read + written
    network_bytes, hop_bytes = np.asarray(share.network_bytes, np.float64), np.asarray(share.hop_bytes, np.float64)
    read_rate, write_rate = (np.asarray(rate, np.float64)[:, None] for rate in tiers.access_bytes_per_s())
    waits = np.asarray(tiers.latency_s, np.float64)[:, None]
    memory = read / read_rate + written / write_rate + np.where(memory_bytes > 0, waits, 0.0)
    hops = np.divide(hop_bytes, network_bytes, out=np.zeros(n), where=network_bytes > 0)
    slowest = min(float(package.link_bytes_per_s), float(package.port_bytes_per_s))
    network = network_bytes / slowest + hops * float(package.hop_s)

    op = workload.operators
    matrix = np.asarray(op.is_matrix) > 0
    width = np.where(matrix, (np.asarray(chip.rows) * np.asarray(chip.columns))[where], np.asarray(chip.lanes)[where])
    work = np.where(matrix, np.asarray(op.macs, np.float64), np.asarray(op.lane_ops, np.float64))
    able = width * np.asarray(chip.clock_hz)[where] * latency
    utilisation = np.divide(work * float(schedule.sub_batch), able, out=np.zeros(n), where=able > 0)

    rate = np.asarray(share.rate, np.float64)
    computing = latency * rate
    static = float(metrics.energy_parts_j[ENERGY_PARTS.index("static")]) * computing / max(computing.sum(), 1e-300)
    per_byte = np.asarray(tiers.j_per_byte, np.float64)[:, None]
    energy = {part: here(parts[part]) for part in ON_CHIP}
    energy["buffer"] = energy["buffer"] + np.asarray(share.filled_j, np.float64)
    energy["network"] = (hop_bytes + np.asarray(share.memory_hop_bytes, np.float64)) * float(package.hop_j_per_byte)
    energy["memory"] = (memory_bytes * per_byte).sum(0)
    energy["static"] = np.divide(static, rate, out=np.zeros(n), where=rate > 0)

    names = ["compute", "buffer", *(f"memory {name}" for name in tiers.names), "link", "launch"]
    largest = np.argmax(np.stack([compute, buffer, *memory, network, launch]), axis=0)
    return OperatorReport(
        names=list(workload.names),
        kinds=[KINDS[k] for k in op.kind],
        chiplets=[system.chiplet_names[d] for d in where],
        latency_s=latency,
        start_s=start,
        wait_s=_waits(workload, start, finish, where),
        compute_s=compute,
        buffer_s=buffer,
        launch_s=launch,
        memory_s=memory,
        network_s=network,
        memory_bytes=memory_bytes,
        network_bytes=network_bytes,
        bound=[names[i] for i in largest],
        utilisation=utilisation,
        energy_j={part: energy[part] for part in ENERGY},
        rate=rate,
        metrics=metrics,
        tiers=tiers.names,
    )


@eqx.filter_jit
def _evaluated(workload, system, schedule, table):
    return evaluate_one(workload, system, schedule, table, False, 0.05, record=True)


def _in_place(values, order) -> np.ndarray:
    """From execution order to the rows of the workload."""
    values = np.asarray(values, np.float64)
    if order is None:
        return values
    placed = np.empty_like(values)
    placed[np.asarray(order)] = values
    return placed


def _waits(workload: Workload, start, finish, chiplet) -> np.ndarray:
    """Time that each operator's chiplet stood idle just before it."""
    waits, free = np.zeros(len(start)), {}
    for row in np.lexsort((finish, start, np.asarray(workload.model))):
        at = int(workload.model[row]), int(chiplet[row])  # every model has the package to itself
        waits[row] = max(start[row] - free.get(at, 0.0), 0.0)
        free[at] = finish[row]
    return waits
