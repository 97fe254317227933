"""One pass of a micro-batch through a language model on one tensor rank: its kernels, their seconds, and what they move."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from .._numerics import safe_divide
from ..cost._device import Machine
from ..cost._formats import Formats
from ..models.zoo._records import Transformer
from ._kernel_list import Attention, Collective, Gemm, Slice, ends, kinds, layer
from ._kernel_time import Library, class_of, kernel_seconds, peak_ops_per_s, work
from ._residency import Residency

CLASSES = ("gemm", "experts", "attention", "elementwise", "collective", "memory", "host")


class Pass(NamedTuple):
    """Seconds of all layers, of the ends, and by `CLASSES` but the last; operations; bytes of weights, cache and activations; vector
    operations; bytes over links."""

    layers_s: Any
    ends_s: Any
    busy_s: Any
    ops: Any
    weights: Any
    cache: Any
    moved: Any
    lanes: Any
    linked: Any


def pass_of(machine: Machine, spec: Transformer, formats: Formats, library: Library, place: Residency, density: float, at: Slice,
            decode: bool, prompts: Slice | None = None, *, kv_tier: int | None = None) -> Pass:  # fmt: skip
    """A pass of a micro-batch through all layers; `prompts`: whose tokens pass beside those of `at` (both share the products)."""
    rows = at if prompts is None else at._replace(batch=at.batch + prompts.batch * prompts.tokens)
    options = dict(fused_gate=library.fused_gate, density=density, absorb=decode, decode=decode)
    pim_tier = machine.memory if kv_tier is None else kv_tier
    listed: list[tuple[Any, float]] = []
    for count, window, experts in kinds(spec):
        found = layer(spec, rows, window=window, experts=experts, **options)
        if prompts is not None:
            apart = [
                kernel
                for slice_, decodes in ((at, True), (prompts, False))
                for kernel in layer(spec, slice_, window=window, experts=experts, **options | {"decode": decodes})
                if isinstance(kernel, Attention)
            ]
            found = [k for k in found if not isinstance(k, Attention)] + apart
        listed += [(kernel, float(count)) for kernel in found]
    last = at if prompts is None else at._replace(batch=at.batch + prompts.batch)
    if decode and prompts is None:  # every token that passes is judged
        last = last._replace(batch=at.batch * at.tokens, tokens=1.0)
    outer = ends(spec, last, replicated_head=library.replicated_head)
    every = [kernel for kernel, _ in listed] + outer
    counts = [count for _, count in listed] + [1.0] * len(outer)
    seconds = kernel_seconds(machine, formats, library, every)
    base = machine.tiers.bytes_per_s[machine.memory]
    busy: dict[str, Any] = dict.fromkeys(CLASSES[:-1], 0.0)
    inside: Any = 0.0
    outside: Any = 0.0
    sums: list[Any] = [0.0] * 5
    linked: Any = 0.0
    for i, (kernel, count, taken) in enumerate(zip(every, counts, seconds, strict=True)):
        does = work(kernel, formats)
        sums = [total + count * x for total, x in zip(sums, does, strict=True)]
        linked = linked + (
            count * kernel.elements * 2.0 * jnp.where(kernel.ranks > 1, 1.0, 0.0)
            if isinstance(kernel, Collective)
            else 0.0
        )
        if library.pim:
            taken = jnp.minimum(taken, _in_memory_s(machine, kernel, does[0], pim_tier))
        away = does[1] * (place.weight_s_per_byte - 1.0 / base) + does[2] * (place.kv_s_per_byte - 1.0 / base)
        if machine.gpu is None:  # faster tiers than main memory shorten what they hold
            taken, away = taken + away, 0.0
            floor = does[0] / peak_ops_per_s(machine, formats)
            taken = jnp.maximum(taken, floor)
        else:
            away = jnp.maximum(away, 0.0)
        busy[class_of(kernel)] += count * taken
        busy["memory"] += count * away
        if i < len(listed):
            inside = inside + count * (taken + away)
        else:
            outside = outside + taken + away
    if machine.gpu is None and library.fused_layers:
        inside = inside + spec.layers * machine.launch_s
        outside = outside + 2 * machine.launch_s
    times = jnp.stack([jnp.asarray(busy[name] + 0.0 * (inside + outside)) for name in CLASSES[:-1]], axis=-1)
    return Pass(inside, outside, times, *sums, linked)


def _in_memory_s(machine: Machine, kernel: Any, ops, tier: int):
    """Of decode attention, and of a product of one row, by processors at the memory: their operations/s; what they read from the arrays
    beside them is an element an operation pair, so the arrays' bandwidth is that of their operations."""
    rate = machine.tiers.ops_per_s[machine.memory if isinstance(kernel, Gemm) else tier]
    seconds = safe_divide(ops, rate, jnp.inf)
    if isinstance(kernel, Attention) and kernel.decode:
        return seconds
    return jnp.where(kernel.m <= 1, seconds, jnp.inf) if isinstance(kernel, Gemm) else jnp.inf
