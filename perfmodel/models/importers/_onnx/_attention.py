"""Attention as one node (ai.onnx 23; ONNX Runtime's Attention, MultiHeadAttention, GroupQueryAttention): shapes and rows.

Scores, softmax and values, with `groups = batch * key heads` and `p = queries * heads / key heads`: keys and values are read
once however many heads share them. Attention is full; masks are added in the softmax's pass.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ._emit import Emitter, RowMaker
from ._matrix import product
from ._matrix_shapes import SHAPES
from ._value import Made, Op, Value


@dataclass
class _Sizes:
    """Sizes of one attention. `new`: keys that come in, `keys`: with those of before; `query, key, value`: the operands."""

    batch: int
    heads: int
    kv_heads: int
    queries: int
    new: int
    keys: int
    depth: int  # of a head, queries and keys
    width: int  # of a head, values
    query: Value
    key: Value | None
    value: Value | None
    past: tuple[Value | None, Value | None]
    mask: Value | None
    flat: bool  # results are (batch, queries, heads * width)


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; allowed: at least 1")


def _onnx(op: Op) -> _Sizes:
    q, k, v = (op.needed(i) for i in range(3))
    if len(q.shape) not in (3, 4) or len(k.shape) != len(q.shape) or len(v.shape) != len(q.shape):
        raise ValueError(f"query, key and value have the shapes {q.shape}, {k.shape}, {v.shape}")
    if len(q.shape) == 4:
        batch, heads, queries, depth = q.shape
        kv_heads, new, width = v.shape[1:]
    else:
        heads, kv_heads = op.integer("q_num_heads", 0), op.integer("kv_num_heads", 0)
        _positive(q_num_heads=heads, kv_num_heads=kv_heads)
        batch, queries, new = q.shape[0], q.shape[1], k.shape[1]
        depth, width = q.shape[2] // heads, v.shape[2] // kv_heads
    past = op.input(4)
    keys = new + (past.shape[2] if past is not None else 0)
    return _checked(_Sizes(
        batch, heads, kv_heads, queries, new, keys, depth, width, q, k, v, (past, op.input(5)), op.input(3), len(q.shape) == 3
    ))  # fmt: skip


def _checked(sizes: _Sizes) -> _Sizes:
    if sizes.kv_heads < 1 or sizes.heads % sizes.kv_heads:
        raise ValueError(f"{sizes.heads} heads do not divide into {sizes.kv_heads} of keys and values")
    _positive(head_size=sizes.depth, value_head_size=sizes.width)
    return sizes


def _multi_head(op: Op) -> _Sizes:
    """ONNX Runtime's MultiHeadAttention: keys may come packed (batch, keys, heads, 2, size) or by heads."""
    q, k, v, heads = op.needed(0), op.input(1), op.input(2), op.integer("num_heads", 1)
    _positive(num_heads=heads)
    batch, queries = q.shape[:2]
    depth = q.shape[-1] if len(q.shape) == 5 else q.shape[2] // heads
    new = queries if k is None else k.shape[2] if len(k.shape) == 4 else k.shape[1]
    width = depth if v is None else v.shape[3] if len(v.shape) == 4 else v.shape[2] // heads
    past = op.input(6)
    keys = new + (past.shape[2] if past is not None else 0)
    return _checked(
        _Sizes(batch, heads, heads, queries, new, keys, depth, width, q, k, v, (past, op.input(7)), op.input(5), True)
    )


def _grouped(op: Op) -> _Sizes:
    """GroupQueryAttention: a past that shares its buffer with the present has the length of the buffer."""
    q, k, v = op.needed(0), op.input(1), op.input(2)
    heads, kv_heads = op.integer("num_heads", 1), op.integer("kv_num_heads", 1)
    _positive(num_heads=heads, kv_num_heads=kv_heads)
    batch, queries, wide = q.shape
    depth = wide // (heads + 2 * kv_heads) if k is None else wide // heads
    past, total = op.input(3), op.input(6)
    keys = queries + (past.shape[2] if past is not None else 0)
    if total is not None and total.array is not None and total.size == 1:
        keys = max(queries, int(total.array.reshape(-1)[0]))
    return _checked(
        _Sizes(batch, heads, kv_heads, queries, queries, keys, depth, depth, q, k, v, (past, op.input(4)), None, True)
    )


def _projected(op: Op) -> tuple[_Sizes, list[int]]:
    """ONNX Runtime's Attention: the projection of queries, keys and values belongs to it. Also widths of the three."""
    x, w, heads = op.needed(0), op.needed(1), op.integer("num_heads", 1)
    _positive(num_heads=heads)
    widths = op.integers("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    batch, queries, depth = x.shape
    if len(widths) != 3 or sum(widths) != w.shape[1] or w.shape[0] != depth:
        raise ValueError(f"weights {w.shape} do not fit an input {x.shape} and widths {widths}")
    past = op.input(4)
    keys = queries + (past.shape[3] if past is not None else 0)
    sizes = _Sizes(
        batch, heads, heads, queries, queries, keys, widths[0] // heads, widths[2] // heads, x, None, None, (past, None),
        op.input(5), True,
    )  # fmt: skip
    return _checked(sizes), widths


_SIZES: dict[str, Callable[[Op], _Sizes]] = {
    "Attention": _onnx, "ms.MultiHeadAttention": _multi_head, "ms.GroupQueryAttention": _grouped,
    "ms.Attention": lambda op: _projected(op)[0],
}  # fmt: skip


def _shapes(op: Op) -> Made:
    s, elem = _SIZES[op.kind](op), op.needed(0).elem
    out = (s.batch, s.queries, s.heads * s.width) if s.flat else (s.batch, s.heads, s.queries, s.width)
    present = [(s.batch, s.kv_heads, s.keys, size) for size in (s.depth, s.width)]
    if op.kind == "ms.Attention":
        return [(out, elem), ((2, *present[0]), elem)]
    return [(out, elem), (present[0], elem), (present[1], elem), ((s.batch, s.heads, s.queries, s.keys), elem)]


def _attention(emitter: Emitter, op: Op) -> None:
    s, elem = _SIZES[op.kind](op), op.outputs[0].elem
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


def _projection(emitter: Emitter, op: Op, s: _Sizes) -> list[Value]:
    widths = _projected(op)[1]
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


SHAPES.update(dict.fromkeys(_SIZES, _shapes))
ATTENTION: dict[str, RowMaker] = dict.fromkeys(_SIZES, _attention)
