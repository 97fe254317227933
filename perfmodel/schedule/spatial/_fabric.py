"""The fabric of one socket: compute units to divide among operators, SRAM, memory, links to its peers, and what a launch costs."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._names import unknown_name
from ...hardware import System

LAUNCHES = ("software", "hardware")
# SN40L (arXiv 2405.07518) gives no seconds. Software: the host starts every kernel, the `launch` of the system file. Hardware: the
# sequence of kernels lies in the socket, which starts the next itself: two orders of magnitude less [assumed].
HARDWARE_SHARE = 0.01
STAGE_S = 100e-9  # through one stage: pipeline of a unit, network on the chip [assumed, some 150 cycles]
CHUNK_SHARE = 1.0  # memory of a unit's own that a stage takes for weights on their way through [assumed]


class Fabric(eqx.Module):
    """One socket of `sockets`; every leaf a scalar.

    - `units`: compute units (PCU).  `unit_macs, unit_lanes`: multiply-accumulates and lane operations of each, a cycle. A unit takes in
      `unit_lanes` weights a cycle: a product whose weights meet `r` rows does `min(unit_macs, r * unit_lanes)` a cycle.
    - `sram_bytes`: of the whole socket.  `chunk_bytes`: of it, what weights that only pass through a stage occupy.
    - `memory_bytes_per_s, memory_bytes`: first tier (HBM).  `next_bytes_per_s`: the tier behind it (DDR), for what does not fit.
    - `link_bytes_per_s, hop_s`: into, and out of, a socket; latency of a message.  `sockets`: that share a model.
    - `launch_s`: of a kernel.  `stage_s`: latency of a stage.
    """

    units: Float[Array, ""]
    unit_macs: Float[Array, ""]
    unit_lanes: Float[Array, ""]
    clock_hz: Float[Array, ""]
    sram_bytes: Float[Array, ""]
    chunk_bytes: Float[Array, ""]
    memory_bytes_per_s: Float[Array, ""]
    memory_bytes: Float[Array, ""]
    next_bytes_per_s: Float[Array, ""]
    link_bytes_per_s: Float[Array, ""]
    hop_s: Float[Array, ""]
    sockets: Float[Array, ""]
    launch_s: Float[Array, ""]
    stage_s: Float[Array, ""]


def fabric(system: System, *, sockets: int | None = None, launch: str | float = "software") -> Fabric:
    """The fabric of a system whose chiplets are all alike; rows of its array are the units. Differentiable in every leaf.

    **Arguments:** `sockets`: that share the model (None: all chiplets); may pass the chiplets of the system, which then stand for
    several such packages behind links alike. `launch`: `software`, `hardware` or seconds.

    Raises ValueError for GPUs, unlike chiplets, an unknown or negative launch, sockets below 1, and for several sockets without links.
    """
    chips, memory, package = system.chiplets, system.memory, system.package
    if any(system.gpu_names):
        raise ValueError(f"{system.name}: streaming needs chiplets whose array can be divided; its chiplets are GPUs")
    if len(set(np.asarray(system.kind).tolist())) > 1:
        raise ValueError(f"{system.name}: streaming needs chiplets of one type; it has {', '.join(system.type_names)}")
    n = system.n_chiplets if sockets is None else sockets
    if isinstance(n, bool) or n != int(n) or n < 1:
        raise ValueError(f"sockets is {sockets!r}; allowed: an integer of at least 1")
    if n > 1 and system.n_chiplets == 1:
        raise ValueError(
            f"{system.name}: one chiplet without links to others; {n} sockets need a system that has links"
        )
    if isinstance(launch, str):
        if launch not in LAUNCHES:
            raise unknown_name("launch", launch, LAUNCHES)
        launch_s = chips.launch_s[0] * (HARDWARE_SHARE if launch == "hardware" else 1.0)
    elif launch < 0:
        raise ValueError(f"launch is {launch} s; allowed: at least 0")
    else:
        launch_s = launch
    behind = 1 if memory.n_tiers > 1 else 0
    each = jnp.where(memory.share < 1.0, memory.share, 1.0 / system.n_chiplets)  # what all share is divided among them
    units = chips.rows[0]
    return Fabric(
        units=units, unit_macs=chips.columns[0], unit_lanes=chips.lanes[0] / units, clock_hz=chips.clock_hz[0],
        sram_bytes=chips.buffer_bytes[0], chunk_bytes=CHUNK_SHARE * chips.buffer_bytes[0] / units,
        memory_bytes_per_s=memory.bytes_per_s[0] * each[0], memory_bytes=memory.capacity_bytes[0] * each[0],
        next_bytes_per_s=memory.bytes_per_s[behind] * each[behind], link_bytes_per_s=package.port_bytes_per_s, hop_s=package.hop_s,
        sockets=jnp.asarray(float(n)), launch_s=jnp.asarray(launch_s), stage_s=jnp.asarray(STAGE_S),
    )  # fmt: skip
