"""Row-stationary dataflow against the chip: each layer of AlexNet and VGG-16, and what is said about bad files."""

import json
from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration import TYPICAL_ZEROS, compare, relative_errors, run_length_ratio, validate

FILE = Path(__file__).parents[1] / "data" / "eyeriss.json"


@pytest.fixture(scope="module")
def published():
    return {c.quantity: c for c in compare("eyeriss", FILE)}


def test_every_layer_is_compared(published):
    assert set(published) == {"active_pes", "processing_latency_s", "global_buffer_bytes", "dram_bytes"}
    for c in published.values():
        assert c.group == ["alexnet"] * 5 + ["vgg16"] * 13
    assert published["processing_latency_s"].reference.sum() == pytest.approx(0.1035 + 3.7552, rel=1e-3)


def test_active_pes_are_exact(published):
    np.testing.assert_array_equal(published["active_pes"].predicted, published["active_pes"].reference)


def test_processing_time_is_within_10_percent_of_every_layer(published):
    assert relative_errors(published["processing_latency_s"]).max() <= 0.10


def test_memory_volume_is_within_20_percent_of_every_layer(published):
    assert relative_errors(published["dram_bytes"]).max() <= 0.20


def test_buffer_volume_of_vgg_is_that_of_the_same_mapping(published):
    buffer = published["global_buffer_bytes"]
    assert relative_errors(buffer)[5:].max() <= 1e-3  # to the digits printed: no other mapping has these volumes


def test_run_lengths_of_random_zeros():
    rng = np.random.default_rng(0)
    for zeros in (0.3, 0.58, 0.885, 0.97):
        pairs, run = 0, 0
        for is_zero in rng.random(200_000) < zeros:
            if is_zero and run < 31:
                run += 1
            else:  # a value ends the run; so does the 32nd zero, as a value of its own
                pairs, run = pairs + 1, 0
        assert run_length_ratio(zeros) == pytest.approx(pairs / 3 * 64 / (200_000 * 16), rel=0.01)
    assert run_length_ratio(0.0) == run_length_ratio(0.2) == 1.0  # coding would make more of them: left plain
    assert run_length_ratio(1.0) == pytest.approx(64 / 48 / 32) and 0.5 < run_length_ratio(TYPICAL_ZEROS) < 0.6


def changed(tmp_path, edit):
    data = json.loads(FILE.read_text())
    edit(data)
    (tmp_path / "changed.json").write_text(json.dumps(data))
    return tmp_path / "changed.json"


def test_a_file_may_say_how_many_zeros_there_were(tmp_path, published):
    def edit(data):
        del data["vgg16"]
        for layer in data["alexnet"]["layers"]:
            layer["zeros_in_ifmaps_percent"] = 0

    dense = {c.quantity: c for c in compare("eyeriss", changed(tmp_path, edit))}
    np.testing.assert_array_equal(dense["active_pes"].predicted, published["active_pes"].predicted[:5])
    assert (dense["dram_bytes"].predicted > published["dram_bytes"].predicted[:5]).all()
    assert set(validate("eyeriss", changed(tmp_path, edit))["dram_bytes"]) == {"all", "alexnet"}


@pytest.mark.parametrize("edit, words", [
    (lambda d: d.clear(), "no layers; needed: layers of alexnet or vgg16"),
    (lambda d: d["alexnet"]["layers"][1].update(layer="CONV9"), r"alexnet.layers\[1\].layer is 'CONV9'.*allowed: CONV1"),
    (lambda d: d["alexnet"]["layers"][1].update(dram_MB="4 MB"), "dram_MB.*4 MB"),
    (lambda d: d["alexnet"]["layers"][1].pop("dram_MB"), "missing required field dram_MB"),
    (lambda d: d["alexnet"]["layers"][1].update(processing_latency_ms=0), r"layers\[1\].processing_latency_ms is 0"),
    (lambda d: d["alexnet"]["layers"][1].update(zeros_in_ifmaps_percent=101), "zeros_in_ifmaps_percent is 101"),
    (lambda d: d["alexnet"].update(batch=0), "alexnet.batch is 0"),
])  # fmt: skip
def test_bad_files(tmp_path, edit, words):
    with pytest.raises(ValueError, match="changed.json.*" + words) as error:
        validate("eyeriss", changed(tmp_path, edit))
    assert "\n" not in str(error.value)


def test_there_is_nothing_to_calibrate():
    with pytest.raises(ValueError, match="eyeriss takes no parameters"):
        validate("eyeriss", FILE, "parameters.json")
