"""A workload in the making while someone else's program is walked: rows are noted first, and become a graph at the end.

Three things are only known at the end: which rows nobody needs (they are dropped), in which precision a result is really
written (a conversion that follows is done on the way), and which row is the first to read a parameter (it stores it).
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from ...workload._graph import GraphBuilder, Workload
from ...workload._operators import MATRIX_KINDS, operator_row
from . import ImportedModelWarning
from ._sketch_value import LEAF, LOOP, OUTSIDE, Part, Value, parts_of

_MOST_SOURCES = (
    4  # a value in more rows than that is copied together before it is read (a row takes eight inputs at most)
)
_TINY = 8  # vector work on fewer elements is scalar bookkeeping (counters, predicates, a mean's divisor)


class Leaf(NamedTuple):
    name: str
    elements: int
    bits: float


@dataclass
class Row:
    label: str
    kind: str
    dims: dict[str, int]
    reads: dict[int, int]  # row -> elements
    outside: int  # elements from memory
    outside_bytes: float
    loop: int  # elements that the previous pass of a folded loop left
    loop_bytes: float
    pieces: list[Part]  # parameters that are read, or stored beside (tables)
    out_elements: int
    out_bits: float
    lane_ops: int | None
    weight_elements: int
    readers: int = field(default=0)


class Sketch:
    """Rows noted so far. `times`: passes of the folded loops that the walk is in: sizes of rows grow by that factor.

    `where`: name of the model, the beginning of every message.
    """

    def __init__(self, where: str):
        self.where, self.times = where, 1
        self.rows: list[Row] = []
        self.leaves: list[Leaf] = []
        self.loops: list[tuple[int, int, list[int]]] = []  # folded: first row, end, rows that the next pass needs
        self._said: set[str] = set()

    def warn(self, message: str) -> None:
        """An `ImportedModelWarning`, once."""
        if message not in self._said:
            self._said.add(message)
            warnings.warn(f"{self.where}: {message}", ImportedModelWarning, stacklevel=2)

    def leaf(self, name: str, shape: tuple[int, ...], kind: str, bits: float) -> Value:
        """A parameter array."""
        self.leaves.append(Leaf(name, prod(shape), bits))
        return Value(shape, kind, bits, (Part(LEAF - len(self.leaves) + 1, prod(shape), bits),))

    @staticmethod
    def outside(shape: tuple[int, ...], kind: str, bits: float) -> Value:
        """An array that comes from memory."""
        return Value(shape, kind, bits, (Part(OUTSIDE, prod(shape), bits),))

    def add(self, label: str, kind: str, reads: Iterable[Value], result: Value, *, dims: dict[str, int], weights: Sequence[Value] = (),
            lane_ops: int | None = None, weight_elements: int | None = None, tables: Sequence[Value] = (),
            table_elements: int = 0, out_elements: int | None = None) -> Value:  # fmt: skip
        """A row that reads `reads` whole and makes `result` (of which shape, kind and bits are looked at).

        `weights`: the operand of a matrix row that holds still. `tables`: parameters stored with the row, of which it
        reads `table_elements` from memory. `lane_ops`, `weight_elements`, `table_elements`, `out_elements`: of one pass.
        """
        found: dict[int, int] = {}
        pieces = [part for weight in (*weights, *tables) for part in weight.parts if part.source <= LEAF]
        outside = table_elements * self.times
        outside_bytes = outside * max((v.bits for v in tables), default=0.0) / 8
        loop, loop_bytes, others = 0, 0.0, 0
        for part in (part for value in reads for part in value.parts):
            if part.source >= 0:
                found[part.source] = found.get(part.source, 0) + part.elements
            elif part.source == OUTSIDE:
                outside, outside_bytes = outside + part.elements, outside_bytes + part.elements * part.bits / 8
            elif part.source == LOOP:
                loop, loop_bytes = loop + part.elements, loop_bytes + part.elements * part.bits / 8
            else:
                pieces.append(part)
                others += part.elements
        stack = max([part.stack for weight in weights for part in weight.parts], default=1)
        dims = _folded(kind, dims, self.times, stack)
        if weight_elements is None:
            held = sum(part.elements for weight in weights for part in weight.parts)
            weight_elements = min(held, prod(dims.get(d, 1) for d in ("groups", "k", "c", "r", "s"))) if weights else 0
        else:
            weight_elements *= stack
        made = (result.elements if out_elements is None else out_elements) * self.times
        self.rows.append(
            Row(
                label,
                kind,
                dims,
                found,
                outside,
                outside_bytes,
                loop,
                loop_bytes,
                pieces,
                made,
                result.bits,
                None if lane_ops is None else lane_ops * self.times,
                weight_elements + others,
            )  # fmt: skip
        )
        for row in found:
            self.rows[row].readers += 1
        return result._replace(parts=(Part(len(self.rows) - 1, made),), const=None, items=(), moved=False)

    def settled(self, value: Value) -> Value:
        """The value, copied together where it lies in more rows than a reader can take."""
        parts = list(value.parts)
        while len({part.source for part in parts if part.source >= 0}) > _MOST_SOURCES:
            rows = [part for part in parts if part.source >= 0]
            others = [part for part in parts if part.source < 0]
            copies = []
            for i in range(0, len(rows), 8):
                chunk = rows[i : i + 8]
                elements = -(-sum(part.elements for part in chunk) // self.times)
                made = Value((elements,), value.kind, value.bits)
                read = Value((elements,), value.kind, value.bits, tuple(chunk))
                copies += self.add("copy", "copy", [read], made, dims=dict(k=elements)).parts
            parts = others + copies
        return value._replace(parts=tuple(parts))

    def build(self, outputs: Iterable[Value], batch: int = 1) -> Workload:
        """The graph of all rows that the outputs need; `batch`: inferences in one pass.

        Raises ValueError where there is none, or a size is out of range."""
        written: dict[int, int] = {}
        for part in (part for value in outputs for part in parts_of(value)):
            if part.source >= 0:
                written[part.source] = written.get(part.source, 0) + part.elements
        alive = self._alive(set(written))
        read_by_someone = {source for i, row in enumerate(self.rows) if alive[i] for source in row.reads}
        graph = GraphBuilder(self.where, batch)
        stored = self._stored(alive)
        here: dict[int, int] = {}
        labels: dict[str, int] = {}
        for i, row in enumerate(self.rows):
            if not alive[i]:
                continue
            labels[row.label] = labels.get(row.label, 0) + 1
            label = row.label if labels[row.label] == 1 else f"{row.label}#{labels[row.label]}"
            fed = [(here[s], n * self.rows[s].out_bits / 8) for s, n in row.reads.items()]
            kept = min(written.get(i, 0), row.out_elements) if i in read_by_someone else 0
            try:
                made = self._operator(row, stored[i], sum(nbytes for _, nbytes in fed))
            except ValueError as error:
                raise ValueError(f"{self.where}: operator {label!r}: {error}") from None
            here[i] = graph.add(label, made, fed, row.outside_bytes, kept * row.out_bits / 8)
        return graph.build()

    def _alive(self, needed: set[int]) -> list[bool]:
        """Rows that the rows `needed` depend on, also by way of the next pass of a folded loop."""
        while True:
            alive = [i in needed for i in range(len(self.rows))]
            for i in range(len(self.rows) - 1, -1, -1):
                for source in self.rows[i].reads if alive[i] else ():
                    alive[source] = True
            more = {row for first, end, rows in self.loops if any(alive[first:end]) for row in rows} - needed
            if not more:
                return alive
            needed = needed | more

    def _operator(self, row: Row, stored: int, fed_bytes: float) -> dict:
        elements = sum(row.reads.values()) + row.outside + row.loop
        entering = fed_bytes + row.outside_bytes + row.loop_bytes
        weights = sum(part.elements for part in row.pieces)
        weight_bits = sum(part.elements * part.bits for part in row.pieces) / weights if weights else row.out_bits
        return operator_row(
            row.kind, **row.dims, in_elements=elements, out_elements=row.out_elements, lane_ops=row.lane_ops, parameters=stored,
            weight_elements=row.weight_elements, in_bits=entering * 8 / elements if elements else row.out_bits,
            weight_bits=weight_bits, out_bits=row.out_bits,
        )  # fmt: skip

    def _stored(self, alive: list[bool]) -> list[int]:
        """Parameters that each row stores: a slice belongs to the row that reads it first; what nobody names of an array that is
        read belongs to its first reader."""
        left = [leaf.elements for leaf in self.leaves]
        first: dict[int, int] = {}
        claimed: set[tuple] = set()
        stored = [0] * len(self.rows)
        for i, row in enumerate(self.rows):
            for part in row.pieces if alive[i] else ():
                leaf = LEAF - part.source
                first.setdefault(leaf, i)
                if part.key is not None and (leaf, part.key) in claimed:
                    continue
                claimed.add((leaf, part.key or ()))
                take = min(left[leaf], part.elements)
                stored[i] += take
                left[leaf] -= take
        for leaf, i in first.items():
            stored[i] += left[leaf]
        return stored

    def is_tiny(self, *values: Value) -> bool:
        return all(value.elements < _TINY for value in values)


def _folded(kind: str, dims: dict[str, int], times: int, stack: int) -> dict[str, int]:
    """Sizes of a row that stands for `times` passes, in `stack` of which its weights are others."""
    if times == 1:
        return dims
    dims = dict(dims)
    stack = min(stack, times)
    for n, order in (
        (stack, ("groups",)),
        (times // stack, ("groups",) if kind == "attention_gemm" else ("p", "batch")),
    ):
        if kind not in MATRIX_KINDS:
            order = ("p", "q", "batch")
        elif kind == "conv" and order[0] == "p":
            order = ("batch",)
        names = (*order, "groups", "batch")  # where the first would exceed an int32
        name = next((d for d in names if dims.get(d, 1) * n < 2**31), order[0])
        dims[name] = dims.get(name, 1) * n
    return dims
