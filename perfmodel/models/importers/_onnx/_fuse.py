"""Before rows are made: what nobody needs goes, patterns that exporters leave behind become the operator they mean.

A pattern is taken only where nothing inside it is read from outside; the time is linear in the graph.
"""

from ._patterns import PATTERNS
from ._value import Op, Value
from .rows import VIEWS

_STRIDED = (  # these read their operands in any order of axes
    "MatMul", "Gemm", "Einsum", "MatMulInteger", "QLinearMatMul", "Attention", "ms.FusedMatMul", "ms.MultiHeadAttention",
)  # fmt: skip

_PASSING = (
    *VIEWS,
    "Transpose",
    "Slice",
    "Concat",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Neg",
)  # these, too, if their readers do


def simplified(ops: list[Op], outputs: list[Value]) -> tuple[list[Op], set[Op]]:
    """Operators that `outputs` need, patterns replaced; and the transpositions that cost nothing."""
    ops = _linked(ops, outputs)
    gone: set[Op] = set()
    instead: dict[Op, Op] = {}
    for op in ops:
        match = PATTERNS[op.kind](op) if op.kind in PATTERNS and op not in gone else None
        if match is None or match[0] & gone or not _closed(match[0], match[1]):
            continue
        gone |= match[0]
        instead[match[1]] = match[2]
    ops = [instead.get(op, op) for op in ops if op not in gone or op in instead]
    ops = _linked(ops, outputs)
    return ops, _free(ops)


def _linked(ops: list[Op], outputs: list[Value]) -> list[Op]:
    """Live operators; each value knows its maker and readers."""
    wanted: set[Value] = set()
    pending = list(outputs)
    while pending:
        value = pending.pop()
        wanted.add(value)
        value.returned = True
        pending += value.items or []
    live = []
    for op in reversed(ops):
        if any(value in wanted for value in op.outputs):
            live.append(op)
            wanted.update(value for value in op.inputs if value is not None)
    live.reverse()
    for op in live:
        for value in [*op.outputs, *op.inputs]:
            if value is not None:
                value.readers = []
        for value in op.outputs:
            value.maker = op
    for op in live:
        for value in op.inputs:
            if value is not None:
                value.readers.append(op)
    return live


def _closed(members: set[Op], last: Op) -> bool:
    """Nothing but the last result is read from outside, and all run equally often."""
    for op in members:
        if op.times != last.times:
            return False
        for value in op.outputs if op is not last else op.outputs[1:]:
            if value.returned or any(reader not in members for reader in value.readers):
                return False
    return True


def _free(ops: list[Op]) -> set[Op]:
    """Transpositions whose readers are products (behind views, scalings, rotary positions), or that move no element."""
    free: set[Op] = set()
    anyhow: set[Value] = set()  # values whose readers take any order of axes
    for op in reversed(ops):
        for value in op.outputs:
            if value.readers and not value.returned and all(_any_order(reader, anyhow) for reader in value.readers):
                anyhow.add(value)
        if op.kind == "Transpose":
            shape = op.shape(0)
            order = op.integers("perm", None, range(len(shape))[::-1]) or []
            moved = [axis for axis in order if shape[axis] > 1]
            if op.outputs[0] in anyhow or moved == sorted(moved):
                free.add(op)
    return free


def _any_order(reader: Op, anyhow: set[Value]) -> bool:
    if reader.kind in _STRIDED:
        return True
    return reader.kind in _PASSING and all(value in anyhow for value in reader.outputs)
