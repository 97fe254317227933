"""The schedule that is used when none is given: stated, simple, and fair to every system."""

import numpy as np

from ..cost import CostTable, cost_table
from ..hardware import System
from ..workload import Workload
from ._schedule import Schedule

GREEDY = "greedy-earliest-finish"


def greedy_schedule(workload: Workload, system: System, *, table: CostTable | None = None) -> Schedule:
    """Each operator where it finishes first, transfers counted, the other models already on their chiplets.

    In workload order: finish = max(chiplet free, inputs there) + execution time, a transfer between chiplets costing
    bytes / min(link, port) + hops * latency. Ties go to the first chiplet. Work of all models is laid on one clock, each
    model's times its rate, so that the models spread over the package.
    """
    table = cost_table(workload, system) if table is None else table
    package = system.package
    exec_s = np.asarray(table.exec_s, float)
    if table.column is not None:
        exec_s = exec_s[:, np.asarray(table.column)]
    slowest = float(min(package.link_bytes_per_s, package.port_bytes_per_s))
    hops, hop_s = np.asarray(package.hops), float(package.hop_s)
    free, done = np.zeros(system.n_chiplets), np.zeros(workload.n_operators)
    where = np.zeros(workload.n_operators, np.int32)
    for row in range(workload.n_operators):
        rate = float(workload.rate[workload.model[row]])
        ready = np.zeros(system.n_chiplets)
        for source, nbytes in zip(workload.inputs[row], workload.input_bytes[row], strict=True):
            if source >= 0:
                away = hops[where[source]] > 0
                ready = np.maximum(ready, done[source] + away * (nbytes / slowest + hops[where[source]] * hop_s) * rate)
        finish = np.maximum(ready, free) + exec_s[row] * rate
        where[row] = int(np.argmin(finish))
        free[where[row]] = done[row] = finish[where[row]]
    return Schedule(where)
