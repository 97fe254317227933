"""The mapper: mappings counted per second, its best against ZigZag's, and ResNet-50 on six machines from a cold start."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import arguments, median, report

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "tests" / "data" / "zigzag.csv"
# what ZigZag's own mapping files unroll over the array dimensions of each machine
UNROLL = {
    "tpu_like": {0: [("K",)], 1: [("C",)]}, "eyeriss_like": {0: [("K",)], 1: [("C",)]},
    "meta_prototype": {0: [("K",)], 1: [("C",)], 2: [("Q",)], 3: [("P",)]},
    "gemm_l1": {0: [("P",)], 1: [("C",)], 2: [("K",)]}, "gemm_l1_l3": {0: [("P",)], 1: [("C",)], 2: [("K",)]},
}  # fmt: skip
GEMMINI = {0: [("C",)], 1: [("K",)]}


def zigzag_rows():
    from perfmodel.calibration import read_table
    from perfmodel.calibration import zigzag as z

    rows = read_table(ROWS, z.COLUMNS)
    return rows, z.load_machines(ROWS.with_name(z.MACHINES_FILE))


def against_zigzag(generations: int) -> dict:
    """Our best over ZigZag's, both counted by ZigZag's conventions, of every row."""
    import jax
    import numpy as np

    from perfmodel.calibration import zigzag as z
    from perfmodel.cost import ZIGZAG, map_operators

    rows, machines = zigzag_rows()
    with jax.enable_x64(True):
        theirs = z.zigzag_cost(ROWS, rows, machines)
        theirs = {"latency": np.asarray(theirs.cycles), "energy": np.asarray(theirs.total_j)}
    found = {}
    for objective in ("latency", "energy"):
        ratios = np.zeros(len(rows["hardware"]))
        for name in machines:
            at = np.flatnonzero(rows["hardware"] == name)
            problems = z.stacked([z.row_problem(rows, i) for i in at])
            drain = np.asarray([z.row_nest("", rows, i)[1] for i in at])
            got = map_operators(problems, z.machine(name, machines[name]), UNROLL[name], objective, how=ZIGZAG,
                                drain_cycles=drain, generations=generations)  # fmt: skip
            assert got.fits.all()
            mine = got.cycles if objective == "latency" else got.energy_j
            ratios[at] = mine / theirs[objective][at]
        found[objective] = {
            "rows": len(ratios), "worst": float(ratios.max()), "median": float(np.median(ratios)), "best": float(ratios.min()),
            "better_by_0.1_percent": int(np.sum(ratios < 0.999)), "worse_by_2_percent": int(np.sum(ratios > 1.02)),
        }  # fmt: skip
    return found


def rate(repeat: int) -> dict:
    """Warm evaluations per wall second (all cores) and per CPU second, whole mapper included."""
    from perfmodel.calibration import zigzag as z
    from perfmodel.cost import OURS, ZIGZAG, map_operators

    rows, machines = zigzag_rows()
    at = [i for i, name in enumerate(rows["hardware"]) if name == "tpu_like"]
    problems = z.stacked([z.row_problem(rows, i) for i in at])
    machine = z.machine("tpu_like", machines["tpu_like"])
    found = {}
    for name, how in (("ours", OURS), ("zigzag", ZIGZAG)):

        def run(how=how):
            return map_operators(problems, machine, UNROLL["tpu_like"], how=how, generations=200).evaluations

        run()
        wall, cpu = [], []
        for _ in range(repeat):
            clock, used = time.perf_counter(), time.process_time()
            n = run()
            wall.append(n / (time.perf_counter() - clock))
            cpu.append(n / (time.process_time() - used))
        found[name] = {"per_s": median(wall), "per_cpu_s": median(cpu), "evaluations": n}
    return found


COLD = """
import sys, time
start = time.perf_counter()
import jax, numpy as np
sys.path.insert(0, {here!r})
import mapper as m
import perfmodel as pm
from perfmodel.calibration import zigzag as z
from perfmodel.cost import OURS, map_operators, problem
from perfmodel.hardware import gemmini
workload = pm.models.load("resnet50")
matrix = np.flatnonzero(np.asarray(workload.operators.is_matrix) > 0)
sizes = jax.tree.map(lambda x: np.asarray(x)[..., matrix], problem(workload.operators))
columns = np.concatenate([np.atleast_2d(x) for x in jax.tree.leaves(sizes)])
_, first = np.unique(columns, axis=1, return_index=True)
sizes = jax.tree.map(lambda x: x[..., first], sizes)
_, machines = m.zigzag_rows()
made = [(z.machine(n, machines[n]), m.UNROLL[n]) for n in machines] + [(gemmini(16, 4096, 262144), m.GEMMINI)]
fits = [map_operators(sizes, machine, unroll, "edp", generations={generations}).fits.all() for machine, unroll in made]
print("RESULT", time.perf_counter() - start, time.process_time(), len(first), len(matrix), sum(map(bool, fits)))
"""


def cold(generations: int) -> dict:
    """A new process with an empty compilation cache: import, compile, map ResNet-50's 54 layers on six machines."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": empty, "PERFMODEL_NO_CACHE": "1"}
        code = COLD.format(here=str(Path(__file__).parent), generations=generations)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    seconds, cpu, distinct, layers, fitting = done.stdout.split("RESULT")[1].split()
    return {"seconds": float(seconds), "cpu_s": float(cpu), "layers": int(layers), "distinct_layers": int(distinct),
            "machines": 6, "machines_on_which_all_fit": int(fitting), "generations": generations}  # fmt: skip


def main() -> None:
    args = arguments(__doc__, repeat=(5, "repetitions of the rate"), generations=(100, "generations against ZigZag"))
    result = {"cold": cold(40), "rate": rate(args.repeat), "against_zigzag": against_zigzag(args.generations)}
    lines = [f"{'':10}{'M/s':>8}{'M/CPU s':>9}   (mappings counted, mapper included)"]
    lines += [f"{k:10}{v['per_s'] / 1e6:8.2f}{v['per_cpu_s'] / 1e6:9.2f}" for k, v in result["rate"].items()]
    lines.append(f"{'':10}{'worst':>8}{'median':>8}{'best':>8}   (ours / ZigZag's best, ZigZag's conventions)")
    lines += [f"{k:10}{v['worst']:8.4f}{v['median']:8.4f}{v['best']:8.4f}   {v['better_by_0.1_percent']} of {v['rows']} better"
              for k, v in result["against_zigzag"].items()]  # fmt: skip
    c = result["cold"]
    lines.append(f"ResNet-50 on {c['machines']} machines, cold: {c['seconds']:.1f} s ({c['cpu_s']:.1f} CPU s)")
    report("mapper", args, result, lines)


if __name__ == "__main__":
    main()
