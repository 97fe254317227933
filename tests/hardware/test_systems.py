"""The catalogue, and what is said about bad system files."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import perfmodel as pm
from perfmodel.hardware import DATAFLOWS, systems

MAC_J = 0.56e-12


@pytest.mark.parametrize("name", pm.systems.names())
def test_every_system_of_the_catalogue_loads(name):
    system = pm.systems.load(name)
    assert system.name == name and len(system.chiplet_names) == len(set(system.chiplet_names)) == system.n_chiplets
    assert systems.about(name)
    for field, value in vars(system.chiplets).items():
        assert np.isfinite(value).all() and (value >= 0).all(), field
        assert value.shape == (system.n_chiplets,)
    n, links = system.n_chiplets, len(system.package.link_names)
    assert len(system.resource_names) == len(set(system.resource_names)) == n + links + 2 * n + system.memory.n_tiers
    for d, kind in enumerate(system.kind):  # the chiplets are what their types say
        assert all(getattr(system.chiplets, f)[d] == getattr(system.types, f)[kind] for f in vars(system.types))


def test_the_contract_names_are_there():
    assert {"mcm-2x2", "mcm-3x3", "monolithic-os"} <= set(pm.systems.names())


@pytest.mark.parametrize("name", ["mcm-2x2", "mcm-3x3"])
def test_stated_defaults(name):
    system = pm.systems.load(name)
    chip, package, memory = system.chiplets, system.package, system.memory
    assert set(chip.rows) == set(chip.columns) == {64}
    assert set(chip.clock_hz) == {500e6} and set(chip.buffer_bytes) == {10e6}
    np.testing.assert_allclose(chip.mac_j, MAC_J)
    np.testing.assert_allclose(chip.local_j_per_byte, 1.68 * MAC_J)  # MAC units per byte
    np.testing.assert_allclose(chip.buffer_j_per_byte, 18.61 * MAC_J)
    assert package.link_bytes_per_s == package.port_bytes_per_s == 100e9
    assert package.hop_s == pytest.approx(35e-9) and package.hop_j_per_byte == pytest.approx(2.04e-12 * 8)
    assert memory.bytes_per_s.tolist() == [64e9]
    assert memory.latency_s[0] == pytest.approx(200e-9) and memory.j_per_byte[0] == pytest.approx(14.8e-12 * 8)


def test_chiplet_mixes():
    flows = {n: [DATAFLOWS[d] for d in pm.systems.load(n).chiplets.dataflow] for n in ("mcm-2x2", "mcm-3x3")}
    assert flows["mcm-2x2"] == ["ws", "ws", "ws", "os"]
    assert flows["mcm-3x3"] == ["ws", "os", "ws", "os", "ws", "os", "ws", "os", "ws"]  # checkerboard


def test_the_monolith_is_the_sum_of_the_four(mcm):
    mono = pm.systems.load("monolithic-os")
    np.testing.assert_allclose(mono.chiplets.peak_macs_per_s[0], mcm.chiplets.peak_macs_per_s.sum())
    for field in ("lanes", "buffer_bytes", "buffer_bytes_per_s", "static_w"):
        np.testing.assert_allclose(getattr(mono.chiplets, field)[0], getattr(mcm.chiplets, field).sum(), err_msg=field)
    for field in ("clock_hz", "mac_j", "lane_op_j", "local_j_per_byte", "buffer_j_per_byte", "launch_s"):
        assert getattr(mono.chiplets, field)[0] == getattr(mcm.chiplets, field)[0], field
    for field in ("capacity_bytes", "bytes_per_s", "latency_s", "j_per_byte", "static_w", "usd"):
        assert getattr(mono.memory, field) == getattr(mcm.memory, field), field
    assert mono.technology.name == mcm.technology.name
    assert [DATAFLOWS[d] for d in mono.types.dataflow] == list(mono.type_names) == ["os", "os-flex"]


def test_with_types_by_name_and_by_index(mcm):
    named = mcm.with_types(["os", "ws", "os-flex", "os"])
    index = [mcm.type_names.index(n) for n in ("os", "ws", "os-flex", "os")]
    for other in (mcm.with_kinds(index), eqx.filter_jit(lambda s, k: s.with_kinds(k))(mcm, jnp.asarray(index))):
        for a, b in zip(jax.tree.leaves(named), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert [DATAFLOWS[d] for d in named.chiplets.dataflow] == ["os", "ws", "os-flex", "os"]
    pure = mcm.with_kinds(jax.nn.one_hot(jnp.asarray(index), 3))
    np.testing.assert_array_equal(pure.chiplets.dataflow, named.chiplets.dataflow)
    np.testing.assert_allclose(pure.chiplets.buffer_bytes, named.chiplets.buffer_bytes)


def test_traced_kinds_of_a_system_that_is_closed_over(mcm):
    picked = jax.jit(lambda kind: mcm.with_kinds(kind).chiplets.dataflow)(jnp.asarray([1, 0, 2, 1]))
    np.testing.assert_array_equal(picked, mcm.with_kinds([1, 0, 2, 1]).chiplets.dataflow)


def test_with_types_refuses(mcm):
    with pytest.raises(ValueError, match="mcm-2x2: chiplet type is 'oss': did you mean os"):
        mcm.with_types(["oss"] * 4)
    with pytest.raises(ValueError, match="3 types for 4 chiplets"):
        mcm.with_types(["os"] * 3)


def plain(name="mcm-2x2") -> dict:
    path = systems.resources.files("perfmodel.hardware") / "catalog" / f"{name}.yaml"
    return yaml.safe_load(path.read_text())


def load(tmp_path, tree):
    path = tmp_path / "chip.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return str(path), lambda: pm.systems.load(str(path))


def test_a_file_of_ones_own(tmp_path):
    tree = plain()
    tree["types"]["ws"]["clock"] = 1e9
    _, loaded = load(tmp_path, tree)
    assert loaded().chiplets.clock_hz.tolist() == [1e9, 1e9, 1e9, 5e8]


def put(*path):
    """A change to the tree of a good file: put(key, ..., value); the value `None` removes the key."""
    *keys, last, value = path

    def change(tree):
        for key in keys:
            tree = tree[key]
        if value is None:
            del tree[last]
        else:
            tree[last] = value

    return change


FINITE = "allowed: a finite number above 0"
BAD = {
    "missing field": (put("types", "ws", "lanes", None), ["missing required field lanes", "$.types"]),
    "missing section": (put("memory", None), ["missing required field memory"]),
    "missing package": (put("package", None), ["package is missing", "4 chiplets need a network"]),
    "extra field": (put("types", "ws", "lans", 3), ["unknown field lans", "$.types"]),
    "extra field at the top": (put("tecnology", "12nm"), ["unknown field tecnology"]),
    "NaN bandwidth": (put("memory", 0, "bandwidth", float("nan")), ["memory[0].bandwidth is nan", FINITE, "64 GB/s"]),
    "infinite link": (put("package", "link", float("inf")), ["package.link is inf", FINITE]),
    "NaN in words": (put("package", "port", "nan GB/s"), ["package.port is 'nan GB/s'", FINITE]),
    "negative": (put("package", "hop_latency", "-35 ns"), ["package.hop_latency is '-35 ns'", "at least 0"]),
    "zero clock": (put("types", "os", "clock", "0 Hz"), ["types.os.clock is '0 Hz'", FINITE]),
    "zero buffer": (put("types", "os", "buffer", 0), ["types.os.buffer is 0", FINITE]),
    "zero PEs": (put("types", "ws", "rows", 0), ["types.ws.rows is 0", "allowed: an integer of at least 1"]),
    "negative PEs": (put("types", "ws", "columns", -64), ["types.ws.columns is -64", "allowed"]),
    "half a PE": (put("types", "ws", "rows", 64.5), ["Expected int, got float", "$.types"]),
    "wrong unit": (put("types", "ws", "clock", "500 MB"), ["types.ws.clock is '500 MB'", "hertz, e.g. 500 MHz"]),
    "unknown type": (put("chiplets", 1, "type", "wss"), ["chiplets[1].type is 'wss'", "did you mean ws", "os-flex"]),
    "unknown dataflow": (put("types", "ws", "dataflow", "rx"), ["types.ws.dataflow is 'rx'", "allowed: gpu, is-systolic, os, os-flex"]),
    "unknown technology": (put("technology", "6nm"), ["technology is '6nm'", "allowed: 12nm, 14nm, 16nm"]),
    "duplicate position": (put("chiplets", 1, "position", [0, 0]), ["chiplets[1].position is (0, 0)", "already taken"]),
    "duplicate name": (put("chiplets", 3, "name", "c00"), ["chiplets[3].name is 'c00'", "already taken"]),
    "three coordinates": (put("chiplets", 1, "position", [0, 0, 0]), ["length 2, got 3", "$.chiplets[1].position"]),
    "no chiplets": (put("chiplets", []), ["chiplets is empty"]),
    "no types": (put("types", {}), ["types is empty"]),
    "no memory": (put("memory", []), ["memory is empty", "at least one tier"]),
    "text for a number": (put("types", "ws", "rows", "many"), ["Expected int, got str", "rows"]),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_files(what, tmp_path):
    change, fragments = BAD[what]
    tree = plain()
    change(tree)
    path, loaded = load(tmp_path, tree)
    with pytest.raises(ValueError) as error:
        loaded()
    said = str(error.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    assert [f for f in fragments if f not in said] == []


def test_nobody_reaches_memory(tmp_path):
    tree = plain()
    for chiplet in tree["chiplets"]:
        chiplet["memory"] = False
    path, loaded = load(tmp_path, tree)
    with pytest.raises(ValueError, match="no chiplet has memory: true; at least one must reach memory"):
        loaded()


def test_a_hole_in_the_mesh_names_the_file(tmp_path):
    tree = plain()
    tree["chiplets"][1]["position"] = [5, 0]
    path, loaded = load(tmp_path, tree)
    with pytest.raises(ValueError) as error:
        loaded()
    assert str(error.value).startswith(f"{path}: package: the XY route from c00 to c10 passes position (1, 0)")


@pytest.mark.parametrize("change, said", [
    (put("types", "os", "rows", "many"), ["$.types['os'].rows; got 'many'"]),
    (put("types", "os", "lanes", None), ["missing required field lanes", "at $.types['os']"]),
    (put("types", "os", "lans", 3), ["unknown field lans", "at $.types['os']"]),
    (put("types", "os", 5), ["Expected object, got int", "at $.types['os']; got 5"]),
], ids=["value", "missing", "extra", "no mapping"])  # fmt: skip
def test_errors_inside_a_type_name_the_type(change, said, tmp_path):
    tree = plain()
    change(tree)
    path, loaded = load(tmp_path, tree)
    with pytest.raises(ValueError) as error:
        loaded()
    assert [f for f in said if f not in str(error.value)] == []


@pytest.mark.parametrize("raw", [b"name: \xff", b"name: \x00"], ids=["not UTF-8", "control character"])
def test_bytes_that_are_no_text_take_one_line(raw, tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_bytes(raw)
    with pytest.raises(ValueError) as error:
        pm.systems.load(str(path))
    assert str(error.value).startswith(f"{path}: not valid YAML: ") and "\n" not in str(error.value)


def test_a_type_twice_is_refused(tmp_path):
    path, loaded = load(tmp_path, "name: x\ntypes:\n  os: {}\n  ws: {}\n  os: {}\n")
    with pytest.raises(ValueError) as error:
        loaded()
    assert str(error.value) == f"{path}: not valid YAML at line 5: key 'os' stands twice; keys must be distinct"


@pytest.mark.parametrize("text, said", [
    ("", "Expected object, got null"), ("- 1", "Expected object, got array"), ("a: [", "not valid YAML at line 1"),
])  # fmt: skip
def test_files_that_are_no_system(text, said, tmp_path):
    path, loaded = load(tmp_path, text)
    with pytest.raises(ValueError) as error:
        loaded()
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value)


@pytest.mark.parametrize("call", [pm.systems.load, systems.about])
def test_unknown_names_list_near_ones(call):
    with pytest.raises(ValueError, match="system is 'mcm-2x3': did you mean mcm-"):
        call("mcm-2x3")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="none.yaml: cannot be read: No such file"):
        pm.systems.load(str(tmp_path / "none.yaml"))
