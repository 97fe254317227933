"""Workloads from a YAML or JSON file: a list of operators, each naming the operators it reads.

    name: tiny
    batch: 1
    operators:
      - {name: conv, kind: conv, k: 64, c: 3, p: 112, q: 112, r: 7, s: 7, stride: 2}
      - {name: relu, kind: relu, k: 64, p: 112, q: 112, inputs: [conv]}

`bits` (default 8) holds for every operand without `in_bits`, `weight_bits`, `out_bits` of its own. An operator without
`inputs` reads its activations from memory; a vector operator with `inputs` reads all of each.
Operators may stand in any order.
"""

import msgspec

from .._files import decode_file
from .._names import unknown_name
from ..workload._graph import GraphBuilder, Workload
from ..workload._operators import KINDS, MATRIX_KINDS, operator_row


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    kind: str
    k: int
    groups: int = 1
    batch: int = 1
    c: int = 1
    p: int = 1
    q: int = 1
    r: int = 1
    s: int = 1
    stride: int = 1
    bits: float = 8
    in_bits: float | None = None
    weight_bits: float | None = None
    out_bits: float | None = None
    parameters: int | None = None
    lane_ops: int | None = None
    inputs: list[str] = []


_BITS = ("bits", "in_bits", "weight_bits", "out_bits")
_SIZES = ("groups", "batch", "k", "c", "p", "q", "r", "s", "stride", *_BITS, "parameters", "lane_ops")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    operators: list[_Row]
    batch: int = 1


def load_workload_file(path: str) -> Workload:
    """A workload from a file. Raises ValueError in one line naming file, operator, field, value and what is allowed."""
    file = decode_file(path, _File)
    rows: dict[str, _Row] = {}
    for row in file.operators:
        if row.name in rows:
            raise ValueError(f"{path}: operator name {row.name!r} stands twice; names must be distinct")
        if row.kind not in KINDS:
            raise unknown_name(f"{path}: operator {row.name!r}: kind", row.kind, KINDS)
        for field in _BITS:
            bits = getattr(row, field)
            if bits is not None and not 1 <= bits <= 64:
                raise ValueError(f"{path}: operator {row.name!r}: {field} is {bits:g}; allowed: 1 to 64")
        for field in ("parameters", "lane_ops"):
            value = getattr(row, field)
            if value is not None and not 0 <= value < 2**53:
                raise ValueError(f"{path}: operator {row.name!r}: {field} is {value}; allowed: 0 to 2**53 - 1")
        rows[row.name] = row
    if not rows:
        raise ValueError(f"{path}: operators is empty; at least one is needed")
    if file.batch < 1:
        raise ValueError(f"{path}: batch is {file.batch}; allowed: an integer of at least 1")
    graph, index = GraphBuilder(file.name, file.batch), {}
    for name in _in_order(path, rows):
        row = rows[name]
        sizes, sources = {f: getattr(row, f) for f in _SIZES}, [index[i] for i in row.inputs]
        if sources and row.kind not in MATRIX_KINDS:
            sizes["in_elements"] = sum(graph.rows[i]["out_elements"] for i in sources)
        try:
            made = operator_row(row.kind, **sizes)
        except ValueError as error:
            raise ValueError(f"{path}: operator {name!r}: {error}") from None
        outside = 0.0 if sources else made["in_elements"] * made["in_bits"] / 8
        index[name] = graph.add(name, made, sources, outside)
    return graph.build()


def _in_order(path: str, rows: dict[str, _Row]) -> list[str]:
    """Operator names in an order that respects the edges (file order where free)."""
    done: dict[str, bool] = {}  # False while being visited
    order: list[str] = []
    for root in rows:
        stack = [(root, False)]
        while stack:
            name, finished = stack.pop()
            if finished:
                done[name] = True
                order.append(name)
                continue
            if done.get(name):
                continue
            if name in done:
                raise ValueError(f"{path}: the graph has a cycle through operator {name!r}; it must be acyclic")
            done[name] = False
            stack.append((name, True))
            for source in reversed(rows[name].inputs):
                if source not in rows:
                    raise unknown_name(f"{path}: operator {name!r}: input", source, rows)
                if done.get(source) is False:
                    raise ValueError(f"{path}: the graph has a cycle through operator {source!r}; it must be acyclic")
                if source not in done:
                    stack.append((source, False))
    return order
