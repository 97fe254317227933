"""From a graph to a flat list of operators with concrete shapes, in one pass: functions and subgraphs are run in place.

Only what the outputs need is looked at. Whatever depends on constants alone is computed (small) or its shape followed (large):
it is done once when a model is loaded and costs nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ._bind import Binding
from ._file import Tensors, attributes_of, constant
from ._fold import folded
from ._plan import Scope, Step, planned
from ._value import FOLDED, NeedsElements, Op, Root, Value, checked
from .shapes import SHAPES

_MOST_STEPS = 50_000  # nodes looked at besides those that the file writes down: functions, loops unrolled
_DEEPEST = 24  # of functions and subgraphs in each other
_FOLDED_ALTOGETHER = 2**25
_SHAPE_ONLY = ("Shape", "Size")
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_MOVES = (  # these move the elements of their first input, and compute nothing
    "BitCast", "Cast", "CastLike", "DequantizeLinear", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "Identity", "Pad", "QuantizeLinear", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "_Pick",
)  # fmt: skip
_LINEAR = ("Concat", "Add", "Sub", "Mul", "Div", "Neg", "Where", "Sum")
_MANY = 64  # roots that a computed constant remembers


class NodeError(ValueError):
    """An error that says already which file and node it is about."""


Results = list[Value | None]
Control = Callable[["Tracer", Op, Step, Scope], Results]


class Tracer:
    """Walks a model. `ops`: what was found; `unknown`: operators nobody knows, by name; `notes`: what was assumed.

    `control`: by kind, who runs control flow and sequences; it comes in from above, since it calls the tracer back.
    """

    def __init__(self, file: str, model: Any, tensors: Tensors, binding: Binding, control: Mapping[str, Control]):
        self.file, self.tensors, self.binding, self.control = file, tensors, binding, control
        self.ops: list[Op] = []
        self.unknown: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.functions = {(f.domain or "ai.onnx", f.name): f for f in model.functions}
        self.opset = _opset(model)
        self._plans: dict[int, tuple[Any, list[Step]]] = {}
        self.unrolled = 1  # trips that the loops around have, of those that are unrolled
        self._steps, self._depth, self._elements = 0, 0, 0
        self._most = _MOST_STEPS + 4 * (len(model.graph.node) + sum(len(f.node) for f in model.functions))

    def run_graph(self, graph: Any, scope: Scope, prefix: str = "", times: int = 1) -> list[Value]:
        """Trace a graph whose inputs stand in `scope`; its outputs."""
        scope.graph = graph
        for tensor in graph.initializer:
            if tensor.name in scope.values and scope.values[tensor.name].static:
                raise NodeError(f"{self.file}: initialiser {tensor.name!r} stands twice")
            if tensor.name not in scope.values:
                scope.values[tensor.name] = self._named(tensor, self.tensors.value, tensor.name)
        for tensor in graph.sparse_initializer:
            scope.values[tensor.values.name] = self._named(
                tensor, lambda t, _: self.tensors.sparse(t), tensor.values.name
            )
        wanted = [output.name for output in graph.output]
        if scope.attributes:  # in a function: attributes may change from call to call
            return self._run(self._planned(graph.node, wanted, scope), wanted, scope, prefix, times)
        if id(graph) not in self._plans:
            self._plans[id(graph)] = graph, self._planned(graph.node, wanted, scope)
        return self._run(self._plans[id(graph)][1], wanted, scope, prefix, times)

    def note(self, text: str) -> None:
        self.notes[text] = None

    def _named(self, tensor: Any, make: Any, name: str) -> Value:
        try:
            return make(tensor, name)
        except ValueError as error:
            raise NodeError(f"{self.file}: {error}") from None

    def _planned(self, nodes: Any, wanted: list[str], scope: Scope) -> list[Step]:
        try:
            return planned(nodes, wanted, scope, lambda node: attributes_of(node, scope.attributes, self.tensors))
        except ValueError as error:
            raise NodeError(f"{self.file}: {error}") from None

    def _run(self, plan: list[Step], wanted: list[str], scope: Scope, prefix: str, times: int) -> list[Value]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise NodeError(
                f"{self.file}: functions or subgraphs lie more than {_DEEPEST} deep in each other (at {prefix!r})"
            )
        try:
            for step in plan:
                self._steps += 1
                if self._steps > self._most:
                    raise NodeError(
                        f"{self.file}: has more than {self._most} operators with functions and loops written out"
                    )
                self._step(step, scope, prefix, times)
        finally:
            self._depth -= 1
        return [self._output(name, scope) for name in wanted]

    def _output(self, name: str, scope: Scope) -> Value:
        value = scope.find(name)
        if value is None:
            raise NodeError(f"{self.file}: output {name!r} is made by no node")
        return value

    def _step(self, step: Step, scope: Scope, prefix: str, times: int) -> None:
        label = f"{prefix}{step.label}"
        try:
            inputs: list[Value | None] = []
            for name in step.inputs:
                value = scope.find(name) if name else None
                if name and value is None:
                    raise ValueError(f"input {name!r} is neither an input of the graph nor made by an earlier node")
                inputs.append(value)
            op = Op(step.kind, label, step.attributes, inputs, [], times, scope.opset or self.opset)
            made = self._made(op, step, scope, prefix)
        except NodeError:
            raise
        except ValueError as error:
            raise NodeError(f"{self.file}: node {label!r} ({step.kind}): {error}") from None
        except (IndexError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
            raise NodeError(
                f"{self.file}: node {label!r} ({step.kind}): malformed attributes or inputs ({error!r})"
            ) from None
        for name, value in zip(step.outputs, made, strict=False):
            if name and value is not None:
                scope.values[name] = value

    def _made(self, op: Op, step: Step, scope: Scope, prefix: str) -> Results:
        function = self.functions.get((step.domain, step.op_type))
        if function is None and op.kind not in SHAPES and op.kind not in self.control and op.kind != "Constant":
            function = defined_function(self.tensors.onnx, op, step)
        if function is not None:
            return list(self._call(function, op, f"{op.label}/"))
        if op.kind == "Constant":
            return [constant(op.attributes, step.outputs[0])]
        if op.kind in self.control:
            return self.control[op.kind](self, op, step, scope)
        for value in op.inputs:
            if value is not None and value.items is not None:
                raise ValueError(f"input {value.name!r} is a sequence; expected a tensor")
        return list(self.emit(op, step.outputs, scope))

    def _call(self, function: Any, op: Op, prefix: str) -> list[Value]:
        """Run a function of the model in place."""
        defaults = attributes_of_defaults(function, self.tensors)
        scope = Scope(None, _opset(function) or self.opset, {**defaults, **op.attributes})
        for name, value in zip(function.input, op.inputs, strict=False):
            if value is not None:
                scope.values[name] = value
        for name in list(function.input)[len(op.inputs) :]:
            scope.left_out.add(name)
        wanted = list(function.output)
        if scope.attributes or scope.left_out:
            return self._run(self._planned(function.node, wanted, scope), wanted, scope, prefix, op.times)
        if id(function) not in self._plans:
            self._plans[id(function)] = function, self._planned(function.node, wanted, scope)
        return self._run(self._plans[id(function)][1], wanted, scope, prefix, op.times)

    def emit(self, op: Op, names: list[str], scope: Scope | None, made: list | None = None) -> list[Value]:
        """Note an operator down (or compute it, where everything is known); its results. `made`: (shape, type) if known."""
        op.outputs = [Value(name, ()) for name in names]
        op.outputs = self._shaped(op, names, scope) if made is None else _values(names, made)
        deciding = op.inputs[:1] if op.kind == "CastLike" else [] if op.kind in _SHAPE_ONLY else op.inputs
        if op.kind not in _RANDOM and not op.kind.startswith("?") and all(v is None or v.static for v in deciding):
            self._compute(op)
        else:
            for value in op.outputs:
                if not value.size and op.kind not in _MOVES and op.kind != "Concat":
                    raise ValueError(f"result {value.name!r} has no elements: shape {value.shape}")
                if not value.size:  # an empty part: there is nothing that is not known of it
                    value.static, value.array = True, np.zeros(value.shape, np.float32)
            self.ops.append(op)
        return op.outputs

    def _shaped(self, op: Op, names: list[str], scope: Scope | None) -> list[Value]:
        rule = SHAPES.get(op.kind)
        if op.kind == "NonZero" and op.needed(0).array is not None:
            found = folded(op) or [np.zeros(0)]
            return _values(names, [(found[0].shape, 7)])
        if rule is None:
            self.unknown[op.kind] = None
            op.kind = f"?{op.kind}"
            first = next((value for value in op.inputs if value is not None), None)
            like = (first.shape, first.elem) if first is not None else ((1,), 1)
            return _values(names, [self._declared(name, scope) or like for name in names])
        try:
            made = rule(op)
        except NeedsElements as error:
            said = {name: self._declared(name, scope) for name in names if name}
            if None in said.values():
                raise ValueError(f"{error}; nor does it say what the shape of {names[0]!r} is") from None
            return _values(names, [said.get(name) or ((), 1) for name in names])
        if any(names[len(made) :]):
            raise ValueError(f"has {len(names)} outputs; allowed: at most {len(made)}")
        return _values(names, made)

    def _declared(self, name: str, scope: Scope | None) -> tuple[tuple[int, ...], int] | None:
        """Shape and type that the file declares for a value."""
        said = scope.declared(name) if scope is not None and name else None
        return None if said is None else self.binding.declared(name, said)

    def _compute(self, op: Op) -> None:
        """Results of an operator all of whose operands are known when the model is loaded.

        They are made of the stored elements that were moved, added and scaled; what a function (cosine, comparison) makes of
        them is computed anew."""
        known = [value for value in op.inputs if value is not None]
        moved = op.kind in _MOVES
        sources = known[:1] if moved else known if op.kind in _LINEAR else []
        roots = tuple({root: None for value in sources for root in value.roots if root.given or moved})
        computed = known[0].computed if moved and known else op.kind != "Concat" or any(v.computed for v in known)
        small = sum(value.size for value in op.outputs) <= FOLDED
        arrays = folded(op) if small else None
        for i, value in enumerate(op.outputs):
            value.static, value.computed, value.roots = True, computed, roots
            if not roots or len(roots) > _MANY:
                value.roots = (Root(value.name, value.size, value.elem, value.size, given=False),)
            if arrays is not None and i < len(arrays) and arrays[i].shape == value.shape:
                self._elements += value.size
                if self._elements <= _FOLDED_ALTOGETHER:
                    value.array = arrays[i]


def defined_function(onnx: Any, op: Op, step: Step) -> Any:
    """The body that ONNX itself gives a standard operator that has no rule here, None if it gives none."""
    if "." in op.kind or not hasattr(onnx, "defs"):
        return None
    domain = "" if step.domain == "ai.onnx" else step.domain
    try:
        schema = onnx.defs.get_schema(step.op_type, op.opset, domain)
        if schema.has_function:
            return schema.function_body
        if not schema.has_context_dependent_function:
            return None
        node = onnx.helper.make_node(step.op_type, step.inputs, step.outputs, domain=domain)
        for name, found in op.attributes.items():
            node.attribute.append(onnx.helper.make_attribute(name, found))
        types = [
            b"" if v is None else onnx.helper.make_tensor_type_proto(v.elem, v.shape).SerializeToString()
            for v in op.inputs
        ]
        body = schema.get_context_dependent_function(node.SerializeToString(), types)
        return onnx.FunctionProto.FromString(body) if body else None
    except Exception:  # unknown, or of another version: it counts as data movement, with a warning
        return None


def _values(names: list[str], made: list) -> list[Value]:
    return [Value(name, checked(shape), elem) for name, (shape, elem) in zip(names, made, strict=False)]


def attributes_of_defaults(function: Any, tensors: Tensors) -> dict[str, Any]:
    """Attributes of a function that have a default."""

    class _Node:
        attribute = function.attribute_proto

    return attributes_of(_Node, {}, tensors)


def _opset(holder: Any) -> int:
    """Version of the standard operators that a model or function uses."""
    return max((o.version for o in holder.opset_import if o.domain in ("", "ai.onnx")), default=0)
