"""Operators of an imported program in terms of a sketch: products, convolutions, vector work, look-ups, views.

The JAX and the PyTorch importer both speak these; shapes come from the program and are believed.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from ._sketch import Sketch
from ._sketch_value import LEAF, Value, joined, parts_of, scaled

_LARGEST = 2**31 - 1


class Conv(NamedTuple):
    """What a convolution is, whatever the order of its axes: sizes of one group, spatial sizes as tuples."""

    groups: int
    batch: int
    k: int  # outputs of a group
    c: int  # inputs of a group
    image: tuple[int, ...]
    out: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]


def product(
    sketch: Sketch, label: str, a: Value, b: Value, result: Value, *, groups: int, p: int, k: int, c: int
) -> Value:
    """`groups` products `p x c` by `c x k`. An operand made of parameters only holds still; without one it is an attention GEMM.

    A product of complex numbers is one of real numbers of twice the depth and twice the width: four MACs each.
    """
    if 0 in (groups, p, k, c):  # an empty sum is a constant
        return constant(result)
    a, b = sketch.settled(a), sketch.settled(b)
    if a.is_weight and not b.is_weight:
        a, b, p, k = b, a, k, p
    if a.kind == b.kind == "complex":
        c, k = 2 * c, 2 * k
    if not b.is_weight:
        groups, p = _shared(sketch, b, groups, p)
    batch, p = _fitting(p)
    if not b.is_weight:
        return sketch.add(label, "attention_gemm", [a, b], result, dims=dict(groups=groups, batch=batch, p=p, k=k, c=c))
    return sketch.add(label, "gemm", [a], result, dims=dict(groups=groups, batch=batch, p=p, k=k, c=c), weights=[b])


def _shared(sketch: Sketch, b: Value, groups: int, p: int) -> tuple[int, int]:
    """Groups that share their second operand (heads on the same keys, which were repeated for them) are rows of one product."""
    held = sum(part.elements for part in b.parts)
    if sketch.times > 1 or not held or b.elements % held or groups % (b.elements // held):
        return groups, p
    return groups // (b.elements // held), p * (b.elements // held)


def convolution(sketch: Sketch, label: str, x: Value, weight: Value, result: Value, conv: Conv) -> Value:
    """A convolution; windows of three axes are folded into two. Two activations (the gradient of a filter) are a GEMM."""
    if 0 in (result.elements, x.elements, weight.elements):
        return constant(result)
    x, weight = sketch.settled(x), sketch.settled(weight)
    p, q = _two(conv.out)
    r, s = _two(conv.window)
    if not weight.is_weight:
        batch, rows = _fitting(conv.batch * p * q)
        dims = dict(groups=conv.groups, batch=batch, p=rows, k=conv.k, c=conv.c * r * s)
        return sketch.add(label, "attention_gemm", [x, weight], result, dims=dims)
    dims = dict(groups=conv.groups, batch=conv.batch, k=conv.k, c=conv.c, p=p, q=q, r=r, s=s, stride=max(conv.stride))
    return sketch.add(label, "conv", [x], result, dims=dims, weights=[weight])


def transposed_convolution(sketch: Sketch, label: str, x: Value, weight: Value, result: Value, conv: Conv) -> Value:
    """A transposed convolution, zeros between pixels skipped: every pixel meets the whole window once, windows are added up on
    the lanes. `conv.image` is the picture before zeros were put between."""
    if 0 in (result.elements, x.elements, weight.elements):
        return constant(result)
    x, weight = sketch.settled(x), sketch.settled(weight)
    batch, p = _fitting(conv.batch * prod(conv.image))
    made = conv.k * prod(conv.window)
    dims = dict(groups=conv.groups, batch=batch, p=p, k=made, c=conv.c)
    lane_ops = conv.groups * made * conv.batch * prod(conv.image)
    if weight.is_weight:
        return sketch.add(label, "gemm", [x], result, dims=dims, weights=[weight], lane_ops=lane_ops)
    return sketch.add(label, "attention_gemm", [x, weight], result, dims=dims, lane_ops=lane_ops)


def vector(sketch: Sketch, label: str, kind: str, reads: Sequence[Value], result: Value, *, lane_ops: int | None = None,
           dims: dict[str, int] | None = None) -> Value:  # fmt: skip
    """Work on the lanes. Nothing is noted for constants, scalars, and arithmetic on indices that come from outside."""
    if result.elements == 0 or not any(value.parts for value in reads):
        return constant(result)
    from_leaves = any(part.source <= LEAF for value in reads for part in value.parts)
    if _is_index(*reads, result) or (sketch.is_tiny(result, *reads) and not from_leaves):
        return result._replace(parts=_capped(joined(reads), result), const=None, items=(), moved=False)
    reads = [sketch.settled(value) for value in reads]
    return sketch.add(label, kind, reads, result, dims=dims or vector_dims(sketch, reads, result), lane_ops=lane_ops)


def vector_dims(sketch: Sketch, reads: Sequence[Value], result: Value) -> dict[str, int]:
    """Last axis into `k`, the others into `p`; groups of the product before it, so that heads may be streamed."""
    width = result.shape[-1] if result.shape else 1
    rows = result.elements // width
    groups = 1
    for value in reads:
        of = [sketch.rows[row] for row in value.rows]
        if len(of) == 1 and value.elements == result.elements and of[0].dims.get("groups", 1) > 1 and sketch.times == 1:
            if rows % of[0].dims["groups"] == 0:
                groups = of[0].dims["groups"]
    batch, p = _fitting(rows // groups)
    return dict(groups=groups, batch=batch, k=width, p=p)


def pool(
    sketch: Sketch, label: str, kind: str, x: Value, result: Value, window: tuple[int, ...], stride: int = 1
) -> Value:
    """A pool of windows; `window` of the spatial axes only. The last axis of the result goes into `k`."""
    dims = vector_dims(sketch, [], result)
    r, s = _two(window)
    return vector(sketch, label, kind, [x], result, dims={**dims, "r": r, "s": s, "stride": stride})


def look_up(sketch: Sketch, label: str, table: Value, indices: Value, result: Value) -> Value:
    """Elements of `table` at `indices`: an embedding where the table is a parameter, read from memory, else a gather."""
    if result.elements == 0 or not (table.parts or indices.parts):
        return constant(result)
    if _is_index(table, indices, result) or sketch.is_tiny(result) and not table.is_weight:
        return result._replace(parts=_capped(joined([table]), result), const=None, items=(), moved=False)
    indices = sketch.settled(indices)
    dims = vector_dims(sketch, [], result)
    if table.is_weight:
        return sketch.add(
            label, "embedding", [indices], result, dims=dims, lane_ops=result.elements, tables=[table],
            table_elements=result.elements,
        )  # fmt: skip
    table = sketch.settled(table)
    touched = table._replace(parts=scaled(table.parts, min(result.elements, table.elements), table.elements))
    return sketch.add(label, "gather", [touched, indices], result, dims=dims)


def update(
    sketch: Sketch,
    label: str,
    x: Value,
    change: Value,
    result: Value,
    *,
    kind: str = "copy",
    others: Sequence[Value] = (),
) -> Value:
    """`x` with some of its elements overwritten (or added to) in place: only the change is read and written."""
    if change.elements == 0 or not (x.parts or change.parts):
        return result._replace(parts=x.parts)
    if sketch.is_tiny(change, result):
        return result._replace(parts=_capped(joined([x, change]), result))
    change, x = sketch.settled(change), sketch.settled(x)
    ready = tuple(part for part in x.parts if part.source >= 0)
    order = x._replace(parts=tuple(part._replace(elements=0) for part in ready))  # what is there has to be there
    made = sketch.add(
        label, kind, [change, *others, order], result, dims=vector_dims(sketch, [], change),
        out_elements=change.elements,
    )  # fmt: skip
    there = sum(part.elements for part in ready)
    mine = min(result.elements * sketch.times, there + change.elements * sketch.times)
    rest = tuple(part for part in x.parts if part.source < 0)
    total = sum(part.elements for part in rest)
    if total:
        rest = scaled(rest, max(0, total - change.elements), total) if total > change.elements else ()
    return result._replace(parts=(made.parts[0]._replace(elements=mine), *rest), const=None, items=(), moved=False)


def bias(sketch: Sketch, a: Value, b: Value, result: Value) -> Value | None:
    """The sum of a product and a parameter of one element an output, done by the product; None where it is not that."""
    if b.rows or not b.is_weight:
        a, b = b, a
    if not b.is_weight or len(a.parts) != 1 or a.parts[0].source < 0 or a.elements != result.elements:
        return None
    row = sketch.rows[a.parts[0].source]
    width = row.dims["k"] * row.dims.get("groups", 1)
    held = sum(part.elements for part in b.parts)
    whole = row.kind in ("gemm", "conv") and row.readers == 0 and a.parts[0].elements == row.out_elements
    windows = (
        row.kind == "gemm" and row.lane_ops and width % held == 0
    )  # outputs of a transposed convolution times its window
    if not whole or held not in (row.dims["k"], width) and not windows:
        return None
    row.pieces += b.parts
    row.weight_elements += held
    row.out_bits = result.bits
    return a._replace(shape=result.shape, kind=result.kind, bits=result.bits)


def converted(sketch: Sketch, value: Value, result: Value, only_reader: bool) -> Value:
    """The value in another number format: free, done as it is written where nobody else reads it."""
    if only_reader and len(value.parts) == 1 and value.parts[0].source >= 0:
        row = sketch.rows[value.parts[0].source]
        if row.readers == 0 and row.out_elements == value.parts[0].elements:
            row.out_bits = result.bits
    return value._replace(kind=result.kind, bits=result.bits, items=())._replace(parts=parts_of(value))


def _is_index(*values: Value) -> bool:
    """Whether values are positions, counts or masks that no row has made: their arithmetic is not worth a row."""
    return all((v.kind == "bool" or v.kind == "int" and v.bits != 8) and not v.rows for v in values)


def constant(result: Value) -> Value:
    return result._replace(parts=(), const=None, items=(), moved=False)


def copied(sketch: Sketch, label: str, value: Value) -> Value:
    """The value once it has been moved (a transposition that no contraction takes in)."""
    return vector(sketch, label, "copy", [value], value._replace(moved=False))


def _capped(parts, result: Value):
    """What a scalar was made of is not read again with it."""
    return tuple(part._replace(elements=min(part.elements, max(1, result.elements))) for part in parts)


def _fitting(n: int) -> tuple[int, int]:
    """A count as (batch, p), both in the range of an int32."""
    if n <= _LARGEST:
        return 1, n
    for batch in range(2, 1 << 16):
        if n % batch == 0 and n // batch <= _LARGEST:
            return batch, n // batch
    return 1, n  # refused with its name when the row is made


def _two(sizes: tuple[int, ...]) -> tuple[int, int]:
    """Spatial sizes as two: one axis is a column, more than two are folded into the first."""
    if len(sizes) < 2:
        return (sizes[0] if sizes else 1), 1
    return prod(sizes[:-1]), sizes[-1]
