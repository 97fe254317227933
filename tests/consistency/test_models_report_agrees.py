"""`models NAME --system`: seconds and bound of each operator against the cost table and `evaluate`."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.report import workload_report


def test_operators_of_a_gpu(loaded, agree, latency):
    """Kernels' seconds hold their memory traffic: rows add up to the latency of a pass."""
    from perfmodel.workload import lower

    system = pm.systems.load("a100-80gb")
    workload = lower(loaded("gpt2", "decode", 2, 300), system.software)
    report = workload_report(workload, system)
    assert report.on is not None
    table = pm.cost_table(workload, system)
    agree(report.on.time_s, np.asarray(table.exec_s)[:, 0])
    agree(report.on.time_s.sum(), latency(loaded("gpt2", "decode", 2, 300), system))


@pytest.mark.xfail(
    strict=True, reason="the report has a roof of memory of its own: every operand of an operator, once, nothing held"
)
def test_operators_of_an_array(latency):
    system = pm.systems.load("monolithic-os")
    workload = pm.models.load("resnet50")
    report = workload_report(workload, system)
    assert report.on is not None and report.on.time_s.sum() == pytest.approx(latency(workload, system), rel=1e-6)
