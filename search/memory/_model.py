"""Latency of language models and of compositions of experts as a smooth function of three memory tiers: what `design_memory`
descends on.

Six parameters `x`: capacities of SRAM, HBM and DDR in bytes, then their bandwidths in bytes/s, of a whole package. How each counts:

- **SRAM capacity**, half of it: tiles. A product of M x K and K x N on a tile of side t = sqrt(elements) reads its operands
  N / t and M / t times, at least once (Hong and Kung 1981); a tensor between operators stays on chip as far as it fits. The other
  half: part of the weights, where every pass uses the same.
- **SRAM bandwidth**: operands of a unit of u multiply-accumulators are each used sqrt(u) times.
- **HBM, DDR capacity**: weights and caches fill SRAM, then HBM, then DDR, then come from outside at a given rate; of experts, HBM
  and DDR hold the share of requests that Che's approximation gives a cache of so many frames under Zipf's law.
- **Bandwidth**: bytes of the pass from each tier over its bandwidth, one tier after another, as layers are; a pass takes as long as
  the slowest of compute, on-chip memory and that.
  Devices have so many bytes/s a byte and no more: less capacity is less bandwidth, whatever was bought.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import perfmodel as pm
from perfmodel._numerics import relative_max
from perfmodel.experts import lru_hit_rate, zipf
from perfmodel.hardware import System

_TILES = 0.5  # share of SRAM for tiles and tensors between operators; the rest holds weights
# Shared memory of an A100, 128 B a cycle of 164 KB at 1.41 GHz; an HBM3 stack, 819 GB/s of 16 GB; a DDR5-4800 module of 16 GB on a
# channel of its own, 38.4 GB/s [vendor].
MOST_BYTES_PER_S_PER_BYTE = (128 * 1.41e9 / 164e3, 819.0 / 16, 38.4 / 16)


class Compute(NamedTuple):
    """`macs_per_s` of the package; `unit`: multiply-accumulators that share their operands; `outside_bytes_per_s`: whatever no tier
    holds; `most [3]`: bytes/s that a byte of SRAM, HBM, DDR comes with at most."""

    macs_per_s: float
    unit: float
    outside_bytes_per_s: float
    most: tuple[float, float, float] = MOST_BYTES_PER_S_PER_BYTE


class Pass(NamedTuple):
    """One pass of a model as sums over like rows. `n`, `edges`: how many rows and tensors are alike.

    Of matrix rows `macs, weight_bytes, operand_bytes` (of one multiply-accumulate), `rows` and `columns` of the product; of tensors
    between operators `edge_bytes`, `edge_hold` (bytes they occupy), `edge_columns` of the product that reads them (0: none),
    `element` bytes. `outside_bytes`: caches, inputs and outputs. `stored_bytes`: weights and caches.  `model_bytes`: weights.
    """

    n: np.ndarray
    macs: np.ndarray
    weight_bytes: np.ndarray
    operand_bytes: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    edges: np.ndarray
    edge_bytes: np.ndarray
    edge_hold: np.ndarray
    edge_columns: np.ndarray
    outside_bytes: Any
    stored_bytes: Any
    element: Any
    model_bytes: Any


class Request(NamedTuple):
    """A prompt and `new_tokens` tokens of a model, `batch` at a time; a point of the mix with its `weight`."""

    model: str
    prompt: int = 512
    new_tokens: int = 128
    batch: int = 1
    dtype: str = "bf16"
    weight: float = 1.0


class ExpertRequest(NamedTuple):
    """A request to a router and one of `experts` models alike, asked for by Zipf's law of exponent `popularity`."""

    model: str
    experts: int
    popularity: float = 1.0
    prompt: int = 512
    new_tokens: int = 128
    batch: int = 1
    dtype: str = "bf16"
    weight: float = 1.0


class Point(NamedTuple):
    """A request with its passes, stacked and padded to one shape: prefill, decode, and the router's prefill if it has one."""

    request: Request | ExpertRequest
    passes: Pass


