"""GenZ and our model of serving on the same measured rows of tests/data/llm_e2e.csv, and points per CPU second of both, in one run.

GenZ needs an environment of its own: python3 -m venv DIR && DIR/bin/pip install genz-llm==0.0.16
It gets the specification sheet of the GPU and its default efficiency, 1.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from _common import arguments, report
from _rows import QUANTITIES, ask, figures, latency_rows, our_answers, our_speed, table

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
    rows = [r for r in latency_rows() if r.model in MODELS and r.dtype in BITS]
    answers = ask(args.genz_python, "_genz_child.py", [job(r) for r in rows])
    kept = [i for i, a in enumerate(answers) if "ms" in a]
    without = sorted({rows[i].model for i, a in enumerate(answers) if "error" in a})
    rows, theirs = [rows[i] for i in kept], [answers[i]["ms"] for i in kept]
    ours = our_answers(rows)
    found, lines = figures(rows, {"genz": theirs, "ours": ours}), table(rows, "GenZ", theirs, ours)
    for quantity in QUANTITIES:
        off = found[quantity]
        lines.append(
            f"{quantity}: median error, GenZ {off['genz_median_ape_percent']:.0f} %, ours {off['ours_median_ape_percent']:.1f} %"
        )
    rate = len(answers) / sum(a["cpu_s"] for a in answers)
    points, taken = our_speed(3)
    own = points / min(taken)
    lines.append(f"points per CPU second: GenZ {rate:.1f}, ours {own:,.0f} (one grid of dgx-a100, llama-2-7b, decode)")
    sys.argv = [sys.argv[0], "--genz-python", "DIR/bin/python"]
    result = {
        "genz": "0.0.16",
        "figures": found,
        "genz_points_per_cpu_s": rate,
        "our_points_per_cpu_s": own,
        "rows": [r._asdict() | {"genz": a, "ours": b} for r, a, b in zip(rows, theirs, ours, strict=True)],
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


if __name__ == "__main__":
    main()
