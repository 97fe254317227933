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
from perfmodel.cost import (
    chiplet_area_mm2,
    die_areas_mm2,
    die_usd,
    die_yield,
    dies_per_wafer,
    package_usd,
    system_area_mm2,
    system_price,
    system_usd,
)
from perfmodel.hardware import NODES, PACKAGINGS, TECHNOLOGIES, YIELD_MODELS, packaging, technology

WAFER = {"5nm": 16988, "7nm": 9346, "12nm": 5992, "14nm": 3984, "16nm": 3984, "28nm": 2891, "40nm": 2274, "45nm": 2274, "55nm": 1937,
         "65nm": 1937}  # fmt: skip
DEFECTS = dict.fromkeys(WAFER, 0.07) | {"5nm": 0.11, "7nm": 0.09, "12nm": 0.08, "14nm": 0.08, "16nm": 0.08}
CARRIERS = {"fan-out": (1200, 0.05, 3, 1.2, 0.98), "silicon": (1937, 0.06, 6, 1.1, 0.95)}
GEMINI = Path(__file__).parents[2] / "data" / "gemini_cost.csv"  # printed by the tool itself: data/README.md


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
    """A row of chiplets of given areas."""
    tree = yaml.safe_load((Path(pm.hardware.__file__).parent / "catalog" / "mcm-2x2.yaml").read_text())
    base = tree["types"].pop("ws")
    tree["technology"], tree["memory"][0]["price"] = node, usd
    tree["types"] = {f"t{i}": {**base, "rows": 1, "columns": 1, "buffer": 1e3, "area": a} for i, a in enumerate(areas)}
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
    process = system.technology
    parts, areas = process.packaging, np.asarray(die_areas_mm2(system), float).tolist()
    expected = 0.0
    for inside in [[a] for a in areas] if system.package.switched else [areas]:  # a package for each, or one for all
        inside = inside + [float(parts.io_die_mm2)] * int(parts.io_dies)
        if parts.kind == "organic":
            expected += sum(price_of_package(inside, process.name))
        else:
            dies = sum(sum(price_of_die(a, process.name)) + 0.01 * a for a in inside)
            expected += dies + carrier_package(dies, sum(inside), len(inside), *CARRIERS[parts.kind])
    assert float(system_usd(system)) == pytest.approx(expected + float(np.sum(system.memory.usd)), rel=1e-5)


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


