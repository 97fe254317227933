"""A language model in service at one point of operation: times, rates, bytes, energy. Elementwise: jit, vmap and grad work on it."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from .._names import unknown_name
from .._numerics import ceil_through, safe_divide
from ._decoders import Decoder
from ._formats import Formats
from ._kernel_list import Attention, Collective, Gemm, Slice, ends, kinds, layer
from ._kernel_time import LIBRARY, Library, class_of, kernel_seconds, peak_ops_per_s, work
from ._machine import Machine
from ._residency import residency
from ._storage import (
    activation_bytes,
    cached_tokens,
    device_kv_share,
    device_weight_bytes,
    kv_bytes_per_token,
    weight_bytes,
)

PHASES = ("prefill", "decode", "mixed")
CLASSES = ("gemm", "experts", "attention", "elementwise", "collective", "memory", "host")


class Point(NamedTuple):
    """A point of operation; every field may be traced.

    - `batch`: sequences in all.  `context`: tokens in the cache of each, in decode those before the new one (mean over the batch).
    - `tokens`: new tokens of each in prefill: the prompt; in decode 1, or those that a pass verifies (speculative decoding).
      `chunk`: of which so many pass at a time, 0: all.
    - `new_tokens` (mixed): answers are so long; prompts of `tokens` come as answers end.
    - `tensor, pipeline, expert, data`: degrees of parallelism; devices are tensor x pipeline x data, experts are dealt to `expert` of
      them (more than `tensor`: replicas of the attention share them).
    - `step_s`: host time of a pass that the device waits for.  `request_s`: of a request before and behind its prefill.
    """

    batch: Any = 1.0
    context: Any = 0.0
    tokens: Any = 1.0
    chunk: Any = 0.0
    new_tokens: Any = 1.0
    tensor: Any = 1.0
    pipeline: Any = 1.0
    expert: Any = 1.0
    data: Any = 1.0
    step_s: Any = 0.0
    request_s: Any = 0.0


POINT = Point()


class Serving(NamedTuple):
    """Figures of a point. Bytes are of all devices unless `device_` stands before them (of the device that holds most).

    - `ttft_s`: of a prefill, all sequences of the batch; in mixed from admission to the first token.  `tpot_s`: between two tokens of a
      sequence.  The one that the phase does not have is NaN.
    - `tokens_per_s`: new tokens of all sequences (prefill: of prompts); `tokens_per_s_per_user`, `tokens_per_s_per_device`.
    - `mbu`: bytes of weights and cache that are read / time / bandwidth of where they lie.  `mfu`: useful operations / time /
      peak at the formats' precision.
    - `weight_bytes`, `kv_cache_bytes` (batch x context), `kv_bytes_per_token`; `device_weight_bytes, device_kv_bytes,
      device_activation_bytes`; `short_bytes`: what a device has no room for; `fits`: 1 or 0; `largest_batch` at this context.
    - `energy_j_per_token`, `power_w` (of all devices).  `busy_s [7]`: time of a pass by `CLASSES`.
    """

    ttft_s: Any
    tpot_s: Any
    tokens_per_s: Any
    tokens_per_s_per_user: Any
    tokens_per_s_per_device: Any
    mbu: Any
    mfu: Any
    weight_bytes: Any
    kv_cache_bytes: Any
    kv_bytes_per_token: Any
    device_weight_bytes: Any
    device_kv_bytes: Any
    device_activation_bytes: Any
    short_bytes: Any
    fits: Any
    largest_batch: Any
    energy_j_per_token: Any
    power_w: Any
    busy_s: Any


class _Pass(NamedTuple):
    """Of one micro-batch on one tensor rank: seconds of all layers and of the ends, and their work."""

    layers_s: Any
    ends_s: Any
    busy_s: Any
    ops: Any
    weights: Any
    cache: Any
    moved: Any
    lanes: Any
    linked: Any


def serve(
    machine: Machine,
    model: Decoder,
    formats: Formats,
    point: Point,
    *,
    phase: str = "decode",
    density: float = 1.0,
    library: Library = LIBRARY,
    offload: bool = False,
    kv_tier: int | None = None,
    block_tokens: float = 0.0,
) -> Serving:
    """Figures of a phase: `prefill`, `decode`, or `mixed`, continuous batching in a steady state (every pass carries one token of each
    of `batch` answers and as many prompt tokens as answers end).

    **Arguments:** `formats`, `density`: of `formats(machine, ...)`.  `library`: static.  `offload`, `kv_tier`: see `residency`.
    `block_tokens`: the cache is paged in blocks of so many tokens, of which a sequence leaves half a block empty in the mean (0: none).

    With a pipeline the batch is cut in as many micro-batches as there are stages (fewer sequences: one each). Raises ValueError for
    an unknown phase.
    """
    if phase not in PHASES:
        raise unknown_name("phase", phase, PHASES)
    machine, spec, p = machine.one_bandwidth(), model.spec, point
    devices = p.tensor * p.pipeline * p.data
    shared = jnp.maximum(p.expert / p.tensor, 1.0)
    own = ceil_through(p.batch / p.data)  # sequences of a replica
    parts = jnp.minimum(jnp.maximum(own, 1.0), p.pipeline)  # micro-batches
    size = own / parts
    held = p.context + (p.tokens if phase == "prefill" else 0.0)
    if phase == "mixed":
        held = p.tokens + p.new_tokens / 2
    paged = held + block_tokens / 2
    each_token = kv_bytes_per_token(spec, formats.kv_bytes)
    of_sequence = cached_tokens(spec, paged) * each_token * device_kv_share(spec, p.tensor, p.pipeline)
    weights_here = device_weight_bytes(
        spec, formats.weight_bytes, formats.head_bytes, tensor=p.tensor, pipeline=p.pipeline, expert=p.expert,
        expert_tensor=jnp.maximum(p.tensor / p.expert, 1.0), density=density, extra_parameters=model.extra_parameters,
    )  # fmt: skip
    chunk = jnp.where(p.chunk > 0, jnp.minimum(p.chunk, p.tokens), p.tokens)
    arrive = size / p.new_tokens  # prompts that a pass begins (mixed)
    rows = {"prefill": size * chunk, "decode": size * p.tokens, "mixed": size + arrive * p.tokens}[phase]
    active = activation_bytes(spec, rows, formats.activation_bytes, size, p.tensor)
    place = residency(machine, weights_here, own * of_sequence, active, offload=offload, kv_tier=kv_tier)

    def at(batch, tokens, context):
        return Slice(batch, tokens, context, p.tensor, p.expert, jnp.maximum(p.tensor / p.expert, 1.0), shared)

    passes: Any = 1.0
    if phase == "decode":
        run = _one_pass(
            machine, model, formats, library, place, density, at(size, p.tokens, p.context), True, kv_tier=kv_tier
        )
    elif phase == "prefill":  # passes are near affine in the tokens before them: the mean chunk stands for all
        passes = ceil_through(p.tokens / chunk)
        before = p.context + (passes - 1) * p.tokens / passes / 2
        run = _one_pass(
            machine,
            model,
            formats,
            library,
            place,
            density,
            at(size, p.tokens / passes, before),
            False,
            kv_tier=kv_tier,
        )
    else:
        prompts = at(arrive, p.tokens, 0.0)
        run = _one_pass(
            machine, model, formats, library, place, density, at(size, 1.0, held - 1.0), True, prompts, kv_tier=kv_tier
        )
    stage = ceil_through(spec.layers / p.pipeline) / spec.layers
    handed = rows * spec.width * formats.activation_bytes
    away = devices > machine.devices  # stages in several packages
    hand_s = jnp.where(away, machine.send_s(handed, outside=True), machine.send_s(handed))
    hand_s = jnp.where(p.pipeline > 1, hand_s, 0.0)
    slowest = run.layers_s * stage + run.ends_s / p.pipeline + hand_s
    once = run.layers_s + run.ends_s + (p.pipeline - 1) * hand_s
    if phase == "prefill":
        seconds = passes * (once + (parts - 1) * slowest + p.step_s)
        new, users = p.batch * p.tokens, p.batch
    else:  # all micro-batches are in the pipeline at once; the last stage hands its tokens to the first
        seconds = jnp.maximum(once, parts * slowest) + p.step_s
        new, users = p.batch * (p.tokens if phase == "decode" else 1.0), p.batch
    n_micro = parts * p.data * passes
    ops, cache, lanes = (n_micro * p.tensor * x for x in (run.ops, run.cache, run.lanes))
    # of one tensor rank, all stages and replicas: what reading takes at the nominal rates of where the bytes lie
    reading_s = n_micro * (run.weights * place.weight_s_per_byte + run.cache * place.kv_s_per_byte)
    total_ttft = seconds + p.request_s
    if phase == "mixed":  # fewer than one prompt a pass: it is spread over several
        total_ttft = seconds * jnp.maximum(1.0 / jnp.maximum(arrive, 1e-9), 1.0) + p.request_s
    made = total_ttft if phase == "prefill" else seconds
    capacity = sum(machine.tiers.capacity_bytes[t] for t in _tiers(machine, offload, kv_tier))
    per_sequence = (
        of_sequence
        + activation_bytes(spec, rows / jnp.maximum(size, 1e-9), formats.activation_bytes, 1.0, p.tensor) / p.pipeline
    )
    free = jnp.maximum(capacity - weights_here, 0.0)
    memory_j = machine.tiers.j_per_byte[machine.memory]
    narrow = jnp.where(jnp.asarray(formats.rate) > 0, 0.5, 1.0)
    dynamic = (
        ops / 2 * machine.mac_j * narrow
        + n_micro * p.tensor * (run.weights + run.moved + run.cache) * memory_j
        + n_micro * p.tensor * run.moved * machine.buffer_j_per_byte
        + lanes * machine.lane_op_j
        + n_micro * p.tensor * run.linked * machine.link_j_per_byte
    )
    joules = dynamic + machine.static_w * devices * made
    missing = jnp.full_like(made, jnp.nan)
    return Serving(
        ttft_s=missing if phase == "decode" else total_ttft,
        tpot_s=missing if phase == "prefill" else seconds,
        tokens_per_s=new / made,
        tokens_per_s_per_user=new / made / jnp.maximum(users, 1e-9),
        tokens_per_s_per_device=new / made / devices,
        mbu=reading_s / (seconds * p.pipeline * p.data),
        mfu=ops / (seconds * devices * peak_ops_per_s(machine, formats)),
        weight_bytes=weight_bytes(
            spec, formats.weight_bytes, formats.head_bytes, density=density, extra_parameters=model.extra_parameters
        ) + 0.0 * made,
        kv_cache_bytes=p.batch * cached_tokens(spec, held) * each_token,
        kv_bytes_per_token=each_token + 0.0 * made,
        device_weight_bytes=weights_here,
        device_kv_bytes=own * of_sequence,
        device_activation_bytes=active,
        short_bytes=place.short_bytes,
        fits=jnp.where(place.short_bytes > 0, 0.0, 1.0),
        largest_batch=jnp.floor(safe_divide(free, per_sequence)) * p.data,
        energy_j_per_token=joules / new,
        power_w=joules / made,
        busy_s=jnp.concatenate([run.busy_s * passes * parts, jnp.stack([jnp.asarray(passes * p.step_s + 0.0 * made)], -1)], -1),
    )  # fmt: skip


def _in_memory_s(machine: Machine, kernel: Any, ops, tier: int):
    """Of decode attention, and of a product of one row, by processors at the memory: their operations/s; what they read from the arrays
    beside them is an element an operation pair, so the arrays' bandwidth is that of their operations."""
    rate = machine.tiers.ops_per_s[machine.memory if isinstance(kernel, Gemm) else tier]
    seconds = safe_divide(ops, rate, jnp.inf)
    if isinstance(kernel, Attention) and kernel.decode:
        return seconds
    return jnp.where(kernel.m <= 1, seconds, jnp.inf) if isinstance(kernel, Gemm) else jnp.inf


def _tiers(machine: Machine, offload: bool, kv_tier: int | None) -> list[int]:
    from ._residency import usable

    return usable(machine, offload or kv_tier is not None)


def _one_pass(machine: Machine, model: Decoder, formats: Formats, library: Library, place, density: float, at: Slice, decode: bool,
              prompts: Slice | None = None, *, kv_tier: int | None = None) -> _Pass:  # fmt: skip
    """A pass of a micro-batch through all layers; `prompts`: whose tokens pass beside those of `at` (both share the products)."""
    spec = model.spec
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
    return _Pass(inside, outside, times, *sums, linked)
