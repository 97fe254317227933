"""Seconds of attention on a GPU: decode (one new token) with split key-value loops, and causal prefill."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...hardware import Gpu
from ._parts import Positive, chosen, l2_hit, overlapped, peak_ops_per_s, times, with_power_limit

_SPLITS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128], float)
_KV_STEP = 64.0
_QUERY_ROWS = 16.0  # a tensor-core instruction's rows: fewer query heads of a group are padded to it
_QUERY_TILES = np.array([64.0, 128.0])


class DecodeParameters(eqx.Module):
    """Constants of decode attention, all positive.

    - `launch_cycles` once; `block_cycles` a wave; `step_cycles` for 64 keys and values of one head, in one block.
    - `head_cycles`: the same for each 16 query heads that share them.
    - `combine_cycles`: joining split loops; `dram_efficiency`, `l2_efficiency`, `l2_share` as in `GemmParameters`.
    """

    launch_cycles: Positive = 8000.0
    block_cycles: Positive = 2500.0
    step_cycles: Positive = 300.0
    head_cycles: Positive = 150.0
    combine_cycles: Positive = 3000.0
    sequence_cycles: Positive = 5.0
    dram_efficiency: Positive = 0.85
    l2_efficiency: Positive = 0.5
    l2_share: Positive = 1.0


def decode_attention_s(
    parameters: DecodeParameters, gpu: Gpu, batch, kv_len, heads, kv_heads, head_dim, *, kv_bytes=2.0, footprint=1.0
) -> Float[Array, ""]:
    """Seconds of one query token a sequence against `kv_len` cached ones; `kv_bytes` a cached element.

    A block takes one key-value head of one sequence and a slice of its length (flash-decoding: the best of several
    numbers of slices); blocks run in waves. `footprint`: times the cache that are touched between two uses of it
    (1: a benchmark that repeats the kernel; infinite: other layers came between).
    """
    clock = gpu.clock_hz
    split = jnp.asarray(_SPLITS)
    cached = 2.0 * batch * kv_len * kv_heads * head_dim * kv_bytes
    queries = 4.0 * batch * heads * head_dim
    l2_bytes_per_s = parameters.l2_efficiency * gpu.l2_bytes_per_cycle * clock
    dram_bytes_per_s = parameters.dram_efficiency * gpu.dram_bytes_per_s
    missed = cached * (1 - l2_hit(times(footprint) * cached, parameters.l2_share * gpu.l2_bytes)) + queries
    padded = jnp.ceil(heads / kv_heads / _QUERY_ROWS)
    step = (parameters.step_cycles * kv_bytes / 2 + parameters.head_cycles * padded) * head_dim / 128.0
    waves = jnp.ceil(batch * kv_heads * split / gpu.multiprocessors)
    loop_s = waves * jnp.ceil(kv_len / split / _KV_STEP) * step / clock
    join_s: Any = parameters.combine_cycles / clock + split * batch * heads * head_dim * 8.0 / l2_bytes_per_s
    bound: Any = overlapped(loop_s, missed / dram_bytes_per_s, (cached + queries) / l2_bytes_per_s)
    seconds = waves * parameters.block_cycles / clock + bound + jnp.where(split > 1, join_s, 0.0)
    fixed = parameters.launch_cycles + batch * parameters.sequence_cycles
    return fixed / clock + jnp.min(seconds)


class PrefillParameters(eqx.Module):
    """Constants of causal prefill attention, all positive.

    - `tensor_efficiency`: of the tensor cores in the inner loop (softmax included).  `block_cycles`: of one query tile.
    - `launch_cycles` once; `sequence_cycles` each sequence; `step_cycles`: softmax and the like of 64 keys.
    - `passes`: times that queries, keys, values and results are moved (rotary embedding, writing the cache).
    - `dram_efficiency`, `l2_efficiency`, `l2_share`, `pj_per_op`, `settle_s` as in `GemmParameters`.
    """

    tensor_efficiency: Positive = 0.65
    launch_cycles: Positive = 12000.0
    block_cycles: Positive = 2000.0
    step_cycles: Positive = 200.0
    sequence_cycles: Positive = 500.0
    passes: Positive = 2.0
    dram_efficiency: Positive = 0.8
    l2_efficiency: Positive = 0.5
    l2_share: Positive = 0.8
    pj_per_op: Positive = 0.5
    settle_s: Positive = 3e-4


def prefill_attention_s(
    parameters: PrefillParameters,
    gpu: Gpu,
    batch,
    q_len,
    kv_len,
    heads,
    kv_heads,
    head_dim,
    *,
    kv_bytes=2.0,
    eight_bit: bool | Array = False,
    causal: bool | Array = True,
    footprint=1.0,
) -> Float[Array, ""]:
    """Seconds of causal attention of `q_len` new tokens that end at `kv_len`; `eight_bit`: the products run in 8 bits.
    Not `causal`: every query meets every key.
    `footprint`: as in `decode_attention_s`, times the operands and results.

    A block takes a tile of queries of one head and walks the keys up to its diagonal. Blocks are dealt to the
    multiprocessors as they get free, so time is the mean load plus half of the longest block, and at least the longest.
    """
    clock, units = gpu.clock_hz, gpu.multiprocessors
    tile = jnp.asarray(_QUERY_TILES)
    tiles = jnp.ceil(q_len / tile)
    blocks = batch * heads * tiles
    before = kv_len - q_len
    # keys walked by all tiles of a head, each to the end of its diagonal tile
    walked = chosen(causal, tiles * before + tile * tiles * (tiles + 1) / 2, tiles * kv_len)
    longest = chosen(causal, before + tile * tiles, kv_len + 0.0 * tiles)
    rate = parameters.tensor_efficiency * peak_ops_per_s(gpu, eight_bit) / units
    key_s = 4.0 * tile * head_dim / rate + parameters.step_cycles / _KV_STEP / clock
    block_s = parameters.block_cycles / clock
    mean_s = (batch * heads * walked * key_s + blocks * block_s) / units
    tail_s = longest * key_s + block_s
    busy_s = jnp.maximum(mean_s + tail_s / 2 * jnp.minimum(1.0, blocks / units), tail_s)
    moved = batch * head_dim * 2.0 * (2 * q_len * heads + 2 * kv_len * kv_heads * kv_bytes / 2)
    missed = moved * (1 - l2_hit(times(footprint) * moved, parameters.l2_share * gpu.l2_bytes))
    l2_bytes_per_s = parameters.l2_efficiency * gpu.l2_bytes_per_cycle * clock
    move_s = parameters.passes * overlapped(
        missed / (parameters.dram_efficiency * gpu.dram_bytes_per_s), moved / l2_bytes_per_s
    )
    slowed = with_power_limit(gpu, busy_s, parameters.pj_per_op, parameters.settle_s)
    fixed = parameters.launch_cycles + parameters.sequence_cycles * batch
    return fixed / clock + jnp.min(slowed) + move_s
