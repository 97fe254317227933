"""Evolutionary refinement: NSGA-II (Deb et al. 2002) whose variation speaks the language of schedules.

Moves: points, ranges (a segment goes elsewhere), boundaries between segments, two chiplets swapped, a chiplet of another
type. A share of the offspring are neighbours of the best of each objective, which finds exact optima of small spaces.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._pareto import crowding, ranks

_BEST_SHARE = 8  # one offspring in so many is a neighbour of a best candidate
_CROSSOVER = 0.7


class Population(NamedTuple):
    """`P` candidates: assignment of each operator, choice of type at each position, costs to be minimised. `select` sorts
    them, the best first."""

    assignment: Int[Array, "P L"]
    kinds: Int[Array, "P D"]
    costs: Float[Array, "P M"]


def random_population(key, size: int, n_operators: int, n_chiplets: int, n_kinds: int) -> tuple[jax.Array, jax.Array]:
    """Half random operator by operator, half random segments (which pipeline better)."""
    k_point, k_cut, k_place, k_kind = jax.random.split(key, 4)
    points = jax.random.randint(k_point, (size, n_operators), 0, n_chiplets, jnp.int8)
    # a new segment starts at each operator with a probability that differs from candidate to candidate
    chance = jnp.exp(jax.random.uniform(k_cut, (size, 1), minval=jnp.log(1.0 / n_operators), maxval=0.0))
    cut = jax.random.uniform(k_place, (size, n_operators)) < chance
    start = jax.lax.cummax(jnp.where(cut, jnp.arange(n_operators), 0), axis=1)
    segments = jnp.take_along_axis(points, start, axis=1)
    half = (jnp.arange(size) % 2 == 0)[:, None]
    kinds = jax.random.randint(k_kind, (size, n_chiplets), 0, n_kinds, jnp.int8)
    return jnp.where(half, points, segments), kinds


@jax.jit
def select(population: Population, offspring: Population) -> Population:
    """The better half of both: lower front first, then the less crowded; a copy of a candidate counts last."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), population, offspring)
    copies = _copies(both)
    size = population.costs.shape[0]
    # copies may fill the first fronts, so they are ranked last
    rank = ranks(jnp.where(copies[:, None], jnp.inf, both.costs), enough=size)
    alone = crowding(both.costs, rank)
    rank = jnp.where(copies, jnp.iinfo(jnp.int32).max, rank)
    best = jnp.lexsort((-alone, rank))[:size]
    return jax.tree.map(lambda x: x[best], both)


def _copies(population: Population) -> jax.Array:
    """Whether an equal candidate stands earlier, by two 32-bit hashes."""
    genes = jnp.concatenate([population.assignment, population.kinds], axis=1).astype(jnp.uint32) + 1
    n = genes.shape[1]
    power = jnp.arange(n, dtype=jnp.uint32)
    one = jnp.sum(genes * (power * jnp.uint32(2654435761) + jnp.uint32(0x9E3779B9)), axis=1, dtype=jnp.uint32)
    two = jnp.sum(genes * ((power + 7) * (power + 3) * jnp.uint32(40503) + 1), axis=1, dtype=jnp.uint32)
    order = jnp.lexsort((jnp.arange(len(one)), two, one))
    same = (one[order][1:] == one[order][:-1]) & (two[order][1:] == two[order][:-1])
    return jnp.zeros(len(one), bool).at[order[1:]].set(same)


@jax.jit(static_argnums=(2, 3))
def offspring(key, population: Population, n_chiplets: int, n_kinds: int) -> tuple[jax.Array, jax.Array]:
    """As many children as there are parents; the parents are sorted, the best first, as `select` leaves them."""
    size = population.costs.shape[0]
    k_pick, k_cross, k_mutate, k_best = jax.random.split(key, 4)

    pick = jax.random.randint(k_pick, (2, 2, size), 0, size)
    parents = jnp.minimum(pick[0], pick[1])
    champions = jnp.argmin(population.costs, axis=0)
    champion = champions[jax.random.randint(k_best, (size,), 0, len(champions))]
    from_best = jnp.arange(size) % _BEST_SHARE == 0
    first = jnp.where(from_best, champion, parents[0])
    a, b = (population.assignment[i] for i in (first, parents[1]))
    ka, kb = (population.kinds[i] for i in (first, parents[1]))
    a, ka = jax.vmap(_crossed)(jax.random.split(k_cross, size), a, b, ka, kb, from_best)
    keys = jax.random.split(k_mutate, size)
    return jax.vmap(lambda k, x, t, few: _mutated(k, x, t, few, n_chiplets, n_kinds))(keys, a, ka, from_best)


def _crossed(key, a, b, ka, kb, never):
    """A stretch of operators from the other parent; now and then its chiplet types too."""
    n = a.shape[0]
    k_do, k_cut, k_kind = jax.random.split(key, 3)
    low, high = jnp.sort(jax.random.randint(k_cut, (2,), 0, n + 1))
    index = jnp.arange(n)
    do = (jax.random.uniform(k_do) < _CROSSOVER) & ~never
    child = jnp.where(do & (index >= low) & (index < high), b, a)
    return child, jnp.where(do & (jax.random.uniform(k_kind) < 0.3), kb, ka)


def _mutated(key, x, kinds, few, n_chiplets: int, n_kinds: int):
    """One move of a random sort; neighbours of a best candidate (`few`) change a single place most of the time."""
    n, index = x.shape[0], jnp.arange(x.shape[0])
    keys = jax.random.split(key, 9)
    sort = jax.random.randint(keys[0], (), 0, 6)
    sort = jnp.where(few & (jax.random.uniform(keys[8]) < 0.5), 0, sort)
    there, other = jax.random.randint(keys[1], (2,), 0, n_chiplets).astype(x.dtype)
    at = jax.random.randint(keys[2], (), 0, n)
    length = jnp.exp(jax.random.uniform(keys[3], minval=0.0, maxval=jnp.log(n / 2 + 1.0))).astype(jnp.int32)
    inside = (index >= at) & (index < at + length)

    # 0: points
    many = jnp.where(few, 1.0, jnp.exp(jax.random.uniform(keys[4], minval=0.0, maxval=2.0)))
    hit = (index == at) | (jax.random.uniform(keys[5], (n,)) < (many - 1.0) / n)
    drawn = jax.random.randint(keys[6], (n,), 0, n_chiplets, x.dtype)
    points = jnp.where(hit, drawn, x)
    # 1: a range goes to one chiplet.  2: a segment grows over its right or left neighbour
    ranged = jnp.where(inside, there, x)
    edge = jnp.where(sort == 2, x[jnp.maximum(at - 1, 0)], x[jnp.minimum(at + length, n - 1)])
    grown = jnp.where(inside, edge, x)
    # 4: two chiplets change places, in a range or everywhere.  5: a position gets another type
    swapped = jnp.where(x == there, other, jnp.where(x == other, there, x))
    swapped = jnp.where(inside | (length > n // 4), swapped, x)
    child = jnp.stack([points, ranged, grown, grown, swapped, x])[sort]
    position = jax.random.randint(keys[7], (), 0, n_chiplets)
    turn = (sort == 5) & (n_kinds > 1)
    step = 1 + jax.random.randint(keys[8], (), 0, max(n_kinds - 1, 1))
    turned = (kinds[position] + step) % n_kinds
    new_kinds = jnp.where(turn & (jnp.arange(n_chiplets) == position), turned.astype(kinds.dtype), kinds)
    child = jnp.where((sort == 5) & (n_kinds <= 1), points, child)
    return child, new_kinds
