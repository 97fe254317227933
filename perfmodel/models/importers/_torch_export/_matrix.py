"""Products, convolutions, attention and recurrent layers of PyTorch as rows."""

from math import prod

from .._sketch_ops import Conv, bias, constant, convolution, product, transposed_convolution, vector
from .._sketch_value import Value
from ._call import Call


def linear(call: Call) -> list[Value]:
    x, weight = call.value("input"), call.value("weight")
    depth = weight.shape[-1]
    made = product(
        call.sketch, call.label, x, weight, call.outs[0], groups=1, p=x.elements // depth, k=weight.elements // depth, c=depth
    )  # fmt: skip
    return [_biased(call, made, call.maybe("bias"))]


def addmm(call: Call) -> list[Value]:
    made = _product(call, call.value("mat1", "batch1"), call.value("mat2", "batch2"))
    return [_biased(call, made, call.maybe("self", "input"))]


def matmul(call: Call) -> list[Value]:
    return [_product(call, call.value("self", "input"), call.value("mat2", "other", "tensor", "vec", "vec2"))]


def _product(call: Call, a: Value, b: Value) -> Value:
    """`(..., p, c) @ (..., c, k)`; one side without batch is shared by all."""
    left, right = (1, *a.shape) if len(a.shape) == 1 else a.shape, (*b.shape, 1) if len(b.shape) == 1 else b.shape
    c, k = left[-1], right[-1]
    if right[-2] != c:
        raise ValueError(f"{call.name} of shapes {a.shape} and {b.shape}: {c} and {right[-2]} do not agree")
    groups = prod(right[:-2])
    out = call.outs[0]
    if 0 in (c, k, out.elements):
        return constant(out)
    shared = groups == 1 or b.is_weight and sum(part.elements for part in b.parts) == c * k
    groups = 1 if shared else out.elements // max(1, left[-2] * k)
    return product(call.sketch, call.label, a, b, out, groups=groups, p=out.elements // (groups * k), k=k, c=c)


def outer(call: Call) -> list[Value]:
    a, b = call.value("self", "input"), call.value("vec2")
    return [product(call.sketch, call.label, a, b, call.outs[0], groups=1, p=a.elements, k=b.elements, c=1)]


def _biased(call: Call, made: Value, added: Value | None) -> Value:
    if added is None:
        return made
    return bias(call.sketch, made, added, call.outs[0]) or vector(
        call.sketch, f"{call.label}.add", "add", [made, added], call.outs[0]
    )


def conv(call: Call) -> list[Value]:
    x, weight, out = call.value("input", "self"), call.value("weight"), call.outs[0]
    axes = len(weight.shape) - 2
    transposed = call.flag("transposed", 0) or call.name.startswith("conv_transpose")
    groups = max(1, call.number("groups", default=1))
    stride = call.numbers("stride", default=[1])
    if axes < 1 or len(x.shape) < axes + 1 or len(out.shape) < axes + 1:
        raise ValueError(f"convolution of shapes {x.shape} and {weight.shape}")
    batch = x.shape[0] if len(x.shape) == axes + 2 else 1
    k, c = (weight.shape[1], weight.shape[0] // groups) if transposed else (weight.shape[0] // groups, weight.shape[1])
    form = Conv(
        groups=groups, batch=batch, k=k, c=c, image=x.shape[-axes:], out=out.shape[-axes:], window=weight.shape[2:],
        stride=tuple(max(1, s) for s in stride) or (1,),
    )  # fmt: skip
    kind = transposed_convolution if transposed else convolution
    return [_biased(call, kind(call.sketch, call.label, x, weight, out, form), call.maybe("bias"))]


def attention(call: Call) -> list[Value]:
    """Scores, softmax, values; heads that share keys and values are rows of one product."""
    q, k, v = call.value("query"), call.value("key"), call.value("value")
    out, sketch = call.outs[0], call.sketch
    groups, keys, depth, width = prod(k.shape[:-2]), k.shape[-2], q.shape[-1], v.shape[-1]
    if 0 in (groups, keys, depth, width, q.elements):
        return [constant(o) for o in call.outs]
    if q.elements % (groups * depth):
        raise ValueError(f"attention of shapes {q.shape} and {k.shape}")
    p = q.elements // (groups * depth)
    scores = out._replace(shape=(groups, p, keys))
    made = product(sketch, f"{call.label}.scores", q, k, scores, groups=groups, p=p, k=keys, c=depth)
    made = vector(sketch, f"{call.label}.softmax", "softmax", [made], scores)
    made = product(sketch, f"{call.label}.values", made, v, out, groups=groups, p=p, k=width, c=keys)
    return [made, *(constant(o) for o in call.outs[1:])]


def einsum(call: Call) -> list[Value]:
    """Operands from left to right, as PyTorch contracts them without an optimiser of paths."""
    equation = call.text("equation").replace(" ", "")
    operands = call.values("operands", "tensors")
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != len(operands) or "..." in equation:
        return call.unknown(f"einsum {equation!r} is modelled as data movement")
    sizes: dict[str, int] = {}
    for term, value in zip(terms, operands, strict=True):
        if len(term) != len(value.shape) or len(set(term)) != len(term):
            return call.unknown(f"einsum {equation!r} is modelled as data movement")
        sizes.update(zip(term, value.shape, strict=True))
    a, names = operands[0], terms[0]
    for i in range(1, len(operands)):
        b, other = operands[i], terms[i]
        later = {*out, *"".join(terms[i + 1 :])}
        a, names = _alone(call, a, names, later | {*other})
        b, other = _alone(call, b, other, later | {*names})
        batch = [x for x in names if x in other and x in later]
        contract = [x for x in names if x in other and x not in later]
        groups, c = prod(sizes[x] for x in batch), prod(sizes[x] for x in contract)
        kept = [*batch, *(x for x in names if x not in other), *(x for x in other if x not in names)]
        result = call.outs[0]._replace(shape=tuple(sizes[x] for x in kept))
        p, k = (prod(sizes[x] for x in of if x not in (*batch, *contract)) for of in (names, other))
        a, names = product(call.sketch, call.label, a, b, result, groups=groups, p=p, k=k, c=c), "".join(kept)
    a, names = _alone(call, a, names, {*out})
    return [call.outs[0]._replace(parts=a.parts)]


def _alone(call: Call, value: Value, names: str, wanted: set[str]) -> tuple[Value, str]:
    """The value summed over the indices that nobody else has."""
    kept = "".join(x for x in names if x in wanted)
    if kept == names:
        return value, names
    shape = tuple(size for x, size in zip(names, value.shape, strict=True) if x in wanted)
    return vector(call.sketch, f"{call.label}.sum", "reduce", [value], value._replace(shape=shape, parts=())), kept


def recurrent(call: Call) -> list[Value]:
    """LSTM, GRU and plain layers: all steps' inputs in one product, all steps' states in another, then the gates."""
    gates = {"lstm": 4, "gru": 3}.get(call.name, 1)
    x = call.value("input")
    weights = [value for value in call.values("params") if len(value.shape) == 2]
    biases = [value for value in call.values("params") if len(value.shape) == 1]
    if len(x.shape) != 3 or len(weights) < 2:
        return call.unknown(f"{call.name} of these shapes is modelled as data movement")
    steps = x.shape[0] * x.shape[1]
    both = call.flag("bidirectional", 0)
    entering = [x]
    made: list[Value] = []
    for i in range(0, len(weights) - 1, 2):  # of every layer and direction: from the input, from the state
        width = weights[i].shape[0]
        result = x._replace(shape=(steps, width), parts=())
        source = entering[0]._replace(
            shape=(steps, weights[i].shape[-1]), parts=tuple(part for value in entering for part in value.parts)
        )
        label = f"{call.label}.{i // 2}"
        first = product(
            call.sketch, label, source, weights[i], result, groups=1, p=steps, k=width, c=weights[i].shape[-1]
        )
        hidden = weights[i + 1].shape[-1]
        state = first._replace(shape=(steps, hidden))
        second = product(
            call.sketch, f"{label}.state", state, weights[i + 1], result, groups=1, p=steps, k=width, c=hidden
        )
        of = biases[i : i + 2]
        out = result._replace(shape=(steps, max(1, width // gates)))
        made.append(
            vector(call.sketch, f"{label}.gates", "elementwise", [second, *of], out, lane_ops=steps * width * 2)
        )
        if not both or len(made) == 2:
            entering, made = made, []
    whole = tuple(part for value in entering for part in value.parts)
    return [call.outs[0]._replace(parts=whole), *(out._replace(parts=entering[0].parts) for out in call.outs[1:])]
