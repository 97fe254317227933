"""Systems whose chiplets are GPUs: the catalogue against the specification sheets, and what is said about bad files."""

import jax
import numpy as np
import pytest
import yaml

import perfmodel as pm
from perfmodel.cost.kernels import as_gpu
from perfmodel.hardware import DATAFLOWS, gpu, systems

SHEETS = {"a100-40gb": "A100-SXM-40GB", "a100-80gb": "A100-SXM-80GB", "h100-80gb": "H100-SXM-80GB", "h200": "H200-SXM-141GB",
          "b200": "B200-SXM", "l40s": "L40S"}  # fmt: skip


@pytest.mark.parametrize("name, sheet", SHEETS.items())
def test_the_catalogue_says_what_the_sheet_says(name, sheet):
    system, spec = pm.systems.load(name), gpu(sheet)
    assert system.gpu_names == (sheet,) and DATAFLOWS[system.chiplets.dataflow[0]] == "gpu"
    for field, value in vars(system.gpus).items():
        assert value.tolist() == [getattr(spec, field)], field
    seen = as_gpu(spec, jax.tree.map(lambda x: x[0], system.chiplets), system.memory)
    for field in vars(spec):  # columns of an array are whole, so peaks are up to 0.3 % off
        assert float(getattr(seen, field)) == pytest.approx(float(getattr(spec, field)), rel=3e-3), field
    assert float(system.memory.capacity_bytes[0]) == spec.dram_bytes
    assert float(system.chiplets.lanes[0]) == 128 * spec.multiprocessors


@pytest.mark.parametrize("name, sheet", SHEETS.items())
def test_full_load_takes_about_the_power_limit(name, sheet):
    system = pm.systems.load(name)
    chip, memory = system.chiplets, system.memory
    moving = float((memory.bytes_per_s * memory.j_per_byte)[0])
    # MACs alone at 0.6 to 1 of the peak: what feeds them takes as much as a third of all
    low, high = (
        float(chip.static_w[0]) + moving + share * float((chip.peak_macs_per_s * chip.mac_j)[0]) for share in (0.6, 1)
    )
    assert 0.65 * gpu(sheet).tdp_w < low < high < 1.05 * gpu(sheet).tdp_w


def test_other_systems_have_none(mcm):
    assert mcm.gpus is None and mcm.kernels is None and mcm.gpu_names == ()


def plain(name: str) -> dict:
    return yaml.safe_load((systems.resources.files("perfmodel.hardware") / "catalog" / f"{name}.yaml").read_text())


def mixed() -> dict:
    """A GPU beside an array of output-stationary PEs."""
    tree = plain("a100-80gb")
    tree["types"] = {"array": plain("mcm-2x2")["types"]["os"], **tree["types"]}
    tree["chiplets"].append({"name": "side", "type": "array", "position": [1, 0], "memory": True})
    tree["package"] |= {"link": "100 GB/s", "port": "100 GB/s", "hop_latency": "35 ns", "hop_energy": "2 pJ/bit"}
    return tree


def load(tmp_path, tree):
    path = tmp_path / "chip.yaml"
    path.write_text(yaml.safe_dump(tree))
    return pm.systems.load(str(path))


def test_a_gpu_beside_an_array(tmp_path):
    system = load(tmp_path, mixed())
    assert system.type_names == ("array", "gpu") and system.gpu_names == ("", "A100-SXM-80GB")
    assert system.gpus is not None and np.shape(system.gpus.tdp_w) == (2,)
    both = system.with_types(["array", "array"])
    assert both.gpu_names == system.gpu_names and both.chiplets.dataflow.tolist() == [DATAFLOWS.index("os")] * 2


@pytest.mark.parametrize("change, said", [
    ({"gpu": "A100-SXM-80"}, ["types.gpu.gpu is 'A100-SXM-80': did you mean A100-SXM-80GB", "L40S"]),
    ({"gpu": None}, ["types.gpu.gpu is None and dataflow 'gpu'", "needed with dataflow gpu: one of A100-SXM-40GB"]),
    ({"dataflow": "ws"}, ["types.gpu.gpu is 'A100-SXM-80GB' and dataflow 'ws'", "of dataflow gpu alone"]),
], ids=["unknown", "missing", "not a GPU"])  # fmt: skip
def test_bad_files(change, said, tmp_path):
    tree = plain("a100-80gb")
    tree["types"]["gpu"] |= change
    with pytest.raises(ValueError) as error:
        load(tmp_path, tree)
    assert "\n" not in str(error.value) and [f for f in said if f not in str(error.value)] == []
