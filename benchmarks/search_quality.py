"""Search quality, 10 or 20 seeds: exact optima of enumerable spaces, and hypervolume beside pymoo's NSGA-II and random search.

(a) Spaces enumerated to the end (about 2 million points): is the exact optimum of each objective found with at most 40,000
    distinct evaluations, in how many of 20 seeds?
(b) The default scenario, same encoding (one integer an operator, one a position), same first population and same budget, where
    a relaxed step with its gradient counts as 3 evaluations: hypervolume of log objectives below a fixed reference point,
    normalised by the box between the reference and the best value of each objective that any run found.
"""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import jax
import jax.numpy as jnp
import numpy as np
from _common import arguments, median, report

import perfmodel as pm
import search
from perfmodel.workload import GraphBuilder, operator_row
from search import costs, hypervolume, random_population

OBJECTIVES = ("throughput", "energy")


def small_workload(variant: int):
    """8 operators in two models, with residual edges and unlike shapes; two variants."""
    loaded = []
    for name, seed in (("a", variant), ("b", variant + 10)):
        draw = np.random.default_rng(seed)
        g, rows = GraphBuilder(name), []
        for i in range(4):
            size, width = int(draw.choice([14, 28, 56])), int(draw.choice([3, 64, 128, 256]))
            kind = ("conv", "gemm", "conv", "add")[i]
            if kind == "conv":
                row = operator_row("conv", k=128, c=width, p=size, q=size, r=3, s=3)
            elif kind == "gemm":
                row = operator_row("gemm", k=512, c=width, p=size * 8)
            else:
                row = operator_row("add", k=128, p=size, q=size)
            inputs = [] if not rows else [rows[-1]] + ([rows[0]] if i == 3 else [])
            rows.append(g.add(f"op{i}", row, inputs, outside_bytes=0.0 if rows else 1e5))
        loaded.append(g.build())
    return pm.merge(loaded)


def enumerate_all(workload, system, table, types):
    """Costs of every assignment and every arrangement of types; the least of each objective."""
    n, d = workload.n_operators, system.n_chiplets
    digits = jnp.asarray(list(itertools.product(range(d), repeat=n)), jnp.int8)
    best = None
    for kinds in itertools.product(types, repeat=d):
        row = jnp.broadcast_to(jnp.asarray(kinds, jnp.int8), (len(digits), d))
        metrics = pm.evaluate_many(workload, system, pm.Schedule(digits), table=table, kinds=row, chunk=len(digits))
        least = np.asarray(costs(metrics, OBJECTIVES)).min(axis=0)
        best = least if best is None else np.minimum(best, least)
    return best, len(digits) * len(types) ** d


class Counted:
    """Distinct candidates evaluated, told by the search."""

    def __init__(self):
        self.seen: set[bytes] = set()

    def __call__(self, assignment, kinds):
        genes = np.concatenate([np.asarray(assignment), np.asarray(kinds)], axis=1).astype(np.int8)
        self.seen.update(row.tobytes() for row in genes)


def exact_optima(seeds: int):
    """Rows of part (a)."""
    system = pm.systems.load("mcm-2x2")
    rows = []
    for variant in (0, 2):
        workload = small_workload(variant)
        names = ["os", "ws"] if variant < 2 else ["os", "ws", "os-flex"]
        space = search.Space.mix(system, names)
        table = pm.cost_table(workload, system, by_type=True)
        exact, size = enumerate_all(workload, system, table, [system.type_names.index(n) for n in names])
        hits, distinct = np.zeros(2, int), []
        for seed in range(seeds):
            counted = Counted()
            settings = search.Settings(starts=16, relaxed_steps=40, population=256, generations=200)
            front = search.explore(
                workload, space, OBJECTIVES, seed, settings=settings, watch=counted, distinct_limit=40_000 - 16 * 40 * 3
            )
            hits += np.isclose(front.costs.min(axis=0), exact, rtol=0, atol=1e-5)
            distinct.append(len(counted.seen) + search.RELAXED_STEP_EVALUATIONS * 16 * 40)
        rows.append(dict(variant=variant, points=size, seeds=seeds, hits=dict(zip(OBJECTIVES, hits.tolist(), strict=True)),
                         distinct_evaluations_median=median(distinct), distinct_evaluations_max=max(distinct)))  # fmt: skip
    return rows


