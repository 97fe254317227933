"""A composition of experts: an expert's request and its switch against `evaluate`."""

import numpy as np

import perfmodel as pm
from perfmodel.experts import ExpertService


def service(system) -> ExpertService:
    return ExpertService(system, experts=4, expert_model="gpt2", batch=1, prompt=128, new_tokens=3, dtype="bf16")


def test_a_request_is_a_prefill_and_its_decodes(latency, loaded, agree):
    """Decode is taken in the middle of the answer, in which a pass is affine in its context: here the middle of two passes."""
    system = pm.systems.load("a100-80gb")
    times = service(system).expert_times
    agree(float(times.prefill_s), latency(loaded("gpt2", "prefill", 1, 128), system))
    agree(float(times.decode_s), latency(loaded("gpt2", "decode", 1, 129), system))


def test_a_switch_is_a_copy_of_the_weights(loaded, agree):
    """The bytes that `evaluate` stores, over the bandwidth of the tier that they come from, after its latency."""
    system = pm.systems.load("sn40l")
    workload = loaded("gpt2", "decode", 1, 130)
    memory = system.memory
    switch = float(memory.latency_s[-1]) + workload.weight_bytes / float(np.asarray(memory.copy_bytes_per_s)[-1])
    agree(float(service(system).plan.switch_s), switch)
