"""The cost table: every operator on every chiplet, whatever the schedule."""

from dataclasses import fields, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._software import NONE
from ..hardware import DATAFLOWS, Chiplets, System
from ..workload import Operators, Workload
from ._collective_rows import has_collectives, with_collectives, with_ways
from ._columns import CostTable, operator_cost, with_sub_batch
from ._fused import fused_kinds
from ._program import alone, run_compiled
from .kernels._columns import GPU, with_gpu_columns
from .kernels._kernel_set import GpuKernels
from .nest._table import Mappings, nest_costs, work_of


def cost_table(
    workload: Workload, system: System, sub_batch=1, *, by_type: bool = False, smooth: bool = False,
    mappings: Mappings | None = None, kernels: GpuKernels | None = None,
) -> CostTable:  # fmt: skip
    """Costs of every operator on every chiplet of `system` (`L x D`), or on every chiplet type (`by_type`, `L x K`).

    **Arguments:** `sub_batch`: inferences in a pass, traced; weights are fetched once for all of them.
    `smooth` (static): ceilings become smooth; the mapper's discrete choice is always held fixed by gradients.
    `mappings`: loop nests of `map_workload` in place of the closed form of each dataflow, made for this workload, these
    types of chiplet and this `sub_batch`; ValueError where they are not, or where the types of chiplets are traced;
    not together with `smooth` or `kernels` (ValueError).
    `kernels`: constants of GPUs (`gpu_kernels`), leaves `[K]`; None: those of the system, else the shipped ones.
    """
    if mappings is not None:
        if smooth or kernels is not None:
            raise ValueError("mappings are whole loop nests of arrays; they go with neither smooth nor kernels")
        if any(fused_kinds(workload.operators, NONE)):
            raise ValueError("mappings are loop nests of single operators; rows of attention or experts are several")
        table = _mapped(workload.operators, system, sub_batch, mappings, by_type)
        known = with_ways(system) if has_collectives(workload.operators) else system
        return with_collectives(table, workload.operators, known, sub_batch, by_type)
    if kernels is not None:
        system = replace(system, kernels=kernels)
    mixed = not jnp.issubdtype(jnp.result_type(system.kind), jnp.integer)
    if not by_type and mixed and system.gpus is not None and _some_gpu(system.types):
        raise ValueError(f"{system.name}: chiplets are mixtures of types, some of them GPUs; needed: a table by type")
    table = run_compiled(table_of, workload, system, sub_batch, by_type=by_type, smooth=smooth)
    return _cut(table, workload.n_operators)


def table_of(
    workload: Workload, system: System, sub_batch, *, by_type: bool = False, smooth: bool = False
) -> CostTable:
    """`cost_table` as a part of a program that is being traced: nothing is filled up, checked or compiled by itself."""
    chiplets, column = (system.types, system.kind) if by_type else (system.chiplets, None)
    fused = fused_kinds(workload.operators, system.software)
    table = _table(workload.operators, chiplets, sub_batch, column, smooth, any(fused) and _some_array(system.types))
    if system.gpus is None or not _some_gpu(system.types):
        return with_collectives(table, workload.operators, system, sub_batch, by_type)
    kernels, gpus = system.kernels, system.gpus
    if not by_type:
        gpus, kernels = jax.tree.map(lambda x: jnp.asarray(x)[system.kind], (gpus, kernels))
    scaled = with_sub_batch(workload.operators, sub_batch)
    # one program whatever the type of `sub_batch`
    dtype = jnp.result_type(float)
    scaled = eqx.tree_at(
        lambda o: o.kind, jax.tree.map(lambda x: jnp.asarray(x, dtype), scaled), jnp.asarray(scaled.kind)
    )
    table = with_gpu_columns(table, scaled, chiplets, gpus, kernels, system.memory, system.software, fused)
    return with_collectives(table, workload.operators, system, sub_batch, by_type)


def _cut(table: CostTable, n: int) -> CostTable:
    """The table without the rows that filled up its workload; on the host, where no program is compiled for it."""
    if table.compute_s.shape[0] == n:
        return table
    rows = {f.name: getattr(table, f.name) for f in fields(table) if f.name not in ("sub_batch", "column")}
    if alone():
        cut = {name: jax.device_put(np.asarray(x)[:n]) for name, x in rows.items()}
    else:
        cut = {name: x[:n] for name, x in rows.items()}
    return replace(table, **cut)


