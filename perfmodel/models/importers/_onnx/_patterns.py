"""Patterns that exporters leave behind, and the operator that each of them means.

Every pattern hangs on one operator (Erf, Tanh, Sigmoid, Sqrt, IsNaN, a product) and looks at a bounded neighbourhood.
"""

from collections.abc import Callable

from ._value import Op, Value
from .rows import is_operand

_MOST = 12  # operators of a pattern on one side
_CASTS = ("Cast", "CastLike", "Identity")

Match = tuple[set[Op], Op, Op]  # members, the one that stands last, what takes their place


def _reader(value: Value, *kinds: str) -> Op | None:
    """The only reader of a value, if it is of these kinds."""
    readers = set(value.readers)
    only = next(iter(readers)) if len(readers) == 1 and not value.returned else None
    return only if only is not None and only.kind in kinds else None


def _made_by(value: Value | None, *kinds: str) -> Op | None:
    return value.maker if value is not None and value.maker is not None and value.maker.kind in kinds else None


def _with_scalar(op: Op | None) -> Value | None:
    """The operand of a binary operator whose other operand is a single constant."""
    if op is None or len(op.inputs) != 2 or None in op.inputs:
        return None
    a, b = op.needed(0), op.needed(1)
    return a if b.is_scalar and not a.static else b if a.is_scalar and not b.static else None


def _other(op: Op, value: Value) -> Value | None:
    if len(op.inputs) != 2 or None in op.inputs:
        return None
    a, b = op.needed(0), op.needed(1)
    return b if a is value else a if b is value else None


def _function_of(value: Value, x: Value, members: set[Op]) -> bool:
    """Whether `value` is computed from `x` and single constants alone, by a few multiplications and additions."""
    pending, seen = [value], 0
    while pending:
        each = pending.pop()
        if each is x or each.is_scalar:
            continue
        op, seen = each.maker, seen + 1
        if op is None or seen > _MOST or op.kind not in ("Mul", "Div", "Add", "Sub", "Pow", "Neg"):
            return False
        members.add(op)
        pending += [operand for operand in op.inputs if operand is not None]
    return True


def _gelu(op: Op) -> Match | None:
    """x / 2 * (1 + erf(x / sqrt 2)), its approximation with tanh, factors in any order."""
    add = _reader(op.outputs[0], "Add")
    if add is None or _with_scalar(add) is not op.outputs[0]:
        return None
    members, current, last = {op, add}, add.outputs[0], add
    x, half = None, False
    while x is None or not half:
        mul = _reader(current, "Mul")
        factor = _other(mul, current) if mul is not None else None
        if mul is None or factor is None or factor is current:
            return None
        if factor.is_scalar and not half:
            half = True
        elif x is None:
            scaled = _made_by(factor, "Mul", "Div")
            inner = _with_scalar(scaled)
            if not half and scaled is not None and inner is not None and _reader(factor, "Mul") is mul:
                members.add(scaled)
                x, half = inner, True
            else:
                x = factor
        else:
            return None
        members.add(mul)
        current, last = mul.outputs[0], mul
    if not _function_of(op.needed(0), x, members) or x.shape != last.outputs[0].shape:
        return None
    return members, last, Op("Gelu", last.label, {}, [x], last.outputs, last.times)


def _silu(op: Op) -> Match | None:
    """x * sigmoid(x), or sigmoid(1.702 x)."""
    mul = _reader(op.outputs[0], "Mul")
    x = _other(mul, op.outputs[0]) if mul is not None else None
    members = {op}
    if mul is None or x is None or x.static or not _function_of(op.needed(0), x, members):
        return None
    return members | {mul}, mul, Op("Swish", mul.label, {}, [x], mul.outputs, mul.times)


def _behind_casts(value: Value) -> Value:
    for _ in range(_MOST):
        op = _made_by(value, *_CASTS)
        if op is None:
            break
        value = op.needed(0)
    return value


def _alike(a: Value, b: Value) -> bool:
    """The same tensor, casts aside, or the same difference taken twice."""
    a, b = _behind_casts(a), _behind_casts(b)
    if a is b:
        return True
    one, two = _made_by(a, "Sub"), _made_by(b, "Sub")
    return one is not None and two is not None and all(x is y for x, y in zip(one.inputs, two.inputs, strict=True))


