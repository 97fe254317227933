"""What a decoder keeps in memory: parameters, KV cache and activations, in all and on each device."""

from typing import Any

import jax.numpy as jnp

from .._numerics import ceil_through
from ..models.zoo._records import Transformer
from ._kernel_list import Gemm, Mixture, Slice, kept, kinds, layer


def block_elements(spec: Transformer, tensor=1.0, expert=1.0, expert_tensor=1.0, density: float = 1.0):
    """Parameters of all blocks on one of `tensor` ranks (experts: on one of `expert` x `expert_tensor`); layers not divided."""
    at = Slice(1.0, 1.0, 0.0, tensor, expert, expert_tensor)
    scale = 1 if spec.norm == "rms_norm" else 2
    norms = spec.parallel or (4 if spec.order == "sandwich" else 2)
    inner = 2 * spec.size * spec.qk_norm + ((spec.latent.q_rank + spec.latent.kv_rank) if spec.latent else 0)
    total: Any = 0.0
    for count, window, experts in kinds(spec):
        found = layer(spec, at, window=window, experts=experts, density=density)
        each: Any = sum(kernel.weight_elements for kernel in found if isinstance(kernel, Gemm))
        for mixture in (kernel for kernel in found if isinstance(kernel, Mixture)):
            width, hidden, of = kept(spec.width, density), kept(round(mixture.hidden), density), mixture.count / expert
            each = each + of * (2 * width * mixture.hidden + hidden * spec.width) / expert_tensor
        corrected = spec.experts.count * spec.experts.corrected if experts and spec.experts else 0
        total = total + count * (each + norms * scale * spec.width + inner + corrected)
    return total


def end_elements(spec: Transformer, tensor=1.0):
    """(parameters of the token table and what stands beside it, of the last norm and the head), on one of `tensor` ranks."""
    width, table = spec.width, spec.table_width or spec.width
    scale = 1 if spec.norm == "rms_norm" else 2
    first = (spec.vocabulary + (0 if table != width else spec.positions + spec.types)) * table / tensor
    if table != width:
        first = first + (width * table + spec.positions * width)
    first = first + spec.embed_norm * scale * width
    head: Any = 0.0 if spec.tied else spec.vocabulary * (table + spec.head_bias) / tensor
    if table != width:
        head = head + width * table
    return first, head + spec.final_norm * scale * width


def weight_bytes(
    spec: Transformer, weight_bytes_each, head_bytes_each, *, density: float = 1.0, extra_parameters: int = 0
):
    """Bytes of all parameters: those of blocks, and table and head, by their bytes an element."""
    first, last = end_elements(spec)
    blocks = block_elements(spec, density=density)
    table = (spec.vocabulary + spec.positions + spec.types) * (spec.table_width or spec.width)
    head = 0 if spec.tied else spec.vocabulary * ((spec.table_width or spec.width) + spec.head_bias)
    if (spec.table_width or spec.width) != spec.width:
        table = spec.vocabulary * spec.table_width
    heads = table + head
    rest = blocks + first + last - heads + extra_parameters
    return rest * weight_bytes_each + heads * head_bytes_each


def device_weight_bytes(spec: Transformer, weight_bytes_each, head_bytes_each, *, tensor=1.0, pipeline=1.0, expert=1.0,
                        expert_tensor=1.0, density: float = 1.0, extra_parameters: int = 0):  # fmt: skip
    """Of the device that holds most: its layers of the pipeline, a tensor part of each, and token table or head (both, if there is
    one stage)."""
    first, last = end_elements(spec, tensor)
    blocks = block_elements(spec, tensor, expert, expert_tensor, density)
    stage = ceil_through(spec.layers / pipeline) / spec.layers
    shared = spec.vocabulary * (spec.table_width or spec.width) / tensor if spec.tied else 0.0
    outer = jnp.where(pipeline > 1, jnp.maximum(first, last + shared), first + last)
    return (blocks * stage + extra_parameters / (tensor * pipeline)) * weight_bytes_each + outer * head_bytes_each


def kv_bytes_per_token(spec: Transformer, kv_bytes_each):
    """Bytes that one token leaves in the caches of all layers."""
    return spec.layers * spec.kv_elements * kv_bytes_each


def cached_tokens(spec: Transformer, held):
    """Mean over layers of the tokens of a sequence of `held` tokens that stay in the cache: a sliding window rolls over the oldest."""
    total: Any = 0.0
    for count, window, _ in kinds(spec):
        total = total + count * (jnp.minimum(held, window) if window else held)
    return total / spec.layers


def device_kv_share(spec: Transformer, tensor=1.0, pipeline=1.0):
    """Share of a sequence's cache on the device that holds most: heads are dealt to tensor ranks (at least one each; latents are
    whole on each), layers to stages."""
    heads = 1.0 if spec.latent else jnp.maximum(ceil_through(spec.kv / tensor), 1.0) / spec.kv
    return heads * ceil_through(spec.layers / pipeline) / spec.layers


def activation_bytes(spec: Transformer, rows, activation_bytes_each, sequences, tensor=1.0):
    """What one pass of `rows` tokens holds at once on a device: residual, normed and widest results of a layer, and the logits of
    `sequences` in 4 bytes."""
    hidden = spec.hidden * (1 + spec.gated)
    if spec.experts:
        hidden = max(hidden, 2 * spec.experts.hidden * spec.experts.chosen)
    widest = jnp.maximum((spec.heads + 2 * spec.kv) * spec.size, hidden) / tensor
    return rows * (2.0 * spec.width + widest) * activation_bytes_each + sequences * spec.vocabulary / tensor * 4.0
