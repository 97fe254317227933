"""`serve` on one device against `evaluate`: decode and prefill, every precision of weights, activations and caches."""

import json

import pytest

import perfmodel as pm
from perfmodel.serving import Request, answer
from search import cli

FORMATS = [
    {},
    {"dtype": "fp8"},
    {"weight_dtype": "int8"},
    {"weight_dtype": "int4", "kv_dtype": "fp8"},
    {"dtype": "int4"},
    {"dtype": "bf16", "weight_dtype": "int4", "head_dtype": "bf16"},
]


def served_s(name: str, system, phase: str, batch: int, context: int, **formats) -> float:
    request = Request(name, phase=phase, batch=batch, context=context, tensor_parallel=1, **formats)
    told = answer(request, system)
    return told["tpot_s" if phase == "decode" else "ttft_s"]


@pytest.mark.parametrize("system", ["a100-80gb", "h100-80gb"])
@pytest.mark.parametrize(
    "phase, batch, context", [("decode", 1, 1024), ("decode", 7, 77), ("prefill", 1, 100), ("prefill", 3, 1001)]
)
@pytest.mark.parametrize("formats", FORMATS, ids=lambda f: "-".join(f.values()) or "bf16")
def test_a_pass_of_a_llama(latency, loaded, agree, system, phase, batch, context, formats):
    machine = pm.systems.load(system)
    plain = latency(loaded("llama-2-7b", phase, batch, context, **formats), machine)
    agree(served_s("llama-2-7b", machine, phase, batch, context, **formats), plain)


@pytest.mark.parametrize(
    "name, batch, context",
    [("gpt2", 2, 300), ("mistral-7b", 1, 6000), ("mixtral-8x7b", 8, 100), ("falcon-40b", 3, 200)],
)
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_every_kind_of_layer(latency, loaded, agree, name, phase, batch, context):
    """Learned and rotary positions, grouped heads, windows narrower than the queries, experts, attention beside the MLP."""
    machine = pm.systems.load("a100-80gb")
    plain = latency(loaded(name, phase, batch, context), machine)
    agree(served_s(name, machine, phase, batch, context), plain)


@pytest.mark.xfail(
    strict=True, reason="serve takes the products of the heads' latents as one product of all their columns"
)
def test_latent_attention(latency, loaded, agree):
    machine = pm.systems.load("a100-80gb")
    agree(served_s("deepseek-v3", machine, "decode", 8, 100), latency(loaded("deepseek-v3", "decode", 8, 100), machine))


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_both_commands_say_the_same_number(capsys, monkeypatch, agree, phase):
    """With no other option: what is launched together is the machine's, stated in its file."""
    monkeypatch.setenv("PERFMODEL_NO_CACHE", "1")
    said = ["--system", "a100-80gb", "--phase", phase, "--context", "1024", "--json"]
    key = "tpot_s" if phase == "decode" else "ttft_s"
    assert cli.main(["serve", "--model", "llama-2-7b", *said]) == 0
    served = json.loads(capsys.readouterr().out)[key]
    assert cli.main(["evaluate", "--workload", "llama-2-7b", *said]) == 0
    agree(json.loads(capsys.readouterr().out)["latency_s"], served)


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="serve has a roofline of its own for machines without fitted kernels"
)
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_a_machine_without_fitted_kernels(latency, loaded, agree, phase):
    machine = pm.systems.load("sn40l")
    agree(served_s("gpt2", machine, phase, 1, 512), latency(loaded("gpt2", phase, 1, 512), machine))