@pytest.mark.parametrize("model, expected", [
    ("negative-binomial", (1 + 0.08 / 10) ** -10),  # 100 mm2 at 0.08 defects/cm2: 0.08 a die
    ("poisson", math.exp(-0.08)),
    ("murphy", ((1 - math.exp(-0.08)) / 0.08) ** 2),
])  # fmt: skip
def test_yield_by_hand(model, expected):
    assert float(die_yield(100.0, 0.08, 10.0, model)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("model", YIELD_MODELS)
@given(area=st.floats(1e-3, 2000), defects=st.floats(0, 2))
def test_yield_is_a_share_that_falls_with_area_and_defects(model, area, defects):
    share = float(die_yield(np.float32(area), defects, 10.0, model))
    assert 0 <= share <= 1
    assert float(die_yield(np.float32(1.3 * area), defects, 10.0, model)) <= share + 1e-6
    assert float(die_yield(np.float32(area), 1.3 * defects + 0.01, 10.0, model)) <= share + 1e-6


def test_yield_models_agree_on_small_dies_and_part_on_large():
    small, large = (np.asarray([die_yield(a, 0.1, 10.0, m) for m in YIELD_MODELS], float) for a in (1.0, 800.0))
    np.testing.assert_allclose(small, 0.999, atol=2e-6)
    binomial, poisson, murphy = large
    assert poisson < binomial < 0.5 and poisson < murphy  # clustered defects hit fewer dies


def test_dies_per_wafer_by_hand():
    # 100 mm2: with scribe lanes 10.2^2 = 104.04; pi 145^2 / 104.04 - pi 290 / sqrt(208.08) = 634.883 - 63.158
    assert float(dies_per_wafer(100.0)) == pytest.approx(571.72, abs=0.02)
    assert float(dies_per_wafer(1e6)) == 1.0


def carrier_package(dies, area, n, wafer, defects, layers, factor, bond):
    """The README of the data, formula by formula."""
    a = factor * area
    scribed = a + 0.4 * math.sqrt(a) + 0.04
    i = wafer / (math.pi * 145**2 / scribed - math.pi * 290 / math.sqrt(2 * scribed)) + 0.005 * a
    s, y1, y2, y3 = 0.005 * 4 * a, (1 + defects / 100 * a / layers) ** -layers, bond**n, 0.99
    return i + s + i * (1 / (y1 * y2 * y3) - 1) + s * (1 / y3 - 1) + dies * (1 / (y2 * y3) - 1)


@pytest.mark.parametrize("kind, numbers", CARRIERS.items())
@pytest.mark.parametrize("n, area", [(1, 100.0), (6, 251.84), (13, 900.0)])
def test_price_of_a_carrier_package(kind, numbers, n, area):
    got = package_usd(30.0, area, n, technology("12nm", kind))
    assert float(got) == pytest.approx(carrier_package(30.0, area, n, *numbers), rel=1e-5)


def test_the_silicon_interposer_costs_its_intended_wafer(x64):
    """Two chiplets of 106 mm2 and four I/O dies by UCIe: 34.98 USD of package with wafers of 1937 USD; the tool printed 19.158,
    having charged nothing for them."""
    dies, area = 30.4, 2 * 105.83 + 36.3  # about what the tool's areas are
    right = package_usd(dies, area, 6, technology("12nm", "silicon"))
    free = package_usd(dies, area, 6, technology("12nm", packaging("silicon", carrier_wafer_usd=0.0)))
    assert float(right) == pytest.approx(34.98, rel=0.01) and float(free) == pytest.approx(19.158, rel=0.01)


@pytest.mark.parametrize("kind", PACKAGINGS)
@given(area=st.floats(10, 3000), n=st.integers(1, 40), dies=st.floats(1, 1e4))
def test_a_larger_or_more_divided_package_costs_more(kind, area, n, dies):
    process = technology("12nm", kind)
    price = float(package_usd(dies, area, n, process))
    assert price > 0 and float(package_usd(dies, 1.1 * area, n, process)) > price * (1 - 1e-6)
    assert float(package_usd(dies, area, n + 1, process)) > price * (1 - 1e-6)


@pytest.mark.parametrize("name", TECHNOLOGIES)
def test_every_node_says_where_its_numbers_are_from(name):
    node, process = NODES[name], technology(name)
    assert node.source and float(process.wafer_usd) == WAFER[name] and float(process.defects_per_cm2) == DEFECTS[name]
    assert name != "45nm" or "no published wafer price" in node.source


def test_nodes_in_order():
    nodes = sorted(NODES.values())
    for finer, coarser in zip(nodes, nodes[1:], strict=False):
        assert finer.wafer_usd >= coarser.wafer_usd and finer.defects_per_cm2 >= coarser.defects_per_cm2
        assert finer.mac < coarser.mac and finer.sram < coarser.sram


def changed(tmp_path, **package):
    tree = yaml.safe_load((Path(pm.hardware.__file__).parent / "catalog" / "mcm-2x2.yaml").read_text())
    tree["package"].update(package)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    return pm.systems.load(str(path))


def test_interfaces_take_area_at_every_neighbour(tmp_path, mcm):
    # 2 neighbours x 100 GB/s x 4.863 / 12 / 16 mm2 per GB/s
    got = die_areas_mm2(changed(tmp_path, link_kind="usr"))
    np.testing.assert_allclose(got - die_areas_mm2(mcm), 2 * 100 * 4.863 / 192, rtol=1e-5)


def test_io_dies_are_dies_of_the_same_process(tmp_path, mcm):
    got = changed(tmp_path, io_dies=4, io_die_area="9 mm2")
    areas = [17.488149] * 4 + [9.0] * 4
    assert float(system_area_mm2(got)) == pytest.approx(sum(areas), rel=1e-6)
    dies, package = price_of_package(areas, "12nm")
    np.testing.assert_allclose(system_price(got), (dies, package, 4.0), rtol=1e-5)
    assert float(system_usd(got)) > float(system_usd(mcm))


@pytest.mark.parametrize("kind", PACKAGINGS)
def test_price_of_a_system_in_every_packaging(kind, tmp_path):
    got = changed(tmp_path, packaging=kind, link_kind="ucie")
    price = system_price(got)
    process = got.technology
    dies = sum(sum(map(float, die_usd(a, process))) + float(process.packaging.bump_usd_per_mm2) * float(a)
               for a in die_areas_mm2(got))  # fmt: skip
    assert float(price.dies_usd) == pytest.approx(dies, rel=1e-5)
    assert float(price.package_usd) == pytest.approx(
        float(package_usd(dies, system_area_mm2(got), 4, process)), rel=1e-5
    )
    assert float(system_usd(got)) == pytest.approx(sum(map(float, price)), rel=1e-6)


@pytest.mark.parametrize("kind", PACKAGINGS)
@pytest.mark.parametrize("model", YIELD_MODELS)
def test_gradient_of_price_in_every_technology_number(kind, model, tmp_path, x64):
    system = changed(tmp_path, packaging=kind, link_kind="ucie", io_dies=2, io_die_area=8.0)
    system = eqx.tree_at(
        lambda s: s.technology, system, technology("12nm", system.technology.packaging, yield_model=model)
    )
    numbers, rest = eqx.partition(system.technology, eqx.is_array)

    @jax.jit
    def price(numbers):
        return system_usd(eqx.tree_at(lambda s: s.technology, system, eqx.combine(numbers, rest)))

    slopes = jax.grad(price)(numbers)
    leaves, structure = jax.tree.flatten(numbers)
    for i, (value, slope) in enumerate(zip(leaves, jax.tree.leaves(slopes), strict=True)):
        step = 1e-6 * (float(value) or 1e-6)
        ways = [
            jax.tree.unflatten(structure, [v + way * step * (j == i) for j, v in enumerate(leaves)]) for way in (1, -1)
        ]
        central = (price(ways[0]) - price(ways[1])) / (2 * step)
        assert float(slope) == pytest.approx(float(central), rel=2e-5, abs=1e-6)


def test_prices_of_many_systems_at_once(mcm, x64):
    def price(buffer):
        return system_usd(eqx.tree_at(lambda s: s.chiplets.buffer_bytes, mcm, buffer))

    many = np.linspace(1e6, 2e7, 20).reshape(5, 4)
    np.testing.assert_allclose(jax.vmap(price)(many), [price(b) for b in many], rtol=1e-12)


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
