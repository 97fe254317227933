"""Which operators become one kernel of a streaming fabric, on graphs: orders of the rows, relaxed and evolved, each cut exactly.

Every convex partition is a cut of some topological order into segments, and `perfmodel.schedule.spatial.best_chain` cuts an order
exactly. So the search is over orders alone: priorities of rows, from which Kahn's algorithm makes an order.
"""

from heapq import heapify, heappop, heappush
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from perfmodel.schedule.spatial import LARGEST, Fabric, Program, best_chain

_STEPS, _RATE, _ORDERED = 200, 0.05, 10.0
_OPTIMISER = optax.adam(_RATE)


class GraphPartition(NamedTuple):
    """Kernels as rows of the program, in execution order; the seconds they take; orders that were cut."""

    members: list[list[int]]
    time_s: float
    evaluations: int


def search_partition(p: Program, fabric: Fabric, *, largest: int = LARGEST, starts: int = 8, generations: int = 20, population: int = 16,
                     seed: int = 0, spilled: float = 0.0) -> GraphPartition:  # fmt: skip
    """The best partition found: never worse than `best_chain` on the order as it stands.

    The first population: the stored order, `starts` relaxed ones (`relaxed_orders`), random ones. Then `generations` of as many
    children: keys of two parents by stretches, a few rows moved, ranges shifted. `largest`: rows of a kernel.

    Raises ValueError for a population below 2 or negative `starts` and `generations`.
    """
    if population < 2 or starts < 0 or generations < 0:
        raise ValueError(
            f"population {population}, starts {starts}, generations {generations}; allowed: at least 2, 0 and 0"
        )
    rng, n = np.random.default_rng(seed), p.n_rows
    known: dict[tuple[int, ...], tuple[float, list[list[int]]]] = {}

    def judged(keys) -> tuple[float, np.ndarray]:
        order = order_of(p, keys)
        if tuple(order) not in known:
            found = best_chain(reordered(p, order), fabric, largest=largest, spilled=spilled)
            known[tuple(order)] = found.time_s, [[int(order[i]) for i in rows] for rows in found.members]
        return known[tuple(order)][0], np.argsort(np.argsort(order)) / n  # the order itself, as keys

    stored = np.arange(n) / n
    first = [stored, *relaxed_orders(p, starts, seed)] if starts else [stored]
    first += [rng.random(n) for _ in range(population - len(first))]
    pool = sorted((judged(keys) for keys in first), key=lambda x: x[0])[:population]
    for _ in range(generations):
        children = []
        for _ in range(population):
            a, b = (pool[min(rng.integers(0, len(pool), 2))][1] for _ in range(2))
            low, high = np.sort(rng.integers(0, n + 1, 2))
            keys = np.where((np.arange(n) >= low) & (np.arange(n) < high), b, a)
            sort = rng.integers(0, 3)
            if sort == 0:  # a few rows go elsewhere
                hit = rng.random(n) < max(1.0, rng.exponential(2.0)) / n
                keys = np.where(hit, rng.random(n), keys)
            elif sort == 1:  # a range earlier or later
                at, length = rng.integers(0, n), rng.integers(1, n // 2 + 2)
                keys[at : at + length] += rng.normal() * 0.3
            else:
                keys = keys + rng.normal(size=n) / n
            children.append(judged(keys))
        best = {round(time, 15): (time, keys) for time, keys in children + pool}
        pool = sorted(best.values(), key=lambda x: x[0])[:population]
    time, members = min(known.values(), key=lambda x: x[0])
    return GraphPartition(members, time, len(known))


def order_of(p: Program, keys) -> list[int]:
    """The topological order that takes, of the rows that are free, the one of least key."""
    waiting = np.bincount(p.target, minlength=p.n_rows).tolist()
    readers: list[list[int]] = [[] for _ in range(p.n_rows)]
    for source, target in zip(p.source.tolist(), p.target.tolist(), strict=True):
        readers[source].append(target)
    free = [(float(keys[i]), i) for i in range(p.n_rows) if not waiting[i]]
    heapify(free)
    order = []
    while free:
        _, row = heappop(free)
        order.append(row)
        for reader in readers[row]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heappush(free, (float(keys[reader]), reader))
    return order


def reordered(p: Program, order) -> Program:
    """The same rows in another topological order. Raises ValueError where it is none."""
    order = np.asarray(order)
    place = np.argsort(order)
    if sorted(order.tolist()) != list(range(p.n_rows)) or np.any(place[p.source] >= place[p.target]):
        raise ValueError("the order is no topological order of the program's rows")
    by_row = (
        "macs",
        "lane_ops",
        "reuse",
        "weight_bytes",
        "out_bytes",
        "read_bytes",
        "write_bytes",
        "link_bytes",
        "hops",
        "own",
    )
    return p._replace(
        **{name: getattr(p, name)[order] for name in by_row}, held_bytes=p.held_bytes[:, order],
        names=tuple(p.names[i] for i in order), source=place[p.source], target=place[p.target],
    )  # fmt: skip


def relaxed_orders(p: Program, starts: int, seed: int = 0) -> list[np.ndarray]:
    """Keys of rows by descent: real positions that keep the ends of heavy tensors close (what lies far apart is cut, and its bytes go
    through memory), readers behind what they read, and all of them spread out. From random positions around the stored order."""
    n, edges = p.n_rows, len(p.source)
    if not edges:
        return [np.arange(n) / n] * starts
    weight = jnp.asarray(p.edge_bytes / np.sum(p.edge_bytes))
    noise = np.random.default_rng(seed).normal(size=(starts, n)) * 0.3
    return [
        np.asarray(x)
        for x in _descend(jnp.asarray(np.arange(n) / n + noise), jnp.asarray(p.source), jnp.asarray(p.target), weight)
    ]


@jax.jit
def _descend(keys, source, target, weight):
    def loss(x):
        gap = (x[target] - x[source]) * x.shape[0]
        behind = jnp.mean(jnp.square(jnp.maximum(1.0 - gap, 0.0)))
        spread = jnp.square(jnp.var(x) * 12.0 - 1.0)  # as wide as rows evenly spaced on [0, 1]
        return jnp.sum(weight * jnp.log1p(jnp.abs(gap))) + _ORDERED * behind + spread

    def step(carry, _):
        x, state = carry
        updates, state = _OPTIMISER.update(jax.vmap(jax.grad(loss))(x), state)
        return (optax.apply_updates(x, updates), state), None

    return jax.lax.scan(step, (keys, _OPTIMISER.init(keys)), None, length=_STEPS)[0][0]
