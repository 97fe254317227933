"""What one operator does inside one chiplet: array cycles, buffer traffic and local accesses, by dataflow.

All functions are elementwise: operator fields and chiplet fields may be scalars or arrays that broadcast. The loop nest of
every dataflow is fixed (this floor's mapper chooses among few): the table floor and the fast evaluator call the same code.

- `ws` (NVDLA-like): K over rows, C over columns; weights stay in the array while all outputs pass; sums over C are reduced
  in space, sums over R and S in the accumulators beside the array; partial sums go through the buffer once per C tile.
- `os` (ShiDianNao-like): output pixels over rows and columns, sums stay in place; weights are broadcast; neighbouring PEs
  pass inputs on, so that a pixel is read once per filter. The rows of a GEMM fold over both dimensions.
- `os-flex`: output-stationary with any two output dimensions unrolled: pixels x pixels as in `os`, filters x pixels or
  pixels x filters, whichever takes the fewest cycles (then the least buffer traffic).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics import ceil_divide
from ..hardware import Chiplets
from ..workload import Operators


class OnChip(NamedTuple):
    """Of one pass: cycles of the array or of the lanes, cycles to fill and drain, bytes through the buffer and the PEs' own stores."""

    cycles: Float[Array, "..."]
    fill_cycles: Float[Array, "..."]
    buffer_bytes: Float[Array, "..."]
    local_bytes: Float[Array, "..."]


def on_chip(op: Operators, chip: Chiplets, smooth: bool = False) -> OnChip:
    """Cycles and accesses of operators on chiplets (elementwise). Matrix rows run on the array, others on the lanes."""
    # in the order of hardware.DATAFLOWS
    by_flow = [_weight_stationary(op, chip, smooth), *_output_stationary(op, chip, smooth)]
    cycles, fill, buffer, local = by_flow[0]
    for code, flow in enumerate(by_flow[1:], start=1):
        chosen = chip.dataflow == code
        cycles = jnp.where(chosen, flow.cycles, cycles)
        fill = jnp.where(chosen, flow.fill_cycles, fill)
        buffer = jnp.where(chosen, flow.buffer_bytes, buffer)
        local = jnp.where(chosen, flow.local_bytes, local)
    matrix = op.is_matrix > 0
    vector_bytes = (
        op.in_elements * op.in_bits / 8 + (op.weight_elements * op.weight_bits + op.out_elements * op.out_bits) / 8
    )
    return OnChip(
        cycles=jnp.where(matrix, cycles, ceil_divide(op.lane_ops, chip.lanes, smooth)),
        fill_cycles=jnp.where(matrix, fill, 0.0),
        buffer_bytes=jnp.where(matrix, buffer, vector_bytes),
        local_bytes=jnp.where(matrix, local, 0.0),
    )


def _sizes(op: Operators):
    """Loop bounds and bytes per element as floats of the computation's dtype."""
    dtype = jnp.result_type(float)
    g, n, k, c, p, q, r, s = (jnp.asarray(x, dtype) for x in (op.groups, op.batch, op.k, op.c, op.p, op.q, op.r, op.s))
    # rows of the window that are new when the window moves on by one output (none skipped, none read twice)
    new_r, new_s = jnp.minimum(r, op.stride), jnp.minimum(s, op.stride)
    return g, n, k, c, p, q, r, s, new_r, new_s, op.in_bits / 8, op.weight_bits / 8, op.out_bits / 8, op.psum_bits / 8


def _weight_stationary(op: Operators, chip: Chiplets, smooth: bool) -> OnChip:
    g, n, k, c, p, q, r, s, _, new_s, in_b, w_b, out_b, sum_b = _sizes(op)
    k_tiles, c_tiles = ceil_divide(k, chip.rows, smooth), ceil_divide(c, chip.columns, smooth)
    pixels = g * n * p * q
    outputs = pixels * k
    inputs = pixels * k_tiles * c * r * new_s * in_b  # the window slides along a row and re-reads R new columns
    sums = outputs * (2 * (c_tiles - 1) * sum_b + out_b)  # partial sums out and back between C tiles, then the result
    return OnChip(
        cycles=pixels * k_tiles * c_tiles * r * s,
        fill_cycles=chip.rows + chip.columns,
        buffer_bytes=inputs + g * k * c * r * s * w_b + sums,
        local_bytes=outputs * c * r * s * (in_b + w_b) + outputs * r * s * c_tiles * 2 * sum_b,
    )


def _output_stationary(op: Operators, chip: Chiplets, smooth: bool) -> tuple[OnChip, OnChip]:
    g, n, k, c, p, q, r, s, new_r, new_s, in_b, w_b, out_b, _ = _sizes(op)
    depth = g * c * r * s
    macs = depth * n * k * p * q
    local = macs * (in_b + w_b)
    window = g * n * c * p * q * new_r * new_s * in_b  # every input once for one filter
    results = g * n * k * p * q * out_b
    fill = chip.rows + chip.columns

    gemm = q == 1  # rows of a GEMM fold over both dimensions
    folds = n * jnp.where(
        gemm,
        ceil_divide(p, chip.rows * chip.columns, smooth),
        ceil_divide(p, chip.rows, smooth) * ceil_divide(q, chip.columns, smooth),
    )
    pixels = OnChip(folds * k * depth, fill, k * window + folds * k * depth * w_b + results, local)

    best = pixels
    for over_k, over_pixels in ((chip.rows, chip.columns), (chip.columns, chip.rows)):
        k_tiles, p_tiles = ceil_divide(k, over_k, smooth), ceil_divide(n * p * q, over_pixels, smooth)
        # pixels lie along one dimension only: neighbours still pass inputs on in a row, rows of the window are read again
        traffic = k_tiles * window * (r / new_r) + p_tiles * k * depth * w_b + results
        other = OnChip(k_tiles * p_tiles * depth, fill, traffic, local)
        better = (other.cycles < best.cycles) | (
            (other.cycles == best.cycles) & (other.buffer_bytes < best.buffer_bytes)
        )
        best = OnChip(
            jnp.where(better, other.cycles, best.cycles),
            fill,
            jnp.where(better, other.buffer_bytes, best.buffer_bytes),
            local,
        )
    return pixels, best
