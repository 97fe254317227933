"""LLM-Viewer and our model of serving on the same measured rows of tests/data/llm_e2e.csv, and operating points per CPU second of both.

LLM-Viewer is on no package index: --checkout is a clone of https://github.com/hahnyuan/LLM-Viewer (MIT). It needs an environment of its
own, without PyTorch: python3 -m venv DIR && DIR/bin/pip install transformers
It gets its own figures of the GPU, and the dimensions of the models from us, as config.json.
"""

import itertools
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from _common import arguments, median, pin_to_one_core, report
from _rows import (
    BATCHES,
    CONTEXTS,
    DTYPES,
    QUANTITIES,
    TENSORS,
    ask,
    figures,
    latency_rows,
    our_answers,
    our_speed,
    table,
)

SOURCE, COMMIT = "https://github.com/hahnyuan/LLM-Viewer", "df2cba903282463b2fd8a7231f744be74dd4020b"
CONFIGS = {
    "llama-2-7b": "Llama",
    "llama-2-70b": "Llama",
    "gpt-j-6b": "gpt-j-6B",
}  # rows' models -> its description of layers
GPUS = {"a100-80gb": "nvidia_A100_80G", "h100-80gb": "nvidia_H100_SXM"}  # it has an L40, no L40S
# Bits of weights, activations and cache. It knows no fp8, only widths; the int formats of the rows (gpt-fast) narrow weights alone.
BITS = {"fp16": (16, 16, 16), "bf16": (16, 16, 16), "fp8": (8, 8, 8), "int8": (8, 16, 16), "int4-g32": (4, 16, 16)}
STRIDE = 127  # of the grid's points it is timed on every so many; prime, so that all axes vary
REPEATS = 5


def main() -> None:
    args = arguments(__doc__, checkout=("", "directory with LLM-Viewer's source"),
                     viewer_python=("", "interpreter of the environment that has transformers"))  # fmt: skip
    if not (args.checkout and args.viewer_python):
        sys.exit("llm_viewer.py: --checkout and --viewer-python are needed; see --help for both")
    pin_to_one_core()
    every = latency_rows()
    rows = [r for r in every if r.model in CONFIGS and r.system in GPUS and r.dtype in BITS]
    grid = itertools.islice(itertools.product((16, 8), TENSORS, BATCHES, CONTEXTS), 0, None, STRIDE)
    with tempfile.TemporaryDirectory() as models:
        for name in CONFIGS:
            write_config(name, Path(models))
        question = {"checkout": args.checkout, "jobs": [job(r, models) for r in rows], "points": list(grid), "repeats": REPEATS,
                    "timed": target("llama-2-7b", "a100-80gb", models)}  # fmt: skip
        answer = ask(args.viewer_python, "_llm_viewer_child.py", question)
    fused, plain = ([a[way] for a in answer["jobs"]] for way in ("fused", "plain"))
    ours = our_answers(rows)
    # The measured software fuses attention, so that is what the table shows; LLM-Viewer's default does not.
    told = {"llm_viewer": fused, "llm_viewer_plain_attention": plain, "ours": ours}
    wide = [i for i, r in enumerate(rows) if BITS[r.dtype] == BITS["fp16"]]  # it means by them what the rows mean
    found = figures(rows, told)
    found_wide = figures([rows[i] for i in wide], {who: [values[i] for i in wide] for who, values in told.items()})
    lines = table(rows, "LLM-Viewer", fused, ours)
    for quantity in QUANTITIES:
        off, off_wide = found[quantity], found_wide[quantity]
        lines.append(f"{quantity}: median error of {off['rows']} rows, LLM-Viewer {off['llm_viewer_median_ape_percent']:.0f} % "
                     f"({off['llm_viewer_plain_attention_median_ape_percent']:.0f} % with its default, plain attention), "
                     f"ours {off['ours_median_ape_percent']:.1f} %; of the {off_wide['rows']} of 16 bits "
                     f"{off_wide['llm_viewer_median_ape_percent']:.0f} %, {off_wide['ours_median_ape_percent']:.1f} %")  # fmt: skip
    speed = speeds(answer)
    lines.append(f"decode points per CPU second: LLM-Viewer {speed['llm_viewer_per_cpu_s']:,.0f}, ours {speed['ours_per_cpu_s']:,.0f}, "
                 f"ratio {speed['ratio']:,.0f} (a call of LLM-Viewer's gives the prefill too)")  # fmt: skip
    result = {
        "llm_viewer": {"source": SOURCE, "commit": COMMIT, "git_blobs": answer["files"], "transformers": answer["transformers"]},
        "figures": found,
        "figures_16_bit_rows": found_wide,
        "speed": speed,
        "rows": [r._asdict() | {"llm_viewer": a, "llm_viewer_plain_attention": b, "ours": c}
                 for r, a, b, c in zip(rows, fused, plain, ours, strict=True)],
        "without": sorted({f"{r.system} {r.model} {r.dtype}" for r in every} - {f"{r.system} {r.model} {r.dtype}" for r in rows}),
    }  # fmt: skip
    sys.argv = [sys.argv[0], "--checkout", "LLM-Viewer", "--viewer-python", "DIR/bin/python"]
    report("peers_llm_viewer", args, result, lines)


def write_config(name: str, folder: Path) -> None:
    """The model's dimensions, ours, as the config.json that transformers reads."""
    from perfmodel.models import decoder

    s = decoder(name).spec
    if CONFIGS[name] == "Llama":
        fields = {"model_type": "llama", "hidden_size": s.width, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
                  "num_key_value_heads": s.kv, "intermediate_size": s.hidden}  # fmt: skip
    else:
        fields = {"model_type": "gptj", "n_embd": s.width, "n_layer": s.layers, "n_head": s.heads, "n_inner": s.hidden}
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps(fields | {"vocab_size": s.vocabulary}))


def target(model: str, system: str, models: str) -> dict:
    """Arguments of LLM-Viewer's analyzer for a model on a GPU."""
    return {
        "model_id": str(Path(models) / model),
        "hardware": GPUS[system],
        "config_file": f"configs/{CONFIGS[model]}.py",
    }


def job(row, models: str) -> dict:
    """A row as LLM-Viewer's arguments."""
    new_tokens = int(row.output_tokens) if row.quantity == "tpot_ms" else 0
    return {"target": target(row.model, row.system, models), "bits": BITS[row.dtype], "tensor": int(row.tensor),
            "batch": int(row.batch or 1), "tokens": int(row.input_tokens), "new_tokens": new_tokens}  # fmt: skip


def speeds(answer: dict) -> dict:
    """Decode points per CPU second of both on one core, medians: theirs on some points of the grid, ours on all of them."""
    points, taken = our_speed(REPEATS)
    theirs, ours = answer["calls"] / median(answer["cpu_s"]), points / median(taken)
    grid = f"decode, llama-2-7b, A100-80GB: {'/'.join(DTYPES)}, 1-{TENSORS[-1]} ranks, batch to {BATCHES[-1]}, context to {CONTEXTS[-1]}"
    return {"grid": grid, "llm_viewer_calls": answer["calls"], "llm_viewer_cpu_s": answer["cpu_s"], "our_points": points,
            "our_cpu_s": taken, "llm_viewer_per_cpu_s": theirs, "ours_per_cpu_s": ours, "ratio": ours / theirs}  # fmt: skip


if __name__ == "__main__":
    main()
