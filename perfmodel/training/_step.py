"""A training step of a dense decoder on many devices: time, memory, energy; pure JAX, written for one operating point."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._names import unknown_name
from ..cost._device import Machine
from ._layer import Block, Ends, Work, block, ends, streamed_s, work_j
from ._memory import GRADIENT, RECOMPUTE, STATE_BYTES, TrainingMemory, training_memory
from ._shape import TrainingShape
from ._time import TrainingConstants, collective_s, gradients_s, reachable, send_s, stage_seconds

# Fitted to the eight steps of arXiv 2205.05198, table 5, by benchmarks/megatron.py, which prints the error without each
# model in turn.
FITTED = TrainingConstants(matrix_slowdown=1.068)
# Bytes that an update moves for each parameter, gradients in fp32 (Megatron-LM with fused optimizers): gradients unscaled
# and checked (8), their norm (4) and clipping (8), the update itself (gradient in; parameter and moments in and out),
# copied to 16 bits (6), gradients set to zero (4).
_UPDATE = {optimizer: 30.0 + 4.0 + 2 * state for optimizer, state in STATE_BYTES.items()}


class TrainingStep(eqx.Module):
    """What a step takes. Seconds of the parts add up to `step_s`; all are of the busiest device.

    - `forward_s, backward_s, recompute_s`: products and other kernels.  `tensor_collectives_s`: what nothing hides.
    - `bubble_s`: idle in the pipeline.  `point_to_point_s`: between stages.  `gradient_collectives_s`: of data-parallel
      ranks, and of the tied table between first and last stage.  `optimizer_s`.
    - `model_macs`: multiply-accumulates of forward and backward of the whole batch; `hardware_macs`: with what is recomputed.
    - `mfu, hfu`: their share of the peak of all devices (16 bits).
    - `memory`: of the fullest device; `needed_bytes` in all, of `capacity_bytes`; `fits`.
    - `energy_j`: of the step on all devices; `static_j` of it.
    """

    step_s: Float[Array, ""]
    forward_s: Float[Array, ""]
    backward_s: Float[Array, ""]
    recompute_s: Float[Array, ""]
    tensor_collectives_s: Float[Array, ""]
    bubble_s: Float[Array, ""]
    point_to_point_s: Float[Array, ""]
    gradient_collectives_s: Float[Array, ""]
    optimizer_s: Float[Array, ""]
    tokens_per_s: Float[Array, ""]
    model_macs: Float[Array, ""]
    hardware_macs: Float[Array, ""]
    mfu: Float[Array, ""]
    hfu: Float[Array, ""]
    devices: Float[Array, ""]
    microbatches: Float[Array, ""]
    memory: TrainingMemory
    needed_bytes: Float[Array, ""]
    capacity_bytes: Float[Array, ""]
    fits: Float[Array, ""]
    energy_j: Float[Array, ""]
    static_j: Float[Array, ""]


def training_step(
    shape: TrainingShape,
    machine: Machine,
    *,
    batch,
    sequence,
    microbatch=1.0,
    tensor=1.0,
    pipeline=1.0,
    data=1.0,
    interleave=1.0,
    recompute: str = "none",
    sequence_parallel: bool = False,
    optimizer: str = "adam",
    shard_optimizer: bool = False,
    overlap_gradients: bool = False,
    tier: int = 0,
    constants: TrainingConstants = FITTED,
) -> TrainingStep:
    """One step of `batch` sequences of `sequence` tokens on `data` x `pipeline` x `tensor` devices, in mixed precision (16
    bits; gradients and optimizer in fp32), by 1F1B with `interleave` parts of the model a device (Narayanan et al., arXiv
    2104.04473).

    - Time: `n` microbatches through the slowest stage, and the bubble, `(p - 1) / v` microbatches of a stage between the
      ends. The last stage has LM head and loss besides, the first one the token table.
    - Tensor-parallel collectives: an all-reduce behind attention and MLP, and of their gradients, which runs beside
      gradients of weights; with `sequence_parallel` an all-gather and a reduce-scatter each, and in the backward pass one
      more all-gather, beside gradients of activations. Inside the package if the ranks fit there, else over the links out
      of it.
    - Between stages each rank sends its part of the activations (and gathers the others': Megatron's scatter/gather).
      Data-parallel gradients (fp32) are all-reduced at the end, `overlap_gradients`: beside the last microbatch's backward
      pass; `shard_optimizer`: reduce-scattered, and the updated weights gathered (ZeRO 1). Ranks fill packages with tensor,
      then data, then pipeline neighbours.

    All numbers may be traced; `tier` (static): the memory used. Raises ValueError for an unknown name only: sizes are
    checked by `train`.
    """
    if recompute not in RECOMPUTE:
        raise unknown_name("recompute", recompute, RECOMPUTE)
    if optimizer not in STATE_BYTES:
        raise unknown_name("optimizer", optimizer, STATE_BYTES)
    machine = reachable(machine)
    tokens, message = microbatch * sequence, 2.0 * microbatch * sequence * shape.width
    layers, microbatches = shape.layers / pipeline, batch / (data * microbatch)
    devices = data * pipeline * tensor
    parts, at_ends = (
        make(shape, tokens, *more, tensor, sequence_parallel) for make, more in ((block, [sequence]), (ends, []))
    )

    of_block, of_table, of_head = stage_seconds(
        shape, machine, parts, at_ends, constants, message=message, tensor=tensor, recompute=recompute,
        sequence_parallel=sequence_parallel, tier=tier,
    )  # fmt: skip
    sent = 2 * interleave * send_s(machine, message, tensor, data, pipeline, sequence_parallel)
    sent = jnp.where(pipeline > 1, sent, 0.0)
    middle = of_block.times(layers)
    behind = (pipeline > 1) * jnp.where(of_head.total > of_table.total, 1.0, 0.0)  # which end is the slower one
    before = jnp.where(pipeline > 1, 1 - behind, 1.0)
    stage = middle.plus(of_table.times(before)).plus(of_head.times(jnp.where(pipeline > 1, behind, 1.0)))
    busy = stage.times(microbatches)
    bubble = (pipeline - 1) / interleave * (middle.total + sent)

    memory = training_memory(
        shape, tokens=tokens, sequence=sequence, microbatches=microbatches, tensor=tensor, pipeline=pipeline, data=data,
        interleave=interleave, recompute=recompute, sequence_parallel=sequence_parallel, optimizer=optimizer,
        shard_optimizer=shard_optimizer,
    )  # fmt: skip
    gradients = gradients_s(machine, memory.parameters, data, tensor, shard_optimizer)
    if overlap_gradients:
        gradients = gradients - jnp.minimum(gradients, middle.backward)
    table = GRADIENT * shape.table_parameters(tensor)[0]
    both = (pipeline > 1) & (shape.tied > 0)
    tied = jnp.where(
        both, collective_s(machine, "all_reduce", table, 2.0, jnp.maximum(devices - tensor * data, 1.0)), 0.0
    )
    updated = _UPDATE[optimizer] * memory.parameters / (data if shard_optimizer else 1.0)
    update = constants.stream_slowdown * streamed_s(machine, updated, tier)
    step = busy.total + microbatches * sent + bubble + gradients + tied + update

    once, again = _works(parts, at_ends, recompute)
    every = batch / microbatch * tensor  # microbatches of all replicas, on all ranks
    macs, more_macs = (every * sum(count * work.macs for work, count in works(shape)) for works in (once, again))
    peak = devices * machine.peak_ops_per_s[0] * step
    dynamic = every * sum(
        count * work_j(machine, work, tier) for works in (once, again) for work, count in works(shape)
    )
    links = (
        every
        * (tensor > 1)
        * shape.layers
        * shape.joins
        * message
        * (6 if recompute == "full" else 4)
        * (1 - 1 / tensor)
    )
    links = links + every * 2 * (pipeline * interleave - 1) * message / tensor
    links = links + tensor * pipeline * 2 * (data - 1) * GRADIENT * memory.parameters
    dynamic = dynamic + links * machine.link_j_per_byte + devices * updated * machine.tiers.j_per_byte[tier]
    static = devices * machine.static_w * step
    capacity = machine.tiers.capacity_bytes[tier]
    whole = jnp.ones(())
    return TrainingStep(
        step_s=step, forward_s=busy.forward, backward_s=busy.backward, recompute_s=busy.recompute,
        tensor_collectives_s=busy.collectives, bubble_s=bubble, point_to_point_s=microbatches * sent,
        gradient_collectives_s=gradients + tied, optimizer_s=update, tokens_per_s=batch * sequence / step, model_macs=macs,
        hardware_macs=macs + more_macs, mfu=2 * macs / peak, hfu=2 * (macs + more_macs) / peak, devices=devices * whole,
        microbatches=microbatches * whole, memory=memory, needed_bytes=memory.total_bytes, capacity_bytes=capacity,
        fits=memory.total_bytes <= capacity, energy_j=dynamic + static, static_j=static,
    )  # fmt: skip


def _works(parts: Block, at_ends: Ends, recompute: str):
    """Everything that a rank computes for a microbatch through the whole model, and what it repeats: functions of the shape to
    pairs of (work, how often)."""
    repeated: dict[str, list[Work]] = {"none": [], "selective": [parts.core], "full": [parts.forward]}
    of_block = [parts.forward, parts.dgrad, parts.wgrad, parts.core_back]
    return (
        lambda shape: [*((work, shape.layers) for work in of_block), *((work, 1.0) for work in at_ends)],
        lambda shape: [(work, shape.layers) for work in repeated[recompute]],
    )
