"""Shapes and element types of results: operators that work element by element, normalise, or reduce axes.

A rule takes an `Op` and returns (shape, element type) of each result.
"""

from .._value import BOOL, FLOAT, INT64, UINT8, Made, Op, Rule, axes_of, axis_of, broadcast

_BROADCAST = (
    "Add", "Sub", "Mul", "Div", "Mod", "Pow", "Max", "Min", "Mean", "Sum", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
    "ms.BiasGelu", "ms.FastGelu", "ms.BiasAdd", "ms.BiasSplitGelu",
)  # fmt: skip
_COMPARE = ("And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_SAME = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Bernoulli", "BitwiseNot", "Ceil", "Celu", "Clip", "Cos", "Cosh",
    "CumProd", "CumSum", "Elu", "Erf", "Exp", "EyeLike", "Floor", "Gelu", "GroupNormalization", "HardSigmoid", "HardSwish",
    "Hardmax", "Identity", "InstanceNormalization", "LRN", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization",
    "MeanVarianceNormalization", "Mish", "Neg", "Not", "PRelu", "RandomNormalLike", "RandomUniformLike", "Reciprocal", "Relu",
    "ReverseSequence", "RotaryEmbedding", "Round", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shrink", "Sigmoid", "Sign",
    "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "TensorScatter", "ThresholdedRelu",
    "Trilu", "ms.GroupNorm", "ms.QLinearLeakyRelu", "ms.QLinearSigmoid", "ms.QLinearSoftmax", "ms.QuickGelu", "ms.RotaryEmbedding",
    "ms.SimplifiedLayerNormalization",
)  # fmt: skip
_REDUCE = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
)  # fmt: skip


def _first(op: Op) -> Made:
    return [(op.shape(0), op.needed(0).elem)]


def _broadcast(op: Op) -> Made:
    if op.integer("broadcast", 0):  # before opset 7: the second fits into the first
        return _first(op)
    return [(broadcast(*(v.shape for v in op.inputs if v is not None)), op.needed(0).elem)]


def reduced_axes(op: Op) -> list[int]:
    """Axes that a reduction takes together."""
    rank = len(op.shape(0))
    axes = axes_of(op, rank)
    if not axes:
        return [] if axes is not None and op.integer("noop_with_empty_axes", 0) else list(range(rank))
    return axes


def _reduce(op: Op) -> Made:
    shape, keep = op.shape(0), op.integer("keepdims", 1)
    axes = set(reduced_axes(op))
    made = tuple(1 if i in axes else size for i, size in enumerate(shape) if keep or i not in axes)
    return [(made, op.needed(0).elem)]


def _arg(op: Op) -> Made:
    shape = op.shape(0)
    axis = axis_of(op.integer("axis", 0), len(shape))
    return [((*shape[:axis], *([1] if op.integer("keepdims", 1) else []), *shape[axis + 1 :]), INT64)]


def _top_k(op: Op) -> Made:
    shape = list(op.shape(0))
    axis = axis_of(op.integer("axis", -1), len(shape))
    shape[axis] = (op.integers("k", 1) or [1])[0]
    return [(tuple(shape), op.needed(0).elem), (tuple(shape), INT64)]


def _cast(op: Op) -> Made:
    return [(op.shape(0), op.needed(1).elem if op.kind == "CastLike" else op.integer("to", FLOAT))]


def _norm(op: Op) -> Made:
    """Normalisations with statistics; `Skip...` add a residual before (fourth result)."""
    shape, elem = op.shape(0), op.needed(0).elem
    axis = axis_of(op.integer("axis", -1), len(shape))
    statistics = ((*shape[:axis], *(1 for _ in shape[axis:])), FLOAT)
    return [(shape, elem), statistics, statistics, (shape, elem)]


def _batch_norm(op: Op) -> Made:
    statistics = (op.shape(1), op.needed(1).elem)
    return [*_first(op), statistics, statistics, statistics, statistics]


def _dropout(op: Op) -> Made:
    return [*_first(op), (op.shape(0), BOOL)]


def _quantize(op: Op) -> Made:
    zero = op.input(2)
    said = op.integer("output_dtype", 0)
    return [(op.shape(0), zero.elem if zero is not None else said or UINT8)]


def _dynamic_quantize(op: Op) -> Made:
    return [(op.shape(0), UINT8), ((), FLOAT), ((), UINT8)]


def _dequantize(op: Op) -> Made:
    return [(op.shape(0), op.integer("output_dtype", 0) or op.needed(1).elem)]


def _where(op: Op) -> Made:
    return [(broadcast(op.shape(0), op.shape(1), op.shape(2)), op.needed(1).elem)]


def _compare(op: Op) -> Made:
    return [(_broadcast(op)[0][0], BOOL)]


def _boolean(op: Op) -> Made:
    return [(op.shape(0), BOOL)]


def _random(op: Op) -> Made:
    return [(tuple(op.integers("shape")), op.integer("dtype", FLOAT))]


ELEMENTWISE: dict[str, Rule] = {
    **dict.fromkeys(_BROADCAST, _broadcast), **dict.fromkeys(_COMPARE, _compare), **dict.fromkeys(_SAME, _first),
    **dict.fromkeys(_REDUCE, _reduce), **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("Cast", "CastLike", "BitCast"), _cast), **dict.fromkeys(("IsInf", "IsNaN"), _boolean),
    **dict.fromkeys(("RandomNormal", "RandomUniform"), _random),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "ms.SkipLayerNormalization",
                     "ms.SkipSimplifiedLayerNormalization", "ms.SimplifiedLayerNormalization"), _norm),
    "BatchNormalization": _batch_norm, "DequantizeLinear": _dequantize, "Dropout": _dropout,
    "DynamicQuantizeLinear": _dynamic_quantize, "QuantizeLinear": _quantize, "TopK": _top_k, "Where": _where,
}  # fmt: skip
