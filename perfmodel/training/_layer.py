"""Work of one microbatch on one device of a tensor-parallel group: products, passes over activations, collectives.

Counted as Megatron-LM runs a block (Korthikanti et al., arXiv 2205.05198, figures 2 to 6): attention is not fused, softmax
with its mask is one kernel, dropout another, bias, dropout and residual a third, bias and GELU a fourth. Activations have
16 bits.
"""

from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..cost import gemm_s
from ..cost._device import Machine
from ._shape import TrainingShape

_BYTES = 2.0  # an activation
_FP32 = 4.0
_TILE = 128.0
# Bytes that kernels move for an element, forward and backward. A norm's backward pass is two kernels: dx reads x and dy, the
# gradients of scale and shift read them again. Where a residual forks, two gradients are added up (6).
_NORM, _NORM_BACK = 4.0, 10.0
_RESIDUAL, _RESIDUAL_BACK = 6.0, 6.0
_DROPPED, _DROPPED_BACK = 1.0, 5.0  # with a mask of a byte
_SOFTMAX, _SOFTMAX_BACK = 4.0, 6.0
_DROPOUT = 5.0  # a kernel of its own, either way
_ACTIVATION, _ACTIVATION_BACK = 4.0, 6.0  # of the MLP: reads its input, writes its output
_GATE, _GATE_BACK = 2.0, 4.0  # the second factor besides
_COPY = 4.0
_BIAS_BACK = 2.0  # a sum over tokens
# Cross-entropy in fp32 of logits in 16 bits: cast, largest, difference, exponential, sum, quotient; back: difference, cast.
_LOSS, _LOSS_BACK = 38.0, 14.0


class Work(NamedTuple):
    """What one device does in one go: `products [G, 3]` of (M, N, K) one after the other, and bytes of other kernels."""

    products: Float[Array, "G 3"]
    streamed_bytes: Float[Array, ""]

    @property
    def macs(self):
        return jnp.sum(jnp.prod(self.products, axis=-1))

    @property
    def moved_bytes(self):
        """Through memory: operands and results of the products once, and what is streamed."""
        m, n, k = self.products.T
        return _BYTES * jnp.sum(m * k + k * n + m * n) + self.streamed_bytes


class Block(NamedTuple):
    """A block: `forward`, its core attention alone, which selective recompute repeats (`core`), and `backward` split into
    gradients of activations (`dgrad`), of weights (`wgrad`), and all else (`core_back`: core attention and the streamed
    bytes)."""

    forward: Work
    core: Work
    dgrad: Work
    wgrad: Work
    core_back: Work


def _work(products, streamed_bytes) -> Work:
    columns = [jnp.stack([jnp.asarray(x, float) for x in row]) for row in products]
    return Work(jnp.stack(columns) if columns else jnp.zeros((0, 3)), jnp.asarray(streamed_bytes, float))


def block(shape: TrainingShape, tokens, sequence, tensor, sequence_parallel: bool) -> Block:
    """A block's work for `tokens` of sequences of `sequence` tokens, on one of `tensor` ranks."""
    heads, width, d = shape.heads / tensor, shape.width, shape.head_dim
    qkv, up, hidden = shape.qkv(tensor), shape.up / tensor, shape.hidden / tensor
    seen = jnp.minimum(shape.window, sequence)
    rows = tokens * heads  # of all heads' attention
    linear = ((tokens, qkv, width), (tokens, width, heads * d), (tokens, up, width), (tokens, width, hidden))
    attention = ((rows, seen, d), (rows, d, seen))
    keys = rows * seen / sequence
    attention_back = ((rows, seen, d), (rows, d, seen), (keys, d, sequence), (keys, d, sequence))

    weights = rows * seen
    whole = tokens * width / (tensor if sequence_parallel else 1.0)
    core = weights * (_SOFTMAX + _DROPOUT * shape.dropout)
    core_back = weights * (_SOFTMAX_BACK + _DROPOUT * shape.dropout)
    turned = shape.rotary * _COPY * tokens * (heads * d + shape.keys(tensor)) + _COPY * tokens * heads * d
    acted = tokens * hidden * (_ACTIVATION + _GATE * shape.gated)
    ends = whole * (shape.norms * _NORM + shape.joins * (_RESIDUAL + _DROPPED * shape.dropout))
    acted_back = tokens * hidden * (_ACTIVATION_BACK + _GATE_BACK * shape.gated)
    biases = _BIAS_BACK * (
        tokens * (shape.qkv_bias * qkv + shape.mlp_bias * up) + whole * (shape.out_bias + shape.mlp_bias)
    )
    ends_back = whole * (shape.norms * _NORM_BACK + shape.joins * (_RESIDUAL_BACK + _DROPPED_BACK * shape.dropout))
    return Block(
        forward=_work([*linear[:1], *attention, *linear[1:]], core + turned + acted + ends),
        core=_work(attention, core),
        dgrad=_work([(m, k, n) for m, n, k in linear], 0.0),
        wgrad=_work([(n, k, m) for m, n, k in linear], 0.0),
        core_back=_work(attention_back, core_back + turned + acted_back + biases + ends_back),
    )


