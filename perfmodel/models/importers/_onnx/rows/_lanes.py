"""Rows of operators on the lanes, and views."""

from math import log2, prod

from .._emit import Emitter, RowMaker, counted
from .._value import FLOATS, Op, Value, axis_of
from ..shapes import conv_window, pool_window
from ._matrix import conv_row

VIEWS = (
    "BitCast", "Cast", "CastLike", "DequantizeLinear", "Dropout", "Expand", "Flatten", "Identity", "Reshape", "Split", "Squeeze", "Tile",
    "Unsqueeze", "_Pick",
)  # fmt: skip

# kind of row and lane operations an element of the result (None: what the kind takes)
_VECTOR: dict[str, tuple[str, float | None]] = {
    "Relu": ("relu", 1), "LeakyRelu": ("relu", 2), "PRelu": ("relu", 2), "ThresholdedRelu": ("relu", 2), "Clip": ("relu", 2),
    "Elu": ("elementwise", 3), "Selu": ("elementwise", 4), "Celu": ("elementwise", 4), "Softplus": ("elementwise", 2),
    "Softsign": ("elementwise", 3), "Mish": ("silu", 3), "Swish": ("silu", None), "Gelu": ("gelu", None),
    "ms.QuickGelu": ("gelu", 3), "ms.FastGelu": ("gelu", 3), "ms.BiasGelu": ("gelu", 3), "HardSwish": ("silu", 4),
    "HardSigmoid": ("sigmoid", 3), "Sigmoid": ("sigmoid", 1), "Tanh": ("tanh", 1), "Shrink": ("elementwise", 3),
    "Add": ("add", 1), "Sub": ("add", 1), "ms.BiasAdd": ("add", 2), "Mul": ("mul", 1), "Div": ("mul", 1),
    "Softmax": ("softmax", None), "LogSoftmax": ("softmax", 6), "Hardmax": ("softmax", 2), "ms.QLinearSoftmax": ("softmax", None),
    "LpNormalization": ("rms_norm", None), "MeanVarianceNormalization": ("layer_norm", None), "Trilu": ("elementwise", 1),
    "CumSum": ("scan", 1), "CumProd": ("scan", 1), "OneHot": ("copy", 1), "CenterCropPad": ("copy", 1),
    "DepthToSpace": ("copy", 1), "SpaceToDepth": ("copy", 1), "Transpose": ("copy", 1), "ReverseSequence": ("copy", 1),
    "MaxUnpool": ("copy", 1), "EyeLike": ("copy", 1), "Compress": ("copy", 1), "NonZero": ("copy", 1), "Unique": ("copy", 1),
    "Upsample": ("resize", 1), "GridSample": ("resize", 8), "RoiAlign": ("resize", 8), "MaxRoiPool": ("max_pool", 4),
    "AffineGrid": ("elementwise", 6), "Col2Im": ("add", 1), "RotaryEmbedding": ("rope", None), "ms.RotaryEmbedding": ("rope", None),
    "QuantizeLinear": ("quantize", None), "DynamicQuantizeLinear": ("quantize", 4), "Det": ("elementwise", 1),
    "GatherElements": ("gather", 1), "GatherND": ("gather", 1), "ScatterElements": ("gather", 1), "ScatterND": ("gather", 1),
    "Scatter": ("gather", 1), "TensorScatter": ("gather", 1), "NonMaxSuppression": ("top_k", None), "ms.QLinearSigmoid": ("sigmoid", 3),
    "ms.QLinearLeakyRelu": ("relu", 3),
}  # fmt: skip
_ELEMENTWISE = (
    "Abs", "Acos", "Acosh", "And", "Asin", "Asinh", "Atan", "Atanh", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
    "BitwiseXor", "Ceil", "Cos", "Cosh", "Equal", "Erf", "Exp", "Floor", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less",
    "LessOrEqual", "Log", "Mod", "Neg", "Not", "Or", "Pow", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    "Multinomial", "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Sqrt", "Tan", "Where", "Xor", "BlackmanWindow", "HammingWindow",
    "HannWindow", "MelWeightMatrix",
)  # fmt: skip
_VECTOR.update(dict.fromkeys(_ELEMENTWISE, ("elementwise", 1)))
_VARIADIC = {"Sum": "add", "Max": "elementwise", "Min": "elementwise", "Mean": "add"}
_SMALLER = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
            "ReduceSumSquare", "ArgMax", "ArgMin", "NegativeLogLikelihoodLoss")  # fmt: skip


def default_row(emitter: Emitter, op: Op) -> None:
    """An operator of the table; one that nobody knows moves its operands."""
    kind, lanes = _VECTOR.get(op.kind, ("copy", 1))
    emitter.vector(op, kind, op.inputs, lanes=lanes)


