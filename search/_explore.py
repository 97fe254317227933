"""`explore`: relaxed placements descend, are rounded, and seed an evolutionary search with exact evaluations."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfmodel import Metrics, Schedule, System, Workload, cost_table, evaluate_many
from perfmodel.hardware import mesh
from perfmodel.schedule import greedy_schedule, least_devices

from . import _checkpoint as checkpoint
from ._evolve import Population, offspring, random_population, select
from ._objectives import check_objectives, costs, in_words
from ._pareto import front_of
from ._relax import descend, initial_logits, objective_weights, rounded, start_descent
from ._space import Space

RELAXED_STEP_EVALUATIONS = 3  # a relaxed step with its gradient counts as so many evaluations
_ROUND_EVERY = 20  # relaxed steps between two roundings
_CLOUD = 4000  # dominated candidates remembered for pictures


@dataclass(frozen=True)
class Settings:
    """How long to search. `starts` relaxed placements take `relaxed_steps`; `population` candidates evolve."""

    starts: int = 192
    relaxed_steps: int = 60
    population: int = 512
    generations: int = 250


@dataclass
class Front:
    """What a search found: `N` non-dominated candidates, sorted by the first objective.

    - `assignment` `N x L`, `kinds` `N x D` (chiplet types as indices of `space.system.type_names`), `metrics` with leading
      axis `N` (host arrays).  `cloud`: costs of dominated candidates, `K x M`, logarithms to be minimised.
    - `evaluations`: exact evaluations + 3 for each relaxed step; `exact_evaluations`: the former.
    - `history`: (evaluations, best cost of each objective) as the search went.
    """

    workload: Workload
    space: Space
    objectives: tuple[str, ...]
    assignment: np.ndarray
    kinds: np.ndarray
    metrics: Metrics
    cloud: np.ndarray
    evaluations: int
    exact_evaluations: int
    seconds: float
    history: list[tuple[int, list[float]]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.assignment)

    @property
    def costs(self) -> np.ndarray:
        """Logarithms of the objectives, minimised, `N x M`."""
        return np.asarray(costs(self.metrics, self.objectives))

    def system(self, i: int) -> System:
        """The package of point i."""
        return self.space.system.with_kinds(self.kinds[i])

    def schedule(self, i: int) -> Schedule:
        return Schedule(self.assignment[i].astype(np.int32))

    def mix(self, i: int) -> str:
        return self.space.mix_name(self.kinds[i])

    def best(self, metric: str, most: bool = False) -> int:
        """Index of the point with the least (most) of a field of Metrics."""
        values = np.asarray(getattr(self.metrics, metric))
        return int(np.argmax(values) if most else np.argmin(values))


def explore(
    workload: Workload,
    space: Space,
    objectives=("throughput", "energy"),
    key=0,
    *,
    settings: Settings | None = None,
    progress: Callable[[dict], None] | None = None,
    directory: str | None = None,
    resume: bool = False,
    greedy: bool = True,
    watch: Callable | None = None,
    distinct_limit: int | None = None,
) -> Front:
    """Search schedules and chiplet mixes of `space` for the trade-offs between `objectives`.

    **Arguments:**
    - `objectives`: names of `OBJECTIVES`; `key`: an integer seed or a JAX key.
    - `settings`: sizes of the search.  `progress`: called with `{"phase", "done", "total", "evaluations", "best"}`.
    - `greedy`: whether the stated greedy schedules join the first population.
    - `watch`: called with (assignment, kinds) of every batch evaluated; its `seen`, if it has one, is a set of distinct
      candidates, and `distinct_limit` ends the search when that many have been evaluated.
    - `directory`: where to keep a checkpoint every few seconds; `resume`: go on from it.

    Raises ValueError for unknown objectives, and for a checkpoint that belongs to another search. Infeasible candidates stay
    in the search, worse than any feasible one; the front holds feasible ones if there are any.
    """
    objectives, settings = check_objectives(objectives), settings or Settings()
    key = jax.random.key(key) if isinstance(key, int) else key
    search = _Search(
        workload, space, objectives, settings, key, progress or (lambda _: None), greedy, watch, distinct_limit
    )
    if directory is not None and resume:
        search.restore(directory)
    search.run(directory)
    return search.front()


class _Search:
    """One run; everything random is a function of `key` and the generation, so that a resumed run equals an unbroken one."""

    def __init__(self, workload, space, objectives, settings, key, progress, greedy, watch, distinct_limit):
        self.greedy, self.watch, self.distinct_limit = greedy, watch, distinct_limit
        self.workload, self.space, self.objectives, self.settings = workload, space, objectives, settings
        self.key, self.progress = key, progress
        self.system = _with_only(space)
        self.table = cost_table(workload, self.system, by_type=True)
        self.n_chiplets, self.n_kinds = self.system.n_chiplets, space.n_kinds
        self.generation, self.exact, self.relaxed, self.seconds = 0, 0, 0, 0.0
        self.population: Population | None = None
        self.archive = _Archive(len(objectives))
        self.history: list[tuple[int, list[float]]] = []
        self._started = time.perf_counter()

    @property
    def evaluations(self) -> int:
        return self.exact + RELAXED_STEP_EVALUATIONS * self.relaxed

    def run(self, directory):
        if self.population is None:
            self.population = self._first_population()
        saved = time.perf_counter()
        while self.generation < self.settings.generations and self._more_than_one() and not self._seen_enough():
            key = jax.random.fold_in(self.key, 1000 + self.generation)
            children = offspring(key, self.population, self.n_chiplets, self.n_kinds)
            self.population = select(self.population, self._evaluated(*children))
            self.generation += 1
            self._tell("evolve", self.generation, self.settings.generations)
            last = self.generation == self.settings.generations
            if directory is not None and (last or time.perf_counter() - saved > 5.0):
                self.save(directory)
                saved = time.perf_counter()

    def _seen_enough(self) -> bool:
        # the next generation must still fit
        return self.distinct_limit is not None and len(self.watch.seen) + self.settings.population > self.distinct_limit

    def _more_than_one(self) -> bool:
        return self.n_chiplets > 1 or self.n_kinds > 1

    def _first_population(self) -> Population:
        """Greedy, random and rounded relaxed candidates; the best of them are the first generation."""
        size = self.settings.population
        _, k_logits, k_weights = _first_keys(self.key)
        n = self.workload.n_operators
        assignment, kinds = first_random(self.key, size, self.workload, self.space)
        found = self._evaluated(assignment, kinds)
        found = select(found, found)  # sorted
        if not self._more_than_one():
            return found
        if self.greedy:
            found = select(found, _padded(self._evaluated(*self._greedy()), size))
        if self.settings.starts and self.settings.relaxed_steps:
            starts = self.settings.starts
            logits = initial_logits(k_logits, starts, n, self.n_chiplets, self.n_kinds)
            weights = objective_weights(k_weights, starts, len(self.objectives))
            state, steps = start_descent(logits), self.settings.relaxed_steps
            for begin in range(0, steps, _ROUND_EVERY):
                logits, state = descend(
                    logits, state, weights, self.workload, self.system, self.table, self.objectives,
                    jnp.arange(begin, begin + _ROUND_EVERY) / max(steps - 1, 1),
                )  # fmt: skip
                self.relaxed += starts * _ROUND_EVERY
                found = select(found, _padded(self._evaluated(*rounded(logits)), size))
                self._tell("relax", begin + _ROUND_EVERY, steps)
        return found

    def _greedy(self):
        """The stated greedy schedule of every homogeneous package."""
        rows, kinds = [], []
        for kind in range(self.n_kinds):
            choice = np.full(self.n_chiplets, kind, np.int8)
            system = self.system if self.space.is_fixed else self.system.with_kinds(choice.astype(np.int32))
            rows.append(greedy_schedule(self.workload, system).assignment.astype(np.int8))
            kinds.append(choice)
        return jnp.asarray(np.stack(rows)), jnp.asarray(np.stack(kinds))

    def _evaluated(self, assignment, kinds) -> Population:
        metrics = self._metrics(assignment, kinds)
        self.exact += len(assignment)
        if self.watch is not None:
            self.watch(assignment, kinds)
        population = Population(assignment, kinds, costs(metrics, self.objectives))
        self.archive.add(population)
        return population

    def _metrics(self, assignment, kinds) -> Metrics:
        return evaluate_many(
            self.workload, self.system, Schedule(assignment), table=self.table,
            kinds=None if self.space.is_fixed else kinds, chunk=self.settings.population,
        )  # fmt: skip

    def _tell(self, phase, done, total):
        best = self.archive.costs.min(axis=0).tolist() if len(self.archive.costs) else []
        self.history.append((self.evaluations, best))
        self.seconds += time.perf_counter() - self._started
        self._started = time.perf_counter()
        words = dict(zip(self.objectives, in_words(best, self.objectives), strict=False))
        self.progress(
            dict(phase=phase, done=done, total=total, evaluations=self.evaluations, seconds=self.seconds, best=words)
        )

    def front(self) -> Front:
        archive = self.archive
        kinds = (
            archive.kinds
            if not self.space.is_fixed
            else np.broadcast_to(np.asarray(self.space.system.kind), archive.kinds.shape)
        )
        metrics = jax.tree.map(np.asarray, self._metrics(archive.assignment, archive.kinds))
        keep = np.flatnonzero(metrics.feasible) if metrics.feasible.any() else np.arange(len(archive.costs))
        types = np.asarray(kinds if self.space.is_fixed else np.asarray(self.space.types)[kinds])
        self.seconds += time.perf_counter() - self._started
        return Front(
            self.workload, self.space, self.objectives, archive.assignment[keep], types[keep].astype(np.int32),
            jax.tree.map(lambda x: x[keep], metrics), archive.cloud(), self.evaluations, self.exact, self.seconds, self.history,
        )  # fmt: skip

    def _fingerprint(self) -> dict:
        return dict(
            workload=list(self.workload.model_names), operators=self.workload.n_operators, mix=self.workload.mix,
            system=self.space.system.name, types=[int(t) for t in self.space.types], objectives=list(self.objectives),
            population=self.settings.population, key=[int(x) for x in np.asarray(jax.random.key_data(self.key)).ravel()],
        )  # fmt: skip

    def save(self, directory) -> None:
        checkpoint.save(directory, self._fingerprint(), self.population, self.archive.state(),
                        dict(generation=self.generation, exact=self.exact, relaxed=self.relaxed, seconds=self.seconds,
                             history=self.history))  # fmt: skip

    def restore(self, directory) -> None:
        population, archive, counters = checkpoint.load(directory, self._fingerprint())
        self.population = Population(*(jnp.asarray(x) for x in population))
        self.archive.set_state(archive)
        self.generation, self.exact, self.relaxed = (counters[k] for k in ("generation", "exact", "relaxed"))
        self.seconds, self.history = counters["seconds"], [tuple(h) for h in counters["history"]]


def first_random(key, size: int, workload: Workload, space: Space):
    """The random candidates that a search with this key starts from: assignments `size x L`, kinds `size x D`."""
    key = jax.random.key(key) if isinstance(key, int) else key
    return random_population(_first_keys(key)[0], size, workload.n_operators, space.system.n_chiplets, space.n_kinds)


def _first_keys(key):
    return jax.random.split(jax.random.fold_in(key, 0), 3)


class _Archive:
    """All non-dominated candidates seen, and a sample of the others' costs (host)."""

    def __init__(self, n_objectives: int):
        self.assignment = self.kinds = np.zeros((0, 0), np.int8)
        self.costs = np.zeros((0, n_objectives))
        self._cloud: list[np.ndarray] = []
        self._seen = 0

    def add(self, population: Population) -> None:
        new = jax.tree.map(np.asarray, population)
        all_costs = np.concatenate([self.costs, new.costs])
        keep = front_of(all_costs)
        rows = [np.concatenate([old, more]) if len(old) else more
                for old, more in ((self.assignment, new.assignment), (self.kinds, new.kinds))]  # fmt: skip
        self.assignment, self.kinds, self.costs = rows[0][keep], rows[1][keep], all_costs[keep]
        self._seen += len(new.costs)
        self._cloud.append(new.costs[:: max(len(new.costs) // 64, 1)])

    def cloud(self) -> np.ndarray:
        points = np.concatenate(self._cloud) if self._cloud else self.costs
        return points[:: max(len(points) // _CLOUD, 1)]

    def state(self):
        return dict(assignment=self.assignment, kinds=self.kinds, costs=self.costs, cloud=self.cloud())

    def set_state(self, state) -> None:
        self.assignment, self.kinds, self.costs = state["assignment"], state["kinds"], state["costs"]
        self._cloud = [state["cloud"]]


def _with_only(space: Space) -> System:
    """The system with its types narrowed to those on offer, so that choices are 0 to K - 1."""
    system = space.system
    if space.is_fixed:
        return system
    types = np.asarray(space.types)
    names = tuple(system.type_names[t] for t in types)
    narrowed = eqx.tree_at(
        lambda s: (s.types, s.kind), system, (system.types.pick(types), np.zeros(system.n_chiplets, np.int32))
    )
    narrowed = eqx.tree_at(lambda s: s.chiplets, narrowed, narrowed.types.pick(narrowed.kind))
    return replace(narrowed, type_names=names)


def _padded(population: Population, size: int) -> Population:
    """Exactly `size` candidates: copies of the first fill up (selection counts copies last), or the first `size`."""
    index = np.minimum(np.arange(max(size, len(population.costs))), len(population.costs) - 1)
    index = np.where(np.arange(len(index)) < len(population.costs), index, 0)[:size]
    return jax.tree.map(lambda x: x[index], population)


def check_possible(workload: Workload, space: Space, *, memory: bool = True) -> None:
    """Raise ValueError where no schedule whatever could be feasible: memory (unless `memory` is False) or every buffer too small."""
    system = _with_only(space)
    stored, capacity = workload.stored_bytes, float(np.sum(system.memory.capacity_bytes))
    models = " + ".join(workload.model_names)
    if memory and stored > capacity:
        raise ValueError(
            f"{system.name}: memory.capacity is {capacity:.6g} bytes; {models} stores {stored:.6g} bytes of weights, "
            f"caches and states: at least that; {stored - capacity:.6g} bytes are too much, "
            f"{least_devices(stored, system)} such devices would hold it"
        )
    table = cost_table(workload, system, by_type=not space.is_fixed)
    buffers = np.asarray((system.chiplets if space.is_fixed else system.types).buffer_bytes)
    excess = np.min(np.asarray(table.working_bytes) - buffers[None, :], axis=1)
    row = int(np.argmax(excess))
    if excess[row] > 0:
        need = float(np.min(np.asarray(table.working_bytes)[row]))
        raise ValueError(
            f"{system.name}: buffer is {buffers.max():.6g} bytes; operator {workload.names[row]} needs at least {need:.6g} bytes"
        )


def monolithic(system: System, type_name: str = "os") -> System:
    """One accelerator with the PEs, lanes, buffer, bandwidths and static power of all chiplets of `system` together, of the
    named dataflow type, and the same memory; no network. Needs equal array sizes; ValueError otherwise."""
    n = system.n_chiplets
    like = system.with_types([type_name] * n).types.pick(np.asarray([system.type_names.index(type_name)]))
    for field_name in ("rows", "columns"):
        sizes = np.unique(np.asarray(getattr(system.chiplets, field_name)))
        if len(sizes) > 1:
            raise ValueError(
                f"{system.name}: {field_name} differ between chiplets; a monolithic twin needs equal arrays"
            )
    side = math.isqrt(n)
    tall, wide = (side, side) if side * side == n else (1, n)
    summed = ("lanes", "buffer_bytes", "buffer_bytes_per_s", "static_w")
    chip = replace(
        like, rows=like.rows * tall, columns=like.columns * wide, **{f: getattr(like, f) * n for f in summed}
    )
    package = mesh([(0, 0)], [0], ("m",), link_bytes_per_s=1e9, port_bytes_per_s=1e9, hop_s=0.0, hop_j_per_byte=0.0)
    return replace(
        system, chiplets=chip, types=chip, kind=np.zeros(1, np.int32), package=package, name=f"monolithic-{type_name}",
        chiplet_names=("m",), type_names=(type_name,),
    )  # fmt: skip


def explore_baseline(workload: Workload, system: System, objectives, key=0, settings: Settings | None = None) -> Front:
    """The same search over schedules only, of a system as it stands: what a front is compared with."""
    return explore(workload, Space.fixed(system), objectives, key, settings=settings)
