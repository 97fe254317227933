"""In which memory tier everything lives: weights, caches and states, results that go through memory.

A share per tier for every object, hard (one 1) or relaxed (a simplex row): the same code. `Schedule.tiers` holds the decision;
without one, `default_shares` fills the tiers from the fastest on. Capacity, per tier and (where every chiplet has its own) per chiplet,
is what `over_bytes` says of it. The allocator that chooses, with addresses, is `_allocate.py`.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._numerics import safe_divide
from ..hardware import System
from ..workload import Workload
from ..workload._operators import KINDS

CLASSES = ("weights", "caches", "activations")
_EMBEDDING = KINDS.index("embedding")
# Sums of many shares in float32 are off by about this much: no violation.
_ROUNDING = 1e-5


class TierShares(eqx.Module):
    """Share of each of `T` tiers in what each of `L` operators has in memory; rows sum to 1.

    - `weights`: its stored parameters (of an embedding: its table).
    - `results`: its result, as far as that goes through memory.
    - `outside`: its part of KV caches and states, and what it reads of the model's inputs or writes of its outputs.
    """

    weights: Float[Array, "L T"]
    results: Float[Array, "L T"]
    outside: Float[Array, "L T"]

    @classmethod
    def all_in(cls, workload: Workload, system: System, tier: int) -> "TierShares":
        """Everything in one tier. Raises ValueError for a tier that is not there."""
        n = system.memory.n_tiers
        if not 0 <= tier < n:
            raise ValueError(f"tier is {tier}; allowed: 0 to {n - 1} ({', '.join(system.memory.names)})")
        row = jax.nn.one_hot(jnp.full(workload.n_operators, tier), n)
        return cls(row, row, row)

    @classmethod
    def from_logits(cls, logits: "TierShares") -> "TierShares":
        """Relaxed shares from any numbers: a softmax over tiers, for a search by gradients."""
        return jax.tree.map(lambda x: jax.nn.softmax(jnp.asarray(x), axis=-1), logits)


class Amounts(eqx.Module):
    """Bytes of each of `L` operators in memory: stored parameters; its part of caches and states; and, while it runs, of the
    model's inputs and outputs."""

    weights: Float[Array, "L"]
    kept: Float[Array, "L"]
    passing: Float[Array, "L"]


def is_embedding(workload: Workload) -> jax.Array:
    """`[L]` rows that read a stored table, not inputs."""
    return jnp.asarray(workload.operators.kind) == _EMBEDDING


def amounts(workload: Workload, sub_batch, dtype) -> Amounts:
    """What has to lie in memory besides results. Caches and states of a model are parted among its rows as those read and write."""
    op, model = workload.operators, jnp.asarray(workload.model)

    def cast(x):
        return jnp.asarray(x, dtype)

    kept = cast(workload.kv_bytes_per_token * workload.kv_tokens + workload.state_bytes)
    results = cast(op.out_elements * op.out_bits / 8)
    reads = jnp.where(is_embedding(workload), 0.0, cast(workload.outside_in_bytes))
    writes = cast(workload.outside_out_bytes)
    besides = writes - jnp.where(cast(workload.hold_bytes) > 0, 0.0, results)  # outputs are no cache
    touched = reads + jnp.maximum(besides, 0.0)
    total = jax.ops.segment_sum(touched, model, workload.n_models)
    rows = jax.ops.segment_sum(jnp.ones_like(touched), model, workload.n_models)
    part = jnp.where(total[model] > 0, touched / jnp.where(total[model] > 0, total[model], 1.0), 1.0 / rows[model])
    stored = cast(op.parameters * op.weight_bits / 8)
    return Amounts(stored, kept[model] * part, jnp.where(kept[model] > 0, 0.0, (reads + writes) * sub_batch))


def default_shares(workload: Workload, system: System, assignment, sub_batch, dtype) -> TierShares:
    """Tiers filled from the fastest on, by `CLASSES`: all objects of a class on a chiplet are split alike, the last tier takes
    what is left. Differentiable in capacities; a schedule's own shares (`allocate`) do better."""
    return _filled(workload, system, assignment, sub_batch, dtype)[0]


