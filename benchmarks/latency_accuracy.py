"""Latency of one pass against the event-driven simulation: random branching graphs, slow memory, links and ports.

200 schedules (operator by operator or in segments) of graphs whose rows read up to three of the eight rows before, on a 2x2 package
with memory at one corner or everywhere and memory, links, ports and buffers of any width. Also what the busiest resource alone would
take, and how far the answer is from it.
"""

import sys
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parent),
    *(str(Path(__file__).parent.parent / "tests" / part) for part in ("", "schedule")),
]
import numpy as np
from _common import arguments, report


def main():
    args = arguments(__doc__.splitlines()[0], schedules=(200, "schedules"), seed=(0, "of the random cases"))
    from oracles.event_simulation import Costs, simulate_latency
    from random_cases import assignment, graph, package

    import perfmodel as pm

    rng, base, rows = np.random.default_rng(args.seed), pm.systems.load("mcm-2x2"), []
    while len(rows) < args.schedules:
        workload, system = graph(rng, 8, 40), package(rng, base)
        table = pm.cost_table(workload, system)
        if float(np.max(table.working_bytes)) > float(np.min(system.chiplets.buffer_bytes)):
            continue  # no operator could run
        where = assignment(rng, workload.n_operators, 4)
        simulated = simulate_latency(workload, system, where, Costs.of(table))
        m = pm.evaluate(workload, system, pm.Schedule(where), table=table)
        moved = sum(simulated.moved_bytes.values())
        ours = np.asarray(m.busy_s)
        rows.append(
            dict(
                error_percent=100 * (float(m.latency_s) / simulated.time_s - 1),
                over_busiest=float(m.latency_s) / float(ours.max()),
                memory_ratio=float(ours[-1]) / max(float(simulated.busy[-1]) * simulated.time_s, 1e-30),
                moved_bytes=moved,
                operators=workload.n_operators,
            )
        )
    errors = np.asarray([r["error_percent"] for r in rows])
    alike = np.asarray(
        [abs(r["memory_ratio"] - 1) < 0.01 for r in rows]
    )  # the simulation kept and spilled what the model does
    result = dict(
        schedules=len(rows), median_abs_percent=float(np.median(abs(errors))), p90_abs_percent=float(np.quantile(abs(errors), 0.9)),
        worst_low_percent=float(errors.min()), worst_high_percent=float(errors.max()),
        within_10_percent=float(np.mean(abs(errors) <= 10)), same_bytes=float(np.mean(alike)),
        worst_abs_same_bytes_percent=float(abs(errors[alike]).max()), below_busiest=int(sum(r["over_busiest"] < 1 - 1e-5 for r in rows)),
    )  # fmt: skip
    lines = [f"{key:32}{value:12.2f}" for key, value in result.items()]
    report("latency_accuracy", args, {**result, "note": "error = model / simulation - 1", "rows": rows}, lines)


if __name__ == "__main__":
    main()