def compute_of(system: System, outside_bytes_per_s: float | None = None) -> Compute:
    """Peak of all chiplets; units are the columns of an array (of GPUs: the MACs of a multiprocessor). Outside, if not given: the
    package's ways out, else 25 GB/s a chiplet [assumed]."""
    chips, n = system.chiplets, system.n_chiplets
    way = float(np.asarray(system.package.outside_bytes_per_s)) or 25e9
    outside = n * way if outside_bytes_per_s is None else outside_bytes_per_s
    return Compute(float(np.sum(np.asarray(chips.peak_macs_per_s))), float(np.mean(np.asarray(chips.columns))), outside)


def own_tiers(system: System) -> np.ndarray:
    """The six parameters of a system as it is: its buffers, its first tier, its last (a byte and a byte/s where there is no second)."""
    chips, memory = system.chiplets, system.memory
    slow = memory.n_tiers > 1
    return np.asarray([
        np.sum(chips.buffer_bytes), memory.capacity_bytes[0], memory.capacity_bytes[-1] if slow else 1.0,
        np.sum(chips.buffer_bytes_per_s), memory.bytes_per_s[0], memory.copy_bytes_per_s[-1] if slow else 1.0,
    ], np.float64)  # fmt: skip


def prepared(request: Request | ExpertRequest) -> Point:
    """The passes of a request. Raises ValueError in one line for what the model does not take, and for sizes below 1."""
    for name in ("prompt", "new_tokens", "batch", *(("experts",) if isinstance(request, ExpertRequest) else ())):
        if getattr(request, name) < 1:
            raise ValueError(f"{request.model}: {name} is {getattr(request, name)}; allowed: an integer of at least 1")
    if not request.weight > 0:
        raise ValueError(f"{request.model}: weight is {request.weight}; allowed: a number above 0")
    expert = isinstance(request, ExpertRequest)
    if expert and not request.popularity >= 0:
        raise ValueError(f"{request.model}: popularity is {request.popularity}; allowed: a number of at least 0")
    alone = 1 if expert else request.batch  # experts run pair after pair
    context = request.prompt + request.new_tokens // 2

    def loaded(phase, batch, **tokens):
        return _pass(pm.models.load(request.model, phase=phase, batch=batch, dtype=request.dtype, **tokens))

    passes = [loaded("prefill", alone, seq_len=request.prompt), loaded("decode", alone, context=context)]
    return Point(
        request, _stacked([*passes, loaded("prefill", request.batch, seq_len=request.prompt)] if expert else passes)
    )


def _stacked(passes: list[Pass]) -> Pass:
    """Leaves with a leading axis; rows that are not there count 0 times and hold 1 byte."""

    def leaf(*values):
        size = max(np.size(v) for v in values)
        if np.ndim(values[0]) == 0:
            return np.asarray(values)
        return np.stack([np.pad(v, (0, size - len(v)), constant_values=1.0) for v in values])

    made = Pass(*map(leaf, *passes))
    there = [(np.arange(made.n.shape[1]) < len(p.n), np.arange(made.edges.shape[1]) < len(p.edges)) for p in passes]
    rows, edges = (np.stack(x) for x in zip(*there, strict=True))
    return made._replace(n=np.where(rows, made.n, 0.0), edges=np.where(edges, made.edges, 0.0))


def _pass(work) -> Pass:
    ops = work.operators
    matrix = np.flatnonzero(np.asarray(ops.is_matrix) > 0)

    def of(name):
        return np.asarray(getattr(ops, name), np.float64)

    table = np.stack([
        np.asarray(ops.macs, np.float64), of("weight_elements") * of("weight_bits") / 8,
        np.where(of("weight_elements") > 0, of("in_bits") + of("weight_bits"), 2 * of("in_bits")) / 8,
        of("batch") * of("p") * of("q"), of("k"),
    ], axis=1)[matrix]  # fmt: skip
    rows, n = np.unique(table, axis=0, return_counts=True)
    reads = np.where(np.isin(work.target, matrix), of("k")[work.target], 0.0)
    edges = np.stack([np.asarray(work.edge_bytes), np.asarray(work.hold_bytes)[work.source], reads], axis=1)
    edges, m = np.unique(edges, axis=0, return_counts=True)
    outside = float(np.sum(work.outside_in_bytes) + np.sum(work.outside_out_bytes))
    element = float(np.max(of("in_bits")[matrix]) / 8)
    return Pass(
        n.astype(float), *rows.T, m.astype(float), *edges.T, outside, work.stored_bytes, element, work.weight_bytes
    )


