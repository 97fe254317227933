"""Computing with small constants: what exporters write down to find out a shape."""

from collections.abc import Callable

import numpy as np

from ._value import NUMPY, Op, Value, axis_of
from .shapes import ends_of, reduced_axes, slices

_Arrays = list[np.ndarray]


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Division of integers truncates."""
    if np.issubdtype(a.dtype, np.integer):
        return np.where(b == 0, 0, np.trunc(a / np.where(b == 0, 1, b))).astype(a.dtype)
    return a / b


def _modulo(op: Op, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.fmod(a, b) if op.integer("fmod", 0) else np.mod(a, b)


def _shape(op: Op, *_: np.ndarray) -> np.ndarray:
    return np.asarray(op.shape(0)[ends_of(op)], np.int64)


def _cast(op: Op, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    return x.astype(NUMPY[op.outputs[0].elem])


def _filled(op: Op, _: np.ndarray) -> np.ndarray:
    value = op.attributes.get("value")
    fill = value.array.reshape(-1)[0] if isinstance(value, Value) and value.array is not None else np.float32(0)
    return np.full(op.outputs[0].shape, fill)


def _range(op: Op, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    steps = np.arange(op.outputs[0].size, dtype=np.float64 if start.dtype.kind == "f" else np.int64)
    return (start.reshape(()) + steps * delta.reshape(())).astype(start.dtype)


def _slice(op: Op, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    taken = slices(op)
    return x[tuple(taken.get(i, slice(None)) for i in range(x.ndim))]


def _split(op: Op, x: np.ndarray, *_: np.ndarray) -> _Arrays:
    axis = axis_of(op.integer("axis", 0), x.ndim)
    ends = np.cumsum([value.shape[axis] for value in op.outputs])
    return np.split(x, ends[:-1], axis)


def _gather(op: Op, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.take(x, indices.astype(np.int64), axis_of(op.integer("axis", 0), x.ndim))


def _gather_nd(op: Op, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    if op.integer("batch_dims", 0):
        raise NotImplementedError
    return x[tuple(np.moveaxis(indices.astype(np.int64), -1, 0))]


def _reducer(call: Callable) -> Callable:
    return lambda op, x, *_: np.asarray(
        call(x, axis=tuple(reduced_axes(op)), keepdims=bool(op.integer("keepdims", 1))), x.dtype
    )


def _cumulated(op: Op, x: np.ndarray, axis: np.ndarray) -> np.ndarray:
    if op.integer("exclusive", 0) or op.integer("reverse", 0):
        raise NotImplementedError
    return np.cumsum(x, int(axis.reshape(-1)[0]), dtype=x.dtype)


def _fold_all(call: Callable) -> Callable:
    def fold(_: Op, first: np.ndarray, *others: np.ndarray) -> np.ndarray:
        for other in others:
            first = call(first, other)
        return first

    return fold


def _plain(call: Callable) -> Callable:
    return lambda _, *arrays: call(*arrays)


def _scatter_nd(_: Op, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    made = x.copy()
    made[tuple(np.moveaxis(indices.astype(np.int64), -1, 0))] = updates
    return made


def _clip(_: Op, x: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None) -> np.ndarray:
    return x if low is None and high is None else np.clip(x, low, high).astype(x.dtype)


def _found(_: Op, x: np.ndarray) -> np.ndarray:
    return np.stack(np.nonzero(x)).astype(np.int64)


def _one_row(op: Op, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    return x.reshape(op.outputs[0].shape)


def _expand(op: Op, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, op.outputs[0].shape)


def _upper(op: Op, x: np.ndarray, k: np.ndarray | None = None) -> np.ndarray:
    offset = 0 if k is None else int(k.reshape(-1)[0])
    return np.triu(x, offset) if op.integer("upper", 1) else np.tril(x, offset)


FOLD: dict[str, Callable] = {
    "Abs": _plain(np.abs), "Add": _plain(np.add), "And": _plain(np.logical_and), "Cast": _cast, "CastLike": _cast,
    "Ceil": _plain(np.ceil), "Clip": _clip, "Concat": lambda op, *xs: np.concatenate(xs, axis_of(op.integer("axis", 1), xs[0].ndim)),
    "ConstantOfShape": _filled, "CumSum": _cumulated, "Div": _plain(_divide), "Equal": _plain(np.equal), "Exp": _plain(np.exp),
    "Expand": _expand, "Flatten": _one_row, "Floor": _plain(np.floor), "Gather": _gather, "GatherND": _gather_nd,
    "Greater": _plain(np.greater), "GreaterOrEqual": _plain(np.greater_equal), "Identity": _plain(np.array), "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal), "Log": _plain(np.log), "Max": _fold_all(np.maximum), "Min": _fold_all(np.minimum),
    "Mod": _modulo, "Mul": _plain(np.multiply), "Neg": _plain(np.negative), "NonZero": _found, "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or), "Pow": lambda _, a, b: np.power(a, b).astype(a.dtype), "Range": _range,
    "Reciprocal": _plain(np.reciprocal), "ReduceMax": _reducer(np.max), "ReduceMin": _reducer(np.min),
    "ReduceProd": _reducer(np.prod), "ReduceSum": _reducer(np.sum), "Reshape": _one_row, "Round": _plain(np.round),
    "ScatterND": _scatter_nd, "Shape": _shape, "Sign": _plain(np.sign), "Size": lambda op, *_: np.asarray(op.needed(0).size, np.int64),
    "Slice": _slice, "Split": _split, "Sqrt": _plain(np.sqrt), "Squeeze": _one_row, "Sub": _plain(np.subtract), "Sum": _fold_all(np.add),
    "Tile": lambda op, x, times: np.tile(x, times.reshape(-1)), "Transpose": lambda op, x: x.transpose(op.integers("perm") or None),
    "Trilu": _upper, "Unsqueeze": _one_row, "Where": _plain(np.where), "Xor": _plain(np.logical_xor),
}  # fmt: skip
_SHAPE_ONLY = ("Shape", "Size")


def folded(op: Op) -> list[np.ndarray] | None:
    """The elements of the results, or None where they cannot be had: an operand or a rule is missing."""
    call = FOLD.get(op.kind)
    if call is None:
        return None
    if op.kind in _SHAPE_ONLY:
        return [call(op)]
    arrays = [
        None if value is None else value.array for value in (op.inputs[:1] if op.kind == "CastLike" else op.inputs)
    ]
    while arrays and arrays[-1] is None and op.inputs[len(arrays) - 1] is None:
        arrays.pop()
    if any(array is None and value is not None for array, value in zip(arrays, op.inputs, strict=False)):
        return None
    try:
        with np.errstate(all="ignore"):
            made = call(op, *arrays)
    except (
        ValueError,
        TypeError,
        IndexError,
        OverflowError,
        NotImplementedError,
        KeyError,
        MemoryError,
        AttributeError,
    ):
        return None
    return [np.asarray(array) for array in (made if isinstance(made, list) else [made])]
