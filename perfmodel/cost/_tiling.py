"""Which tile of an operator stays in the buffer, and how often the other operand must be fetched again.

Three ways to block one group of an operator in a buffer of S bytes, all double-buffering what streams past: keep a
block of input pixels (all of C) and stream the weights; keep a block of filters and stream the inputs; keep a square
block of partial sums and stream both. Blocks are whole (smooth: any size of at least one). The mapper takes the way
that moves the fewest bytes if every operand came from memory; ties go to the first. Partial sums never leave the
buffer, so results are written once.

Attention has no weights: the second operand of each of its `groups * batch` GEMMs streams like weights, but is input.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics import ceil_divide
from ..hardware import Chiplets
from ..workload import Operators


class Tiling(NamedTuple):
    """How often inputs and weights are fetched, and the least buffer the operator can run in.

    Both operands of attention are inputs: `input_refetch` is the mean of the two by bytes, `weight_refetch` 1.
    """

    input_refetch: Float[Array, "..."]
    weight_refetch: Float[Array, "..."]
    working_bytes: Float[Array, "..."]


def tiling(op: Operators, chip: Chiplets, smooth: bool = False) -> Tiling:
    """The cheapest way to block operators for the buffers of chiplets (elementwise)."""
    dtype = jnp.result_type(float)
    g, n, k, c, p, q, r, s = (jnp.asarray(x, dtype) for x in (op.groups, op.batch, op.k, op.c, op.p, op.q, op.r, op.s))
    matrix, attention = op.is_matrix > 0, op.is_attention
    g, n = jnp.where(attention, g * n, g), jnp.where(attention, 1.0, n)
    in_b, out_b, sum_b = op.in_bits / 8, op.out_bits / 8, op.psum_bits / 8
    w_b = jnp.where(attention, in_b, op.weight_bits / 8)
    pixels, depth = n * p * q, c * r * s
    # bytes of either operand of one group; `in_elements` counts the second one of attention too
    filters = k * depth * w_b
    inputs = op.in_elements * in_b / g - jnp.where(attention, k * c * in_b, 0.0)
    per_pixel = inputs / pixels
    k_unit, p_unit = jnp.minimum(k, chip.rows), jnp.minimum(pixels, chip.columns)

    # blocks: what is left after two streaming tiles, divided by what one resident pixel or filter costs
    room = chip.buffer_bytes
    pixel_block = (room - 2 * k_unit * depth * w_b) / (per_pixel + k_unit * (sum_b + out_b))
    filter_block = (room - 2 * p_unit * per_pixel) / (depth * w_b + p_unit * (sum_b + out_b))
    square = jnp.sqrt(0.5 * room / (sum_b + out_b))
    if not smooth:  # a millionth: a quotient that rounding alone put below a whole number must not lose a block
        pixel_block, filter_block, square = (jnp.floor(b * (1 + 1e-6)) for b in (pixel_block, filter_block, square))
    once, side = jnp.ones_like(pixel_block), jnp.maximum(square, 1.0)
    ways = [  # (input fetches, weight fetches, possible)
        (once, ceil_divide(pixels, jnp.maximum(pixel_block, 1.0), smooth), pixel_block >= 1),
        (ceil_divide(k, jnp.maximum(filter_block, 1.0), smooth), once, filter_block >= 1),
        (ceil_divide(k, side, smooth), ceil_divide(pixels, side, smooth), square >= 1),
    ]
    moved = jnp.stack([jnp.where(ok, i * inputs + w * filters, jnp.inf) for i, w, ok in ways])
    best = jax.lax.stop_gradient(jnp.argmin(moved, axis=0))  # gradients hold the mapper's choice fixed

    def chosen(values):
        return jnp.where(best == 0, values[0], jnp.where(best == 1, values[1], values[2]))

    # least buffer: one unit of partial sums and two streaming slices of one element of C each
    working = k_unit * p_unit * (sum_b + out_b) + 2 * (k_unit * w_b + p_unit * in_b)
    working = jnp.where(matrix, jnp.broadcast_to(working, best.shape), 2 * chip.lanes * (in_b + out_b))
    of_inputs, of_filters = chosen([w[0] for w in ways]), chosen([w[1] for w in ways])
    # written as an excess, so that it is exactly 1 where both are
    of_both = 1.0 + ((of_inputs - 1.0) * inputs + (of_filters - 1.0) * filters) / (inputs + filters)
    return Tiling(
        input_refetch=jnp.where(matrix, jnp.where(attention, of_both, of_inputs), 1.0),
        weight_refetch=jnp.where(matrix & ~attention, of_filters, 1.0),
        working_bytes=working,
    )
