"""Gemmini in RTL: four mechanisms on top of counted transfers, against FireSim and worked out by hand."""

import csv
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from perfmodel.calibration import compare, read_table
from perfmodel.calibration.gemmini_rtl import (
    COLUMNS,
    GemminiRtl,
    RtlWork,
    fit,
    held_out,
    read_parameters,
    rtl_cycles,
    uncertainty,
    work_of,
)

ROWS = Path(__file__).parents[1] / "data" / "gemmini_rtl.csv"
BY_HAND = dict(
    K=32, C=16, R=1, S=1, P=4, Q=2, stride=1, mapping="L3[WIO] K2 - L2[WI] N1 K16X - L1[O] Q2 C16X - L0[W] P4"
)


def written(tmp_path, **change):
    """A file of one row: the first of the data with `change`."""
    row = next(csv.DictReader(ROWS.read_text().splitlines()))
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, row.keys())
        writer.writeheader()
        writer.writerow(row | {name: str(value) for name, value in change.items()})
    return path


@pytest.fixture(scope="module")
def rows():
    return read_table(ROWS, COLUMNS)


@pytest.fixture(scope="module")
def work(rows):
    with jax.enable_x64(True):
        return work_of(ROWS, rows)


def work_by_hand(tmp_path, **change):
    path = written(tmp_path, **(BY_HAND | change))
    return jax.tree.map(lambda x: float(x[0]), work_of(path, read_table(path, COLUMNS)))


def test_a_tiny_layer_by_hand(tmp_path, x64):
    # two tiles of 16 filters: one block each, whose first row of pixels takes the 16 of the preload and the second 4 cycles
    found = work_by_hand(tmp_path)
    # requests: 16 weight rows of 16 B twice, 8 pixels of 16 B once (K leaves them in place); 8 pixels of results twice
    assert found == RtlWork(blocks=2, block_rows=20, block_instructions=2, loads=40, stores=16, first_loads=24)
    # array 2 * max(20, 2 * 8), transfers 5 * 40 + 10 * 16, half of the array exposed, first tile 5 * 24
    assert float(rtl_cycles(found, GemminiRtl(8.0, 5.0, 10.0, 0.5))) == 360 + 20 + 120


def test_partial_sums_come_back_four_bytes_wide(tmp_path, x64):
    # the filters' loop inside the channels': each half of 16 filters is finished on its second visit
    change = dict(C=32, mapping="L3[WIO] C2 K2 - L2[WI] N1 K16X - L1[O] Q2 C16X - L0[W] P4")
    found = work_by_hand(tmp_path, **change)
    # weights 16 rows x 4; inputs 8 pixels x 2; sums of 16 filters x 4 B: one request a pixel, twice
    assert (found.blocks, found.stores, found.loads) == (4, 4 * 8, 64 + 16 + 2 * 8)


def test_narrow_tiles_wait_for_issue_and_wide_ones_stream(tmp_path, x64):
    narrow = work_by_hand(tmp_path, P=2, Q=28, mapping="L3[WIO] K2 - L2[WI] N1 K16X - L1[O] Q28 C16X - L0[W] P2")
    assert (narrow.block_rows, narrow.block_instructions) == (16 + 27 * 4, 28)
    wide = work_by_hand(tmp_path, P=40, Q=3, mapping="L3[WIO] K2 - L2[WI] N1 K16X - L1[O] Q3 C16X - L0[W] P40")
    assert (wide.block_rows, wide.block_instructions) == (3 * 40, 9)


def test_strided_pixels_between_taps_are_not_fetched(tmp_path, x64):
    assert work_by_hand(tmp_path, stride=2).first_loads == 16 + 8  # a 1x1 filter skips every other pixel
    assert work_by_hand(
        tmp_path, stride=2, R=3, S=3, mapping="L3[WIO] K2 - L2[WI] N1 K16X - L1[O] R3 S3 Q2 C16X - L0[W] P4"
    ).first_loads == 9 * 16 + (3 * 2 + 3) * (2 + 3)