def pass_s(x, inverse, run: Pass, compute: Compute, shares, temperature=0.05, smooth: bool = False):
    """Seconds of a pass; `shares [4]`: of its weights and caches, what is read from SRAM, HBM, DDR and outside; `inverse`: see
    `inverse_bandwidths`."""
    tiles = _TILES * x[0]
    side = jnp.sqrt(tiles / run.element)
    weights = jnp.sum(run.n * run.weight_bytes * jnp.maximum(run.rows / side, 1.0))
    stored = (weights + run.outside_bytes) * shares
    kept = jnp.minimum(tiles / run.edge_hold, 1.0)
    # written once, read as often as the product's tiles ask for it
    between = jnp.sum(run.edges * run.edge_bytes * (1.0 - kept) * (1.0 + jnp.maximum(run.edge_columns / side, 1.0)))
    fed = jnp.sum(run.n * run.macs * run.operand_bytes) / compute.unit**0.5
    # layer after layer, each with its weights in one tier: what is stored is read one tier after another
    moved = (
        between * inverse[1] + stored[1] * inverse[1] + stored[2] * inverse[2] + stored[3] / compute.outside_bytes_per_s
    )
    seconds = jnp.stack([jnp.sum(run.n * run.macs) / compute.macs_per_s, fed * inverse[0], moved])
    return relative_max(seconds, temperature, smooth)


def inverse_bandwidths(x, compute: Compute, temperature=0.05, smooth: bool = False):
    """Seconds a byte of SRAM, HBM, DDR takes `[3]`: by the bandwidth bought, or by what the capacity allows."""
    slowest = [
        relative_max(jnp.stack([1.0 / x[3 + t], 1.0 / (compute.most[t] * x[t])]), temperature, smooth) for t in range(3)
    ]
    return jnp.stack(slowest)


def request_s(x, point: Point, compute: Compute, temperature=0.05, smooth: bool = False):
    """Seconds of one request (of a batch of them) on tiers `x`; `smooth` (static): maxima are smoothed by the temperature."""
    ask, stored = point.request, point.passes.stored_bytes
    inverse = inverse_bandwidths(x, compute, temperature, smooth)

    def seconds(shares):
        return jax.vmap(lambda run, of: pass_s(x, inverse, run, compute, of, temperature, smooth))(point.passes, shares)

    if isinstance(ask, Request):
        sram = jnp.minimum((1 - _TILES) * x[0] / stored[1], 1.0)
        hbm = jnp.minimum(x[1] / stored[1], 1.0 - sram)
        ddr = jnp.minimum(x[2] / stored[1], 1.0 - sram - hbm)
        prefill, decode = seconds(jnp.tile(jnp.stack([sram, hbm, ddr, 1.0 - sram - hbm - ddr]), (2, 1)))
        return prefill + ask.new_tokens * decode
    expert = point.passes.model_bytes[1]
    router = jnp.minimum(x[1] / stored[2], 1.0)
    frames = (x[1] - router * stored[2]) / expert
    p = zipf(ask.experts, ask.popularity)
    near = lru_hit_rate(p, frames)
    # DDR has the homes of the most popular: what HBM misses is there or comes from outside
    homes = jnp.sum(p * jnp.clip(x[2] / expert - jnp.arange(ask.experts), 0.0, 1.0))
    far = jnp.minimum(1.0 - near, 1.0 - homes)
    copy = expert * ((1.0 - near - far) * inverse[2] + far / compute.outside_bytes_per_s)
    there = jnp.clip(frames, 0.0, 1.0)  # an expert that does not fit beside the router streams from DDR at every pass
    of_expert, of_router = (jnp.stack([0.0 * part, part, 1.0 - part, 0.0 * part]) for part in (there, router))
    prefill, decode, first = seconds(jnp.stack([of_expert, of_expert, of_router]))
    return first + ask.batch * (copy + prefill + ask.new_tokens * decode)


def mix_s(x, points, compute: Compute, temperature=0.05, smooth: bool = False):
    """Mean latency of the mix, each request by its weight."""
    weights = np.asarray([p.request.weight for p in points])
    each = jnp.stack([request_s(x, p, compute, temperature, smooth) for p in points])
    return jnp.sum(each * weights) / np.sum(weights)
