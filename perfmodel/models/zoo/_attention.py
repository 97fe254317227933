"""Self-attention of language models over cached and new tokens: grouped heads, rotation, sliding windows."""

from ...workload._operators import LANE_OPS
from .._net import Net, Tensor
from ._passes import Pass, leave_in_memory
from ._records import Transformer


def attention(net: Net, label: str, x: Tensor, spec: Transformer, run: Pass, window: int) -> Tensor:
    """Projections, rotation, `attend`, output projection of `x`, (batch, tokens, width).

    Projections are three GEMMs or one (`fused_qkv`), as the checkpoint stores them. What a later token needs of K and V is
    left in memory by the rows that made them. `window`: tokens that a token looks at, itself included; 0: all.
    """
    heads, kv, size = spec.heads, spec.kv, spec.size
    widths = heads * size, kv * size, kv * size
    if spec.fused_qkv:
        q, k, v = net.split(net.linear(f"{label}.qkv", x, sum(widths), bias=spec.qkv_bias), *widths, axis=-1)
    else:
        q, k, v = (
            net.linear(f"{label}.{letter}", x, width, bias=spec.qkv_bias)
            for letter, width in zip("qkv", widths, strict=True)
        )
    if spec.qk_norm:  # of each head, with one scale for all
        q, k = (
            net.vector(f"{label}.{letter}.norm", "rms_norm", each, parameters=size)
            for letter, each in (("q", q), ("k", k))
        )
    if spec.rotary:
        q = rotated(net, f"{label}.q.rope", q, heads * spec.rotary)
        k = rotated(net, f"{label}.k.rope", k, kv * spec.rotary)
    if run.cached:
        kept = run.batch * min(run.tokens, window or run.tokens) * kv * size
        for each in (k, v):
            leave_in_memory(net, each, kept * run.kv_bits / 8)
    return net.linear(f"{label}.proj", attend(net, label, q, k, v, spec, run, window), spec.width, bias=spec.out_bias)


def rotated(net: Net, label: str, x: Tensor, width: int) -> Tensor:
    """Rotary positions on `width` of the last axis's elements, the others pass unchanged."""
    return net.vector(label, "rope", x, lane_ops=LANE_OPS["rope"] * x.elements // x.shape[-1] * width)


def attend(net: Net, label: str, q: Tensor, k: Tensor, v: Tensor, spec: Transformer, run: Pass, window: int) -> Tensor:
    """Scores, softmax and values. A head's K and V serve all its queries (groups = KV heads * batch, each with the queries of
    `heads / kv` heads), so they are read once. The window is a band: a query meets `window` keys, all keys are read."""
    groups, queries = spec.kv * run.batch, run.tokens * spec.heads // spec.kv
    past = run.past(window)
    seen = min(past + run.tokens, window or past + run.tokens)
    cache = dict(cached=groups * past * spec.size, cache_bits=run.kv_bits)
    weights = net.product(
        f"{label}.scores", q, k, groups=groups, p=queries, k=seen, c=spec.size, causal=run.causal, **cache
    )
    if spec.softcap:  # divide, tanh, multiply
        weights = net.vector(f"{label}.softcap", "tanh", weights, lane_ops=3 * weights.elements, groups=groups)
    if spec.alibi:
        weights = net.vector(f"{label}.alibi", "add", weights, groups=groups)
    weights = net.vector(f"{label}.softmax", "softmax", weights, groups=groups)
    shape = (run.batch, run.tokens, spec.heads * spec.size)
    return net.product(
        f"{label}.values", weights, v, groups=groups, p=queries, k=spec.size, c=seen, shape=shape, **cache
    )
