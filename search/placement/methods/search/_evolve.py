"""Evolutionary refinement: hundreds of annealed candidates side by side, each with its assignment and its own order.

A step proposes one move per candidate (lane), times all of them in the evaluator, and accepts each by Metropolis' rule at the
temperature of its lane (a ladder, so that some lanes wander while others descend). Moves of the assignment act on *windows* of a
linearisation of the graph: depth-first orders and their reverses put a chain, a branch between fork and join, or a connected
region next to each other, and with dear transfers only moves of a whole region ever pay. A move is one of

- a window (optionally only its part on one device; optionally widened to whole chains) to another device, or to the device of a
  neighbour; two devices swapped within a window; a window taken over from another lane (crossover); two units exchanged
  (the only move that keeps exactly full devices full);
- a task moved in the order, anywhere between its last predecessor and its first successor; or moved and reassigned at once.

Between rounds a lane far above another one is overwritten by it. Memory beyond capacity costs, and never counts as best.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Int

from ..._arrays import Arrays, Compiled, bucket
from ..._bounds import units
from ..._problem import Problem
from ..._timeline_jax import jax_makespan
from ._small import EXCESS, quanta

LINEARISATIONS = 24
# shares of the moves: window to a device, to a neighbour's device, swap of devices, crossover, exchange, order, order and device
KINDS = (0.25, 0.15, 0.05, 0.05, 0.1, 0.3, 0.1)


class Tables(NamedTuple):
    """What moves look up. `U` units (colocation groups or single tasks), `M` nodes, `R` linearisations."""

    arrays: Arrays
    unit: Int[Array, "M"]  # of each node
    size: Int[Array, "U"]  # bytes, in quanta (see `quanta`)
    capacity: Int[Array, "D"]
    seat: Int[Array, "R U"]  # where a unit stands in a linearisation; padding: beyond every window
    first: Int[Array, "R U"]  # seat at which the chain through a seat begins
    last: Int[Array, "R U"]
    near: Int[Array, "U W"]  # units that share an edge, repeated to fill
    after: Int[Array, "M Z"]  # successors of a node, `M`: none
    n_units: Int[Array, ""]
    likely: Float[Array, "U"]  # cumulative chance of a unit as the seed of a move
    scale: Float[Array, ""]  # reference makespan
    unit_excess: Float[Array, ""]  # quanta of a mean unit
    kinds: Float[Array, "7"]  # cumulative shares of the moves


class State(NamedTuple):
    """`B` lanes, last axis; the best feasible candidate seen."""

    where: Int[Array, "U B"]
    order: Int[Array, "M B"]
    at: Int[Array, "M B"]  # inverse of the order
    energy: Float[Array, "B"]
    best: Float[Array, ""]
    best_where: Int[Array, "U"]
    best_order: Int[Array, "M"]


def tables(problem: Problem, c: Compiled, scale: float, rng: np.random.Generator) -> Tables:
    """The moves' tables of a problem; `scale`: makespan that temperatures are relative to."""
    found = units(problem)
    of, n = found.of, len(found.memory_bytes)
    u, m = bucket(n), len(c.arrays.runs)
    unit = np.zeros(m, np.int32)
    unit[: c.n_nodes] = of[np.asarray(c.arrays.owner)[: c.n_nodes]]
    size, capacity = quanta(found.memory_bytes, problem.capacity_bytes)
    seats, firsts, lasts = (np.full((LINEARISATIONS, u), u + m, np.int32) for _ in range(3))
    neighbours = _neighbours(problem, of, n)
    for r in range(LINEARISATIONS):
        line = linearisation(problem, rng, ("plain", "forward", "backward")[min(r, 1 + r % 2)])
        _, kept = np.unique(of[line], return_index=True)
        line = of[line][np.sort(kept)]  # units in the order in which they first come up
        seats[r, line] = np.arange(n)
        joined = [len(neighbours[a]) <= 2 and b in neighbours[a] for a, b in zip(line[:-1], line[1:], strict=True)]
        begin = np.concatenate([[True], ~np.asarray(joined, bool)])
        chain = np.cumsum(begin) - 1
        firsts[r, :n] = np.flatnonzero(begin)[chain]
        lasts[r, :n] = np.append(np.flatnonzero(begin)[1:], n)[chain] - 1
    width = max(max(map(len, neighbours), default=1), 1)
    near = np.zeros((u, bucket(min(width, 16))), np.int32)
    for a, others in enumerate(neighbours):
        near[a] = np.resize(np.asarray(sorted(others) or [a])[: near.shape[1]], near.shape[1])
    source = np.asarray(c.arrays.source)
    after = _after(source, m)
    chance = np.concatenate([np.full(n, 1.0 / n), np.zeros(u - n)])
    pad = lambda x, fill: np.concatenate([x, np.full(u - n, fill, x.dtype)])  # noqa: E731
    return Tables(
        c.arrays, jnp.asarray(unit), jnp.asarray(pad(size, 0)), jnp.asarray(capacity), jnp.asarray(seats), jnp.asarray(firsts),
        jnp.asarray(lasts), jnp.asarray(near), jnp.asarray(after), jnp.asarray(n, jnp.int32), jnp.asarray(np.cumsum(chance), jnp.float32),
        jnp.asarray(scale, jnp.float32), jnp.asarray(max(size.mean(), 1.0), jnp.float32),
        jnp.asarray(np.cumsum(KINDS), jnp.float32),
    )  # fmt: skip


