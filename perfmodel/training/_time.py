"""Seconds of the parts of a training step: blocks, both ends of the model, collectives, what is sent between stages."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..cost._device import Machine
from ._layer import Block, Ends, accumulated_s, products_s, streamed_s
from ._memory import GRADIENT
from ._shape import TrainingShape

_COLUMNS = np.array([0, 2])  # products that begin attention and MLP


class TrainingConstants(eqx.Module):
    """How a training framework differs from kernels measured alone; 1, 1 and 1: not at all.

    - `matrix_slowdown`: seconds of products over those of the kernel model.
    - `stream_slowdown`: seconds of kernels that only move data over their bytes at the bytes/s that products reach.
    - `overlap`: of a tensor-parallel collective that runs beside a product in the backward pass, the part that it hides.
    """

    matrix_slowdown: float | Float[Array, ""] = 1.0
    stream_slowdown: float | Float[Array, ""] = 1.0
    overlap: float | Float[Array, ""] = 1.0


class Seconds(NamedTuple):
    """Of one microbatch: products and other kernels forward, backward and recomputed; collectives that nothing hides."""

    forward: Float[Array, ""]
    backward: Float[Array, ""]
    recompute: Float[Array, ""]
    collectives: Float[Array, ""]

    @property
    def total(self):
        return self.forward + self.backward + self.recompute + self.collectives

    def times(self, count) -> "Seconds":
        return Seconds(*(count * x for x in self))

    def plus(self, other: "Seconds") -> "Seconds":
        return Seconds(*(a + b for a, b in zip(self, other, strict=True)))


def reachable(machine: Machine) -> Machine:
    """Ways that are not there take a second a byte: no infinity that a gradient could multiply by zero."""
    ways = (machine.link_bytes_per_s, machine.outside_bytes_per_s)
    return eqx.tree_at(
        lambda m: (m.link_bytes_per_s, m.outside_bytes_per_s), machine, tuple(jnp.maximum(x, 1.0) for x in ways)
    )


def collective_s(machine: Machine, kind: str, message_bytes, ranks, step=1.0) -> Float[Array, ""]:
    """Seconds of a collective between ranks `step` apart, by the library that adds up gradients (no one-shot kernels)."""
    return machine.collective_s(kind, message_bytes, ranks, step=step, low_latency=False)


def stage_seconds(
    shape: TrainingShape, machine: Machine, parts: Block, at_ends: Ends, constants: TrainingConstants, *, message, tensor,
    recompute: str, sequence_parallel: bool, tier: int,
) -> tuple[Seconds, Seconds, Seconds]:  # fmt: skip
    """(a block, the token table, LM head and loss) for one microbatch whose activations have `message` bytes."""
    forward, core, dgrad, wgrad, core_back, head, head_dgrad, head_wgrad = products_s(
        machine, [*parts, at_ends.head, at_ends.head_dgrad, at_ends.head_wgrad], tier
    )
    wgrad, head_wgrad = (
        jnp.maximum(seconds, accumulated_s(machine, work, tier))
        for seconds, work in ((wgrad, parts.wgrad), (head_wgrad, at_ends.head_wgrad))
    )

    def taken(products, streamed_bytes):
        streamed = constants.stream_slowdown * streamed_s(machine, streamed_bytes, tier)
        return constants.matrix_slowdown * jnp.sum(products) + streamed

    def left(seconds, beside):
        """What of a collective the products beside it do not hide."""
        return seconds - constants.overlap * jnp.minimum(seconds, constants.matrix_slowdown * jnp.sum(beside))

    def collective(kind):
        return collective_s(machine, kind, message, tensor)

    if sequence_parallel:
        gather, scatter = collective("all_gather"), collective("reduce_scatter")
        joined, joined_back = gather + scatter, gather
        returned, again = scatter, gather
    else:
        joined = returned = collective("all_reduce")
        joined_back = again = scatter = 0.0 * joined
    joins = shape.joins
    exposed = joins * (joined + joined_back)
    exposed = exposed + left(joins * returned, wgrad[_COLUMNS]) + left(joins * again, dgrad[_COLUMNS])
    forward_s = taken(forward, parts.forward.streamed_bytes)
    nothing = 0.0 * forward_s
    repeated = {"none": nothing, "selective": taken(core, parts.core.streamed_bytes), "full": forward_s}[recompute]
    of_block = Seconds(
        forward_s,
        taken(jnp.concatenate([dgrad, wgrad, core_back]), parts.core_back.streamed_bytes),
        repeated,
        exposed + (joins * joined if recompute == "full" else 0.0),
    )
    of_table = Seconds(
        taken(forward[:0], at_ends.table.streamed_bytes),
        taken(forward[:0], at_ends.table_back.streamed_bytes),
        nothing,
        (scatter if sequence_parallel else joined) + joined_back,
    )
    of_head = Seconds(
        taken(head, at_ends.head.streamed_bytes),
        taken(jnp.concatenate([head_dgrad, head_wgrad]), at_ends.head_dgrad.streamed_bytes),
        nothing,
        joined_back + left(returned, head_wgrad) + left(again, head_dgrad),
    )
    return of_block, of_table, of_head


def send_s(machine: Machine, message, tensor, data, pipeline, sequence_parallel: bool) -> Float[Array, ""]:
    """Activations to the next stage: each tensor rank sends its part, the others' are gathered unless sequences stay split."""
    sent = machine.send_s(message / tensor, pipeline, step=tensor * data)
    return sent if sequence_parallel else sent + collective_s(machine, "all_gather", message, tensor)


def gradients_s(machine: Machine, parameters, data, tensor, shard_optimizer: bool) -> Float[Array, ""]:
    """Data-parallel ranks add up fp32 gradients; with a sharded optimizer each gets its part and leaves 16-bit weights to
    all."""
    if not shard_optimizer:
        return collective_s(machine, "all_reduce", GRADIENT * parameters, data, tensor)
    scattered = collective_s(machine, "reduce_scatter", GRADIENT * parameters, data, tensor)
    return scattered + collective_s(machine, "all_gather", GRADIENT / 2 * parameters, data, tensor)
