"""Sizes of attention as one node (ai.onnx 23; ONNX Runtime's Attention, MultiHeadAttention, GroupQueryAttention)."""

from collections.abc import Callable
from dataclasses import dataclass

from .._value import Made, Op, Rule, Value


@dataclass
class AttentionSizes:
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


def _onnx(op: Op) -> AttentionSizes:
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
    return _checked(AttentionSizes(
        batch, heads, kv_heads, queries, new, keys, depth, width, q, k, v, (past, op.input(5)), op.input(3), len(q.shape) == 3
    ))  # fmt: skip


def _checked(sizes: AttentionSizes) -> AttentionSizes:
    if sizes.kv_heads < 1 or sizes.heads % sizes.kv_heads:
        raise ValueError(f"{sizes.heads} heads do not divide into {sizes.kv_heads} of keys and values")
    _positive(head_size=sizes.depth, value_head_size=sizes.width)
    return sizes


def _multi_head(op: Op) -> AttentionSizes:
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
        AttentionSizes(
            batch, heads, heads, queries, new, keys, depth, width, q, k, v, (past, op.input(7)), op.input(5), True
        )
    )


def _grouped(op: Op) -> AttentionSizes:
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
        AttentionSizes(
            batch, heads, kv_heads, queries, queries, keys, depth, depth, q, k, v, (past, op.input(4)), None, True
        )
    )


def projected(op: Op) -> tuple[AttentionSizes, list[int]]:
    """ONNX Runtime's Attention: the projection of queries, keys and values belongs to it. Also widths of the three."""
    x, w, heads = op.needed(0), op.needed(1), op.integer("num_heads", 1)
    _positive(num_heads=heads)
    widths = op.integers("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    batch, queries, depth = x.shape
    if len(widths) != 3 or sum(widths) != w.shape[1] or w.shape[0] != depth:
        raise ValueError(f"weights {w.shape} do not fit an input {x.shape} and widths {widths}")
    past = op.input(4)
    keys = queries + (past.shape[3] if past is not None else 0)
    sizes = AttentionSizes(
        batch, heads, heads, queries, queries, keys, widths[0] // heads, widths[2] // heads, x, None, None, (past, None),
        op.input(5), True,
    )  # fmt: skip
    return _checked(sizes), widths


_SIZES: dict[str, Callable[[Op], AttentionSizes]] = {
    "Attention": _onnx, "ms.MultiHeadAttention": _multi_head, "ms.GroupQueryAttention": _grouped,
    "ms.Attention": lambda op: projected(op)[0],
}  # fmt: skip


def attention_sizes(op: Op) -> AttentionSizes:
    """Sizes and operands of an attention of any of the four kinds."""
    return _SIZES[op.kind](op)


def _shapes(op: Op) -> Made:
    s, elem = attention_sizes(op), op.needed(0).elem
    out = (s.batch, s.queries, s.heads * s.width) if s.flat else (s.batch, s.heads, s.queries, s.width)
    present = [(s.batch, s.kv_heads, s.keys, size) for size in (s.depth, s.width)]
    if op.kind == "ms.Attention":
        return [(out, elem), ((2, *present[0]), elem)]
    return [(out, elem), (present[0], elem), (present[1], elem), ((s.batch, s.heads, s.queries, s.keys), elem)]


ATTENTION: dict[str, Rule] = dict.fromkeys(_SIZES, _shapes)
