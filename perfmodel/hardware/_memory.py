"""Memory outside the chiplets."""

import equinox as eqx
from jaxtyping import Array, Float


class MemoryTiers(eqx.Module):
    """`T` tiers; bandwidth is the whole package's. `usd`: price of the devices. `static_w`: standby and refresh."""

    capacity_bytes: Float[Array, "T"]
    bytes_per_s: Float[Array, "T"]
    latency_s: Float[Array, "T"]
    j_per_byte: Float[Array, "T"]
    static_w: Float[Array, "T"]
    usd: Float[Array, "T"]
    names: tuple[str, ...] = eqx.field(static=True)
