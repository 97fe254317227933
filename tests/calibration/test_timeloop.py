"""Timeloop's results from the loop-nest model: print precision on every row."""

from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration import compare, parse_mapping, read_table

DATA = Path(__file__).parents[1] / "data" / "timeloop.csv"


@pytest.fixture(scope="module")
def compared():
    return {c.quantity: c for c in compare("timeloop", DATA)}


def test_cycles_within_one_on_every_row(compared):
    cycles = compared["cycles"]
    assert np.max(np.abs(cycles.predicted - cycles.reference)) <= 1
    assert np.mean(cycles.predicted == cycles.reference) > 0.95


def test_energy_within_a_ten_thousandth_on_every_row(compared):
    energy = compared["energy_j"]
    assert np.max(np.abs(energy.predicted / energy.reference - 1)) < 1e-5


def test_mapping_string_is_read_from_the_outside_in():
    nest = parse_mapping("here", "L3[WIO] S3 K16 - L2[WI] N1 K4X - L1[O] C8 C2X - L0[W] Q14")
    real = nest.factor > 1
    assert nest.factor[real].tolist() == [14, 8, 16, 3]
    assert nest.level[:, real].tolist() == [[0, 1, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert nest.spatial_factor.tolist() == [4, 2]


@pytest.mark.parametrize("broken, said", [
    ("L9[W] K2", "allowed: a level"), ("L3[WIO] K0", "allowed: a loop"), ("L3[WIO] P4X", "allowed in space"),
    ("L3[WIO] K2", "loops over K multiply to 2; the layer has"),
])  # fmt: skip
def test_broken_mapping_names_the_row(tmp_path, broken, said):
    header, first, *_ = DATA.read_text().splitlines()
    cells = first.split(",")
    cells[header.split(",").index("mapping")] = broken
    path = tmp_path / "bad.csv"
    path.write_text("\n".join([header, first, ",".join(cells)]) + "\n")
    with pytest.raises(ValueError, match=f"bad.csv: row 2, column mapping.*{said}"):
        compare("timeloop", path)


def test_file_is_as_described():
    assert len(read_table(DATA, {"cycles": float})["cycles"]) == 1948
