"""Rows of convolutions and products: anything that multiplies and adds up becomes a row of the PE array, exact in MACs."""

from collections.abc import Iterable
from math import prod

from .._emit import Emitter, RowMaker
from .._value import BITS, Op, Value
from ..shapes import Equation, conv_operands, conv_window, matmul_operands, matmul_shapes


def conv_row(emitter: Emitter, op: Op, x: int, w: int, biases: Iterable[Value | None], *, more: Iterable[Value | None] = (),
             lane_ops: int = 0) -> None:  # fmt: skip
    """A convolution over one, two, or more axes: of the leading axes of three the outputs join the batch, the taps the
    depth, which leaves MACs as they are."""
    weights, out, window = op.needed(w), op.outputs[0], conv_window(op)
    groups = op.integer("group", 1)
    kernel, size = [1, *window.kernel], [1, *out.shape[2:]]
    flat = len(window.kernel) == 1
    taps, rows = (prod(kernel[:-2]), prod(size[:-2])) if not flat else (1, 1)
    r, s = (kernel[-1], 1) if flat else kernel[-2:]
    p, q = (size[-1], 1) if flat else size[-2:]
    depth = max(1, round(weights.shape[1] * taps * (emitter.density(weights) if weights.static else 1)))
    dims = dict(
        groups=groups, batch=out.shape[0] * rows, k=out.shape[1] // groups, c=depth, p=p, q=q, r=r, s=s,
        stride=max(window.stride[-2:]),
    )  # fmt: skip
    emitter.row(
        op, "conv", dims, [op.needed(x), *more], weights=[weights, *biases], lane_ops=lane_ops, out_elements=out.size
    )


def _conv(emitter: Emitter, op: Op) -> None:
    x, w = conv_operands(op)
    bias = op.input({"QLinearConv": 8, "ConvInteger": 99}.get(op.kind, 2))
    conv_row(emitter, op, x, w, [bias], more=[op.input(3)] if op.kind == "ms.FusedConv" else ())


