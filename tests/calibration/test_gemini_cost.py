"""Prices and areas of chiplet packages against the numbers that Gemini printed."""

import csv
from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration import compare, validate

GEMINI = Path(__file__).parents[1] / "data" / "gemini_cost.csv"
PRICES = ("cost_dies_usd", "cost_package_usd", "cost_dies_plus_package_usd", "cost_overall_usd")
AREAS = ("compute_die_area_mm2", "io_dies_total_area_mm2")


def test_every_row_within_the_printed_digits():
    got = {c.quantity: c for c in compare("gemini-cost", GEMINI)}
    assert set(got) == {*PRICES, *AREAS}
    for name in PRICES:
        np.testing.assert_allclose(got[name].predicted, got[name].reference, atol=0.0025, rtol=0)
    for name in AREAS:
        np.testing.assert_allclose(got[name].predicted, got[name].reference, rtol=2e-4)


def test_the_memory_slip_is_mended_in_the_reference_and_nowhere_else():
    rows = list(csv.DictReader(GEMINI.read_text().splitlines()))
    got = {c.quantity: c for c in compare("gemini-cost", GEMINI)}
    for name in PRICES:
        printed = np.asarray([float(r[name]) for r in rows])
        np.testing.assert_allclose(
            printed - got[name].reference, 6.75 if name == "cost_overall_usd" else 0.0, atol=1e-9
        )
    memory = got["cost_overall_usd"].predicted - got["cost_dies_plus_package_usd"].predicted
    np.testing.assert_allclose(memory, 9.0)


def test_figures():
    got = validate("gemini-cost", GEMINI)
    for figures in (f for name in PRICES for f in got[name].values()):
        assert float(figures["mape_percent"] or 0.0) < 0.01 and figures["exact"] == figures["rows"]
    assert set(got["cost_dies_usd"]) == {"all", "12nm organic", "12nm fan-out", "7nm organic"}
    assert got["cost_dies_usd"]["all"]["rows"] == 15


def changed(tmp_path, column, value):
    rows = list(csv.DictReader(GEMINI.read_text().splitlines()))
    rows[2][column] = value
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_dearer_die_is_noticed(tmp_path):
    got = {c.quantity: c for c in compare("gemini-cost", changed(tmp_path, "compute_die_area_mm2", "58.5"))}
    assert abs(got["cost_dies_usd"].predicted[2] / got["cost_dies_usd"].reference[2] - 1) > 0.01


@pytest.mark.parametrize("column, value, words", [
    ("package", "XX", ["row 3", "package", "'XX'"]), ("technology_nm", "6", ["row 3", "technology_nm", "6nm"]),
    ("cost_dies_usd", "", ["row 3", "cost_dies_usd", "empty"]), ("d2d_io", "USB", ["row 3", "d2d_io", "USB"]),
])  # fmt: skip
def test_bad_rows_are_named(tmp_path, column, value, words):
    with pytest.raises(ValueError) as error:
        compare("gemini-cost", changed(tmp_path, column, value))
    assert "mine.csv" in str(error.value) and [w for w in words if w not in str(error.value)] == []


def test_it_takes_no_parameters():
    with pytest.raises(ValueError, match="takes none"):
        compare("gemini-cost", GEMINI, "p.json")
