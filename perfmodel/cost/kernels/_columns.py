"""Columns of the cost table that are GPUs: every operator is one kernel of a library, timed by the kernel models.

- Matrix rows are GEMMs: a convolution M = batch p q, N = k, K = c r s (implicit: DRAM gives a window's pixels once, L2 for every
  tile); groups, and the GEMMs of attention, run as one batched GEMM. `G` equal products on a GPU take what one takes on a
  G-th of it: of its multiprocessors, bandwidths, L2 and power.
- Operands of at most 8 bits take the 8-bit kernels, which convert 16-bit activations in a pass of their own; results have 16 bits.
  Attention always runs in 16 bits, as libraries do that run the layers around it in 8.
- Vector rows move data: `layer_norm`, `softmax`, `embedding` row by row, the others as flat arrays, in 16 bits. Nothing is fused
  in the table: batch norm, ReLU and additions after a convolution are kernels of their own, and attention writes its scores out,
  as an eager framework runs it. What a schedule's fusion takes away again are `launch_s` of every kernel and `moving_s`, all the
  rest of a vector kernel; what a GEMM itself moves stays.
- Depthwise convolutions have libraries' special kernels: here they are (too slow) batched GEMMs.
- Weights come from DRAM; what the kernel before wrote comes from L2 where it fits. Launch and DRAM time are inside the seconds.

Peak, clock, multiprocessors, L2 and DRAM bandwidth are those of the system's chiplet and memory, so that their gradients are these
kernels'; ceilings over multiprocessors stay exact in the smooth model too.
"""

from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._names import unknown_name
from ...hardware import DATAFLOWS, Chiplets, Gpu, MemoryTiers
from ...workload import KINDS, Operators
from .._bounds import sizes
from .._columns import CostTable
from ._constants import SHIPPED, constants, read_entries
from ._elementwise import ElementwiseParameters, elementwise_s
from ._gemm import GemmParameters, gemm_s
from ._parts import l2_hit, precision

GPU = DATAFLOWS.index("gpu")

# Kernel -> what calibrations call it, and the kinds of operators that it stands for.
_KERNELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "layernorm": (("layernorm", "input_layernorm"), ("layer_norm", "rms_norm", "group_norm")),
    "softmax": (("softmax",), ("softmax",)),
    "embedding": (("emb",), ("embedding", "gather")),
    "add": (("add",), ("add", "mul")),
    "gelu": (
        ("gelu", "mlp_act"),
        ("gelu", "relu", "batch_norm", "max_pool", "avg_pool", "elementwise"),
    ),  # and all the rest
}
_BY_ROW = 3  # the first ones: a row of the kernel is a row of `k` outputs; the others are flat
_KERNEL = np.asarray(
    [next((i for i, (_, kinds) in enumerate(_KERNELS.values()) if kind in kinds), len(_KERNELS) - 1) for kind in KINDS]
)
_FLAT_ROW = 1024.0  # elements of a flat array that one block takes
_INT8_ONLY = ("A100", "A40", "MI210")  # no 8-bit floating point: int8, "sq"
_FAR_BYTES = 1e15
_QUANTISED_BYTES = 3.0  # moved for each activation that `gemm_s` converts: 16 bits read, 8 written

_L2_TILE, _WARP_TILE = 128.0, 64.0  # usual tiles, for energies: of a block in shared memory, of a warp in registers
_8BIT_MAC = 0.5  # energy of an 8-bit MAC relative to a 16-bit one, as `slowdown_at_power_limit` has it


class GpuKernels(eqx.Module):
    """Constants of the kernels of `K` chiplet types, leaves `[K]` (`elementwise`: `[K, 5]`). `sources` (static): the library
    whose measurements each type's are fitted to, "" for the shipped ones."""

    gemm_16bit: GemmParameters
    gemm_8bit: GemmParameters
    elementwise: ElementwiseParameters
    sources: tuple[str, ...] = eqx.field(static=True)


def gpu_kernels(names: tuple[str, ...], path: str | Path | None = None, source: str | None = None) -> GpuKernels:
    """Constants for chiplet types that are the GPUs `names` ("" for another type).

    **Arguments:** `path`: a parameter file of `perfmodel calibrate gpu-kernels`; None: the shipped constants.
    `source`: which library's, where the file has several; None: the first with a GEMM of that GPU, else its first.

    Raises ValueError in one line for a file that cannot be used, without one of the GPUs, or without the source.
    """
    if path is None:
        return _shipped_kernels(tuple(names), str(jnp.result_type(float)))
    return _kernels(names, path, source)


@lru_cache(maxsize=64)
def _shipped_kernels(names: tuple[str, ...], _dtype: str) -> GpuKernels:
    return _kernels(names, None, None)


def _kernels(names, path, source) -> GpuKernels:
    entries = [] if path is None else read_entries(path)
    with jax.ensure_compile_time_eval():  # may be called while a function is traced, and is cached
        look_up = constants(path)
        chosen = [_source(path, entries, name, source) if path and name else "" for name in names]
        found = [_of_type(look_up, entries, *pair) for pair in zip(names, chosen, strict=True)]
        gemm16, gemm8, vector = (jax.tree.map(lambda *x: np.stack(x), *kind) for kind in zip(*found, strict=True))
    return GpuKernels(gemm16, gemm8, vector, tuple(chosen))


def _source(path, entries, name: str, wanted: str | None) -> str:
    """The source to take of those that the file has for a GPU."""
    mine = [e for e in entries if e.gpu == name]
    if not mine:
        has = ", ".join(sorted({e.gpu for e in entries} - {"any"})) or "none"
        raise ValueError(f"{path}: no constants of gpu {name!r}; the file has: {has}")
    there = dict.fromkeys(e.source for e in sorted(mine, key=lambda e: e.family != "gemm"))
    if wanted is not None and wanted not in there:
        raise unknown_name(f"{path}: source for gpu {name}", wanted, there)
    return wanted or next(iter(there))


