"""The cost table with mappings that were searched for: the mapper once, then its loop nests priced on any hardware."""

from zlib import crc32

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ...hardware import DATAFLOWS, Chiplets, MemoryTiers, System
from ...workload import Operators, Workload
from .._columns import with_sub_batch
from ._chiplet_machine import BUFFER, chiplet_machine, table_conventions, unrolling
from ._cost import loopnest_cost
from ._mapper import map_operators
from ._nest import LoopNest, Problem, problem

_READ, _WRITE = 0, 1  # the buffer's side towards the array; what crosses the other side belongs to the schedule


class Mappings(eqx.Module):
    """Loop nests of `L` operators on `K` chiplet types (axes `..., L, K`); `fits`: one was found that fits.

    Discrete and fixed: priced again on changed hardware they give gradients; after large changes map again.
    """

    nest: LoopNest
    fits: Bool[Array, "L K"]
    sub_batch: int = eqx.field(static=True)
    dataflows: tuple[str, ...] = eqx.field(static=True)
    work: int = eqx.field(static=True)  # fingerprint of the operators they were made for


class NestCosts(eqx.Module):
    """What nests cost, `L x K`: cycles of the array, buffer bytes towards it, joules on chip, fetches of each operand."""

    cycles: Array
    buffer_bytes: Array
    onchip_j: Array
    input_refetch: Array
    weight_refetch: Array


def map_workload(
    workload: Workload, system: System, objective: str = "edp", *, sub_batch: int = 1, population: int = 256,
    generations: int = 50, seed: int = 0,
) -> Mappings:  # fmt: skip
    """The best loop nest of every matrix operator on every chiplet type of `system` (operators alike are mapped once).

    **Arguments:** `objective`: latency, energy or edp, of the operator alone with its operands in memory.
    Raises ValueError for an unknown objective, a workload without matrix operators, or a type whose dataflow it does not know.
    """
    if not np.any(np.asarray(workload.operators.is_matrix) > 0):
        raise ValueError("the mapper maps matrix operators; the workload has none")
    operators = with_sub_batch(workload.operators, sub_batch)
    problems = jax.tree.map(np.asarray, problem(operators))
    columns = np.concatenate([np.atleast_2d(x) for x in jax.tree.leaves(problems)])
    matrix = np.flatnonzero(np.asarray(operators.is_matrix) > 0)
    _, first, of = np.unique(columns[:, matrix], axis=1, return_index=True, return_inverse=True)
    some = jax.tree.map(lambda x: x[..., matrix[first]], problems)
    kinds = [DATAFLOWS[int(code)] for code in np.asarray(system.types.dataflow)]
    machines = [chiplet_machine(flow, system.types.pick(k), system.memory) for k, flow in enumerate(kinds)]
    nests, fits = [], []
    for flow, machine in zip(kinds, machines, strict=True):
        found = map_operators(
            some,
            machine,
            unrolling(flow),
            objective,
            how=table_conventions(flow),
            population=population,
            generations=generations,
            seed=seed,
        )
        # vector rows get the nest of the first matrix row: nobody reads it
        place = np.zeros(len(operators), int)
        place[matrix] = of
        nests.append(jax.tree.map(lambda x, place=place: x[..., place], found.nest))
        fits.append(np.where(np.asarray(operators.is_matrix) > 0, found.fits[place], True))
    nest = jax.tree.map(lambda *x: np.stack(x, axis=-1), *nests)
    return Mappings(nest, np.stack(fits, axis=-1), sub_batch, tuple(kinds), work_of(workload.operators))


def work_of(operators: Operators) -> int:
    """Fingerprint of the loop bounds and precisions of operators (on the host)."""
    fields = (
        "kind",
        "groups",
        "batch",
        "k",
        "c",
        "p",
        "q",
        "r",
        "s",
        "stride",
        "in_bits",
        "weight_bits",
        "psum_bits",
        "out_bits",
    )
    return crc32(np.concatenate([np.asarray(getattr(operators, name), np.float64) for name in fields]).tobytes())


def nest_costs(operators: Operators, chiplets: Chiplets, memory: MemoryTiers, mappings: Mappings, kind) -> NestCosts:
    """Price nests on `D` chiplets of the mapped types `kind[d]`, differentiable in every field of `chiplets` and `memory`."""
    size, found = problem(operators), []
    for d, k in enumerate(kind):
        nest = jax.tree.map(lambda x, k=k: x[..., k], mappings.nest)
        flow = mappings.dataflows[k]
        found.append(_priced(size, nest, chiplet_machine(flow, chiplets.pick(d), memory), flow))
    return jax.tree.map(lambda *x: jnp.stack(x, axis=-1), *found)


def _priced(size: Problem, nest: LoopNest, machine, flow: str) -> NestCosts:
    cost = loopnest_cost(size, nest, machine, table_conventions(flow))
    at = BUFFER[flow]
    inside = jnp.zeros_like(cost.cycles)
    buffer_bytes, fetched = inside, []
    for t, operand in enumerate("WIO"):
        level = at[operand]
        for below in range(level):
            inside = inside + cost.energy_j[t, below]
        moved = cost.accesses[t, level, _READ] + cost.accesses[t, level, _WRITE]
        buffer_bytes = buffer_bytes + moved
        inside = (
            inside
            + cost.accesses[t, level, _READ] * machine.read_j[t, level]
            + cost.accesses[t, level, _WRITE] * machine.write_j[t, level]
        )
        fetched.append(cost.accesses[t, level + 1, _READ])
    weights, inputs, spilled = fetched
    spilled = 2 * spilled  # sums that did not fit go out and come back; the schedule carries them with the inputs
    g, n, k, c, p, q, r, s = size.sizes
    held_weights = g * k * c * r * s * size.weight_bits / 8
    sides = size.input_size
    held_inputs = g * n * c * sides[0] * sides[1] * size.input_bits / 8
    return NestCosts(
        cycles=cost.compute_cycles,
        buffer_bytes=buffer_bytes,
        onchip_j=inside + jnp.prod(size.sizes, axis=0) * machine.mac_j,
        # a mapping never reads less than everything once; skipped rows and padding make the two differ a little
        input_refetch=jnp.maximum((inputs + spilled) / held_inputs, 1.0),
        weight_refetch=jnp.maximum(weights / held_weights, 1.0),
    )
