"""Energies of a technology, and what system files may leave out or say of silicon."""

import functools

import jax
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.hardware import TECHNOLOGIES, energies, packaging, systems, technology

PJ = 1e-12
close = functools.partial(pytest.approx, abs=0.0)  # picojoules are below the usual absolute tolerance


@pytest.mark.parametrize("node, precision, pj", [
    (45, "int8", 0.2 + 0.1), (7, "int8", 0.07 + 0.03), (45, "fp16", 1.1 + 0.9), (7, "fp16", 0.34 + 0.38),
    (7, "bf16", 0.21 + 0.38), (45, "fp32", 3.7 + 0.9), (7, "fp32", 1.31 + 0.38), (5, "int8", 0.7 * 0.1),
])  # fmt: skip
def test_mac_energies_of_the_published_nodes(node, precision, pj):
    assert energies.mac_j(node, precision) == close(pj * PJ, rel=1e-9)


@pytest.mark.parametrize("node", energies.SRAM_PJ_PER_64_BIT)
def test_the_sram_law_runs_through_the_published_sizes(node):
    got = [energies.sram_j_per_byte(node, kib * 1024) * 8 / PJ for kib in energies.SRAM_KIB]
    np.testing.assert_allclose(got, energies.SRAM_PJ_PER_64_BIT[node], rtol=0.045)


def test_the_sram_law_is_the_least_squares_one():
    for node, published in energies.SRAM_PJ_PER_64_BIT.items():
        system = np.stack([np.ones(3), np.sqrt(energies.SRAM_KIB)], 1) / np.asarray(published)[:, None]
        a, b = np.linalg.lstsq(system, np.ones(3), rcond=None)[0]
        assert energies.sram_j_per_byte(node, 256 * 1024) == close((a + 16 * b) * PJ / 8, rel=1e-7)


@given(st.sampled_from([5, 7, 12, 14, 16, 28, 40, 45, 55, 65]), st.floats(1e2, 1e9))
def test_larger_memories_and_coarser_nodes_take_more(node, size):
    here = energies.sram_j_per_byte(node, size)
    assert 0 < here < energies.sram_j_per_byte(node, 1.1 * size)
    # below 3 KiB the published 45 nm figures lie under those of 7 nm
    assert size < 4096 or energies.sram_j_per_byte(1.2 * node, size) >= here * (1 - 1e-12)
    assert energies.mac_j(1.2 * node) >= energies.mac_j(node)


def test_gradient_of_the_sram_law(x64):
    slope = jax.grad(lambda size: energies.sram_j_per_byte(12, size) / PJ)(65536.0)
    central = (energies.sram_j_per_byte(12, 65537.0) - energies.sram_j_per_byte(12, 65535.0)) / 2 / PJ
    assert slope == close(central, rel=1e-6)


def test_every_memory_and_link_says_where_it_is_from():
    for kind in energies.MEMORY_KINDS.values():
        assert kind.source and kind.pj_per_bit > 0
        assert kind.usd_per_gb_per_s > 0 or "no published price" in kind.source
    for name in energies.LINK_KINDS:
        for way in ("organic", "fan-out", "silicon"):
            kind = energies.link(name, 12, way)
            assert kind.source and kind.pj_per_bit > 0 and (kind.phy_mm2_per_gb_per_s > 0 or "no area" in kind.source)


@pytest.mark.parametrize("call, name", [
    (lambda: energies.mac_j(7, "int9"), "precision is 'int9'"), (lambda: energies.memory("hbm9"), "memory kind is 'hbm9'"),
    (lambda: energies.link("usb", 7, "organic"), "link kind is 'usb'"), (lambda: packaging("wood"), "packaging is 'wood'"),
    (lambda: technology("6nm"), "technology is '6nm'"), (lambda: technology("7nm", yield_model="none"), "yield_model is 'none'"),
])  # fmt: skip
def test_unknown_names(call, name):
    with pytest.raises(ValueError, match=name) as error:
        call()
    assert "allowed: " in str(error.value)


ENERGIES = ("mac_energy", "lane_energy", "local_energy", "buffer_energy", "static_power")


def load(tmp_path, change):
    path = systems.resources.files("perfmodel.hardware") / "catalog" / "mcm-2x2.yaml"
    tree = yaml.safe_load(path.read_text())
    change(tree)
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(tree))
    return pm.systems.load(str(mine))


