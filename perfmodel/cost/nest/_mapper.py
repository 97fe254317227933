"""The mapper: for each operator the loop nest with the least latency, energy or energy-delay product on a machine.

Evolution of whole populations inside one compiled program: every candidate is counted by the loop-nest model itself.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...hardware import Hierarchy
from ._cost import loopnest_cost
from ._map_space import SLOTS, Genome, decoded, random_genomes, spaces
from ._nest import OURS, Conventions, LoopNest, Problem

OBJECTIVES = ("latency", "energy", "edp")
_WEIGHTS = {"latency": (1.0, 1e-3), "energy": (1e-3, 1.0), "edp": (1.0, 1.0)}  # ties go to the other figure
_MUTATIONS = 2
_LEAST_SHARE_LOG = 10.0  # an operand may keep as little as exp(-10) of a memory: a small first tile arrives sooner
_MOST = 1 << 15  # candidates of a population
_CHUNK = 8  # operators of one call


class Mapping(NamedTuple):
    """Best mappings of `L` operators: loop nests (trailing axis `L`), cycles, energy and whether they fit the machine."""

    nest: LoopNest
    cycles: Float[np.ndarray, "L"]
    energy_j: Float[np.ndarray, "L"]
    fits: np.ndarray
    evaluations: int


def map_operators(
    problems: Problem, machine: Hierarchy, unroll: dict[int, list[tuple[str, ...]]], objective: str = "edp", *,
    how: Conventions = OURS, drain_cycles=0.0, population: int = 256, generations: int = 60, seed: int = 0,
) -> Mapping:  # fmt: skip
    """The best mapping found for every operator (trailing axis `L` of `problems`).

    **Arguments:** `unroll`: the dataflow: for each array dimension the alternatives of what may be unrolled over it (see
    `spaces`).  `objective`: one of `OBJECTIVES`.  `how`: conventions of counting.  `population`, `generations`: effort; each
    choice of unrolling has a population of its own.

    Raises ValueError for an unknown objective, no operator, or an effort out of range.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective is {objective!r}; allowed: {', '.join(OBJECTIVES)}")
    if not 1 <= population <= _MOST:
        raise ValueError(f"population is {population}; allowed: 1 to {_MOST}")
    if generations < 1:
        raise ValueError(f"generations is {generations}; allowed: at least 1")
    rng = np.random.default_rng(seed)
    sizes = np.asarray(problems.sizes)
    if sizes.shape[1] == 0:
        raise ValueError("there is no operator to map")
    tasks = [(row, s) for row in range(sizes.shape[1]) for s in spaces(sizes[:, row], machine, unroll)]
    of_operator = np.asarray([row for row, _ in tasks])
    many = jax.tree.map(lambda *x: np.stack(x), *(s for _, s in tasks))
    start = jax.tree.map(
        lambda *x: np.stack(x), *(random_genomes(s, population, rng, np.shape(machine.held)[1]) for _, s in tasks)
    )
    each = jax.tree.map(lambda x: np.moveaxis(np.asarray(x), -1, 0)[of_operator], problems)
    drains = np.broadcast_to(np.asarray(drain_cycles, float), sizes.shape[1:])[of_operator]
    seeds = rng.integers(2**31, size=len(tasks), dtype=np.int32)
    given = jax.tree.map(_narrow, (each, many, start, seeds, drains))
    fixed = jax.tree.map(_narrow, (machine, np.asarray(_WEIGHTS[objective])))

    def evolve(first: int):
        some = np.minimum(np.arange(first, first + _CHUNK), len(tasks) - 1)  # as many always: one program for all
        mine = jax.tree.map(lambda x: x[some], given)
        with jax.enable_x64(double):  # a setting of the thread that asked
            return jax.tree.map(np.asarray, _evolve(*mine, *fixed, how, generations))

    double = jnp.result_type(float) == jnp.float64
    done = [evolve(0)]  # alone: threads that start together would each compile
    # a loop runs on one core: as many chunks at a time as there are cores
    with ThreadPoolExecutor(_cores()) as pool:
        done += pool.map(evolve, range(_CHUNK, len(tasks), _CHUNK))
    nests, costs = jax.tree.map(lambda *x: np.concatenate(x)[: len(tasks)], *done)
    score, cycles, energy, over = costs.T
    pick = [np.flatnonzero(of_operator == row) for row in range(sizes.shape[1])]
    pick = np.asarray([of[np.argmin(score[of])] for of in pick])
    nest = jax.tree.map(lambda x: np.moveaxis(x[pick], 0, -1), nests)
    return Mapping(nest, cycles[pick], energy[pick], over[pick] == 0, len(tasks) * population * generations)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _narrow(x):
    """On the host, in the precision of the computation: whole loops fit single precision."""
    x = np.asarray(x)
    return x.astype(jnp.result_type(float)) if np.issubdtype(x.dtype, np.floating) else x


