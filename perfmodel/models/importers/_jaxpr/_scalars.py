"""Scalars known on the host: predicates, counters, and how often a loop runs."""

import math
import operator
from collections.abc import Callable
from typing import Any

from ._flat import Program, Step

_MOST_SIMULATED = 20_000  # passes of a loop whose counter is followed step by step
Scalar = bool | int | float


def _div(a: Scalar, b: Scalar) -> Scalar:
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)  # towards zero, as XLA does


def _not(a: Scalar) -> Scalar:
    return not a if isinstance(a, bool) else ~int(a)


_UNARY: dict[str, Callable] = {
    "neg": operator.neg, "not": _not, "abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp, "log": math.log,
    "sqrt": math.sqrt, "square": lambda a: a * a, "sign": lambda a: (a > 0) - (a < 0), "is_finite": math.isfinite,
}  # fmt: skip
_BINARY: dict[str, Callable] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": _div, "rem": lambda a, b: a - b * _div(a, b), "max": max,
    "min": min, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor, "add_any": operator.add, "pow": operator.pow,
    "shift_left": operator.lshift, "shift_right_arithmetic": operator.rshift, "shift_right_logical": operator.rshift,
}  # fmt: skip
_SAME = (
    "reshape",
    "squeeze",
    "broadcast_in_dim",
    "stop_gradient",
    "copy",
    "copy_p",
    "expand_dims",
    "device_put",
    "convert_element_type",
)


def evaluate(name: str, params: dict[str, Any], values: list[Any]) -> Scalar | None:
    """The result of a primitive on scalars; None where it is not one of the known ones or has no value."""
    try:
        if name == "convert_element_type":
            kind = getattr(params["new_dtype"], "kind", "f")
            return {"b": bool, "i": int, "u": int, "f": float}[kind](values[0])
        if name in _SAME:
            return values[0]
        if name in _UNARY:
            return _UNARY[name](values[0])
        if name == "integer_pow":
            return values[0] ** params["y"]
        if name == "select_n":
            return values[1 + int(values[0])]
        if name == "clamp":
            return min(max(values[1], values[0]), values[2])
        return _BINARY[name](*values) if name in _BINARY else None
    except (ArithmeticError, ValueError, TypeError, KeyError, IndexError):
        return None


def count_passes(
    cond: Program, body: Program, cond_consts: list[Any], body_consts: list[Any], start: list[Any]
) -> int | None:
    """How often a loop runs whose condition only depends on scalars that are known (None: unknown ones), as that of
    `fori_loop` does; None where that cannot be told, or it does not end."""
    if len(cond.inputs) != len(cond_consts) + len(start) or len(body.inputs) != len(body_consts) + len(start):
        return None
    test = _slice(cond, [0])
    needed = {i - len(cond_consts) for i in _inputs_of(cond, test, [0]) if i >= len(cond_consts)}
    while True:  # carried scalars that the needed ones are made from
        steps = _slice(body, sorted(needed))
        more = {i - len(body_consts) for i in _inputs_of(body, steps, sorted(needed)) if i >= len(body_consts)} - needed
        if not more:
            break
        needed |= more
    closed = _arithmetic(cond, body, test, steps, cond_consts, body_consts, start)
    if closed is not None:
        return closed
    carry = [value if i in needed else None for i, value in enumerate(start)]
    for passes in range(_MOST_SIMULATED):
        go = _run(cond, test, [*cond_consts, *carry], [0])[0]
        if go is None:
            return None
        if not go:
            return passes
        made = _run(body, steps, [*body_consts, *carry], sorted(needed))
        for i, value in zip(sorted(needed), made, strict=True):
            carry[i] = value
    return None


def _slice(program: Program, wanted: list[int]) -> list[Step]:
    """Steps that the outputs number `wanted` depend on."""
    need, found = {program.outputs[i] for i in wanted}, []
    for step in reversed(program.steps):
        if need & set(step.outputs):
            need.update(step.inputs)
            found.append(step)
    return found[::-1]


def _inputs_of(program: Program, steps: list[Step], wanted: list[int]) -> set[int]:
    read = {i for step in steps for i in step.inputs} | {program.outputs[i] for i in wanted}
    return {n for n, i in enumerate(program.inputs) if i in read}


def _run(program: Program, steps: list[Step], inputs: list[Any], wanted: list[int]) -> list[Any]:
    env = {i: _scalar(value) for i, value in program.known.items()}
    env.update(zip(program.inputs, inputs, strict=True))
    for step in steps:
        values = [env.get(i) for i in step.inputs]
        known = len(step.outputs) == 1 and not step.programs and all(value is not None for value in values)
        env[step.outputs[0]] = evaluate(step.name, step.params, values) if known else None
    return [env.get(program.outputs[i]) for i in wanted]


def _scalar(value: Any) -> Scalar | None:
    try:
        return value.item() if getattr(value, "shape", ()) == () and hasattr(value, "item") else _plain(value)
    except (TypeError, ValueError, AttributeError):
        return None


def _plain(value: Any) -> Scalar | None:
    return value if isinstance(value, bool | int | float) else None


def _arithmetic(cond: Program, body: Program, test: list[Step], steps: list[Step], cond_consts: list[Any], body_consts: list[Any],
                start: list[Any]) -> int | None:  # fmt: skip
    """`i < bound` with `i += step`, in closed form: a long loop is not followed pass by pass."""
    if len(test) != 1 or len(steps) != 1 or test[0].name not in ("lt", "le") or steps[0].name != "add":
        return None
    left, right = test[0].inputs
    if left not in cond.inputs[len(cond_consts) :]:
        return None
    n = cond.inputs.index(left) - len(cond_consts)
    values = dict(zip(cond.inputs, [*cond_consts, *start], strict=True)) | {
        i: _scalar(v) for i, v in cond.known.items()
    }
    constants = dict(zip(body.inputs, body_consts, strict=False)) | {i: _scalar(v) for i, v in body.known.items()}
    counter = body.inputs[len(body_consts) + n]
    by = [constants.get(i) for i in steps[0].inputs if i != counter]
    bound_moves = (
        right in cond.inputs[len(cond_consts) :]
        and body.outputs[cond.inputs.index(right) - len(cond_consts)]
        != (body.inputs[len(body_consts) + cond.inputs.index(right) - len(cond_consts)])
    )
    first, bound = values.get(left), values.get(right)
    if bound_moves or len(by) != 1 or body.outputs[n] not in steps[0].outputs:
        return None
    step = by[0]
    if not isinstance(first, int) or not isinstance(bound, int) or not isinstance(step, int) or step < 1:
        return None
    return max(0, -(-(bound + (test[0].name == "le") - first) // step))
