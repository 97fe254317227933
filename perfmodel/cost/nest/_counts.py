"""How often every memory is read and written by a loop nest: the one model of the mapper, the table and all comparisons.

Tile x refill: what stands inside a memory is the product of the loops below it; it is fetched again whenever a loop above
changes it. All functions take structural axes first and any trailing batch axes, and are differentiable in factors.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...hardware import OPERANDS, Hierarchy
from ._halo import chosen, walked_words
from ._nest import DIMS, RELEVANT, WINDOW, Conventions, LoopNest, Problem

_OUTPUT_DIMS = tuple(DIMS.index(d) for d in "GNKPQ")
_AXES = tuple(1 << d for d in WINDOW)
_REST = tuple(mask & ~(sum(_AXES) if t == 1 else 0) for t, mask in enumerate(RELEVANT))  # all but an input's window
_NEST_AXES = (("dim", 1), ("factor", 1), ("level", 2), ("spatial_dim", 1), ("spatial_factor", 1), ("spatial_level", 2))
_PROBLEM_AXES = (
    ("sizes", 1),
    ("stride", 0),
    ("input_size", 1),
    *((f"{t}_bits", 0) for t in ("weight", "input", "psum", "output")),
)
_READ_DOWN, _WRITE_UP, _READ_UP, _WRITE_DOWN = range(4)  # hardware.DIRECTIONS


class Counts(NamedTuple):
    """Traffic of a loop nest. Axes: operand (3), level (of the machine), direction (`hardware.DIRECTIONS`), then the batch.

    - `amount`: words of one transfer of one unit; `times`: transfers; `units`: memories at work in parallel; `bits` of a word.
    - `total`: words in all (that is not `amount * times * units` where some transfers are left out).
    - `tile[t, l]`: words held in one unit of level l.  `feeds[t]`: words that all units of the innermost memory take in first.
    - `cycles`: of the loops alone; `macs` done; `sum_bits[l]`: of an output word at rest in level l.
    """

    amount: Float[Array, "3 levels 4 ..."]
    times: Float[Array, "3 levels 4 ..."]
    units: Float[Array, "3 levels ..."]
    bits: Float[Array, "3 levels 4 ..."]
    total: Float[Array, "3 levels 4 ..."]
    tile: Float[Array, "3 levels ..."]
    feeds: Float[Array, "3 ..."]
    cycles: Float[Array, "..."]
    macs: Float[Array, "..."]
    sum_bits: Float[Array, "levels ..."]


class _Sizes(NamedTuple):
    """Products of chosen loops for every operand and tile: of all relevant loops but an input's window, and the window's."""

    rest: Float[Array, "3 tiles ..."]
    window: Float[Array, "4 tiles ..."]  # extents in P, Q, R, S, of inputs
    every: Float[Array, "3 tiles ..."]  # relevant or not


def counts(problem: Problem, nest: LoopNest, machine: Hierarchy, how: Conventions) -> Counts:
    """Count a loop nest on a machine. The nest is taken as it is: whether its tiles fit is told by `loopnest_cost`."""
    batch = jnp.broadcast_shapes(
        *(jnp.shape(getattr(nest, f))[s:] for f, s in _NEST_AXES),
        *(jnp.shape(getattr(problem, f))[s:] for f, s in _PROBLEM_AXES),
    )
    n = len(batch)
    levels = jnp.shape(machine.held)[1]
    # tile l is what one unit of memory l - 1 holds; tile 0 is what a multiplier holds
    tiles = jnp.arange(levels + 1).reshape(1, levels + 1, *(1,) * n)

    one = jnp.where(lift(nest.dim, 1, n)[0] < 0, 2.0, 1.0).astype(jnp.result_type(float))

    def keep(value):
        # XLA on CPU copies cheap producers into every consumer, but never a division: a one that it cannot see through makes
        # it compute a shared value once (measured: benchmarks/mapper.py)
        return value / one

    loops = lift(nest.dim, 1, n), lift(nest.factor, 1, n), lift(nest.level, 2, n)
    unrolled = lift(nest.spatial_dim, 1, n), lift(nest.spatial_factor, 1, n), lift(nest.spatial_level, 2, n)
    inside = _sizes(loops, tiles, lambda level: level[:, None] < tiles)
    inside_space = _sizes(unrolled, tiles, lambda level: level[:, None] < tiles)
    beyond_space = _sizes(unrolled, tiles, lambda level: level[:, None] >= tiles)

    inside = jax.tree.map(keep, inside)  # what is unrolled may be the same for the whole batch
    held = _Sizes(*(a * b for a, b in zip(inside, inside_space, strict=True)))
    stride, size = lift(problem.stride, 0, n), lift(problem.input_size, 1, n)
    extents = _words(held, stride, size, how)
    # ZigZag rounds fractional rows and columns down also where they are spread over units (3.5 x 3.5 lanes read 9 words)
    spread = how if how.input_extent == "floored" else how._replace(input_extent="unique")
    unique = _words(beyond_space, stride, None, spread)
    # distinct units of tile l above one of tile l + 1: what is shared along the way (multicast, reduction) counts once
    boost = jnp.concatenate([unique[:, :-1] / unique[:, 1:], unique[:, -1:]], axis=1)
    # a dimension that does not divide gives fractional means; a tile still holds whole words
    tile, boost = (keep(_rounded(x) if how.rounding == "each" else x) for x in (extents, boost))
    units = _rounded(beyond_space.every) if how.rounding == "each" else beyond_space.every

    cycles = _product(loops[1], batch)
    refill, returns = _refills(loops, unrolled, inside_space, held, stride, tiles, how, batch, keep, _lost(machine, n))
    # an operand with a latch at the multiplier stays there while it does not change; the others move every cycle
    operand, level = (
        jnp.arange(k).reshape(*shape, *(1,) * n) for k, shape in ((3, (3, 1)), (levels + 1, (1, levels + 1)))
    )
    for t, name in enumerate(OPERANDS):
        if name not in how.latched:
            refill = jnp.where((level == 0) & (operand == t), cycles, refill)
    refill = keep(refill)
    # low side of memory l: the tile below it, for all distinct units there; high side: its own tile
    low, high = tile[:, :-1] * boost[:, :-1], tile[:, 1:]
    low_times, high_times = refill[:, :-1], refill[:, 1:]
    units_here = units[:, 1:]
    amount = jnp.stack([low, low, high, high], axis=2)
    times = jnp.stack([low_times, low_times, high_times, high_times], axis=2)

    held_above = lift(jnp.asarray(machine.held), 2, n)
    no_more = jnp.zeros_like(held_above[:, :1])
    above = jnp.concatenate([held_above[:, 1:], no_more], axis=1)
    outputs = operand == 2
    ways = [held_above, held_above & outputs, above & outputs, above]
    low_sum, high_sum = returns[:-1], returns[1:]  # partial sums come back through this side
    sums = jnp.stack([low_sum, jnp.ones_like(low_sum), jnp.ones_like(low_sum), high_sum], axis=1)
    is_output = outputs[:, :, None]
    active = jnp.stack(ways, axis=2) & (~is_output | sums[None])

    total = amount * times * units_here[:, :, None]
    if how.halo == "walk":
        total = _with_walk(total, problem, loops, held, units, machine, batch)
    way = jnp.arange(4).reshape(1, 1, 4, *(1,) * n)
    # visits of each output in each unit that sums it
    first = _product(jnp.stack([problem.sizes[d] for d in _OUTPUT_DIMS]), batch) * units_here[2] / unique[2, 1:]
    last = first[:, None] / jnp.maximum(
        total[2, :, _WRITE_UP : _READ_UP + 1], first[:, None]
    )  # share of those that leave
    if how.first_sum != "counted":
        # what returns: all visits but the first
        elided = (way == _READ_DOWN) | ((way == _WRITE_DOWN) & (how.first_sum == "elided"))
        total = jnp.maximum(total - jnp.where(is_output & elided, first[None, :, None], 0.0), 0.0)
        times = jnp.where(is_output, total / (amount * units_here[:, :, None]), times)
    if how.first_sum == "filled":  # also where no sum was before
        active = active | (is_output & (way == _WRITE_DOWN) & above[:, :, None])
    if not how.drain_read:
        active = active & (way != _READ_UP)
    total, times = jnp.where(active, total, 0.0), jnp.where(active, times, 0.0)

    psum, final = lift(problem.psum_bits, 0, n), lift(problem.output_bits, 0, n)
    wide = jnp.where(returns, psum, final) * jnp.ones(batch)
    low_up, high_up = wide[:-1], wide[1:]
    if how.last_sum == "final":  # unless sums of several units still meet further out: those are no results yet
        meets = _meets(unrolled, tiles, batch)
        low_up = low_up + jnp.where(low_sum & ~meets[:-1], (final - psum) * last[:, 0], 0.0)
        high_up = high_up + jnp.where(high_sum & ~meets[1:], (final - psum) * last[:, 1], 0.0)
    bits_out = jnp.stack([wide[:-1], low_up, high_up, wide[1:]], axis=1)
    if how.final_outermost:
        last = held_above[2] & ~above[2]
        bits_out = jnp.where(last[:, None], final, psum) * jnp.ones((levels, 4, *batch))
    given = jnp.ones_like(total[0])
    bits = jnp.stack(
        [lift(problem.weight_bits, 0, n) * given, lift(problem.input_bits, 0, n) * given, bits_out * given]
    )
    return Counts(
        amount=amount,
        times=times,
        units=units_here,
        bits=bits,
        total=total,
        tile=extents[:, 1:],
        feeds=tile[:, 1] * boost[:, 1],
        cycles=cycles,
        macs=_product(problem.sizes, batch),
        sum_bits=bits_out[:, 0],
    )


def _refills(loops, unrolled, inside_space: _Sizes, held: _Sizes, stride, tiles, how: Conventions, batch, keep, lost):
    """(times tile l is fetched [3, tiles], whether partial sums come back through the bottom of memory l [tiles]).

    Walking outwards, a loop of bound f repeats what is inside it f times; what the repetition finds in place is not fetched:
    `refill <- f refill - (f - 1) kept`, kept = 1 while only loops irrelevant to the operand were seen, then 0, for inputs with
    a sliding window the share of the tile that the next one overlaps.
    """
    slide = how.halo == "consecutive"
    # bounding box of the tile along rows and columns, for every tile
    sides = [keep((held.window[a] - 1) * stride + held.window[b]) for a, b in ((0, 2), (1, 3))]
    space = inside_space.window

    def step(state, loop):
        refill, changed, swept, far, extent, returns = state
        dim, factor, level = loop
        on = [level[t] >= tiles[0] for t in range(3)]
        relevant = [((mask >> dim.astype(jnp.int32)) & 1) > 0 for mask in RELEVANT]
        changed = tuple(c | (above & (factor > 1) & r) for c, above, r in zip(changed, on, relevant, strict=True))
        kept = [jnp.where(c, 0.0, 1.0) for c in changed]
        if slide:
            window = [dim == d for d in WINDOW]
            moves = window[0] | window[1] | window[2] | window[3]
            # one step of this loop moves the tile by what lies below it in its dimension, in time and space
            p, q, r, s = (jnp.where(w, chosen(space[a], level[1] + 1) * extent[a], 0.0) for a, w in enumerate(window))
            rows, columns = keep(p * stride + r), keep(q * stride + s)
            # every loop inside has run to its end: the tile comes back from there
            overlap = [
                jnp.clip(1.0 - jnp.abs(move - swept[i]) / sides[i], 0.0, 1.0) for i, move in enumerate((rows, columns))
            ]
            kept[1] = jnp.where(far | (relevant[1] & ~moves), 0.0, overlap[0] * overlap[1])
            run = jnp.where(on[1], factor - 1, 0.0)
            swept = (swept[0] + run * rows, swept[1] + run * columns)
            far = far | (on[1] & (factor > 1) & relevant[1] & ~moves)
            extent = tuple(e * jnp.where(w, factor, 1.0) for e, w in zip(extent, window, strict=True))
        kept = [jnp.where(gone, 0.0, k) for gone, k in zip(lost, kept, strict=True)]
        refill = tuple(
            jnp.where(above, factor * r - (factor - 1) * k, r) for above, r, k in zip(on, refill, kept, strict=True)
        )
        # an irrelevant loop in the memory's own level or above brings its sums back
        returns = returns | (on[2] & (factor > 1) & ~relevant[2])
        return (refill, changed, swept, far, extent, returns), None

    ones = jnp.ones((tiles.shape[1], *batch))
    no = ones < 0
    start = ((ones,) * 3, (no,) * 3, (0.0 * ones,) * 2, no, (ones[0],) * 4, no)
    in_order = (loops[0], loops[1], jnp.moveaxis(loops[2], 1, 0))
    (refill, *_, returns), _ = jax.lax.scan(step, start, in_order)
    refill = jnp.stack(refill)
    return refill, jnp.broadcast_to(returns | _meets(unrolled, tiles, batch), ones.shape)


def _meets(unrolled, tiles, batch):
    """Whether sums of several units meet beyond the memory above tile l, [tiles]."""
    dim, factor, level = unrolled
    found = jnp.zeros((tiles.shape[1], *batch), bool)
    for i in range(dim.shape[0]):
        found = found | ((factor[i] > 1) & (level[2, i] > tiles[0]) & ~_bits(dim[i], RELEVANT[2:])[0])
    return found


def _lost(machine: Hierarchy, n: int):
    """Where nothing of a tile is kept for the next one, [3, tiles]; a multiplier's latch always keeps."""
    swapped = jnp.asarray(machine.swapped)
    return lift(jnp.concatenate([jnp.zeros_like(swapped[:, :1]), swapped], axis=1), 2, n)


