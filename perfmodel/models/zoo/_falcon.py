"""Falcon 40B (Almazrouei et al., arXiv 2311.16867): attention beside the MLP, eight KV heads, no biases."""

from ._records import Transformer
from ._transformer import language_models


def falcon(width: int, heads: int, layers: int, *, vocabulary: int = 65024, **more) -> Transformer:
    """The record of a Falcon: attention and MLP each with a norm of their own (the new decoder), one GEMM for Q, K and V."""
    fields = dict(
        hidden=4 * width, norm="layer_norm", activation="gelu", gated=False, parallel=2, rotary=width // heads, fused_qkv=True,
        tied=True, block="h",
    )  # fmt: skip
    return Transformer(vocabulary, width, layers, heads, **(fields | more))


SPECS = {"falcon-40b": falcon(8192, 128, 60, kv_heads=8)}
BUILDERS = language_models(SPECS)
