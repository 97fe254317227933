"""MAESTRO's dataflows as loop nests: a layer by hand, words against MAESTRO's, ranks of its runtimes."""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest

from perfmodel.calibration import compare, read_table, validate
from perfmodel.calibration.maestro import COLUMNS, DATAFLOWS, HOW, Layer, machine, maestro_cost
from perfmodel.cost import DIMS, Problem, loopnest_cost

ROWS = Path(__file__).parents[1] / "data" / "maestro.csv"
LAYER = Layer(k=8, c=64, p=4, q=4, r=1, s=1)


@pytest.fixture(scope="module")
def got():
    return validate("maestro", ROWS)


_cost = jax.jit(lambda problem, nest, on: loopnest_cost(problem, nest, on, HOW))


def cost(layer, dataflow, pes=256, noc=32.0, offchip=70000.0):
    sizes = np.asarray([1.0, 1.0, layer.k, layer.c, layer.p, layer.q, layer.r, layer.s])
    real = np.asarray([layer.p + layer.r - 1.0, layer.q + layer.s - 1.0])
    problem = Problem(sizes, np.float64(1), real, *(np.float64(8),) * 4)
    return _cost(problem, DATAFLOWS[dataflow](layer, pes), machine(pes, noc, offchip))


def test_a_tiny_layer_by_hand(x64):
    found = cost(LAYER, "kcp_ws")
    # four groups of PEs take 4 of the 8 filters at a time, 64 channels in a group; 16 pixels each
    assert float(found.compute_cycles) == 2 * 16
    # weights once, 4 x 64 at a time; 64 words of inputs a pixel, sent once for all groups, for both halves of the filters
    assert float(found.accesses[0, 1, 0]) == 2 * 256
    assert float(found.accesses[1, 1, 0]) == 32 * 64
    # outputs: sums of 64 PEs join on the way; each is written once
    assert float(found.accesses[2, 1, 1]) == 8 * 16
    # steps: 2 cycles of inputs each but the first, 8 of the second weights; before: 8 + 1 of weights; after: 1 + 1 of results
    assert float(found.cycles) == (31 * 2 + 8) + (8 + 1) + (1 + 1)


def test_energy_is_in_macs(x64):
    found = cost(LAYER, "kcp_ws")
    accesses = np.sum(np.asarray(found.accesses), axis=(0, 2))
    assert float(found.total_j) == pytest.approx(8 * 64 * 16 + 1.68 * accesses[0] + 18.61 * accesses[1])


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("pes", [256, 1024])
def test_every_dataflow_covers_the_layer(dataflow, pes):
    size = (
        dict(k=100, c=70, p=27, q=13, r=3, s=3)
        if dataflow != "gemm_nmk_ktile64"
        else dict(k=100, c=70, p=27, q=1, r=1, s=1)
    )
    layer = Layer(**size)
    nest = DATAFLOWS[dataflow](layer, pes)
    for name in "KCPQRS":
        d = DIMS.index(name)
        bound = np.prod(nest.factor[nest.dim == d]) * np.prod(nest.spatial_factor[nest.spatial_dim == d])
        assert bound == pytest.approx(getattr(layer, name.lower()))
    assert np.prod(nest.spatial_factor) <= pes


def test_more_bandwidth_is_never_slower(x64):
    for dataflow in DATAFLOWS:
        by_noc = [float(cost(LAYER, dataflow, noc=b).cycles) for b in (8.0, 32.0, 128.0)]
        by_link = [float(cost(LAYER, dataflow, offchip=b).cycles) for b in (1.0, 16.0, 70000.0)]
        assert by_noc == sorted(by_noc, reverse=True) and by_link == sorted(by_link, reverse=True)


def test_words_to_the_pes_are_those_of_maestro(got):
    words = got["buffer_words_to_pes"]
    for dataflow in ("kcp_ws", "ckp_ws", "ykp_os_RSfix", "gemm_nmk_ktile64"):
        assert words[dataflow]["mape_percent"] < 1 and words[dataflow]["spearman"] > 0.99
    assert words["all"]["median_ape_percent"] < 0.2 and words["all"]["spearman"] > 0.99


def test_runtimes_rank_alike_in_every_dataflow(got):
    assert got["runtime_cycles"]["all"]["rows"] == 1070
    for dataflow in DATAFLOWS:
        assert got["runtime_cycles"][dataflow]["spearman"] > 0.93
        assert got["energy_macs"][dataflow]["spearman"] > 0.9


def test_a_machine_that_keeps_what_stays_moves_less_and_is_never_slower():
    """Which is what sets MAESTRO apart: weights sent again over the off-chip link, sums handed up at every step."""
    table = read_table(ROWS, COLUMNS)
    with jax.enable_x64(True):
        keeps, swaps = maestro_cost(ROWS, table, swapped=False), maestro_cost(ROWS, table)
        assert np.all(np.asarray(keeps.cycles) <= np.asarray(swaps.cycles) * (1 + 1e-12))
        assert np.all(np.asarray(keeps.total_j) <= np.asarray(swaps.total_j) * (1 + 1e-12))
        ratio = np.asarray(keeps.cycles) / table["runtime_cycles"]
    of, link = table["dataflow"], table["offchip_bw_elements_per_cycle"]
    for dataflow in ("kcp_ws", "ckp_ws"):
        assert np.median(ratio[(of == dataflow) & (link == 16)]) < 0.1 < np.min(ratio[(of == dataflow) & (link > 16)])


def written(tmp_path, **change):
    row = next(csv.DictReader(ROWS.read_text().splitlines()))
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, row.keys())
        writer.writeheader()
        writer.writerow(row | change)
    return path


@pytest.mark.parametrize("change, words", [
    ({"dataflow": "kcp_w"}, ["row 1", "dataflow", "kcp_ws"]), ({"R": ""}, ["row 1", "column R", "empty"]),
    ({"K": "65"}, ["row 1", "macs"]), ({"num_pes": "16"}, ["row 1", "num_pes", "64"]), ({"Y_in": "x"}, ["row 1", "Y_in"]),
])  # fmt: skip
def test_bad_rows_are_named(tmp_path, change, words):
    with pytest.raises(ValueError) as error:
        compare("maestro", written(tmp_path, **change))
    assert "mine.csv" in str(error.value) and [w for w in words if w not in str(error.value)] == []


def test_it_takes_no_parameters():
    with pytest.raises(ValueError, match="takes none"):
        compare("maestro", ROWS, "p.json")
