"""Memory outside the chiplets: tiers from the fastest to the largest."""

from dataclasses import fields

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float


class MemoryTiers(eqx.Module):
    """`T` tiers, the fastest first. Amounts are the whole package's; `usd`: price of the devices. `static_w`: standby and refresh.

    - `bytes_per_s, write_bytes_per_s`: reading and writing.  `latency_s`: of an access.
    - `share`: of a tier's capacity and bandwidth, what one chiplet has: 1 where all share it, 1 / D where each of D has its own.
    - `copy_bytes_per_s`: from a tier to the one before it (faster), and back; of the first: to the chiplets, its own bandwidth.
    - `ops_per_s`: of processing inside the memory, 2 a multiply-accumulate; 0: none.
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

    @property
    def n_tiers(self) -> int:
        return len(self.names)

    def only(self, tiers) -> "MemoryTiers":
        """Some of the tiers, by index; what is copied into the first of them is its own bandwidth."""
        tiers = list(tiers)
        leaves = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "names"}
        return MemoryTiers(
            **{name: x[np.asarray(tiers)] for name, x in leaves.items()}, names=tuple(self.names[t] for t in tiers)
        )