def _of_type(look_up, entries, name: str, source: str) -> tuple[Any, Any, Any]:
    shared = [e for e in read_entries(SHIPPED) if e.gpu == "any"] if SHIPPED.exists() else []
    own = [e for e in entries if (e.gpu, e.source) == (name, source)]
    fitted, known = ({(e.family, e.variant) for e in some} for some in (own, shared))

    def best(family: str, variants: tuple[str, ...]):
        """Of the first variant that is fitted, else of the first that is shipped, else of the first."""
        found = [v for there in (fitted, known) for v in variants if (family, v) in there]
        return look_up(name, source, family, (found or variants)[0])

    eight = ("sq", "fp8") if name.startswith(_INT8_ONLY) else ("fp8", "sq")
    vector = [best("elementwise", variants) for variants, _ in _KERNELS.values()]
    return best("gemm", ("bf16",)), best("gemm", eight), jax.tree.map(lambda *x: np.stack(x), *vector)


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
    return _Products(groups, m, n, k, jnp.minimum(op.in_elements / groups, m * k))


def kernel_s(op: Operators, gpu: Gpu, kernels: GpuKernels) -> Float[Array, ""]:
    """Seconds of one operator (fields are scalars) on one GPU; `kernels` of one type."""
    size = _products(op)
    gemm = partial(_batched_gemm_s, gpu, size, op.is_attention)
    matrix = jnp.where(_eight_bit(op), gemm("fp8", kernels.gemm_8bit), gemm("bf16", kernels.gemm_16bit))
    return jnp.where(op.is_matrix > 0, matrix, _vector_s(op, gpu, kernels.elementwise))


def launch_s(op: Operators, gpu: Gpu, kernels: GpuKernels) -> Float[Array, ""]:
    """Of `kernel_s`, what launching takes: once a kernel, whatever it moves."""
    of_gemm = jnp.where(_eight_bit(op), kernels.gemm_8bit.launch_cycles, kernels.gemm_16bit.launch_cycles)
    streamed = jnp.where(_eight_bit(op), kernels.gemm_8bit.gemv_share, kernels.gemm_16bit.gemv_share)
    of_gemm = of_gemm * jnp.where(_products(op).m == 1, jnp.minimum(streamed, 1.0), 1.0)
    of_vector = jnp.asarray(kernels.elementwise.launch_cycles)[jnp.asarray(_KERNEL)[op.kind]]
    return jnp.where(op.is_matrix > 0, of_gemm, of_vector) / gpu.clock_hz


def _eight_bit(op: Operators):
    return (jnp.asarray(op.in_bits) <= 8) & jnp.logical_not(op.is_attention)


def _batched_gemm_s(gpu: Gpu, size: _Products, attention, kind: str, constants: GemmParameters) -> Float[Array, ""]:
    form = precision(kind)
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
    seconds = gemm_s(constants, part, size.m, size.n, size.k, kind=kind, footprint_bytes=between)
    if form.quantises:  # pixels too are converted once
        once = size.fresh * more - size.m * size.k
        seconds = seconds + once * _QUANTISED_BYTES / (constants.dram_efficiency * part.dram_bytes_per_s)
    return seconds


def _vector_s(op: Operators, gpu: Gpu, constants: ElementwiseParameters) -> Float[Array, ""]:
    which = jnp.asarray(_KERNEL)[op.kind]
    mine = jax.tree.map(lambda x: jnp.asarray(x)[which], constants)
    in_bits, out_bits = jnp.maximum(op.in_bits, 16), jnp.maximum(op.out_bits, 16)
    # relative to one element read and one written, both as wide as the result
    moves = (op.in_elements * in_bits / out_bits + op.out_elements) / (2.0 * op.out_elements)
    width = jnp.where(which < _BY_ROW, jnp.asarray(op.k) * 1.0, _FLAT_ROW)
    element_bytes = out_bits / 8
    # "gelu": reads one element, writes one
    return elementwise_s(mine, gpu, op.out_elements / width, width * moves, kind="gelu", element_bytes=element_bytes)


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
    moved = jnp.where(matrix, tiles, op.in_elements * in_b + op.weight_elements * w_b) + op.out_elements * out_b
    local = jnp.where(matrix, tiles + op.macs * (in_b + w_b) / _WARP_TILE, 0.0)
    mac = chip.mac_j * jnp.where(_eight_bit(op), _8BIT_MAC, 1.0)
    return op.macs * mac + op.lane_ops * chip.lane_op_j + local * chip.local_j_per_byte + moved * chip.buffer_j_per_byte


def with_gpu_columns(
    table: CostTable, operators: Operators, chiplets: Chiplets, gpus: Gpu, kernels: GpuKernels, memory: MemoryTiers
) -> CostTable:
    """The table with the columns of dataflow `gpu` replaced: times and on-chip energy by the kernels, the rest as it was.

    `operators` for the whole sub-batch; `gpus` and `kernels`: one row a column.
    """
    rows, chips = jax.tree.map(jnp.asarray, operators), jax.tree.map(jnp.asarray, chiplets)
    machines = jax.vmap(as_gpu, (0, 0, None))(gpus, chips, memory)
    seconds = jax.vmap(jax.vmap(kernel_s, (None, 0, 0)), (0, None, None))(rows, machines, kernels)
    launch = jax.vmap(jax.vmap(launch_s, (None, 0, 0)), (0, None, None))(rows, machines, kernels)
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