@partial(jax.jit, static_argnames=("how", "generations"))
def _evolve(problems, many, start, seeds, drains, machine, weights, how: Conventions, generations: int):
    """One task after the other (its population stays in the cache); returns the best of each."""

    def task(args):
        problem, space, genome, seed, drain = args
        problem, space = (jax.tree.map(lambda x: x[..., None], x) for x in (problem, space))

        def generation(state, key):
            (parents, levels), costs, candidates = state
            nest = decoded(candidates, space, problem, machine)
            found = loopnest_cost(problem, nest, machine, how, drain)
            over = jnp.where(found.fits, 0.0, 20.0)  # worse than any mapping that fits
            score = weights[0] * jnp.log(found.cycles) + weights[1] * jnp.log(found.total_j) + over
            theirs = jnp.stack([score, found.cycles, found.total_j, over])
            # the better half of parents and children goes on: the best are never lost
            both = jnp.concatenate([costs, theirs], axis=1)
            keep = jnp.argsort(both[0])[:n]
            merged = Genome(*(jnp.concatenate(x, axis=-1)[..., keep] for x in zip(parents, candidates, strict=True)))
            levels, costs = jnp.concatenate([levels, nest.level], axis=-1)[..., keep], both[:, keep]
            return ((merged, levels), costs, children(merged, costs[0], key)), None

        n = genome.factor.shape[-1]
        levels = jnp.zeros((3, SLOTS, n), jnp.int8)
        start = (genome, levels), jnp.full((4, n), jnp.inf, genome.factor.dtype), genome
        ((genome, levels), costs, _), _ = jax.lax.scan(
            generation, start, jax.random.split(jax.random.key(seed), generations)
        )
        best = LoopNest(genome.dim, genome.factor, levels, space.spatial_dim, space.spatial_factor, space.spatial_level)
        return jax.tree.map(lambda x: x[..., 0], best), costs[:, 0]

    return jax.lax.map(task, (problems, many, start, seeds, drains))


def children(genome: Genome, score, key) -> Genome:
    """One child a place: a copy of the better of two parents, changed in up to `_MUTATIONS` places."""
    n = score.shape[0]
    # random numbers cost as much as counting: every word gives four draws of eight bits
    words = jax.random.bits(key, (1 + 2 * _MUTATIONS, n), jnp.uint32)
    rivals = jnp.stack([words[0] >> 16, words[0] & 0xFFFF]).astype(jnp.int32) * n >> 16
    parent = jnp.where(score[rivals[0]] <= score[rivals[1]], rivals[0], rivals[1])
    child = Genome(*(x[..., parent] for x in genome))
    for step in range(_MUTATIONS):
        draws = [
            (words[1 + 2 * step + k] >> s & 0xFF).astype(jnp.float32) / 256 for k in range(2) for s in (0, 8, 16, 24)
        ]
        child = _mutated(child, draws, always=step == 0)
    return child


def _mutated(genome: Genome, draw, always: bool) -> Genome:
    n = genome.factor.shape[-1]
    dim, factor, share = genome
    kind = draw[0] if always else draw[0] * 2  # above one: no change
    place = jnp.arange(SLOTS, dtype=jnp.int8)[:, None]
    i, j = (draw[k] * SLOTS for k in (1, 2))
    i, j = i.astype(jnp.int8), j.astype(jnp.int8)
    at_i, at_j = place == i, place == j
    dim_i, dim_j = (jnp.sum(jnp.where(at, dim, 0), axis=0, dtype=dim.dtype) for at in (at_i, at_j))
    factor_i, factor_j = (jnp.sum(jnp.where(at, factor, 0.0), axis=0) for at in (at_i, at_j))

    swap = kind < 0.4
    # hand a prime of loop i to loop j of the same dimension, or to an empty place
    move = (kind >= 0.4) & (kind < 0.7) & (i != j) & ((dim_i == dim_j) | (factor_j == 1))
    prime = _prime_of(factor_i, draw[3])
    new_i = jnp.where(swap, factor_j, jnp.where(move, factor_i / prime, factor_i))
    new_j = jnp.where(swap, factor_i, jnp.where(move, factor_j * prime, factor_j))
    into_i, into_j = jnp.where(swap, dim_j, dim_i), jnp.where(swap | move, dim_i, dim_j)
    factor = jnp.where(at_j, new_j, jnp.where(at_i, new_i, factor))
    dim = jnp.where(at_j, into_j, jnp.where(at_i, into_i, dim))

    reshare = (kind >= 0.7) & (kind < 1.0)
    flat = share.reshape(-1, n)
    slot = (draw[4] * flat.shape[0]).astype(jnp.int32)
    value = jnp.where(draw[5] < 0.3, 1.0, jnp.exp(-_LEAST_SHARE_LOG * draw[6]))
    chosen = (jnp.arange(flat.shape[0])[:, None] == slot) & reshare
    return Genome(dim, factor, jnp.where(chosen, value, flat).reshape(share.shape))


def _prime_of(factor, draw):
    """A factor to take out of a bound: 2, 3, 5 or 7 where it divides, else the whole of it; at times the whole anyway."""
    taken = factor
    for p in (7.0, 5.0, 3.0, 2.0):
        divides = jnp.round(factor / p) * p == factor
        taken = jnp.where(divides & ((draw > 0.25) | (taken == factor)), p, taken)
    return jnp.where(draw < 0.15, factor, taken)