def _sizes(loops, tiles, take_of) -> _Sizes:
    """Products of the loops that `take_of(level) -> [3, tiles]` takes."""
    batch = jnp.broadcast_shapes(loops[0].shape[1:], loops[1].shape[1:], loops[2].shape[2:])
    ones = jnp.ones((3, tiles.shape[1], *batch))

    def step(state, loop):
        dim, factor, level = loop
        take = take_of(level)
        rest = state.rest * jnp.where(take & _bits(dim, _REST), factor, 1.0)
        window = state.window * jnp.where(take[1] & _bits(dim, _AXES), factor, 1.0)
        return _Sizes(rest, window, state.every * jnp.where(take, factor, 1.0)), None

    start = _Sizes(ones, jnp.ones((4, tiles.shape[1], *batch)), ones)
    return jax.lax.scan(step, start, (loops[0], loops[1], jnp.moveaxis(loops[2], 1, 0)))[0]


def _bits(dim, masks):
    """Whether dimension `dim` is in each of `masks`: [masks, 1, ...]."""
    masks = jnp.asarray(masks, jnp.int32).reshape(len(masks), 1, *(1,) * dim.ndim)
    return ((masks >> dim.astype(jnp.int32)) & 1) > 0


def _words(size: _Sizes, stride, real, how: Conventions):
    """Words of each operand in extents [3, tiles]: an input's window covers rows and columns of the image."""
    sides = []
    for axis, (a, b) in enumerate(((0, 2), (1, 3))):
        out, taps = size.window[a], size.window[b]
        if how.input_extent == "floored":
            out, taps = (x + jax.lax.stop_gradient(jnp.floor(x * (1 + 1e-6)) - x) for x in (out, taps))
        if how.input_extent == "box":
            side = (out - 1) * stride + taps
        else:
            side = out * taps - jnp.maximum(taps - stride, 0.0) * (out - 1)
            if real is not None:
                side = jnp.minimum(side, real[axis])
        sides.append(side)
    weights, inputs, outputs = size.rest
    return jnp.stack([weights, inputs * (sides[0] * sides[1]), outputs])


