"""Where weights, KV cache and activations lie: tiers filled in order of priority, and what reading them from there costs."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..cost._device import Machine


class Residency(NamedTuple):
    """`held [3, T]`: bytes of weights, KV cache and activations in each tier, on the device that holds most.  `short_bytes`: what no
    allowed tier has room for.  `weight_s_per_byte`, `kv_s_per_byte`: mean time to read a byte."""

    held: Float[Array, "3 T"]
    short_bytes: Any
    weight_s_per_byte: Any
    kv_s_per_byte: Any


def usable(machine: Machine, offload: bool = False) -> list[int]:
    """Tiers that serving may use: those attached to the device; of a GPU from its main memory on; with `offload` also those behind a
    host."""
    first = machine.memory if machine.gpu is not None else 0
    return [t for t in range(first, len(machine.tier_names)) if machine.attached[t] or offload or t == first]


def seconds_per_byte(machine: Machine, tier: int, first: int):
    """To read a byte for computing: what lies below the first usable tier passes the links up to it."""
    rate = machine.tiers.bytes_per_s[tier]
    for t in range(first + 1, tier + 1):
        rate = jnp.minimum(rate, machine.tiers.copy_bytes_per_s[t])
    return 1.0 / rate


def residency(
    machine: Machine, weights, kv, activations, *, offload: bool = False, kv_tier: int | None = None
) -> Residency:
    """Weights first, then the KV cache, then activations, each from the fastest tier on that has room; `kv_tier`: the cache begins there.

    Amounts of one device, elementwise. `offload`: tiers behind the host are used too.
    """
    tiers = usable(machine, offload or kv_tier is not None)
    first = tiers[0]
    if kv_tier is not None and kv_tier not in tiers:
        raise ValueError(f"{machine.name}: tier {machine.tier_names[kv_tier]} cannot hold the KV cache")
    room = {t: machine.tiers.capacity_bytes[t] for t in tiers}
    columns: list[list[Any]] = []
    short: Any = 0.0
    for amount, begin in ((weights, first), (kv, first if kv_tier is None else kv_tier), (activations, first)):
        left: Any = amount
        row: list[Any] = []
        for t in range(len(machine.tier_names)):
            taken: Any = jnp.minimum(left, room[t]) if t in room and t >= begin else jnp.zeros_like(left * 1.0)
            if t in room:
                room[t] = room[t] - taken
            left = left - taken
            row.append(taken)
        short = short + left
        columns.append(row)
    each = {t: seconds_per_byte(machine, t, first) for t in tiers}

    def mean(row, amount):
        """Time of what is placed, over what is placed; all in the first tier where there is nothing."""
        total = sum(row[t] * each[t] for t in tiers)
        placed = sum(row[t] for t in tiers)
        return jnp.where(placed > 0, total / jnp.maximum(placed, 1e-30), each[first])

    held = jnp.stack([jnp.stack([jnp.asarray(x * 1.0) for x in row], axis=-1) for row in columns], axis=-2)
    return Residency(held, short, mean(columns[0], weights), mean(columns[1], kv))
