"""Layers as one writes them down: shapes are followed, rows and edges of the graph fall out.

The zoo and the importer of Hugging Face configurations are written in these terms. A `Tensor` is where its elements lie: parts
of results of earlier rows, and elements that come from outside. Concatenating and splitting are therefore free (views).
Images have shape (batch, channels, height, width); anything else (..., width): the last axis is contracted or normalised.
"""

from math import prod
from typing import NamedTuple

from ..workload._dtypes import Precision, precision
from ..workload._graph import GraphBuilder
from ..workload._operators import operator_row


class Tensor(NamedTuple):
    """An activation: its shape, the (row, elements) that it is made of, and the bytes of it that lie in memory (inputs)."""

    shape: tuple[int, ...]
    parts: tuple[tuple[int, int], ...] = ()
    outside_bytes: float = 0.0

    @property
    def elements(self) -> int:
        return prod(self.shape)

    def reshaped(self, *shape: int) -> "Tensor":
        """The same elements in another shape."""
        if prod(shape) != self.elements:
            raise ValueError(f"shape {self.shape} has {self.elements} elements; {shape} has {prod(shape)}")
        return self._replace(shape=shape)


class Net(GraphBuilder):
    """A graph in the making. `dtype`: activations, and weights unless `weight_dtype` says otherwise (may be sparse).

    Every layer takes a label and tensors and returns a tensor. Raises ValueError for an unknown dtype and for shapes that do not
    go together.
    """

    def __init__(self, model_name: str, batch: int = 1, dtype: str = "int8", weight_dtype: str | None = None):
        super().__init__(model_name, batch)
        self.activation: Precision = precision(dtype)
        if self.activation.density != 1:
            raise ValueError(f"dtype is {dtype!r}; only weights may be sparse (weight_dtype)")
        self.weight: Precision = precision(weight_dtype or dtype, "weight_dtype")

    def input(self, *shape: int) -> Tensor:
        """A tensor that comes from memory."""
        return Tensor(shape, (), prod(shape) * self.activation.bits / 8)

    def layer(self, label: str, row: dict, tensors: tuple[Tensor, ...], shape: tuple[int, ...], *, outside_bytes: float = 0.0,
              outside_out_bytes: float = 0.0) -> Tensor:  # fmt: skip
        """Any row that reads `tensors` whole and leaves a tensor of `shape`. `outside_bytes`: read besides (caches, tables)."""
        fed: dict[int, float] = {}
        for source, elements in (part for tensor in tensors for part in tensor.parts):
            fed[source] = fed.get(source, 0.0) + elements * self.rows[source]["out_bits"] / 8
        outside = sum(tensor.outside_bytes for tensor in tensors) + outside_bytes
        here = self.add(label, row, list(fed.items()), outside, outside_out_bytes)
        return Tensor(shape, ((here, prod(shape)),))

    # matrix layers

    def conv(self, label: str, x: Tensor, channels: int, kernel: int | tuple[int, int], stride: int = 1, *, groups: int = 1,
             padding: int | tuple[int, int] | str = "same", dilation: int = 1, bias: bool = False) -> Tensor:  # fmt: skip
        """A convolution. `padding` of each side, or `same` (output is input / stride, rounded up) or `valid`."""
        n, c, *size = x.shape
        window = (kernel, kernel) if isinstance(kernel, int) else kernel
        pads = (padding, padding) if isinstance(padding, int) else padding
        if c % groups or channels % groups:
            raise ValueError(f"{label}: {c} channels into {channels} do not divide into {groups} groups")
        out = [_windows(*each, stride, dilation) for each in zip(size, window, _both(pads), strict=True)]
        depth = _kept(c // groups, self.weight)
        row = operator_row(
            "conv", groups=groups, batch=n, k=channels // groups, c=depth, p=out[0], q=out[1], r=window[0], s=window[1],
            stride=stride, parameters=channels * (depth * prod(window) + bias), **self._bits(x.elements),
        )  # fmt: skip
        return self.layer(label, row, (x,), (n, channels, *out))

    def transposed_conv(self, label: str, x: Tensor, channels: int, kernel: int, stride: int, *, bias: bool = False,
                        padding: int = 0, output_padding: int = 0) -> Tensor:  # fmt: skip
        """A transposed convolution: one GEMM a pixel, then windows are added up on the lanes."""
        n, c, *size = x.shape
        out = [(s - 1) * stride + kernel - 2 * padding + output_padding for s in size]
        made, depth = channels * kernel * kernel, _kept(c, self.weight)
        row = operator_row(
            "gemm", k=made, c=depth, p=n * prod(size), parameters=made * depth + channels * bias,
            lane_ops=n * made * prod(size), out_elements=n * channels * prod(out), **self._bits(x.elements),
        )  # fmt: skip
        return self.layer(label, row, (x,), (n, channels, *out))

    def linear(self, label: str, x: Tensor, width: int, *, bias: bool = False, stored: bool = True) -> Tensor:
        """A dense layer on the last axis. `stored=False`: weights shared with an earlier row, read but not counted again."""
        depth = x.shape[-1]
        return self.dense(
            label, x, p=x.elements // depth, k=width, c=depth, shape=(*x.shape[:-1], width), bias=bias, stored=stored
        )

    def dense(self, label: str, x: Tensor, *, p: int, k: int, c: int, shape: tuple[int, ...], groups: int = 1, bias: bool = False,
              stored: bool = True) -> Tensor:  # fmt: skip
        """`groups` products of an activation, `p x c`, and weights, `c x k`; the result has `shape`."""
        depth = _kept(c, self.weight)
        weights = groups * k * (depth + bias)
        row = operator_row(
            "gemm", groups=groups, k=k, c=depth, p=p, parameters=weights if stored else 0, weight_elements=weights,
            **self._bits(x.elements),
        )  # fmt: skip
        return self.layer(label, row, (x,), shape)

    def experts(self, label: str, x: Tensor, width: int, loads: list[int], total: int) -> Tensor:
        """One dense layer in each of `total` experts, of which those in `loads` get that many rows (their sum is x's rows).

        Experts with equal load are one row of `groups`; weights of experts without work are stored but not read."""
        depth, rows = x.shape[-1], x.elements // x.shape[-1]
        if sum(loads) != rows:
            raise ValueError(f"{label}: experts get {sum(loads)} rows; the input has {rows}")
        made: list[tuple[int, int]] = []
        idle = total - len(loads)
        for load in sorted(set(loads), reverse=True):
            n = loads.count(load)
            share, kept = n * load, _kept(depth, self.weight)
            each = width * kept
            row = operator_row(
                "gemm", groups=n, k=width, c=kept, p=load, parameters=(n + idle) * each, weight_elements=n * each,
                **self._bits(share * depth),
            )  # fmt: skip
            idle = 0
            part = Tensor((share, depth), _share(x.parts, share / rows), x.outside_bytes * share / rows)
            name = label if len(set(loads)) == 1 else f"{label}.load{load}"
            made += self.layer(name, row, (part,), (share, width)).parts
        return Tensor((*x.shape[:-1], width), tuple(made))

    def product(self, label: str, a: Tensor, b: Tensor, *, groups: int, p: int, k: int, c: int, shape: tuple[int, ...] | None = None,
                cached: int = 0, cache_bits: float | None = None, outside_out_bytes: float = 0.0,
                causal: bool = False) -> Tensor:  # fmt: skip
        """`groups` products of two activations, `p x c` by `c x k`; the result has `shape`, (groups, p, k) if not given.

        `cached`: elements of `b` that lie in a cache in memory with `cache_bits` each, besides what tensor `b` brings. `causal`: what a
        kernel that masks need not work out."""
        bits = self.activation.bits
        of_cache = bits if cache_bits is None else cache_bits
        reads = a.elements + b.elements + cached
        mean = ((a.elements + b.elements) * bits + cached * of_cache) / reads
        row = operator_row(
            "attention_gemm", groups=groups, k=k, c=c, p=p, in_elements=reads, bits=bits, in_bits=mean, weight_bits=of_cache, causal=causal
        )  # fmt: skip
        return self.layer(
            label, row, (a, b), shape or (groups, p, k), outside_bytes=cached * of_cache / 8, outside_out_bytes=outside_out_bytes
        )  # fmt: skip

    # vector layers

    def vector(self, label: str, kind: str, *tensors: Tensor, shape: tuple[int, ...] | None = None, parameters: int = 0,
               lane_ops: int | None = None, window: int = 1, stride: int = 1, groups: int = 1) -> Tensor:  # fmt: skip
        """A layer on the lanes that reads `tensors` whole; `shape` of the result (default: the first tensor's). `groups`: those
        of the products it stands between (heads), so that it may be streamed one after another."""
        shape = shape or tensors[0].shape
        n, k, p, q = shape if len(shape) == 4 else (1, shape[-1], prod(shape[:-1]) // groups, 1)
        row = operator_row(
            kind, groups=groups, batch=n, k=k, p=p, q=q, r=window, s=window, stride=stride, parameters=parameters,
            lane_ops=lane_ops,
            **self._bits(sum(tensor.elements for tensor in tensors)),
        )  # fmt: skip
        return self.layer(label, row, tensors, shape)

    def norm(self, label: str, kind: str, x: Tensor, *, affine: bool = True) -> Tensor:
        """`batch_norm`, `group_norm`, `layer_norm` (scale and shift a channel) or `rms_norm` (scale)."""
        width = x.shape[1] if len(x.shape) == 4 else x.shape[-1]
        return self.vector(label, kind, x, parameters=affine * width * (1 if kind == "rms_norm" else 2))

    def pool(self, label: str, kind: str, x: Tensor, kernel: int, stride: int, *, padding: int | str = "same",
             ceil: bool = False) -> Tensor:  # fmt: skip
        """`max_pool` or `avg_pool`. `ceil`: a last window that sticks out counts."""
        n, c, *size = x.shape
        out = [
            _windows(each + (stride - 1) * ceil, kernel, pad, stride)
            for each, pad in zip(size, _both(padding), strict=True)
        ]
        return self.vector(label, kind, x, shape=(n, c, *out), window=kernel, stride=stride)

    def global_pool(self, label: str, x: Tensor) -> Tensor:
        """The mean over all pixels: (batch, channels)."""
        n, c, height, width = x.shape
        row = operator_row("avg_pool", batch=n, k=c, r=height, s=width, **self._bits(x.elements))
        return self.layer(label, row, (x,), (n, c))

    def table(
        self, label: str, rows: int, entries: int, width: int, *, looked_up: int = 1, stored: bool = True
    ) -> Tensor:
        """`rows` results of width `width`, each the sum of `looked_up` entries of a table of `entries`, straight from memory."""
        row = operator_row(
            "embedding", k=width, p=rows, parameters=entries * width * stored, weight_elements=0, lane_ops=rows * width * looked_up,
            **self._bits(rows * width * looked_up) | {"in_bits": self.weight.bits},
        )  # fmt: skip
        return self.layer(label, row, (), (rows, width), outside_bytes=looked_up * rows * width * self.weight.bits / 8)

    # views

    @staticmethod
    def concat(*tensors: Tensor, axis: int = 1) -> Tensor:
        """Tensors side by side along `axis`; costs nothing."""
        first = tensors[0].shape
        axis %= len(first)
        if any(t.shape[:axis] + t.shape[axis + 1 :] != first[:axis] + first[axis + 1 :] for t in tensors):
            raise ValueError(f"shapes {', '.join(str(t.shape) for t in tensors)} do not go together along axis {axis}")
        shape = (*first[:axis], sum(t.shape[axis] for t in tensors), *first[axis + 1 :])
        return Tensor(shape, tuple(part for t in tensors for part in t.parts), sum(t.outside_bytes for t in tensors))

    @staticmethod
    def split(x: Tensor, *sizes: int, axis: int = 1) -> list[Tensor]:
        """Parts of a tensor along `axis`; costs nothing. Each takes its share of every row that `x` lies in."""
        axis %= len(x.shape)
        if sum(sizes) != x.shape[axis]:
            raise ValueError(f"parts {sizes} do not add up to axis {axis} of shape {x.shape}")
        return [
            Tensor(
                (*x.shape[:axis], size, *x.shape[axis + 1 :]),
                _share(x.parts, size / x.shape[axis]),
                x.outside_bytes * size / x.shape[axis],
            )
            for size in sizes
        ]

    def _bits(self, reads: int) -> dict:
        bits = self.activation.bits
        return dict(in_elements=reads, bits=bits, weight_bits=self.weight.bits)


def _share(parts: tuple[tuple[int, int], ...], of: float) -> tuple[tuple[int, int], ...]:
    return tuple((row, round(elements * of)) for row, elements in parts)


def _kept(depth: int, weight: Precision) -> int:
    """Inputs that an output still looks at."""
    return max(1, round(depth * weight.density))


def _both(padding: int | tuple[int, int] | str) -> tuple:
    return padding if isinstance(padding, tuple) else (padding, padding)


def _windows(size: int, kernel: int, padding: int | str, stride: int, dilation: int = 1) -> int:
    """How many windows fit."""
    if padding == "same":
        return -(-size // stride)
    pad = 0 if padding == "valid" else int(padding)
    count = (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    if count < 1:
        raise ValueError(f"a window of {kernel} does not fit {size} pixels padded by {pad}")
    return count
