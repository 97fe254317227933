"""Memory outside the chiplets: tiers from the fastest to the largest."""

from dataclasses import fields

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class MemoryTiers(eqx.Module):
    """`T` tiers, the fastest first. Amounts are the whole package's; `usd`: price of the devices. `static_w`: standby and refresh.

    - `bytes_per_s, write_bytes_per_s`: reading and writing.  `latency_s`: of an access.
    - `share`: of a tier's capacity and bandwidth, what one chiplet has: 1 where all share it, 1 / D where each of D has its own.
    - `copy_bytes_per_s`: from a tier to the one before it (faster), and back; of the first: to the chiplets, its own bandwidth.
    - `ops_per_s`: of processing inside the memory, 2 a multiply-accumulate; 0: none.
    - `names, own`: static. `own[t]`: every chiplet has a tier t of its own (`share` says how much); (): all tiers are shared.
    """

    capacity_bytes: Float[Array, "T"]
    bytes_per_s: Float[Array, "T"]
    latency_s: Float[Array, "T"]
    j_per_byte: Float[Array, "T"]
    static_w: Float[Array, "T"]
    usd: Float[Array, "T"]
    write_bytes_per_s: Float[Array, "T"]
    copy_bytes_per_s: Float[Array, "T"]
    share: Float[Array, "T"]
    ops_per_s: Float[Array, "T"]
    names: tuple[str, ...] = eqx.field(static=True)
    own: tuple[bool, ...] = eqx.field(static=True, default=())

    @property
    def n_tiers(self) -> int:
        return self.latency_s.shape[-1]

    def is_own(self, tier: int) -> bool:
        """Whether every chiplet has a tier of this index of its own."""
        return bool(self.own) and self.own[tier]

    def access_bytes_per_s(self, dtype=None, *, of_one: bool = False) -> tuple[Float[Array, "T"], Float[Array, "T"]]:
        """Reading and writing, as the chiplets see it: a tier's own bandwidth, or the narrowest copy link between it and the first
        tier if that is less. `of_one`: what one chiplet gets alone; else all together."""
        dtype = jnp.result_type(float) if dtype is None else dtype
        read, write, copy, share = (
            jnp.asarray(x, dtype) for x in (self.bytes_per_s, self.write_bytes_per_s, self.copy_bytes_per_s, self.share)
        )
        if of_one:
            read, write, copy = read * share, write * share, copy * share
        if self.n_tiers == 1:
            return read, write
        way = jax.lax.cummin(copy.at[0].set(jnp.inf))
        return jnp.minimum(read, way), jnp.minimum(write, way)

    def only(self, tiers) -> "MemoryTiers":
        """Some of the tiers, by index; what is copied into the first of them is its own bandwidth."""
        tiers = list(tiers)
        leaves = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("names", "own")}
        return MemoryTiers(
            **{name: x[np.asarray(tiers)] for name, x in leaves.items()}, names=tuple(self.names[t] for t in tiers),
            own=tuple(self.own[t] for t in tiers) if self.own else (),
        )  # fmt: skip
