"""Which tile of an operator stays in the buffer, and how often the other operand must be fetched again.

Three ways to block one group of an operator in a buffer of S bytes, all double-buffering what streams past:
keep a block of input pixels (all of C) and stream the weights; keep a block of filters and stream the inputs; keep a square
block of partial sums and stream both. The mapper takes the way that moves the fewest bytes if every operand came from
memory; ties go to the first. Partial sums never leave the buffer, so results are written once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics import ceil_divide
from ..hardware import Chiplets
from ..workload import Operators


class Tiling(NamedTuple):
    """How often inputs and weights are fetched, and the least buffer the operator can run in."""

    input_refetch: Float[Array, "..."]
    weight_refetch: Float[Array, "..."]
    working_bytes: Float[Array, "..."]


def tiling(op: Operators, chip: Chiplets, smooth: bool = False) -> Tiling:
    """The cheapest way to block operators for the buffers of chiplets (elementwise)."""
    dtype = jnp.result_type(float)
    n, k, c, p, q, r, s = (jnp.asarray(x, dtype) for x in (op.batch, op.k, op.c, op.p, op.q, op.r, op.s))
    in_b, w_b, out_b, sum_b = op.in_bits / 8, op.weight_bits / 8, op.out_bits / 8, op.psum_bits / 8
    matrix = op.is_matrix > 0
    pixels, depth = n * p * q, c * r * s
    # second operand of an attention GEMM streams like weights
    filters = k * depth * w_b
    per_pixel = op.in_elements * in_b / (jnp.asarray(op.groups, dtype) * pixels)
    k_unit, p_unit = jnp.minimum(k, chip.rows), jnp.minimum(pixels, chip.columns)

    # blocks: what is left after two streaming tiles, divided by what one resident pixel or filter costs
    room = chip.buffer_bytes
    pixel_block = (room - 2 * k_unit * depth * w_b) / (per_pixel + k_unit * (sum_b + out_b))
    filter_block = (room - 2 * p_unit * per_pixel) / (depth * w_b + p_unit * (sum_b + out_b))
    square = jnp.sqrt(0.5 * room / (sum_b + out_b))
    inputs = pixels * per_pixel
    once = jnp.ones_like(pixel_block)
    ways = [  # (input fetches, weight fetches, possible)
        (once, ceil_divide(pixels, jnp.maximum(pixel_block, 1.0), smooth), pixel_block >= 1),
        (ceil_divide(k, jnp.maximum(filter_block, 1.0), smooth), once, filter_block >= 1),
        (ceil_divide(k, square, smooth), ceil_divide(pixels, square, smooth), square >= 1),
    ]
    moved = jnp.stack([jnp.where(ok, i * inputs + w * filters, jnp.inf) for i, w, ok in ways])
    best = jax.lax.stop_gradient(jnp.argmin(moved, axis=0))  # gradients hold the mapper's choice fixed

    def chosen(values):
        return jnp.where(best == 0, values[0], jnp.where(best == 1, values[1], values[2]))

    # least buffer: one unit of partial sums and two streaming slices of one element of C each
    working = k_unit * p_unit * (sum_b + out_b) + 2 * (k_unit * w_b + p_unit * in_b)
    working = jnp.where(matrix, jnp.broadcast_to(working, best.shape), 2 * chip.lanes * (in_b + out_b))
    return Tiling(
        input_refetch=jnp.where(matrix, chosen([w[0] for w in ways]), 1.0),
        weight_refetch=jnp.where(matrix, chosen([w[1] for w in ways]), 1.0),
        working_bytes=working,
    )
