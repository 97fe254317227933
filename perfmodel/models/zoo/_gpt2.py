"""GPT-2 decoders (Radford et al. 2019; sizes of the released checkpoints)."""

from ...workload._graph import Workload
from ._records import Transformer
from ._transformer import language_model

_SIZES = {  # model width, heads, blocks
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 16, 24),
    "gpt2-large": (1280, 20, 36),
    "gpt2-xl": (1600, 25, 48),
}


def gpt(width: int, heads: int, layers: int, *, vocabulary: int = 50257, positions: int = 1024, **more) -> Transformer:
    """The record of a GPT: learned positions, norms before, one GEMM for Q, K and V, biases everywhere, a tied head."""
    fields = dict(
        hidden=4 * width, norm="layer_norm", activation="gelu", gated=False, positions=positions, limit=positions, fused_qkv=True,
        qkv_bias=True, out_bias=True, mlp_bias=True, tied=True, block="h",
    )  # fmt: skip
    return Transformer(vocabulary, width, layers, heads, **(fields | more))


def gpt2(name: str, *, batch: int = 1, phase: str = "prefill", seq_len: int | None = None, context: int | None = None,
         lm_head: bool = False, all_logits: bool = True, kv_cache: bool = False, dtype: str = "int8", weight_dtype: str | None = None,
         kv_dtype: str | None = None) -> Workload:  # fmt: skip
    """GPT-2 as a complete graph: embedding, 12 operators a block, final norm, and optionally the (tied) LM head.

    Attention is full (not causal), one row a GEMM with `groups = heads * batch`, as accelerators without masking run it.
    `seq_len`: 1024 unless given, 1 in decode. `kv_cache`: prefill leaves keys and values in memory (decode does anyway).
    Raises ValueError where context and `seq_len` exceed the 1024 learned positions, and for an unknown phase or dtype.
    """
    return language_model(
        name, gpt(*_SIZES[name]), batch=batch, phase=phase, seq_len=seq_len, context=context, lm_head=lm_head,
        all_logits=all_logits, cached=kv_cache, dtype=dtype, weight_dtype=weight_dtype, kv_dtype=kv_dtype,
    )  # fmt: skip


BUILDERS = {name: gpt2 for name in _SIZES}