def _filled(workload: Workload, system: System, assignment, sub_batch, dtype) -> tuple[TierShares, jax.Array]:
    """(shares, `[T, C]` bytes of weights, caches and states)."""
    memory = system.memory
    share, capacity = jnp.asarray(memory.share, dtype), jnp.asarray(memory.capacity_bytes, dtype)
    x = placement(assignment, system, dtype)
    has = amounts(workload, sub_batch, dtype)
    live = jnp.asarray(workload.live_bytes, dtype) * sub_batch + has.passing
    most = jax.ops.segment_max(live[:, None] * x, jnp.asarray(workload.model), workload.n_models)
    asked = jnp.stack([has.weights @ x, has.kept @ x, jnp.sum(jnp.maximum(most, 0.0), axis=0)])  # class, chiplet
    left: Any = asked
    taken = []
    for t in range(memory.n_tiers):
        if t == memory.n_tiers - 1:
            take = left
        elif memory.is_own(t) and x.shape[1] > 1:
            take = _fill(left, capacity[t] * share[t])
        else:
            total = jnp.sum(left, axis=1, keepdims=True)
            take = left * safe_divide(_fill(total, capacity[t]), total, 0.0)
        taken.append(take)
        left = left - take
    part = jnp.stack([safe_divide(take, asked, 1.0 if t == 0 else 0.0) for t, take in enumerate(taken)])
    by_row = jnp.einsum("lc,tkc->klt", x, part)
    # caches and states, where a model has any; else its inputs and outputs, which pass like activations
    has_kept = (jnp.asarray(workload.kv_bytes_per_token * workload.kv_tokens + workload.state_bytes) > 0)[
        jnp.asarray(workload.model)
    ]
    shares = TierShares(by_row[0], by_row[2], jnp.where(has_kept[:, None], by_row[1], by_row[2]))
    return shares, jnp.stack([take[0] + take[1] for take in taken])


def device_bytes(system: System) -> float:
    """Memory of one device, all tiers: of a chiplet and its part of what it shares where chiplets have memory of their own, else of
    the package (host only)."""
    total = float(np.sum(np.asarray(system.memory.capacity_bytes, np.float64)))
    return total / system.n_chiplets if by_chiplet(system) else total


def least_devices(needed_bytes: float, system: System) -> int:
    """How many devices (`device_bytes`) it takes at least to hold so many bytes, `Workload.stored_bytes` for instance."""
    return max(1, math.ceil(float(needed_bytes) / device_bytes(system) * (1 - 1e-12)))


def _fill(asked, room) -> jax.Array:
    """Of `asked` by class, `[3, C]`, what fits `room`, one class after another."""
    before = jnp.cumsum(asked, axis=0) - asked
    return jnp.clip(room - before, 0.0, asked)


def placement(assignment, system: System, dtype) -> jax.Array:
    """`[L, C]`: where each row runs, as far as memory distinguishes chiplets; one column if all share all tiers."""
    assignment = jnp.asarray(assignment)
    if not by_chiplet(system):
        return jnp.ones((assignment.shape[0], 1), dtype)
    if jnp.issubdtype(assignment.dtype, jnp.floating):
        return assignment.astype(dtype)
    return jax.nn.one_hot(assignment, system.n_chiplets, dtype=dtype)


def by_chiplet(system: System) -> bool:
    """Whether a memory tier is each chiplet's own, so that it matters which one holds what."""
    return system.n_chiplets > 1 and any(system.memory.own)


def over_bytes(workload: Workload, system: System, assignment, shares: TierShares | None, resting, sub_batch, dtype):
    """`[T]` bytes that do not fit each tier. `resting`: `[T, C]`, most bytes of results, inputs and outputs there at a time.

    `shares` None: the default, which fills no tier but the last beyond its capacity (the shares of a relaxed placement are
    means over chiplets, so that their products with the placement would not say so)."""
    x, memory = placement(assignment, system, dtype), system.memory
    if shares is None:
        stored = _filled(workload, system, assignment, sub_batch, dtype)[1]
    else:
        has = amounts(workload, sub_batch, dtype)
        weights, outside = jnp.asarray(shares.weights, dtype), jnp.asarray(shares.outside, dtype)
        stored = jnp.einsum("lt,lc->tc", has.weights[:, None] * weights + has.kept[:, None] * outside, x)
    need = stored + resting
    capacity, share = jnp.asarray(memory.capacity_bytes, dtype), jnp.asarray(memory.share, dtype)
    over = []
    for t in range(memory.n_tiers):
        each = memory.is_own(t) and by_chiplet(system)
        room = capacity[t] * share[t] if each else capacity[t]
        much = (need[t] if each else jnp.sum(need[t])) - room
        full = shares is not None or t == memory.n_tiers - 1
        over.append(jnp.sum(jnp.where(much > _ROUNDING * room, much, 0.0)) if full else jnp.zeros((), dtype))
    return jnp.stack(over)
