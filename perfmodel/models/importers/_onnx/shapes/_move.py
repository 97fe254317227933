"""Shapes of results of operators that move elements: reshaping, slicing, joining, looking up, padding, resizing."""

from math import ceil, floor, prod

import numpy as np

from .._value import FLOAT, INT64, Made, NeedsElements, Op, Rule, Value, axes_of, axis_of, broadcast, with_rank


def _reshape(op: Op) -> Made:
    target, shape = op.integers("shape", 1), op.shape(0)
    size, zero = prod(shape), op.integer("allowzero", 0)
    if len(target) > 32 or sum(n == -1 for n in target) > 1 or any(n < -1 for n in target):
        raise ValueError(f"target shape is {target[:40]}; allowed: one -1 and sizes of at least 0")
    made = [shape[i] if n == 0 and not zero and i < len(shape) else n for i, n in enumerate(target)]
    rest = prod(n for n in made if n != -1)
    if -1 in made:
        if not rest or size % rest:
            raise ValueError(f"shape {shape} does not fit into {target}")
        made[made.index(-1)] = size // rest
    if prod(made) != size:
        raise ValueError(f"shape {shape} has {size} elements; target {target} has {prod(made)}")
    return [(tuple(made), op.needed(0).elem)]


def _flatten(op: Op) -> Made:
    shape, axis = op.shape(0), op.integer("axis", 1)
    axis = axis if axis == len(shape) else axis_of(axis, len(shape) or 1)
    return [((prod(shape[:axis]), prod(shape[axis:])), op.needed(0).elem)]


def _squeeze(op: Op) -> Made:
    shape = op.shape(0)
    axes = axes_of(op, len(shape))
    axes = [i for i, size in enumerate(shape) if size == 1] if axes is None else axes
    if any(shape[i] != 1 for i in axes):
        raise ValueError(f"axes {axes} of shape {shape} are not all 1")
    return [(tuple(size for i, size in enumerate(shape) if i not in set(axes)), op.needed(0).elem)]


def _unsqueeze(op: Op) -> Made:
    shape, axes = op.shape(0), op.integers("axes", 1, [])
    rank = len(shape) + len(axes)
    at, rest = {axis_of(axis, rank) for axis in axes}, iter(shape)
    if len(at) != len(axes):
        raise ValueError(f"axes {axes} stand twice")
    return [(tuple(1 if i in at else next(rest) for i in range(rank)), op.needed(0).elem)]


def _transpose(op: Op) -> Made:
    shape = op.shape(0)
    order = op.integers("perm", None, range(len(shape))[::-1]) or []
    if sorted(order) != list(range(len(shape))):
        raise ValueError(f"perm {order} does not order the {len(shape)} axes")
    return [(tuple(shape[i] for i in order), op.needed(0).elem)]


def _concat(op: Op) -> Made:
    shapes = [v.shape for v in op.inputs if v is not None]
    if not shapes:
        raise ValueError("nothing to concatenate")
    axis = axis_of(op.integer("axis", 1), len(shapes[0]))
    if any(s[:axis] + s[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :] for s in shapes):
        raise ValueError(f"shapes {', '.join(map(str, shapes[:8]))} do not go together along axis {axis}")
    return [((*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :]), op.needed(0).elem)]


