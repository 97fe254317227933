"""ZigZag's mapper and ours on the same layers and machine, in one run: mappings per CPU second, and who finds the better one.

ZigZag needs an environment of its own: python3 -m venv DIR && DIR/bin/pip install zigzag-dse==3.9.1 six
"""

import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from _common import arguments, report
from mapper import UNROLL, zigzag_rows

_LAYERS = ("opt125m_qkv_prefill128", "opt125m_ffn1_decode", "gemm_512x512x512", "conv3x3_64_56", "conv3x3_128_28")


def main() -> None:
    args = arguments(__doc__, zigzag_python=("", "interpreter of the environment that has ZigZag"))
    if not args.zigzag_python:
        sys.exit("zigzag.py: --zigzag-python is missing; see --help for how to make that environment")
    import numpy as np

    from perfmodel.calibration import zigzag as z
    from perfmodel.cost import ZIGZAG, map_operators

    rows, machines = zigzag_rows()
    at = [
        i
        for i, (h, name) in enumerate(zip(rows["hardware"], rows["layer"], strict=True))
        if h == "tpu_like" and name in _LAYERS
    ]
    jobs = [
        {"layer": str(rows["layer"][i]), "dims": rows["dims"][i], "stride": int(np.nan_to_num(rows["stride"][i], nan=1)),
         "hardware": "tpu_like", "mapping": "tpu_like", "objective": "latency"}
        for i in at
    ]  # fmt: skip
    child = subprocess.run(
        [args.zigzag_python, "-P", str(HERE / "_zigzag_child.py")],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
    )
    if child.returncode:
        sys.exit(f"zigzag.py: ZigZag failed: {child.stderr.strip().splitlines()[-1]}")
    theirs = json.loads(child.stdout.split("RESULT")[1])
    machine = z.machine("tpu_like", machines["tpu_like"])
    problems = [z.stacked([z.row_problem(rows, i)]) for i in at]
    drains = [np.asarray([z.row_nest("", rows, i)[1]]) for i in at]

    def ours(k):
        return map_operators(
            problems[k], machine, UNROLL["tpu_like"], "latency", how=ZIGZAG, drain_cycles=drains[k], generations=100
        )

    ours(0)  # compile
    layers, lines = (
        [],
        [f"{'layer':28}{'ZigZag cycles':>14}{'ours':>11}{'ZigZag /CPU s':>15}{'ours /CPU s':>13}{'CPU s':>14}"],
    )
    for k, (job, their) in enumerate(zip(jobs, theirs, strict=True)):
        start = time.process_time()
        found = ours(k)
        cpu = time.process_time() - start
        row = {
            "layer": job["layer"], "zigzag_cycles": their["latency"], "our_cycles": float(found.cycles[0]),
            "zigzag_cpu_s": their["cpu_s"], "zigzag_per_cpu_s": their["evaluations"] / their["cpu_s"],
            "our_cpu_s": cpu, "our_per_cpu_s": found.evaluations / cpu,
        }  # fmt: skip
        layers.append(row)
        lines.append(f"{row['layer']:28}{row['zigzag_cycles']:14,.0f}{row['our_cycles']:11,.0f}{row['zigzag_per_cpu_s']:15,.0f}"
                     f"{row['our_per_cpu_s']:13,.0f}{row['zigzag_cpu_s']:8.2f}{cpu:6.2f}")  # fmt: skip
    ratio = float(np.median([r["our_per_cpu_s"] / r["zigzag_per_cpu_s"] for r in layers]))
    lines.append(f"mappings per CPU second: {ratio:,.0f} times ZigZag's (median)")
    args.zigzag_python = ""
    sys.argv = [sys.argv[0], "--zigzag-python", "DIR/bin/python"]
    report("peers_zigzag", args, {"zigzag": "3.9.1", "layers": layers, "median_ratio_per_cpu_s": ratio}, lines)


if __name__ == "__main__":
    main()
