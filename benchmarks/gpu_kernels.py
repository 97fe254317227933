"""Kernel models against measured GPU kernels in three regimes, beside the plain and the smooth roofline.

    python benchmarks/gpu_kernels.py --file tests/data/gpu_kernels.csv

- (i) uncalibrated: specification sheet + shared constants fitted on the *other* GPUs (all their sources).
- (ii) calibrated per GPU and source on half of the shapes (by hash), tested on the other half; both ways, so every row is
  tested once. The start and prior are shared constants fitted on the training halves of all groups.
- (iii) calibrated on the smaller half (by operations), tested on the larger half. GEMMs only.

Rows flagged `suspect_above_peak_bw` are left out; rows flagged `includes_pytorch_launch_overhead` (LLMCompass) are groups of
their own: their launch overhead is fitted in (ii), and they are left out of (i), of the shared constants and of the summary.
`--write-constants` also fits the shared constants on all rows and writes them into the package.
"""

import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np
from _common import arguments, report

from perfmodel.calibration import fit
from perfmodel.calibration.gpu_kernels import (
    Group,
    entry,
    fit_group,
    fit_shared,
    mape_percent,
    predicted_s,
    read_groups,
)
from perfmodel.cost.kernels import (
    FAMILIES,
    PRECISIONS,
    SHIPPED,
    SmoothRooflineParameters,
    plain_roofline_s,
    read_entries,
    smooth_roofline_s,
    write_entries,
)

LEFT_OUT = ("llmcompass",)  # times contain the framework's launch overhead
TARGETS = {  # MAPE in percent: (family, variant, gpu, source contains) -> regime -> target
    ("gemm", "bf16", "A100-SXM-80GB", ""): {"i": 10, "ii": 7},
    ("gemm", "bf16", "H100-SXM-80GB", "trtllm"): {"i": 9, "ii": 4},
    ("gemm", "bf16", "H100-SXM-80GB", "vllm"): {"i": 9, "ii": 6},
    ("gemm", "bf16", "H100-SXM-80GB", "vidur"): {"i": 9, "ii": 9},
    ("gemm", "bf16", "L40S", ""): {"i": 20, "ii": 12},
    ("attn_decode", "", "", ""): {"ii": 12},
    ("attn_prefill", "", "", ""): {"ii": 15},
    ("moe_ffn", "", "", ""): {"ii": 20},
    ("custom_all_reduce", "", "", ""): {"ii": 15},
}


def target(group: Group, regime: str) -> float | None:
    for (family, variant, gpu, source), targets in TARGETS.items():
        if group.family == family and variant in group.variant and gpu in group.gpu and source in group.source:
            return targets.get(regime)
    return None


def work(group: Group):
    """(operations, least bytes) of every row of a GEMM group."""
    m, n, k = (np.asarray(group.rows[name]) for name in "MNK")
    form = PRECISIONS[group.variant]
    return 2 * m * n * k, form.activation_bytes * m * k + form.weight_bytes * k * n + 2 * m * n


def smooth_roofline(group: Group, train, test) -> np.ndarray:
    """Predicted seconds of `test` by the three-parameter roofline fitted on `train`."""
    operations, moved = work(group)
    eight = PRECISIONS[group.variant].eight_bit
    predict = _smooth8 if eight else _smooth16
    whole = group._replace(rows={"gpu": group.rows["gpu"], "operations": operations, "moved": moved}, predict=predict)
    part = whole.take(train)
    found = fit(predict, part.rows, part.measured_s, SmoothRooflineParameters(), prior_sd=3.0)
    return predicted_s(whole.take(test), found.parameters)


def _smooth16(p, r):
    return smooth_roofline_s(p, r["gpu"], r["operations"], r["moved"])


def _smooth8(p, r):
    return smooth_roofline_s(p, r["gpu"], r["operations"], r["moved"], eight_bit=True)


def main() -> None:
    args = arguments(
        __doc__.splitlines()[0],
        file=("tests/data/gpu_kernels.csv", "measured kernels"),
        families=("", "comma-separated families (default: all)"),
        write_constants=(False, "fit the shared constants on all rows and write them into the package"),
    )
    began = time.time()
    groups = [g for g in read_groups(args.file) if not args.families or g.family in args.families.split(",")]
    by_key: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        by_key[group.shared_key].append(group)
    rows, entries = [], []
    for key, members in by_key.items():
        start = FAMILIES[members[0].family]()
        clean = [g for g in members if g.source not in LEFT_OUT]
        rows += judged(members, clean, start)
        if args.write_constants and clean:
            found = fit_shared(clean, start)
            merged = clean[0]._replace(shapes=[s for g in clean for s in g.shapes])
            error = float(np.mean([mape_percent(predicted_s(g, found.parameters), g.measured_s) for g in clean]))
            entries.append(entry(merged, found.parameters, found.log_sd, error, shared=True))
        print(
            f"{time.time() - began:6.0f} s  {key}",
            *table(rows[-len(members) :], {})[1:-1],
            sep="\n",
            file=sys.stderr,
            flush=True,
        )
    if args.write_constants:
        fitted = {(e.family, e.variant) for e in entries}
        old = read_entries(SHIPPED) if SHIPPED.exists() else []
        kept = [e for e in old if (e.family, e.variant) not in fitted]
        write_entries(SHIPPED, [*kept, *entries], "tests/data/gpu_kernels.csv, all rows, sources and GPUs")
    result = {"rows": rows, "summary": summary(rows), "seconds": round(time.time() - began, 1), "file": args.file}
    result["note"] = "suspect_above_peak_bw rows left out; llmcompass rows (launch overhead included) only in regime ii"
    report("gpu_kernels", args, result, table(rows, result["summary"]))


