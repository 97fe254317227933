"""The rows that the walk over a workload reads: one pytree of arrays, one row an operator, in execution order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..cost import CostTable, operator_cost, with_sub_batch
from ..hardware import Chiplets, System
from ..workload import Operators, Workload
from ._constants import one_memory, only_gpus
from ._rates import Paces, tier_paces
from ._schedule import Schedule, execution_order
from ._streams import Streams, make_streams
from ._tiers import default_shares


class Costs(NamedTuple):
    """What the walk needs of a cost table; of one row, tuples over columns."""

    exec_s: jax.Array  # [L, K]
    onchip_j: jax.Array  # [L, K]
    input_refetch: jax.Array  # [L, K]
    weight_refetch: jax.Array  # [L, K]
    working_bytes: jax.Array  # [L, K]
    launch_s: jax.Array | None = None  # [L, K] part of exec_s; None where nothing is fused
    moving_s: jax.Array | None = None  # [L, K]


_ALWAYS = Costs._fields[:5]


class Rows(NamedTuple):
    """Per operator, in execution order: costs, bytes of a pass, graph walk. `I` inputs, `K` columns, `M` models."""

    costs: Costs | Operators  # operators where each candidate has hardware of its own: costs are then made row by row
    weight_bytes: jax.Array  # [L]
    hold_bytes: jax.Array  # [L]
    out_bytes: jax.Array  # [L] written to memory where the result is not held
    outside_in: jax.Array  # [L]
    outside_out: jax.Array  # [L]
    input_bytes: jax.Array  # [L, I]
    input_release: jax.Array  # [L, I] held bytes given back after this row
    input_write: jax.Array  # [L, I] bytes of the whole tensor, for a held result that has to go through memory
    input_slot: jax.Array  # [L, I], -1: none
    slot: jax.Array  # [L]
    rate: jax.Array  # [L] passes of the row's model in a round
    of_model: jax.Array  # [L, M] one-hot
    first: jax.Array  # [L] 1.0 at the first row of a model
    live_bytes: jax.Array  # [L] most that one pass of the model holds while this row runs, wherever it is
    stream: Streams | None = None  # what is fused; None: nothing
    paces: Paces | None = None  # what a byte costs where it lives; None: the same everywhere, in the constants


def make_rows(
    workload: Workload, table: CostTable | None, schedule: Schedule, dtype, system: System
) -> tuple[Rows, int]:
    """Rows in execution order, and the number of registers they need."""
    scale = jnp.asarray(schedule.sub_batch, dtype)
    op, fused = workload.operators, schedule.fusion is not None and workload.source.shape[0] > 0
    if table is None:
        costs = jax.tree.map(jnp.asarray, with_sub_batch(op, scale))
    else:  # a table made for another sub-batch is scaled in proportion: exact where both agree
        times = scale / jnp.asarray(table.sub_batch, dtype)
        costs = _costs(table, dtype, fused)
        costs = costs._replace(exec_s=costs.exec_s * times, onchip_j=costs.onchip_j * times)
        if costs.launch_s is not None and costs.moving_s is not None:
            costs = costs._replace(launch_s=costs.launch_s * times, moving_s=costs.moving_s * times)

    def cast(x):
        return jnp.asarray(x, dtype)

    walk = _Walk(workload.inputs, workload.input_last, workload.slot, workload.input_slot, workload.first)
    n_slots, order = workload.n_slots, execution_order(workload, schedule)
    if order is not None:
        walk, n_slots = _reordered(workload, order)
    source = jnp.maximum(workload.inputs, 0)
    hold, out = cast(workload.hold_bytes) * scale, cast(op.out_elements * op.out_bits / 8) * scale
    out = jnp.where(hold > 0, out, 0.0)
    last = walk.input_last
    stream, live = make_streams(
        workload, schedule, hold, out, last, cast(workload.live_bytes) * scale, dtype,
        system.gpus is not None and table is not None,
    )  # fmt: skip
    paces = None
    if not one_memory(system):
        tiers = schedule.tiers
        if tiers is None:
            tiers = default_shares(workload, system, schedule.assignment, scale, dtype)
        paces = tier_paces(workload, system, tiers, only_gpus(system), last, out, scale, dtype)
    rows = Rows(
        costs=costs,
        weight_bytes=cast(op.weight_elements * op.weight_bits / 8),
        hold_bytes=hold,
        out_bytes=out,
        outside_in=cast(workload.outside_in_bytes) * scale,
        outside_out=cast(workload.outside_out_bytes) * scale,
        input_bytes=cast(workload.input_bytes) * scale,
        input_release=jnp.where(last, hold[source], 0.0),
        input_write=out[source],
        input_slot=jnp.asarray(walk.input_slot),
        slot=jnp.asarray(walk.slot),
        rate=cast(workload.rate)[workload.model],
        of_model=jax.nn.one_hot(workload.model, workload.n_models, dtype=dtype),
        first=cast(walk.first),
        live_bytes=live,
        stream=stream,
        paces=paces,
    )
    if order is not None:
        rows = jax.tree.map(lambda x: x[order], rows)
    return rows, n_slots


def row_costs(row: Rows, chiplets: tuple[Chiplets, ...], smooth: bool) -> Costs:
    """Costs of one row as tuples over columns: looked up, or made for each of `chiplets`."""
    if isinstance(row.costs, Costs):
        return Costs(*(c if c is None else tuple(c[k] for k in range(c.shape[0])) for c in row.costs))
    dtype = row.weight_bytes.dtype
    made = [_costs(operator_cost(row.costs, chip, smooth=smooth), dtype, row.stream is not None) for chip in chiplets]
    return Costs(*(None if getattr(made[0], f) is None else tuple(getattr(m, f) for m in made) for f in Costs._fields))


def _costs(table: CostTable, dtype, fused: bool = False) -> Costs:
    names = Costs._fields if fused else _ALWAYS
    return Costs(**{name: jnp.asarray(getattr(table, name), dtype) for name in names})


class _Walk(NamedTuple):
    inputs: jax.Array
    input_last: jax.Array
    slot: jax.Array
    input_slot: jax.Array
    first: jax.Array


def _reordered(workload: Workload, order) -> tuple[_Walk, int]:
    """The walk in another order, which may be traced: one register a row, last uses by position."""
    n = workload.n_operators
    position = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
    inputs = jnp.asarray(workload.inputs)
    source = jnp.maximum(inputs, 0)
    latest = jax.ops.segment_max(position[workload.target], workload.source, num_segments=n)
    # a tensor that one row reads twice is released by its first read there
    again = jnp.stack([jnp.any(inputs[:, :i] == inputs[:, i : i + 1], axis=1) for i in range(inputs.shape[1])], axis=1)
    last = (inputs >= 0) & (latest[source] == position[:, None]) & ~again
    model = jnp.asarray(workload.model)
    earliest = jax.ops.segment_min(position, model, num_segments=workload.n_models)
    here = jnp.arange(n, dtype=jnp.int32)
    return _Walk(inputs, last, here, jnp.where(inputs >= 0, source, -1), position == earliest[model]), n
