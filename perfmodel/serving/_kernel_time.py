"""Seconds of each kernel of a list on one device: a GPU by the kernel models of the cost floor, anything else by a roofline."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..cost import Precision, decode_attention_s, elementwise_s, gemm_s, moe_s, prefill_attention_s
from ..cost._device import Machine
from ..cost._formats import Formats
from ..cost.kernels._parts import chosen
from ._kernel_list import Attention, Collective, Gemm, Mixture, Vector

_NO_REUSE = 1e6  # other layers come between two uses of the same bytes
_GENERATED = "add"  # of measured kernels the one that a compiler's element-wise kernels resemble


class Library(NamedTuple):
    """How the software runs a model. Static: it decides which kernels there are.

    - `fused_gate`: gate and up are one product.  `generated`: element-wise kernels, norms and weight-only products are made by a
      compiler (torch.compile), which launches what the simplest kernel does.  `replicated_head`: every tensor rank has the head.
    - `fused_layers` (no GPU): a layer is launched once and its activations stay on chip if they fit; else every kernel is launched, and
      moves its activations.
    - `pim`: decode attention, and products of one row, are done by the processors of the memory tier that holds their operands.
    - `nccl`: collectives by NCCL alone, without the libraries' one-shot all-reduce.
    - `fused_conversion`: the kernel before a product of 8 bits hands its results over in 8 bits; else a pass of its own converts them, as
      in measured kernels.
    """

    fused_gate: bool = True
    generated: bool = False
    replicated_head: bool = False
    fused_layers: bool = True
    pim: bool = False
    nccl: bool = False
    fused_conversion: bool = True


LIBRARY = Library()


def kernel_seconds(machine: Machine, formats: Formats, library: Library, kernels: list[Any]) -> list[Any]:
    """Seconds of each of `kernels`, as if all operands lay in the device's main memory; elementwise."""
    if machine.gpu is None:
        return [_roofline_s(machine, formats, library, kernel) for kernel in kernels]
    gemms = [k for k in kernels if isinstance(k, Gemm)]
    times = iter(_gemms_s(machine, formats, library, gemms))
    vectors = [k for k in kernels if isinstance(k, Vector)]
    moved = iter(_vectors_s(machine, formats, library, vectors))
    found = []
    for kernel in kernels:
        if isinstance(kernel, Gemm):
            found.append(next(times))
        elif isinstance(kernel, Vector):
            found.append(next(moved))
        elif isinstance(kernel, Attention):
            found.append(_attention_s(machine, formats, kernel))
        elif isinstance(kernel, Mixture):
            found.append(_mixture_s(machine, formats, kernel))
        else:
            found.append(_collective_s(machine, formats, library, kernel))
    return found


def _stacked(values: list[Any]):
    return jnp.stack([jnp.asarray(value, float) for value in values], axis=-1)


def _of_each(gemms: list[Gemm], block: Any, head: Any):
    """A pytree of constants with an axis for the products: the blocks' or the head's."""
    return jax.tree.map(lambda b, h: _stacked([h if g.head else b for g in gemms]), block, head)


def _gemms_s(machine: Machine, formats: Formats, library: Library, gemms: list[Gemm]) -> list[Any]:
    """All products in one program: the axis is theirs. Products with weights of their own are one with all their columns."""
    if not gemms:
        return []
    gpu = _at_rate(machine, formats)
    m, n, k = (_stacked(list(x)) for x in zip(*[(g.m, g.n * g.groups, g.k) for g in gemms], strict=True))
    blocks, head = (formats.gemm, formats.constants), (formats.head, formats.head_constants)
    if library.fused_conversion:
        blocks, head = (_without_conversion(*each, formats.bare_cycles) for each in (blocks, head))
    kinds, constants = _of_each(gemms, blocks, head)

    def one(m, n, k, kind, of):
        return gemm_s(of, gpu, m, n, k, kind=kind)

    seconds = jax.vmap(one, -1)(m, n, k, kinds, constants)
    return [seconds[i] for i in range(len(gemms))]


def _without_conversion(kind: Precision, constants: Any, bare_cycles) -> tuple[Precision, Any]:
    """A product whose operands arrive in 8 bits: the pass is gone, and its part of what both take to launch."""
    launch = constants.launch_cycles
    bare = chosen(kind.quantises, jnp.minimum(launch, bare_cycles), launch)
    return kind._replace(quantises=False), eqx.tree_at(lambda of: of.launch_cycles, constants, bare)


def _at_rate(machine: Machine, formats: Formats) -> Any:
    """The GPU whose narrow products run at the formats' rate."""
    narrow = jnp.take(machine.peak_ops_per_s, jnp.maximum(jnp.asarray(formats.rate, int), 1))
    return eqx.tree_at(lambda gpu: gpu.peak_8bit_ops_per_s, machine.gpu, narrow)


