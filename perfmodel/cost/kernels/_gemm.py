"""Seconds of a matrix multiplication on a GPU: tiles, waves, split-K, L2, latency and power."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...hardware import Gpu
from ._parts import (
    Positive,
    Precision,
    chosen,
    fourth_power,
    fourth_root,
    l2_hit,
    overlapped,
    peak_ops_per_s,
    pipeline_stages,
    precision,
    slowdown_at_power_limit,
)
from ._tiles import K_STEP, NEVER_S, ODD_WIDTH, TILE_M, TILE_N, Product, Tiles, fastest_s

_SPLIT_SYNC_CYCLES = 1000.0


class GemmParameters(eqx.Module):
    """Constants of the mechanisms, all positive. Cycles are of the boost clock.

    - `tensor_efficiency`: of the tensor cores inside a full tile.  `balanced_edge`: edge of the square tile at which a
      multiprocessor's operand path takes as long as its tensor cores.
    - `dram_efficiency`, `l2_efficiency`: of the nominal bytes/s.  `l2_share`: of the usable L2 that operands get.
    - `launch_cycles` once; `block_cycles` a wave (prologue and epilogue); `gemv_share`: of the launch when M = 1.
    - `load_latency_s`: DRAM to shared memory; `copy_stages`: loads in flight without tensor copies.
    - `split_cost`: of joining a split K loop, relative to 1000 cycles.
    - `pj_per_op`, `settle_s`: see `slowdown_at_power_limit`, `with_power_limit`.
    - `quantise_cycles`: fixed cost of the pass that converts activations.
    - `widen_per_cycle`: weights that one multiprocessor widens in a cycle (weight-only precisions).
    """

    tensor_efficiency: Positive = 0.88
    balanced_edge: Positive = 130.0
    dram_efficiency: Positive = 0.82
    l2_efficiency: Positive = 0.6
    l2_share: Positive = 1.0
    launch_cycles: Positive = 3200.0
    block_cycles: Positive = 1600.0
    gemv_share: Positive = 1.5
    load_latency_s: Positive = 0.7e-6
    copy_stages: Positive = 4.0
    split_cost: Positive = 3.5
    pj_per_op: Positive = 0.95
    settle_s: Positive = 3e-4
    quantise_cycles: Positive = 3000.0
    widen_per_cycle: Positive = 64.0


def gemm_s(
    parameters: GemmParameters,
    gpu: Gpu,
    m,
    n,
    k,
    *,
    kind: str | Precision = "bf16",
    loads: Float[Array, "E"] | None = None,
    times: Float[Array, "E"] | None = None,
    footprint_bytes=jnp.inf,
) -> Float[Array, ""]:
    """Seconds of a product [M, K] x [K, N] in 16-bit output; differentiable in parameters and GPU.

    The kernel takes the best of several tiles and K splits. For each: blocks are dealt to the multiprocessors in waves, the
    last one partly empty; a block's K loop is bound by the tensor cores (at the sustained clock), by the operand path or
    by the latency of its loads; beside it run DRAM and L2. A product of one row is streamed without tiles if that is faster.

    **Arguments:** `kind`: a name in `PRECISIONS`, or a `Precision`.  `loads`: a grouped product instead: the expected rows of each of `E`
    groups with weights of their own; a group below one row takes part that often (`m` is then ignored).  `times`: how many such groups
    (one each).
    `footprint_bytes`: what is touched between two uses of the weights: infinite when they come from DRAM, as in a model's
    forward pass; finite in benchmarks that repeat one kernel. Raises ValueError for an unknown kind.
    """
    form = precision(kind)
    clock = gpu.clock_hz
    l2_bytes_per_s = parameters.l2_efficiency * gpu.l2_bytes_per_cycle * clock
    dram_bytes_per_s = parameters.dram_efficiency * gpu.dram_bytes_per_s

    if loads is None:
        groups, rows, heights, parts = 1.0, m, jnp.asarray(m, float)[None], jnp.ones(1)
    else:
        parts = jnp.minimum(loads, 1.0)
        heights = jnp.where(loads > 0, loads / jnp.maximum(parts, 1e-9), 0.0)
        several = 1.0 if times is None else times
        parts = parts * several
        groups, rows = jnp.sum(parts), jnp.sum(loads * several)
    weights = groups * k * n * form.weight_bytes
    inputs = rows * k * form.activation_bytes
    outputs = rows * n * 2.0
    l2_bytes = parameters.l2_share * gpu.l2_bytes
    missed = weights * (1 - l2_hit(footprint_bytes + inputs + outputs, l2_bytes))
    missed = missed + inputs * (1 - l2_hit(2 * inputs, l2_bytes)) + outputs
    dram_s = missed / dram_bytes_per_s
    l2_s = (weights + inputs + outputs) / l2_bytes_per_s
    memory_s4 = fourth_power(dram_s) + fourth_power(l2_s)

    product = Product(
        heights, parts, k, gpu.multiprocessors, slowdown_at_power_limit(gpu, parameters.pj_per_op) - 1, parameters.settle_s,
        memory_s4, parameters.launch_cycles / clock, parameters.block_cycles / clock, outputs * 4.0 / l2_bytes_per_s,
        parameters.split_cost * _SPLIT_SYNC_CYCLES / clock,
    )  # fmt: skip
    seconds: Any = fastest_s(*_as_floats((product, _tiles(parameters, gpu, form, n))))
    streamed = parameters.gemv_share * parameters.launch_cycles / clock + fourth_root(memory_s4)
    if loads is None:
        seconds = jnp.where(m == 1, jnp.minimum(seconds, streamed), seconds)
    if form.quantises is not False:
        converted_s = parameters.quantise_cycles / clock + rows * k * 3.0 / dram_bytes_per_s
        seconds = seconds + chosen(form.quantises, converted_s, 0.0)
    return seconds


def _tiles(parameters: GemmParameters, gpu: Gpu, form: Precision, n) -> Tiles:
    """A step of the K loop: bound by the tensor cores, and beside them by operand path, latency of loads, and widening."""
    rate = parameters.tensor_efficiency * peak_ops_per_s(gpu, form.eight_bit) / gpu.multiprocessors
    tensor_s = 2 * TILE_M * TILE_N * K_STEP / rate
    feed_s = tensor_s * parameters.tensor_efficiency * parameters.balanced_edge * (1 / TILE_M + 1 / TILE_N) / 2
    stage_bytes = K_STEP * (TILE_M * form.activation_bytes + TILE_N * form.weight_bytes)
    stages: Any = pipeline_stages(gpu, stage_bytes, parameters.copy_stages)
    load_s = parameters.load_latency_s / stages
    beside: list[Any] = [feed_s, load_s]
    if form.dequantises is not False:
        widen_s = K_STEP * TILE_N / (parameters.widen_per_cycle * gpu.clock_hz)
        beside.append(chosen(form.dequantises, widen_s, 0.0))
    barred_s = jnp.where(ODD_WIDTH & (gpu.tensor_copies == 0), NEVER_S, 0.0)
    return Tiles(jnp.asarray(TILE_M), jnp.ceil(n / TILE_N), tensor_s, overlapped(*beside), barred_s)


def _as_floats(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, float), tree)


def plain_roofline_s(gpu: Gpu, operations, moved_bytes, *, eight_bit: bool = False) -> Float[Array, ""]:
    """max(operations / peak, bytes / DRAM bytes/s): the bound without any mechanism."""
    return jnp.maximum(operations / peak_ops_per_s(gpu, eight_bit), moved_bytes / gpu.dram_bytes_per_s)


class SmoothRooflineParameters(eqx.Module):
    """The three constants of `smooth_roofline_s`."""

    compute_efficiency: Positive = 0.7
    memory_efficiency: Positive = 0.8
    overhead_s: Positive = 5e-6


def smooth_roofline_s(parameters: SmoothRooflineParameters, gpu: Gpu, operations, moved_bytes, *, eight_bit=False):
    """t0 + (Tc^4 + Tm^4)^(1/4): the bar that a model with mechanisms has to beat."""
    compute = operations / (parameters.compute_efficiency * peak_ops_per_s(gpu, eight_bit))
    return parameters.overhead_s + overlapped(
        compute, moved_bytes / (parameters.memory_efficiency * gpu.dram_bytes_per_s)
    )
