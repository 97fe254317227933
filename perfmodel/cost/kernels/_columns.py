"""Columns of the cost table that are GPUs: every operator is one kernel of a library, timed by the kernel models.

- Matrix rows are GEMMs: a convolution M = batch p q, N = k, K = c r s (implicit: DRAM gives a window's pixels once, L2 for every
  tile); groups, and the GEMMs of attention, run as one batched GEMM. `G` equal products on a GPU take what one takes on a
  G-th of it: of its multiprocessors, bandwidths, L2 and power.
- Activations of at most 8 bits take the 8-bit kernels, which convert 16-bit ones in a pass of their own unless the machine's software does
  that in the kernel before; results have 16 bits. Narrower weights beside 16-bit activations take weight-only kernels.
- Vector rows move data, in 16 bits: norms, `softmax`, `embedding` and activations of tokens row by row, the others as flat arrays.
- Rows are launched as they stand. Of a plain graph: batch norm, ReLU and additions after a convolution are kernels of their own, and
  attention writes its scores out (in 16 bits), as an eager framework runs it. `workload.lower` makes rows of what libraries launch:
  `attention` is one kernel of decode or of prefill, `experts` a layer of grouped products, a norm adds the residual. What a schedule's
  fusion takes away besides are `launch_s` of every kernel and `moving_s`, all the rest of a vector kernel; what a GEMM itself moves stays.
- Depthwise convolutions have libraries' special kernels: here they are (too slow) batched GEMMs.
- Weights come from DRAM; what the kernel before wrote comes from L2 where it fits. Launch and DRAM time are inside the seconds.

Peak, clock, multiprocessors, L2 and DRAM bandwidth are those of the system's chiplet and memory, so that their gradients are these
kernels'; ceilings over multiprocessors stay exact in the smooth model too.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._software import NONE, Software
from ...hardware import DATAFLOWS, Chiplets, Gpu, MemoryTiers
from ...workload import KINDS, Operators
from .._bounds import sizes
from .._columns import CostTable
from .._fused import ANY, Fused, experts_held
from ._elementwise import elementwise_s
from ._fused import attention_launch_s, attention_s, experts_launch_s, experts_s, only
from ._gemm import GemmParameters, gemm_s
from ._kernel_set import (
    ADD,
    ELEMENTWISE,
    EMBEDDING,
    GEMM_8,
    GEMM_16,
    GEMM_INT4_WEIGHTS,
    GEMM_INT8_WEIGHTS,
    GpuKernels,
)
from ._parts import Precision, chosen, l2_hit

GPU = DATAFLOWS.index("gpu")

_KERNEL = np.asarray(
    [
        next((i for i, (_, kinds) in enumerate(ELEMENTWISE.values()) if kind in kinds), len(ELEMENTWISE) - 1)
        for kind in KINDS
    ]
)
_BY_ROW = 3  # the first ones: a row of the kernel is a row of `k` outputs; the others are flat
_ACTIVATION = np.asarray([kind in ("silu", "gelu", "relu", "sigmoid", "tanh") for kind in KINDS])
_FLAT_ROW = 1024.0  # elements of a flat array that one block takes
_FAR_BYTES = 1e15
_QUANTISED_BYTES = 3.0  # moved for each activation that `gemm_s` converts: 16 bits read, 8 written
_8BITS, _4BITS = 8.25, 4.5  # widest formats that count as such, scales included
_INT8_WEIGHTS = 6.5

_L2_TILE, _WARP_TILE = 128.0, 64.0  # usual tiles, for energies: of a block in shared memory, of a warp in registers
_8BIT_MAC = 0.5  # energy of an 8-bit MAC relative to a 16-bit one, as `slowdown_at_power_limit` has it


def as_gpu(gpu: Gpu, chip: Chiplets, memory: MemoryTiers) -> Gpu:
    """The GPU with everything that chiplet and memory say of it; elementwise over chiplets."""
    peak = 2.0 * chip.rows * chip.columns * chip.clock_hz
    return eqx.tree_at(
        lambda g: (g.peak_16bit_ops_per_s, g.peak_8bit_ops_per_s, g.dram_bytes_per_s, g.l2_bytes, g.l2_bytes_per_cycle,
                   g.multiprocessors, g.clock_hz),
        gpu,
        (peak, peak * gpu.peak_8bit_ops_per_s / gpu.peak_16bit_ops_per_s, jnp.asarray(memory.bytes_per_s * memory.share)[0],
         chip.buffer_bytes,
         chip.buffer_bytes_per_s / chip.clock_hz, chip.rows, chip.clock_hz),
    )  # fmt: skip


class _Products(NamedTuple):
    """`groups` products of `m` x `k` by `k` x `n`; `fresh`: elements of the first operand of one before windows repeat them."""

    groups: Float[Array, "..."]
    m: Float[Array, "..."]
    n: Float[Array, "..."]
    k: Float[Array, "..."]
    fresh: Float[Array, "..."]


def _products(op: Operators) -> _Products:
    g, batch, n, c, p, q, r, s, *_ = sizes(op)
    groups, m, k = jnp.where(op.is_attention, g * batch, g), jnp.where(op.is_attention, 1.0, batch) * p * q, c * r * s
    return _Products(groups, m, n, k, jnp.minimum(jnp.maximum(op.in_elements / groups, 1.0), m * k))


def kernel_s(op: Operators, gpu: Gpu, kernels: GpuKernels, software: Software = NONE) -> Float[Array, ""]:
    """Seconds of one operator (fields are scalars), of a kind of its own, on one GPU; `kernels` of one type. `software`: of the machine
    (static)."""
    form, constants = _product(op, kernels, software)
    matrix = _batched_gemm_s(_at_rate(op, gpu, kernels), _products(op), op.is_attention, form, constants)
    return jnp.where(op.is_matrix > 0, matrix, _vector_s(op, gpu, kernels, software))


def _mixture_s(op: Operators, gpu: Gpu, kernels: GpuKernels) -> Float[Array, ""]:
    """Of a row of kind `experts`, which converts what it reads itself."""
    form, _ = _product(op, kernels, NONE)
    return experts_s(op, _at_rate(op, gpu, kernels), kernels, form)


def launch_s(op: Operators, gpu: Gpu, kernels: GpuKernels, software: Software = NONE) -> Float[Array, ""]:
    """Of `kernel_s`, what launching takes: once a kernel, whatever it moves."""
    _, constants = _product(op, kernels, software)
    of_gemm = constants.launch_cycles * jnp.where(_products(op).m == 1, jnp.minimum(constants.gemv_share, 1.0), 1.0)
    of_vector = jnp.asarray(kernels.elementwise.launch_cycles)[_vector_kernel(op, software)]
    plain = jnp.where(op.is_matrix > 0, of_gemm, of_vector) / gpu.clock_hz
    whole = jnp.where(op.is_fused_attention, attention_launch_s(only(op, op.is_fused_attention), gpu, kernels), plain)
    return jnp.where(op.is_experts, experts_launch_s(only(op, op.is_experts), gpu, kernels), whole)


def _eight_bit(op: Operators):
    return (jnp.asarray(op.in_bits) <= _8BITS) & jnp.logical_not(op.is_attention | op.is_fused_attention)


def _at_rate(op: Operators, gpu: Gpu, kernels: GpuKernels) -> Gpu:
    """The GPU whose narrow products run at the rate of the operands."""
    faster = jnp.where(jnp.asarray(op.in_bits) <= _4BITS, kernels.four_bit_rate, 1.0)
    return eqx.tree_at(lambda g: g.peak_8bit_ops_per_s, gpu, gpu.peak_8bit_ops_per_s * faster)


def _product(op: Operators, kernels: GpuKernels, software: Software) -> tuple[Precision, GemmParameters]:
    """How the product of a row runs, and with whose constants: 8-bit activations take 8-bit kernels, narrower weights beside 16-bit ones
    weight-only kernels. Software that converts in the kernel before has no pass for it, nor what that takes to launch: measured 8-bit
    kernels hold both, and a fit cannot tell their launches apart."""
    eight, weight = _eight_bit(op), jnp.asarray(op.weight_bits)
    attention = op.is_attention
    alone = jnp.logical_not(eight | attention) & (weight < 16)
    by_weight = jnp.where(weight >= _INT8_WEIGHTS, GEMM_INT8_WEIGHTS, GEMM_INT4_WEIGHTS)
    which = jnp.where(eight, GEMM_8, jnp.where(alone & (not software.generated), by_weight, GEMM_16))
    constants = jax.tree.map(lambda x: jnp.asarray(x)[which], kernels.gemm)
    if software.conversion:
        launch = constants.launch_cycles
        bare = jnp.where(eight, jnp.minimum(launch, jnp.asarray(kernels.gemm.launch_cycles)[GEMM_16]), launch)
        constants = eqx.tree_at(lambda c: c.launch_cycles, constants, bare)
    form = Precision(
        weight_bytes=jnp.where(attention, 2.0, weight / 8),  # type: ignore[arg-type]
        activation_bytes=jnp.where(eight, jnp.asarray(op.in_bits) / 8, 2.0),  # type: ignore[arg-type]
        eight_bit=eight,  # type: ignore[arg-type]
        quantises=False if software.conversion else eight,  # type: ignore[arg-type]
        dequantises=alone,  # type: ignore[arg-type]
    )
    return form, constants


def _batched_gemm_s(
    gpu: Gpu, size: _Products, attention, form: Precision, constants: GemmParameters
) -> Float[Array, ""]:
    weights, outputs = size.n * size.k * form.weight_bytes, size.m * size.n * 2.0
    inputs, fresh = size.m * size.k * form.activation_bytes, size.fresh * form.activation_bytes
    # a millionth: tiles that fill whole waves must not start another one by rounding
    share = jnp.where(size.groups > 1, (1 + 1e-6) / size.groups, 1.0)
    part = jax.tree.map(lambda x: x * share, gpu)
    # windows: L2 holds pixels, not their copies, and DRAM gives each once
    repeated = inputs / fresh
    missed = 1 - l2_hit(2 * fresh, constants.l2_share * part.l2_bytes)
    more = (weights + inputs * missed + outputs) / (weights + fresh * missed + outputs)
    part = eqx.tree_at(
        lambda g: (g.clock_hz, g.shared_memory_bytes, g.tensor_copies, g.energy_scale, g.l2_bytes, g.dram_bytes_per_s),
        part,
        (gpu.clock_hz, gpu.shared_memory_bytes, gpu.tensor_copies, gpu.energy_scale, part.l2_bytes * repeated,
         part.dram_bytes_per_s * more),
    )  # fmt: skip
    between = jnp.where(attention, weights, _FAR_BYTES)  # the second operand of attention has just been written
    seconds = gemm_s(constants, part, size.m, size.n, size.k, kind=form, footprint_bytes=between)
    if form.quantises is not False:  # pixels too are converted once
        once = (
            (size.fresh * more - size.m * size.k)
            * _QUANTISED_BYTES
            / (constants.dram_efficiency * part.dram_bytes_per_s)
        )
        seconds = seconds + chosen(form.quantises, once, 0.0)
    return seconds


def _vector_kernel(op: Operators, software: Software):
    """Whose constants a vector row takes. A compiler's kernels are all like the simplest one, but for look-ups."""
    which = jnp.asarray(_KERNEL)[op.kind]
    return jnp.where(which == EMBEDDING, which, ADD) if software.generated else which


