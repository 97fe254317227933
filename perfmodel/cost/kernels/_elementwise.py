"""Seconds of kernels that only move data: normalisation, softmax, activations, rotary embedding, additions, look-ups."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._names import unknown_name
from ...hardware import Gpu
from ._parts import Positive, l2_hit, overlapped

# Elements read and written for each element of the input.
MOVES: dict[str, float] = {
    "layernorm": 2.0,
    "softmax": 2.0,
    "gelu": 2.0,
    "gated_activation": 1.5,  # reads gate and up, writes half
    "rope": 2.0,
    "add": 3.0,
    "embedding": 2.0,
}


class ElementwiseParameters(eqx.Module):
    """Constants of one kernel, all positive. `passes`: how often the kernel moves the least data it could move."""

    launch_cycles: Positive = 4000.0
    row_cycles: Positive = 500.0
    passes: Positive = 1.3
    l2_efficiency: Positive = 0.5
    l2_share: Positive = 1.0


def elementwise_s(
    parameters: ElementwiseParameters, gpu: Gpu, rows, width, *, kind: str = "add", element_bytes=2.0
) -> Float[Array, ""]:
    """Seconds of `kind` (a name in `MOVES`) over `rows` x `width` elements; data that fits in L2 comes from there.

    Rows are dealt to the multiprocessors in waves, each with a fixed cost. Raises ValueError for an unknown kind.
    """
    if kind not in MOVES:
        raise unknown_name("kernel", kind, MOVES)
    moved = MOVES[kind] * rows * width * element_bytes * parameters.passes
    miss = 1 - l2_hit(moved, parameters.l2_share * gpu.l2_bytes)
    l2_bytes_per_s = parameters.l2_efficiency * gpu.l2_bytes_per_cycle * gpu.clock_hz
    waves = jnp.ceil(rows / (8 * gpu.multiprocessors))
    fixed = (parameters.launch_cycles + waves * parameters.row_cycles) / gpu.clock_hz
    return fixed + overlapped(moved * miss / gpu.dram_bytes_per_s, moved / l2_bytes_per_s)
