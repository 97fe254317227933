"""Bytes that a training step keeps on a device: Korthikanti et al., arXiv 2205.05198, sections 4 and 5."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._names import unknown_name
from ._shape import TrainingShape

RECOMPUTE = ("none", "selective", "full")
# Bytes of a parameter beside its 16-bit weight and its fp32 gradient: fp32 copy and moments.
_WEIGHT, GRADIENT = 2.0, 4.0
STATE_BYTES = {"sgd": 4.0, "momentum": 8.0, "adam": 12.0}


class TrainingMemory(NamedTuple):
    """Bytes on the fullest device.

    - `weights_bytes` (16 bits), `gradients_bytes` (fp32), `optimizer_bytes` (fp32 parameters and moments).
    - `activations_bytes`: kept from forward to backward for all microbatches in flight.  `workspace_bytes`: of one block
      while it is recomputed.
    - `layer_activations_bytes`: of one block and microbatch; `parameters`: on that device.
    """

    weights_bytes: Float[Array, ""]
    gradients_bytes: Float[Array, ""]
    optimizer_bytes: Float[Array, ""]
    activations_bytes: Float[Array, ""]
    workspace_bytes: Float[Array, ""]
    layer_activations_bytes: Float[Array, ""]
    parameters: Float[Array, ""]

    @property
    def total_bytes(self):
        return (
            self.weights_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
            + self.workspace_bytes
        )


def layer_activation_bytes(
    shape: TrainingShape, tokens, sequence, tensor=1.0, *, recompute: str = "none", sequence_parallel: bool = False
) -> Float[Array, ""]:
    """Bytes that one block keeps of a microbatch of `tokens` on each of `tensor` ranks.

    GPT: s b h (34 + 5 a s / h) on one device (equation 1), s b h (10 + 24/t + 5 a s / (h t)) with tensor parallelism (2),
    all of it divided by t with sequence parallelism (4); without the last term if attention is recomputed (6); 2 s b h, the
    block's input, if all is (table 2). Other shapes by the same rules: inputs of norms and products, both masks, Q, K, V,
    attention's weights before and after dropout with a mask of a byte, what the MLP's activation reads and leaves.

    Raises ValueError for an unknown `recompute` (none, selective, full).
    """
    if recompute not in RECOMPUTE:
        raise unknown_name("recompute", recompute, RECOMPUTE)
    wide = tokens * shape.width / (tensor if sequence_parallel else 1.0)
    if recompute == "full":
        return 2.0 * wide
    replicated = wide * (4.0 * shape.norms + 2.0 * shape.dropout)
    attended = 2.0 * tokens * (shape.qkv(tensor) + shape.heads * shape.head_dim / tensor)
    transformed = tokens * shape.hidden / tensor * (4.0 + 2.0 * shape.gated)
    kept = replicated + attended + transformed
    return kept if recompute == "selective" else kept + attention_bytes(shape, tokens, sequence, tensor)


def attention_bytes(shape: TrainingShape, tokens, sequence, tensor=1.0) -> Float[Array, ""]:
    """Attention's weights of one block: 5 a s^2 b / t with dropout, 2 a s^2 b / t without."""
    return tokens * jnp.minimum(shape.window, sequence) * shape.heads / tensor * (2.0 + 3.0 * shape.dropout)


def training_memory(
    shape: TrainingShape,
    *,
    tokens,
    sequence,
    microbatches,
    tensor,
    pipeline,
    data,
    interleave,
    recompute: str,
    sequence_parallel: bool,
    optimizer: str,
    shard_optimizer: bool,
) -> TrainingMemory:
    """Of the fullest device: of the first or the last pipeline stage.

    The first one of 1F1B has as many microbatches in flight as there are stages (at most all); interleaved in `v` parts, 1
    + (p - 1) / (p v) times the whole model's blocks (section 4.2.3). It also has masks behind the token table; the last one
    inputs of the LM head and fp32 logits (section 4.3), and a copy of a tied table of its own.
    """
    layers = shape.layers / pipeline
    of_layer = layer_activation_bytes(
        shape, tokens, sequence, tensor, recompute=recompute, sequence_parallel=sequence_parallel
    )
    table, positions = shape.table_parameters(tensor)
    norm = shape.width * shape.norm_vectors
    blocks = layers * shape.block_parameters(tensor)
    alone = jnp.where(pipeline > 1, 0.0, 1.0)
    # chunks of layers / v that warm-up puts in flight, of microbatches * v that there are
    first_chunks = jnp.minimum(pipeline * interleave + (pipeline - 1) * (interleave > 1), microbatches * interleave)
    last_chunks = jnp.minimum((interleave - 1) * pipeline + 1, microbatches * interleave)
    part = tokens / (tensor if sequence_parallel else 1.0) * shape.width
    masks = shape.dropout * part * jnp.minimum(pipeline, microbatches)
    loss = 2 * _WEIGHT * part + GRADIENT * tokens * shape.padded_vocabulary(tensor) / tensor
    workspace = {"none": 0.0, "selective": attention_bytes(shape, tokens, sequence, tensor)}.get(
        recompute,
        layer_activation_bytes(shape, tokens, sequence, tensor, sequence_parallel=sequence_parallel),
    )

    first = (
        blocks
        + table
        + positions
        + norm * shape.table_norm
        + alone * (norm * shape.final_norm + (1 - shape.tied) * table),
        of_layer * layers / interleave * first_chunks + masks + alone * loss,
    )
    last = (blocks + norm * shape.final_norm + table, of_layer * layers / interleave * last_chunks + loss)
    state = STATE_BYTES[optimizer] / (data if shard_optimizer else 1.0)
    each = _WEIGHT + GRADIENT + state
    behind = (pipeline > 1) & (last[0] * each + last[1] > first[0] * each + first[1])
    parameters, activations = (jnp.where(behind, b, a) for a, b in zip(first, last, strict=True))
    return TrainingMemory(
        weights_bytes=_WEIGHT * parameters,
        gradients_bytes=GRADIENT * parameters,
        optimizer_bytes=state * parameters,
        activations_bytes=activations,
        workspace_bytes=jnp.asarray(workspace, float) + 0.0 * parameters,
        layer_activations_bytes=of_layer,
        parameters=parameters,
    )