def _vector_s(op: Operators, gpu: Gpu, kernels: GpuKernels, software: Software) -> Float[Array, ""]:
    of = _vector_kernel(op, software)
    mine = jax.tree.map(lambda x: jnp.asarray(x)[of], kernels.elementwise)
    in_bits, out_bits = jnp.maximum(op.in_bits, 16), jnp.maximum(op.out_bits, 16)
    moved = op.in_elements * in_bits / out_bits + op.out_elements  # in elements as wide as the result
    # activations of tokens: a row each, as the measured ones; of images a flat array
    by_row = (jnp.asarray(_KERNEL)[op.kind] < _BY_ROW) | (jnp.asarray(_ACTIVATION)[op.kind] & (jnp.asarray(op.q) == 1))
    tokens = 1.0 * jnp.asarray(op.groups) * op.batch * op.p * op.q
    rows = jnp.where(by_row, tokens, jnp.maximum(op.out_elements, 1.0) / _FLAT_ROW)  # rows of nothing fill programs up
    # "gelu": reads one element, writes one
    return elementwise_s(mine, gpu, rows, moved / (2.0 * rows), kind="gelu", element_bytes=out_bits / 8)


def onchip_j(op: Operators, chip: Chiplets) -> Float[Array, "..."]:
    """Energy on a GPU, elementwise: MACs and lanes; L2 once for each tile of 128 x 128 results; shared memory written once for
    each such tile and read once for each tile of 64 x 64."""
    g = _products(op)
    *_, in_b, w_b, out_b, _ = sizes(op)
    w_b = jnp.where(op.is_attention, in_b, w_b)
    matrix = op.is_matrix > 0
    tiles = (
        g.groups * g.m * g.k * jnp.ceil(g.n / _L2_TILE) * in_b + g.groups * g.n * g.k * jnp.ceil(g.m / _L2_TILE) * w_b
    )
    # one kernel: keys and values pass once for each tile of queries, scores never leave; weights of experts once for each of their tiles
    heads, queries = jnp.asarray(op.groups, float) * op.batch, jnp.asarray(op.p, float) * op.q
    cached = heads * jnp.asarray(op.k, float) * op.c * w_b
    attention = jnp.maximum(op.in_elements * in_b, 0.0) + cached * (jnp.ceil(queries / _L2_TILE) - 1.0)
    tiles = jnp.where(op.is_fused_attention, attention, tiles)
    each = jnp.asarray(op.p, float) / experts_held(op)
    experts = (
        op.weight_elements * w_b * jnp.ceil(each / _L2_TILE) + 2.0 * op.p * (jnp.asarray(op.c, float) + op.k) * in_b
    )
    tiles = jnp.where(op.is_experts, experts, tiles)
    moved = jnp.where(matrix, tiles, op.in_elements * in_b + op.weight_elements * w_b) + op.out_elements * out_b
    local = jnp.where(matrix, tiles + op.macs * (in_b + w_b) / _WARP_TILE, 0.0)
    mac = chip.mac_j * jnp.where(_eight_bit(op), _8BIT_MAC, 1.0)
    return op.macs * mac + op.lane_ops * chip.lane_op_j + local * chip.local_j_per_byte + moved * chip.buffer_j_per_byte