def judged(members: list[Group], clean: list[Group], start) -> list[dict]:
    """Errors of every group of one family and variant."""
    without = {}
    for name in sorted({g.gpu for g in clean}):
        others = [g for g in clean if g.gpu != name]
        without[name] = fit_shared(others, start).parameters if others else None
    predicted = {id(g): np.zeros(len(g.shapes)) for g in members}
    bars = {id(g): np.zeros(len(g.shapes)) for g in members}
    for fold in (False, True):
        halves = {id(g): g.half() ^ fold for g in members}
        trained = [g.take(halves[id(g)]) for g in clean]
        shared = fit_shared([g for g in trained if g.shapes], start).parameters if clean else start
        for g in members:
            chosen = halves[id(g)]
            if chosen.all() or not chosen.any():
                predicted[id(g)][~chosen] = predicted_s(g.take(~chosen), shared) if (~chosen).any() else 0
                continue
            own = fit_group(g.take(chosen), shared).parameters
            predicted[id(g)][~chosen] = predicted_s(g.take(~chosen), own)
            if g.family == "gemm":
                bars[id(g)][~chosen] = smooth_roofline(g, chosen, ~chosen)
    out = []
    for g in members:
        line = {"gpu": g.gpu, "source": g.source, "family": g.family, "variant": g.variant, "rows": len(g.shapes)}
        if g in clean and without[g.gpu] is not None:
            line["i_mape_percent"] = mape_percent(predicted_s(g, without[g.gpu]), g.measured_s)
        line["ii_mape_percent"] = mape_percent(predicted[id(g)], g.measured_s)
        line["ii_median_ape_percent"] = float(100 * np.median(np.abs(predicted[id(g)] / g.measured_s - 1)))
        line["i_target"], line["ii_target"] = target(g, "i"), target(g, "ii")
        if g.family == "gemm":
            operations, moved = work(g)
            eight = PRECISIONS[g.variant].eight_bit
            plain = plain_roofline_s(g.rows["gpu"], operations, moved, eight_bit=eight)
            line["plain_roofline_mape_percent"] = mape_percent(plain, g.measured_s)
            line["smooth_roofline_mape_percent"] = mape_percent(bars[id(g)], g.measured_s)
            small = operations <= np.median(operations)
            own = fit_group(g.take(small), start).parameters
            line["iii_mape_percent"] = mape_percent(predicted_s(g.take(~small), own), g.measured_s[~small])
            line["iii_smooth_roofline_mape_percent"] = mape_percent(
                smooth_roofline(g, small, ~small), g.measured_s[~small]
            )
        out.append(line)
    return out


def summary(rows: list[dict]) -> dict:
    """Row-weighted MAPE of families and GPUs, LLMCompass left out."""
    out: dict[str, dict] = {}
    for row in rows:
        if row["source"] in LEFT_OUT:
            continue
        key = f"{row['family']} {row['variant'] if row['family'] == 'gemm' else ''} {row['gpu']}".replace("  ", " ")
        for name in ("i_mape_percent", "ii_mape_percent", "iii_mape_percent"):
            if row.get(name) is not None:
                total = out.setdefault(key, {}).setdefault(name, [0.0, 0])
                total[0] += row[name] * row["rows"]
                total[1] += row["rows"]
    return {key: {name: value / n for name, (value, n) in of.items()} for key, of in out.items()}


def table(rows: list[dict], totals: dict) -> list[str]:
    """As printed: MAPE in percent, targets behind a slash, `!` where missed."""
    names = ("i", "ii", "iii")
    lines = [
        f"{'gpu':15}{'source':32}{'kernel':30}{'rows':>6}{'(i)':>12}{'(ii)':>12}{'(iii)':>9}{'plain':>8}{'smooth':>8}"
    ]

    def cell(row, name):
        value, goal = row.get(f"{name}_mape_percent"), row.get(f"{name}_target")
        if value is None:
            return "-"
        return f"{value:.1f}" + (f"/{goal}{'!' if value > goal else ''}" if goal is not None else "")

    for row in rows:
        bars = [row.get(f"{name}_roofline_mape_percent") for name in ("plain", "smooth")]
        kernel = f"{row['family']} {row['variant']}"
        shown = "".join(f"{cell(row, name):>{width}}" for name, width in zip(names, (12, 12, 9), strict=True))
        lines.append(f"{row['gpu']:15}{row['source']:32}{kernel:30}{row['rows']:6}{shown}"
                     + "".join(f"{'-' if b is None else f'{b:.1f}':>8}" for b in bars))  # fmt: skip
    lines.append("row-weighted, LLMCompass left out:")
    for key, of in totals.items():
        lines.append(f"  {key:40}" + "  ".join(f"({k.split('_')[0]}) {v:.1f}" for k, v in of.items()))
    return lines


if __name__ == "__main__":
    main()
