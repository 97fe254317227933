"""What every dataflow is asked for, and the loop bounds that all of them start from."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..workload import Operators


class OnChip(NamedTuple):
    """Of one pass: cycles of the array or of the lanes, cycles to fill and drain, traffic of the buffer and of the PEs' own stores.

    `input_reads, weight_reads, output_writes` are the elements behind `buffer_bytes`, which also counts the partial sums
    that are read back.
    """

    cycles: Float[Array, "..."]
    fill_cycles: Float[Array, "..."]
    buffer_bytes: Float[Array, "..."]
    local_bytes: Float[Array, "..."]
    input_reads: Float[Array, "..."]
    weight_reads: Float[Array, "..."]
    output_writes: Float[Array, "..."]


def sizes(op: Operators):
    """Loop bounds and bytes per element as floats of the computation's dtype."""
    dtype = jnp.result_type(float)
    g, n, k, c, p, q, r, s = (jnp.asarray(x, dtype) for x in (op.groups, op.batch, op.k, op.c, op.p, op.q, op.r, op.s))
    # rows of the window that are new when the window moves on by one output (none skipped, none read twice)
    new_r, new_s = jnp.minimum(r, op.stride), jnp.minimum(s, op.stride)
    return g, n, k, c, p, q, r, s, new_r, new_s, op.in_bits / 8, op.weight_bits / 8, op.out_bits / 8, op.psum_bits / 8
