"""Seconds of a mixture-of-experts feed-forward layer on a GPU: two grouped GEMMs and the routing around them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...hardware import Gpu
from ._gemm import GemmParameters, gemm_s
from ._parts import Positive, Precision, precision, times

_MOST_EXPERTS = 256


class MoeParameters(eqx.Module):
    """Constants of one library's expert layer, all positive.

    - `gemm`: of the grouped GEMMs.  `routing_cycles`: gating, sorting, permuting and the launches of it all, once.
    - `expert_cycles`: the same for each expert held.  `passes`: times that the tokens' copies are moved.
    """

    gemm: GemmParameters = GemmParameters()
    routing_cycles: Positive = 20000.0
    expert_cycles: Positive = 20.0
    passes: Positive = 2.0


def expert_loads(tokens, top_k, experts, skew=0.0, expert_parallel=1.0) -> Float[Array, "256"]:
    """Tokens of each expert that one GPU holds, most wanted first; zero beyond the last.

    Popularity follows a power law with density x^-skew (0: balanced): its quantiles between 1 and 0.8 tokens, or between
    0.01 and 2 when there are fewer choices than experts (as AIConfigurator draws it). Of every `expert_parallel` experts in this
    order the GPU holds the first: the busier GPUs.
    """
    order = jnp.arange(_MOST_EXPERTS) * expert_parallel
    held = order < experts
    few = tokens * top_k <= experts
    low, high = jnp.where(few, 0.01, 1.0), jnp.where(few, 2.0, jnp.maximum(0.8 * tokens, 1.001))
    power = 1 - jnp.where(skew > 0, skew, 0.5)
    ends = low**power, high**power

    def popularity(place):
        return (ends[1] + (ends[0] - ends[1]) * (place + 0.5) / experts) ** (1 / power)

    every = jnp.arange(_MOST_EXPERTS)
    total = jnp.sum(jnp.where(every < experts, popularity(jnp.minimum(every, experts - 1)), 0.0))
    share = jnp.where(skew > 0, popularity(jnp.minimum(order, experts - 1)) / total, 1 / experts)
    loads: Any = jnp.where(held, jnp.minimum(share * top_k, 1.0) * tokens, 0.0)
    return loads


def moe_s(
    parameters: MoeParameters,
    gpu: Gpu,
    tokens,
    hidden,
    intermediate,
    experts,
    top_k,
    *,
    tensor_parallel=1.0,
    expert_parallel=1.0,
    skew=0.0,
    kind: str | Precision = "bf16",
    footprint=jnp.inf,
) -> Float[Array, ""]:
    """Seconds of a gated expert layer on one GPU of `tensor_parallel` x `expert_parallel`; at most 256 experts on it.

    An expert's weights are read if any token chose it; its tokens are padded to tiles of their own. `footprint`: times
    the weights read here that are touched between two uses of them (1: a benchmark that repeats the layer).
    """
    width = intermediate / tensor_parallel
    if isinstance(skew, int | float) and skew == 0:  # all alike
        load = jnp.minimum(top_k / experts, 1.0) * tokens
        held = jnp.ceil(experts / expert_parallel)
        return even_moe_s(parameters, gpu, load, held, hidden, width, kind=kind, footprint=footprint)
    loads = expert_loads(tokens, top_k, experts, skew, expert_parallel)
    held = experts / expert_parallel
    return _layer_s(parameters, gpu, loads, jnp.ones_like(loads), held, hidden, width, kind, footprint)


def even_moe_s(parameters: MoeParameters, gpu: Gpu, load, held, hidden, width, *, kind: str | Precision = "bf16",
               footprint=jnp.inf) -> Float[Array, ""]:  # fmt: skip
    """Seconds where each of `held` experts of `width` units on this GPU expects `load` tokens of `hidden` elements."""
    one = jnp.asarray(load, float)[None]
    return _layer_s(parameters, gpu, one, jnp.asarray(held, float)[None], held, hidden, width, kind, footprint)


def _layer_s(parameters: MoeParameters, gpu: Gpu, loads, times_, held, hidden, width, kind, footprint):
    """`times_[e]` experts with `loads[e]` tokens each, of `held` in all."""
    read = 3.0 * width * hidden * precision(kind).weight_bytes * jnp.sum(times_ * jnp.minimum(loads, 1.0))
    shared = dict(kind=kind, loads=loads, times=times_, footprint_bytes=times(footprint) * read)
    columns, depths = (
        jnp.stack([jnp.asarray(x, float) for x in pair]) for pair in ((2 * width, hidden), (hidden, width))
    )
    products = jnp.sum(jax.vmap(lambda n, k: gemm_s(parameters.gemm, gpu, 1.0, n, k, **shared))(columns, depths))
    moved = 2.0 * jnp.sum(times_ * loads) * (2 * hidden + 3 * width)
    routing = (parameters.routing_cycles + parameters.expert_cycles * held) / gpu.clock_hz
    return routing + products + parameters.passes * moved / gpu.dram_bytes_per_s
