"""OPT (Zhang et al., arXiv 2205.01068), sizes of the released checkpoints: GPT-3's shapes with ReLU and separate Q, K, V."""

from ._records import Transformer
from ._transformer import language_models


def opt(width: int, heads: int, layers: int, *, hidden: int = 0, vocabulary: int = 50272, positions: int = 2048,
        **more) -> Transformer:  # fmt: skip
    """The record of an OPT: the learned table has two positions more than are used."""
    fields = dict(
        norm="layer_norm", activation="relu", gated=False, positions=positions + 2, limit=positions, qkv_bias=True, out_bias=True,
        mlp_bias=True, tied=True,
    )  # fmt: skip
    return Transformer(vocabulary, width, layers, heads, hidden or 4 * width, **(fields | more))


SPECS = {"opt-13b": opt(5120, 40, 40)}
BUILDERS = language_models(SPECS)
