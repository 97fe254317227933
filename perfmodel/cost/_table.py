"""The cost table: every operator on every chiplet, whatever the schedule."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from ..hardware import DATAFLOWS, Chiplets, System
from ..workload import Operators, Workload
from ._dataflow import on_chip
from ._gpu_table import GPU, GpuKernels, gpu_kernels, with_gpu_columns
from ._mapped_table import Mappings, nest_costs, work_of
from ._tiling import tiling


class CostTable(eqx.Module):
    """Costs of one pass of `L` operators on `K` chiplets (or chiplet types).

    - `compute_s`: array or lanes.  `transfer_s`: between buffer and array, overlapped with compute.
      `fill_s`: fill, drain and launch.  `exec_s` = the larger of the first two + the third.  Of a GPU all is `compute_s`.
    - `launch_s`: of `exec_s`, what an operator fused into the one before it does not spend.  `moving_s`: of `exec_s`, what
      shrinks with the operands that fusion keeps a vector kernel of a GPU from moving (0 elsewhere).
    - `onchip_j`: MACs, lanes, local stores and buffer.
    - `weight_bytes`: weights of the pass.  `input_refetch, weight_refetch`: how often each is fetched when it comes
      from memory (attention: `input_refetch` is the mean of both operands).  `working_bytes`: least buffer to run in.
    - `sub_batch`: inferences of a pass the table was made for.
    - `column`: column of each of the `D` chiplets (floats `D x K`: a mixture of columns); None: column d is chiplet d.
    """

    compute_s: Float[Array, "L K"]
    transfer_s: Float[Array, "L K"]
    fill_s: Float[Array, "L K"]
    launch_s: Float[Array, "L K"]
    moving_s: Float[Array, "L K"]
    onchip_j: Float[Array, "L K"]
    weight_bytes: Float[Array, "L K"]
    input_refetch: Float[Array, "L K"]
    weight_refetch: Float[Array, "L K"]
    working_bytes: Float[Array, "L K"]
    sub_batch: Float[Array, ""]
    column: Int[Array, "D"] | None = None

    @property
    def exec_s(self) -> Float[Array, "L K"]:
        return jnp.maximum(self.compute_s, self.transfer_s) + self.fill_s


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
        return _mapped(workload.operators, system, sub_batch, mappings, by_type)
    chiplets, column = (system.types, system.kind) if by_type else (system.chiplets, None)
    table = _table(workload.operators, chiplets, sub_batch, column, smooth)
    if system.gpus is None or not _some_gpu(system.types):
        return table
    kernels = kernels or system.kernels or gpu_kernels(system.gpu_names)
    gpus = system.gpus
    if not by_type:
        kind = jnp.asarray(system.kind)
        if not jnp.issubdtype(kind.dtype, jnp.integer):
            raise ValueError(
                f"{system.name}: chiplets are mixtures of types, some of them GPUs; needed: a table by type"
            )
        gpus, kernels = jax.tree.map(lambda x: jnp.asarray(x)[kind], (gpus, kernels))
    scaled = with_sub_batch(workload.operators, sub_batch)
    # one program whatever the type of `sub_batch`
    dtype = jnp.result_type(float)
    scaled = eqx.tree_at(
        lambda o: o.kind, jax.tree.map(lambda x: jnp.asarray(x, dtype), scaled), jnp.asarray(scaled.kind)
    )
    return with_gpu_columns(table, scaled, chiplets, gpus, kernels, system.memory)


def _some_gpu(types: Chiplets) -> bool:
    return isinstance(types.dataflow, Tracer) or bool(np.any(np.asarray(types.dataflow) == GPU))


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
    plain = _table(operators, chiplets, sub_batch, column, False)
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


@eqx.filter_jit
def _table(operators: Operators, chiplets: Chiplets, sub_batch, column, smooth: bool) -> CostTable:
    rows = jax.tree.map(lambda x: jnp.asarray(x)[:, None], with_sub_batch(operators, sub_batch))
    columns = jax.tree.map(lambda x: jnp.asarray(x)[None, :], chiplets)
    return operator_cost(rows, columns, sub_batch, smooth, column)


def with_sub_batch(op: Operators, sub_batch) -> Operators:
    """The same operators on `sub_batch` inferences at once: more pixels (more groups where no weights are shared)."""
    sub_batch = jnp.asarray(sub_batch)

    def scale(field, when):
        return jnp.where(when, field * sub_batch, jnp.asarray(field))

    attention = op.is_attention
    gemm = (op.is_matrix > 0) & (op.q == 1) & ~attention
    return eqx.tree_at(
        lambda o: (o.groups, o.p, o.batch, o.lane_ops, o.in_elements, o.out_elements),
        op,
        (
            scale(op.groups, attention),
            scale(op.p, gemm),
            scale(op.batch, ~attention & ~gemm),
            op.lane_ops * sub_batch,
            op.in_elements * sub_batch,
            op.out_elements * sub_batch,
        ),
    )


def operator_cost(op: Operators, chip: Chiplets, sub_batch=1, smooth: bool = False, column=None) -> CostTable:
    """Elementwise: fields of operators and chiplets broadcast against each other. Used for tables and inside sweeps."""
    inside, tiles = on_chip(op, chip, smooth), tiling(op, chip, smooth)
    energy = (
        op.macs * chip.mac_j
        + op.lane_ops * chip.lane_op_j
        + inside.local_bytes * chip.local_j_per_byte
        + inside.buffer_bytes * chip.buffer_j_per_byte
    )
    ones = jnp.ones_like(energy)
    return CostTable(
        compute_s=inside.cycles / chip.clock_hz * ones,
        transfer_s=inside.buffer_bytes / chip.buffer_bytes_per_s * ones,
        fill_s=(inside.fill_cycles / chip.clock_hz + chip.launch_s) * ones,
        launch_s=chip.launch_s * ones,
        moving_s=0.0 * ones,
        onchip_j=energy,
        weight_bytes=op.weight_elements * op.weight_bits / 8 * ones,
        input_refetch=tiles.input_refetch * ones,
        weight_refetch=tiles.weight_refetch * ones,
        working_bytes=tiles.working_bytes * ones,
        sub_batch=jnp.asarray(sub_batch, energy.dtype),
        column=column,
    )
