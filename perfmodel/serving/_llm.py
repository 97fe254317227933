"""A language model in service at one point of operation: times, rates, bytes, energy. Elementwise: jit, vmap and grad work on it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._names import unknown_name
from .._numerics import ceil_through, safe_divide
from ..cost._device import Machine
from ..cost._formats import Formats
from ..models._decoders import Decoder
from ._kernel_list import Slice
from ._kernel_time import LIBRARY, Library, peak_ops_per_s
from ._pass import pass_of
from ._residency import residency, usable
from ._storage import (
    activation_bytes,
    cached_tokens,
    device_kv_share,
    device_weight_bytes,
    kv_bytes_per_token,
    weight_bytes,
)

PHASES = ("prefill", "decode", "mixed")


class Point(NamedTuple):
    """A point of operation; every field may be traced.

    - `batch`: sequences in all.  `context`: tokens in the cache of each, in decode those before the new one (mean over the batch).
    - `tokens`: new tokens of each in prefill: the prompt; in decode 1, or those that a pass verifies (speculative decoding).
      `chunk`: tokens of a prompt that pass at a time (prefill, mixed), 0: all.
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


class Beside(NamedTuple):
    """Bytes on each device that another model (a draft) takes: its weights, and of each sequence of a replica."""

    weight_bytes: Any = 0.0
    sequence_bytes: Any = 0.0


ALONE = Beside()


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
    beside: Beside = ALONE,
) -> Serving:
    """Figures of a phase: `prefill`, `decode`, or `mixed`, continuous batching in a steady state: every pass carries one token of each of
    `batch` answers; as answers end, prompts enter, a chunk in a pass, or several where more than one a pass is due.

    **Arguments:** `formats`, `density`: of `formats(machine, ...)`.  `library`: static.  `offload`, `kv_tier`: see `residency`.
    `block_tokens`: the cache is paged in blocks of so many tokens, of which a sequence leaves half a block empty in the mean (0: none).
    `beside`: memory that is taken already.

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
    of_sequence = (
        cached_tokens(spec, paged) * each_token * device_kv_share(spec, p.tensor, p.pipeline) + beside.sequence_bytes
    )
    weights_here = beside.weight_bytes + device_weight_bytes(
        spec, formats.weight_bytes, formats.head_bytes, tensor=p.tensor, pipeline=p.pipeline, expert=p.expert,
        expert_tensor=jnp.maximum(p.tensor / p.expert, 1.0), density=density, extra_parameters=model.extra_parameters,
    )  # fmt: skip
    pieces = ceil_through(p.tokens / jnp.where(p.chunk > 0, jnp.minimum(p.chunk, p.tokens), p.tokens))  # of a prompt
    chunk = p.tokens / pieces
    due = size / p.new_tokens * pieces  # chunks that have to enter with a pass (mixed)
    entering = {"prefill": size, "decode": 0.0, "mixed": jnp.maximum(due, 1.0)}[phase]
    rows = {"prefill": 0.0, "decode": size * p.tokens, "mixed": size}[phase] + entering * chunk
    active = activation_bytes(spec, rows, formats.activation_bytes, size, p.tensor)
    place = residency(machine, weights_here, own * of_sequence, active, offload=offload, kv_tier=kv_tier)

    def at(batch, tokens, context):
        return Slice(batch, tokens, context, p.tensor, p.expert, jnp.maximum(p.tensor / p.expert, 1.0), shared)

    def one_pass(sequences, decode, prompts=None):
        return pass_of(machine, spec, formats, library, place, density, sequences, decode, prompts, kv_tier=kv_tier)

    passes: Any = 1.0
    before = (p.tokens - chunk) / 2  # passes are near affine in the tokens before them: the mean chunk stands for all
    carrying: Any = None
    if phase == "decode":
        run = one_pass(at(size, p.tokens, p.context), True)
    elif phase == "prefill":
        passes = pieces
        run = one_pass(at(size, chunk, p.context + before), False)
    else:
        answers, often = at(size, 1.0, held - 1.0), jnp.minimum(due, 1.0)
        carrying = one_pass(answers, True, at(entering, chunk, before))
        run = jax.tree.map(lambda x, y: often * x + (1 - often) * y, carrying, one_pass(answers, True))
    stage = ceil_through(spec.layers / p.pipeline) / spec.layers

    def piped(run, rows):
        """(seconds of one micro-batch through all stages, of the slowest stage) with what is handed on."""
        handed = rows * spec.width * formats.activation_bytes
        hand_s = machine.send_s(
            handed, p.pipeline, step=p.tensor * p.data
        )  # ranks fill packages: tensor, data, pipeline
        slowest = run.layers_s * stage + run.ends_s / p.pipeline + hand_s
        return run.layers_s + run.ends_s + (p.pipeline - 1) * hand_s, slowest

    def cycle_s(run, rows):
        """All micro-batches are in the pipeline at once; the last stage hands its tokens to the first."""
        once, slowest = piped(run, rows)
        return jnp.maximum(once, parts * slowest) + p.step_s

    if phase == "prefill":
        once, slowest = piped(run, rows)
        seconds = passes * (once + (parts - 1) * slowest + p.step_s)
    else:
        seconds = cycle_s(run, size + jnp.minimum(due, 1.0) * (rows - size) if phase == "mixed" else rows)
    new = p.batch * (1.0 if phase == "mixed" else p.tokens)
    n_micro = parts * p.data * passes
    ops, cache, lanes = (n_micro * p.tensor * x for x in (run.ops, run.cache, run.lanes))
    # of one tensor rank, all stages and replicas: what reading takes at the nominal rates of where the bytes lie
    reading_s = n_micro * (run.weights * place.weight_s_per_byte + run.cache * place.kv_s_per_byte)
    total_ttft = p.request_s + (pieces * cycle_s(carrying, rows) if phase == "mixed" else seconds)
    made = total_ttft if phase == "prefill" else seconds
    capacity = sum(machine.tiers.capacity_bytes[t] for t in usable(machine, offload or kv_tier is not None))
    free = jnp.maximum(capacity - weights_here, 0.0)

    def most(rows_each, rows_besides=0.0):
        """Sequences that there is room for, where each brings rows to a pass, and some pass in any case."""
        each, besides = (
            activation_bytes(spec, n, formats.activation_bytes, one, p.tensor) / p.pipeline
            for n, one in ((rows_each, 1.0), (rows_besides, 0.0))
        )
        return safe_divide(jnp.maximum(free - besides, 0.0), of_sequence + each)

    if phase == "mixed":  # a chunk, or as many tokens as are due
        largest = jnp.minimum(most(1.0, chunk), most(1.0 + p.tokens / p.new_tokens))
    else:
        largest = most(chunk if phase == "prefill" else p.tokens)
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
        tokens_per_s_per_user=new / made / jnp.maximum(p.batch, 1e-9),
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
        largest_batch=jnp.floor(largest) * p.data,
        energy_j_per_token=joules / new,
        power_w=joules / made,
        busy_s=jnp.concatenate([run.busy_s * passes * parts, jnp.stack([jnp.asarray(passes * p.step_s + 0.0 * made)], -1)], -1),
    )  # fmt: skip
