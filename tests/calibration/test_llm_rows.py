"""Measured language models against the model of serving: what a row means, what is not known, and how near we are."""

import csv
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.calibration import compare, figures, left_out, llm
from perfmodel.calibration.llm import read_rows
from perfmodel.cost import formats, machine
from perfmodel.models import decoder
from perfmodel.serving import Library, Point, serve

DATA = Path(__file__).parents[1] / "data" / "llm_e2e.csv"


def written(tmp_path, change=None, keep=lambda row: True):
    """The rows of the file for which `keep` holds, changed by `change`."""
    with DATA.open() as stream:
        reader = csv.DictReader(stream)
        rows = [row for row in reader if keep(row)]
        names = reader.fieldnames or []
    for row in rows:
        if change:
            change(row)
    out = tmp_path / "rows.csv"
    with out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
    return out


def is_gpt_fast(row) -> bool:
    return "gpt-fast" in row["source"] and row["model"] == "Llama-2-7B" and row["n_gpu"] == "1"


def test_rows_say_what_was_run():
    rows, others = read_rows(DATA)
    assert len(rows) + sum(others.values()) == 210
    assert others == {"gpu MI250X (1 GCD)": 2, "gpu GB200": 20}
    first = rows[0]
    assert (first.software, first.system, first.power_w, first.model, first.quantity) == (
        "gpt-fast",
        "a100-80gb",
        330,
        "llama-2-7b",
        "tpot_ms",
    )
    assert {(r.software, r.version[0]) for r in rows if r.quantity == "ttft_ms"} == {("trtllm", 0)}
    count = {q: sum(r.quantity == q for r in rows) for q in llm.QUANTITIES}
    assert count == {
        "ttft_ms": 20,
        "tpot_ms": 13,
        "output_tokens_per_s_per_gpu": 37,
        "output_tokens_per_s": 110,
        "training_step_s": 8,
    }


def test_a_row_is_one_call_of_the_model(x64, tmp_path):
    path = written(
        tmp_path, keep=lambda row: is_gpt_fast(row) and row["dtype"] == "bf16" and row["gpu"].startswith("A100")
    )
    found = compare("llm", path)
    of = machine(pm.systems.load("a100-80gb"))
    formed, _ = formats(of, "bf16")
    at = Point(*[jnp.asarray(float(x)) for x in Point(1.0, 105.0)])
    how = Library(fused_gate=False, generated=True, replicated_head=True)
    own = serve(of, decoder("llama-2-7b"), formed, at, library=how)
    assert [c.quantity for c in found] == ["tpot_ms"] and len(found[0].predicted) == 1
    assert float(found[0].predicted[0]) == pytest.approx(
        1e3 * float(own.tpot_s), rel=2e-3
    )  # the power limit does not bind in decode
    assert abs(found[0].predicted[0] / 9.53289 - 1) < 0.05


def test_unknown_rows_are_counted_and_named(tmp_path, capsys):
    def change(row):
        if row["dtype"] == "int8":
            row["model"] = "Nobody-7B"

    path = written(tmp_path, change, is_gpt_fast)
    assert left_out("llm", path) == {"model Nobody-7B": 2, "gpu MI250X (1 GCD)": 1}
    from search.cli import main

    assert main(["validate", "llm", str(path), "--out", str(tmp_path / "out"), "--json"]) == 0
    captured = capsys.readouterr()
    assert "model Nobody-7B" in captured.err
    import json

    told = json.loads(captured.out)
    assert told["not_compared"]["gpu MI250X (1 GCD)"]["rows"] == 1
    assert told["tpot_ms"]["all"]["rows"] == 2


def test_nothing_known_and_broken_files_are_one_line(tmp_path):
    path = written(tmp_path, lambda row: row.update(model="x"), is_gpt_fast)
    with pytest.raises(ValueError, match="no row is of a known model and GPU; there are: model x"):
        compare("llm", path)
    path.write_text("source,gpu\na,b\n")
    with pytest.raises(ValueError, match="column model is missing"):
        compare("llm", path)


def test_faster_memory_shows(tmp_path):
    """The comparison can fail: weights at four times the width take longer than measured."""
    path = written(
        tmp_path,
        lambda row: row.update(dtype="bf16"),
        lambda row: is_gpt_fast(row) and row["dtype"] == "int8" and "A100" in row["gpu"],
    )
    wide = compare("llm", path)[0]
    assert wide.predicted[0] > 1.3 * wide.reference[0]


@pytest.mark.slow
def test_targets_on_the_published_rows():
    """Shipped constants, fitted to kernels alone: TTFT and time per token within 20 % in the median; throughput named as it is."""
    found = figures(compare("llm", DATA))
    for quantity, most in {
        "ttft_ms": 20,
        "tpot_ms": 10,
        "output_tokens_per_s_per_gpu": 15,
        "output_tokens_per_s": 20,
    }.items():
        median = found[quantity]["all"]["median_ape_percent"]
        assert median is not None and median < most, quantity
    assert all(np.isfinite(f["all"]["mape_percent"]) for f in found.values())
