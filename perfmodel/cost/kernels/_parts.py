"""What all GPU kernels share: overlap of resources, an L2 that keeps operands, clocks under a power limit."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._names import unknown_name
from ...hardware import Gpu

Positive = float | Float[Array, ""]  # a fitted constant

_L2_EDGE = 20  # cyclic use under least-recently-used replacement: nearly all or nothing
_NEVER_BYTES = 1e15
_REFERENCE_CLOCK_HZ = 1.7e9
# float32: in microseconds the fourth power of any time from a femtosecond to an hour neither vanishes nor overflows
_UNIT_S = 1e-6
_LEAST_S = 1e-15


class Precision(NamedTuple):
    """Bytes an element of weights (or KV) and of activations, whether 8-bit units work, what has to be done besides.

    - `quantises`: activations arrive in 16 bits and are converted in a pass of their own.
    - `dequantises`: weights are widened to 16 bits on the way to the tensor cores.
    """

    weight_bytes: float
    activation_bytes: float
    eight_bit: bool = False
    quantises: bool = False
    dequantises: bool = False


PRECISIONS: dict[str, Precision] = {
    "bf16": Precision(2.0, 2.0),
    "fp8": Precision(1.0, 1.0, eight_bit=True, quantises=True),
    "fp8_block": Precision(1.0, 1.0, eight_bit=True, quantises=True),  # a scale a block of 128 x 128
    "sq": Precision(1.0, 1.0, eight_bit=True, quantises=True),  # int8 weights and activations
    "int8_wo": Precision(1.0, 2.0, dequantises=True),
    "int4_wo": Precision(0.5, 2.0, dequantises=True),
}


def precision(name: str | Precision) -> Precision:
    """By name; a `Precision` is one already, and its fields may be traced. Raises ValueError for an unknown name."""
    if isinstance(name, Precision):
        return name
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    return PRECISIONS[name]


def fourth_power(seconds):
    """Of a time in microseconds; with `fourth_root` the 4-norm. Squares and roots: powers are several times slower."""
    return jnp.square(jnp.square(jnp.maximum(seconds, _LEAST_S) / _UNIT_S))


def fourth_root(total):
    """Seconds of a sum of `fourth_power`s."""
    return jnp.sqrt(jnp.sqrt(total)) * _UNIT_S


def overlapped(*seconds):
    """Time of resources that work at once: the 4-norm, so the largest, and 19 % more where two are equally busy."""
    return fourth_root(sum(fourth_power(s) for s in seconds))


def l2_hit(footprint_bytes, l2_bytes):
    """Part of the accesses that L2 serves when `footprint_bytes` are touched between two uses: 1/2 at `l2_bytes`, a sharp edge."""
    fill = jnp.minimum(jnp.minimum(footprint_bytes, _NEVER_BYTES) / l2_bytes, 10.0)
    return 1 / (1 + fill**_L2_EDGE)


def times(footprint):
    """A footprint in multiples, infinite ones made finite: infinity times a gradient of zero is not a number."""
    return jnp.minimum(footprint, 1e6)


def chosen(flag, yes, no):
    """`yes` or `no` by a flag that is known, or traced."""
    return (yes if flag else no) if isinstance(flag, bool) else jnp.where(flag, yes, no)


def peak_ops_per_s(gpu: Gpu, eight_bit):
    """Of the tensor cores."""
    return chosen(eight_bit, gpu.peak_8bit_ops_per_s, gpu.peak_16bit_ops_per_s)


def slowdown_at_power_limit(gpu: Gpu, pj_per_op):
    """Factor by which the clock falls below boost in steady full-rate matrix work; at least 1.

    Energy of an operation goes with voltage squared and voltage with the clock, so power goes with its cube:
    clock / boost = (TDP / power at boost)^(1/3). `pj_per_op`: 16-bit operations in a 5 nm process at 1.7 GHz
    (an 8-bit operation takes half, at twice the rate).
    """
    energy_j = pj_per_op * 1e-12 * gpu.energy_scale * (gpu.clock_hz / _REFERENCE_CLOCK_HZ) ** 2
    return jnp.maximum(energy_j * gpu.peak_16bit_ops_per_s / gpu.tdp_w, 1.0) ** (1 / 3)


def with_power_limit(gpu: Gpu, tensor_s, pj_per_op, settle_s):
    """Time of `tensor_s` of tensor-core work: short kernels run at boost, long ones at the sustained clock."""
    return settled_s(tensor_s, slowdown_at_power_limit(gpu, pj_per_op) - 1, settle_s)


def settled_s(tensor_s, slow, settle_s):
    """The same, `slow`: by how much the sustained clock is slower."""
    return tensor_s * (1 + slow * tensor_s / (tensor_s + settle_s))


def pipeline_stages(gpu: Gpu, stage_bytes, copy_stages):
    """Loads in flight in one multiprocessor: what shared memory holds; without tensor copies at most `copy_stages`."""
    room = gpu.shared_memory_bytes / stage_bytes
    return jnp.where(gpu.tensor_copies > 0, room, jnp.minimum(room, copy_stages))