@pytest.mark.parametrize("node", TECHNOLOGIES)
def test_energies_left_out_come_from_the_node(node, tmp_path):
    def change(tree):
        tree["technology"] = node
        for field in ENERGIES:
            del tree["types"]["os"][field]

    got = load(tmp_path, change)
    nm, os = float(node.removesuffix("nm")), got.type_names.index("os")
    assert got.types.mac_j[os] == got.types.lane_op_j[os] == close(energies.mac_j(nm))
    assert got.types.local_j_per_byte[os] == close(1.68 * energies.mac_j(nm))
    assert got.types.buffer_j_per_byte[os] == close(energies.sram_j_per_byte(nm, 10e6))
    process = technology(node)
    area = (4096 * process.mac_mm2 + 80e6 * process.sram_mm2_per_bit) * 2.2
    assert got.types.static_w[os] == close(0.011 * area)
    assert got.types.mac_j[got.type_names.index("ws")] == close(0.56 * PJ)  # as stated


def test_precision_memory_and_link_kinds(tmp_path):
    def change(tree):
        tree["types"]["os"]["precision"] = "bf16"
        del tree["types"]["os"]["mac_energy"], tree["memory"][0]["energy"], tree["memory"][0]["price"]
        del tree["package"]["hop_energy"]
        tree["memory"][0].update(kind="gddr6x", bandwidth="144 GB/s")
        tree["package"].update(link_kind="ucie", packaging="silicon")

    got = load(tmp_path, change)
    assert got.types.mac_j[got.type_names.index("os")] == close(energies.mac_j(12, "bf16"))
    assert got.memory.j_per_byte[0] == close(7.25 * 8 * PJ) and got.memory.usd[0] == close(9.0)
    assert got.package.hop_j_per_byte == close(0.3 * 8 * PJ)
    assert got.technology.packaging.kind == "silicon" and got.technology.packaging.phy_mm2_per_bytes_per_s > 0


def test_a_stated_die_grows_with_its_buffer(tmp_path):
    got = load(tmp_path, lambda tree: tree["types"]["os"].update(area="40 mm2"))
    os, ws = map(got.type_names.index, ("os", "ws"))
    assert got.types.other_mm2[os] == close(40 - 17.488149, rel=1e-6) and got.types.other_mm2[ws] == 0


def test_a_technology_of_ones_own(tmp_path):
    own = dict(node="28nm", wafer_price="3000 USD", defects_per_cm2=0.2, yield_model="murphy")
    got = load(tmp_path, lambda tree: tree.update(technology=own)).technology
    assert (got.name, got.yield_model, float(got.wafer_usd), float(got.defects_per_cm2)) == (
        "28nm",
        "murphy",
        3000,
        0.2,
    )


def test_one_chiplet_may_say_how_it_is_packaged(tmp_path):
    def change(tree):
        tree["chiplets"] = tree["chiplets"][:1]
        tree["package"] = {"packaging": "fan-out"}

    assert load(tmp_path, change).technology.packaging.kind == "fan-out"


def at(*path):
    *keys, last, value = path

    def change(tree):
        for key in keys:
            tree = tree[key]
        if value is None:
            del tree[last]
        else:
            tree[last] = value

    return change


@pytest.mark.parametrize("change, words", [
    (at("package", "packaging", "wood"), ["package.packaging is 'wood'", "allowed: fan-out, organic, silicon"]),
    (at("package", "link_kind", "usb"), ["package.link_kind is 'usb'", "usr"]),
    (at("package", "io_dies", -1), ["package.io_dies is -1", "at least 0"]),
    (at("package", "io_dies", 2), ["package.io_die_area is 0.0", "above 0"]),
    (at("package", "hop_energy", None), ["package.hop_energy is missing (or a link_kind)", "4 chiplets"]),
    (at("package", "link", None), ["package.link is missing", "4 chiplets"]),
    (at("types", "os", "precision", "int9"), ["types.os.precision is 'int9'", "int8"]),
    (at("types", "os", "area", "10 mm2"), ["types.os.area is '10 mm2'", "at least 17.49 mm2", "12nm"]),
    (at("types", "os", "area", "10 mm"), ["types.os.area is '10 mm'", "square millimetres"]),
    (at("memory", 0, "energy", None), ["memory[0].energy is missing", "kind"]),
    (at("memory", 0, "kind", "hbm9"), ["memory[0].kind is 'hbm9'", "hbm3"]),
    (at("technology", {"node": "6nm"}), ["technology.node is '6nm'"]),
    (at("technology", {"node": "7nm", "yield_model": "x"}), ["technology.yield_model is 'x'", "murphy"]),
    (at("technology", {"node": "7nm", "defects_per_cm2": -1.0}), ["technology.defects_per_cm2 is -1.0"]),
])  # fmt: skip
def test_bad_silicon_in_a_file(change, words, tmp_path):
    with pytest.raises(ValueError) as error:
        load(tmp_path, change)
    said = str(error.value)
    assert "mine.yaml: " in said and "\n" not in said and [w for w in words if w not in said] == []
