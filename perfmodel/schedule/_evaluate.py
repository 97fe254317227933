"""`evaluate(workload, system, schedule) -> Metrics`: the one function that everything else prepares, searches or shows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..cost import CostTable, run_compiled, table_of
from ..hardware import System
from ..workload import Workload
from ._constants import Constants, few_enough, make_constants, one_memory
from ._metrics import Metrics
from ._placement import vector
from ._residency import Residency, residency
from ._rows import Rows, execution_order, make_rows
from ._schedule import Schedule, filled_up
from ._steady_state import metrics
from ._tiers import over_bytes
from ._traversal import traverse


def evaluate(
    workload: Workload,
    system: System,
    schedule: Schedule,
    *,
    table: CostTable | None = None,
    smooth: bool = False,
    temperature=0.05,
    warm: bool = True,
) -> Metrics:
    """Metrics of one schedule of one workload on one system; `jit`, `vmap`, `grad` and all that JAX has work on it.

    **Arguments:**
    - `schedule`: hard or relaxed.
    - `table`: costs made by `cost_table`; None: made inside, so that gradients reach every hardware parameter.
    - `smooth` (static): maxima over resources and models, fits and ceilings become smooth; `temperature` (traced) is
      relative: a smooth maximum of R values lies between the maximum and R**temperature times it. The timeline keeps exact
      maxima, whose subgradients suffice (a smoothed chain of L operators would inflate with L).
    - `warm` (static): weights that stay in buffers (`Metrics.resident`) are there when a pass begins; else `latency_s` loads them.

    Compiled once for all workloads, systems and schedules of one kind: names are no part of the program, and numbers of operators and
    edges are filled up to round ones. Raises ValueError where shapes, or concrete placements, do not belong to the workload and system.
    Infeasible is a result: `feasible` and `violations`. How time and energy are counted: docs/model.md.
    """
    schedule.check(workload, system.n_chiplets, system.memory.n_tiers)
    rest = filled_up(workload, schedule, table)
    return run_compiled(_metrics_of, workload, system, *rest, temperature, smooth=smooth, warm=warm)


def _metrics_of(workload, system, schedule, table, temperature, *, smooth: bool, warm: bool) -> Metrics:
    if table is None:  # here, so that gradients reach the hardware through the table and not through the traversal
        table = table_of(workload, system, schedule.sub_batch, smooth=smooth)
    return evaluate_one(workload, system, schedule, table, smooth, temperature, warm=warm)[0]


class Traversable(NamedTuple):
    """What a traversal takes, made of a workload, a system and a schedule."""

    rows: Rows
    placed: jax.Array
    window: jax.Array | None
    constants: Constants
    residency: Residency
    n_slots: int
    order: jax.Array | None


def prepared(workload, system, schedule, table, smooth, temperature, unroll=1, scalars=False) -> Traversable:
    """Rows in execution order, placements, hardware and residency of one candidate."""
    dtype = jnp.result_type(float)
    assignment = jnp.asarray(schedule.assignment)
    rows, n_slots = make_rows(workload, table, schedule, dtype, system)
    order = execution_order(workload, schedule)
    placed = assignment if order is None else assignment[order]
    window = None if schedule.window is None else jnp.asarray(schedule.window, jnp.int32)
    window = window if window is None or order is None else window[order]
    constants = make_constants(system, table, dtype, scalars=scalars)
    held = residency(rows, placed, constants, smooth=smooth, temperature=temperature, unroll=unroll)
    return Traversable(rows, placed, window, constants, held, n_slots, order)


def evaluate_one(workload, system, schedule, table, smooth, temperature, unroll=1, remat=False, record=False,
                 scalars=False, warm=True):  # fmt: skip
    """What `evaluate`, `timeline` and the batched evaluator share. Without a table the costs are made row by row, inside the
    traversal. `scalars`: values over chiplets as scalars, for a batch on a CPU. Returns Metrics, the traversal's `Record` (None unless
    asked for) and the execution order (None: as the rows stand)."""
    dtype = jnp.result_type(float)
    scalars = scalars and few_enough(system) and not schedule.is_relaxed
    made = prepared(workload, system, schedule, table, smooth, temperature, unroll, scalars)

    def one(rows):
        return traverse(
            rows, made.placed, made.window, made.constants, made.residency, made.n_slots, workload.n_models,
            smooth=smooth, temperature=temperature, warm=warm, unroll=unroll, remat=remat, record=record,
        )  # fmt: skip

    if schedule.n_windows == 1:
        total, latency, seen = one(made.rows)
        totals = [total]
    else:  # what each window adds up to; the timeline is the same every time
        runs = [
            one(made.rows._replace(rate=jnp.where(made.window == w, made.rows.rate, 0.0)))
            for w in range(schedule.n_windows)
        ]
        totals, (_, latency, seen) = [run[0] for run in runs], runs[0]
    found = metrics(
        totals, latency, made.residency.resident, _violations(workload, system, schedule, totals[0], made.order, dtype),
        workload, system, jnp.asarray(schedule.sub_batch, dtype), smooth=smooth, temperature=temperature,
    )  # fmt: skip
    return found, seen, made.order


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
    """`[T]` bytes that do not fit each tier. One tier alone: results that pass through it are not counted."""
    if one_memory(system):
        op = workload.operators
        kept = workload.kv_bytes_per_token * workload.kv_tokens + workload.state_bytes
        count = 1.0 if workload.count is None else jnp.asarray(workload.count, dtype)
        stored = jnp.sum(jnp.asarray(op.parameters * op.weight_bits / 8, dtype) * count) + jnp.sum(
            jnp.asarray(kept, dtype)
        )
        return jnp.maximum(stored - jnp.asarray(system.memory.capacity_bytes, dtype), 0.0)
    resting = jnp.stack([vector(tier, False) for tier in total.resting])
    return over_bytes(
        workload, system, schedule.assignment, schedule.tiers, resting, jnp.asarray(schedule.sub_batch, dtype), dtype
    )
