"""Row-stationary dataflow (Eyeriss: Chen et al., ISCA 2016, IEEE JSSC 52(1) 2017), pass by pass.

A PE keeps rows of filters and slides them along rows of inputs. A set of R x e PEs makes e rows of outputs of one channel
and filter: sums run up its R rows. The array holds r x t sets (r channels, t filters); a PE interleaves p filters and q
channels. One pass therefore takes q r channels to p t filters, over e rows and w columns of outputs of n images; m
filters' partial sums stay in the buffer meanwhile. Per pass, the slowest of three (what the chip overlaps):

    multiply      n p q S w                       one MAC a cycle in every PE
    partial sums  n p t e w / 4                   64-bit bus between buffer and array, sums of 16 bits
    inputs        n q r rows columns / 1          16-bit bus

plus a ramp that nothing overlaps: filters p t q r R S / 4 (64-bit bus) and the first window rows q r S of the inputs.
Bus widths, scratchpads and banks are the chip's (JSSC, sections V and VI). No constant is fitted.

A filter with more rows than the array or longer than a scratchpad is cut; its parts count as channels.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import ceil_divide
from ...hardware import Chiplets
from ...workload import Operators
from .._bounds import OnChip, sizes

INPUT_WORDS, FILTER_WORDS, SUM_WORDS = 12, 224, 24  # scratchpads of a PE
BUS_WORDS = 4  # a cycle: filters, and partial sums each way; inputs come one a cycle
BANK_BYTES, FILTER_BANKS = 4096, 2  # of the buffer; inputs and sums share the other banks
# Two numbers no text states; the published volumes of buffer traffic (VGG-16) imply them: one bank is always being filled
# with the next inputs, and rows of more outputs than this (any limit from 112 to 223 would do) are cut into equal parts.
SPARE_BANKS, LONGEST_ROW = 1, 128


class RowMapping(NamedTuple):
    """How a layer is mapped: see the module. `e`: rows of outputs, fewer in the last strip; `cuts`: parts of w columns."""

    e: Float[Array, "..."]
    cuts: Float[Array, "..."]
    n: Float[Array, "..."]
    m: Float[Array, "..."]
    p: Float[Array, "..."]
    q: Float[Array, "..."]
    r: Float[Array, "..."]
    t: Float[Array, "..."]


class RowStationary(NamedTuple):
    """What a mapping costs. Traffic is in elements; `*_fetches`: times that an element crosses the chip's edge (halo and
    zero padding of the inputs counted)."""

    cycles: Float[Array, "..."]
    ramp_cycles: Float[Array, "..."]
    active_pes: Float[Array, "..."]
    input_reads: Float[Array, "..."]
    weight_reads: Float[Array, "..."]
    sum_passes: Float[Array, "..."]  # times that an output's sum is read, and written
    input_loads: Float[Array, "..."]  # from memory, as the weights are: once per pass over them
    weight_loads: Float[Array, "..."]


def _layer(op: Operators, chip: Chiplets):
    """Loop bounds with filters cut to what a column of PEs and a scratchpad hold; GEMMs of attention are groups."""
    g, n, k, c, p, q, r, s, *_ = sizes(op)
    g, n = jnp.where(op.is_attention, g * n, g), jnp.where(op.is_attention, 1.0, n)
    r_parts, s_parts = ceil_divide(r, chip.rows), ceil_divide(s, 1.0 * INPUT_WORDS)
    return g, n, k, c * r_parts * s_parts, p, q, r / r_parts, s / s_parts


def row_stationary_cost(op: Operators, chip: Chiplets, mapping: RowMapping, smooth: bool = False) -> RowStationary:
    """Cycles and traffic of operators under a mapping (elementwise; ragged last parts count by their mean size)."""
    g, n, k, c, rows_out, columns_out, r, s = _layer(op, chip)
    strips = ceil_divide(rows_out, mapping.e, smooth)
    e, w = rows_out / strips, columns_out / mapping.cuts
    rows, columns = (e - 1) * op.stride + r, (w - 1) * op.stride + s
    tiles = g * n / mapping.n * strips * mapping.cuts
    channels = ceil_divide(c, mapping.q * mapping.r, smooth)
    filters = ceil_divide(k, mapping.p * mapping.t, smooth)
    q, p = c / channels / mapping.r, k / filters / mapping.t  # of a mean pass
    passes = tiles * channels * filters
    multiply = mapping.n * p * q * s * w
    sums = mapping.n * p * mapping.t * e * w / BUS_WORDS
    inputs = mapping.n * q * mapping.r * rows * columns
    ramp = p * mapping.t * q * mapping.r * r * s / BUS_WORDS + rows * q * mapping.r * s
    once = tiles * mapping.n * c * rows * columns  # all inputs with their halo
    weights = tiles * k * c * r * s
    return RowStationary(
        cycles=passes * jnp.maximum(jnp.maximum(multiply, sums), inputs),
        ramp_cycles=passes * ramp,
        active_pes=jnp.ceil(r) * mapping.e * mapping.r * mapping.t,
        input_reads=once * filters,
        weight_reads=weights,
        sum_passes=channels,
        input_loads=once * ceil_divide(k, mapping.m, smooth),
        weight_loads=weights,
    )


def filling_mapping(op: Operators, chip: Chiplets) -> RowMapping:
    """A mapping in closed form, for tables: sums of as many filters as fit the buffer, then channels in what is left.

    The search (`best_row_mapping`) also weighs traffic with memory; this one only keeps to the same limits.
    """
    _, n, k, c, rows_out, columns_out, r, s = _layer(op, chip)
    in_b, sum_b = op.in_bits / 8, op.psum_bits / 8
    cuts = ceil_divide(columns_out, 1.0 * LONGEST_ROW)
    e, w = ceil_divide(rows_out, ceil_divide(rows_out, chip.columns)), columns_out / cuts
    sets = jnp.floor(chip.rows / jnp.ceil(r)) * jnp.floor(chip.columns / e)
    in_pe = _within(jnp.floor(INPUT_WORDS / s), 1.0, c)
    filters_in_pe = _within(jnp.floor(FILTER_WORDS / (in_pe * s)), 1.0, SUM_WORDS)
    room = jnp.maximum(jnp.floor(chip.buffer_bytes / BANK_BYTES) - FILTER_BANKS - SPARE_BANKS, 1.0) * BANK_BYTES
    channel = ((e - 1) * op.stride + r) * ((w - 1) * op.stride + s) * in_b
    t = jnp.floor(jnp.sqrt(sets))  # as many filters as channels side by side: sums and inputs load their buses alike
    most, sum_bytes = jnp.minimum(filters_in_pe * t, k), e * w * sum_b
    whole = (e >= rows_out) & (cuts <= 1) & (n * most * sum_bytes + channel <= room)  # maps of the batch, all at once
    n = jnp.where(whole, n, 1.0)
    filters = _within(jnp.floor((room - channel) / (n * sum_bytes)), 1.0, most)
    t = jnp.ceil(filters / filters_in_pe)
    channels = _within(jnp.floor((room - filters * n * sum_bytes) / channel), 1.0, c)
    q = jnp.minimum(in_pe, channels)
    side = _within(jnp.floor(channels / q), 1.0, jnp.floor(sets / t))
    return RowMapping(e, cuts, n, filters, filters / t, q, side, t)


def _within(x, low, high):
    return jnp.minimum(jnp.maximum(x, low), high)


def row_stationary(op: Operators, chip: Chiplets, smooth: bool = False) -> OnChip:
    """Cycles and traffic of operators on row-stationary arrays (elementwise), in the mapping that fills the buffer."""
    g, n, k, c, p, q, r, s, _, _, in_b, w_b, out_b, sum_b = sizes(op)
    cost = row_stationary_cost(op, chip, filling_mapping(op, chip), smooth)
    outputs = g * n * k * p * q
    local = outputs * c * r * s * (in_b + w_b + 2 * sum_b)  # every MAC reads three scratchpads and writes one
    sums = outputs * (2 * (cost.sum_passes - 1) * sum_b + out_b)
    return OnChip(
        cycles=cost.cycles,
        fill_cycles=cost.ramp_cycles,
        buffer_bytes=cost.input_reads * in_b + cost.weight_reads * w_b + sums,
        local_bytes=local,
        input_reads=cost.input_reads,
        weight_reads=cost.weight_reads,
        output_writes=outputs * cost.sum_passes,
    )
