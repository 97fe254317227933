"""A fabric on which everything can be worked out by hand."""

import jax.numpy as jnp

from perfmodel.schedule.spatial import Fabric


def make_fabric(**leaves) -> Fabric:
    """16 units of 8 MACs and 2 lanes at 1 GHz, 1 MB of SRAM, 10 GB/s of memory, 2 us a launch."""
    values = dict(
        units=16.0, unit_macs=8.0, unit_lanes=2.0, clock_hz=1e9, sram_bytes=1e6, chunk_bytes=1e3, memory_bytes_per_s=1e10,
        memory_bytes=1e9, next_bytes_per_s=1e9, link_bytes_per_s=1e9, hop_s=1e-6, sockets=1.0, launch_s=2e-6, stage_s=0.0,
    )  # fmt: skip
    return Fabric(**{name: jnp.asarray(float(value)) for name, value in (values | leaves).items()})
