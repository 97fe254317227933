"""A group of operators streamed on a divided fabric against `evaluate` with those edges fused."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.schedule import spatial
from perfmodel.workload import GraphBuilder, operator_row


def chain():
    """Two products and what is between them: one kernel, bound by memory."""
    graph = GraphBuilder("chain")
    up = graph.add("up", operator_row("gemm", k=4096, c=1024, p=64, bits=16), outside_bytes=64 * 1024 * 2.0)
    act = graph.add("act", operator_row("gelu", k=4096, p=64, bits=16), [up])
    graph.add("down", operator_row("gemm", k=1024, c=4096, p=64, bits=16), [act])
    return graph.build()


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="streamed groups have pipelines and memory of their own (schedule/spatial)",
)
def test_one_kernel_of_a_chain(agree):
    system, workload = pm.systems.load("sn40l"), chain()
    fabric, program = spatial.fabric(system), spatial.program(workload)
    run = spatial.execution(spatial.groups(program, [[0, 1, 2]]), fabric)
    schedule = pm.Schedule(np.zeros(3, np.int32), fusion=np.ones(2))
    agree(float(run.time_s), float(pm.evaluate(workload, system, schedule).latency_s))
