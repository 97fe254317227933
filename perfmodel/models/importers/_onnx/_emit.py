"""From traced operators to rows of a workload.

Rules of counting: a parameter is an element of an initialiser (or constant) of a float or quantised type that a row reads as
weights, bias, scale, table or operand; each initialiser counts once, in the first row that reads it. Not counted: integers
and booleans (shapes, indices, masks), single elements (0.5 of a GELU, scales and zero points of quantisation), running
statistics of batch normalisation, and operands computed when the model is loaded (cosines of rotary positions).
A tensor that is only looked at in another shape or type is a view: nothing is moved, its reader reads what was written.
"""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

from ....workload._dtypes import Precision
from ....workload._graph import GraphBuilder
from ....workload._operators import LANE_OPS, operator_row
from ._value import BITS, FLOATS, QUANTISED, NeedsElements, Op, Root, Value

_MOST_PARTS = 64  # of a view; more are copied together
_LARGEST = 2**31


class Data(NamedTuple):
    """Where the elements of a tensor lie: (row, elements) of results of rows, and elements in memory with their bits."""

    parts: tuple[tuple[int, int], ...] = ()
    outside: int = 0
    outside_bits: float = 0.0


RowMaker = Callable[["Emitter", Op], None]


class Emitter:
    """Adds rows to `graph`. `activation`, `weight`: precision of all floats and quantised numbers, None: as in the file."""

    def __init__(self, graph: GraphBuilder, activation: Precision | None = None, weight: Precision | None = None):
        self.graph, self.activation, self.weight = graph, activation, weight
        self.data: dict[Value, Data] = {}
        self.taken: set[Root] = set()
        self.free: set[Op] = set()  # transpositions that their readers do on the way
        self._labels: dict[str, int] = {}

    def run(self, ops: Iterable[Op], rows: Mapping[str, RowMaker], otherwise: RowMaker) -> None:
        """Rows of all `ops`: `rows` says by kind who makes them, `otherwise` makes those of all other kinds."""
        for op in ops:
            try:
                rows.get(op.kind, otherwise)(self, op)
            except (ValueError, ArithmeticError, IndexError, KeyError, TypeError, AttributeError) as error:
                said = (
                    str(error)
                    if type(error) in (ValueError, NeedsElements)
                    else f"malformed attributes or inputs ({error!r})"
                )
                raise ValueError(f"node {op.label!r} ({op.kind.removeprefix('?')}): {said}") from None

    # where things lie

    def bits(self, elem: int) -> float:
        if self.activation is not None and (elem in FLOATS or elem in QUANTISED):
            return self.activation.bits
        return BITS[elem]

    def where(self, value: Value) -> Data:
        found = self.data.get(value)
        return Data((), value.size, self.bits(value.elem)) if found is None else found

    def view(self, value: Value, of: Value, share: float = 1.0) -> None:
        """`value` is (a part of) another tensor."""
        parts, outside, bits = self.where(of)
        if share < 1:
            parts = tuple((row, n) for row, elements in parts if (n := round(elements * share)))
            outside = round(outside * share)
        self.data[value] = Data(parts, outside, bits)

    def joined(self, value: Value, values: list[Value]) -> bool:
        """`value` is others side by side; False where they lie in too many places."""
        parts: dict[int, int] = {}
        outside, outside_bits = 0, 0.0
        for each in values:
            data = self.where(each)
            outside, outside_bits = outside + data.outside, outside_bits + data.outside * data.outside_bits
            for row, elements in data.parts:
                parts[row] = parts.get(row, 0) + elements
        if len(parts) > _MOST_PARTS:
            return False
        self.data[value] = Data(tuple(parts.items()), outside, outside_bits / outside if outside else 0.0)
        return True

    def repeat(self, value: Value, times: int) -> None:
        """`value` is so many of what it was said to be."""
        parts, outside, bits = self.data[value]
        self.data[value] = Data(tuple((row, n * times) for row, n in parts), outside * times, bits)

    # rows

    def row(self, op: Op, kind: str, dims: dict[str, int], reads: Iterable[Value | None], *, weights: Iterable[Value | None] = (),
            outputs: list[Value] | None = None, lane_ops: int | None = None, out_elements: int | None = None, label: str = "",
            stored: int | None = None, stored_bits: float | None = None, looked_up: int = 0,
            feeds: dict[int, int] | None = None) -> int:  # fmt: skip
        """A row that reads `reads` (constants among them are operands) and `weights` (constants in the role of parameters).

        `stored`, `stored_bits`: parameters and their bits where they are packed. `looked_up`: elements read from tables.
        `feeds`: elements that it reads of earlier rows of the same node.
        """
        outputs = op.outputs if outputs is None else outputs
        rows = self.graph.rows
        fed: dict[int, int] = dict(feeds or {})
        outside = outside_elements = 0
        static: list[tuple[Value, bool]] = [(v, True) for v in weights if v is not None and v.static]
        for value in [*reads, *(v for v in weights if v is not None and not v.static)]:
            if value is None:
                continue
            if value.static:
                static.append((value, False))
                continue
            data = self.where(value)
            for row, n in data.parts:
                fed[row] = fed.get(row, 0) + n * op.times
            outside += data.outside * data.outside_bits / 8 * op.times
            outside_elements += data.outside * op.times
        fed = {row: min(n, rows[row]["out_elements"]) for row, n in fed.items()}  # nobody reads more than there is
        edges = [(row, n * rows[row]["out_bits"] / 8) for row, n in fed.items()]
        parameters, read, weight_bits = self._parameters(static, op)
        if stored is not None:
            parameters, read, weight_bits = stored, stored, stored_bits or weight_bits
        if looked_up:
            read, outside = 0, outside + looked_up * op.times * weight_bits / 8
        elements = sum(fed.values()) + outside_elements + looked_up * op.times
        nbytes = sum(n for _, n in edges) + outside
        out_bits = self.bits(outputs[0].elem)
        if op.times > 1:
            axis = {"attention_gemm": "groups", "conv": "batch"}.get(kind, "p")
            dims = {**dims, axis: dims.get(axis, 1) * op.times}
            lane_ops = None if lane_ops is None else lane_ops * op.times
            out_elements = None if out_elements is None else out_elements * op.times
        made = operator_row(
            kind, **_fitting(dims), in_elements=elements, out_elements=out_elements, lane_ops=lane_ops, parameters=parameters,
            weight_elements=read, in_bits=nbytes * 8 / elements if elements else out_bits, weight_bits=weight_bits, out_bits=out_bits,
        )  # fmt: skip
        here = self.graph.add(self._name(f"{op.label}{label}"), made, edges, outside)
        for value in outputs:
            self.data[value] = Data(((here, value.size),))
        return here

    def vector(self, op: Op, kind: str, reads: Iterable[Value | None], *, lanes: float | None = None, shape: tuple[int, ...] | None = None,
               **more: Any) -> int:  # fmt: skip
        """A row on the lanes, with `lanes` operations an element of the result (default: what the kind takes)."""
        reads, shape = list(reads), op.outputs[0].shape if shape is None else shape
        lane_ops = round(prod(shape) * (LANE_OPS.get(kind, 1) if lanes is None else lanes))
        return self.row(op, kind, self._dims(shape, reads), reads, lane_ops=lane_ops, out_elements=prod(shape), **more)

    def _dims(self, shape: tuple[int, ...], reads: list[Value | None]) -> dict[str, int]:
        """Loop bounds of a tensor: of the heads it comes from where it does, of a picture, or of rows."""
        if len(shape) >= 3:
            for value in reads:
                parts = self.data[value].parts if value in self.data else ()
                groups = self.graph.rows[parts[0][0]]["groups"] if len(parts) == 1 else 1
                if groups > 1 and groups == prod(shape[:-2]):
                    return dict(groups=groups, k=shape[-1], p=shape[-2])
        if len(shape) == 4:
            return dict(batch=shape[0], k=shape[1], p=shape[2], q=shape[3])
        return dict(k=shape[-1] if shape else 1, p=prod(shape[:-1]))

    def _parameters(self, static: list[tuple[Value, bool]], op: Op) -> tuple[int, int, float]:
        """Parameters that count here, elements read, and the mean bits of both."""
        parameters = read = 0
        weighed = 0.0
        for value, is_weight in static:
            number = is_weight or (value.size > 1 and value.elem in FLOATS)
            for root in counted(value, is_weight) if number else ():
                if root not in self.taken:
                    self.taken.add(root)
                    parameters += root.elements
            if number:
                size = min(value.size, sum(root.elements for root in value.roots))
                read += size
                weighed += size * self.weight_bits(value)
        return parameters, read, weighed / read if read else self.weight_bits(static[0][0]) if static else BITS[1]

    def weight_bits(self, value: Value) -> float:
        """Bits of a stored element of a constant."""
        elem = value.elem if value.computed or not value.roots else value.roots[0].elem
        if self.weight is not None and (elem in FLOATS or elem in QUANTISED):
            return self.weight.bits
        return BITS[elem]

    def density(self, value: Value) -> float:
        """Share of a weight's elements that are stored."""
        root = value.roots[0] if value.roots else None
        own = root.elements / root.size if root is not None and root.size else 1.0
        return own * (self.weight.density if self.weight is not None else 1.0)

    def finish(self, outputs: list[Value]) -> None:
        """Results of the model are written to memory, also where a row reads them, and where they are views of inputs."""
        read = {source for source, _, _ in self.graph.edges}
        for value in dict.fromkeys(outputs):
            if value.static:
                continue
            if value.items is not None:
                self.finish(value.items)
                continue
            data = self.where(value)
            if not data.parts:
                copy = Op("Identity", f"{value.name}.output", {}, [value], [Value(value.name, value.shape, value.elem)])
                self.vector(copy, "copy", [value])
            for row, elements in data.parts:
                if row in read:
                    made = self.graph.rows[row]
                    made["outside_out_bytes"] += min(elements, made["out_elements"]) * made["out_bits"] / 8

    def _name(self, label: str) -> str:
        """A name that no other row has."""
        name = label
        while name in self._labels:
            self._labels[label] += 1
            name = f"{label}#{self._labels[label]}"
        self._labels[name] = 1
        return name


def counted(value: Value, is_weight: bool = False) -> list[Root]:
    """Stored elements of a constant that are parameters, in the role of weights or of any operand."""
    if not is_weight:
        return [r for r in value.roots if r.given and r.elements > 1 and (r.elem in FLOATS or r.elem in QUANTISED)]
    filled = any(root.given and root.elements == 1 for root in value.roots) and value.size > 1  # with one number
    given = [root for root in value.roots if root.given and not (filled and root.elements == 1)]
    return given if given or filled else list(value.roots)


def _fitting(dims: dict[str, int]) -> dict[str, int]:
    """Bounds that fit their integers: rows beyond go to the batch as far as they divide."""
    rows = dims.get("p", 1)
    if rows < _LARGEST:
        return dims
    for factor in (2**20, 2**16, 2**12, 2**8, 2**4, 10**6, 10**3, 10, 3, 2):
        if rows % factor == 0 and rows // factor < _LARGEST and dims.get("batch", 1) * factor < _LARGEST:
            return {**dims, "p": rows // factor, "batch": dims.get("batch", 1) * factor}
    return dims
