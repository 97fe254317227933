"""Dominance: ranks and crowding for selection (JAX), fronts and hypervolume for reporting (NumPy). Everything is minimised."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def dominates(a: Float[Array, "N M"], b: Float[Array, "K M"]) -> Bool[Array, "N K"]:
    """Whether each `a` is nowhere worse and somewhere better than each `b`."""
    # objective by objective: a few fused N x K operations, never an array N x K x M
    columns = [(a[:, None, m], b[None, :, m]) for m in range(a.shape[1])]
    no_worse = functools.reduce(jnp.logical_and, [x <= y for x, y in columns])
    return no_worse & functools.reduce(jnp.logical_or, [x < y for x, y in columns])


def ranks(costs: Float[Array, "N M"], enough: int | None = None) -> Int[Array, "N"]:
    """Front number of each point (0: not dominated), by peeling (Deb et al. 2002).

    `enough`: stop after the front that makes it so many points; the rest get N."""
    n = costs.shape[0]
    beats = dominates(costs, costs)

    def peel(state):
        rank, count, level = state
        front = (count == 0) & (rank == n)
        lost = jnp.sum(beats & front[:, None], axis=0, dtype=jnp.int32)
        return jnp.where(front, level, rank), jnp.where(front, -1, count - lost), level + 1

    start = (jnp.full(n, n, jnp.int32), jnp.sum(beats, axis=0, dtype=jnp.int32), jnp.int32(0))
    wanted = n if enough is None else min(enough, n)
    return jax.lax.while_loop(lambda s: jnp.sum(s[0] < n) < wanted, peel, start)[0]


def crowding(costs: Float[Array, "N M"], rank: Int[Array, "N"]) -> Float[Array, "N"]:
    """Crowding distance inside each front; infinite at its ends."""
    n = costs.shape[0]
    total = jnp.zeros(n, costs.dtype)
    for m in range(costs.shape[1]):
        order = jnp.lexsort((costs[:, m], rank))
        value, front = costs[order, m], rank[order]
        spread = jnp.maximum(jnp.max(value) - jnp.min(value), 1e-12)
        inside = (front[1:-1] == front[:-2]) & (front[1:-1] == front[2:])
        gap = jnp.where(inside, (value[2:] - value[:-2]) / spread, jnp.inf)
        total = total.at[order].add(jnp.concatenate([jnp.array([jnp.inf]), gap, jnp.array([jnp.inf])]))
    return total


def front_of(costs: np.ndarray) -> np.ndarray:
    """Indices of the non-dominated points, duplicates left out, by the first objective (host)."""
    order = np.lexsort(costs.T[::-1])
    kept: list[int] = []
    if costs.shape[1] == 2:  # sorted by the first, so only the best second so far matters
        best = np.inf
        for i in order:
            if costs[i, 1] < best:
                kept.append(int(i))
                best = costs[i, 1]
        return np.asarray(kept, np.int64)
    for i in order:  # nothing later in the order can dominate something earlier
        if not kept or not np.any(np.all(costs[kept] <= costs[i], axis=1)):
            kept.append(int(i))
    return np.asarray(kept, np.int64)


def hypervolume(costs: np.ndarray, reference: np.ndarray) -> float:
    """Area dominated below `reference`, two objectives, both minimised. Raises ValueError for another number."""
    costs, reference = np.asarray(costs, float), np.asarray(reference, float)
    if costs.ndim != 2 or costs.shape[1] != 2:
        raise ValueError(f"hypervolume takes points of 2 objectives; got shape {costs.shape}")
    inside = costs[np.all(costs < reference, axis=1)]
    area, ceiling = 0.0, reference[1]
    for x, y in inside[front_of(inside)] if len(inside) else []:
        area += (reference[0] - x) * (ceiling - y)
        ceiling = y
    return area
