"""A stated mapping: its loops from the inside out, written down once and read by two.

`nest` hands it to the loop-nest model; `count_stated` walks the same list while a program is traced. Dimensions and levels are known
then, so that what is left are elementwise formulas of the bounds: the closed forms of the cost table (`_closed_form`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...workload import Operators
from .._bounds import OnChip
from ._chiplet_machine import BUFFER
from ._nest import DIMS, RELEVANT, LoopNest, Problem, bounds

# (dimension, bound, the memory of W, I and O that holds what the loop walks over)
Loop = tuple[str, jax.Array, tuple[int, int, int]]


class Layer(NamedTuple):
    """A problem taken apart: bounds in the order of `DIMS`, stride, rows and columns of the real input, bytes of an element."""

    sizes: tuple[jax.Array, ...]
    stride: jax.Array
    real: tuple[jax.Array, jax.Array]
    weight_bytes: jax.Array
    input_bytes: jax.Array
    sum_bytes: jax.Array
    output_bytes: jax.Array

    @classmethod
    def of(cls, op: Operators) -> "Layer":
        """Of operators; the products of attention have their second operand in the place of weights."""
        sizes, real = bounds(op)
        weight_bits = jnp.where(op.is_attention, op.in_bits, op.weight_bits)
        return cls(sizes, 1.0 * op.stride, real, weight_bits / 8, op.in_bits / 8, op.psum_bits / 8, op.out_bits / 8)


class Stated(NamedTuple):
    """A mapping of `layer`: temporal loops from the inside out, and what is unrolled. Bounds broadcast against each other."""

    layer: Layer
    temporal: tuple[Loop, ...]
    spatial: tuple[Loop, ...]
    dataflow: str

    @property
    def problem(self) -> Problem:
        """The layer as the loop-nest model takes it."""
        stacked = [jnp.stack(jnp.broadcast_arrays(*x)) for x in (self.layer.sizes, self.layer.real)]
        bits = (8 * x for x in self.layer[3:])
        return Problem(stacked[0], self.layer.stride, stacked[1], *bits)

    @property
    def nest(self) -> LoopNest:
        """The loops as the loop-nest model takes them."""
        dim, factor, level = _columns(self.temporal)
        return LoopNest(dim, factor, level, *_columns(self.spatial))


def _columns(loops):
    factor = jnp.stack(jnp.broadcast_arrays(*(jnp.asarray(f) for _, f, _ in loops)))
    extra = (1,) * (factor.ndim - 1)
    dim = jnp.asarray([DIMS.index(d) for d, _, _ in loops], jnp.int32).reshape(-1, *extra)
    level = jnp.asarray([levels for _, _, levels in loops], jnp.int32).T
    return dim, factor, level.reshape(*level.shape, *extra)


def count_stated(mapping: Stated, cycles=None) -> OnChip:
    """What a mapping moves: as `loopnest_cost` under the table's conventions counts it, in elementwise formulas.

    `cycles`: in place of the product of the temporal loops.
    """
    walk, layer = _Walk(mapping), mapping.layer
    local: Any = 0.0
    towards_array: Any = 0.0
    words = []
    for t, (operand, width) in enumerate(zip("WIO", (layer.weight_bytes, layer.input_bytes, 0.0), strict=True)):
        at = BUFFER[mapping.dataflow][operand]
        for level in range(at + 1):
            below = walk.crossing(t, level)
            low = walk.sums_bytes(level, level, below) if operand == "O" else below * width
            if level == at:
                towards_array = towards_array + low
                words.append(below)
                continue
            above = _times(walk.held(t, level + 1), walk.refill(t, level + 1), walk.units(t, level + 1))
            high = walk.sums_bytes(level, level + 1, above) if operand == "O" else above * width
            local = local + low + high
    if cycles is None:
        cycles = _times(*(f for _, f, _ in mapping.temporal))
    weights, inputs, outputs = words
    return OnChip(cycles, 0.0, towards_array, local, inputs, weights, outputs)  # type: ignore[arg-type]


class _Walk:
    """Counts of one mapping. Products that are asked for again are made once, and a one is never multiplied: programs stay small."""

    def __init__(self, mapping: Stated):
        self.layer, self.temporal, self.spatial = mapping.layer, mapping.temporal, mapping.spatial
        self.loops = (*mapping.temporal, *mapping.spatial)
        self.more_than_one = [f > 1 for _, f, _ in self.loops]
        self.known: dict[tuple[int, ...], Any] = {}

    def product(self, takes: Callable[[str, tuple[int, int, int], bool], bool]):
        """Of the bounds of the loops that `takes(dimension, levels, in space)`."""
        key = tuple(i for i, (d, _, at) in enumerate(self.loops) if takes(d, at, i >= len(self.temporal)))
        if key not in self.known:
            self.known[key] = _times(*(self.loops[i][1] for i in key))
        return self.known[key]

    def any(self, takes: Callable[[str, tuple[int, int, int], bool], bool]):
        """Whether one of those loops exists; None where there is none to ask."""
        found = None
        for i, (d, _, at) in enumerate(self.loops):
            if takes(d, at, i >= len(self.temporal)):
                found = self.more_than_one[i] if found is None else found | self.more_than_one[i]
        return found

    def crossing(self, t: int, level: int):
        """Words between memory `level` of an operand and what stands below it, over the whole nest."""
        words = _times(self.held(t, level), self.refill(t, level), self.units(t, level + 1))
        if t != 1:  # distinct units at this level within one of the next
            return _times(words, self.product(lambda d, at, space: space and at[t] == level and _relevant(t, d)))
        return _over(_times(words, self.words(lambda at: at[t] >= level)), self.words(lambda at: at[t] > level))

    def sums_bytes(self, memory: int, tile: int, up) -> Any:
        """Bytes of sums that go up `up` times and come back: the first visit of each finds none, the last leaves as a result
        unless partial sums still meet in space further out."""
        layer = self.layer
        apart = self.product(
            lambda d, at, space: space and at[2] > memory and not _relevant(2, d)
        )  # units that add to one
        if "outputs" not in self.__dict__:
            self.outputs = _times(*(layer.sizes[DIMS.index(d)] for d in "GNKPQ"))
        first = _times(self.outputs, apart)
        back = jnp.maximum(up - first, 0.0)
        meets = self.any(lambda d, at, space: space and at[2] > tile and not _relevant(2, d))
        returns = self.any(lambda d, at, space: not space and at[2] >= tile and not _relevant(2, d))
        result = (up + back) * layer.output_bytes
        if returns is None and meets is None:
            return result
        sums = (up + back) * layer.sum_bytes
        if meets is None:
            return jnp.where(returns, sums - first * (layer.sum_bytes - layer.output_bytes), result)
        last = jnp.where(meets, 0.0, first * (layer.sum_bytes - layer.output_bytes))
        return jnp.where(meets if returns is None else returns | meets, sums - last, result)

    def units(self, t: int, level: int):
        return self.product(lambda d, at, space: space and at[t] >= level)

    def held(self, t: int, tile: int):
        """Words of one tile; an input's lie inside the real input."""
        if t == 1:
            return self.words(lambda at: at[1] < tile, in_time=True)
        return self.product(lambda d, at, space: at[t] < tile and _relevant(t, d))

    def words(self, where: Callable[[tuple[int, int, int]], bool], in_time: bool = False):
        """Distinct words of inputs in the loops that stand `where`: in space, or `in_time` too and then inside the real input."""

        def of(dims: str):
            return self.product(lambda d, at, space: d in dims and (space or in_time) and where(at))

        words = of("GNC")
        for axis, (rows, taps) in enumerate(("PR", "QS")):
            over, across = of(rows), of(taps)
            if _is_one(across) or _is_one(over):
                side = _times(over, across)
            else:
                side = over * across - jnp.maximum(across - self.layer.stride, 0.0) * (over - 1)
            words = _times(words, jnp.minimum(side, self.layer.real[axis]) if in_time and not _is_one(side) else side)
        return words

    def refill(self, t: int, tile: int):
        """Times that a tile is fetched: the walk of `_counts._refills`, over loops that are known when the program is traced."""
        refill, changed = 1.0, None
        if t != 1:
            for i, (dim, f, at) in enumerate(self.temporal):
                if at[t] < tile:
                    continue
                if _relevant(t, dim):
                    refill = _times(refill, f)
                    changed = self.more_than_one[i] if changed is None else changed | self.more_than_one[i]
                elif changed is not None:
                    refill = refill * jnp.where(changed, f, 1.0)
            return refill
        stride, sides = self.layer.stride, []
        for rows, taps in ("PR", "QS"):
            over, across = (self.product(lambda d, at, space, d0=d0: d == d0 and at[1] < tile) for d0 in (rows, taps))
            sides.append(across if _is_one(over) else (over - 1) * stride + across)
        swept, extent = [0.0, 0.0], dict.fromkeys("PQRS", 1.0)
        for i, (dim, f, at) in enumerate(self.temporal):
            step = [0.0, 0.0]
            if dim in "PQRS":
                spread = self.product(lambda d, where, space, d0=dim, own=at[1]: space and d == d0 and where[1] <= own)
                step[dim in "QS"] = _times(extent[dim], spread, stride if dim in "PQ" else 1.0)
                extent[dim] = _times(extent[dim], f)
            if at[1] < tile:
                continue
            if dim in "GNC":
                refill = _times(refill, f)
                changed = self.more_than_one[i] if changed is None else changed | self.more_than_one[i]
                continue
            kept = 1.0
            for a, b, side in zip(step, swept, sides, strict=True):
                if not (isinstance(a, float) and isinstance(b, float) and a == b):
                    kept = _times(kept, jnp.maximum(1.0 - jnp.abs(_over(a - b, side)), 0.0))
            kept = kept if changed is None else jnp.where(changed, 0.0, kept)
            refill = refill if _is_one(kept) and _is_one(refill) else _times(f, refill) - (f - 1) * kept
            swept = [
                b if isinstance(a, float) and a == 0 else b + (f - 1) * a for a, b in zip(step, swept, strict=True)
            ]
        return refill


def _relevant(t: int, dim: str) -> bool:
    return bool(RELEVANT[t] >> DIMS.index(dim) & 1)


def _is_one(x) -> bool:
    return isinstance(x, float) and x == 1


def _times(*values) -> Any:
    """Their product; of nothing but ones, the number 1.0."""
    result = 1.0
    for x in values:
        result = x if _is_one(result) else result if _is_one(x) else result * x
    return result


def _over(x, y) -> Any:
    return x if _is_one(y) else x / y
