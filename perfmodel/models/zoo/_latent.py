"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): K and V come of one narrow latent that is cached."""

from ...workload._operators import operator_row
from .._net import Net, Tensor
from ._attention import rotated
from ._passes import Pass, leave_in_memory
from ._records import Latent, Transformer


def latent_attention(net: Net, label: str, x: Tensor, spec: Transformer, run: Pass) -> Tensor:
    """Latent attention of `x`, (batch, tokens, width). The cache holds `kv_rank + rotary` elements a token, for all heads.

    `run.absorb`: the expansion of keys is applied to the queries and that of values to the result (section 2.1.2), so that
    heads meet the latents themselves: the way to decode. Otherwise K and V of all tokens, cached ones too, are expanded.
    """
    part, heads = _latent(spec), spec.heads
    bias = spec.qkv_bias
    if part.q_rank:
        q = net.norm(f"{label}.q_a.norm", "rms_norm", net.linear(f"{label}.q_a", x, part.q_rank, bias=bias))
        q = net.linear(f"{label}.q_b", q, heads * (part.plain + part.rotary))
    else:
        q = net.linear(f"{label}.q", x, heads * (part.plain + part.rotary))
    plain, turned = net.split(q, heads * part.plain, heads * part.rotary, axis=-1)
    turned = rotated(net, f"{label}.q.rope", turned, heads * part.rotary)
    latent, key = net.split(
        net.linear(f"{label}.kv_a", x, part.kv_rank + part.rotary, bias=bias), part.kv_rank, part.rotary, axis=-1
    )
    latent = net.norm(f"{label}.kv_a.norm", "rms_norm", latent)
    key = rotated(net, f"{label}.k.rope", key, part.rotary)
    if run.cached:
        for each in (latent, key):
            leave_in_memory(net, each, each.elements * run.kv_bits / 8)
    how = _absorbed if run.absorb else _expanded
    return net.linear(
        f"{label}.proj", how(net, label, plain, turned, latent, key, spec, run), spec.width, bias=spec.out_bias
    )


def _latent(spec: Transformer) -> Latent:
    assert spec.latent is not None
    return spec.latent


def _absorbed(net: Net, label: str, plain: Tensor, turned: Tensor, latent: Tensor, key: Tensor, spec: Transformer,
              run: Pass) -> Tensor:  # fmt: skip
    part, heads, rows = _latent(spec), spec.heads, run.batch * run.tokens
    wide, keys = part.kv_rank + part.rotary, run.context + run.tokens
    q = net.dense(
        f"{label}.q.absorb", plain, groups=heads, p=rows, k=part.kv_rank, c=part.plain, shape=(run.batch, run.tokens, heads * part.kv_rank)
    )  # fmt: skip
    # one key of `wide` for all heads
    weights = net.product(
        f"{label}.scores", net.concat(q, turned, axis=-1), net.concat(latent, key, axis=-1), groups=run.batch,
        p=run.tokens * heads, k=keys, c=wide, cached=run.batch * run.context * wide, cache_bits=run.kv_bits, causal=run.causal,
    )  # fmt: skip
    weights = net.vector(f"{label}.softmax", "softmax", weights, groups=run.batch)
    # cached latents were read for the scores: both products walk them together (FlashMLA), memory is not read again
    past = run.batch * run.context * part.kv_rank
    reads, bits = weights.elements + latent.elements, net.activation.bits
    row = operator_row(
        "attention_gemm", groups=run.batch, p=run.tokens * heads, k=part.kv_rank, c=keys, in_elements=reads + past, bits=bits,
        in_bits=(reads * bits + past * run.kv_bits) / (reads + past),
    )  # fmt: skip
    out = net.layer(f"{label}.values", row, (weights, latent), (run.batch, run.tokens, heads * part.kv_rank))
    return net.dense(
        f"{label}.v.absorb", out, groups=heads, p=rows, k=part.value, c=part.kv_rank, shape=(run.batch, run.tokens, heads * part.value)
    )  # fmt: skip


def _expanded(net: Net, label: str, plain: Tensor, turned: Tensor, latent: Tensor, key: Tensor, spec: Transformer,
              run: Pass) -> Tensor:  # fmt: skip
    part, heads, keys = _latent(spec), spec.heads, run.context + run.tokens
    size, of_cache = part.plain + part.rotary, run.kv_bits / 8
    # cached latents come from memory beside those of this pass
    all_latents = Tensor(
        (run.batch, keys, part.kv_rank), latent.parts, run.batch * run.context * part.kv_rank * of_cache
    )
    both = net.linear(f"{label}.kv_b", all_latents, heads * (part.plain + part.value))
    net.rows[both.parts[0][0]]["in_bits"] = (run.context * run.kv_bits + run.tokens * net.activation.bits) / keys
    k, v = net.split(both, heads * part.plain, heads * part.value, axis=-1)
    groups = heads * run.batch
    weights = net.product(
        f"{label}.scores", net.concat(plain, turned, axis=-1), Tensor((k.elements + key.elements,), k.parts + key.parts),
        groups=groups, p=run.tokens, k=keys, c=size, cached=run.batch * run.context * part.rotary, cache_bits=run.kv_bits,
        causal=run.causal,
    )  # fmt: skip
    weights = net.vector(f"{label}.softmax", "softmax", weights, groups=groups)
    shape = (run.batch, run.tokens, heads * part.value)
    return net.product(f"{label}.values", weights, v, groups=groups, p=run.tokens, k=part.value, c=keys, shape=shape)
