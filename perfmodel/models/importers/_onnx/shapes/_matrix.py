"""Shapes of results of windows (convolutions, pools), products and recurrent layers."""

from .._value import FLOAT, INT32, INT64, Made, Op, Rule, broadcast, with_rank


class Window:
    """Sizes of a sliding window over the last axes of an input: `kernel`, `stride`, `dilation`, and the resulting `out`."""

    def __init__(self, op: Op, size: tuple[int, ...], kernel: list[int]):
        n = len(size)
        self.kernel, self.stride = kernel, op.integers("strides", None, [1] * n)
        self.dilation = op.integers("dilations", None, [1] * n)
        self.pads = op.integers("pads", None, [0] * 2 * n)
        auto, round_up = op.text("auto_pad", "NOTSET"), op.integer("ceil_mode", 0)
        if not len(kernel) == len(self.stride) == len(self.dilation) == len(self.pads) / 2 == n:
            raise ValueError(
                f"kernel {kernel}, strides {self.stride}, dilations {self.dilation} or pads {self.pads} do not fit {size}"
            )
        if min([*kernel, *self.stride, *self.dilation, 1]) < 1:
            raise ValueError(f"kernel {kernel}, strides {self.stride} and dilations {self.dilation} must be at least 1")
        self.out = []
        for i, length in enumerate(size):
            reach, stride = self.dilation[i] * (kernel[i] - 1) + 1, self.stride[i]
            before, after = self.pads[i], self.pads[i + n]
            if auto in ("SAME_UPPER", "SAME_LOWER"):
                made = -(-length // stride)
            else:
                if auto == "VALID":
                    before = after = 0
                room = length + before + after - reach
                made = (-(-room // stride) if round_up else room // stride) + 1
                if round_up and (made - 1) * stride >= length + before:
                    made -= 1
            if made < 1:
                raise ValueError(
                    f"a window of {kernel} (dilation {self.dilation}) does not fit {size} padded by {self.pads}"
                )
            self.out.append(made)


def conv_operands(op: Op) -> tuple[int, int]:
    """Positions of activation and weights."""
    return (0, 3) if op.kind == "QLinearConv" else (0, 1)


def conv_window(op: Op) -> Window:
    x, w = (op.shape(i) for i in conv_operands(op))
    groups = op.integer("group", 1)
    if len(x) < 3 or len(w) != len(x) or groups < 1 or w[1] * groups != x[1] or w[0] % groups:
        raise ValueError(f"weights {w} in {groups} groups do not fit an input {x}")
    return Window(op, x[2:], list(w[2:]))


def _conv(op: Op) -> Made:
    x, w = (op.shape(i) for i in conv_operands(op))
    elem = {"ConvInteger": INT32, "QLinearConv": op.needed(7).elem if op.kind == "QLinearConv" else 0}
    return [((x[0], w[0], *conv_window(op).out), elem.get(op.kind) or op.needed(0).elem)]


def _conv_transpose(op: Op) -> Made:
    x, w, groups, n = op.shape(0), op.shape(1), op.integer("group", 1), len(op.shape(0)) - 2
    if n < 1 or len(w) != len(x) or w[0] != x[1] or groups < 1 or x[1] % groups:
        raise ValueError(f"weights {w} in {groups} groups do not fit an input {x}")
    stride, dilation = (op.integers(name, None, [1] * n) for name in ("strides", "dilations"))
    pads, more = op.integers("pads", None, [0] * 2 * n), op.integers("output_padding", None, [0] * n)
    size = op.optional_integers("output_shape")
    if size is None and op.text("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        size = [length * step for length, step in zip(x[2:], stride, strict=True)]
    if size is None:
        if not len(stride) == len(dilation) == len(more) == len(pads) / 2 == n:
            raise ValueError(
                f"strides {stride}, dilations {dilation}, pads {pads} or output_padding {more} do not fit {x}"
            )
        size = [
            stride[i] * (x[i + 2] - 1) + more[i] + (w[i + 2] - 1) * dilation[i] + 1 - pads[i] - pads[i + n]
            for i in range(n)
        ]
    if len(size) != n or min(size) < 1:
        raise ValueError(f"the result of a window {w[2:]} over {x} would have the size {size}")
    return [((x[0], w[1] * groups, *size), op.needed(0).elem)]


def pool_window(op: Op) -> Window:
    size = op.shape(0)[2:]
    return Window(op, size, op.integers("kernel_shape", None, [1] * len(size)))


def _pool(op: Op) -> Made:
    x = op.shape(0)
    if len(x) < 3:
        raise ValueError(f"pools an input of shape {x}; expected (batch, channels, size...)")
    made = (*x[:2], *pool_window(op).out)
    return [(made, op.needed(0).elem), (made, INT64)]


def _global_pool(op: Op) -> Made:
    x = op.shape(0)
    return [((*x[:2], *(1 for _ in x[2:])), op.needed(0).elem)]


def matmul_operands(op: Op) -> tuple[int, int]:
    """Positions of the two factors."""
    return (0, 3) if op.kind in ("QLinearMatMul", "ms.QGemm") else (0, 1)


def matmul_shapes(op: Op) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the two factors as (..., rows, depth) and (..., depth, columns)."""
    a, b = (op.shape(i) for i in matmul_operands(op))
    if not a or not b:
        raise ValueError(f"multiplies matrices of shapes {a} and {b}")
    a, b = ((1, *a) if len(a) == 1 else a), ((*b, 1) if len(b) == 1 else b)
    if op.integer("transA", 0):
        a = (*a[:-2], a[-1], a[-2])
    if op.integer("transB", 0):
        b = (*b[:-2], b[-1], b[-2])
    if a[-1] != b[-2]:
        raise ValueError(f"multiplies matrices of shapes {a} and {b}, which do not go together")
    return a, b


def _matmul(op: Op) -> Made:
    a, b = matmul_shapes(op)
    first, second = (len(op.shape(i)) for i in matmul_operands(op))
    made = (*broadcast(a[:-2], b[:-2]), *a[-2:-1][: first > 1], *b[-1:][: second > 1])
    elem = {"MatMulInteger": INT32, "QLinearMatMul": 7, "ms.QGemm": 8}.get(op.kind, 0)
    if op.kind in ("QLinearMatMul", "ms.QGemm"):
        zero = op.input(elem)
        elem = zero.elem if zero is not None else FLOAT
    elif op.kind in ("ms.DynamicQuantizeMatMul", "ms.MatMulIntegerToFloat"):
        elem = FLOAT
    return [(made, elem or op.needed(0).elem)]


def _matmul_bits(op: Op) -> Made:
    x, depth, columns = op.shape(0), op.integer("K", 0), op.integer("N", 0)
    if not x or x[-1] != depth or columns < 1:
        raise ValueError(f"multiplies an input {x} by weights {depth} x {columns}")
    return [((*x[:-1], columns), op.needed(0).elem)]


class Equation:
    """The equation of an Einsum: labels of each operand (the ellipsis spelt out), of the result, and the size of each."""

    def __init__(self, op: Op):
        text = op.text("equation", "").replace(" ", "")
        left, arrow, right = text.partition("->")
        terms, shapes = left.split(","), [v.shape for v in op.inputs if v is not None]
        if len(terms) != len(shapes):
            raise ValueError(f"equation {text!r} has {len(terms)} operands; the node has {len(shapes)}")
        self.sizes: dict[str, int] = {}
        widest = 0
        self.terms: list[list[str]] = []
        for term, shape in zip(terms, shapes, strict=True):
            before, dots, after = term.partition("...")
            free = len(shape) - len(before) - len(after)
            if free < 0 or (free and not dots) or not (before + after).isalpha() and before + after:
                raise ValueError(f"equation {text!r} does not fit an operand of shape {shape}")
            widest = max(widest, free)
            labels = [*before, *(f".{free - i}" for i in range(free)), *after]
            for label, size in zip(labels, shape, strict=True):
                if self.sizes.setdefault(label, size) == 1:
                    self.sizes[label] = size
                elif size not in (1, self.sizes[label]):
                    raise ValueError(f"equation {text!r}: {label} is {self.sizes[label]} and {size}")
            self.terms.append(labels)
        dots_labels = [f".{widest - i}" for i in range(widest)]
        if arrow:
            before, dots, after = right.partition("...")
            self.out = [*before, *(dots_labels if dots else []), *after]
        else:
            every = [label for term in self.terms for label in term]
            self.out = [*dots_labels, *sorted(x for x in set(every) if not x.startswith(".") and every.count(x) == 1)]
        if any(label not in self.sizes for label in self.out):
            raise ValueError(f"equation {text!r}: the result has a label that no operand has")


def _einsum(op: Op) -> Made:
    equation = Equation(op)
    return [(tuple(equation.sizes[label] for label in equation.out), op.needed(0).elem)]


GATES = {"LSTM": 4, "GRU": 3, "RNN": 1, "ms.DynamicQuantizeLSTM": 4}


def recurrent_sizes(op: Op) -> tuple[int, int, int, int, int]:
    """Steps, batch, directions, width of the input and of the state."""
    x, w, r = (with_rank(op, 3, i) for i in range(3))
    if op.kind == "ms.DynamicQuantizeLSTM":  # stored as (direction, depth, gates)
        w, r = (w[0], w[2], w[1]), (r[0], r[2], r[1])
    steps, batch = x[:2] if not op.integer("layout", 0) else (x[1], x[0])
    gates = GATES[op.kind]
    if w[0] != r[0] or w[0] not in (1, 2) or w[1] != r[1] or w[1] != gates * r[2] or w[2] != x[2]:
        raise ValueError(f"weights {w} and {r} do not fit an input {x}")
    return steps, batch, w[0], x[2], r[2]


def _recurrent(op: Op) -> Made:
    steps, batch, directions, _, width = recurrent_sizes(op)
    elem, first = op.needed(0).elem, bool(op.integer("layout", 0))
    all_steps = (batch, steps, directions, width) if first else (steps, directions, batch, width)
    last = (batch, directions, width) if first else (directions, batch, width)
    return [(all_steps, elem), (last, elem), (last, elem)]


MATRIX: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "ms.FusedConv", "DeformConv"), _conv), "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "ms.QLinearGlobalAveragePool"), _global_pool),
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "ms.QGemm", "ms.FusedMatMul", "ms.FusedGemm",
                     "ms.DynamicQuantizeMatMul", "ms.MatMulIntegerToFloat", "ms.GemmFastGelu"), _matmul),
    **dict.fromkeys(("ms.MatMulNBits", "ms.MatMulBnb4"), _matmul_bits), "Einsum": _einsum,
    **dict.fromkeys(GATES, _recurrent),
}  # fmt: skip
