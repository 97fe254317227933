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
from ._stated import Layer, Stated

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
    # rows and columns that are read: a stride larger than the filter skips some
    rows, columns = (e - 1) * jnp.minimum(op.stride, r) + r, (w - 1) * jnp.minimum(op.stride, s) + s
    tiles = g * n / mapping.n * strips * mapping.cuts
    channels = ceil_divide(c, mapping.q * mapping.r, smooth)
    filters = ceil_divide(k, mapping.p * mapping.t, smooth)
    side, q, t, p = _mean_pass(c / channels, k / filters, mapping)
    passes = tiles * channels * filters
    multiply = mapping.n * p * q * s * w
    sums = mapping.n * p * t * e * w / BUS_WORDS
    inputs = mapping.n * q * side * rows * columns
    ramp = p * t * q * side * r * s / BUS_WORDS + rows * q * side * s
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


def _mean_pass(channels, filters, mapping: RowMapping):
    """(channels side by side, in a PE; filters side by side, in a PE) of a mean pass; a PE that works has at least one of each."""
    side, t = jnp.minimum(mapping.r, channels), jnp.minimum(mapping.t, filters)
    return side, channels / side, t, filters / t


def row_stationary_mapping(op: Operators, chip: Chiplets, smooth: bool = False) -> Stated:
    """The loops of `filling_mapping` (elementwise): S, channels and filters of a PE, columns and images of a pass; then passes over
    channels, filters, and tiles of the image. Cut filters are a problem of more channels; padding is read as if it were there."""
    mapping = filling_mapping(op, chip)
    g, n, k, c, p, q, r, s = _layer(op, chip)
    strips = ceil_divide(p, mapping.e, smooth)
    channels, filters = (
        ceil_divide(c, mapping.q * mapping.r, smooth),
        ceil_divide(k, mapping.p * mapping.t, smooth),
    )
    side, in_pe, t, filters_in_pe = _mean_pass(c / channels, k / filters, mapping)
    inside, outside = (0, 1, 1), (1, 1, 1)
    temporal = (
        ("S", s, (0, 0, 0)), ("C", in_pe, (0, 0, 0)), ("K", filters_in_pe, (0, 0, 0)), ("Q", q / mapping.cuts, inside),
        ("N", mapping.n, inside), ("C", channels, outside), ("K", filters, outside), ("Q", mapping.cuts, outside),
        ("P", strips, outside), ("N", n / mapping.n, outside), ("G", g, outside),
    )  # fmt: skip
    spatial = (("R", r, (1, 1, 0)), ("C", side, (1, 1, 0)), ("K", t, (1, 1, 1)), ("P", p / strips, (1, 1, 1)))
    endless = jnp.full_like(s, jnp.inf)
    layer = Layer.of(op)._replace(sizes=(g, n, k, c, p, q, r, s), real=(endless, endless))
    return Stated(layer, temporal, spatial, "rs")


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
    """Cycles and traffic of operators on row-stationary arrays (elementwise), in the mapping that fills the buffer.

    Words and energy are those of the nest of `row_stationary_mapping` but for two windows that meet: where one pass takes all channels,
    the nest finds the last columns of one part of a row in place for the next, and a PE of one channel the last tap of a window where
    it is the first of the next. Cycles are the nest's where no bus is slower than the multipliers.
    """
    mapping = filling_mapping(op, chip)
    cost = row_stationary_cost(op, chip, mapping, smooth)
    g, n, k, c, p, q, r, s = _layer(op, chip)
    w_b = jnp.where(op.is_attention, op.in_bits, op.weight_bits) / 8
    in_b, out_b, sum_b = op.in_bits / 8, op.out_bits / 8, op.psum_bits / 8
    channels, filters = cost.sum_passes, ceil_divide(k, mapping.p * mapping.t, smooth)
    _, in_pe, t, filters_in_pe = _mean_pass(c / channels, k / filters, mapping)
    w, e = q / mapping.cuts, p / ceil_divide(p, mapping.e, smooth)
    outputs = g * n * k * p * q
    macs = outputs * (c * r * s)

    def sums_bytes(visits):
        return outputs * (2 * (visits - 1) * sum_b + out_b)

    # what a pass finds in place: all filters of the layer; its only image row of a single channel; sums of a single column
    weight_reads = jnp.where(channels * filters > 1, cost.weight_reads, g * k * c * r * s)
    apart = jnp.where(channels * mapping.n > 1, 1.0, jnp.minimum((w - 1) * op.stride / s, 1.0))
    input_reads = cost.input_reads * (apart + (1 - apart) / filters)
    visits = jnp.where(w * mapping.n > 1, channels, 1.0)
    # a weight is written to e PEs in a row, an input to those on a diagonal of each of t sets; a PE reads both at every MAC unless
    # it holds a single one; a sum gathers in the multiplier, and passes the store at the end of a column to and from the buffer
    rows = (e - 1) * jnp.minimum(op.stride, r) + r
    written = weight_reads * w_b * e + input_reads * in_b * (t * r * e / rows)
    weights_read = macs / jnp.where(s * in_pe * filters_in_pe > 1, 1.0, w * mapping.n)
    inputs_read = macs / jnp.where(s * in_pe > 1, 1.0, filters_in_pe)
    added = sums_bytes(jnp.where(w * mapping.n * filters_in_pe > 1, channels, 1.0))
    return OnChip(
        cycles=cost.cycles,
        fill_cycles=cost.ramp_cycles,
        buffer_bytes=input_reads * in_b + weight_reads * w_b + sums_bytes(visits),
        local_bytes=written + weights_read * w_b + inputs_read * in_b + added + sums_bytes(visits),
        input_reads=input_reads,
        weight_reads=weight_reads,
        output_writes=outputs * visits,
    )
