"""`evaluate(workload, system, schedule) -> Metrics`: the one function that everything else prepares, searches or shows."""

import jax
import jax.numpy as jnp

from ..cost import CostTable, cost_table
from ..hardware import System
from ..workload import Workload
from ._constants import make_constants, one_memory
from ._metrics import Metrics
from ._residency import residency
from ._rows import execution_order, make_rows
from ._schedule import Schedule
from ._steady_state import metrics
from ._tiers import over_bytes
from ._traversal import walk


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
    schedule.check(workload, system.n_chiplets, system.memory.n_tiers)
    if table is None:  # here, so that gradients reach the hardware through the table and not through the walk
        table = cost_table(workload, system, schedule.sub_batch, smooth=smooth)
    return evaluate_one(workload, system, schedule, table, smooth, temperature)[0]


def evaluate_one(workload, system, schedule, table, smooth, temperature, unroll=1, remat=False, record=False):
    """What `evaluate`, `timeline` and the batched evaluator share. Without a table the costs are made row by row, inside the
    walk. Returns Metrics, the walk's `Record` (None unless asked for) and the execution order (None: as the rows stand)."""
    dtype = jnp.result_type(float)
    assignment = jnp.asarray(schedule.assignment)
    rows, n_slots = make_rows(workload, table, schedule, dtype, system)
    order = execution_order(workload, schedule)
    placed = assignment if order is None else assignment[order]
    window = None if schedule.window is None else jnp.asarray(schedule.window, jnp.int32)[order]

    constants = make_constants(system, table, dtype)
    stay = residency(rows, placed, constants, smooth=smooth, temperature=temperature, unroll=unroll)

    def one(rows):
        return walk(
            rows, placed, window, constants, stay, n_slots, workload.n_models,
            smooth=smooth, temperature=temperature, unroll=unroll, remat=remat, record=record,
        )  # fmt: skip

    if schedule.n_windows == 1:
        total, latency, seen = one(rows)
        totals = [total]
    else:  # what each window adds up to; the timeline is the same every time
        runs = [one(rows._replace(rate=jnp.where(window == w, rows.rate, 0.0))) for w in range(schedule.n_windows)]
        totals, (_, latency, seen) = [run[0] for run in runs], runs[0]
    found = metrics(
        totals, latency, stay.resident, _violations(workload, system, schedule, totals[0], order, dtype),
        workload, system, jnp.asarray(schedule.sub_batch, dtype), smooth=smooth, temperature=temperature,
    )  # fmt: skip
    return found, seen, order


def _violations(workload, system, schedule, total, order, dtype) -> jax.Array:
    """Amounts, in the order of `violation_names`."""
    over = _over_bytes(workload, system, schedule, total, dtype)
    against = jnp.zeros((), dtype)
    if order is not None:
        n = workload.n_operators
        position = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
        against = jnp.sum((position[workload.source] > position[workload.target]).astype(dtype))
    found = jnp.stack([jnp.sum(over), jnp.maximum(total.excess_bytes, 0.0), against])
    return found if system.memory.n_tiers == 1 else jnp.concatenate([found, over])


def _over_bytes(workload, system, schedule, total, dtype) -> jax.Array:
    """`[T]` bytes that do not fit each tier of memory. One tier alone: results that pass through it are not counted."""
    if one_memory(system):
        op = workload.operators
        kept = workload.kv_bytes_per_token * workload.kv_tokens + workload.state_bytes
        stored = jnp.sum(jnp.asarray(op.parameters * op.weight_bits / 8, dtype)) + jnp.sum(jnp.asarray(kept, dtype))
        return jnp.maximum(stored - jnp.asarray(system.memory.capacity_bytes, dtype), 0.0)
    sub_batch, resting = jnp.asarray(schedule.sub_batch, dtype), jnp.stack([jnp.stack(tier) for tier in total.resting])
    return over_bytes(workload, system, schedule.assignment, schedule.tiers, resting, sub_batch, dtype)
