"""The restated latency rules of ZigZag give the tool's own numbers, and, repaired, no port more words than cycles."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from oracles.zigzag_latency import accesses, covered, latency

DATA = Path(__file__).parents[1] / "data"
MACHINES = json.loads((DATA / "zigzag_hardware.json").read_text())
with (DATA / "zigzag.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))


def of(row, repaired=False):
    return latency(row, MACHINES[row["hardware"]], repaired)


def row_of(hardware, layer):
    return next(row for row in ROWS if (row["hardware"], row["layer"]) == (hardware, layer))


@pytest.mark.parametrize(
    ("quantity", "column"),
    [
        ("compute", "latency_compute_cycles"),
        ("onload", "latency_onload_cycles"),
        ("offload", "latency_offload_cycles"),
        ("drain", "systolic_drain_cycles"),
        ("total", "latency_total_cycles"),
    ],
)
def test_every_row_is_exact(quantity, column):
    wrong = [(r["hardware"], r["layer"]) for r in ROWS if abs(of(r)[quantity] - float(r[column])) > 1e-6]
    assert len(ROWS) == 80 and not wrong


def test_accesses_of_every_row_are_exact():
    """Latency uses rounded spatial factors; the accesses check the tiles of the fractional ones, which repair it."""
    for row in ROWS:
        found = accesses(row, MACHINES[row["hardware"]])
        found = {place: {way: n for way, n in ways.items() if n} for place, ways in found.items()}
        assert found == json.loads(row["accesses_words"]), (row["hardware"], row["layer"])


def test_repaired_latency_leaves_time_for_the_dram_words():
    rows = [row for row in ROWS if row["dram_words_64bit"]]  # the gemm_l1 machines have no DRAM
    words = np.array([float(row["dram_words_64bit"]) for row in rows])
    printed = np.array([of(row)["total"] for row in rows])
    repaired = np.array([of(row, repaired=True)["total"] for row in rows])
    assert len(rows) == 78 and (words > printed).sum() == 28
    assert (words > printed).tolist() == [row["dram_words_exceed_cycles"] == "1" for row in rows]
    assert not (words > repaired).any()
    assert (repaired >= printed).all() and (repaired / printed).max() < 1.31  # mended, not inflated


def test_repair_changes_only_what_is_defective():
    """A machine without a half-shared port and a layer without fractional factors stay as they are."""
    for hardware in ("gemm_l1", "gemm_l1_l3"):
        row = row_of(hardware, "Layer0")
        assert of(row, repaired=True) == of(row)


def test_repaired_onload_by_hand():
    """tpu_like, 512^3 GEMM: through the one 64-bit DRAM port first go all inputs (512 * 512 bytes in 8-byte words) and
    then the first weights (32 x 32 units, one byte or more each): one after the other, where the tool has the larger."""
    row = row_of("tpu_like", "gemm_512x512x512")
    temporal = json.loads(row["temporal_mapping"])["W"][0]
    held = int(np.prod([factor for dim, factor in temporal if dim in "KC"]))
    inputs, weights = 512 * 512 // 8, 32 * 32 * held // 8
    assert of(row)["onload"] == max(inputs, weights) == 32768
    assert of(row, repaired=True)["onload"] == inputs + weights


def test_repaired_factors_by_hand():
    """eyeriss_like, Llama-7B up projection, one token: DRAM-bound, so the weights alone (11008 * 4096 bytes through 8
    bytes a cycle) must fit; with 13 x 11 for 13.99 x 11.98 units they do not."""
    row = row_of("eyeriss_like", "llama7b_ffn_up_decode")
    weights = 11008 * 4096 // 8
    assert of(row)["total"] < weights <= of(row, repaired=True)["total"] < 1.001 * weights


def test_covered_cycles_against_counting():
    windows = [(3, 1), (6, 2), (24, 7), (48, 9)]
    busy = np.zeros(96, bool)
    for period, length in windows:
        busy |= np.arange(96) % period < length
    for span in range(97):
        assert covered(windows, span) == busy[:span].sum()