def _split(op: Op) -> Made:
    shape = op.shape(0)
    axis = axis_of(op.integer("axis", 0), len(shape))
    sizes, total = op.optional_integers("split", 1), shape[axis]
    if sizes is None:
        parts = op.integer("num_outputs", len(op.outputs))
        if not 1 <= parts <= max(len(op.outputs), 1):
            raise ValueError(f"splits into {parts} parts and has {len(op.outputs)} results")
        each = -(-total // parts)
        sizes = [max(0, min(each, total - i * each)) for i in range(parts)]
    if sum(sizes) != total:
        raise ValueError(f"parts {sizes[:20]} do not add up to axis {axis} of shape {shape}")
    return [((*shape[:axis], size, *shape[axis + 1 :]), op.needed(0).elem) for size in sizes]


def slices(op: Op) -> dict[int, slice]:
    """What `Slice` takes, by axis."""
    shape = op.shape(0)
    starts, ends = op.integers("starts", 1, []), op.integers("ends", 2, [])
    axes, steps = op.integers("axes", 3, range(len(starts))), op.integers("steps", 4, [1] * len(starts))
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ValueError(
            f"starts {starts[:8]}, ends {ends[:8]}, axes {axes[:8]} and steps {steps[:8]} do not go together"
        )
    made = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = axis_of(axis, len(shape))
        made[axis] = slice(*_bounds(start, end, step, shape[axis]))
    return made


def _bounds(start: int, end: int, step: int, size: int) -> tuple[int, int | None, int]:
    start, end, step = slice(start, end, step).indices(size)
    return start, (None if end < 0 else end), step


def _slice(op: Op) -> Made:
    shape = list(op.shape(0))
    for axis, taken in slices(op).items():
        shape[axis] = len(range(*taken.indices(shape[axis])))
    return [(tuple(shape), op.needed(0).elem)]


def _gather(op: Op) -> Made:
    data, indices = op.shape(0), op.shape(1)
    axis = axis_of(op.integer("axis", 0), len(data))
    return [((*data[:axis], *indices, *data[axis + 1 :]), op.needed(0).elem)]


def _gather_nd(op: Op) -> Made:
    data, indices, same = op.shape(0), op.shape(1), op.integer("batch_dims", 0)
    if not indices or not 0 <= same <= len(data) or not 0 <= indices[-1] <= len(data) - same:
        raise ValueError(f"indices of shape {indices} do not fit data of shape {data}")
    return [((*indices[:-1], *data[same + indices[-1] :]), op.needed(0).elem)]


def _expand(op: Op) -> Made:
    return [(broadcast(op.shape(0), op.integers("shape", 1)), op.needed(0).elem)]


def _tile(op: Op) -> Made:
    shape, times = op.shape(0), op.integers("repeats", 1)
    if len(times) != len(shape):
        raise ValueError(f"repeats {times[:8]} do not fit shape {shape}")
    return [(tuple(size * n for size, n in zip(shape, times, strict=True)), op.needed(0).elem)]


def _pad(op: Op) -> Made:
    shape = list(op.shape(0))
    axes = op.integers("axes", 3, range(len(shape)))
    pads = op.integers("pads") or op.integers("paddings", 1, [0] * 2 * len(axes))
    if len(pads) != 2 * len(axes):
        raise ValueError(f"pads {pads[:16]} do not fit shape {tuple(shape)}")
    for i, axis in enumerate(axes):
        shape[axis_of(axis, len(shape))] += pads[i] + pads[i + len(axes)]
    return [(tuple(shape), op.needed(0).elem)]


def _blocks(op: Op) -> Made:
    n, c, h, w = with_rank(op, 4)
    b = op.integer("blocksize", 1)
    if b < 1 or (c % (b * b) if op.kind == "DepthToSpace" else h % b or w % b):
        raise ValueError(f"blocksize {b} does not divide shape {(n, c, h, w)}")
    made = (n, c // (b * b), h * b, w * b) if op.kind == "DepthToSpace" else (n, c * b * b, h // b, w // b)
    return [(made, op.needed(0).elem)]


def _resize(op: Op) -> Made:
    shape, elem = op.shape(0), op.needed(0).elem
    old = op.kind == "Upsample" or op.opset < 11
    axes = op.integers("axes", None, range(len(shape))) or []
    axes = [axis_of(axis, len(shape)) for axis in axes]
    if not old and op.input(3) is not None and op.shape(3) != (0,):
        sizes = dict(zip(axes, op.integers("sizes", 3), strict=True))
        policy, ratios = op.text("keep_aspect_ratio_policy", "stretch"), [n / shape[a] for a, n in sizes.items()]
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            sizes = {axis: floor(shape[axis] * ratio + 0.5) for axis in sizes}
    else:
        given = op.attributes.get("scales")
        scales = np.asarray(op.elements(1 if old else 2) if given is None else given, np.float64).reshape(-1)
        if not np.isfinite(scales).all() or (scales < 0).any():
            raise ValueError("scales are not positive numbers")
        sizes = {axis: floor(shape[axis] * float(s)) for axis, s in zip(axes, scales, strict=True)}
    return [(tuple(sizes.get(i, size) for i, size in enumerate(shape)), elem)]


def _shape(op: Op) -> Made:
    return [((len(op.shape(0)[ends_of(op)]),), INT64)]


def ends_of(op: Op) -> slice:
    return slice(op.integer("start", 0), op.integer("end", 2**31))


def _constant_of_shape(op: Op) -> Made:
    value = op.attributes.get("value")
    return [(tuple(op.integers("shape", 0)), value.elem if isinstance(value, Value) else FLOAT)]


def _range(op: Op) -> Made:
    start, limit, delta = (float(op.elements(i).reshape(-1)[0]) for i in range(3))
    if delta == 0 or not np.isfinite([start, limit, delta]).all():
        raise ValueError(f"range from {start} to {limit} in steps of {delta}")
    return [((max(ceil((limit - start) / delta), 0),), op.needed(0).elem)]


def _one_hot(op: Op) -> Made:
    shape, depth = list(op.shape(0)), int(op.elements(1).reshape(-1)[0])
    axis = op.integer("axis", -1)
    shape.insert(axis_of(axis, len(shape) + 1), depth)
    return [(tuple(shape), op.needed(2).elem)]


def _unknowable(op: Op) -> Made:
    raise NeedsElements("the result's shape depends on elements that are computed")


MOVES: dict[str, Rule] = {
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks), **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("NonZero", "Compress", "Unique", "NonMaxSuppression"), _unknowable),
    "Concat": _concat, "ConstantOfShape": _constant_of_shape, "Expand": _expand, "Flatten": _flatten, "Gather": _gather,
    "GatherElements": lambda op: [(op.shape(1), op.needed(0).elem)], "GatherND": _gather_nd, "OneHot": _one_hot, "Pad": _pad,
    "Range": _range, "Reshape": _reshape, "Shape": _shape, "Size": lambda op: [((), INT64)], "Slice": _slice, "Split": _split,
    "Squeeze": _squeeze, "Tile": _tile, "Transpose": _transpose, "Unsqueeze": _unsqueeze,
}  # fmt: skip
