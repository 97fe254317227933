"""Area and price, re-derived in plain Python from the published formulas (Gemini, HPCA 2024)."""

import csv
import math
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.cost import chiplet_area_mm2, die_usd, system_area_mm2, system_usd
from perfmodel.hardware import technology

WAFER, DEFECTS = {"12nm": 5992, "7nm": 9346}, {"12nm": 0.08, "7nm": 0.09}
GEMINI = Path(__file__).parents[1] / "data" / "gemini_cost.csv"  # printed by the tool itself: data/README.md


def price_of_die(area, node):
    scribed = area + 2 * 0.2 * math.sqrt(area) + 0.2**2
    dies = math.pi * 145**2 / scribed - math.pi * 2 * 145 / math.sqrt(2 * scribed)
    raw = WAFER[node] / dies
    return raw, raw / (1 + DEFECTS[node] / 100 * area / 10) ** -10 - raw


def price_of_package(areas, node):
    """(dies, package) in USD: organic substrate."""
    dies = sum(sum(price_of_die(a, node)) + 0.005 * a for a in areas)
    substrate = 4 * sum(areas)
    factor = 1 if len(areas) == 1 else 2 if substrate > 900 else 1.75 if substrate > 289 else 1.5
    price, good = 0.005 * substrate * factor, 0.99 ** len(areas)
    return dies, price + (price + dies) * (1 / good - 1)


def system_of(tmp_path, areas, node, usd=15.75):
    """A row of chiplets of given areas: one PE each, the rest is SRAM."""
    tree = yaml.safe_load((Path(pm.hardware.__file__).parent / "catalog" / "mcm-2x2.yaml").read_text())
    base = tree["types"].pop("ws")
    tree["technology"], tree["memory"][0]["price"] = node, usd
    tree["types"] = {
        f"t{i}": {**base, "rows": 1, "columns": 1, "buffer": (a / 2.2 - 57.9e-6) / 0.0964e-6 / 8}
        for i, a in enumerate(areas)
    }
    tree["chiplets"] = [{"name": f"c{i}", "type": f"t{i}", "position": [i, 0]} for i in range(len(areas))]
    path = tmp_path / "row.yaml"
    path.write_text(yaml.safe_dump(tree))
    return pm.systems.load(str(path))


def test_area_by_hand(mcm):
    # 4096 MACs of 57.9 um2 = 0.23716 mm2; 80e6 bits of 0.0964 um2 = 7.712 mm2; 2.2 after layout
    np.testing.assert_allclose(chiplet_area_mm2(mcm.chiplets, mcm.technology), 2.2 * (0.2371584 + 7.712), rtol=1e-6)
    assert float(system_area_mm2(mcm)) == pytest.approx(4 * 17.488149, rel=1e-6)
    mono = pm.systems.load("monolithic-os")
    assert float(system_area_mm2(mono)) == pytest.approx(float(system_area_mm2(mcm)), rel=1e-6)


@pytest.mark.parametrize("node", ["12nm", "7nm"])
@pytest.mark.parametrize("area", [0.5, 10.0, 100.0, 400.0, 858.0])
def test_price_of_a_die(area, node):
    raw, defects = price_of_die(area, node)  # the loss is a difference: exact to a part of the price
    np.testing.assert_allclose(die_usd(area, technology(node)), (raw, defects), rtol=2e-6, atol=1e-6 * raw)


@pytest.mark.parametrize("name", pm.systems.names())
def test_price_of_every_system(name):
    system = pm.systems.load(name)
    areas = np.asarray(chiplet_area_mm2(system.chiplets, system.technology), float).tolist()
    expected = sum(price_of_package(areas, system.technology.name)) + float(np.sum(system.memory.usd))
    assert float(system_usd(system)) == pytest.approx(expected, rel=1e-5)


# substrate factor: 4 * 71 = 284 below 289, 4 * 74 = 296 above, 4 * 240 = 960 above 900, one die
@pytest.mark.parametrize("areas", [[30.0, 41.0], [33.0, 41.0], [60.0, 60.0, 60.0, 60.0], [225.0]])
@pytest.mark.parametrize("node", ["12nm", "7nm"])
def test_price_of_a_package(areas, node, tmp_path):
    system = system_of(tmp_path, areas, node)
    assert float(system_area_mm2(system)) == pytest.approx(sum(areas), rel=1e-5)
    assert float(system_usd(system)) == pytest.approx(sum(price_of_package(areas, node)) + 15.75, rel=1e-5)


def test_prices_printed_by_gemini(tmp_path):
    rows = [row for row in csv.DictReader(GEMINI.read_text().splitlines()) if row["package"] == "OS"]
    seen = {}
    for row in rows:
        n = int(row["chiplets_x"]) * int(row["chiplets_y"])
        # four I/O dies beside the compute dies, except in a monolith, where their area is listed but not priced
        io = [] if n == 1 else [float(row["io_dies_total_area_mm2"]) / 4] * 4
        areas = (float(row["compute_die_area_mm2"]), n, *io), row["technology_nm"]
        if areas not in seen:
            dies = [areas[0][0]] * n + io
            seen[areas] = float(system_usd(system_of(tmp_path, dies, f"{row['technology_nm']}nm")))
        assert seen[areas] == pytest.approx(float(row["cost_overall_usd"]), abs=0.004)
    assert len(rows) >= 13


@given(st.floats(1, 800), st.floats(1, 800))
def test_a_larger_die_costs_more(one, other):
    small, large = sorted((one, other))
    price = [sum(map(float, die_usd(np.float32(a), technology("12nm")))) for a in (small, large)]
    assert price[0] <= price[1] * (1 + 1e-4)


def test_gradient_of_price_and_area(mcm, x64):
    def price(buffer):
        return system_usd(eqx.tree_at(lambda s: s.chiplets.buffer_bytes, mcm, buffer))

    at = np.asarray([4e6, 7e6, 10e6, 12e6])
    slope, run = jax.grad(price)(at), jax.jit(price)
    for d in range(4):
        step = np.zeros(4)
        step[d] = 1e3
        central = (run(at + step) - run(at - step)) / 2e3
        assert slope[d] == pytest.approx(float(central), rel=1e-6) and slope[d] > 0
    assert float(price(at)) == pytest.approx(float(run(at)), rel=1e-12)
