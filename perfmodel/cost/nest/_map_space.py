"""The space of mappings of one operator on one machine: what is unrolled, which loops remain, and candidates as genomes.

A genome is an order of loops (dimension, bound) and a share of every memory for every operand; loops go into the innermost
memory in which the operand's tile still fits its share. So every genome is a valid mapping unless even one tile is too large.
"""

import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...hardware import LEVELS, Hierarchy
from ._nest import DIMS, RELEVANT, WINDOW, LoopNest, Problem

SLOTS = 8  # temporal loops of a candidate
UNROLLED = 6
_SMOOTH = (2, 3, 5, 7)


class Genome(NamedTuple):
    """Candidates: loops from the innermost out, and shares in (0, 1] of the memory at each level of each operand."""

    dim: Int[Array, "N ..."]
    factor: Float[Array, "N ..."]
    share: Float[Array, "3 levels ..."]


class Space(eqx.Module):
    """One choice of what is unrolled for one operator: the loops that remain and where the unrolled ones stand."""

    bounds: Int[Array, "8 ..."]  # temporal iterations of each dimension
    spatial_dim: Int[Array, "U ..."]
    spatial_factor: Float[Array, "U ..."]
    spatial_level: Int[Array, "3 U ..."]


def spaces(sizes, machine: Hierarchy, unroll: dict[int, list[tuple[str, ...]]]) -> list[Space]:
    """All choices of unrolling for an operator of `sizes` (8 integers, order `DIMS`).

    **Arguments:** `unroll`: for each array dimension the alternatives, each a tuple of loop dimensions that fill it one after
    the other. A dimension that does not divide is spread evenly over the fewest iterations, or over the next number of
    iterations without a prime factor above 7, which can be cut more finely.
    """
    found = []
    for choice in itertools.product(*(unroll.get(a, [()]) for a in range(len(machine.array)))):
        left = [int(n) for n in sizes]
        loops = []
        for a, dims in enumerate(choice):
            room = int(machine.array[a])
            for name in dims:
                d = DIMS.index(name)
                fit = min(room, left[d])
                if fit > 1:
                    steps = -(-left[d] // fit)
                    loops.append((a, d, left[d], steps))
                    left[d] = steps
                    room //= fit
        smooth = [_next_smooth(n) for n in left]
        for bounds in [left] if smooth == left else [left, smooth]:
            found.append(_space(machine, loops, bounds))
    return found


def _space(machine: Hierarchy, loops, bounds) -> Space:
    dim, factor = np.zeros(UNROLLED, np.int32), np.ones(UNROLLED)
    level = np.full((3, UNROLLED), LEVELS, np.int32)
    for u, (a, d, size, steps) in enumerate(loops):
        # the last cut of a dimension has the final number of iterations; padding them makes the unrolled mean smaller
        steps = bounds[d] if not any(e == d for _, e, *_ in loops[u + 1 :]) else steps
        dim[u], factor[u], level[:, u] = d, size / steps, machine.entry[:, a]
    return Space(np.asarray(bounds, np.int32), dim, factor, level)


def _next_smooth(n: int) -> int:
    while True:
        rest = n
        for p in _SMOOTH:
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return n
        n += 1


def prime_factors(n: int) -> list[int]:
    """Prime factors in ascending order."""
    found, p = [], 2
    while n > 1:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
        if p * p > n > 1:
            return [*found, n]
    return found


def random_genomes(space: Space, population: int, rng: np.random.Generator, levels: int = LEVELS) -> Genome:
    """Random candidates of one space: prime factors in random groups, order and shares at random."""
    primes = [(d, p) for d in range(len(DIMS)) for p in prime_factors(int(space.bounds[d]))]
    kinds = sorted({d for d, _ in primes})
    # one slot for each dimension that has loops, the other slots go to dimensions at random, by their number of primes
    weight = np.asarray([sum(1 for e, _ in primes if e == d) - 1 for d in kinds], float)
    slots = np.zeros((population, SLOTS), np.int32)
    slots[:, : len(kinds)] = kinds
    free = SLOTS - len(kinds)
    if free and weight.sum() > 0:
        slots[:, len(kinds) :] = rng.choice(kinds, (population, free), p=weight / weight.sum())
    slots = rng.permuted(slots, axis=1)
    factor = np.ones((population, SLOTS))
    rows = np.arange(population)
    for d, p in primes:
        key = np.where(slots == d, rng.random(slots.shape), -1.0)
        factor[rows, key.argmax(axis=1)] *= p
    share = np.exp(-rng.exponential(0.7, (3, levels, population)))
    share[:, :, : population // 4] = 1.0
    return Genome(slots.T.astype(np.int8), factor.T, share)


def decoded(genome: Genome, space: Space, problem: Problem, machine: Hierarchy) -> LoopNest:
    """Genomes as loop nests (trailing axes: candidates). Fields of `space` and `problem` broadcast against them."""
    n = genome.factor.ndim - 1
    levels = machine.held.shape[1]
    tiles = jnp.arange(levels - 1).reshape(levels - 1, *(1,) * n)  # the outermost memory holds everything
    room = _room(genome.share, machine, n)[:, : levels - 1]
    loops = [(space.spatial_dim[u], space.spatial_factor[u], space.spatial_level[:, u]) for u in range(UNROLLED)]
    rest, window = [], [1.0] * 4
    for t, mask in enumerate(RELEVANT):
        inside = 1.0
        for dim, factor, level in loops:
            counts_here = level[t] <= tiles
            of_window = jnp.stack([dim == d for d in WINDOW]).any(axis=0) & (t == 1)
            inside = inside * jnp.where(counts_here & (((mask >> dim) & 1) > 0) & ~of_window, factor, 1.0)
            if t == 1:
                window = [
                    w * jnp.where(counts_here & (dim == d), factor, 1.0) for w, d in zip(window, WINDOW, strict=True)
                ]
        rest.append(inside)
    one = jnp.ones_like(genome.factor[0])

    def loop(state, now):
        extent, product = state
        dim, factor = now
        in_window = [dim == d for d in WINDOW]
        moves = in_window[0] | in_window[1] | in_window[2] | in_window[3]
        extent = tuple(e * jnp.where(w, factor, 1.0) for e, w in zip(extent, in_window, strict=True))
        relevant = [((mask >> dim.astype(jnp.int32)) & 1) > 0 for mask in RELEVANT]
        relevant[1] = relevant[1] & ~moves
        product = tuple(p * jnp.where(r, factor, 1.0) for p, r in zip(product, relevant, strict=True))
        words = [r * p for r, p in zip(rest, product, strict=True)]
        for a, b in ((0, 2), (1, 3)):
            out, taps = window[a] * extent[a], window[b] * extent[b]
            words[1] = words[1] * (out * taps - jnp.maximum(taps - problem.stride, 0.0) * (out - 1))
        beyond = [words[t] * bits > room[t] * (1 + 1e-6) for t, bits in enumerate(widths)]
        final = words[2] * problem.output_bits > room[2] * (1 + 1e-6)
        return (extent, product), jnp.stack(jnp.broadcast_arrays(*beyond, final))

    widths = (problem.weight_bits, problem.input_bits, problem.psum_bits)
    adds = (((RELEVANT[2] >> genome.dim.astype(jnp.int32)) & 1) == 0) & (genome.factor > 1)
    start = ((one,) * 4, (one,) * 3)
    _, beyond = jax.lax.scan(loop, start, (genome.dim, genome.factor))
    above, level = jnp.ones((SLOTS, 3, *one.shape), bool), jnp.zeros((SLOTS, 3, *one.shape), jnp.int8)
    for at in range(levels - 1):
        # sums are wide in a memory as long as any loop that adds stands in it or above it
        wide = jnp.any(adds & above[:, 2], axis=0)
        of_sums = jnp.where(wide, beyond[:, 2, at], beyond[:, 3, at])
        too_much = jnp.stack([beyond[:, 0, at], beyond[:, 1, at], of_sums], axis=1)
        # a tile that fits takes all loops inside it along, also one at which it was too large for a while; and a loop stands
        # above a memory only if it stands above those inside it
        above = above & _outwards(too_much)
        level = level + above.astype(jnp.int8)
    return LoopNest(
        genome.dim,
        genome.factor,
        jnp.moveaxis(level, 1, 0),
        space.spatial_dim,
        space.spatial_factor,
        space.spatial_level,
    )


def _room(share, machine: Hierarchy, n: int):
    """Bits of each memory that an operand may use: its share, less where all shares exceed the whole; no end outermost."""
    stores, exact = jnp.asarray(machine.stores), jax.lax.Precision.HIGHEST  # of one machine
    flat = stores.reshape(stores.shape[0], -1)
    asked = jnp.tensordot(flat, share.reshape(flat.shape[1], *share.shape[2:]), axes=1, precision=exact)
    granted = jnp.tensordot(flat.T, 1.0 / jnp.maximum(asked, 1.0), axes=1, precision=exact).reshape(share.shape)
    capacity = jnp.matmul(flat.T, jnp.minimum(jnp.asarray(machine.capacity_bits), 1e30), precision=exact)
    held = jnp.asarray(machine.held)
    last = held & ~jnp.concatenate([held[:, 1:], jnp.zeros_like(held[:, :1])], axis=1)
    endless = jnp.where(last | ~held, 1e38, 0.0).reshape(*held.shape[:2], *(1,) * n)
    return share * granted * capacity.reshape(*held.shape[:2], *(1,) * n) + endless


def _outwards(x):
    """Whether `x` holds for a loop and all loops outside it."""

    def step(outside, here):
        here = here & outside
        return here, here

    return jax.lax.scan(step, jnp.ones_like(x[0]), x, reverse=True)[1]
