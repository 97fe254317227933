"""The rows that the traversal of a workload reads: one pytree of arrays, one row an operator, in execution order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..cost import CostTable, operator_cost, with_sub_batch
from ..hardware import System
from ..workload import Operators, Workload
from ._access import Accesses, tier_access
from ._constants import Constants, one_memory
from ._placement import vector
from ._schedule import Schedule, execution_order
from ._streams import Streams, make_streams
from ._tiers import default_shares


class Costs(NamedTuple):
    """What the traversal needs of a cost table; of one row, values over columns."""

    exec_s: jax.Array  # [L, K]
    onchip_j: jax.Array  # [L, K]
    input_refetch: jax.Array  # [L, K]
    weight_refetch: jax.Array  # [L, K]
    working_bytes: jax.Array  # [L, K]
    launch_s: jax.Array | None = None  # [L, K] part of exec_s; None where nothing is fused
    moving_s: jax.Array | None = None  # [L, K]


_ALWAYS = Costs._fields[:5]


class Rows(NamedTuple):
    """Per operator, in execution order: costs, bytes of a pass, graph. `I` inputs, `K` columns, `M` models."""

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
    rate: jax.Array  # [L] how often it runs in a round: passes of its model times `count`
    of_model: jax.Array  # [L, M] one-hot
    first: jax.Array  # [L] 1.0 at the first row of a model
    live_bytes: jax.Array  # [L] most that one pass of the model holds while this row runs, wherever it is
    count: jax.Array  # [L] how many equal rows it stands for, one after another; 0: it only fills a program up
    stream: Streams | None = None  # what is fused; None: nothing
    access: Accesses | None = None  # where its bytes live; None: the same everywhere, in the constants


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

    count = jnp.ones(workload.n_operators, dtype)
    if workload.count is not None:
        count = cast(workload.count)
        if isinstance(costs, Costs):  # a row that fills up costs nothing, whatever a formula makes of it
            costs = jax.tree.map(lambda c: jnp.where(count[:, None] > 0, c, 0.0), costs)
    graph = _Graph(workload.inputs, workload.input_last, workload.slot, workload.input_slot, workload.first)
    n_slots, order = workload.n_slots, execution_order(workload, schedule)
    if order is not None:
        graph, n_slots = _reordered(workload, order)
    source = jnp.maximum(workload.inputs, 0)
    hold, out = cast(workload.hold_bytes) * scale, cast(op.out_elements * op.out_bits / 8) * scale
    out = jnp.where(hold > 0, out, 0.0)
    last = graph.input_last
    stream, live = make_streams(
        workload, schedule, hold, out, last, cast(workload.live_bytes) * scale, dtype,
        system.gpus is not None and table is not None,
    )  # fmt: skip
    access = None
    if not one_memory(system):
        tiers = schedule.tiers
        if tiers is None:
            tiers = default_shares(workload, system, schedule.assignment, scale, dtype)
        access = tier_access(workload, system, tiers, last, out, scale, dtype)
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
        input_slot=jnp.asarray(graph.input_slot),
        slot=jnp.asarray(graph.slot),
        rate=cast(workload.rate)[workload.model] * count,
        of_model=jax.nn.one_hot(workload.model, workload.n_models, dtype=dtype) * jnp.minimum(count, 1.0)[:, None],
        first=cast(graph.first),
        live_bytes=live,
        count=count,
        stream=stream,
        access=access,
    )
    if order is not None:
        rows = jax.tree.map(lambda x: x[order], rows)
    return rows, n_slots


def row_costs(row: Rows, k: Constants, smooth: bool) -> Costs:
    """Costs of one row over columns: looked up, or made for each of the chiplets. A row that fills up needs nothing."""
    if isinstance(row.costs, Costs):
        return Costs(*(c if c is None else vector(c, k.scalars) for c in row.costs))
    dtype, fused = row.weight_bytes.dtype, row.stream is not None
    chips = k.chiplets if k.scalars else (k.chiplets,)
    made = [_costs(operator_cost(row.costs, chip, smooth=smooth), dtype, fused) for chip in chips]
    made = [jax.tree.map(lambda c: jnp.where(row.count > 0, c, 0.0), costs) for costs in made]
    if not k.scalars:
        return made[0]
    return Costs(*(None if getattr(made[0], f) is None else tuple(getattr(m, f) for m in made) for f in Costs._fields))


def _costs(table: CostTable, dtype, fused: bool = False) -> Costs:
    names = Costs._fields if fused else _ALWAYS
    return Costs(**{name: jnp.asarray(getattr(table, name), dtype) for name in names})


class _Graph(NamedTuple):
    inputs: jax.Array
    input_last: jax.Array
    slot: jax.Array
    input_slot: jax.Array
    first: jax.Array


def _reordered(workload: Workload, order) -> tuple[_Graph, int]:
    """The graph in another order, which may be traced: one register a row, last uses by position."""
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
    return _Graph(inputs, last, here, jnp.where(inputs >= 0, source, -1), position == earliest[model]), n
