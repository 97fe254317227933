"""Accesses, energy, latency and fit of a counted loop nest on its machine."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ...hardware import Hierarchy
from ._counts import Counts, counts, lift
from ._nest import Conventions, LoopNest, Problem

_WRITES = np.asarray([0.0, 1.0, 0.0, 1.0])  # by direction, see hardware.DIRECTIONS


class NestCost(NamedTuple):
    """What a loop nest costs. Axes as in `Counts`.

    - `accesses[t, l, way]`: of the port's full width, all units.  `energy_j[t, l]` by operand and level; `total_j` with the MACs.
    - `cycles`: latency; `compute_cycles`: of the loops alone; `busy_cycles[p]`: of each port, one unit.
    - `used_bits[m]`: held in one unit of each memory.  `fits`: no memory holds more than it can, and no more is
      unrolled than the array has places.
    """

    accesses: Float[Array, "3 levels 4 ..."]
    energy_j: Float[Array, "3 levels ..."]
    total_j: Float[Array, "..."]
    cycles: Float[Array, "..."]
    compute_cycles: Float[Array, "..."]
    busy_cycles: Float[Array, "ports ..."]
    used_bits: Float[Array, "memories ..."]
    fits: Bool[Array, "..."]


def loopnest_cost(problem: Problem, nest: LoopNest, machine: Hierarchy, how: Conventions, drain_cycles=0.0) -> NestCost:
    """Cost of one mapping of one operator (trailing axes: many).

    **Arguments:** `how`: conventions, static.  `drain_cycles`: to empty the array itself at the end (systolic arrays).

    Latency, unless `how.steady`: the first tile arrives; then the loops or the busiest port on the chip, whichever is slower;
    then the last results leave; and no less than the outermost memory needs in all. Transfers are double-buffered.
    """
    found = counts(problem, nest, machine, how)
    n = found.cycles.ndim
    accesses = _accesses(found, machine, how, n)
    writes = _WRITES.reshape(1, 1, 4, *(1,) * n)
    price = jnp.where(writes > 0, lift(machine.write_j, 2, n)[:, :, None], lift(machine.read_j, 2, n)[:, :, None])
    energy = jnp.sum(accesses * price, axis=2)

    bandwidth = lift(machine.bits_per_cycle, 3, n)
    if how.rounding == "each":
        each = _whole(found.amount * found.bits / bandwidth)
        period, repeated = each * found.times, each * jnp.maximum(found.times - 1.0, 0.0)
    else:
        period = found.total * found.bits / (bandwidth * found.units[:, :, None])
        repeated = period
    busy = _per_port(machine.uses, period, n)
    if how.steady:
        # Timeloop's arithmetic, whose rounding errors its last ceiling shows: the share of full speed, then the cycles
        slowest = jnp.max(_per_port(machine.uses, period / found.cycles, n), axis=0)
        cycles = found.cycles / jnp.minimum(1.0, 1.0 / _positive(slowest))
        cycles = cycles if how.rounding == "none" else cycles + jax.lax.stop_gradient(jnp.ceil(cycles) - cycles)
    else:
        outermost = lift(machine.outermost, 1, n) > 0
        fill, drain = _ends(found, machine, how, n)
        on_chip = jnp.max(jnp.where(outermost, 0.0, _per_port(machine.uses, repeated, n)), axis=0)
        inside = fill + jnp.maximum(found.cycles, on_chip) + drain + drain_cycles
        cycles = jnp.maximum(inside, jnp.max(jnp.where(outermost, busy, 0.0), axis=0))

    at_rest = jnp.stack([found.bits[0, :, 0], found.bits[1, :, 0], found.sum_bits])
    stores = machine.stores
    used = _matmul(stores, found.tile * at_rest, 2, n)
    room = lift(machine.capacity_bits, 1, n)
    at_once = jnp.prod(lift(nest.spatial_factor, 1, n), axis=0)
    placed = at_once <= lift(jnp.prod(jnp.asarray(machine.array), axis=0), 0, n) * (1 + 1e-6)
    return NestCost(
        accesses=accesses,
        energy_j=energy,
        total_j=jnp.sum(energy, axis=(0, 1)) + found.macs * lift(machine.mac_j, 0, n),
        cycles=cycles,
        compute_cycles=found.cycles,
        busy_cycles=busy,
        used_bits=used,
        fits=jnp.all(used <= room * (1 + 1e-6), axis=0) & placed,
    )


def _accesses(found: Counts, machine: Hierarchy, how: Conventions, n: int):
    width, least = lift(machine.access_bits, 3, n), lift(machine.min_bits, 3, n)
    if how.rounding == "each":
        moved = _whole(found.amount * found.bits / least) * (least / width)
        return _floor(moved * found.times * found.units[:, :, None])
    accesses = found.total * found.bits / width
    return _whole(accesses) if how.rounding == "total" else accesses


def _ends(found: Counts, machine: Hierarchy, how: Conventions, n: int):
    """Cycles until the first tile of weights and of inputs has come all the way, and for the last outputs to leave."""
    bandwidth = lift(machine.bits_per_cycle, 3, n)
    held = lift(machine.held, 2, n)
    beyond = held & (jnp.arange(held.shape[1]).reshape(1, -1, *(1,) * n) > 0)
    down = found.feeds[:2, None] * found.bits[:2, :, 0] / bandwidth[:2, :, 0]
    up = found.feeds[2] * found.bits[2, :, 2] / bandwidth[2, :, 1]
    down, up = (_whole(x) for x in (down, up)) if how.rounding == "each" else (down, up)
    fill = jnp.max(jnp.sum(jnp.where(beyond[:2], down, 0.0), axis=1), axis=0)
    return fill, jnp.sum(jnp.where(beyond[2], up, 0.0), axis=0)


def _per_port(uses, cycles, n: int):
    return _matmul(uses, cycles, 3, n)


def _matmul(weights, values, structural: int, n: int):
    """Sum over the structural axes of `values`, for each row of `weights` (shared by the batch, or one a batch element)."""
    weights = jnp.asarray(weights)
    if weights.ndim == structural + 1:  # shared: one matrix product
        columns = values.reshape(weights[0].size, -1)
        flat = jnp.matmul(weights.reshape(weights.shape[0], -1), columns, precision=jax.lax.Precision.HIGHEST)
        return flat.reshape(weights.shape[0], *values.shape[structural:])
    return jnp.sum(lift(weights, structural + 1, n) * values, axis=tuple(range(1, structural + 1)))


def _whole(x):
    """The next whole number up; gradients pass straight through."""
    return x + jax.lax.stop_gradient(jnp.ceil(x * (1 - _noise(x))) - x)


def _floor(x):
    return x + jax.lax.stop_gradient(jnp.floor(x * (1 + _noise(x))) - x)


def _positive(x) -> jax.Array:
    return jnp.asarray(jnp.where(x > 0, x, 1.0))


def _noise(x):
    """What rounding alone may have moved a whole number by."""
    return 8 * jnp.finfo(x.dtype).eps
