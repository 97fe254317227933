"""Measured GPU kernels: reading, validation without and with parameters, calibration by the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration import KINDS, validate
from perfmodel.calibration.gpu_kernels import QUANTITIES, predicted_s, read_groups
from perfmodel.cost.kernels import FAMILIES, constants, flat, read_entries
from search.cli import main

DATA = Path(__file__).parents[1] / "data" / "gpu_kernels.csv"
WANTED = (
    ("aiconfigurator/vllm-0.14.0", "A100-SXM-80GB", "gemm"),
    ("aiconfigurator/vllm-0.14.0", "A100-SXM-80GB", "attn_decode"),
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Two groups of the data, every third row."""
    with DATA.open() as file:
        rows = list(csv.DictReader(file))
    few = [r for r in rows if (r["source"], r["gpu"], r["op"]) in WANTED][::3]
    return written(tmp_path_factory.mktemp("kernels") / "few.csv", few)


def written(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def changed(sample, tmp_path, **cells):
    """The sample with cells of its second row replaced."""
    with sample.open() as file:
        rows = list(csv.DictReader(file))
    rows[1].update(cells)
    return written(tmp_path / "changed.csv", rows)


def test_every_usable_row_has_a_group():
    groups = read_groups(DATA)
    with DATA.open() as file:
        rows = list(csv.DictReader(file))
    usable = [r for r in rows if r["flag"] != "suspect_above_peak_bw" and not r["op"].startswith("layer:")]
    assert sum(len(g.shapes) for g in groups) == len(usable)
    assert len({g.label for g in groups}) == len(groups)
    assert {g.family for g in groups} == set(FAMILIES) == set(QUANTITIES)


def test_projections_of_one_model_are_one_group():
    labels = {g.label: len(g.shapes) for g in read_groups(DATA)}
    assert labels["A100-SXM-80GB vidur gemm bf16"] == 1470


def test_a_shape_is_in_one_half_whatever_the_group():
    side: dict[str, bool] = {}
    for g in read_groups(DATA):
        if g.family == "gemm":
            for shape, left in zip(g.shapes, g.half(), strict=True):
                assert side.setdefault(shape, left) == left
    assert 0.4 < np.mean(list(side.values())) < 0.6


def test_benchmarks_reuse_as_published():
    l40s = next(g for g in read_groups(DATA) if g.label == "L40S aiconfigurator/trtllm-1.3.0rc20 gemm bf16")
    weights = 2 * l40s.rows["N"] * l40s.rows["K"]
    copies = l40s.rows["footprint_bytes"] / weights
    assert set(copies) <= {1, 2, 3, 4, 5}
    assert (copies[weights > 101e6] == 1).all() and (copies[weights < 20e6] == 5).all()


@pytest.mark.slow
def test_shipped_constants_are_near_every_measurement():
    figures = validate("gpu-kernels", DATA)
    assert figures["gemm_s"]["A100-SXM-80GB vidur gemm bf16"]["mape_percent"] < 12
    assert figures["gemm_s"]["H100-SXM-80GB aiconfigurator/trtllm-1.3.0rc20 gemm bf16"]["mape_percent"] < 12
    assert figures["decode_attention_s"]["all"]["spearman"] > 0.95


@pytest.mark.slow
def test_calibration_improves_and_is_read_back(sample, tmp_path, capsys):
    parameters = tmp_path / "fitted.json"
    assert main(["calibrate", "gpu-kernels", str(sample), "--out", str(parameters), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    for group in answer["groups"].values():
        assert group["mape_after_percent"] < group["mape_before_percent"]
        assert all(0 <= sd <= 2.001 for sd in group["log_sd"].values())  # the widest prior is 2
    label = "A100-SXM-80GB aiconfigurator/vllm-0.14.0 gemm bf16"
    out = str(tmp_path / "out")
    assert main(["validate", "gpu-kernels", str(sample), "--parameters", str(parameters), "--out", out, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    after = answer["groups"][label]["mape_after_percent"]
    assert figures["gemm_s"][label]["mape_percent"] == pytest.approx(after, rel=1e-3)
    assert after < 9
    assert (tmp_path / "out" / "gpu-kernels.png").exists()
    # a GPU or library that was not fitted falls back on the shared constants
    look_up, shipped = constants(parameters), constants()
    other = ("L40S", "somebody", "gemm", "bf16")
    assert flat(look_up(*other)) == flat(shipped(*other))


def test_table_shows_uncertainty(sample, tmp_path, capsys):
    with sample.open() as file:
        rows = [r for r in csv.DictReader(file) if r["op"] == "attn_decode"]
    few = written(tmp_path / "decode.csv", rows)
    assert main(["calibrate", "gpu-kernels", str(few), "--out", str(tmp_path / "p.json")]) == 0
    text = capsys.readouterr().out
    assert "dram_efficiency" in text and "+-" in text and "after %" in text


def test_predictions_are_positive_with_defaults():
    for g in read_groups(DATA)[::5]:
        few = g.take(np.arange(len(g.shapes)) < 7)
        assert (predicted_s(few, FAMILIES[g.family]()) > 0).all()


def test_kind_is_known():
    assert KINDS["gpu-kernels"] == "perfmodel.calibration.gpu_kernels"


@pytest.mark.parametrize("cells, said", [
    ({"gpu": "H100"}, "row 2, column gpu"),
    ({"op": "gem"}, "row 2, column op"),
    ({"dtype": "fp7"}, "row 2, column dtype"),
    ({"median_ms": "-1"}, "row 2, column median_ms"),
    ({"median_ms": ""}, "row 2, column median_ms"),
    ({"M": ""}, "row 2, column M"),
    ({"K": "0"}, "row 2, column K"),
])  # fmt: skip
def test_bad_rows_are_named(sample, tmp_path, cells, said):
    with pytest.raises(ValueError, match=said) as caught:
        read_groups(changed(sample, tmp_path, **cells))
    assert "\n" not in str(caught.value)


GOOD = {"gpu": "any", "source": "any", "family": "gemm", "variant": "bf16", "values": {"launch_cycles": 3000.0}}


@pytest.mark.parametrize("content, said", [
    ({"version": 2, "entries": []}, "version is 2"),
    ({"version": 1, "entries": [{**GOOD, "family": "gem"}]}, "family"),
    ({"version": 1, "entries": [{**GOOD, "values": {"launch": 1.0}}]}, "launch"),
    ({"version": 1, "entries": [{**GOOD, "values": {"launch_cycles": -1.0}}]}, "launch_cycles is -1"),
    ({"version": 1, "entries": [{**GOOD, "colour": 1}]}, "colour"),
    ({"entries": []}, "version"),
])  # fmt: skip
def test_bad_parameter_files_are_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said) as caught:
        read_entries(path)
    assert "\n" not in str(caught.value)


def test_unknown_kind_and_unwritable_file_exit_2(sample, tmp_path, capsys):
    assert main(["calibrate", "gpus", str(sample), "--out", str(tmp_path / "p.json")]) == 2
    assert main(["calibrate", "gpu-kernels", str(tmp_path / "none.csv"), "--out", str(tmp_path / "p.json")]) == 2
    assert "cannot be read" in capsys.readouterr().err
