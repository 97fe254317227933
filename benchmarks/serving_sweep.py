"""Operating points of a language model in service per second: batch x context x parallelism x precision in one jitted, vmapped call."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import arguments, report

# Measured on two shared x86 cores for the project's reference (peers' table of speed); benchmarks/peers/ runs them beside ours.
QUOTED = {"LLM-Viewer": 16000.0, "GenZ": 6.0}
FORMATS = (
    ("bf16", None, None),
    ("bf16", "int8", None),
    ("bf16", "int4-g128", None),
    ("fp8", None, None),
    ("fp8", None, "bf16"),
    ("bf16", "fp8", "fp8"),
)
PARALLEL = (
    (1, 1, 1, 1),
    (2, 1, 1, 1),
    (4, 1, 1, 1),
    (8, 1, 1, 1),
    (4, 2, 1, 1),
    (2, 2, 1, 2),
    (2, 4, 1, 1),
    (4, 1, 1, 2),
)
CASES = (("dgx-h100", "llama-3-70b", "decode"), ("dgx-h100", "llama-3-70b", "prefill"), ("dgx-h100", "mixtral-8x7b", "decode"),
         ("sn40l-node", "llama-3-70b", "decode"))  # fmt: skip


def main() -> None:
    args = arguments(__doc__, batches=(128, "batch sizes"), contexts=(256, "context lengths"), repeats=(5, "calls timed"),
                     prefill_share=(8, "prefill takes so many times fewer contexts"))  # fmt: skip
    rows = [measured(*case, args) for case in CASES]
    result = {"cases": rows, "quoted_points_per_s": QUOTED, "points_per_s": rows[0]["points_per_s"]}
    lines = [
        f"{'system':12}{'model':14}{'phase':9}{'points':>10}{'points/s':>14}{'points/CPU s':>14}{'compile s':>11}{'loop, rel. error':>18}"
    ]
    for r in rows:
        lines.append(f"{r['system']:12}{r['model']:14}{r['phase']:9}{r['points']:10,}{r['points_per_s']:14,.0f}{r['points_per_cpu_s']:14,.0f}"
                     f"{r['compile_s']:11.1f}{r['max_rel_error']:18.1e}")  # fmt: skip
    lines.append("quoted: " + ", ".join(f"{name} {rate:,.0f} points/s" for name, rate in QUOTED.items()))
    report("serving_sweep", args, result, lines)


def measured(system: str, name: str, phase: str, args) -> dict:
    """Best of several calls, all figures computed and waited for; some points again, one by one."""
    import jax
    import numpy as np

    import perfmodel as pm
    from perfmodel.cost import formats, machine, stack_formats
    from perfmodel.models import decoder
    from perfmodel.serving import Point, serve, sweep

    of, model = machine(pm.systems.load(system)), decoder(name)
    several = [formats(of, *each)[0] for each in FORMATS]
    contexts = args.contexts if phase == "decode" else max(args.contexts // args.prefill_share, 1)
    grid = dict(parallel=np.asarray(PARALLEL, float), batch=np.arange(1.0, args.batches + 1),
                context=np.round(np.geomspace(128, 32768, contexts)))  # fmt: skip

    def call():
        return jax.block_until_ready(sweep(of, model, formats=stack_formats(several), phase=phase, **grid))

    start = time.perf_counter()
    found = call()
    compile_s = time.perf_counter() - start
    best, best_cpu = np.inf, np.inf
    for _ in range(args.repeats):
        start, cpu = time.perf_counter(), time.process_time()
        call()
        best, best_cpu = min(best, time.perf_counter() - start), min(best_cpu, time.process_time() - cpu)
    key = "ttft_s" if phase == "prefill" else "tpot_s"
    values = np.asarray(found[key])
    rng, worst = np.random.default_rng(0), 0.0
    alone = jax.jit(lambda formed, at: getattr(serve(of, model, formed, at, phase=phase), key))
    for _ in range(20):
        f, p, b, c = (int(rng.integers(n)) for n in values.shape)
        at = Point(*[float(x) for x in Point()])._replace(
            batch=grid["batch"][b], **{"context" if phase == "decode" else "tokens": grid["context"][c]},
            **dict(zip(("tensor", "pipeline", "expert", "data"), grid["parallel"][p], strict=True)),
        )  # fmt: skip
        one = float(alone(jax.tree.map(lambda x: np.float32(x), several[f]), at))
        worst = max(worst, abs(one / float(values[f, p, b, c]) - 1))
    return {"system": system, "model": name, "phase": phase, "points": int(values.size), "points_per_s": values.size / best,
            "points_per_cpu_s": values.size / best_cpu, "compile_s": compile_s, "max_rel_error": worst}  # fmt: skip


if __name__ == "__main__":
    main()