def _view(emitter: Emitter, op: Op) -> None:
    source = op.needed(0)
    for value in op.outputs:
        share = (
            op.attributes["share"] if op.kind == "_Pick" else value.size / source.size if op.kind == "Split" else 1.0
        )
        emitter.view(value, source, share)


def _slice(emitter: Emitter, op: Op) -> None:
    """A view; with steps, a copy."""
    source, given = op.needed(0), op.input(4)
    steps = given.array.reshape(-1).tolist() if given is not None and given.array is not None else []
    if any(abs(int(step)) != 1 for step in steps):
        emitter.vector(op, "copy", [source])
    else:
        emitter.view(op.outputs[0], source, op.outputs[0].size / source.size)


def is_operand(value: Value) -> bool:
    """Whether a constant holds parameters wherever it is read (see `_emit`)."""
    return value.static and value.size > 1 and value.elem in FLOATS and bool(counted(value))


def _concat(emitter: Emitter, op: Op) -> None:
    """A view, unless parameters are among the parts (a class token) or parts lie in too many places."""
    values, out = [v for v in op.inputs if v is not None], op.outputs[0]
    if any(is_operand(v) for v in values) or not emitter.joined(out, values):
        emitter.vector(op, "copy", values)
    elif op.kind == "_Stack":  # one value stands for those of all trips of a loop
        emitter.repeat(out, out.size // max(1, sum(value.size for value in values)))


def _pad(emitter: Emitter, op: Op) -> None:
    """A copy, unless nothing is added."""
    if op.outputs[0].shape == op.shape(0):
        emitter.view(op.outputs[0], op.needed(0))
    else:
        emitter.vector(op, "copy", [op.needed(0)])


def _transpose(emitter: Emitter, op: Op) -> None:
    if op in emitter.free:
        emitter.view(op.outputs[0], op.needed(0))
    else:
        emitter.vector(op, "copy", [op.needed(0)])


def _variadic(emitter: Emitter, op: Op) -> None:
    n = sum(value is not None for value in op.inputs)
    if n == 1:
        emitter.view(op.outputs[0], op.needed(0))
    else:
        emitter.vector(op, _VARIADIC[op.kind], op.inputs, lanes=n - 1 + (op.kind == "Mean"))


def _reduce(emitter: Emitter, op: Op) -> None:
    source, out = op.needed(0), op.outputs[0]
    steps = 2 if op.kind in ("ReduceL2", "ReduceLogSumExp", "ReduceSumSquare", "ReduceL1") else 1
    kind = "top_k" if op.kind.startswith("Arg") else "reduce"
    dims = dict(k=out.shape[-1] if out.shape else 1, p=prod(out.shape[:-1]))
    emitter.row(op, kind, dims, op.inputs[:1], lane_ops=source.size * steps, out_elements=out.size)


def _top_k(emitter: Emitter, op: Op) -> None:
    """A heap of k for every element looked at."""
    k = op.outputs[0].shape[axis_of(op.integer("axis", -1), len(op.shape(0)))]
    steps = max(1, round(log2(k + 1)))
    dims = dict(k=k, p=max(1, op.outputs[0].size // k))
    emitter.row(op, "top_k", dims, op.inputs[:1], lane_ops=op.needed(0).size * steps, out_elements=op.outputs[0].size)


def _gather(emitter: Emitter, op: Op) -> None:
    """A table of the file is an embedding, one index a view, anything else a gather."""
    data, indices, out = op.needed(0), op.needed(1), op.outputs[0]
    axis = axis_of(op.integer("axis", 0), len(data.shape))
    if data.static:
        width = prod(data.shape[axis + 1 :])
        dims = dict(k=width, p=max(1, out.size // max(width, 1)))
        emitter.row(
            op, "embedding", dims, [indices], weights=[data] if is_operand(data) else [], lane_ops=out.size, looked_up=out.size,
            out_elements=out.size,
        )  # fmt: skip
    elif indices.static and indices.size == 1:
        emitter.view(out, data, out.size / data.size)
    else:  # of the data only what is looked up is read
        taken = Value(data.name, out.shape, data.elem)
        emitter.view(taken, data, min(1.0, out.size / data.size))
        emitter.vector(op, "gather", [taken, indices])


def _pool(emitter: Emitter, op: Op) -> None:
    if op.kind.startswith("Global") or op.kind.startswith("ms."):
        kernel, stride = op.shape(0)[2:], [1]
    else:
        window = pool_window(op)
        kernel, stride = window.kernel, window.stride
    out, kind = op.outputs[0], "max_pool" if "Max" in op.kind else "avg_pool"
    dims = dict(batch=out.shape[0], k=out.shape[1], r=prod(kernel[:-1]), s=kernel[-1], stride=max(stride))
    size = [1, *out.shape[2:]]
    dims.update(p=prod(size[:-1]), q=size[-1])
    emitter.row(op, kind, dims, op.inputs[:1], lane_ops=out.size * prod(kernel), out_elements=out.size)


_NORMS = {  # kind, positions of scale and shift, of a residual, more lane operations
    "BatchNormalization": ("batch_norm", (1, 2), (), 0), "InstanceNormalization": ("group_norm", (1, 2), (), 0),
    "GroupNormalization": ("group_norm", (1, 2), (), 0), "ms.GroupNorm": ("group_norm", (1, 2), (), 0),
    "LayerNormalization": ("layer_norm", (1, 2), (), 0), "RMSNormalization": ("rms_norm", (1,), (), 0),
    "SimplifiedLayerNormalization": ("rms_norm", (1,), (), 0), "ms.SimplifiedLayerNormalization": ("rms_norm", (1,), (), 0),
    "ms.SkipLayerNormalization": ("layer_norm", (2, 3, 4), (1,), 1),
    "ms.SkipSimplifiedLayerNormalization": ("rms_norm", (2, 3), (1,), 1),
}  # fmt: skip


def _norm(emitter: Emitter, op: Op) -> None:
    kind, scales, residual, more = _NORMS[op.kind]
    lanes = {"batch_norm": 2, "rms_norm": 3}.get(kind, 6) + more
    emitter.vector(
        op, kind, [op.needed(0), *(op.input(i) for i in residual)], weights=[op.input(i) for i in scales], lanes=lanes
    )


def _lrn(emitter: Emitter, op: Op) -> None:
    emitter.vector(op, "elementwise", op.inputs[:1], lanes=2 * op.integer("size", 1) + 3)


def _resize(emitter: Emitter, op: Op) -> None:
    taps = {"linear": 4, "cubic": 16}.get(op.text("mode", "nearest"), 1)
    emitter.vector(op, "resize", op.inputs[:1], lanes=taps)


def _fourier(emitter: Emitter, op: Op) -> None:
    """5 N log2 N real operations for a complex transform of N (Cooley, Tukey 1965), as FFTW counts."""
    out, source = op.outputs[0].shape, op.shape(0)
    if op.kind == "STFT":
        length = (out[2] - 1) * 2 if op.integer("onesided", 1) else out[2]
        transforms = out[0] * out[1]
    else:  # along the axis whose length changes, else along the one that is named, else along the longest
        changed = [max(a, b) for a, b in zip(source[:-1], out[:-1], strict=True) if a != b]
        place = op.integer("axis", 1) if op.opset < 20 else op.input(2)
        if isinstance(place, Value):
            place = None if place.array is None else int(place.array.reshape(-1)[0])
        length = changed[0] if changed else max(source[:-1]) if place is None else source[axis_of(place, len(source))]
        transforms = max(1, prod(source[:-1]) // length)
    work = max(1, round(5 * length * log2(max(length, 2)))) * transforms
    emitter.vector(
        op, "fft", [op.needed(0), op.input(2) if op.kind == "STFT" else None], lanes=work / op.outputs[0].size
    )


def _loss(emitter: Emitter, op: Op) -> None:
    kind = "softmax" if op.kind.startswith("Softmax") else "reduce"
    dims = dict(k=op.shape(0)[-1], p=prod(op.shape(0)[:-1]))
    emitter.row(op, kind, dims, op.inputs, lane_ops=op.needed(0).size * 5, out_elements=sum(v.size for v in op.outputs))


def _deform(emitter: Emitter, op: Op) -> None:
    """Bilinear samples first (offsets, mask), then a convolution."""
    taps = prod(conv_window(op).kernel) * prod(op.outputs[0].shape[2:]) * op.shape(0)[0] * op.shape(0)[1]
    conv_row(emitter, op, 0, 1, [op.input(3)], more=[op.input(2), op.input(4)], lane_ops=8 * taps)


ROWS: dict[str, RowMaker] = {
    **dict.fromkeys(VIEWS, _view), **dict.fromkeys(_VARIADIC, _variadic), **dict.fromkeys(_SMALLER, _reduce),
    **dict.fromkeys(_NORMS, _norm), **dict.fromkeys(("DFT", "STFT"), _fourier), **dict.fromkeys(("Concat", "_Stack"), _concat),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool",
                     "ms.QLinearGlobalAveragePool"), _pool),
    "Slice": _slice, "Pad": _pad, "Transpose": _transpose, "TopK": _top_k, "Gather": _gather, "LRN": _lrn, "Resize": _resize,
    "SoftmaxCrossEntropyLoss": _loss, "DeformConv": _deform,
}  # fmt: skip