def linearisation(problem: Problem, rng: np.random.Generator, kind: str = "forward") -> np.ndarray:
    """A topological order that follows chains: the successor just freed comes next (forward), or the same from the sinks."""
    if kind == "plain":
        return problem.order
    out_of, into, table = problem.source, problem.target, problem.outputs
    if kind == "backward":
        out_of, into, table = into, out_of, problem.inputs
    waiting = np.bincount(into, minlength=problem.n_tasks)
    stack = rng.permutation(np.flatnonzero(waiting == 0)).tolist()
    after, line = [[into[e] for e in row if e >= 0] for row in table.tolist()], []
    while stack:
        task = stack.pop()
        line.append(task)
        freed = []
        for t in after[task]:
            waiting[t] -= 1
            if waiting[t] == 0:
                freed.append(t)
        stack += rng.permutation(freed).tolist() if len(freed) > 1 else freed
    return np.asarray(line[::-1] if kind == "backward" else line, np.int64)


def _neighbours(problem: Problem, of: np.ndarray, n: int) -> list[set[int]]:
    near: list[set[int]] = [set() for _ in range(n)]
    for a, b in zip(of[problem.source].tolist(), of[problem.target].tolist(), strict=True):
        if a != b:
            near[a].add(b)
            near[b].add(a)
    return near


def _after(source: np.ndarray, m: int) -> np.ndarray:
    node, slot = np.nonzero(source < m)
    producer = source[node, slot]
    count = np.bincount(producer, minlength=m)
    table = np.full((m, bucket(int(count.max(initial=1)))), m, np.int32)
    place = np.zeros(m, int)
    for a, b in zip(producer.tolist(), node.tolist(), strict=True):
        table[a, place[a]] = b
        place[a] += 1
    return table


def energies_of(
    t, where, order, size, capacity, congestion: bool, worst_case: bool, memory: bool = True, shared: bool = True
):
    """(energy, feasible) of lanes: makespan over the reference, plus what memory beyond capacity costs.

    `t` has `arrays`, `unit`, `scale`, `unit_excess`; `where` `[U, B]`, `order` `[M]` if `shared`, else `[M, B]`.
    """
    span = jax_makespan(t.arrays, where[t.unit], order, congestion=congestion, worst_case=worst_case, shared=shared)
    energy = (span / t.scale).astype(jnp.float32)
    if not memory:
        return energy, jnp.isfinite(energy)
    used = jnp.stack([jnp.sum(jnp.where(where == d, size[:, None], 0), axis=0) for d in range(len(capacity))])
    excess = jnp.sum(jnp.maximum(used - capacity[:, None], 0), axis=0)
    return energy + EXCESS * excess / t.unit_excess, (excess == 0) & jnp.isfinite(energy)


