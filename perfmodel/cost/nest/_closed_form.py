"""The mapping behind the closed form of each dataflow.

- `ws`: K over rows, C over columns. A PE keeps the taps of one filter and channel; along an image row the weight stays at the
  multiplier, sums wait at the end of a row of PEs, and one image row of inputs stands beside each column.
- `os`, `os-flex`: outputs stay; the window of a fold of outputs lies in one plane of stores over the array, channel by channel;
  weights are broadcast. Dimensions that are unrolled: `_folds`.
- Systolic: the GEMM of im2col. What moves on from PE to PE is not kept (`chiplet_machine`).
- `rs`: `_row_stationary`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ..._names import unknown_name
from ..._numerics import ceil_divide
from ...hardware import Chiplets
from ...workload import Operators
from .._bounds import OnChip
from ._chiplet_machine import BUFFER
from ._nest import LoopNest, Problem
from ._row_stationary import row_stationary_mapping
from ._stated import Layer, Stated, count_stated

_BARELY = 1e-5  # a bound within this of one is one: a quotient of floats


def weight_stationary(layer: Layer, chip: Chiplets, smooth: bool = False) -> Stated:
    """`ws` (elementwise)."""
    g, n, k, c, p, q, r, s = layer.sizes
    k_tiles, c_tiles = ceil_divide(k, chip.rows, smooth), ceil_divide(c, chip.columns, smooth)
    temporal = (
        ("Q", q, (0, 0, 0)), ("S", s, (0, 0, 0)), ("R", r, (0, 1, 0)), ("P", p, (0, 1, 1)), ("N", n, (0, 1, 1)),
        ("C", c_tiles, (1, 1, 1)), ("K", k_tiles, (1, 1, 1)), ("G", g, (1, 1, 1)),
    )  # fmt: skip
    return Stated(layer, temporal, (("K", k / k_tiles, (1, 0, 1)), ("C", c / c_tiles, (1, 1, 0))), "ws")


def _folds(layer: Layer, chip: Chiplets, smooth: bool):
    """Iterations over filters, rows, columns and images, for three ways to unroll (leading axis), and over pixels in all.

    The first is `os`: rows and columns of the image over those of the array, rows of a GEMM over both. Then filters over one
    dimension of the array and pixels over the other, image rows one behind the other: a fold is as many pixels on average.
    """
    _, n, k, _, p, q, *_ = layer.sizes
    gemm = q == 1
    over_p = jnp.where(gemm, ceil_divide(p, chip.rows * chip.columns, smooth), ceil_divide(p, chip.rows, smooth))
    over_q = jnp.where(gemm, 1.0, ceil_divide(q, chip.columns, smooth))
    ways = [(jnp.ones_like(k), over_p, over_q, n, over_p * over_q * n)]
    for filters, pixels in ((chip.rows, chip.columns), (chip.columns, chip.rows)):
        folds = ceil_divide(n * p * q, pixels, smooth)
        lanes = n * p * q / folds
        along_q: Any = _bound(q / lanes)
        left = jnp.where(along_q > 1, 1.0, lanes / q)
        along_p: Any = _bound(p / left)
        left = jnp.where(along_p > 1, 1.0, left / p)
        along_n = _bound(n / left)
        ways.append((ceil_divide(k, filters, smooth), along_p, along_q, along_n, folds))
    ways[0] = (k, *ways[0][1:])
    return tuple(jnp.stack(jnp.broadcast_arrays(*x)) for x in zip(*ways, strict=True))


def output_stationary(layer: Layer, chip: Chiplets, smooth: bool = False) -> tuple[Stated, jax.Array]:
    """The three ways of `os-flex`, the first of which is `os` (leading axis), and the exact cycles of each."""
    g, n, k, c, p, q, r, s = layer.sizes
    over_k, over_p, over_q, over_n, folds = _folds(layer, chip, smooth)
    temporal = (
        ("S", s, (0, 0, 0)), ("R", r, (0, 0, 0)), ("C", c, (0, 1, 0)), ("K", over_k, (0, 1, 1)), ("Q", over_q, (0, 1, 1)),
        ("P", over_p, (0, 1, 1)), ("N", over_n, (0, 1, 1)), ("G", g, (0, 1, 1)),
    )  # fmt: skip
    spatial = (
        ("K", k / over_k, (0, 0, 1)),
        ("Q", q / over_q, (0, 0, 1)),
        ("P", p / over_p, (0, 0, 1)),
        ("N", n / over_n, (0, 0, 1)),
    )
    return Stated(layer, temporal, spatial, "os"), folds * over_k * (g * c * r * s)


def im2col(layer: Layer) -> Layer:
    """The GEMM that a convolution is: outputs along P, filters along K, all taps of all channels along C."""
    g, n, k, c, p, q, r, s = layer.sizes
    one = jnp.ones_like(k)
    rows = n * p * q
    return layer._replace(sizes=(g, one, k, c * r * s, rows, one, one, one), stride=one, real=(rows, one))


def systolic_mapping(layer: Layer, chip: Chiplets, dataflow: str, smooth: bool = False) -> Stated:
    """`os-systolic`, `ws-systolic`, `is-systolic` (elementwise), of the GEMM of im2col."""
    layer = im2col(layer)
    g, _, k, c, p, *_ = layer.sizes
    if dataflow == "os-systolic":
        down, across = ceil_divide(p, chip.rows, smooth), ceil_divide(k, chip.columns, smooth)
        temporal = (("C", c, (0, 1, 0)), ("P", down, (0, 1, 1)), ("K", across, (0, 1, 1)), ("G", g, (0, 1, 1)))
        spatial = (("P", p / down, (0, 0, 1)), ("K", k / across, (0, 0, 1)))
    elif dataflow == "ws-systolic":
        down, across = ceil_divide(c, chip.rows, smooth), ceil_divide(k, chip.columns, smooth)
        temporal = (("P", p, (0, 0, 1)), ("C", down, (1, 0, 1)), ("K", across, (1, 0, 1)), ("G", g, (1, 0, 1)))
        spatial = (("C", c / down, (1, 0, 0)), ("K", k / across, (1, 0, 1)))
    else:
        down, across = ceil_divide(c, chip.rows, smooth), ceil_divide(p, chip.columns, smooth)
        temporal = (("K", k, (0, 0, 1)), ("C", down, (0, 1, 1)), ("P", across, (0, 1, 1)), ("G", g, (0, 1, 1)))
        spatial = (("C", c / down, (0, 1, 0)), ("P", p / across, (0, 1, 1)))
    return Stated(layer, temporal, spatial, dataflow)


def closed_form_nest(op: Operators, chip: Chiplets, dataflow: str) -> tuple[Problem, LoopNest]:
    """The mapping whose loop nest a closed form is: the problem as it is mapped (systolic arrays: the GEMM of im2col; `rs`: filters
    cut to what a PE holds) and its loops, for operators and chiplets whose fields are scalars or broadcast against each other.

    On `chiplet_machine(dataflow, ...)` under `table_conventions(dataflow)`, words and energy of that nest are those of `on_chip`, and so
    are its cycles (of `rs`: those of its multipliers, which its buses may exceed). Raises ValueError for an unknown dataflow.
    """
    layer = Layer.of(op)
    if dataflow == "ws":
        mapping = weight_stationary(layer, chip)
    elif dataflow in ("os", "os-flex"):
        ways, cycles = output_stationary(layer, chip)
        best = fastest(count_stated(ways, cycles)) if dataflow == "os-flex" else jnp.zeros(cycles.shape[1:], jnp.int32)
        loops = [
            tuple((d, of_way(f, best, cycles), levels) for d, f, levels in of) for of in (ways.temporal, ways.spatial)
        ]
        mapping = Stated(layer, *loops, dataflow)
    elif dataflow.endswith("-systolic") and dataflow in BUFFER:
        mapping = systolic_mapping(layer, chip, dataflow)
    elif dataflow == "rs":
        mapping = row_stationary_mapping(op, chip)
    else:
        raise unknown_name("dataflow", dataflow, BUFFER)
    return mapping.problem, mapping.nest


def fastest(ways: OnChip) -> jax.Array:
    """Index of the way (leading axis) with the fewest cycles, then the least buffer traffic, then the first."""
    best = jnp.zeros(ways.cycles.shape[1:], jnp.int32)
    for i in range(1, ways.cycles.shape[0]):
        now = [of_way(x, best, ways.cycles) for x in (ways.cycles, ways.buffer_bytes)]
        better = (ways.cycles[i] < now[0]) | ((ways.cycles[i] == now[0]) & (ways.buffer_bytes[i] < now[1]))
        best = jnp.where(better, i, best)
    return best


def of_way(values, index, ways) -> Any:
    """`values[index]`, elementwise, where they have the leading axis of `ways`; else the values themselves."""
    if jnp.ndim(values) < jnp.ndim(ways):
        return values
    found = values[0]
    for i in range(1, values.shape[0]):
        found = jnp.where(index == i, values[i], found)
    return found


def _bound(ratio):
    """Iterations of a dimension that may lie in one fold as a whole."""
    return jnp.where(ratio < 1 + _BARELY, 1.0, ratio)