def _some_gpu(types: Chiplets) -> bool:
    if types.known is not None:
        return GPU in types.known
    return isinstance(types.dataflow, Tracer) or bool(np.any(np.asarray(types.dataflow) == GPU))


def _some_array(types: Chiplets) -> bool:
    """Whether a type is no GPU, as far as that is known."""
    if types.known is not None:
        return types.known != (GPU,)
    return isinstance(types.dataflow, Tracer) or bool(np.any(np.asarray(types.dataflow) != GPU))


def _mapped(operators: Operators, system: System, sub_batch, mappings: Mappings, by_type: bool) -> CostTable:
    needed = len(operators), len(system.type_names)
    if mappings.fits.shape != needed:
        got = mappings.fits.shape
        raise ValueError(f"mappings: {got[0]} operators on {got[1]} types; needed: {needed[0]} on {needed[1]}")
    flows = (
        None if isinstance(system.types.dataflow, Tracer) else tuple(DATAFLOWS[int(c)] for c in system.types.dataflow)
    )
    if flows not in (None, mappings.dataflows):
        raise ValueError(
            f"mappings are of dataflows {', '.join(mappings.dataflows)}; the system has {', '.join(flows)}"
        )
    if not isinstance(operators.k, Tracer) and mappings.work != work_of(operators):
        raise ValueError("mappings were made for other operators")
    if not isinstance(sub_batch, Tracer) and float(sub_batch) != mappings.sub_batch:
        raise ValueError(f"mappings were made for sub_batch {mappings.sub_batch}; the table needs {float(sub_batch):g}")
    if by_type:
        kinds = tuple(range(needed[1]))
        return _mapped_table(operators, system.types, system.memory, sub_batch, system.kind, mappings, kinds)
    if isinstance(system.kind, Tracer) or not np.issubdtype(np.asarray(system.kind).dtype, np.integer):
        raise ValueError("mappings: the types of chiplets are traced or mixed; needed: a table by type")
    kinds = tuple(int(k) for k in np.asarray(system.kind))
    return _mapped_table(operators, system.chiplets, system.memory, sub_batch, None, mappings, kinds)


@eqx.filter_jit
def _mapped_table(operators, chiplets, memory, sub_batch, column, mappings: Mappings, kinds) -> CostTable:
    plain = _table(operators, chiplets, sub_batch, column, False, False)
    scaled = with_sub_batch(operators, sub_batch)
    found = nest_costs(scaled, chiplets, memory, mappings, kinds)
    matrix = (jnp.asarray(operators.is_matrix) > 0)[:, None]
    attention = jnp.asarray(operators.is_attention)[:, None]
    chip = jax.tree.map(lambda x: jnp.asarray(x)[None, :], chiplets)
    scaled = jax.tree.map(lambda x: jnp.asarray(x)[:, None], scaled)
    # both operands of attention are inputs
    second = 1.0 * scaled.groups * scaled.batch * scaled.k * scaled.c  # in floats: it may pass 2**31
    both = found.input_refetch + (found.weight_refetch - found.input_refetch) * second / jnp.maximum(
        scaled.in_elements, 1.0
    )
    lanes = scaled.lane_ops * chip.lane_op_j
    return CostTable(
        compute_s=jnp.where(matrix, found.cycles / chip.clock_hz, plain.compute_s),
        transfer_s=jnp.where(matrix, found.buffer_bytes / chip.buffer_bytes_per_s, plain.transfer_s),
        fill_s=plain.fill_s,
        launch_s=plain.launch_s,
        moving_s=plain.moving_s,
        onchip_j=jnp.where(matrix, found.onchip_j + lanes, plain.onchip_j),
        weight_bytes=plain.weight_bytes,
        input_refetch=jnp.where(matrix, jnp.where(attention, both, found.input_refetch), plain.input_refetch),
        weight_refetch=jnp.where(matrix & ~attention, found.weight_refetch, plain.weight_refetch),
        working_bytes=plain.working_bytes,
        sub_batch=plain.sub_batch,
        column=column,
    )


def _table(operators: Operators, chiplets: Chiplets, sub_batch, column, smooth: bool, fused: bool) -> CostTable:
    rows = jax.tree.map(lambda x: jnp.asarray(x)[:, None], with_sub_batch(operators, sub_batch))
    columns = jax.tree.map(lambda x: jnp.asarray(x)[None, :], chiplets)
    return operator_cost(rows, columns, sub_batch, smooth, column, fused)
