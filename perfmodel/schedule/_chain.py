"""The smallest useful schedule cost: a chain of roofline operators on chiplets, a link where neighbours are apart.

Answers in a tenth of a microsecond what a pipeline's period and energy would be if memory, buffers and residual edges did not
matter: a screen before `evaluate`, and the yardstick of kernel forms (benchmarks/schedules_per_second.py, benchmarks/gpu.py).
One candidate; `chain_many` batches it, in either form.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class ChainOperators(NamedTuple):
    """`L` operators: MACs, bytes touched on chip, and bytes handed to the next operator."""

    macs: Float[Array, "L"]
    touched_bytes: Float[Array, "L"]
    handed_bytes: Float[Array, "L"]


class ChainHardware(NamedTuple):
    """`D` chiplets and the links between them."""

    macs_per_s: Float[Array, "D"]
    bytes_per_s: Float[Array, "D"]
    mac_j: Float[Array, "D"]
    byte_j: Float[Array, "D"]
    link_bytes_per_s: Float[Array, "D"]
    link_j_per_byte: Float[Array, "D"]


def chain_costs(op: ChainOperators, chip: ChainHardware, before_bytes):
    """Elementwise: seconds and joules of an operator whose input is there, and what its input costs to fetch over the link."""
    # Williams et al. 2009: the larger of compute and memory time
    stay_s = jnp.maximum(op.macs / chip.macs_per_s, op.touched_bytes / chip.bytes_per_s)
    stay_j = op.macs * chip.mac_j + op.touched_bytes * chip.byte_j
    return stay_s, stay_j, before_bytes / chip.link_bytes_per_s, before_bytes * chip.link_j_per_byte


def chain_table(op: ChainOperators, hardware: ChainHardware) -> Float[Array, "L D 4"]:
    """Per operator and chiplet: seconds, joules; the same if the operator before is elsewhere."""
    before = jnp.concatenate([jnp.zeros(1, op.handed_bytes.dtype), op.handed_bytes[:-1]])
    rows = jax.tree.map(lambda x: x[:, None], op)
    stay_s, stay_j, link_s, link_j = chain_costs(rows, hardware, before[:, None])
    return jnp.stack([stay_s, stay_j, stay_s + link_s, stay_j + link_j], axis=-1)


def chain_period_and_energy(assignment: Int[Array, "L"], table: Float[Array, "L D 4"], *, unroll: int | bool = 1):
    """Period (busiest chiplet) and energy of one assignment, through the table."""
    n = table.shape[1]

    def step(carry, row):
        where, cost = row
        return _add(carry, where, [tuple(cost[d, i] for i in range(4)) for d in range(n)]), None

    return _scan(step, (assignment, table), assignment[0], n, table.dtype, unroll)


def chain_recomputed(
    assignment: Int[Array, "L"], op: ChainOperators, hardware: ChainHardware, *, unroll: int | bool = 1
):
    """The same with costs made inside, for hardware that differs from candidate to candidate."""
    n = hardware.macs_per_s.shape[0]
    chips = [jax.tree.map(lambda x, d=d: x[d], hardware) for d in range(n)]
    before = jnp.concatenate([jnp.zeros(1, op.handed_bytes.dtype), op.handed_bytes[:-1]])

    def step(carry, row):
        where, one, came = row
        made = [chain_costs(one, chip, came) for chip in chips]
        return _add(carry, where, [(s, j, s + ls, j + lj) for s, j, ls, lj in made]), None

    return _scan(step, (assignment, op, before), assignment[0], n, op.macs.dtype, unroll)


def chain_gathered(assignment: Int[Array, "L"], table: Float[Array, "L D 4"]):
    """The table form without a loop: look up, then reduce; one fused program on a GPU, slow on a CPU."""
    n = table.shape[1]
    where = assignment.astype(jnp.int32)
    moved = jnp.concatenate([jnp.zeros(1, bool), where[1:] != where[:-1]])
    picked = table[jnp.arange(len(where)), where]
    seconds = jnp.where(moved, picked[:, 2], picked[:, 0])
    joules = jnp.where(moved, picked[:, 3], picked[:, 1])
    busy = [jnp.sum(jnp.where(where == d, seconds, 0.0)) for d in range(n)]
    return functools.reduce(jnp.maximum, busy), jnp.sum(joules)


def _add(carry, where, costs):
    busy, joules, previous = carry
    moved = where != previous
    here = [where == d for d in range(len(costs))]
    # one look-up of each quantity: a select over few chiplets beats a gather
    seconds = [jnp.where(moved, c[2], c[0]) for c in costs]
    energy = functools.reduce(
        lambda got, d: jnp.where(here[d], jnp.where(moved, costs[d][3], costs[d][1]), got), range(len(costs)), 0.0
    )
    return tuple(jnp.where(h, b + s, b) for h, b, s in zip(here, busy, seconds, strict=True)), joules + energy, where


def _scan(step, rows, first, n, dtype, unroll):
    zero = jnp.zeros((), dtype)
    (busy, joules, _), _ = jax.lax.scan(step, ((zero,) * n, zero, first), rows, unroll=unroll)
    return functools.reduce(jnp.maximum, busy), joules


@functools.partial(jax.jit, static_argnames="kernel")
def chain_many(assignment: Int[Array, "L B"], table: Float[Array, "L D 4"], *, kernel: str = "scan"):
    """Periods and energies of `B` assignments (candidates last). `kernel`: `scan`, `fused` (steps unrolled) or `gather`."""
    if kernel == "gather":
        return jax.vmap(chain_gathered, in_axes=(1, None))(assignment, table)
    one = functools.partial(chain_period_and_energy, unroll=True if kernel == "fused" else 1)
    return jax.vmap(one, in_axes=(1, None))(assignment, table)


@functools.partial(jax.jit, static_argnames="kernel")
def chain_many_recomputed(
    assignment: Int[Array, "L B"], op: ChainOperators, hardware: ChainHardware, *, kernel: str = "scan"
):
    """The same with hardware per candidate: every field of `hardware` is `D x B`."""
    one = functools.partial(chain_recomputed, unroll=True if kernel == "fused" else 1)
    return jax.vmap(one, in_axes=(1, None, 1))(assignment, op, hardware)
