"""Configurations of transformers as records of numbers: what the zoo writes down and the importer of Hugging Face reads."""

from typing import NamedTuple


class Latent(NamedTuple):
    """Multi-head latent attention. Widths: of the latents of queries (0: none, queries come straight) and of keys and values;
    of a head's part without and with rotation; of a head's values."""

    q_rank: int
    kv_rank: int
    plain: int
    rotary: int
    value: int


class Experts(NamedTuple):
    """`count` experts of `hidden` units, `chosen` of them a token, and a shared one of `shared` units that all tokens see.

    `router`: kind of its scores.  `corrected`: a bias of each expert corrects the choice (auxiliary-loss-free balancing).
    `shared_gate`: a scalar a token scales the shared expert.  `dense`: layers that have a plain MLP.
    """

    count: int
    chosen: int
    hidden: int
    shared: int = 0
    router: str = "softmax"
    corrected: bool = False
    shared_gate: bool = False
    dense: tuple[int, ...] = ()


class Transformer(NamedTuple):
    """A stack of `layers` blocks of attention and MLP between a token table and an LM head.

    **Fields:**
    - `vocabulary, width, layers, heads, hidden` (units of the MLP); `kv_heads`, `head_dim`: 0 for `heads`, `width / heads`.
    - `norm`: `layer_norm` or `rms_norm`.  `activation`, `gated` (gate * up), `fused_gate` (both in one GEMM).
    - `order`: norms stand before attention and MLP (`pre`), behind their residual (`post`) or on both sides of them
      (`sandwich`).  `parallel`: MLP beside attention: its number of norms, 0 where one follows the other.
    - `positions`: rows of a learned table.  `limit`: the longest sequence it allows.  `types`: rows of a table of token types.
    - `rotary`: rotated elements of a head (0: none).  `alibi`: a bias that falls with distance is added to the scores.
    - `fused_qkv, qkv_bias, qk_norm, out_bias, mlp_bias, head_bias`.  `softcap`: scores pass a tanh; `head_softcap`: logits do.
    - `windows`: of each layer the tokens that a token sees, 0: all; empty: all everywhere.
    - `embed_norm, final_norm`.  `tied`: the head shares the token table.  `table_width`: of the token table where it is not
      `width`.  `scaled`: embeddings are multiplied by a constant.  `latent`, `experts`.
    - `block`: label of a block.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    kv_heads: int = 0
    head_dim: int = 0
    norm: str = "rms_norm"
    activation: str = "silu"
    gated: bool = True
    fused_gate: bool = False
    order: str = "pre"
    parallel: int = 0
    positions: int = 0
    limit: int = 0
    types: int = 0
    rotary: int = 0
    alibi: bool = False
    fused_qkv: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    softcap: bool = False
    head_softcap: bool = False
    windows: tuple[int, ...] = ()
    embed_norm: bool = False
    final_norm: bool = True
    tied: bool = False
    table_width: int = 0
    scaled: bool = False
    latent: Latent | None = None
    experts: Experts | None = None
    block: str = "layer"

    @property
    def kv(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def size(self) -> int:
        """Elements of a head."""
        return self.head_dim or self.width // self.heads

    @property
    def kv_elements(self) -> int:
        """Elements that a token leaves in the cache of one layer."""
        return self.latent.kv_rank + self.latent.rotary if self.latent else 2 * self.kv * self.size

    def window(self, layer: int) -> int:
        """Tokens that a token sees in a layer; 0: all."""
        return self.windows[layer] if self.windows else 0
