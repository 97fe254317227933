"""BLOOM 176B (BigScience, arXiv 2211.05100): ALiBi instead of positions, a norm after the token table."""

from ._records import Transformer
from ._transformer import language_models


def bloom(width: int, heads: int, layers: int, *, vocabulary: int = 250880, **more) -> Transformer:
    """The record of a BLOOM; the bias of ALiBi is a row `add` on the scores."""
    fields = dict(
        hidden=4 * width, norm="layer_norm", activation="gelu", gated=False, alibi=True, fused_qkv=True, qkv_bias=True,
        out_bias=True, mlp_bias=True, embed_norm=True, tied=True, block="h",
    )  # fmt: skip
    return Transformer(vocabulary, width, layers, heads, **(fields | more))


SPECS = {"bloom-176b": bloom(14336, 112, 70)}
BUILDERS = language_models(SPECS)
