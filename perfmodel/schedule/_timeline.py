"""When every operator of one pass runs, and what is transferred when: the traversal's own clock, written down."""

from dataclasses import dataclass

import equinox as eqx
import numpy as np

from ..cost import CostTable, cost_table
from ..hardware import System
from ..workload import Workload
from ._evaluate import evaluate_one
from ._schedule import Schedule


@dataclass(frozen=True)
class Timeline:
    """One pass of every model, each in an otherwise empty package (host arrays, rows as in the workload).

    - `start_s, finish_s, chiplet`: of each of the `L` operators.  `held`: whether its result stays in the buffer.
    - `transfers`: (producer row, consumer row, `network` or `memory`, start, finish) of everything that leaves a chiplet.
    """

    start_s: np.ndarray
    finish_s: np.ndarray
    chiplet: np.ndarray
    held: np.ndarray
    transfers: list[tuple[int, int, str, float, float]]


def timeline(workload: Workload, system: System, schedule: Schedule, *, table: CostTable | None = None) -> Timeline:
    """The timeline behind `latency_s` of a hard schedule. Raises ValueError for a relaxed one."""
    if schedule.is_relaxed:
        raise ValueError("timeline needs a hard schedule; got simplex rows")
    schedule.check(workload, system.n_chiplets, system.memory.n_tiers)
    table = cost_table(workload, system, schedule.sub_batch) if table is None else table
    _, seen, order = recorded(workload, system, schedule, table)
    assert seen is not None
    n = workload.n_operators
    rows = np.arange(n) if order is None else np.asarray(order)
    columns = {}
    for name in seen._fields:
        value = np.asarray(getattr(seen, name))
        columns[name] = np.empty_like(value)
        columns[name][rows] = value
    transfers = []
    for row in range(n):
        for i, source in enumerate(workload.inputs[row]):
            for way, share in (("network", columns["by_network"]), ("memory", columns["by_memory"])):
                if source >= 0 and share[row, i] > 0.5:
                    begin = float(columns["input_done_s"][row, i])
                    transfers.append((int(source), row, way, begin, float(columns["start_s"][row])))
    return Timeline(
        columns["start_s"], columns["finish_s"], np.asarray(schedule.assignment), columns["held"] > 0.5, transfers
    )


@eqx.filter_jit
def recorded(workload, system, schedule, table):
    """Metrics, the traversal's record of every row, and the execution order."""
    return evaluate_one(workload, system, schedule, table, False, 0.05, record=True)
