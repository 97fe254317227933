"""Shapes of results of transforms, samplers, windows of signals and losses."""

from math import prod

from .._value import FLOAT, INT32, Made, Op, Rule, axis_of, with_rank


def _dft(op: Op) -> Made:
    shape, length = list(op.shape(0)), op.input(1)
    axis = axis_of(op.integer("axis", 1) if op.opset < 20 else _scalar(op, 2, -2), len(shape))
    one_sided, inverse = op.integer("onesided", 0), op.integer("inverse", 0)
    size = (shape[axis] - 1) * 2 if one_sided and inverse else shape[axis]
    size = size if length is None else _scalar(op, 1, 0)
    shape[axis] = size // 2 + 1 if one_sided and not inverse else size
    shape[-1] = 1 if one_sided and inverse else 2
    return [(tuple(shape), op.needed(0).elem)]


def _scalar(op: Op, index: int, default: int) -> int:
    return default if op.input(index) is None else int(op.elements(index).reshape(-1)[0])


def stft_sizes(op: Op) -> tuple[int, int, int]:
    """Batch, frames and the length of a frame."""
    x, window = op.shape(0), op.input(2)
    length = _scalar(op, 3, window.shape[0] if window is not None and window.shape else 0)
    step = _scalar(op, 1, 0)
    if len(x) < 2 or length < 1 or step < 1 or x[1] < length:
        raise ValueError(f"frames of {length} every {step} do not fit a signal {x}")
    return x[0], (x[1] - length) // step + 1, length


def _stft(op: Op) -> Made:
    batch, frames, length = stft_sizes(op)
    return [((batch, frames, length // 2 + 1 if op.integer("onesided", 1) else length, 2), op.needed(0).elem)]


def _affine_grid(op: Op) -> Made:
    size = op.integers("size", 1)
    return [((*size[:1], *size[2:], len(size) - 2), op.needed(0).elem)]


def _grid_sample(op: Op) -> Made:
    return [((*op.shape(0)[:2], *op.shape(1)[1:-1]), op.needed(0).elem)]


def _roi(op: Op) -> Made:
    made = op.integers("pooled_shape") or [op.integer("output_height", 1), op.integer("output_width", 1)]
    return [((op.shape(1)[0], with_rank(op, 4)[1], *made), op.needed(0).elem)]


def _unpool(op: Op) -> Made:
    x, n = op.shape(0), len(op.shape(0)) - 2
    if op.input(2) is not None:
        return [(tuple(op.integers("output_shape", 2)), op.needed(0).elem)]
    kernel, stride = op.integers("kernel_shape", None, [1] * n), op.integers("strides", None, [1] * n)
    pads = op.integers("pads", None, [0] * 2 * n)
    return [
        (
            (*x[:2], *((x[i + 2] - 1) * stride[i] + kernel[i] - pads[i] - pads[i + n] for i in range(n))),
            op.needed(0).elem,
        )
    ]


def _col2im(op: Op) -> Made:
    image, block = op.integers("image_shape", 1), op.integers("block_shape", 2) or [1]
    return [((op.shape(0)[0], op.shape(0)[1] // max(prod(block), 1), *image), op.needed(0).elem)]


def _center(op: Op) -> Made:
    shape, target = list(op.shape(0)), op.integers("shape", 1)
    for axis, size in zip(op.integers("axes", None, range(len(shape))), target, strict=True):
        shape[axis_of(axis, len(shape))] = size
    return [(tuple(shape), op.needed(0).elem)]


def _loss(op: Op) -> Made:
    made = op.shape(1) if op.text("reduction", "mean") == "none" else ()
    return [(made, op.needed(0).elem), (op.shape(0), op.needed(0).elem)]


def _mel(op: Op) -> Made:
    bins, length = (int(op.elements(i).reshape(-1)[0]) for i in range(2))
    return [((length // 2 + 1, bins), op.integer("output_datatype", FLOAT))]


def _taper(op: Op) -> Made:
    return [((_scalar(op, 0, 0),), op.integer("output_datatype", FLOAT))]


def _multinomial(op: Op) -> Made:
    return [((op.shape(0)[0], op.integer("sample_size", 1)), op.integer("dtype", INT32))]


TRANSFORMS: dict[str, Rule] = {
    "DFT": _dft, "STFT": _stft, "AffineGrid": _affine_grid, "GridSample": _grid_sample,
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), _roi), "MaxUnpool": _unpool, "Col2Im": _col2im, "CenterCropPad": _center,
    "Det": lambda op: [(op.shape(0)[:-2], op.needed(0).elem)], "MelWeightMatrix": _mel, "Multinomial": _multinomial,
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), _loss),
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow"), _taper),
}  # fmt: skip
