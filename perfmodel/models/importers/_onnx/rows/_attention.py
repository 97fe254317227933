"""Rows of attention as one node: scores, softmax and values.

`groups = batch * key heads` and `p = queries * heads / key heads`: keys and values are read once however many heads share them.
Attention is full; masks are added in the softmax's pass.
"""

from .._emit import Emitter, RowMaker
from .._value import Op, Value
from ..shapes import ATTENTION, AttentionSizes, attention_sizes, projected
from ._matrix import product


def _attention(emitter: Emitter, op: Op) -> None:
    s, elem = attention_sizes(op), op.outputs[0].elem
    query, key, value = s.query, s.key, s.value
    if op.kind == "ms.Attention":
        query, key, value = _projection(emitter, op, s)
    elif key is None:  # packed in the query, heads of each
        query, key, value = _parts(emitter, op, query, [s.heads * s.depth, s.kv_heads * s.depth, s.kv_heads * s.width])
    elif value is None:
        key, value = _parts(emitter, op, key, [s.depth, s.width])
    if op.kind == "ms.GroupQueryAttention" and op.integer("do_rotary", 0):
        query, key = (_rotated(emitter, op, each, name) for each, name in ((query, ".rope_q"), (key, ".rope_k")))
    if op.kind == "ms.MultiHeadAttention" and op.input(3) is not None:
        query = _biased(emitter, op, query)
    keys = _with_past(emitter, op, key, s.past[0], s.batch * s.kv_heads * s.keys * s.depth, 1)
    values = _with_past(emitter, op, value, s.past[1], s.batch * s.kv_heads * s.keys * s.width, 2)
    groups, rows = s.batch * s.kv_heads, s.queries * (s.heads // s.kv_heads)
    scores = Value(f"{op.label}.scores", (groups, rows, s.keys), elem)
    product(emitter, op, query, keys, groups, rows, s.keys, s.depth, scores, label=".scores")
    weights = Value(f"{op.label}.softmax", scores.shape, elem)
    mask = [s.mask] if s.mask is not None else []
    emitter.vector(
        op, "softmax", [scores, *mask], lanes=5 + len(mask), shape=scores.shape, outputs=[weights], label=".softmax"
    )
    product(emitter, op, weights, values, groups, rows, s.width, s.keys, op.outputs[0], label=".values")
    if len(op.outputs) > 3:
        emitter.view(op.outputs[3], scores)


def _with_past(emitter: Emitter, op: Op, new: Value, past: Value | None, elements: int, output: int) -> Value:
    """Keys (values) that come in and those of before, which are also what is passed on."""
    whole = Value(f"{op.label}.kv{output}", (elements,), new.elem)
    emitter.joined(whole, [new] if past is None else [past, new])
    if output < len(op.outputs):
        emitter.view(op.outputs[output], whole)
    return whole


def _parts(emitter: Emitter, op: Op, packed: Value, widths: list[int]) -> list[Value]:
    made = []
    for i, width in enumerate(widths):
        part = Value(f"{op.label}.part{i}", (packed.size * width // sum(widths),), packed.elem)
        emitter.view(part, packed, width / sum(widths))
        made.append(part)
    return made


def _projection(emitter: Emitter, op: Op, s: AttentionSizes) -> list[Value]:
    widths = projected(op)[1]
    made = Value(f"{op.label}.projected", (s.batch, s.queries, sum(widths)), op.outputs[0].elem)
    product(
        emitter, op, s.query, op.needed(1), 1, s.batch * s.queries, sum(widths), s.query.shape[2], made, bias=op.input(2),
        label=".projection",
    )  # fmt: skip
    return _parts(emitter, op, made, widths)


def _rotated(emitter: Emitter, op: Op, value: Value, label: str) -> Value:
    made = Value(f"{op.label}{label}", value.shape, value.elem)
    emitter.vector(op, "rope", [value], shape=value.shape, outputs=[made], label=label)
    return made


def _biased(emitter: Emitter, op: Op, query: Value) -> Value:
    made = Value(f"{op.label}.biased", query.shape, query.elem)
    emitter.vector(op, "add", [query], weights=[op.input(3)], shape=query.shape, outputs=[made], label=".bias")
    return made


ROWS: dict[str, RowMaker] = dict.fromkeys(ATTENTION, _attention)
