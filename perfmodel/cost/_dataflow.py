"""What one operator does inside one chiplet: array cycles, buffer traffic and local accesses, by dataflow.

All functions are elementwise: operator fields and chiplet fields may be scalars or arrays that broadcast. The loop nest of
every dataflow is fixed (this floor's mapper chooses among few): the table floor and the fast evaluator call the same code.

- `ws` (NVDLA-like): K over rows, C over columns; weights stay in the array while all outputs pass; sums over C are reduced
  in space, sums over R and S in the accumulators beside the array; partial sums go through the buffer once per C tile.
- `os` (ShiDianNao-like): output pixels over rows and columns, sums stay in place; weights are broadcast; neighbouring PEs
  pass inputs on, so that a pixel is read once per filter. The rows of a GEMM fold over both dimensions.
- `os-flex`: output-stationary with any two output dimensions unrolled: pixels x pixels as in `os`, filters x pixels or
  pixels x filters, whichever takes the fewest cycles (then the least buffer traffic).
- `os-systolic`, `ws-systolic`, `is-systolic`: see `_systolic`.  `rs`: see `_row_stationary`.
- `gpu` has no loop nest here: `os-flex` stands in, and `cost_table` puts `kernels`'s seconds and energies in its place.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._numerics import ceil_divide
from ..hardware import DATAFLOWS, Chiplets
from ..workload import Operators
from ._bounds import OnChip as OnChip
from ._bounds import sizes
from ._systolic import OS as OS_SYSTOLIC
from ._systolic import systolic
from .nest._row_stationary import row_stationary

_OS, _OS_FLEX, _RS, _GPU = (DATAFLOWS.index(name) for name in ("os", "os-flex", "rs", "gpu"))


def on_chip(op: Operators, chip: Chiplets, smooth: bool = False) -> OnChip:
    """Cycles and accesses of operators on chiplets (elementwise). Matrix rows run on the array, others on the lanes."""
    array, matrix = _array(op, chip, smooth), op.is_matrix > 0
    vector_bytes = (
        op.in_elements * op.in_bits / 8 + (op.weight_elements * op.weight_bits + op.out_elements * op.out_bits) / 8
    )
    vector = OnChip(
        cycles=ceil_divide(op.lane_ops, chip.lanes, smooth),
        fill_cycles=0.0,
        buffer_bytes=vector_bytes,
        local_bytes=0.0,
        input_reads=op.in_elements,
        weight_reads=op.weight_elements,
        output_writes=op.out_elements,
    )  # type: ignore[arg-type]
    return OnChip(*(jnp.where(matrix, a, v) for a, v in zip(array, vector, strict=True)))


def _array(op: Operators, chip: Chiplets, smooth: bool) -> OnChip:
    """The matrix operators, in the dataflow of each chiplet. Rarer dataflows are worked out only where a chiplet has one."""
    shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in jax.tree.leaves((op, chip))))
    dtype = jnp.result_type(float)
    codes = jnp if isinstance(chip.dataflow, Tracer) else np
    code = codes.where(chip.dataflow >= _GPU, _OS_FLEX, chip.dataflow)

    def chosen(*flows: tuple[int, OnChip]) -> OnChip:
        """Of the (first code, costs) given, the last whose first code is not above the chiplet's dataflow."""
        (_, best), *others = flows
        for first, flow in others:
            best = OnChip(*(jnp.where(code >= first, a, b) for a, b in zip(flow, best, strict=True)))
        return OnChip(*(jnp.broadcast_to(x, shape).astype(dtype) for x in best))

    def usual() -> OnChip:
        if not chip.may_be(_OS, _OS_FLEX, _GPU):
            return chosen((0, _weight_stationary(op, chip, smooth)))
        os, flexible = _output_stationary(op, chip, smooth)
        return chosen((0, _weight_stationary(op, chip, smooth)), (_OS, os), (_OS_FLEX, flexible))

    def with_rare() -> OnChip:
        found = [(0, usual())]
        if chip.may_be(*range(OS_SYSTOLIC, _RS)):
            found.append((OS_SYSTOLIC, systolic(op, chip, smooth)))
        if chip.may_be(_RS):
            found.append((_RS, row_stationary(op, chip, smooth)))
        return chosen(*found)

    if not chip.may_be(*range(OS_SYSTOLIC, _RS + 1)):
        return usual()
    if not isinstance(code, Tracer):
        return with_rare() if np.any(code >= OS_SYSTOLIC) else usual()
    if chip.known is not None:
        return with_rare()
    return jax.lax.cond(jnp.any(code >= OS_SYSTOLIC), with_rare, usual)


def _weight_stationary(op: Operators, chip: Chiplets, smooth: bool) -> OnChip:
    g, n, k, c, p, q, r, s, _, new_s, in_b, w_b, out_b, sum_b = sizes(op)
    k_tiles, c_tiles = ceil_divide(k, chip.rows, smooth), ceil_divide(c, chip.columns, smooth)
    pixels = g * n * p * q
    outputs, weights = pixels * k, g * k * c * r * s
    inputs = pixels * k_tiles * c * r * new_s  # the window slides along a row and re-reads R new columns
    sums = outputs * (2 * (c_tiles - 1) * sum_b + out_b)  # partial sums out and back between C tiles, then the result
    return OnChip(
        cycles=pixels * k_tiles * c_tiles * r * s,
        fill_cycles=chip.rows + chip.columns,
        buffer_bytes=inputs * in_b + weights * w_b + sums,
        local_bytes=outputs * c * r * s * (in_b + w_b) + outputs * r * s * c_tiles * 2 * sum_b,
        input_reads=inputs,
        weight_reads=weights,
        output_writes=outputs * c_tiles,
    )


def _output_stationary(op: Operators, chip: Chiplets, smooth: bool) -> tuple[OnChip, OnChip]:
    g, n, k, c, p, q, r, s, new_r, new_s, in_b, w_b, out_b, _ = sizes(op)
    depth = g * c * r * s
    outputs = n * k * p * q
    local = depth * outputs * (in_b + w_b)
    window = g * n * c * p * q * new_r * new_s  # every input once for one filter
    fill = chip.rows + chip.columns

    def flow(cycles, inputs, weights) -> OnChip:
        traffic = inputs * in_b + weights * w_b + g * outputs * out_b
        return OnChip(cycles, fill, traffic, local, inputs, weights, g * outputs)

    gemm = q == 1  # rows of a GEMM fold over both dimensions
    folds = n * jnp.where(
        gemm,
        ceil_divide(p, chip.rows * chip.columns, smooth),
        ceil_divide(p, chip.rows, smooth) * ceil_divide(q, chip.columns, smooth),
    )
    pixels = flow(folds * k * depth, k * window, folds * k * depth)

    best = pixels
    for over_k, over_pixels in ((chip.rows, chip.columns), (chip.columns, chip.rows)):
        k_tiles, p_tiles = ceil_divide(k, over_k, smooth), ceil_divide(n * p * q, over_pixels, smooth)
        # pixels lie along one dimension only: neighbours still pass inputs on in a row, rows of the window are read again
        other = flow(k_tiles * p_tiles * depth, k_tiles * window * (r / new_r), p_tiles * k * depth)
        better = (other.cycles < best.cycles) | (
            (other.cycles == best.cycles) & (other.buffer_bytes < best.buffer_bytes)
        )
        best = OnChip(*(jnp.where(better, a, b) for a, b in zip(other, best, strict=True)))
    return pixels, best
