"""Large neighbourhoods by greedy re-placement: the step between insertion and annealing.

Tasks are walked in one order; each of `B` lanes gives a task the device of least score, with memory respected as it goes:

    score[d] = finish on d + alpha OCT[task, d] + thrift waste[task, d] + price (task's bytes / mean) (filled share of d) + noise
               - pull (d = parent's device)

OCT and waste as in `_insert`. A large pull keeps the parent's device, so a lane is a large neighbourhood: it decides anew within
a window of the order, and keeps to the parent, more or less, elsewhere. The best child is the next parent; orders come from
upward ranks under the parent's placement, or stay. Links are nominal and free of congestion here, and there is no insertion.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ..._arrays import bucket
from ..._bounds import units
from ..._problem import Problem
from ..._timeline_jax import cores
from ._insert import coming, waste
from ._small import quanta
from ._starts import Start, single_devices, value

LANES = 64
_FIRM = 1e3  # a pull, in makespans, that nothing outweighs


class Graph(NamedTuple):
    """The problem by tasks; edges sorted by their target, those of task `i` from `first[i]` to `first[i + 1]`."""

    times: Float[Array, "N D"]
    coming: Float[Array, "N D"]  # OCT
    waste: Float[Array, "N D"]
    first: Int[Array, "N+1"]
    source: Int[Array, "E"]
    transfer: Float[Array, "E D D"]
    unit: Int[Array, "N"]
    size: Int[Array, "N"]  # quanta, of the task's whole unit
    capacity: Int[Array, "D"]
    mean: Float[Array, ""]
    able: Float[Array, "N D"]  # 0, or infinite where the task's unit cannot run


class Genes(NamedTuple):
    """How each lane scores: `[B]` each."""

    alpha: Array
    thrift: Array
    price: Array
    noise: Array
    begin: Array
    end: Array
    pull_in: Array
    pull_out: Array


def graph(problem: Problem) -> Graph:
    """Arrays of a problem."""
    by = np.argsort(problem.target, kind="stable")
    edges = bucket(len(by) + 1) - len(by)  # one at least: a table of none cannot be read
    found, size, capacity = units(problem), *quanta(units(problem).memory_bytes, problem.capacity_bytes)
    first = np.searchsorted(problem.target[by], np.arange(problem.n_tasks + 1))
    transfer = problem.transfer * problem.factors.mean(axis=0)
    able = found.sum((~np.isfinite(problem.times)).astype(float)) == 0
    f32 = partial(jnp.asarray, dtype=jnp.float32)
    i32 = partial(jnp.asarray, dtype=jnp.int32)
    pad = lambda x: np.concatenate([x, np.zeros((edges, *x.shape[1:]), x.dtype)])  # noqa: E731
    return Graph(
        times=f32(problem.times), coming=f32(coming(problem, transfer)), waste=f32(waste(problem)), first=i32(first),
        source=i32(pad(problem.source[by])), transfer=f32(pad(transfer[by])), unit=i32(found.of), size=i32(size[found.of]),
        capacity=i32(capacity), mean=f32(max(size.mean(), 1.0)), able=f32(np.where(able[found.of], 0.0, np.inf)),
    )  # fmt: skip


@partial(jax.jit, static_argnames=("grouped",))
def children(g: Graph, parent: Int[Array, "N"], order: Int[Array, "N"], genes: Genes, key, scale, *, grouped: bool):
    """Makespan `[B]`, mean finish `[B]`, excess of memory `[B]` and devices by position `[N, B]` of one child per lane."""
    n, devices = g.times.shape
    lanes = genes.alpha.shape[0]
    at = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
    wobble = jax.random.uniform(key, (257, lanes), minval=-1.0, maxval=1.0)
    index = jnp.arange(devices)[:, None]
    row = partial(lax.dynamic_index_in_dim, axis=0, keepdims=False)

    def body(i, carry):
        finish, placed, free, used, homes, found, chosen = carry
        # written by the step after, before it reads: else XLA copies the tables in every step
        before = jnp.where(i > 0, i - 1, n)
        finish, placed = (
            lax.dynamic_update_index_in_dim(t, x, before, 0) for t, x in ((finish, found), (placed, chosen))
        )
        free = jnp.where(index == chosen, found, free)
        task = order[i]

        def arrive(e, arrived):
            q = at[g.source[e]]
            there, pairs = row(placed, q), g.transfer[e]
            moved = pairs[0][:, None]
            for a in range(1, devices):
                moved = jnp.where(there == a, pairs[a][:, None], moved)
            return jnp.maximum(arrived, row(finish, q) + moved)

        arrived = lax.fori_loop(g.first[task], g.first[task + 1], arrive, jnp.zeros((devices, lanes)))
        end = jnp.maximum(arrived, free) + g.times[task][:, None]
        inside = (i >= genes.begin) & (i < genes.end)
        pull = jnp.where(inside, genes.pull_in, genes.pull_out) * scale
        share = g.size[task] / g.mean
        filled = used / jnp.maximum(g.capacity, 1)[:, None]
        seat = (task * 31 + index[:, 0] * 7) % 257
        score = end + genes.alpha * g.coming[task][:, None] + genes.thrift * g.waste[task][:, None]
        score = score + genes.price * scale * share * filled
        score = score + genes.noise * scale * wobble[seat] - jnp.where(index == parent[task], pull, 0.0)
        left = g.capacity[:, None] - used - g.size[task]
        score = jnp.where(left >= 0, score, 1e6 * scale - left.astype(jnp.float32)) + g.able[task][:, None]
        choice = jnp.argmin(score, axis=0).astype(jnp.int8)
        fresh = True
        if grouped:
            home = row(homes, g.unit[task])
            fresh = home < 0
            choice = jnp.where(fresh, choice, home)
            homes = lax.dynamic_update_index_in_dim(homes, choice, g.unit[task], 0)
        used = used + jnp.where((index == choice) & fresh, g.size[task], 0)
        return finish, placed, free, used, homes, jnp.where(index == choice, end, 0.0).sum(0), choice

    start = (jnp.zeros((n + 1, lanes)), jnp.zeros((n + 1, lanes), jnp.int8), jnp.zeros((devices, lanes)),
             jnp.zeros((devices, lanes), jnp.int32), jnp.full((n if grouped else 1, lanes), -1, jnp.int8), jnp.zeros(lanes),
             jnp.full(lanes, -1, jnp.int8))  # fmt: skip
    finish, placed, free, used, _, found, chosen = lax.fori_loop(0, n, body, start)
    placed = lax.dynamic_update_index_in_dim(placed, chosen, n - 1, 0)[:n]
    excess = jnp.maximum(used - g.capacity[:, None], 0).sum(0)
    mean = (finish[:n].sum(0) + found) / n
    return jnp.maximum(free.max(0), found), mean, excess, placed


def genes(rng: np.random.Generator, n: int, free: bool = False, lanes: int = LANES) -> Genes:
    """Lanes of one generation: windows of all lengths that let go of the parent; `free`: all lanes let go everywhere."""
    length = np.exp(rng.uniform(np.log(max(8, n // 200)), np.log(2 * n), lanes))
    begin = rng.uniform(-length / 2, n - length / 2)
    pull_in = np.where(rng.random(lanes) < 0.5, 0.0, 10 ** rng.uniform(-4, -1.5, lanes))
    pull_out = np.where(rng.random(lanes) < 0.8, _FIRM, 10 ** rng.uniform(-4, -1, lanes))
    if free:
        pull_out = pull_in = np.zeros(lanes)
    alpha = np.where(rng.random(lanes) < 0.3, 0.0, rng.uniform(0, 1.2, lanes))
    thrift = np.where(rng.random(lanes) < 0.2, 0.0, 10 ** rng.uniform(-1.5, 1.3, lanes))
    price = np.where(rng.random(lanes) < 0.5, 0.0, 10 ** rng.uniform(-5, -2, lanes))
    noise = np.where(rng.random(lanes) < 0.4, 0.0, 10 ** rng.uniform(-5, -2, lanes))
    return Genes(
        *(np.asarray(x, np.float32) for x in (alpha, thrift, price, noise, begin, begin + length, pull_in, pull_out))
    )


class Lines:
    """A line of descent a core, begun at the best starts; half-way the worst goes on from the best."""

    def __init__(self, problem: Problem, starts, seed: int):
        g = graph(problem)
        ranked = sorted(starts, key=lambda s: (problem.excess_bytes(s.placement), value(problem, s)))
        count = max(2, cores())
        pick = [ranked[min(k, len(ranked) - 1)] for k in range(count)]
        self.lines = [
            Line(problem, g, s.placement, s.order, value(problem, s), seed * 1000 + k) for k, s in enumerate(pick)
        ]

    @property
    def evaluations(self) -> int:
        return sum(line.evaluations for line in self.lines)

    def run(self, more, ranked_orders) -> None:
        """Generations of every line while `more(number of generations, seconds of the last)`."""
        done, last = 0, 0.0
        with ThreadPoolExecutor(len(self.lines)) as pool:
            while more(done, last):
                began = time.perf_counter()
                list(pool.map(lambda line: line.generation(ranked_orders), self.lines))
                done, last = done + 1, time.perf_counter() - began
                if done % 50 == 0:
                    best, worst = (f(self.lines, key=lambda x: x.value) for f in (min, max))
                    worst.parent, worst.judged = best.parent, best.judged

    def starts(self) -> list[Start]:
        return [Start("neighbourhoods", line.placement, line.order) for line in self.lines if np.isfinite(line.value)]


def warm(problem: Problem) -> None:
    """Compile the program of a problem's shape."""
    start = single_devices(problem)[0]
    Line(problem, graph(problem), start.placement, start.order, 1.0, 0).generation(lambda *_: problem.order[None])


