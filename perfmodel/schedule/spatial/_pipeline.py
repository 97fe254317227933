"""The time of a group of operators as a spatial pipeline on one socket: pure JAX, written for one group."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._allot import allot
from ._fabric import Fabric
from ._groups import Group


class GroupCost(NamedTuple):
    """Of one kernel. `time_s` = max(`compute_s`, `memory_s`, `link_s`) + `launch_s`; infinite where it cannot run.

    - `compute_s`: of the pipeline, from its first tile to its last.  `memory_s`: bytes from and to memory.  `link_s`: between sockets.
    - `units[S]`: of each stage.  `tile`: which size of tile (index into `BLOCKS`).  `fits`: in SRAM, with a unit for each stage.
    - `memory_bytes`.  `sram_bytes`: held, with that tile.
    """

    time_s: Float[Array, ""]
    compute_s: Float[Array, ""]
    memory_s: Float[Array, ""]
    link_s: Float[Array, ""]
    launch_s: Float[Array, ""]
    memory_bytes: Float[Array, ""]
    sram_bytes: Float[Array, ""]
    units: Float[Array, "S"]
    tile: Int[Array, ""]
    fits: Bool[Array, ""]


def unit_seconds(macs, lane_ops, reuse, fabric: Fabric):
    """Seconds of a row on one unit (elementwise). A unit takes in as many weights a cycle as it has lanes."""
    rate = jnp.minimum(fabric.unit_macs, jnp.maximum(reuse, 1.0) * fabric.unit_lanes)
    return (macs / rate + lane_ops / fabric.unit_lanes) / fabric.clock_hz


def collective_s(link_bytes: Float[Array, "S 2"], hops: Float[Array, "S 2"], fabric: Fabric) -> Float[Array, "S"]:
    """Seconds of collectives, the better of their two ways."""
    return jnp.min(link_bytes / fabric.link_bytes_per_s + hops * fabric.hop_s, axis=-1)


def timeline_s(
    busy: Float[Array, "S"], inputs: Int[Array, "S I"], grain: Float[Array, "S I"], stage_s
) -> Float[Array, ""]:
    """When the last stage has finished, all working at the same time, each for `busy` seconds at an even pace.

    A stage begins when it has the first `grain` of each input, and needs `grain` of its time after the last of them has come:
    `start = max(start_p + grain busy_p)`, `finish = max(start + busy, finish_p + grain busy)`, both + `stage_s`. A chain of `S` like
    stages and `T` tiles (grain 1/T) takes `busy (1 + (S - 1) / T)`; a tensor that must be there whole (grain 1) makes its reader wait.
    """
    size = busy.shape[0]

    def step(carry, stage):
        start, finish, done = carry
        i, time, from_, need = stage
        at, there = jnp.maximum(from_, 0), from_ >= 0
        begun = jnp.max(jnp.where(there, start[at] + need * busy[at], 0.0), initial=0.0)
        ended = jnp.max(jnp.where(there, finish[at] + need * time, 0.0), initial=0.0)
        mine = begun + stage_s * (time > 0)
        end = jnp.maximum(mine + time, ended + stage_s * (time > 0))
        return (start.at[i].set(mine), finish.at[i].set(end), jnp.maximum(done, end)), None

    none = jnp.zeros(size, busy.dtype)
    stages = (jnp.arange(size), busy, inputs, grain)
    (_, _, done), _ = jax.lax.scan(step, (none, none, jnp.zeros((), busy.dtype)), stages)
    return done


def pipeline_s(
    group: Group, fabric: Fabric, *, smooth: bool = False
) -> tuple[Float[Array, "K"], Float[Array, "S"], Float[Array, ""]]:
    """(seconds of the pipeline by size of tile, units of each stage, seconds on the links) of one group.

    `smooth` (static): units may be divided, with gradients."""
    work = unit_seconds(group.macs, group.lane_ops, group.reuse, fabric) * group.here
    units = allot(work, fabric.units, smooth=smooth)
    links = collective_s(group.link_bytes, group.hops, fabric) * group.here
    busy = jnp.maximum(jnp.where(work > 0, work / jnp.where(units > 0, units, 1.0), 0.0), links)
    times = jax.vmap(lambda grain: timeline_s(busy, group.inputs, grain, fabric.stage_s))(group.grain)
    possible = jnp.sum(work > 0) <= fabric.units
    return jnp.where(possible, times, jnp.inf), units, jnp.sum(links)


def memory_seconds(nbytes, spilled, fabric: Fabric):
    """Seconds of bytes from and to memory, of which `spilled` (a share) lie in the slower tier."""
    return nbytes * ((1.0 - spilled) / fabric.memory_bytes_per_s + spilled / fabric.next_bytes_per_s)


def bytes_of(group: Group, fabric: Fabric):
    """(bytes from and to memory, SRAM bytes by size of tile, whether they fit). A row alone whose weights and inputs are both larger
    than the SRAM fetches the cheaper of them once a block of the other, and always fits."""
    room = fabric.sram_bytes
    held = group.sram_bytes + jnp.minimum(2.0 * fabric.chunk_bytes * group.chunks, jnp.maximum(group.weight_bytes, 0.0))
    again = jnp.minimum(
        group.read_bytes * (jnp.ceil(group.weight_bytes / room) - 1.0),
        group.weight_bytes * (jnp.ceil(group.read_bytes / room) - 1.0),
    )
    more = group.single * group.passes * jnp.maximum(again, 0.0)
    fits = (held <= room) | (group.single > 0)
    return group.read_bytes + group.write_bytes + group.weight_bytes + more, held, fits


def group_cost(group: Group, fabric: Fabric, *, spilled=0.0, smooth: bool = False) -> GroupCost:
    """The cost of one kernel; `vmap` over stacked groups. `spilled`: share of memory bytes in the slower tier.

    The largest of three streams that overlap, each counted once: the pipeline (slowest stage and fill), memory, links; then the launch.
    Of the sizes of tile the fastest that fits. `smooth` (static): units may be divided, with gradients.
    """
    times, units, links = pipeline_s(group, fabric, smooth=smooth)
    nbytes, held, fits = bytes_of(group, fabric)
    times = jnp.where(fits, times, jnp.inf)
    tile = jnp.argmin(jax.lax.stop_gradient(times))
    memory = memory_seconds(nbytes, spilled, fabric)
    return GroupCost(
        time_s=jnp.maximum(jnp.maximum(times[tile], memory), links) + fabric.launch_s,
        compute_s=times[tile], memory_s=memory, link_s=links, launch_s=fabric.launch_s * jnp.ones_like(memory), memory_bytes=nbytes,
        sram_bytes=held[tile], units=units, tile=tile, fits=jnp.isfinite(times[tile]),
    )  # fmt: skip