class Ends(NamedTuple):
    """Before the first block and behind the last: look-up of tokens (`table`, `table_back`), final norm, LM head and loss
    (`head`, and its
    gradients of activations and weights)."""

    table: Work
    table_back: Work
    head: Work
    head_dgrad: Work
    head_wgrad: Work


def ends(shape: TrainingShape, tokens, tensor, sequence_parallel: bool) -> Ends:
    """As `block`. The table is shared out by rows, so every rank writes all tokens before they are added up."""
    whole = tokens * shape.width
    part = whole / (tensor if sequence_parallel else 1.0)
    logits = shape.padded_vocabulary(tensor) / tensor
    positions = 6.0 * jnp.minimum(shape.positions, 1.0)
    return Ends(
        table=_work([], whole * _COPY + part * (positions + shape.table_norm * _NORM + _DROPOUT * shape.dropout)),
        table_back=_work(
            [], whole * (_BYTES + 2 * _FP32) + part * (shape.table_norm * _NORM_BACK + _DROPOUT * shape.dropout)
        ),
        head=_work([(tokens, logits, shape.width)], tokens * logits * _LOSS + part * shape.final_norm * _NORM),
        head_dgrad=_work(
            [(tokens, shape.width, logits)], tokens * logits * _LOSS_BACK + part * shape.final_norm * _NORM_BACK
        ),
        head_wgrad=_work([(logits, shape.width, tokens)], 0.0),
    )


def products_s(machine: Machine, works: list[Work], tier: int) -> list[Float[Array, "G"]]:
    """Seconds of every product of every work: the fitted kernel model on a GPU, else a roofline of peak and memory."""
    m, n, k = jnp.concatenate([work.products for work in works]).T
    if machine.gpu is not None and machine.kernels is not None:
        constants: Any = machine.kernels["gemm", "bf16"]
        seconds = jax.vmap(lambda m, n, k: gemm_s(constants, machine.gpu, m, n, k))(m, n, k)
    else:
        moved_s = _BYTES * (m * k + k * n + m * n) / machine.tiers.bytes_per_s[tier]
        seconds = machine.launch_s + jnp.maximum(2 * m * n * k / machine.peak_ops_per_s[0], moved_s)
    ends = list(accumulate(work.products.shape[0] for work in works))
    return [seconds[end - work.products.shape[0] : end] for work, end in zip(works, ends, strict=True)]


def streamed_s(machine: Machine, nbytes, tier: int) -> Float[Array, ""]:
    """Seconds of kernels that only move data: memory at the share of its bytes/s that the GPU's products reach (elsewhere:
    all)."""
    reached: Any = 1.0
    if machine.gpu is not None and machine.kernels is not None:
        reached = machine.kernels["gemm", "bf16"].dram_efficiency
    return nbytes / (reached * machine.tiers.bytes_per_s[tier])


def accumulated_s(machine: Machine, work: Work, tier: int) -> Float[Array, "G"]:
    """Seconds of reading and writing the fp32 sums that gradients of weights are added to, which runs beside the products."""
    return streamed_s(machine, 2 * _FP32 * work.products[:, 0] * work.products[:, 1], tier)


def work_j(machine: Machine, work: Work, tier: int) -> Float[Array, ""]:
    """Energy of multiply-accumulates, of memory, and of the on-chip buffer, which products read by tiles of 128 x 128."""
    m, n, k = work.products.T
    tiles = _BYTES * jnp.sum(m * k * jnp.ceil(n / _TILE) + n * k * jnp.ceil(m / _TILE) + m * n)
    moved = work.moved_bytes * machine.tiers.j_per_byte[tier]
    return work.macs * machine.mac_j + (tiles + work.streamed_bytes) * machine.buffer_j_per_byte + moved
