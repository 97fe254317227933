"""Islands of annealed candidates: one a core, compiled once a problem shape, handing over their best."""

import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from ..._arrays import Compiled, compiled, nodes_of, tasks_of
from ..._bounds import units
from ..._problem import Problem
from ..._timeline_jax import cores
from ._evolve import Tables, anneal, start, tables
from ._small import Done
from ._starts import ranked_orders, single_devices, slack, value

HANDED = 8  # rounds between two exchanges
PER_TASK = 60_000  # evaluations per task after which more annealing is not worth the time
LADDER = 4.0  # hottest and coldest lane, times and over


def heats(tasks: int) -> tuple[tuple[float, float], ...]:
    """First and last temperature of the islands, shares of the makespan: what one task matters shrinks with their number."""
    hot, cold = min(0.05, 8.0 / tasks), 0.03 / max(tasks, 100)
    return (hot, cold), (hot / 5, cold)


def lanes_of(nodes: int) -> int:
    """Candidates side by side: fewer in large problems, whose tables would leave the cache, and where steps are dear."""
    return 128 if nodes <= 1024 else 64 if nodes <= 4096 else 32


def steps_of(nodes: int) -> int:
    """Steps of a round: some tenths of a second."""
    return int(np.clip(4e6 // (nodes * lanes_of(nodes)), 4, 200))


def binds(problem: Problem) -> bool:
    """Whether memory can be exceeded at all."""
    return bool((problem.capacity_bytes < problem.memory_bytes.sum()).any())


def statics(problem: Problem) -> dict:
    return dict(congestion=problem.congestion, worst_case=problem.worst_case, memory=binds(problem))


def warm(problem: Problem) -> float:
    """Compile the programs of a problem's shape; seconds it took."""
    began = time.perf_counter()
    Islands(problem, single_devices(problem)[:1], 1.0, 0, count=1).run(0, lambda: np.inf, np.inf, 0.0)
    return time.perf_counter() - began


class Islands:
    """Populations of one problem. `scale`: makespan of the best start."""

    def __init__(self, problem: Problem, starts, scale: float, seed: int, *, count: int | None = None, memory: bool | None = None,
                 heat=None):  # fmt: skip
        self.began, self.problem, self.scale = time.perf_counter(), problem, scale if scale > 0 else 1.0
        self.heat = heats(problem.n_tasks) if heat is None else heat
        self.c: Compiled = compiled(problem, np.float32)
        self.rng = np.random.default_rng(seed)
        self.table: Tables = tables(problem, self.c, self.scale, self.rng)
        self.of = units(problem).of
        self.static = statics(problem) | ({} if memory is None else {"memory": memory})
        m = len(self.c.arrays.runs)
        self.lanes, self.steps = lanes_of(m), steps_of(m)
        self.keys = jax.random.split(jax.random.key(seed), count or max(cores(), 2))
        self.starts = starts
        self.states = [self._populate() for _ in self.keys]

    def _populate(self):
        """Lanes: the best starts first and most often, with their own orders or orders by noisy ranks."""
        p, u = self.problem, self.table.seat.shape[1]
        ranked = sorted(self.starts, key=lambda s: (p.excess_bytes(s.placement), value(p, s)))
        pick = [ranked[int(len(ranked) * (k / self.lanes) ** 2)] for k in range(self.lanes)]
        placements = np.stack([s.placement for s in pick])
        fresh = np.arange(self.lanes) % 2 == 1
        orders = np.stack([s.order for s in pick])
        if fresh.any() and self.lanes > 1:
            orders[fresh] = ranked_orders(p, placements[fresh], 0.1, self.rng)
        where = np.zeros((u, self.lanes), np.int8)
        where[self.of] = placements.T
        nodes = np.stack([nodes_of(self.c, o) for o in orders], axis=1)
        return start(where, nodes)

    def run(self, rounds: int | None, left, limit: float, bound: float) -> Done:
        """Rounds until their number, the time, or the worth of annealing is used up, or the bound is reached."""
        per_round = self.lanes * self.steps
        most = -(-PER_TASK * self.problem.n_tasks // (per_round * len(self.keys))) if rounds is None else rounds
        at_start, ladder = limit - left() if np.isfinite(limit) else 0.0, np.geomspace(1 / LADDER, LADDER, self.lanes)
        best, found_at, done, slowest = np.inf, self.began, 0, 0.0

        def progress(extra: int) -> float:
            by_time = (limit - left() - at_start) / max(limit - at_start, 1e-9) if np.isfinite(limit) else 0.0
            return min(max((done + extra) / max(most, 1), by_time), 1.0)

        def advance(k: int, steps: int = self.steps, fresh: bool = False):
            hot, cold = self.heat[k % len(self.heat)]
            ends = [hot * (cold / hot) ** f * ladder for f in (progress(0), progress(1))]
            key = jax.random.fold_in(self.keys[k], done)
            heat = jnp.asarray(np.stack(ends), jnp.float32)
            return jax.block_until_ready(anneal(self.table, self.states[k], key, heat, steps, fresh, **self.static))

        with ThreadPoolExecutor(len(self.states)) as pool:
            self.states = list(pool.map(lambda k: advance(k, 0, True), range(len(self.states))))
            while True:
                now = min(float(s.best) for s in self.states)
                if now < best:
                    best, found_at = now, time.perf_counter()
                if done >= most or left() < 1.1 * slowest or best * self.scale <= bound * (1 + 1e-6):
                    break
                began = time.perf_counter()
                self.states = list(pool.map(advance, range(len(self.states))))
                done, slowest = done + 1, time.perf_counter() - began
                if done % HANDED == 0:
                    self._exchange(progress(0))
        evaluations = (done * self.steps + 1) * self.lanes * len(self.states)
        if not np.isfinite(best):
            return Done(None, None, evaluations, found_at)
        state = min(self.states, key=lambda s: float(s.best))
        order = tasks_of(self.c, np.asarray(state.best_order))
        return Done(np.asarray(state.best_where)[self.of].astype(int), order, evaluations, found_at)

    def _exchange(self, progress: float) -> None:
        """The best of all into a lane of every island, in the second half of the time; the critical path of it draws moves."""
        best = min(self.states, key=lambda s: float(s.best))
        if not np.isfinite(float(best.best)):
            return
        if progress > 0.5:
            for k, s in enumerate(self.states):
                lane = int(np.argmax(np.asarray(s.energy)))
                at = np.empty_like(best.best_order)
                at[np.asarray(best.best_order)] = np.arange(len(at), dtype=np.int32)
                self.states[k] = s._replace(
                    where=s.where.at[:, lane].set(best.best_where), order=s.order.at[:, lane].set(best.best_order),
                    at=s.at.at[:, lane].set(at), energy=s.energy.at[lane].set(best.best),
                )  # fmt: skip
        placement, order = (
            np.asarray(best.best_where)[self.of].astype(int),
            tasks_of(self.c, np.asarray(best.best_order)),
        )
        spare = slack(self.problem, placement, order)
        weight = np.zeros(self.table.likely.shape[0])
        np.maximum.at(weight, self.of, np.exp(-spare / (0.02 * self.scale)))
        self.table = self.table._replace(likely=jnp.asarray(np.cumsum(weight) / weight.sum(), jnp.float32))
