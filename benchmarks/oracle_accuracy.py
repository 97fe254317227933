"""How far `evaluate` is from an event-driven simulation with finite buffers: throughput and latency of every model.

The default package, GPT-2 + ResNet-50 in the default mix (rates rounded to whole passes: 1 and 26) and GPT-2 at sequence 128
with one pass each: 100 random schedules (half operator by operator, half segments; random chiplet mixes) and 100 taken from
search fronts. Steady state over the last 20 of 40 rounds; passes in flight and their effect are reported with the errors.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]
import numpy as np
from _common import arguments, report

SCENARIOS = {"default, 1:26": (1024, "equal-work"), "sequence 128, 1:1": (128, "equal-inferences")}


def scenario(name):
    import equinox as eqx

    import perfmodel as pm

    seq_len, mix = SCENARIOS[name]
    both = pm.merge([pm.models.load("gpt2", seq_len=seq_len), pm.models.load("resnet50")], mix)
    return eqx.tree_at(lambda w: w.rate, both, np.round(both.rate)), pm.systems.load("mcm-2x2")


def random_candidates(n, n_operators, rng):
    """Half operator by operator, half 2 to 40 segments; chiplet types drawn for every position."""
    rows = []
    for i in range(n):
        if i % 2:
            cuts = np.sort(rng.choice(np.arange(1, n_operators), rng.integers(1, 40), replace=False))
            rows.append(rng.integers(0, 4, len(cuts) + 1)[np.searchsorted(cuts, np.arange(n_operators), side="right")])
        else:
            rows.append(rng.integers(0, 4, n_operators))
    return np.asarray(rows, np.int32), rng.integers(0, 2, (n, 4)).astype(np.int32)


def front_candidates(name, n, generations):
    """Evenly along the fronts of throughput against energy and throughput against latency."""
    import search

    both, system = scenario(name)
    assignment, kinds = [], []
    for objectives in (("throughput", "energy"), ("throughput", "latency")):
        settings = search.Settings(starts=64, relaxed_steps=40, population=256, generations=generations)
        front = search.explore(both, search.Space.mix(system, ["os", "ws"]), objectives, 0, settings=settings)
        pick = np.unique(np.linspace(0, len(front) - 1, n // 2).round().astype(int))
        assignment.append(front.assignment[pick].astype(np.int32))
        kinds.append(front.kinds[pick])
    return np.concatenate(assignment), np.concatenate(kinds)


def judge(job):
    """One schedule: scenario, origin, errors of throughput and of each latency, and facts that may explain them."""
    name, origin, assignment, kind = job
    from oracles.event_simulation import Costs, simulate_latency, simulate_throughput

    import perfmodel as pm

    both, system = scenario(name)
    system = system.with_kinds(kind)
    import jax

    system = jax.tree.map(np.asarray, system)
    table = pm.cost_table(both, system)
    metrics = pm.evaluate_many(both, system, pm.Schedule(assignment[None]), table=table)
    costs = Costs.of(table)
    simulated = simulate_throughput(both, system, assignment, costs)
    errors = {"throughput": simulated.period_s / float(metrics.period_s[0]) - 1}
    for m, model in enumerate(both.model_names):
        alone = simulate_latency(both, system, assignment, costs, model=m)
        errors[f"latency {model}"] = float(metrics.models.latency_s[0, m]) / alone.time_s - 1
    moved = sum(v for way, v in simulated.moved_bytes.items() if way != "network")
    facts = dict(
        segments=len(pm.Schedule(assignment).segments(both)),
        memory_ratio=moved / (float(metrics.busy_s[0, -1]) * float(system.memory.bytes_per_s[0])),
        saturated=int(np.sum(np.asarray(metrics.busy_s[0, :4]) > 0.9 * float(np.max(metrics.busy_s[0])))),
    )
    return name, origin, errors, facts


def main():
    args = arguments(__doc__.splitlines()[0], each=(50, "schedules of each origin and scenario"), generations=(150, "of the searches"),
                     workers=(2, "processes"))  # fmt: skip
    jobs = []
    for s, name in enumerate(SCENARIOS):
        both, _ = scenario(name)
        for origin, (assignment, kinds) in (
            ("random", random_candidates(args.each, both.n_operators, np.random.default_rng(s))),
            ("front", front_candidates(name, args.each, args.generations)),
        ):
            jobs += [(name, origin, a, k) for a, k in zip(assignment, kinds, strict=True)]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        judged = list(pool.map(judge, jobs, chunksize=4))
    groups = {}
    for name, origin, errors, _ in judged:
        for quantity, error in errors.items():
            for group in (f"{name}, {origin}", f"all, {origin}", "all, all"):
                groups.setdefault((group, quantity.split()[0]), []).append(error)
    lines = [
        f"{'schedules':28}{'quantity':12}{'n':>5}{'median |e| %':>14}{'worst |e| %':>13}{'median e %':>12}{'over 5 %':>10}{'over 15 %':>11}"
    ]
    table = []
    for (group, quantity), errors in sorted(groups.items()):
        e = np.asarray(errors) * 100
        row = dict(group=group, quantity=quantity, n=len(e), median_abs_percent=float(np.median(abs(e))),
                   worst_abs_percent=float(abs(e).max()),
                   median_percent=float(np.median(e)), over_5_percent=int((abs(e) > 5).sum()),
                   over_15_percent=int((abs(e) > 15).sum()))  # fmt: skip
        table.append(row)
        lines.append(f"{group:28}{quantity:12}{row['n']:5}{row['median_abs_percent']:14.2f}{row['worst_abs_percent']:13.2f}"
                     f"{row['median_percent']:12.2f}{row['over_5_percent']:10}{row['over_15_percent']:11}")  # fmt: skip
    note = "error = model / simulation - 1; passes in flight of each model: 3/4 of a round, at least 4 a chiplet"
    each = [dict(scenario=n, origin=o, errors_percent={k: 100 * v for k, v in e.items()}, **f) for n, o, e, f in judged]
    worst = sorted(each, key=lambda r: -abs(r["errors_percent"]["throughput"]))[:8]
    lines.append(
        "worst throughput: error %, chiplet segments, memory bytes simulated / modelled, chiplets over 90 % busy"
    )
    lines += [f"  {r['errors_percent']['throughput']:8.1f}{r['segments']:6}{r['memory_ratio']:8.2f}{r['saturated']:4}  "
              f"{r['scenario']}, {r['origin']}" for r in worst]  # fmt: skip
    report("oracle_accuracy", args, {"rows": table, "note": note, "schedules": each}, [*lines, note])


if __name__ == "__main__":
    main()
