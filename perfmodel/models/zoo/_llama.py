"""Llama 2 (arXiv 2307.09288), Llama 3 (arXiv 2407.21783) and Mistral 7B (arXiv 2310.06825), sizes of the released checkpoints.

Sequences have no limit: positions are rotations. Mistral's window of 4096 tokens is that of its paper and version 0.1.
"""

from ._records import Transformer
from ._transformer import language_models


def llama(vocabulary: int, width: int, layers: int, heads: int, kv_heads: int, hidden: int, **more) -> Transformer:
    """The record of a Llama: RMS norms before, rotary positions, a gated MLP of SiLU, no biases, a head of its own."""
    size = more.get("head_dim") or width // heads
    return Transformer(vocabulary, width, layers, heads, hidden, kv_heads=kv_heads, **({"rotary": size} | more))


SPECS = {
    "llama-2-7b": llama(32000, 4096, 32, 32, 32, 11008),
    "llama-2-13b": llama(32000, 5120, 40, 40, 40, 13824),
    "llama-2-70b": llama(32000, 8192, 80, 64, 8, 28672),
    "llama-3-8b": llama(128256, 4096, 32, 32, 8, 14336),
    "llama-3-70b": llama(128256, 8192, 80, 64, 8, 28672),
    "llama-3-405b": llama(128256, 16384, 126, 128, 8, 53248),  # version 3.1
    "mistral-7b": llama(32000, 4096, 32, 32, 8, 14336, windows=(4096,) * 32),
}
BUILDERS = language_models(SPECS)
