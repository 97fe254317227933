"""A placement's makespan against the latency of `evaluate` under the same assignment and order.

The placement problem has no buffers, no power, and no memory queue: it is compared where none of that says anything, on GPUs, whose
kernels hold their memory traffic, with one device's worth of work each."""

import numpy as np

import perfmodel as pm
from perfmodel.workload import lower
from search.placement import from_workload, timeline


def test_everything_on_one_device(loaded, agree, latency):
    system = pm.systems.load("a100-80gb")
    workload = lower(loaded("gpt2", "decode", 1, 64), system.software)
    problem = from_workload(workload, system)
    found = timeline(problem, np.zeros(workload.n_operators, int))
    agree(float(found.makespan), latency(loaded("gpt2", "decode", 1, 64), system))
