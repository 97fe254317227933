"""In which order the nodes of a graph run, and where the names in them are looked up."""

import heapq
from collections.abc import Callable
from typing import Any, NamedTuple

from ._value import Value

_DEEPEST = 24  # subgraphs in each other
_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.preview")
_MICROSOFT = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc", "org.pytorch.aten")
_SHARED = (
    "Gelu",
    "QuantizeLinear",
    "DequantizeLinear",
    "LayerNormalization",
    "RMSNormalization",
    "Trilu",
    "Unique",
    "Pad",
)


class Step(NamedTuple):
    """A node: `kind` is its operator, with the domain in front where that is not ONNX's own (`ms.` for ONNX Runtime's)."""

    kind: str
    label: str
    attributes: dict[str, Any]
    inputs: list[str]
    outputs: list[str]
    domain: str
    op_type: str
    name: str


class Scope:
    """Values by name; a subgraph sees those of the graph around it (`outer`). `graph` declares types of values."""

    graph: Any

    def __init__(self, outer: "Scope | None", opset: int = 0, attributes: dict[str, Any] | None = None):
        self.outer, self.graph = outer, None
        self.opset = outer.opset if outer is not None else opset
        self.attributes = outer.attributes if outer is not None else attributes or {}  # of the function it is in
        self.values: dict[str, Value] = {}
        self.left_out: set[str] = set()  # optional inputs of a function
        self._types: dict[str, Any] | None = None

    def find(self, name: str) -> Value | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        return None

    def declared(self, name: str) -> Any:
        """The type that the graph declares for one of its values, if any."""
        if self.graph is None:
            return None
        if self._types is None:
            self._types = {v.name: v.type for v in [*self.graph.value_info, *self.graph.output] if v.HasField("type")}
        return self._types.get(name)


def kind_of(domain: str, op_type: str) -> str:
    if domain in _STANDARD or (domain in _MICROSOFT and op_type in _SHARED):
        return op_type
    return f"ms.{op_type}" if domain in _MICROSOFT else f"{domain}.{op_type}"


def planned(nodes: Any, wanted: list[str], scope: Scope, attributes: Callable[[Any], dict[str, Any]]) -> list[Step]:
    """Nodes that `wanted` depends on, in an order that respects who needs whom (that of the file where it does).

    Raises ValueError for a cycle and for a value that two nodes make.
    """
    nodes = list(nodes)
    maker: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in node.output:
            if name in maker:
                raise ValueError(
                    f"value {name!r} is made by two nodes, {_label(nodes[maker[name]])!r} and {_label(node)!r}"
                )
            if name:
                maker[name] = i
    uses: dict[int, list[int]] = {}
    pending = [maker[name] for name in wanted if name in maker]
    while pending:
        i = pending.pop()
        if i not in uses:
            uses[i] = sorted({maker[name] for name in _names(nodes[i], 0) if name in maker})
            pending += uses[i]
    order = sorted(uses)
    if any(source >= i for i in order for source in uses[i]):
        order = _sorted(order, uses, nodes)
    steps = []
    for node in (nodes[i] for i in order):
        label = _label(node)
        try:
            found = attributes(node)
        except ValueError as error:
            raise ValueError(f"node {label!r} ({node.op_type}): {error}") from None
        inputs = ["" if name in scope.left_out else name for name in node.input]
        domain, op_type = _text(node.domain), _text(node.op_type)
        kind = kind_of(domain, op_type)
        steps.append(
            Step(kind, label, found, inputs, list(node.output), domain or "ai.onnx", op_type, _text(node.name))
        )
    return steps


def _text(field: str | bytes) -> str:
    """A name; protobuf gives bytes for one that is damaged."""
    return field if isinstance(field, str) else field.decode("utf-8", "replace")


def _label(node: Any) -> str:
    return _text(node.name) or f"{_text(node.op_type)}_{next((_text(name) for name in node.output if name), '')}"


def _names(node: Any, depth: int) -> set[str]:
    """Names that a node looks up, those that its subgraphs take from around them included."""
    if depth > _DEEPEST:
        raise ValueError(f"subgraphs lie more than {_DEEPEST} deep in each other (node {_label(node)!r})")
    found = set(node.input)
    for attribute in node.attribute:
        if not attribute.HasField("g"):
            continue
        graph = attribute.g
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own |= {tensor.values.name for tensor in graph.sparse_initializer}
        wanted = {value.name for value in graph.output}
        for inner in graph.node:
            wanted |= _names(inner, depth + 1)
            own.update(inner.output)
        found |= wanted - own
    return found


def _sorted(order: list[int], uses: dict[int, list[int]], nodes: list[Any]) -> list[int]:
    """Kahn's algorithm, the earliest in the file first."""
    missing = {i: len(uses[i]) for i in order}
    readers: dict[int, list[int]] = {i: [] for i in order}
    for i in order:
        for source in uses[i]:
            readers[source].append(i)
    ready = [i for i in order if not missing[i]]
    done: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        done.append(i)
        for reader in readers[i]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(done) < len(order):
        left = min(set(order) - set(done))
        raise ValueError(
            f"the graph has a cycle through (or behind) node {_label(nodes[left])!r} ({nodes[left].op_type})"
        )
    return done
