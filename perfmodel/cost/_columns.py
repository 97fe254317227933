"""The columns that every device fills: what one operator costs on one chiplet, and the closed forms of dataflows that fill them."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._numerics import ceil_divide
from ..hardware import Chiplets
from ..workload import Operators
from ._dataflow import OnChip, on_chip
from ._fused import products_of
from ._tiling import Tiling, tiling


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


def with_sub_batch(op: Operators, sub_batch) -> Operators:
    """The same operators on `sub_batch` inferences at once: more pixels (more groups where no weights are shared)."""
    sub_batch = jnp.asarray(sub_batch)

    def scale(field, when):
        return jnp.where(when, field * sub_batch, jnp.asarray(field))

    attention = op.is_attention
    gemm = (op.is_matrix > 0) & (op.q == 1) & ~attention & ~op.is_fused_attention
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


def operator_cost(
    op: Operators, chip: Chiplets, sub_batch=1, smooth: bool = False, column=None, fused: bool = False
) -> CostTable:
    """Elementwise: fields of operators and chiplets broadcast against each other. Used for tables and inside sweeps.

    `fused` (static): some rows are of kind `attention` or `experts`; without it they are taken for one product of their bounds."""
    inside, tiles = _inside(op, chip, smooth, fused)
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


def _inside(op: Operators, chip: Chiplets, smooth: bool, fused: bool) -> tuple[OnChip, Tiling]:
    """Inside the chiplet, and how often operands are fetched. Of rows that are several operators both products and, behind them, the
    lanes; each operand passes once, as far as memory sees."""
    if not fused:
        return on_chip(op, chip, smooth), tiling(op, chip, smooth)
    several = op.is_fused_attention | op.is_experts
    first, second = products_of(op)
    a, b = on_chip(first, chip, smooth), on_chip(second, chip, smooth)
    both = OnChip(*(jnp.where(several, x + y, x) for x, y in zip(a, b, strict=True)))
    lanes = jnp.where(several, ceil_divide(op.lane_ops, chip.lanes, smooth), 0.0)
    s, t = tiling(first, chip, smooth), tiling(second, chip, smooth)
    working = jnp.where(several, jnp.maximum(s.working_bytes, t.working_bytes), s.working_bytes)
    once = Tiling(*(jnp.where(several, 1.0, x) for x in s[:2]), working)
    return both._replace(cycles=both.cycles + lanes), once
