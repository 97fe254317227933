"""Specification sheets of GPUs."""

import numpy as np
import pytest

from perfmodel.hardware import gpu, gpu_names, stack_gpus


@pytest.mark.parametrize("name, operations_a_cycle", [
    ("A100-SXM-80GB", 2048), ("H100-SXM-80GB", 4096), ("L40S", 1024), ("A40-48GB", 1024), ("B200-SXM", 8192), ("MI210", 1024),
])  # fmt: skip
def test_peak_is_multiprocessors_times_operations_times_clock(name, operations_a_cycle):
    one = gpu(name)
    peak = float(one.multiprocessors * one.clock_hz) * operations_a_cycle
    assert peak == pytest.approx(float(one.peak_16bit_ops_per_s), rel=0.01)


def test_numbers_of_the_sheet():
    one = gpu("H100-SXM-80GB")
    assert (float(one.peak_16bit_ops_per_s), float(one.dram_bytes_per_s)) == (989e12, 3350e9)
    assert (float(one.link_bytes_per_s), float(one.multiprocessors), float(one.tdp_w)) == (450e9, 132, 700)


def test_every_number_is_positive_but_flags():
    for name in gpu_names():
        one = gpu(name)
        flags = {"tensor_copies", "host_link", "switch_reduces"}
        for field in one.__dataclass_fields__:
            value = float(getattr(one, field))
            assert value in (0, 1) if field in flags else value > 0, (name, field)


def test_unknown_name_says_what_is_near():
    with pytest.raises(ValueError, match="H100-SXM-80GB"):
        gpu("H100-SXM-80G")


def test_stack_is_one_leaf_a_name():
    both = stack_gpus(["L40S", "A100-SXM-80GB", "L40S"])
    np.testing.assert_allclose(both.dram_bytes_per_s, [864e9, 2039e9, 864e9], rtol=1e-6)
