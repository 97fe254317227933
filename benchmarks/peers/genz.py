"""GenZ and our model of serving on the same measured rows of tests/data/llm_e2e.csv, and points per CPU second of both, in one run.

GenZ needs an environment of its own: python3 -m venv DIR && DIR/bin/pip install genz-llm==0.0.16
It gets the specification sheet of the GPU and its default efficiency, 1.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from _common import arguments, report

DATA = HERE.parents[1] / "tests" / "data" / "llm_e2e.csv"
MODELS = {"llama-2-7b": "meta-llama/Llama-2-7B", "llama-2-70b": "llama2_70b"}  # rows' models that it knows
SHEETS = {
    "a100-80gb": (312, 80, 2039, 300),
    "h100-80gb": (989, 80, 3350, 450),
    "l40s": (362, 48, 864, 32),
}  # T/s, GB, GB/s, GB/s
BITS = {"fp16": "bf16", "bf16": "bf16", "fp8": "fp8", "int8": "int8"}  # one width for weights and activations


def main() -> None:
    args = arguments(__doc__, genz_python=("", "interpreter of the environment that has GenZ"))
    if not args.genz_python:
        sys.exit("genz.py: --genz-python is missing; see --help for how to make that environment")
    import jax
    import numpy as np

    from perfmodel.calibration import _llm
    from perfmodel.calibration._llm_rows import read_rows

    rows = [
        r for r in read_rows(DATA)[0] if r.quantity in ("ttft_ms", "tpot_ms") and r.model in MODELS and r.dtype in BITS
    ]
    child = subprocess.run(
        [args.genz_python, "-P", str(HERE / "_genz_child.py")],
        input=json.dumps([job(r) for r in rows]),
        capture_output=True,
        text=True,
    )
    if child.returncode:
        sys.exit(f"genz.py: GenZ failed: {child.stderr.strip().splitlines()[-1]}")
    theirs = json.loads(child.stdout.split("RESULT")[1])
    with jax.enable_x64(True):
        ours = _llm.predictions(rows)
    kept = [i for i, t in enumerate(theirs) if "ms" in t]
    told, lines = (
        [],
        [
            f"{'system':11}{'model':13}{'dtype':6}{'ranks':>6}{'in':>6}{'measured':>10}{'GenZ':>9}{'error':>8}{'ours':>9}{'error':>8}"
        ],
    )
    for i in kept:
        r, them = rows[i], theirs[i]["ms"]
        told.append(r._asdict() | {"genz": them, "ours": float(ours[i])})
        lines.append(f"{r.system:11}{r.model:13}{r.dtype:6}{r.tensor:6.0f}{r.input_tokens:6.0f}{r.measured:10.5g}{them:9.4g}"
                     f"{them / r.measured - 1:+8.0%}{ours[i]:9.4g}{ours[i] / r.measured - 1:+8.0%}")  # fmt: skip
    figures = {}
    for quantity in ("ttft_ms", "tpot_ms"):
        mine = [i for i in kept if rows[i].quantity == quantity]
        off = {who: [abs(x / rows[i].measured - 1) for i, x in zip(mine, values, strict=True)]
               for who, values in (("genz", [theirs[i]["ms"] for i in mine]), ("ours", [ours[i] for i in mine]))}  # fmt: skip
        figures[quantity] = {"rows": len(mine)} | {
            f"{who}_{how.__name__}_ape_percent": float(100 * how(x))
            for who, x in off.items()
            for how in (np.median, np.mean)
        }
        lines.append(
            f"{quantity}: median error, GenZ {100 * np.median(off['genz']):.0f} %, ours {100 * np.median(off['ours']):.1f} %"
        )
    rate = len(theirs) / sum(t["cpu_s"] for t in theirs)
    own = our_rate()
    lines.append(f"points per CPU second: GenZ {rate:.1f}, ours {own:,.0f} (one grid of dgx-a100, llama-2-7b, decode)")
    without = sorted({rows[i].model for i, t in enumerate(theirs) if "error" in t})
    args.genz_python = ""
    sys.argv = [sys.argv[0], "--genz-python", "DIR/bin/python"]
    result = {
        "genz": "0.0.16",
        "figures": figures,
        "genz_points_per_cpu_s": rate,
        "our_points_per_cpu_s": own,
        "rows": told,
        "without": without,
    }
    report("peers_genz", args, result, lines)


def job(row) -> dict:
    """A row as GenZ's arguments."""
    flops, memory, bandwidth, link = SHEETS[row.system]
    system = {
        "Flops": flops,
        "Memory_size": memory,
        "Memory_BW": bandwidth,
        "ICN": link,
        "ICN_LL": 1,
        "real_values": True,
    }
    phase = "prefill" if row.quantity == "ttft_ms" else "decode"
    return {"model": MODELS[row.model], "batch": row.batch or 1, "system": system, "bits": BITS[row.dtype], "tensor": row.tensor,
            "phase": phase, "tokens": row.input_tokens, "new_tokens": row.output_tokens}  # fmt: skip


def our_rate() -> float:
    """Points per CPU second of one sweep, best of three."""
    import jax
    import numpy as np

    import perfmodel as pm
    from perfmodel.serving import decoder, formats, machine, stack_formats, sweep

    of = machine(pm.systems.load("dgx-a100"))
    grid = dict(formats=stack_formats([formats(of, d)[0] for d in ("bf16", "int8")]),
                parallel=np.asarray([[n, 1, 1, 1] for n in (1.0, 2, 4, 8)]), batch=np.arange(1.0, 129),
                context=np.arange(128.0, 32769, 128))  # fmt: skip
    best = 0.0
    for _ in range(4):
        start = time.process_time()
        found = jax.block_until_ready(sweep(of, decoder("llama-2-7b"), **grid))
        best = max(best, found["tpot_s"].size / (time.process_time() - start))
    return best


if __name__ == "__main__":
    main()
