"""Systolic arrays: operands enter at the edges and move on by one PE a cycle. Output-, weight- and input-stationary.

A convolution runs as the GEMM that im2col makes of it: M = n p q rows, N = k columns, depth K = c r s; groups (and the
GEMMs of attention) one after the other. With an array of R x C and F = ceil(Sr/R) ceil(Sc/C) folds (SCALE-Sim,
ISPASS 2020, and the code of its version 3, whose `os` differs from the published 2R + C + T - 2):

    dataflow     Sr  Sc  T    cycles of a fold
    os-systolic  M   N   K    T + R + C - 2
    ws-systolic  K   N   M    T + 2R + C - 2      the first R load the stationary operand
    is-systolic  K   M   N    T + 2R + C - 2

Folds do not overlap: T of each are cycles, the rest fill and drain. What is stationary is read once, what streams past
once per fold along the other side. `ws` and `is` write partial sums once per fold of K, and read them back for the next.
Registers that hand sums on are part of the MAC, as the accumulators of `os` are.
"""

import jax.numpy as jnp

from .._numerics import ceil_divide
from ..hardware import DATAFLOWS, Chiplets
from ..workload import Operators
from ._bounds import OnChip, sizes

OS, WS, IS = (DATAFLOWS.index(f"{name}-systolic") for name in ("os", "ws", "is"))


def systolic(op: Operators, chip: Chiplets, smooth: bool = False) -> OnChip:
    """Cycles and traffic of operators on systolic arrays (elementwise): `os-systolic` where a chiplet is nothing else."""
    g, n, k, c, p, q, r, s, _, _, in_b, w_b, out_b, sum_b = sizes(op)
    apart = g * jnp.where(op.is_attention, n, 1.0)  # GEMMs that share no operand
    m, depth = g * n * p * q / apart, c * r * s
    w_b = jnp.where(op.is_attention, in_b, w_b)
    is_ws, is_is = chip.dataflow == WS, chip.dataflow == IS
    stationary_weights_or_inputs = is_ws | is_is
    along_rows = jnp.where(stationary_weights_or_inputs, depth, m)
    along_columns = jnp.where(is_is, m, k)
    streamed = jnp.where(is_ws, m, jnp.where(is_is, k, depth))
    down, across = ceil_divide(along_rows, chip.rows, smooth), ceil_divide(along_columns, chip.columns, smooth)
    folds = apart * down * across
    outputs = apart * m * k
    input_reads = apart * m * depth * jnp.where(is_is, 1.0, across)
    weight_reads = apart * k * depth * jnp.where(is_ws, 1.0, jnp.where(is_is, across, down))
    sums = jnp.where(stationary_weights_or_inputs, down, 1.0)  # times that an output is written
    summed_bytes = outputs * (2.0 * (sums - 1.0) * sum_b + out_b)
    # what stays is written to its store once and read from it once; what passes through a store at the edge, likewise
    weights_b, inputs_b = weight_reads * w_b, input_reads * in_b
    stored_bytes = jnp.where(is_ws, weights_b, inputs_b) + summed_bytes
    return OnChip(
        cycles=folds * streamed,
        fill_cycles=folds * (chip.rows * jnp.where(stationary_weights_or_inputs, 2.0, 1.0) + chip.columns - 2.0),
        buffer_bytes=inputs_b + weights_b + summed_bytes,
        local_bytes=2.0 * stored_bytes,
        input_reads=input_reads,
        weight_reads=weight_reads,
        output_writes=outputs * sums,
    )
