"""`serve` on several devices against `evaluate` of one rank's share: tensor, pipeline and expert parallel."""

import pytest

import perfmodel as pm
from perfmodel.serving import Request, answer
from perfmodel.workload import Ranks, shard, stages

pytestmark = pytest.mark.xfail(
    strict=True, reason="serve has slices of layers and a pipeline of its own, and no collective behind the token table"
)


def served_s(name: str, phase: str, **how) -> float:
    told = answer(Request(name, phase=phase, batch=8, context=512, **how), pm.systems.load("dgx-a100"))
    return told["tpot_s" if phase == "decode" else "ttft_s"]


def sharded(workload, **ranks):
    return shard(workload, Ranks(**ranks))


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_tensor_ranks(latency, loaded, agree, phase):
    """One of eight ranks with its collectives is the pass of all."""
    plain = latency(sharded(loaded("llama-2-7b", phase, 8, 512), tensor=8), pm.systems.load("dgx-a100"))
    agree(served_s("llama-2-7b", phase, tensor_parallel=8), plain)


def test_expert_ranks(latency, loaded, agree):
    plain = latency(sharded(loaded("mixtral-8x7b", "decode", 8, 512), tensor=8, expert=8), pm.systems.load("dgx-a100"))
    agree(served_s("mixtral-8x7b", "decode", tensor_parallel=8, expert_parallel=8), plain)


def test_pipeline_stages(latency, loaded, agree):
    """A micro-batch through both stages: what the bubble adds is the pipeline's own, and is nothing with one micro-batch."""
    cut = stages(loaded("llama-2-7b", "prefill", 1, 512), Ranks(pipeline=2))
    plain = sum(latency(stage, pm.systems.load("dgx-a100")) for stage in cut)
    request = Request("llama-2-7b", phase="prefill", batch=1, context=512, tensor_parallel=1, pipeline_parallel=2)
    agree(answer(request, pm.systems.load("dgx-a100"))["ttft_s"], plain)