def test_timeloop_side_is_reproduced_and_the_rtl_side_within_a_few_percent():
    got = {c.quantity: c for c in compare("gemmini-rtl", ROWS)}
    assert set(got) == {"rtl_cycles", "timeloop_cycles", "timeloop_energy_j"}
    np.testing.assert_allclose(got["timeloop_cycles"].predicted, got["timeloop_cycles"].reference, atol=1, rtol=0)
    np.testing.assert_allclose(got["timeloop_energy_j"].predicted, got["timeloop_energy_j"].reference, rtol=1e-4)
    measured = got["rtl_cycles"].reference
    errors = np.abs(got["rtl_cycles"].predicted / measured - 1)
    assert np.median(errors) < 0.07 and np.mean(errors) < 0.13
    assert np.median(np.abs(got["timeloop_cycles"].reference / measured - 1)) > 0.17  # what it is up against


def test_half_of_the_layers_predicts_the_other_half(rows, work, x64):
    errors = held_out(rows, work, range(20))
    split = np.nanmedian(errors, axis=1)
    assert np.all(np.isnan(errors).sum(axis=1) > 30)
    assert np.median(split) < 0.09 and np.max(split) < 0.14
    # no layer stands on both sides
    for layer in np.unique(rows["layer"]):
        mine = np.isnan(errors[:, rows["layer"] == layer])
        assert np.all(mine == mine[:, :1])


def test_the_defaults_are_the_fit_to_all_rows(rows, work, x64):
    found, error = uncertainty(rows, work, samples=50)
    np.testing.assert_allclose(found, GemminiRtl(), rtol=0.01)
    assert 0 < error.instruction_cycles < 1.5 and 0 < error.request_cycles < 3 and 0 < error.store_cycles < 25


def test_a_fit_finds_the_parameters_that_made_the_cycles(rows, work, x64):
    made = GemminiRtl(6.0, 9.0, 25.0, 0.3)
    found = fit(work, rtl_cycles(work, made), np.ones(len(rows["layer"])), steps=800)
    np.testing.assert_allclose(found, made, rtol=0.02)


def test_gradient_jit_and_monotonicity(work, x64):
    one = jax.tree.map(lambda x: x[7], work)
    rtl = GemminiRtl()
    slope = jax.grad(lambda p: rtl_cycles(one, p))(GemminiRtl(*map(float, rtl)))
    for name in GemminiRtl._fields:
        at = getattr(rtl, name)
        up, down = (float(rtl_cycles(one, rtl._replace(**{name: at + sign * 1e-4 * at}))) for sign in (1, -1))
        assert up >= down
        np.testing.assert_allclose(getattr(slope, name), (up - down) / (2e-4 * at), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.jit(rtl_cycles)(work, rtl), rtl_cycles(work, rtl), rtol=1e-12)
    some = jax.tree.map(lambda x: x[:7], work)
    each = [float(rtl_cycles(jax.tree.map(lambda x, i=i: x[i], work), rtl)) for i in range(7)]
    np.testing.assert_allclose(jax.vmap(lambda w: rtl_cycles(w, rtl))(some), each, rtol=1e-12)


def test_parameters_come_from_a_file(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"store_cycles": 12.5}))
    assert read_parameters(path) == GemminiRtl()._replace(store_cycles=12.5)
    path.write_text(json.dumps({"request_cycles": 100.0}))
    base, other = (compare("gemmini-rtl", ROWS, p)[0].predicted for p in (None, path))  # the shape compiled above
    assert np.all(other > base) and np.median(other / base) > 2


@pytest.mark.parametrize("text, words", [
    ('{"store_cycle": 3}', ["store_cycle", "did you mean store_cycles"]), ('{"request_cycles": -1}', ["request_cycles", "positive"]),
    ("[1]", ["list"]), ("{", ["not valid JSON"]),
])  # fmt: skip
def test_bad_parameters_are_named(tmp_path, text, words):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_parameters(path)
    assert "p.json" in str(error.value) and [w for w in words if w not in str(error.value)] == []


@pytest.mark.parametrize("change, words", [
    ({"rtl_cycles_given_mapping": ""}, ["row 1", "rtl_cycles_given_mapping", "empty"]),
    ({"mapping": "L3[WIO] Z4"}, ["row 1", "mapping", "Z4"]),
    ({"K": 7}, ["row 1", "mapping", "K", "7"]), ({"P": "many"}, ["row 1", "P", "many"]),
])  # fmt: skip
def test_bad_rows_are_named(tmp_path, change, words):
    with pytest.raises(ValueError) as error:
        compare("gemmini-rtl", written(tmp_path, **change))
    assert "mine.csv" in str(error.value) and [w for w in words if w not in str(error.value)] == []
