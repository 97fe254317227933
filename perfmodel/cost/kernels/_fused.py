"""Seconds of rows that are one launch of several operators: attention (decode or prefill kernels) and layers of experts."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...hardware import Gpu
from ...workload import Operators
from .._fused import experts_held
from ._attention import decode_attention_s, prefill_attention_s
from ._kernel_set import GpuKernels
from ._moe import even_moe_s
from ._parts import Precision

NO_REUSE = 1e6  # other layers come between two uses of the same bytes
_NARROW_BITS = 8.25  # formats of 8 bits with their scales, and narrower ones
_DECODE_TOKENS = 16.0  # most tokens that kernels made for decoding take at a time (drafted ones are judged together)


# Sizes for rows that are something else, whose seconds nobody asks for: no division by nothing, in slopes neither.
_SOMETHING = dict(
    groups=1,
    batch=1,
    k=64,
    c=64,
    p=64,
    q=1,
    in_elements=12288,
    out_elements=2048,
    parameters=12288,
    weight_elements=12288,
)


def only(rows: Operators, those) -> Operators:
    """The rows `those`, `[L]`, as they are, and something harmless in place of the others."""
    return eqx.tree_at(
        lambda o: [getattr(o, name) for name in _SOMETHING], rows,
        [jnp.where(those, getattr(rows, name), size) for name, size in _SOMETHING.items()],
    )  # fmt: skip


class _Attention(NamedTuple):
    batch: Any
    q_len: Any
    kv_len: Any
    heads: Any
    kv_heads: Any
    size: Any
    read_bytes: Any  # of a cached element, where it is read once for keys and values
    kv_bytes: Any
    narrow_cache: Any
    eight_bit: Any
    decode: Any


def _attention(op: Operators, kernels: GpuKernels) -> _Attention:
    batch, kv, q_len, each, keys, both = (jnp.asarray(x, float) for x in (op.batch, op.groups, op.p, op.q, op.k, op.c))
    queries = batch * kv * q_len * each
    value = op.out_elements / queries
    cached = op.in_elements - queries * (both - value)
    narrow = jnp.asarray(op.weight_bits) <= _NARROW_BITS
    eight = narrow & (jnp.asarray(op.out_bits) <= _NARROW_BITS) & (kernels.floats_8bit > 0)
    decode = (q_len <= _DECODE_TOKENS) & (q_len < keys)
    read = op.weight_bits / 8 * cached / (batch * kv * keys * both)
    return _Attention(batch, q_len, keys, kv * each, kv, both / 2, read, op.weight_bits / 8, narrow, eight, decode)


def _of(constants: Any, which) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x)[which], constants)


def attention_s(op: Operators, gpu: Gpu, kernels: GpuKernels) -> Float[Array, ""]:
    """Seconds of a row of kind `attention` (fields are scalars). Few new tokens beside cached ones take the kernels made for decoding."""
    a = _attention(op, kernels)
    decode_s = decode_attention_s(
        _of(kernels.decode, jnp.where(a.narrow_cache, 1, 0)), gpu, a.batch, a.kv_len, a.heads * a.q_len, a.kv_heads, a.size,
        kv_bytes=a.read_bytes, footprint=NO_REUSE,
    )  # fmt: skip
    # a window narrower than the queries: pieces as long as the window, whose queries see a window of keys in the mean
    banded = a.kv_len < a.q_len
    q_len, keys = jnp.where(banded, a.kv_len, a.q_len), jnp.where(banded, 1.5 * a.kv_len, a.kv_len)
    prefill_s = prefill_attention_s(
        _of(kernels.prefill, jnp.where(a.eight_bit, 2, jnp.where(a.narrow_cache, 1, 0))), gpu, a.batch * a.q_len / q_len, q_len, keys,
        a.heads, a.kv_heads, a.size, kv_bytes=a.kv_bytes, eight_bit=a.eight_bit, causal=jnp.asarray(op.causal) > 0, footprint=NO_REUSE,
    )  # fmt: skip
    return jnp.where(a.decode, decode_s, prefill_s)


def attention_launch_s(op: Operators, gpu: Gpu, kernels: GpuKernels) -> Float[Array, ""]:
    """Of `attention_s`, what launching takes."""
    a = _attention(op, kernels)
    decode, prefill = kernels.decode.launch_cycles, kernels.prefill.launch_cycles
    return jnp.where(a.decode, jnp.asarray(decode)[0], jnp.asarray(prefill)[0]) / gpu.clock_hz


def experts_s(op: Operators, gpu: Gpu, kernels: GpuKernels, form: Precision) -> Float[Array, ""]:
    """Seconds of a row of kind `experts` (fields are scalars); `form`: precision of its products."""
    held = experts_held(op)
    load = jnp.asarray(op.p, float) / held
    which = jnp.where(jnp.asarray(form.eight_bit) & (kernels.floats_8bit > 0), 1, 0)
    width, hidden = jnp.asarray(op.k, float), jnp.asarray(op.c, float)
    return even_moe_s(_of(kernels.moe, which), gpu, load, held, hidden, width, kind=form)


def experts_launch_s(op: Operators, gpu: Gpu, kernels: GpuKernels) -> Float[Array, ""]:
    """Of `experts_s`, what sorting, permuting and launching take."""
    cycles = jnp.asarray(kernels.moe.routing_cycles)[0] + jnp.asarray(kernels.moe.expert_cycles)[0] * experts_held(op)
    return cycles / gpu.clock_hz