class Line:
    """One line of descent: the parent, its generations, and the best child so far. `g` may be shared between lines.

    Children are judged by makespan plus `blend` times the mean finish: what ends earlier in the middle of a large problem shows in
    the makespan only when everything behind it has followed.
    """

    def __init__(self, problem: Problem, g: Graph, placement, order, value: float, seed: int, blend: float = 1.0):
        self.problem, self.g, self.rng, self.blend = problem, g, np.random.default_rng(seed), blend
        self.parent = (np.asarray(placement), np.asarray(order))
        self.placement, self.order = self.parent
        self.judged, self.scale = np.inf, value
        self.value = value if problem.excess_bytes(placement) == 0 else np.inf
        self.grouped = bool((problem.group >= 0).any())
        self.evaluations, self.stale, self.count, self.heat = 0, 0, 0, 0.0

    def generation(self, ranked_orders) -> bool:
        """One generation; whether the parent was replaced."""
        placement, order = self.parent
        self.count += 1
        free = 1 < self.count <= 5 or self.stale % 8 == 7
        if self.stale % 3 == 1 or free:
            noise = float(self.rng.choice([0.0, 0.02, 0.1]))
            order = ranked_orders(self.problem, placement[None], noise, self.rng)[0]
        lanes = genes(self.rng, self.problem.n_tasks, free)
        key = jax.random.key(int(self.rng.integers(2**31)))
        span, mean, excess, placed = children(self.g, jnp.asarray(placement), jnp.asarray(order), lanes, key, self.scale,
                                              grouped=self.grouped)  # fmt: skip
        self.evaluations += LANES
        span, excess = np.asarray(span), np.asarray(excess)
        judged = span + self.blend * np.asarray(mean)

        def child(lane: int):
            found = np.empty_like(placement)
            found[order] = np.asarray(placed[:, lane])
            return found, order

        def same(lane):
            return self.heat > 0 and abs(judged[lane] / self.judged - 1) < 1e-7

        shortest = int(np.lexsort((span, excess))[0])
        if excess[shortest] == 0 and span[shortest] < self.value * (1 - 1e-6):
            self.placement, self.order = child(shortest)
            self.value = float(span[shortest])
        lane = int(np.lexsort((judged, excess))[0])
        if excess[lane] == 0 and judged[lane] < self.judged * (1 + self.heat) and not same(lane):
            self.parent, self.judged, self.stale = child(lane), float(judged[lane]), 0
            return True
        self.stale += 1
        return False
