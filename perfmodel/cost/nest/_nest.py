"""Nouns of the loop-nest model: a problem (bounds and precisions), a mapping (loops) and the conventions of counting.

Every array has its structural axes first and may carry any trailing batch axes; fields broadcast against each other.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...hardware import LEVELS, OPERANDS
from ...workload import Operators

DIMS = ("G", "N", "K", "C", "P", "Q", "R", "S")  # groups, batch, filters, channels, output and filter rows and columns
_OF = {"W": "GKCRS", "I": "GNCPQRS", "O": "GNKPQ"}
# which dimensions an operand depends on, as bits; those of the sliding window are kept apart for inputs
RELEVANT = tuple(sum(1 << DIMS.index(d) for d in _OF[t]) for t in OPERANDS)
WINDOW = tuple(DIMS.index(d) for d in "PQRS")


class Problem(eqx.Module):
    """One operator: `sizes` in the order of `DIMS`, stride, rows and columns of the real input, bits of each operand."""

    sizes: Float[Array, "8 ..."]
    stride: Float[Array, "..."]
    input_size: Float[Array, "2 ..."]
    weight_bits: Float[Array, "..."]
    input_bits: Float[Array, "..."]
    psum_bits: Float[Array, "..."]
    output_bits: Float[Array, "..."]


class LoopNest(eqx.Module):
    """A mapping: temporal loops from the innermost to the outermost, and what is unrolled in space.

    - `dim[i]`: index into `DIMS`; `factor[i]`: bound (1: the loop does not exist); `level[t, i]`: the memory, counted along
      the chain of operand t, that holds what the loop walks over (never falls as i grows).
    - `spatial_dim[u], spatial_factor[u]`: an unrolling; `spatial_level[t, u]`: the memory of operand t that stands above it.
      Factors may be fractional: the mean of a dimension that does not divide.
    """

    dim: Int[Array, "N ..."]
    factor: Float[Array, "N ..."]
    level: Int[Array, "3 N ..."]
    spatial_dim: Int[Array, "U ..."]
    spatial_factor: Float[Array, "U ..."]
    spatial_level: Int[Array, "3 U ..."]


class Conventions(NamedTuple):
    """How a loop nest is counted; static. Tools differ in these and in nothing else (loop-nest reference of this project).

    - `halo`: what a tile of inputs keeps of the tile before it. `none`: nothing unless it is the same tile; `consecutive`: what
      both hold; `walk`: at the outermost transfer, by a walk over first and second iterations (Timeloop).
    - `input_extent`: `box`: bounding box of a window; `unique`: only words that are read, inside the real input;
      `floored`: the same with fractional extents rounded down (ZigZag).
    - `first_sum`: `elided`: a partial sum that does not exist yet is neither read nor fetched; `counted`: it is, wherever sums
      return at all; `filled`: it is not read, but it is fetched from above (Timeloop).
    - `last_sum`: sums that leave for the last time are as wide as results (`final`) or as all others (`wide`).
    - `drain_read`: handing results up reads the memory that gives them.  `latched`: operands that a
      multiplier keeps while they do not change from one cycle to the next (sums: in its accumulator).
    - `rounding`: to whole accesses `each` transfer, on the `total` of a tensor, or `none`.
    - `steady`: latency without filling and draining.  `final_outermost`: sums in the outermost memory have the output's width.
    """

    halo: str = "consecutive"
    input_extent: str = "unique"
    first_sum: str = "elided"
    last_sum: str = "final"
    drain_read: bool = True
    latched: str = "WIO"
    rounding: str = "each"
    steady: bool = False
    final_outermost: bool = False


# Ours: what a machine has to do and no more. A window slides over what is there already, a sum that does not exist is not
# read, an operand latch keeps its value, but a port moves whole accesses, and the first tile has to arrive before work starts.
OURS = Conventions()
TIMELOOP = Conventions("walk", "box", "filled", "wide", False, "", "total", True, True)
ZIGZAG = Conventions("none", "floored", "counted", "wide", True, "WI", "each", False, False)


def bounds(operators: Operators) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
    """Loop bounds in the order of `DIMS`, and rows and columns of the real input, each as operators' fields are."""
    g, n, k, c, p, q, r, s = (
        jnp.asarray(getattr(operators, field), jnp.result_type(float))
        for field in ("groups", "batch", "k", "c", "p", "q", "r", "s")
    )
    attention = operators.is_attention
    # every GEMM of an attention has operands of its own: its batch multiplies the groups
    sizes = jnp.where(attention, g * n, g), jnp.where(attention, 1.0, n), k, c, p, q, r, s
    rows, columns = (p - 1) * operators.stride + r, (q - 1) * operators.stride + s
    # only the area of the real input is stored: padding and skipped edges shrink both sides alike (a side of one cannot)
    held = operators.in_elements - jnp.where(attention, g * n * k * c, 0.0)
    area = jnp.minimum(held / (g * n * c * rows * columns), 1.0)
    of_rows = jnp.where(columns == 1, area, jnp.where(rows == 1, 1.0, jnp.sqrt(area)))
    return sizes, (rows * of_rows, columns * area / of_rows)


def problem(operators: Operators) -> Problem:
    """Operators as problems (trailing axis `L`). The products of attention have their second operand in the place of weights."""
    of, real = bounds(operators)
    sizes = jnp.stack(of)
    return Problem(
        sizes=sizes,
        stride=jnp.asarray(operators.stride, sizes.dtype),
        input_size=jnp.stack(real),
        weight_bits=jnp.where(operators.is_attention, operators.in_bits, operators.weight_bits),
        input_bits=jnp.asarray(operators.in_bits, sizes.dtype),
        psum_bits=jnp.asarray(operators.psum_bits, sizes.dtype),
        output_bits=jnp.asarray(operators.out_bits, sizes.dtype),
    )


def loop_nest(temporal: list, spatial: list, slots: int, unrolled: int) -> LoopNest:
    """One mapping from lists, inner to outer, of (dimension name, factor, levels of W, I, O), padded with loops of one.

    ValueError where there are more loops than slots."""
    if len(temporal) > slots or len(spatial) > unrolled:
        raise ValueError(f"{len(temporal)} temporal and {len(spatial)} spatial loops; room for {slots} and {unrolled}")

    def columns(loops, size):
        dim, factor = np.zeros(size, np.int32), np.ones(size)
        level = np.full((3, size), LEVELS, np.int32)
        for i, (name, bound, levels) in enumerate(loops):
            dim[i], factor[i], level[:, i] = DIMS.index(name), bound, levels
        return dim, factor, level

    return LoopNest(*columns(temporal, slots), *columns(spatial, unrolled))