def _vectors_s(machine: Machine, formats: Formats, library: Library, vectors: list[Vector]) -> list[Any]:
    if not vectors:
        return []
    gpu: Any = machine.gpu
    kernels: Any = machine.kernels
    of = [kernels["elementwise", _GENERATED if library.generated and v.kind != "emb" else v.kind] for v in vectors]
    constants = jax.tree.map(lambda *leaves: _stacked(list(leaves)), *of)
    rows, width = _stacked([v.rows for v in vectors]), _stacked([v.width * v.moves / 2.0 for v in vectors])

    def one(rows, width, of):  # what passes between kernels has 16 bits, whatever the products take
        return elementwise_s(of, gpu, rows, width, kind="gelu", element_bytes=2.0)

    seconds = jax.vmap(one, -1)(rows, width, constants)
    return [seconds[i] for i in range(len(vectors))]


def _attention_s(machine: Machine, formats: Formats, a: Attention):
    gpu: Any = machine.gpu
    size = (a.size + a.value) / 2.0
    each = formats.kv_bytes * a.cached_elements / (2.0 * a.kv_heads * size)
    if a.decode:
        return decode_attention_s(
            formats.decode,
            gpu,
            a.batch,
            a.kv_len,
            a.heads * a.q_len,
            a.kv_heads,
            size,
            kv_bytes=each,
            footprint=_NO_REUSE,
        )
    # a window narrower than the queries: pieces as long as the window, whose queries see a window of keys in the mean
    narrow = a.kv_len < a.q_len
    q_len = jnp.where(narrow, a.kv_len, a.q_len)
    keys = jnp.where(narrow, 1.5 * a.kv_len, a.kv_len)
    return prefill_attention_s(
        formats.prefill, gpu, a.batch * a.q_len / q_len, q_len, keys, a.heads, a.kv_heads, size, kv_bytes=formats.kv_bytes,
        eight_bit=formats.eight_bit_attention, footprint=_NO_REUSE,
    )  # fmt: skip


def _mixture_s(machine: Machine, formats: Formats, x: Mixture):
    gpu = _at_rate(machine, formats)
    return moe_s(
        formats.moe, gpu, x.tokens, x.width, x.hidden * 1.0, float(x.count), float(x.chosen), tensor_parallel=x.tensor,
        expert_parallel=x.expert, kind=formats.gemm,
    )  # fmt: skip


def _collective_s(machine: Machine, formats: Formats, library: Library, x: Collective):
    return machine.collective_s(x.kind, x.elements * 2.0, x.ranks, low_latency=not library.nccl)


def work(kernel: Any, formats: Formats):
    """(operations of the matrix units, bytes of weights, bytes of the cache, bytes of activations, vector operations) of a kernel."""
    form = formats
    if isinstance(kernel, Gemm):
        each = form.head_bytes if kernel.head else form.weight_bytes
        return 2.0 * kernel.macs, kernel.weight_elements * each, 0.0, kernel.moved_elements * form.activation_bytes, 0.0
    if isinstance(kernel, Mixture):
        moved = kernel.moved_elements * form.activation_bytes
        return 2.0 * kernel.macs, kernel.weight_elements * form.weight_bytes, 0.0, moved, 0.0
    if isinstance(kernel, Attention):
        cache = kernel.batch * kernel.past * kernel.cached_elements * form.kv_bytes  # read; the new tokens' is written
        cache = cache + kernel.batch * kernel.q_len * kernel.cached_elements * form.kv_bytes
        queries = kernel.batch * kernel.q_len * kernel.heads * (kernel.size + kernel.value) * form.activation_bytes
        return 2.0 * kernel.causal_macs, 0.0, cache, queries, kernel.lane_ops
    if isinstance(kernel, Vector):
        return 0.0, 0.0, 0.0, kernel.rows * kernel.width * kernel.moves * form.activation_bytes, kernel.lane_ops
    return 0.0, 0.0, 0.0, 0.0, 0.0


def peak_ops_per_s(machine: Machine, formats: Formats):
    """Of the matrix units at the formats' precision; the rate may be traced."""
    return jnp.take(machine.peak_ops_per_s, jnp.asarray(formats.rate, int))


def _roofline_s(machine: Machine, formats: Formats, library: Library, kernel: Any):
    if isinstance(kernel, Collective):
        return _collective_s(machine, formats, library, kernel)
    ops, weights, cache, moved, lanes = work(kernel, formats)
    rate = machine.tiers.bytes_per_s[machine.memory]
    on_chip = jnp.where(moved > machine.buffer_bytes, moved, 0.0) if library.fused_layers else moved
    bound = jnp.maximum(ops / peak_ops_per_s(machine, formats), (weights + cache + on_chip) / rate)
    bound = jnp.maximum(bound, lanes / machine.lane_ops_per_s)
    return bound if library.fused_layers else bound + machine.launch_s


def class_of(kernel: Any) -> str:
    """Which line of a report a kernel belongs to."""
    names = {Gemm: "gemm", Attention: "attention", Vector: "elementwise", Mixture: "experts", Collective: "collective"}
    return names[type(kernel)]
