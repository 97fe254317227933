"""Measured language models (tests/data/llm_e2e.csv) by the model of serving: with the shipped constants and calibrated on kernels.

Calibrated constants: perfmodel calibrate gpu-kernels tests/data/gpu_kernels.csv --out PARAMETERS, then --parameters PARAMETERS.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import arguments, report

DATA = Path(__file__).parents[1] / "tests" / "data" / "llm_e2e.csv"
# Per cent, mean, measured for the project's reference (table of peers' accuracy): TTFT of TensorRT-LLM v0.5 on A100s (4 rows), time per
# token of gpt-fast in bf16 (7 rows) and int8 (2), LLM-Viewer's 7B on an A100 (TTFT at 2048 tokens, decode)
QUOTED = {"GenZ 0.0.16": {"ttft_a100_mean": 42.0, "tpot_bf16_mean": 36.0, "tpot_int8_mean": 46.0},
          "LLM-Viewer 472f71f": {"ttft_7b_2048": 20.0, "tpot_7b": 31.0}}  # fmt: skip


def main() -> None:
    args = arguments(__doc__, parameters=("", "constants calibrated on kernels"), file=(str(DATA), "rows"))
    import jax
    import numpy as np

    from perfmodel.calibration import llm
    from perfmodel.calibration.llm import QUANTITIES, read_rows

    rows, others = read_rows(args.file)
    with jax.enable_x64(True):
        found = {"shipped": llm.predictions(rows)}
        if args.parameters:
            found["calibrated"] = llm.predictions(rows, args.parameters)
    figures, lines = {}, []
    for quantity in QUANTITIES:
        mine = [i for i, row in enumerate(rows) if row.quantity == quantity]
        if not mine:
            continue
        measured = np.asarray([rows[i].measured for i in mine])
        figures[quantity] = {"rows": len(mine)} | {
            how: {
                "median_ape_percent": _percent(np.median, values[mine], measured),
                "mape_percent": _percent(np.mean, values[mine], measured),
            }
            for how, values in found.items()
        }
        text = "; ".join(
            f"{how} median {figures[quantity][how]['median_ape_percent']:.1f} %, mean {figures[quantity][how]['mape_percent']:.1f} %"
            for how in found
        )
        lines.append(f"{quantity} ({len(mine)} rows): {text}")
    lines.append("")
    lines.append(f"{'software':10}{'system':11}{'model':17}{'dtype':9}{'ranks':>6}{'batch':>7}{'in':>7}{'out':>6}{'measured':>11}"
                 + "".join(f"{how:>12}{'error':>8}" for how in found))  # fmt: skip
    told = []
    for i, row in enumerate(rows):
        told.append(row._asdict() | {how: float(values[i]) for how, values in found.items()})
        if row.quantity in ("ttft_ms", "tpot_ms"):
            lines.append(f"{row.software:10}{row.system:11}{row.model:17}{row.dtype:9}{row.tensor:6.0f}{row.batch:7.0f}{row.input_tokens:7.0f}"
                         f"{row.output_tokens:6.0f}{row.measured:11.5g}"
                         + "".join(f"{v[i]:12.5g}{v[i] / row.measured - 1:+8.1%}" for v in found.values()))  # fmt: skip
    if others:
        lines.append("not compared: " + ", ".join(f"{n} rows of {what}" for what, n in others.items()))
    result = {
        "figures": figures,
        "request_s": llm.REQUEST_S,
        "quoted_percent": QUOTED,
        "not_compared": others,
        "rows": told,
    }
    if args.parameters:
        without = np.asarray([row.measured for row in rows])
        mine = [i for i, row in enumerate(rows) if row.quantity == "ttft_ms"]
        result["ttft_without_request_s"] = {
            how: _percent(np.median, values[mine] - 1e3 * llm.REQUEST_S, without[mine]) for how, values in found.items()
        }
        bare = ", ".join(f"{how} median {x:.1f} %" for how, x in result["ttft_without_request_s"].items())
        lines.append(f"ttft_ms without the assumed {llm.REQUEST_S * 1e3:g} ms a request: {bare}")
        args.parameters = ""
        sys.argv = [sys.argv[0], "--parameters", "PARAMETERS"]
    args.file = ""
    report("llm_e2e", args, result, lines)


def _percent(mean, predicted, measured) -> float:
    return float(100 * mean(abs(predicted / measured - 1)))


if __name__ == "__main__":
    main()