def _norm(op: Op) -> Match | None:
    """(x - mean) / sqrt(var + eps) * scale + shift, or x / sqrt(mean of squares + eps) * scale."""
    add = _made_by(op.input(0), "Add")
    variance = _with_scalar(add)
    mean = _made_by(variance, "ReduceMean")
    square = _made_by(mean.input(0), "Pow", "Mul") if mean is not None else None
    if add is None or variance is None or mean is None or square is None:
        return None
    d = square.needed(0)
    if (square.kind == "Mul" and square.input(1) is not d) or (square.kind == "Pow" and not square.needed(1).is_scalar):
        return None
    if not variance.shape or variance.shape[-1] != 1 or d.shape[-1] == 1:
        return None
    members = {op, add, mean, square}
    last = _reader(op.outputs[0], "Div", "Reciprocal")
    if last is not None and (last.kind == "Reciprocal" or _with_scalar(last) is op.outputs[0]):
        members.add(last)
        last = _reader(last.outputs[0], "Mul")
    if last is None:
        return None
    normed = next((v for v in last.inputs if v is not None and _alike(v, d)), None)
    if normed is None or len(last.inputs) != 2:
        return None
    members.add(last)
    x, centred = d, False
    for value in {d, normed}:
        sub = _made_by(_behind_casts(value), "Sub")
        average = _made_by(sub.input(1), "ReduceMean") if sub is not None else None
        if sub is not None and average is not None and _alike(average.needed(0), sub.needed(0)):
            x, centred = sub.needed(0), True
            members |= {sub, average}
            members |= _casts_between(value)
    scale, last = _constant_factor(last, "Mul", members, d.shape[-1])
    shift, last = _constant_factor(last, "Add", members, d.shape[-1]) if centred else (None, last)
    kind = "LayerNormalization" if centred else "RMSNormalization"
    return members, last, Op(kind, last.label, {}, [x, scale, shift], last.outputs, last.times)


def _casts_between(value: Value) -> set[Op]:
    made: set[Op] = set()
    for _ in range(_MOST):
        op = _made_by(value, *_CASTS)
        if op is None:
            break
        made.add(op)
        value = op.needed(0)
    return made


def _constant_factor(op: Op, kind: str, members: set[Op], width: int) -> tuple[Value | None, Op]:
    """The constant that `op`'s result meets next (behind a cast) in an operator of `kind`, and that operator."""
    cast = _reader(op.outputs[0], *_CASTS)
    reader = _reader((cast or op).outputs[0], kind)
    factor = _other(reader, (cast or op).outputs[0]) if reader is not None else None
    if (
        reader is None
        or factor is None
        or not factor.static
        or factor.size % width
        or reader.outputs[0].shape != op.outputs[0].shape
    ):
        return None, op
    members |= {reader} | ({cast} if cast is not None else set())
    return factor, reader


def _bias(op: Op) -> Match | None:
    """A product (convolution) with constant weights, then a constant added to each column (channel)."""
    add = _reader(op.outputs[0], "Add")
    bias = _other(add, op.outputs[0]) if add is not None else None
    if add is None or bias is None or not is_operand(bias) or op.input(2) is not None or not op.needed(1).static:
        return None
    shape, axis = op.outputs[0].shape, 1 if op.kind.startswith("Conv") else len(op.outputs[0].shape) - 1
    ends = (shape[axis], *(1 for _ in shape[axis + 1 :]))
    if bias.size != shape[axis] or bias.shape[-len(ends) :] != ends or add.outputs[0].shape != shape:
        return None
    made = Op(op.kind, op.label, op.attributes, [*op.inputs[:2], bias], add.outputs, op.times, op.opset)
    return {op, add}, add, made


def _safe_softmax(op: Op) -> Match | None:
    """where(isnan(softmax(x)), 0, softmax(x)): what torch makes of attention with masks."""
    softmax, where = _made_by(op.input(0), "Softmax"), _reader(op.outputs[0], "Where")
    if softmax is None or where is None or len(where.inputs) != 3 or where.needed(0) is not op.outputs[0]:
        return None
    if where.input(2) is not op.input(0) or not where.needed(1).is_scalar:
        return None
    made = Op("Softmax", softmax.label, softmax.attributes, softmax.inputs, where.outputs, softmax.times, softmax.opset)
    return {softmax, op, where}, where, made


PATTERNS: dict[str, Callable[[Op], Match | None]] = {
    "Erf": _gelu, "Tanh": _gelu, "Sigmoid": _silu, "Sqrt": _norm, "MatMul": _bias, "Gemm": _bias, "Conv": _bias,
    "ConvTranspose": _bias, "IsNaN": _safe_softmax,
}  # fmt: skip
