"""The kernel list of a decoder against the operator graph: the same multiply-accumulates, weights and caches, exactly."""

import pytest

import perfmodel as pm
from perfmodel.models import decoder, decoders
from perfmodel.serving._kernel_list import Attention, Gemm, Mixture, Slice, ends, kinds, layer
from perfmodel.serving._storage import device_kv_share, device_weight_bytes, kv_bytes_per_token, weight_bytes

MODELS = ("llama-2-7b", "llama-3-8b", "mistral-7b", "gpt2", "falcon-40b", "opt-13b", "bloom-176b", "mixtral-8x7b", "deepseek-v3",
          "sparse-gpt-13b", "gpt3-175b")  # fmt: skip
POINTS = (("prefill", 3, 20, 0), ("prefill", 1, 5000, 0), ("decode", 1, 1, 100), ("decode", 5, 1, 4999))


def kernels(name: str, phase: str, batch: int, tokens: int, context: int, at=None):
    spec = decoder(name).spec
    density = 0.125 if name.startswith("sparse") else 1.0
    at = at or Slice(float(batch), float(tokens), float(context))
    found = []
    for count, window, experts in kinds(spec):
        each = layer(spec, at, window=window, experts=experts, absorb=phase == "decode", density=density)
        found += [(kernel, count) for kernel in each]
    return found + [(kernel, 1) for kernel in ends(spec, at)]


def macs(found) -> float:
    return float(sum(count * k.macs for k, count in found if isinstance(k, Gemm | Mixture | Attention)))


def graph(name: str, phase: str, batch: int, tokens: int, context: int):
    options = dict(dtype="bf16", kv_cache=True, lm_head=True, all_logits=False) if name.startswith("gpt2") else {}
    return pm.models.load(name, phase=phase, batch=batch, seq_len=tokens, context=context, **options)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("phase, batch, tokens, context", POINTS)
def test_macs_and_weights_are_those_of_the_operator_graph(x64, name, phase, batch, tokens, context):
    if decoder(name).limit and tokens + context > decoder(name).limit:
        tokens, context = min(tokens, 1000), min(context, 1000)
    workload = graph(name, phase, batch, tokens, context)
    found = kernels(name, phase, batch, tokens, context)
    assert macs(found) == workload.macs
    read = sum(count * k.weight_elements for k, count in found if isinstance(k, Gemm | Mixture))
    is_product = (workload.operators.is_matrix > 0) & (workload.operators.weight_elements > 0)
    assert float(read) == float((workload.operators.weight_elements * is_product).sum())


@pytest.mark.parametrize("name", [n for n in decoders() if n in pm.models.names()])
def test_stored_weights_and_cache_are_those_of_the_operator_graph(x64, name):
    options = dict(dtype="bf16", lm_head=True) if name.startswith("gpt2") else {}
    workload = pm.models.load(name, phase="decode", batch=1, seq_len=1, context=8, **options)
    model = decoder(name)
    density = 0.125 if name.startswith("sparse") else 1.0
    assert (
        float(weight_bytes(model.spec, 2.0, 2.0, density=density, extra_parameters=model.extra_parameters))
        == workload.weight_bytes
    )
    assert kv_bytes_per_token(model.spec, 2.0) == float(workload.kv_bytes_per_token[0])


@pytest.mark.parametrize("name", ["llama-2-70b", "mixtral-8x7b", "falcon-40b"])
def test_ranks_share_the_work_out(x64, name):
    spec = decoder(name).spec
    whole = macs(kernels(name, "decode", 4, 1, 100))
    part = macs(kernels(name, "decode", 4, 1, 100, Slice(4.0, 1.0, 100.0, tensor=4.0, expert_tensor=4.0)))
    router = (
        sum(spec.width * spec.experts.count * 4 for _ in range(spec.layers)) if spec.experts else 0
    )  # on every rank
    assert part - router == (whole - router) / 4


def test_least_and_most_of_a_device(x64):
    spec = decoder("llama-2-70b").spec
    whole = float(weight_bytes(spec, 2.0, 2.0))
    assert float(device_weight_bytes(spec, 2.0, 2.0)) == whole
    eighth = float(device_weight_bytes(spec, 2.0, 2.0, tensor=8.0))
    norms = (2 * spec.layers + 1) * spec.width * 2.0  # on every rank
    assert eighth == (whole - norms) / 8 + norms
    # eight KV heads: sixteen ranks keep each twice; ten stages of eight layers
    assert float(device_kv_share(spec, 8.0)) == 1 / 8 and float(device_kv_share(spec, 16.0)) == 1 / 8
    assert float(device_kv_share(spec, 1.0, 10.0)) == 1 / 10


def test_expert_ranks_hold_their_experts(x64):
    spec = decoder("mixtral-8x7b").spec
    experts = 32 * 8 * 3 * 4096 * 14336 * 2.0
    both = [
        float(device_weight_bytes(spec, 2.0, 2.0, tensor=8.0, **how))
        for how in ({"expert": 8.0}, {"expert_tensor": 8.0})
    ]
    assert both[0] == both[1]
    assert experts / 8 < both[0] < experts / 8 + 1e9


def test_window_limits_causal_work_by_hand():
    wide = Attention("a", 1.0, 4.0, 4.0, 1.0, 1.0, 1, 1, 2)
    assert float(wide.causal_macs) == 2 * (1 + 2 + 3 + 4)
    narrow = wide._replace(kv_len=2.0)  # a window of 2: 1 + 2 + 2 + 2
    assert float(narrow.causal_macs) == 2 * 7
    later = wide._replace(q_len=1.0, kv_len=7.0)
    assert float(later.causal_macs) == 2 * 7
