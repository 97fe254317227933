"""A language model in service: golden values by hand, an oracle, gradients, jit, vmap, and what must always hold."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.cost import formats, gemm_s, machine
from perfmodel.models import decoder
from perfmodel.serving import Library, Point, accepted_tokens, serve, speculative_tpot_s
from perfmodel.serving._kernel_list import Attention, Collective, Gemm, Slice, ends, kinds, layer
from perfmodel.serving._kernel_time import kernel_seconds, work


def point(**values) -> Point:
    return Point(**{name: jnp.asarray(value, float) for name, value in (Point()._asdict() | values).items()})


def served(
    name: str, system: str, phase: str = "decode", dtype: str = "bf16", of=None, how: dict | None = None, **values
):
    of = of or machine(pm.systems.load(system))
    model = decoder(name)
    formed, density = formats(of, dtype, model.weights or None)
    return serve(of, model, formed, point(**values), phase=phase, density=density, **(how or {}))


@pytest.mark.parametrize(
    "name, kib", [("llama-2-7b", 512), ("llama-2-13b", 800), ("llama-2-70b", 320), ("llama-3-8b", 128)]
)
def test_published_cache_sizes(x64, name, kib):
    found = served(name, "a100-80gb", dtype="fp16", context=2048, batch=3)
    assert float(found.kv_bytes_per_token) == kib * 1024
    assert float(found.kv_cache_bytes) == 3 * 2048 * kib * 1024


def test_13b_on_a_40_gb_gpu(x64):
    """PagedAttention, figure 1: 26 GB, 65 % of the memory; the rest holds about 15 thousand tokens, 7 requests of 2048."""
    found = served("llama-2-13b", "a100-40gb", context=2048)
    assert round(float(found.weight_bytes) / 1e9) == 26
    assert round(float(found.weight_bytes) / 40e9, 2) == 0.65
    assert float(found.fits) == 1 and 7 <= float(found.largest_batch) <= 8


def test_roofline_by_hand(x64):
    """GPT-2 in decode on a TPUv4i: every product reads its weights at the rate of the tiers that hold them."""
    of = machine(pm.systems.load("tpu-v4i"))
    found = served("gpt2", "tpu-v4i", dtype="bf16", context=10)
    weights = 124439808 * 2.0  # of which 128 MB in CMEM at 2000 GB/s, the rest in HBM at 614
    cmem = 128e6 - 0.0
    per_byte = (cmem / 2000e9 + (weights - cmem) / 614e9) / weights
    read = weights - 1024 * 768 * 2.0 - 12 * 2 * 2 * 768 * 2.0 - 2 * 768 * 2.0  # not the positions nor the norms
    cache = 11 * 36864.0
    assert float(found.tpot_s) == pytest.approx(read * per_byte + cache / 614e9, rel=2e-3)
    assert float(found.mbu) == pytest.approx(1.0, abs=2e-3)
    assert of.devices == 1 and of.memory == 1


@pytest.mark.slow
def test_time_is_the_sum_of_its_kernels(x64):
    """An oracle that calls the kernels one by one."""
    of, model = machine(pm.systems.load("dgx-a100")), decoder("llama-2-7b")
    formed, _ = formats(of, "bf16")
    at = Slice(4.0, 1.0, 500.0, tensor=2.0)
    total = 0.0
    for count, window, experts in kinds(model.spec):
        found = layer(model.spec, at, window=window, experts=experts, decode=True, absorb=True)
        for kernel, seconds in zip(found, kernel_seconds(of, formed, Library(), found), strict=True):
            if isinstance(kernel, Gemm):
                assert float(seconds) == pytest.approx(
                    float(gemm_s(formed.constants, of.gpu, kernel.m, kernel.n, kernel.k)), rel=1e-6
                )
            if isinstance(kernel, Collective):
                assert float(seconds) == pytest.approx(float(of.collective_s("all_reduce", 4 * 4096 * 2.0, 2.0)))
            total += count * float(seconds)
    outer = ends(model.spec, at)
    total += sum(float(s) for s in kernel_seconds(of, formed, Library(), outer))
    assert float(served("llama-2-7b", "dgx-a100", batch=4, context=500, tensor=2).tpot_s) == pytest.approx(
        total, rel=1e-6
    )


def test_work_of_a_product_by_hand():
    of = machine(pm.systems.load("a100-80gb"))
    formed, _ = formats(of, "bf16", "int4-g32", "fp8")
    ops, weights, cache, moved, lanes = work(Gemm("g", 3.0, 5.0, 7.0), formed)
    assert (ops, float(weights), moved) == (2 * 105, 35 * 5 / 8, 3 * 12 * 2.0)
    cache = work(Attention("a", 2.0, 1.0, 10.0, 4.0, 1.0, 8, 8, 16), formed)[2]
    assert float(cache) == 2 * 10 * 16 * 1.0


@pytest.mark.parametrize("phase, system, name", [
    ("decode", "dgx-a100", "llama-2-7b"), ("prefill", "sn40l-node", "mistral-7b"),
    *(pytest.param(*each, marks=pytest.mark.slow) for each in (
        ("prefill", "dgx-a100", "llama-2-7b"), ("mixed", "dgx-a100", "llama-2-7b"), ("decode", "sn40l-node", "mistral-7b"))),
])  # fmt: skip
def test_gradients_are_central_differences(x64, phase, system, name):
    of, model = machine(pm.systems.load(system)), decoder(name)
    formed, _ = formats(of)
    at = point(batch=5, context=700, tokens=300, new_tokens=50, tensor=2)

    def seconds(logs):
        memory, link, peak = jnp.exp(logs)
        pairs = [
            (lambda m: m.tiers.bytes_per_s, memory),
            (lambda m: m.link_bytes_per_s, link),
            (lambda m: m.peak_ops_per_s, peak),
        ]
        if of.gpu is not None:
            pairs += [(lambda m: m.gpu.dram_bytes_per_s, memory), (lambda m: m.gpu.link_bytes_per_s, link)]
            pairs += [(lambda m: m.gpu.peak_16bit_ops_per_s, peak)]
        scaled = of
        for where, factor in pairs:
            scaled = eqx.tree_at(where, scaled, where(of) * factor)
        found = serve(scaled, model, formed, at, phase=phase)
        return jnp.log(found.ttft_s if phase == "prefill" else found.tpot_s)

    run = jax.jit(seconds)
    slope = np.asarray(jax.jit(jax.grad(seconds))(jnp.zeros(3)))
    step = 1e-5
    for i, e in enumerate(np.eye(3)):
        central = (float(run(step * e)) - float(run(-step * e))) / (2 * step)
        assert slope[i] == pytest.approx(central, abs=2e-6)
    assert np.all(slope <= 1e-9) and np.all(np.isfinite(slope))


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_gradient_of_the_batch_is_what_one_more_sequence_takes(x64, phase):
    """Whole sequences count as such, with the slope between them."""
    of, model = machine(pm.systems.load("sn40l")), decoder("llama-2-7b")
    formed, _ = formats(of)

    def seconds(batch):
        found = serve(
            of, model, formed, point(context=1000, tokens=500 if phase == "prefill" else 1, batch=batch), phase=phase
        )
        return found.ttft_s if phase == "prefill" else found.tpot_s

    run = jax.jit(jax.value_and_grad(seconds))
    (eight, slope), (nine, _) = run(jnp.asarray(8.0)), run(jnp.asarray(9.0))
    assert float(slope) == pytest.approx(float(nine - eight), rel=1e-3)
    assert float(run(jnp.asarray(8.5))[0]) == float(nine)


def test_bandwidth_of_the_memory_is_that_of_the_kernels(x64):
    of = machine(pm.systems.load("a100-80gb"))
    faster = eqx.tree_at(lambda m: m.tiers.bytes_per_s, of, of.tiers.bytes_per_s * 2)
    before, after = (served("llama-2-7b", "", of=x, context=2048, batch=4) for x in (of, faster))
    assert float(after.tpot_s) < 0.75 * float(before.tpot_s) and float(after.mbu) <= 1


@pytest.mark.parametrize("phase", ["decode", *(pytest.param(p, marks=pytest.mark.slow) for p in ("prefill", "mixed"))])
def test_jit_and_vmap(phase):
    of, model = machine(pm.systems.load("dgx-h100")), decoder("mixtral-8x7b")
    formed, _ = formats(of, "fp8")

    def run(batch, context, tensor):
        at = point(tokens=128, new_tokens=32)._replace(batch=batch, context=context, tensor=tensor)
        return serve(of, model, formed, at, phase=phase)

    batches, contexts = jnp.asarray([1.0, 2, 3, 7, 16, 33, 64]), jnp.asarray([1.0, 10, 100, 500, 1000, 2000, 4000])
    ranks = jnp.asarray([1.0, 2, 4, 8, 1, 2, 8])
    together = jax.jit(jax.vmap(run))(batches, contexts, ranks)
    alone = jax.jit(run)
    for i in range(7):
        for name, one, all_ in zip(together._fields, alone(batches[i], contexts[i], ranks[i]), together, strict=True):
            np.testing.assert_allclose(np.asarray(one), np.asarray(all_)[i], rtol=2e-5, err_msg=name)
    eager = run(batches[2], contexts[2], ranks[2])
    np.testing.assert_allclose(
        np.asarray(eager.energy_j_per_token), np.asarray(together.energy_j_per_token)[2], rtol=2e-5
    )


_OF = {}


def _faster(system: str, name: str, dtype: str):
    """(figures of batch, context, ranks, factor on memory bandwidth), compiled once."""
    if (system, name, dtype) not in _OF:
        of, model = machine(pm.systems.load(system)), decoder(name)
        formed, density = formats(of, dtype, model.weights or None)

        @jax.jit
        def run(batch, context, ranks, factor):
            scaled = eqx.tree_at(lambda m: m.tiers.bytes_per_s, of, of.tiers.bytes_per_s * factor)
            if of.gpu is not None:
                scaled = eqx.tree_at(lambda m: m.gpu.dram_bytes_per_s, scaled, of.gpu.dram_bytes_per_s * factor)
            return serve(scaled, model, formed, Point(batch, context, tensor=ranks), phase="decode", density=density)

        _OF[system, name, dtype] = run
    return _OF[system, name, dtype]


@pytest.mark.parametrize(
    "system, name, dtype", [("dgx-h100", "llama-3-8b", "fp8"), ("sn40l-node", "llama-2-70b", "bf16")]
)
@given(batch=st.integers(1, 256), context=st.integers(1, 30000), ranks=st.sampled_from([1, 2, 4, 8]))
def test_what_always_holds_in_decode(system, name, dtype, batch, context, ranks):
    run = _faster(system, name, dtype)
    here = run(float(batch), float(context), float(ranks), 1.0)
    assert 0 < float(here.mbu) <= 1.0001 and 0 < float(here.mfu) <= 1
    assert float(run(float(batch), float(context), float(ranks), 2.0).tpot_s) <= float(here.tpot_s) * (1 + 1e-6)
    assert float(run(float(batch), float(2 * context), float(ranks), 1.0).tpot_s) >= float(here.tpot_s) * (1 - 1e-6)
    assert float(here.tokens_per_s) == pytest.approx(batch / float(here.tpot_s), rel=1e-5)
    assert float(here.energy_j_per_token) > 0
    assert np.isnan(float(here.ttft_s))


def test_what_does_not_fit_is_short_of_bytes(x64):
    found = served("llama-2-70b", "a100-80gb", context=1000)
    need = float(found.device_weight_bytes + found.device_kv_bytes + found.device_activation_bytes)
    assert float(found.fits) == 0 and float(found.short_bytes) == pytest.approx(need - 80e9)
    assert float(found.largest_batch) == 0
    assert float(served("llama-2-70b", "dgx-a100", context=1000, tensor=2).fits) == 1


def test_weights_spill_to_the_socket_s_own_ddr(x64):
    fits = served("llama-3-70b", "sn40l", context=100)  # 141 GB, of which 64 GiB in HBM
    assert float(fits.fits) == 1
    outside = 141.1e9 - 64 * 2**30
    assert float(fits.tpot_s) > outside / 200e9  # at the rate of the DDR
    assert (
        float(served("llama-3-70b", "dgx-a100", context=100, tensor=1).fits) == 0
    )  # a host's memory is not the GPU's own
    assert float(served("llama-3-70b", "dgx-a100", context=100, tensor=1, how={"offload": True}).fits) == 1


def test_cache_behind_the_host_costs_its_link(x64):
    of = machine(pm.systems.load("dgx-a100"))
    near = served("llama-2-7b", "dgx-a100", batch=8, context=2000)
    far = served("llama-2-7b", "dgx-a100", batch=8, context=2000, how={"kv_tier": of.tier("host")})
    link = 32e9 / 8  # what the node's GPUs share
    moved = 8 * 2001 * 512 * 1024
    assert float(far.tpot_s - near.tpot_s) == pytest.approx(moved * (1 / link - 1 / 2039e9), rel=1e-6)


def test_pages_leave_half_a_block_empty(x64):
    plain, paged = (
        served("llama-2-7b", "a100-80gb", batch=4, context=1000, how={"block_tokens": b}) for b in (0.0, 16.0)
    )
    assert float(paged.device_kv_bytes - plain.device_kv_bytes) == 4 * 8 * 512 * 1024
    assert float(paged.tpot_s) == float(plain.tpot_s)


def test_processing_in_memory_by_hand(x64):
    of = machine(pm.systems.load("sn40l"))
    able = eqx.tree_at(lambda m: m.tiers.ops_per_s, of, of.tiers.ops_per_s.at[of.memory].set(20e12))
    values = dict(batch=1, context=4000)
    plain, inside = (
        served("llama-2-7b", "sn40l", of=able, how={"library": Library(pim=pim)}, **values) for pim in (False, True)
    )
    assert float(inside.busy_s[2]) == pytest.approx(
        32 * 4 * 4001 * 4096 / 20e12, rel=1e-6
    )  # two products of 4001 x 4096 a layer
    assert float(inside.tpot_s) < float(plain.tpot_s)


def test_pipelines_keep_the_time_of_one_sequence(x64):
    """One sequence passes all stages: longer by the way between them. Eight sequences fill the stages."""
    one, four = (served("llama-2-7b", "dgx-a100", context=500, pipeline=stages) for stages in (1, 4))
    assert float(four.tpot_s) == pytest.approx(float(one.tpot_s), rel=0.01) and float(four.tpot_s) > float(one.tpot_s)
    full = served("llama-2-7b", "dgx-a100", context=500, pipeline=4, batch=8)
    assert float(full.tokens_per_s) > 7 * float(four.tokens_per_s)


def test_chunks_cost_more_than_one_pass_and_less_memory(x64):
    values = dict(tokens=4096, batch=1)
    whole, cut = (served("llama-2-7b", "a100-80gb", "prefill", chunk=c, **values) for c in (0, 512))
    assert float(whole.ttft_s) < float(cut.ttft_s) < 1.5 * float(whole.ttft_s)
    assert float(cut.device_activation_bytes) < float(whole.device_activation_bytes)
    assert float(cut.kv_cache_bytes) == float(whole.kv_cache_bytes)


def test_continuous_batching_lies_between_its_parts(x64):
    """One prompt in three passes: 32 answers of 100 tokens."""
    values = dict(batch=32, tokens=500, new_tokens=100)
    mixed = served("llama-2-7b", "a100-80gb", "mixed", **values)
    decode = served("llama-2-7b", "a100-80gb", batch=32, context=549)
    prompt = served("llama-2-7b", "a100-80gb", "prefill", batch=1, tokens=500)
    assert float(decode.tpot_s) < float(mixed.tpot_s) < float(decode.tpot_s + 0.32 * prompt.ttft_s)
    assert float(prompt.ttft_s) < float(mixed.ttft_s) < float(decode.tpot_s + prompt.ttft_s)
    # the pass that carries a prompt in 32 % of all, plain decode in the others
    assert float(mixed.tpot_s) == pytest.approx(0.32 * float(mixed.ttft_s) + 0.68 * float(decode.tpot_s), rel=1e-9)


def test_chunks_of_prompts_pass_with_answers(x64):
    """Smaller chunks: shorter passes for the answers, a later first token, less memory; the same tokens in all."""
    values = dict(batch=8, tokens=4096, new_tokens=512)
    whole, cut = (served("llama-2-7b", "a100-80gb", "mixed", chunk=c, **values) for c in (0, 512))
    assert float(whole.ttft_s) < float(cut.ttft_s) < 2 * float(whole.ttft_s)
    assert float(cut.device_activation_bytes) < 0.3 * float(whole.device_activation_bytes)
    assert float(cut.tpot_s) == pytest.approx(float(whole.tpot_s), rel=0.1)
    assert float(cut.largest_batch) >= float(whole.largest_batch)
    lone = served("llama-2-7b", "a100-80gb", "mixed", batch=1, tokens=2048, new_tokens=256)
    prompt = served("llama-2-7b", "a100-80gb", "prefill", batch=1, tokens=2048)
    assert float(lone.ttft_s) == pytest.approx(float(prompt.ttft_s), rel=0.1)


def test_many_prompts_enter_where_many_answers_end(x64):
    """Answers of one token: every pass takes in as many prompts as it has answers; the first token comes after one pass."""
    found = served("llama-2-7b", "a100-80gb", "mixed", batch=16, tokens=100, new_tokens=1)
    prompts = served("llama-2-7b", "a100-80gb", "prefill", batch=16, tokens=100)
    assert float(found.ttft_s) == float(found.tpot_s) > float(prompts.ttft_s)


@pytest.mark.parametrize("phase", ["decode", "prefill", "mixed"])
def test_largest_batch_is_the_last_that_fits(x64, phase):
    values = dict(context=700, tokens=1 if phase == "decode" else 700, new_tokens=200)
    largest = float(served("llama-2-13b", "a100-40gb", phase, **values).largest_batch)
    fits = [float(served("llama-2-13b", "a100-40gb", phase, batch=largest + d, **values).fits) for d in (0, 1)]
    assert largest > 5 and fits == [1, 0]


def test_fused_conversion_takes_the_passes_away(x64):
    """Of four products in each of 32 layers, and the head: the converting pass, and what it adds to the launch of both."""
    values = dict(batch=4, context=500)
    apart, fused = (
        served("llama-2-7b", "h100-80gb", dtype="fp8", how={"library": Library(fused_conversion=f)}, **values)
        for f in (False, True)
    )
    of = machine(pm.systems.load("h100-80gb"))
    gpu: Any = of.gpu
    narrow, wide = (formats(of, dtype)[0].constants for dtype in ("fp8", "bf16"))
    each = float(narrow.quantise_cycles + narrow.launch_cycles - wide.launch_cycles) / float(gpu.clock_hz)
    assert float(apart.tpot_s - fused.tpot_s) == pytest.approx(129 * each, rel=0.05)
    assert float(fused.tpot_s) < float(served("llama-2-7b", "h100-80gb", **values).tpot_s)
    wide = [
        served("llama-2-7b", "h100-80gb", how={"library": Library(fused_conversion=f)}, **values) for f in (False, True)
    ]
    assert float(wide[0].tpot_s) == float(wide[1].tpot_s)


def test_speculative_decoding_by_hand():
    assert float(accepted_tokens(3.0, 0.5)) == pytest.approx(1 + 0.5 + 0.25 + 0.125)
    assert float(accepted_tokens(4.0, 0.0)) == 1 and float(accepted_tokens(4.0, 1.0)) == 5
    assert float(speculative_tpot_s(10e-3, 1e-3, 3.0, 0.5)) == pytest.approx(13e-3 / 1.875)
    assert np.isfinite(float(jax.grad(accepted_tokens, 1)(4.0, 1.0)))


def test_verifying_costs_little_more_than_a_token(x64):
    one, five = (served("llama-2-7b", "a100-80gb", context=500, tokens=t) for t in (1, 5))
    assert float(one.tpot_s) < float(five.tpot_s) < 1.3 * float(one.tpot_s)


def test_narrower_weights_are_faster_to_read(x64):
    times = [
        float(served("llama-2-70b", "dgx-h100", dtype=d, context=100, tensor=4).tpot_s) for d in ("bf16", "fp8", "int4")
    ]
    assert times[0] > times[1] > times[2]


def test_machines_of_one_kind_share_a_program():
    a, b = (machine(pm.systems.load(name)) for name in ("a100-80gb", "h100-80gb"))
    bare = [dataclasses.replace(m, name="", gpu_name="") for m in (a, b)]
    assert jax.tree.structure(bare[0]) == jax.tree.structure(bare[1])