def with_gpu_columns(
    table: CostTable, operators: Operators, chiplets: Chiplets, gpus: Gpu, kernels: GpuKernels, memory: MemoryTiers,
    software: Software = NONE, fused: Fused = ANY,
) -> CostTable:  # fmt: skip
    """The table with the columns of dataflow `gpu` replaced: times and on-chip energy by the kernels, the rest as it was.

    `operators` for the whole sub-batch; `gpus` and `kernels`: one row a column. `software`, `fused`: static.
    """
    rows, chips = jax.tree.map(jnp.asarray, operators), jax.tree.map(jnp.asarray, chiplets)
    machines = jax.vmap(as_gpu, (0, 0, None))(gpus, chips, memory)

    def of_each(function: Any, some: Operators = rows):
        return jax.vmap(jax.vmap(function, (None, 0, 0)), (0, None, None))(some, machines, kernels)

    def of_all(function: Any, those):
        return lambda: of_each(function, only(rows, those))

    seconds = of_each(lambda op, gpu, known: kernel_s(op, gpu, known, software))
    for there, those, function in (
        (fused.attention, rows.is_fused_attention, attention_s), (fused.experts, rows.is_experts, _mixture_s),
    ):  # fmt: skip
        if there:  # and not worked out where no row is of the kind after all
            found = jax.lax.cond(
                jnp.any(those),
                of_all(function, those),
                lambda: jnp.zeros(table.compute_s.shape, jnp.result_type(float)),
            )
            seconds = jnp.where(those[:, None], found, seconds)
    launch = of_each(lambda op, gpu, known: launch_s(op, gpu, known, software))
    moving = jnp.where(rows.is_matrix[:, None] > 0, 0.0, seconds - launch)
    joules = onchip_j(jax.tree.map(lambda x: x[:, None], rows), jax.tree.map(lambda x: x[None, :], chips))
    is_gpu = (chips.dataflow == GPU)[None, :]
    return eqx.tree_at(
        lambda t: (t.compute_s, t.transfer_s, t.fill_s, t.launch_s, t.moving_s, t.onchip_j),
        table,
        (
            jnp.where(is_gpu, seconds, table.compute_s),
            jnp.where(is_gpu, 0.0, table.transfer_s),
            jnp.where(is_gpu, 0.0, table.fill_s),
            jnp.where(is_gpu, launch, table.launch_s),
            jnp.where(is_gpu, moving, table.moving_s),
            jnp.where(is_gpu, joules, table.onchip_j),
        ),
    )