def _conv_transpose(emitter: Emitter, op: Op) -> None:
    """One product a pixel, then overlapping windows are added up on the lanes."""
    x, weights, out, groups = op.needed(0), op.needed(1), op.outputs[0], op.integer("group", 1)
    made, pixels = weights.shape[1] * prod(weights.shape[2:]), x.shape[0] * prod(x.shape[2:])
    depth = max(1, round(x.shape[1] // groups * (emitter.density(weights) if weights.static else 1)))
    dims = dict(groups=groups, k=made, c=depth, p=pixels)
    emitter.row(
        op, "gemm", dims, [x], weights=[weights, op.input(2)], lane_ops=groups * made * pixels, out_elements=out.size
    )


def product(emitter: Emitter, op: Op, a: Value, b: Value, groups: int, p: int, k: int, c: int, out: Value, *,
            bias: Value | None = None, label: str = "") -> None:  # fmt: skip
    """`groups` products of `p x c` and `c x k`. A constant of depth 1 from the left (frequencies of rotary positions) adds
    nothing up: a row on the lanes."""
    if c == 1 and a.static and not b.static:
        lanes = 1 if bias is None else 2
        emitter.vector(op, "mul", [a, b, bias], lanes=lanes, shape=out.shape, outputs=[out], label=label)
        return
    adds = 0 if bias is None or bias.static else out.size
    if a.static or b.static:
        weights = b if b.static else a
        depth = max(1, round(c * emitter.density(weights)))
        dims = dict(groups=groups, k=k, c=depth, p=p) if b.static else dict(groups=groups, k=p, c=depth, p=k)
        emitter.row(
            op, "gemm", dims, [a if b.static else b], weights=[weights, bias], outputs=[out], out_elements=out.size, lane_ops=adds,
            label=label,
        )  # fmt: skip
    else:
        dims = dict(groups=groups, k=k, c=c, p=p)
        emitter.row(
            op,
            "attention_gemm",
            dims,
            [a, b],
            weights=[bias],
            outputs=[out],
            out_elements=out.size,
            lane_ops=adds,
            label=label,
        )


def _matmul(emitter: Emitter, op: Op) -> None:
    """Axes of one factor only join its rows (columns), axes of both are independent products."""
    first, second = matmul_operands(op)
    a, b = matmul_shapes(op)
    rank = max(len(a), len(b)) - 2
    batch_a, batch_b = ((1,) * (rank - len(s) + 2) + tuple(s[:-2]) for s in (a, b))
    groups = rows = columns = 1
    for of_a, of_b in zip(batch_a, batch_b, strict=True):
        groups *= of_a if of_a == of_b else 1
        rows *= of_a if of_b == 1 else 1
        columns *= of_b if of_a == 1 and of_b != 1 else 1
    bias = op.input({"QLinearMatMul": 99, "ms.QGemm": 6, "MatMulInteger": 99, "ms.MatMulIntegerToFloat": 6,
                     "ms.DynamicQuantizeMatMul": 4}.get(op.kind, 2))  # fmt: skip
    product(
        emitter, op, op.needed(first), op.needed(second), groups, rows * a[-2], columns * b[-1], a[-1], op.outputs[0],
        bias=bias if bias is not None and (bias.size > 1 or bias.static) else None,
    )  # fmt: skip


def _packed(emitter: Emitter, op: Op) -> None:
    """Weights of a few bits packed into bytes, with a scale (and zero point) a block: parameters count unpacked."""
    depth, columns, x = op.integer("K", 1), op.integer("N", 1), op.needed(0)
    bits = op.integer("bits", 4)
    packed = [v for v in op.inputs[1:4] if v is not None and v.static]
    stored = depth * columns
    scales = sum(v.size * BITS[v.elem] for v in packed[1:])
    root = op.needed(1).roots[0] if op.needed(1).roots else None
    new = root not in emitter.taken
    if root is not None:
        emitter.taken.add(root)
    dims = dict(k=columns, c=depth, p=x.size // depth)
    row = emitter.row(
        op, "gemm", dims, [x, *(v for v in op.inputs[1:] if v is not None and not v.static)], out_elements=op.outputs[0].size,
        lane_ops=stored, stored=stored, stored_bits=emitter.weight.bits if emitter.weight is not None else bits + scales / stored,
    )  # fmt: skip
    if not new:
        emitter.graph.rows[row]["parameters"] = 0


def _einsum(emitter: Emitter, op: Op) -> None:
    """Two operands at a time, from the left: labels of both and of the result are groups, of both only the depth."""
    equation, values = Equation(op), [v for v in op.inputs if v is not None]
    if len(values) == 1:
        moved = sorted(equation.terms[0]) == sorted(equation.out)
        if moved:
            emitter.vector(op, "copy", values)
        else:
            out, source = op.outputs[0], values[0]
            dims = dict(k=out.shape[-1] if out.shape else 1, p=prod(out.shape[:-1]))
            emitter.row(op, "reduce", dims, values, lane_ops=source.size, out_elements=out.size)
        return
    left, labels = values[0], equation.terms[0]
    for i, (right, others) in enumerate(zip(values[1:], equation.terms[1:], strict=True), 1):
        later = {label for term in equation.terms[i + 1 :] for label in term} | set(equation.out)
        mine, theirs = set(labels), set(others)
        sizes = {name: prod(equation.sizes[x] for x in chosen) for name, chosen in {
            "groups": mine & theirs & later, "p": (mine - theirs) & later, "k": (theirs - mine) & later,
            "c": (mine & theirs) - later,
        }.items()}  # fmt: skip
        kept = list(dict.fromkeys(x for x in [*labels, *others] if x in later))
        last = i == len(values) - 1
        out = (
            op.outputs[0]
            if last
            else Value(f"{op.label}.{i}", tuple(equation.sizes[x] for x in kept), op.outputs[0].elem)
        )
        label = "" if last else f".{i}"
        product(emitter, op, left, right, sizes["groups"], sizes["p"], sizes["k"], sizes["c"], out, label=label)
        left, labels = out, kept


ROWS: dict[str, RowMaker] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "ms.FusedConv"), _conv), "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "ms.QGemm", "ms.FusedMatMul", "ms.FusedGemm",
                     "ms.DynamicQuantizeMatMul", "ms.MatMulIntegerToFloat", "ms.GemmFastGelu"), _matmul),
    **dict.fromkeys(("ms.MatMulNBits", "ms.MatMulBnb4"), _packed), "Einsum": _einsum,
}  # fmt: skip
