"""Systolic arrays against SCALE-Sim: exact on every row, by the very function that the cost table calls."""

from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

from perfmodel.calibration import KINDS, compare, validate
from perfmodel.cost import on_chip, operator_cost

FILE = Path(__file__).parents[1] / "data" / "scalesim.csv"


def test_every_count_of_every_row_is_exact():
    got = validate("scalesim", FILE)
    assert set(got) == {
        "total_cycles",
        "sram_ifmap_reads_words",
        "sram_filter_reads_words",
        "sram_ofmap_writes_words",
    }
    for quantity, groups in got.items():
        assert {g: (f["rows"], f["exact"]) for g, f in groups.items()} == {
            "all": (72, 72), "ws": (24, 24), "is": (24, 24), "os": (24, 24),
        }, quantity  # fmt: skip


def test_only_the_excess_of_os_writes_is_repaired():
    writes = {c.quantity: c for c in compare("scalesim", FILE)}["sram_ofmap_writes_words"]
    lines = [line.split(",") for line in FILE.read_text().splitlines()]
    raw = np.asarray([float(line[lines[0].index("sram_ofmap_writes_words_raw")]) for line in lines[1:]])
    os = np.asarray(writes.group) == "os"
    np.testing.assert_array_equal(writes.reference[~os], raw[~os])
    excess = raw[os] - writes.reference[os]
    assert (excess > 0).all() and (excess % 64 == 0).all()  # 32 + 32 words a fold


def test_there_is_no_second_model(monkeypatch):
    comparison, table = import_module(KINDS["scalesim"]), import_module(operator_cost.__module__)
    assert vars(comparison)["on_chip"] is vars(table)["on_chip"] is on_chip
    monkeypatch.setattr(comparison, "on_chip", lambda *a: jax.tree.map(lambda x: 2 * x, on_chip(*a)))
    assert all(f["all"]["exact"] == 0 for f in validate("scalesim", FILE).values())


def test_gemms_need_no_convolution(tmp_path):
    lines = [line.split(",") for line in FILE.read_text().splitlines()]
    for line in lines[1:]:
        for name in ("K", "C", "R", "S", "stride", "P_out", "Q_out"):
            line[lines[0].index(name)] = ""
    (tmp_path / "gemm.csv").write_text("\n".join(",".join(line) for line in lines) + "\n")
    assert all(f["all"]["exact"] == 72 for f in validate("scalesim", tmp_path / "gemm.csv").values())


@pytest.mark.parametrize("old, new, words", [
    ("total_cycles", "cycles", "column total_cycles is missing"),
    (",ws,32,", ",nvdla,32,", "row 1, column dataflow is 'nvdla': allowed: is, os, ws"),
    (",ws,32,", ",ws,0,", "row 1, column array_rows is '0'"),
    (",126379,", ",126379 cycles,", "row 1, column total_cycles is '126379 cycles'"),
    (",126379,", ",,", "row 1, column total_cycles is empty"),
])  # fmt: skip
def test_bad_files(tmp_path, old, new, words):
    (tmp_path / "bad.csv").write_text(FILE.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match="bad.csv.*" + words):
        validate("scalesim", tmp_path / "bad.csv")


def test_there_is_nothing_to_calibrate():
    with pytest.raises(ValueError, match="scalesim takes no parameters"):
        validate("scalesim", FILE, "parameters.json")