def propose(t: Tables, s: State, a):
    """One move per lane: new (where, order, at). `a` `[16, B]`: uniform draws."""
    u, lanes = s.where.shape
    m, devices = t.arrays.times.shape
    draw = lambda x, n: jnp.minimum((x * n).astype(jnp.int32), n - 1)  # noqa: E731
    r, roll = draw(a[14, 0], t.seat.shape[0]), draw(a[15, 0], lanes)
    kind = jnp.sum(a[0] > t.kinds[:, None], axis=0)
    lane, index = jnp.arange(lanes), jnp.arange(u)[:, None]
    seed = jnp.minimum(
        jnp.where(a[1] < 0.5, draw(a[2], t.n_units), jnp.searchsorted(t.likely, a[2] * t.likely[-1])), t.n_units - 1
    )
    other, device = draw(a[3], t.n_units), draw(a[4], devices).astype(jnp.int8)
    mine = s.where[seed, lane]
    device = jnp.where(kind == 1, s.where[t.near[seed, draw(a[5], t.near.shape[1])], lane], device)

    # the window: log-uniform length, half of the time a single unit, sometimes whole chains, sometimes one device's part only
    seat = t.seat[r]
    longest = jnp.log(t.n_units.astype(jnp.float32))
    length = jnp.where(a[6] < 0.35, 1, jnp.exp(a[7] * longest).astype(jnp.int32) + 1)
    begin = seat[seed] - draw(a[8], length)
    end = begin + length - 1
    whole = a[9] < 0.4
    clip = lambda x: jnp.clip(x, 0, t.n_units - 1)  # noqa: E731
    begin, end = jnp.where(whole, t.first[r][clip(begin)], begin), jnp.where(whole, t.last[r][clip(end)], end)
    inside = (seat[:, None] >= begin) & (seat[:, None] <= end)
    inside &= (a[10] < 0.5) | (s.where == mine) | (kind == 2) | (kind == 3)
    assigned = jnp.where(
        kind == 2, jnp.where(s.where == mine, device, jnp.where(s.where == device, mine, s.where)), device
    )
    assigned = jnp.where(kind == 3, jnp.roll(s.where, roll, axis=1), assigned)
    moved = jnp.where(inside & (kind < 4), assigned, s.where)
    swapped = jnp.where(index == seed, s.where[other, lane], jnp.where(index == other, mine, s.where))
    where = jnp.where(kind == 4, swapped, moved)

    # the order: node v from i to j
    v = draw(a[11], t.arrays.count)
    at = jnp.concatenate([s.at, jnp.full((1, lanes), m, jnp.int32)])
    behind = t.arrays.source[v]
    low = jnp.where(behind < m, at[behind, lane[:, None]], -1).max(1) + 1
    high = jnp.minimum(at[t.after[v], lane[:, None]].min(1), t.arrays.count) - 1
    i = s.at[v, lane]
    target = low + draw(a[12], high - low + 1)
    j = jnp.where(
        kind >= 5, i + jnp.round((target - i) * jnp.where(a[13] < 0.5, 1.0, a[13] - 0.5)).astype(jnp.int32), i
    )
    row = jnp.arange(m, dtype=jnp.int32)[:, None]
    later, sooner = jnp.roll(s.order, -1, axis=0), jnp.roll(s.order, 1, axis=0)
    order = jnp.where((row >= i) & (row < j), later, jnp.where((row <= i) & (row > j), sooner, s.order))
    order = jnp.where(row == j, v, order)
    at = jnp.where((s.at > i) & (s.at <= j), s.at - 1, jnp.where((s.at < i) & (s.at >= j), s.at + 1, s.at))
    at = jnp.where(row == v, j, at)
    where = jnp.where((kind == 6) & (index == t.unit[v]), device, where)
    return where, order, at


def start(where, order) -> State:
    """Lanes as given: `where` `[U, B]`, `order` `[M, B]` nodes (host arrays); `anneal` with `fresh` times them first."""
    at = np.empty_like(order)
    np.put_along_axis(at, order, np.arange(len(order), dtype=order.dtype)[:, None], axis=0)
    never = jnp.full(where.shape[1], jnp.inf, jnp.float32)
    where, order = jnp.asarray(where), jnp.asarray(order)
    return State(where, order, jnp.asarray(at), never, never[0], where[:, 0], order[:, 0])


@partial(jax.jit, static_argnames=("congestion", "worst_case", "memory"))
def anneal(t: Tables, s: State, key, heat, steps, fresh, *, congestion: bool, worst_case: bool, memory: bool) -> State:
    """`steps` moves in every lane. `heat` `[2, B]`: temperature of each lane at the first and at the last step.

    `fresh`: energies are not known yet; the lanes are timed as they are first.
    """

    def step(k, s: State):
        draws = random.uniform(random.fold_in(key, k + 1), (17, s.energy.shape[0]))
        where, order, at = propose(t, s, draws)
        where, order, at = (jnp.where(k < 0, old, new) for old, new in ((s.where, where), (s.order, order), (s.at, at)))
        energy, fits = energies_of(t, where, order, t.size, t.capacity, congestion, worst_case, memory, shared=False)
        temperature = heat[0] * (heat[1] / heat[0]) ** (k / jnp.maximum(steps, 1))
        taken = energy - s.energy < -temperature * jnp.log(jnp.maximum(draws[16], 1e-12))
        taken |= (k < 0) | ~jnp.isfinite(s.energy)
        candidate = jnp.where(fits, energy, jnp.inf)
        lane = jnp.argmin(candidate)

        def improved(_):
            return candidate[lane], where[:, lane], order[:, lane]

        best = lax.cond(candidate[lane] < s.best, improved, lambda b: b, (s.best, s.best_where, s.best_order))
        keep = partial(jnp.where, taken)
        return State(keep(where, s.where), keep(order, s.order), keep(at, s.at), keep(energy, s.energy), *best)

    s = lax.fori_loop(jnp.where(fresh, -1, 0), steps, step, s)
    # a lane that another one leaves far behind starts anew from it
    own = jnp.arange(s.energy.shape[0])
    rival = (own + (random.uniform(key) * len(own)).astype(jnp.int32)) % len(own)
    lane = jnp.where((s.energy[rival] + 3 * heat[1] < s.energy) & ~fresh, rival, own)
    return s._replace(where=s.where[:, lane], order=s.order[:, lane], at=s.at[:, lane], energy=s.energy[lane])