def run_pymoo(workload, system, table, first, budget, population, seed, n_kinds):
    """pymoo's NSGA-II on the same integers, from the same first population."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.optimize import minimize

    n, d = workload.n_operators, system.n_chiplets

    class Placement(Problem):
        def __init__(self):
            super().__init__(
                n_var=n + d,
                n_obj=2,
                xl=np.zeros(n + d),
                xu=np.r_[np.full(n, d - 1), np.full(d, n_kinds - 1)],
                vtype=int,
            )
            self.points = []

        def _evaluate(self, x, out, *_, **__):
            x = np.asarray(x, np.int8)
            metrics = pm.evaluate_many(
                workload, system, pm.Schedule(x[:, :n]), table=table, kinds=x[:, n:], chunk=population
            )
            out["F"] = np.asarray(costs(metrics, OBJECTIVES), float)
            self.points.append(out["F"])

    problem = Placement()
    algorithm = NSGA2(pop_size=population, sampling=np.concatenate([np.asarray(first[0]), np.asarray(first[1])], axis=1).astype(int),
                      crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
                      mutation=PM(prob=1.0, eta=20, vtype=float, repair=RoundingRepair()), eliminate_duplicates=True)  # fmt: skip
    minimize(problem, algorithm, ("n_eval", budget), seed=seed, verbose=False)
    return np.concatenate(problem.points)


def run_random(workload, system, table, budget, seed, n_kinds):
    """As many random candidates of the same kind as the first population."""
    points = []
    for part in range(0, budget, 4096):
        key = jax.random.fold_in(jax.random.key(seed + 1000), part)
        assignment, kinds = random_population(key, 4096, workload.n_operators, system.n_chiplets, n_kinds)
        metrics = pm.evaluate_many(workload, system, pm.Schedule(assignment), table=table, kinds=kinds, chunk=4096)
        points.append(np.asarray(costs(metrics, OBJECTIVES), float))
    return np.concatenate(points)[:budget]


def quality(seeds: int, budget: int):
    """Rows of part (b)."""
    workload = pm.merge([pm.models.load("gpt2"), pm.models.load("resnet50")])
    system = pm.systems.load("mcm-2x2")
    space = search.Space.mix(system, ["ws", "os"])  # in the order of the file, so that choices and columns agree
    table, population, n_kinds = pm.cost_table(workload, system, by_type=True), 256, 2
    starts, steps = 48, 40
    generations = (budget - starts * steps * search.RELAXED_STEP_EVALUATIONS) // population - 5
    fronts: dict[str, list[np.ndarray]] = {"relax + evolve": [], "evolve alone": [], "pymoo NSGA-II": [], "random": []}
    used: dict[str, list[int]] = {name: [] for name in fronts}
    for seed in range(seeds):
        found = search.explore(
            workload,
            space,
            OBJECTIVES,
            seed,
            settings=search.Settings(starts, steps, population, generations),
            greedy=False,
        )
        alone = search.explore(
            workload,
            space,
            OBJECTIVES,
            seed,
            settings=search.Settings(0, 0, population, budget // population - 1),
            greedy=False,
        )
        first = search.first_random(seed, population, workload, space)
        theirs = run_pymoo(workload, system, table, first, budget, population, seed, n_kinds)
        random = run_random(workload, system, table, budget, seed, n_kinds)
        for name, points, count in (("relax + evolve", found.costs, found.evaluations), ("evolve alone", alone.costs, alone.evaluations),
                                    ("pymoo NSGA-II", theirs, len(theirs)), ("random", random, len(random))):  # fmt: skip
            fronts[name].append(points[search.front_of(points)])
            used[name].append(count)
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    # fixed by the problem, not by the runs: twice as bad, in both, as everything on one weight-stationary chiplet
    plain = pm.evaluate_many(workload, system, pm.Schedule(np.zeros((1, workload.n_operators), np.int8)), table=table,
                             kinds=np.full((1, 4), system.type_names.index("ws"), np.int8))  # fmt: skip
    reference = np.asarray(costs(plain, OBJECTIVES))[0] + np.log(2.0)
    ideal = np.min([p.min(axis=0) for points in fronts.values() for p in points], axis=0)
    box = float(np.prod(reference - ideal))
    rows = []
    for name, points in fronts.items():
        volume = [hypervolume(p, reference) / box for p in points]
        rows.append(dict(method=name, hypervolume_median=median(volume), hypervolume_min=min(volume), hypervolume_max=max(volume),
                         evaluations=median(used[name]), hypervolumes=volume))  # fmt: skip
    return rows, reference.tolist()


def main():
    args = arguments(__doc__.splitlines()[0], seeds=(10, "seeds of the hypervolume"), exact_seeds=(20, "seeds of the exact optima"),
                     budget=(30_000, "evaluations of each method"))  # fmt: skip
    exact = exact_optima(args.exact_seeds)
    rows, reference = quality(args.seeds, args.budget)
    lines = [
        f"{'enumerated space':18}{'points':>12}{'optimum found, of':>20}{'throughput':>12}{'energy':>8}{'distinct evaluations':>22}"
    ]
    for r in exact:
        lines.append(f"{r['variant']:<18}{r['points']:12,}{r['seeds']:20}{r['hits']['throughput']:12}{r['hits']['energy']:8}"
                     f"{r['distinct_evaluations_median']:14,.0f} <= {r['distinct_evaluations_max']:,.0f}")  # fmt: skip
    lines.append(
        f"{'method':18}{'evaluations':>12}{'hypervolume: median':>20}{'least':>9}{'most':>9}{'x pymoo':>9}{'x random':>10}"
    )
    by_name = {r["method"]: r for r in rows}
    for r in rows:
        r["ratio_to_pymoo"] = r["hypervolume_median"] / by_name["pymoo NSGA-II"]["hypervolume_median"]
        r["ratio_to_random"] = r["hypervolume_median"] / by_name["random"]["hypervolume_median"]
        lines.append(f"{r['method']:18}{r['evaluations']:12,.0f}{r['hypervolume_median']:20.4f}{r['hypervolume_min']:9.4f}"
                     f"{r['hypervolume_max']:9.4f}{r['ratio_to_pymoo']:9.3f}{r['ratio_to_random']:10.3f}")  # fmt: skip
    report(
        "search_quality",
        args,
        {"exact": exact, "hypervolume": rows, "reference_log_costs": reference, "budget": args.budget},
        lines,
    )


if __name__ == "__main__":
    main()