def _with_walk(total, problem, loops, held, units, machine, batch):
    """Inputs over the outermost transfer by Timeloop's walk; both sides of it see the same words."""
    n = len(batch)
    chain = lift(jnp.sum(jnp.asarray(machine.held[1]), axis=0), 0, n)
    words = walked_words(problem, loops, held.rest[1], held.window, chain - 1, batch)
    levels = jnp.shape(machine.held)[1]
    level = jnp.arange(levels).reshape(1, levels, 1, *(1,) * n)
    operand, way = jnp.arange(3).reshape(3, 1, 1, *(1,) * n), jnp.arange(4).reshape(1, 1, 4, *(1,) * n)
    given = ((level == chain - 1) & (way == _READ_DOWN)) | ((level == chain - 2) & (way == _WRITE_DOWN))
    return jnp.where((operand == 1) & given, words * chosen(units[1], chain - 1), total)


def lift(x, structural: int, n: int):
    """Trailing axes of one, so that `structural` leading axes broadcast against `n` batch axes."""
    x = jnp.asarray(x)
    return x.reshape(x.shape + (1,) * (n - (x.ndim - structural)))


def _product(x, batch):
    return jnp.broadcast_to(jnp.prod(x, axis=0), batch)


def _rounded(x):
    return x + jax.lax.stop_gradient(jnp.round(x) - x)
