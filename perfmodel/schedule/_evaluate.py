"""`evaluate(workload, system, schedule) -> Metrics`: the one function that everything else prepares, searches or shows."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ..cost import CostTable, cost_table
from ..hardware import System
from ..workload import Workload
from ._metrics import Metrics
from ._residency import residency
from ._rows import execution_order, make_rows
from ._schedule import Schedule
from ._steady_state import metrics
from ._walk import Constants, walk


def evaluate(
    workload: Workload,
    system: System,
    schedule: Schedule,
    *,
    table: CostTable | None = None,
    smooth: bool = False,
    temperature=0.05,
) -> Metrics:
    """Metrics of one schedule of one workload on one system; `jit`, `vmap` and `grad` work on it.

    **Arguments:**
    - `schedule`: hard or relaxed.
    - `table`: costs made by `cost_table`; None: made inside, so that gradients reach every hardware parameter.
    - `smooth` (static): maxima over resources and models, fits and ceilings become smooth; `temperature` (traced) is
      relative: a smooth maximum of R values lies between the maximum and R**temperature times it. The timeline keeps exact
      maxima, whose subgradients suffice (a smoothed chain of L operators would inflate with L).

    Raises ValueError where shapes, or concrete placements, do not belong to the workload and system. Infeasible is a result:
    `feasible` and `violations`. How time and energy are counted: docs/model.md.
    """
    schedule.check(workload, system.n_chiplets)
    return _evaluate(workload, system, schedule, table, smooth, temperature, 1, False)


def _evaluate(workload, system, schedule, table, smooth, temperature, unroll, remat) -> Metrics:
    if table is None:
        table = cost_table(workload, system, schedule.sub_batch, smooth=smooth)
    dtype = jnp.result_type(float)
    n, assignment = system.n_chiplets, jnp.asarray(schedule.assignment)
    rows, n_slots = make_rows(workload, table, schedule, dtype)
    order = execution_order(workload, schedule)
    placed = assignment if order is None else assignment[order]
    window = None if schedule.window is None else jnp.asarray(schedule.window, jnp.int32)[order]

    # the largest streaming tile of any operator stays free everywhere, so that no live tensor can keep an operator from running
    working = jnp.max(jnp.asarray(table.working_bytes, dtype))
    stay = residency(rows, placed, system, working, smooth=smooth, temperature=temperature, unroll=unroll)
    constants = _constants(system, table, stay, dtype)

    def one(rows):
        return walk(
            rows, placed, window, constants, n_slots, workload.n_models,
            smooth=smooth, temperature=temperature, unroll=unroll, remat=remat,
        )  # fmt: skip

    if schedule.n_windows == 1:
        total, latency = one(rows)
        totals = [total]
    else:  # what each window adds up to; the timeline is the same every time
        runs = [one(rows._replace(rate=jnp.where(window == w, rows.rate, 0.0))) for w in range(schedule.n_windows)]
        totals, latency = [total for total, _ in runs], runs[0][1]
    return metrics(
        totals, latency, stay.resident, _violations(workload, system, schedule, table, placed, order, dtype),
        workload, system, jnp.asarray(schedule.sub_batch, dtype), smooth=smooth, temperature=temperature,
    )  # fmt: skip


def _constants(system: System, table: CostTable, stay, dtype) -> Constants:
    n, package = system.n_chiplets, jax.tree.map(lambda x: jnp.asarray(x, dtype), system.package)
    memory_s_per_byte = 1.0 / jnp.asarray(system.memory.bytes_per_s, dtype)[0]
    latency = jnp.asarray(system.memory.latency_s, dtype)[0]
    column = None
    if table.column is not None:
        column = tuple(
            tuple((jnp.asarray(table.column)[d] == c).astype(dtype) for c in range(table.weight_bytes.shape[1])) for d in range(n)
        )
    return Constants(
        room=stay.room,
        loads=tuple(1.0 - r for r in stay.resident),
        buffer_j_per_byte=tuple(jnp.asarray(system.chiplets.buffer_j_per_byte, dtype)[d] for d in range(n)),
        direct=system.package.direct,
        column=column,
        hops=tuple(tuple(package.hops[a, b] for b in range(n)) for a in range(n)),
        hop_s=package.hop_s,
        network_s_per_byte=1.0 / jnp.minimum(package.link_bytes_per_s, package.port_bytes_per_s),
        memory_s_per_byte=memory_s_per_byte,
        memory_s=tuple(latency + package.memory_hops[d] * package.hop_s for d in range(n)),
    )


def _violations(workload, system, schedule, table, placed, order, dtype) -> jax.Array:
    """Amounts, in the order of `VIOLATIONS`."""
    op = workload.operators
    stored = jnp.sum(jnp.asarray(op.parameters * op.weight_bits / 8, dtype))
    capacity = jnp.asarray(system.memory.capacity_bytes, dtype)[0]
    # a chiplet type that cannot hold an operator's smallest tile cannot run it
    fit = jnp.asarray(table.fits, dtype)
    unfit = jnp.sum(1.0 - jnp.min(fit, axis=1))
    against = jnp.zeros((), dtype)
    if order is not None:
        n = workload.n_operators
        position = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
        against = jnp.sum((position[workload.source] > position[workload.target]).astype(dtype))
    return jnp.stack([jnp.maximum(stored - capacity, 0.0), unfit, against])
