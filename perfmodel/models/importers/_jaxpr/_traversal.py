"""The walk over a flattened jaxpr: every step reads values and makes values; most make a row of a sketch on the way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._sketch import Sketch
from .._sketch_ops import bias, constant, copied, vector
from .._sketch_value import Value, flat, scaled
from ._flat import BY_ITEMS, CONTROL, ELEMENTWISE, FREE, REDUCTIONS, Aval, Program, Step
from ._scalars import evaluate

_KIND_OF = {"add": "add", "sub": "add", "add_any": "add", "mul": "mul", "tanh": "tanh", "logistic": "sigmoid"}
_NOTHING = (  # made where it is read: counters, random numbers
    "iota", "rng_bit_generator", "rng_uniform", "threefry2x32", "threefry4x32",
    "philox2x32", "philox4x32", "zeros_like", "empty2", "axis_index", "create_token", "after_all", "empty", "platform_index",
)  # fmt: skip
_COLLECTIVES = (
    "psum", "psum2", "psum_invariant", "pmax", "pmin", "ppermute", "all_gather", "all_gather_invariant", "all_to_all",
    "reduce_scatter", "psum_scatter", "pbroadcast", "ragged_all_to_all", "unreduced_psum",
)  # fmt: skip


Handler = Callable[["Walker", Step, list[Value], list[Value]], list[Value]]


class Walker:
    """Walks programs into `sketch`. `bits_of(dtype)`: what an element takes; `trips`: passes of while loops by name.

    `handlers`: by primitive, who makes its values where that takes more than its name; they come in from above, since they
    call the walk back (loops, branches).
    """

    def __init__(self, sketch: Sketch, bits_of: Callable[[Any], tuple[str, float]], trips: dict[str, int],
                 handlers: Mapping[str, Handler]):  # fmt: skip
        self.sketch, self.bits_of, self.trips, self.handlers = sketch, bits_of, trips, handlers
        self.scopes: list[str] = []
        self.program = Program()
        self._captured: dict[int, tuple[Any, Value]] = {}

    def run(self, program: Program, inputs: Sequence[Value]) -> list[Value]:
        """Values of the outputs of a program whose inputs are `inputs`."""
        outer, self.program = self.program, program
        env: dict[int, Value] = dict(zip(program.inputs, inputs, strict=True))
        for i, value in program.known.items():
            env[i] = self._known(program.avals[i], value)
        last_use = _last_uses(program)
        for n, step in enumerate(program.steps):
            ins = [env[i] for i in step.inputs]
            outs = [self._blank(program.avals[i]) for i in step.outputs]
            if step.outputs:
                env.update(zip(step.outputs, self._step(step, ins, outs), strict=True))
            for i in last_use.get(n, ()):
                env.pop(i, None)
        self.program = outer
        return [env[i] for i in program.outputs]

    def _step(self, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
        if step.name not in (*CONTROL, *BY_ITEMS):
            ins = [flat(value) for value in ins]
        if len(outs) == 1 and outs[0].elements == 1 and all(value.const is not None for value in ins):
            value = evaluate(step.name, step.params, [value.const for value in ins])
            if value is not None:
                return [outs[0]._replace(const=value)]
        if step.name in ELEMENTWISE:
            return [_elementwise(self, step, ins, outs[0])]
        if step.name in self.handlers:
            return self.handlers[step.name](self, step, ins, outs)
        if step.name in FREE:
            return [self.view(ins[0], outs[0])]
        if step.name in REDUCTIONS:
            if len(outs) == 1 and ins[0].elements == outs[0].elements and not step.name.startswith("arg"):
                return [self.view(ins[0], outs[0])]
            return [vector(self.sketch, self.label(step), "reduce", ins, out) for out in outs]
        if step.name in _NOTHING or step.name.startswith("random_"):
            return [constant(out) for out in outs]
        if step.name in _COLLECTIVES:
            self.sketch.warn(f"{step.name}: communication between devices is modelled as data movement")
        else:
            self.sketch.warn(f"primitive {step.name!r} is not known: modelled as data movement")
        return self.moved(step, [flat(value) for value in ins], outs)

    def label(self, step: Step, name: str = "") -> str:
        words = [*filter(None, (*self.scopes, step.scope))]
        name = name or step.name
        return ".".join(words if words and words[-1].rsplit(".", 1)[-1] == name else [*words, name])

    def moved(self, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
        """Everything read and everything written, nothing computed."""
        total = sum(out.elements for out in outs)
        whole = outs[0]._replace(shape=(total,), bits=max(out.bits for out in outs))
        return self.fan(vector(self.sketch, self.label(step), "copy", ins, whole), outs)

    @staticmethod
    def fan(made: Value, outs: Sequence[Value]) -> list[Value]:
        """Several results of one row."""
        total = max(1, sum(out.elements for out in outs))
        return [out._replace(parts=scaled(made.parts, out.elements, total) if out.elements else ()) for out in outs]

    def _blank(self, aval: Aval) -> Value:
        return Value(aval.shape, *self.bits_of(aval.dtype))

    def _known(self, aval: Aval, value: Any) -> Value:
        """A literal or a captured array: floating-point and 8-bit arrays are parameters, other integers tables in memory."""
        blank = self._blank(aval)
        if not aval.shape:
            return (
                blank._replace(const=np.asarray(value).item())
                if blank.kind != "complex" and blank.bits <= 64
                else blank
            )
        if blank.elements == 0 or id(value) in self._captured:
            return self._captured[id(value)][1] if id(value) in self._captured else blank
        name = f"captured{len(self._captured)}"
        parameter = blank.kind in ("float", "complex") or blank.kind == "int" and blank.bits <= 8
        make = self.sketch.leaf if parameter else lambda _, *of: self.sketch.outside(*of)
        self._captured[id(value)] = value, make(name, blank.shape, blank.kind, blank.bits)
        return self._captured[id(value)][1]

    @staticmethod
    def view(value: Value, out: Value) -> Value:
        const = value.const if out.elements == 1 else None
        return out._replace(parts=value.parts if out.elements else (), const=const, moved=value.moved)


def _last_uses(program: Program) -> dict[int, list[int]]:
    last = {i: n for n, step in enumerate(program.steps) for i in (*step.inputs, *step.outputs)}
    kept = set(program.outputs)
    found: dict[int, list[int]] = {}
    for i, n in last.items():
        if i not in kept:
            found.setdefault(n, []).append(i)
    return found


def _elementwise(walker: Walker, step: Step, ins: list[Value], out: Value) -> Value:
    sketch = walker.sketch
    if step.name in ("add", "add_any") and all(
        walker.program.readers[i] == 1 for i in step.inputs if ins[step.inputs.index(i)].rows
    ):
        with_bias = bias(sketch, ins[0], ins[1], out)
        if with_bias:
            return with_bias
    kind = _KIND_OF.get(step.name, "elementwise")
    if step.name == "max" and any(value.const == 0 for value in ins):
        kind = "relu"
    # operands of the same order of axes need no copy: the result has that order too
    whole = [value for value in ins if value.rows and value.elements == out.elements]
    if len({value.moved for value in whole}) > 1:
        ins = [
            copied(sketch, walker.label(step, "transpose"), value) if value.moved and value in whole else value
            for value in ins
        ]
        whole = []
    return vector(sketch, walker.label(step), kind, ins, out)._replace(moved=any(value.moved for value in whole))
