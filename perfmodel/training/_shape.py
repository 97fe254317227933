"""What a training step needs to know of a dense decoder: sizes, parameters, multiply-accumulates."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..models.zoo._records import Transformer


class TrainingShape(eqx.Module):
    """A stack of `layers` blocks of attention and MLP; every leaf may be a traced number.

    - `width, heads, kv_heads, head_dim, hidden` (units of the MLP); `vocabulary`, `positions`: rows of the learned tables.
    - `window`: tokens that a token sees; infinite: all.
    - 1 or 0: `gated` (the MLP multiplies two products), `qkv_bias`, `out_bias`, `mlp_bias`, `rotary`, `tied` (the LM head
      is the token table), `dropout` (of attention's weights and of what attention and MLP add).
    - `norms`: of a block.  `norm_vectors`: 2 where norms shift, else 1.  `table_norm, final_norm`: 1 where one stands
      behind the table, behind the last block.
    - `joins`: places in a block where tensor ranks add up: 2, or 1 where the MLP runs beside attention.
    """

    layers: Float[Array, ""]
    width: Float[Array, ""]
    heads: Float[Array, ""]
    kv_heads: Float[Array, ""]
    head_dim: Float[Array, ""]
    hidden: Float[Array, ""]
    vocabulary: Float[Array, ""]
    positions: Float[Array, ""]
    window: Float[Array, ""]
    gated: Float[Array, ""]
    qkv_bias: Float[Array, ""]
    out_bias: Float[Array, ""]
    mlp_bias: Float[Array, ""]
    rotary: Float[Array, ""]
    tied: Float[Array, ""]
    dropout: Float[Array, ""]
    norms: Float[Array, ""]
    norm_vectors: Float[Array, ""]
    table_norm: Float[Array, ""]
    final_norm: Float[Array, ""]
    joins: Float[Array, ""]

    @property
    def up(self):
        """Outputs of the MLP's first product."""
        return self.hidden * (1 + self.gated)

    def keys(self, ranks):
        """Elements of a token's keys (and of its values) on each of `ranks`; fewer KV heads than ranks are kept several
        times."""
        return jnp.maximum(self.kv_heads / ranks, 1.0) * self.head_dim

    def qkv(self, ranks):
        """Outputs of attention's first product on each of `ranks`."""
        return self.heads / ranks * self.head_dim + 2 * self.keys(ranks)

    def block_parameters(self, ranks=1.0):
        """Parameters of a block on each of `ranks`: matrices and biases behind column-parallel products are shared out,
        other biases and norms are kept by all."""
        qkv, up = self.qkv(ranks), self.up / ranks
        matrices = self.width * (qkv + up + (self.heads * self.head_dim + self.hidden) / ranks)
        shared_out = self.qkv_bias * qkv + self.mlp_bias * up
        kept = self.width * (self.out_bias + self.mlp_bias + self.norms * self.norm_vectors)
        return matrices + shared_out + kept

    def padded_vocabulary(self, ranks=1.0):
        """Rows of the token table: a multiple of 128 on each of `ranks` (Megatron-LM)."""
        return jnp.ceil(self.vocabulary / (128 * ranks)) * 128 * ranks

    def table_parameters(self, ranks=1.0):
        """(token table, learned positions) on each of `ranks`, which share out the first."""
        return self.padded_vocabulary(ranks) * self.width / ranks, self.positions * self.width


def training_shape(spec: Transformer, *, dropout: bool | None = None) -> TrainingShape:
    """The shape of a zoo's record. `dropout`: None: where the MLP is not gated, as GPT-2's descendants were trained;
    Llama's not.

    Raises ValueError for what a training step does not know: experts, latent attention, windows that differ between layers.
    """
    unknown = dict(latent="latent attention", experts="experts", table_width="a narrow token table", types="token types",
                   qk_norm="norms of queries and keys")  # fmt: skip
    for field, what in unknown.items():
        if getattr(spec, field):
            raise ValueError(f"the model has {what}; training steps know dense decoders without")
    if len(set(spec.windows)) > 1:
        raise ValueError("windows differ between layers; training steps know one window for all")
    if spec.order == "sandwich":
        norms = 4
    else:
        norms = spec.parallel or 2
    numbers = dict(
        layers=spec.layers, width=spec.width, heads=spec.heads, kv_heads=spec.kv, head_dim=spec.size, hidden=spec.hidden,
        vocabulary=spec.vocabulary, positions=spec.positions, window=spec.window(0) or float("inf"), gated=spec.gated,
        qkv_bias=spec.qkv_bias, out_bias=spec.out_bias, mlp_bias=spec.mlp_bias, rotary=spec.rotary > 0, tied=spec.tied,
        dropout=(not spec.gated) if dropout is None else dropout, norms=norms,
        norm_vectors=2 if spec.norm == "layer_norm" else 1, table_norm=spec.embed_norm, final_norm=spec.final_norm,
        joins=1 if spec.parallel else 2,
    )  # fmt: skip
    return TrainingShape(**{name: jnp.asarray(float(value)) for name, value in numbers.items()})
