"""A model at any batch and context: against `load` at integers, against formulas worked out by hand and central differences between."""

import dataclasses
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.workload import fold

IMPORTED = Path(__file__).parents[1] / "data" / "huggingface"
LENGTH = {"decode": "context", "prefill": "seq_len", "train": "seq_len"}
# batches and lengths: one sequence, few and many tokens, both sides of windows, experts idle, alike and unlike
POINTS = [(1, 1), (2, 24), (17, 33), (128, 77), (64, 1000), (9, 4096), (5, 9001)]
UNLIKE = [
    ("gpt2", "decode"), ("llama-2-7b", "prefill"), ("mistral-7b", "decode"), ("gemma-2-9b", "prefill"),  # plain; windows, alternating ones
    ("mixtral-8x7b", "decode"), ("deepseek-v2-lite", "decode"), ("deepseek-v2-lite", "prefill"),  # experts, latents
    ("falcon-7b", "decode"), ("gemma-2b", "decode"), ("qwen3-0.6b", "decode"),  # parallel, one head of keys, grouped heads
    ("mamba-130m", "decode"), ("llava-1.5-7b", "prefill"), ("bert-base", "prefill"),
    ("clip-vit-base-patch32", "prefill"), ("gpt2", "train"),
]  # fmt: skip


def named(name: str) -> str:
    """The model of the zoo, or the configuration of that name (`huggingface/...`: that one, whatever the zoo has)."""
    imported = IMPORTED / name.removeprefix("huggingface/")
    return name if name in pm.models.names() else str(imported)


@cache
def family(name: str, phase: str = "decode", **options):
    return pm.models.family(named(name), phase=phase, **options)


def loaded(name: str, phase: str, batch: int, length: int, **options):
    return pm.models.load(named(name), phase=phase, batch=batch, **{LENGTH[phase]: length}, **options)


def points(name: str, phase: str):
    """Those of POINTS that the model allows, with the workload there."""
    for batch, length in POINTS:
        try:
            yield batch, length, loaded(name, phase, batch, length)
        except ValueError as error:
            assert "positions" in str(error)


def fields(w) -> dict:
    own = {f"operators.{f.name}": getattr(w.operators, f.name) for f in dataclasses.fields(w.operators)}
    return own | {f.name: getattr(w, f.name) for f in dataclasses.fields(w) if f.name != "operators"}


def assert_same(got, want):
    """Field by field, of the same dtype and shape, to the last bit."""
    others = fields(want)
    for name, value in fields(got).items():
        other = others[name]
        if isinstance(other, np.ndarray):
            assert isinstance(value, np.ndarray) and value.dtype == other.dtype, name
            np.testing.assert_array_equal(value, other, err_msg=name)
        else:
            assert value == other, name


def assert_close(got, want, rtol):
    """By value; of rows that are counted (experts that nobody is at have a row in a trace)."""
    others, rows = fields(want), np.ones(got.n_operators, bool) if got.count is None else np.asarray(got.count) > 0
    edges = rows[got.source] & rows[got.target]
    for name, value in fields(got).items():
        value, other = np.asarray(value) if hasattr(value, "shape") else value, others[name]
        whole = rows.all() or name not in (
            "inputs",
            "input_bytes",
            "input_last",
            "input_slot",
            "slot",
            "source",
            "target",
        )
        if name in ("names", "n_slots", "count") or not whole:
            continue
        if isinstance(other, np.ndarray):
            of = edges if name == "edge_bytes" else rows if value.shape == rows.shape else slice(None)
            np.testing.assert_allclose(value[of], other, rtol=rtol, err_msg=name)
        else:
            assert value == other, name


def check(name: str, phase: str, *, double: bool = False):
    at, seen = family(name, phase), 0
    traced = jax.jit(at)
    for batch, length, want in points(name, phase):
        assert_same(at(batch, length), want)
        assert_close(traced(float(batch), float(length)), want, 1e-6)
        if double:
            with jax.enable_x64(True):
                assert_close(at(jnp.asarray(float(batch)), jnp.asarray(float(length))), want, 1e-13)
        seen += 1
    assert seen >= 4


@pytest.mark.parametrize("name, phase", UNLIKE)
def test_equals_load_at_integers(name, phase):
    check(name, phase)


def everything():
    decoders = sorted({*pm.models.decoders()} & {*pm.models.names()} | {"mamba-130m", "mamba-2.8b"})
    imported = sorted(f"huggingface/{path.name}" for path in IMPORTED.iterdir() if path.is_dir())
    return [(name, phase) for name in (*decoders, *imported) for phase in ("decode", "prefill")]


@pytest.mark.slow
@pytest.mark.parametrize("name, phase", everything())
def test_every_decoder_and_every_imported_configuration(name, phase):
    try:
        loaded(name, phase, 1, 1)
    except ValueError as error:
        assert phase == "decode" and "whole" in str(error)  # of encoders
        with pytest.raises(ValueError, match="whole"):
            family(name, phase)
        return
    check(name, phase, double=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mamba-2.8b", "opt-350m"], ids="sample-{}".format)
def test_every_phase(name):
    for phase in LENGTH:
        check(name, phase, double=True)


def test_options_are_those_of_load():
    options = dict(seq_len=5, dtype="fp8", kv_dtype="bf16", weight_dtype="int4", head_dtype="bf16", all_logits=True)
    at = pm.models.family("mistral-7b", phase="decode", **options)
    for context in (0, 1, 4090, 4091, 4092, 4095, 4096, 9000):  # five new tokens enter the window one after another
        assert_same(at(3, context), pm.models.load("mistral-7b", phase="decode", batch=3, context=context, **options))
    chunk = pm.models.family("mistral-7b", phase="prefill", context=4000)
    for length in (1, 95, 96, 97, 5000):
        assert_same(chunk(2, length), pm.models.load("mistral-7b", batch=2, seq_len=length, context=4000))


def test_a_window_of_learned_positions_ends_as_load_does():
    at = family("gpt2")
    assert_same(at(2, 1023), loaded("gpt2", "decode", 2, 1023))
    with pytest.raises(ValueError, match="allowed: 1 to 1024"):
        at(2, 1024)


# What is known by hand: llama-2-7b has 32 layers of width 4096 and hidden 11008, 32,000 words.
WEIGHTS = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
KV_BYTES = 32 * 2 * 4096 * 2  # bf16


def macs(w):
    count = 1.0 if w.count is None else w.count
    return jnp.sum(w.operators.macs * count)


def kv_bytes(w):
    return jnp.sum(w.kv_bytes_per_token * w.kv_tokens)


def test_decode_of_llama_by_hand(x64):
    at = family("llama-2-7b")
    w = at(jnp.asarray(4.5), jnp.asarray(1000.25))
    assert float(macs(w)) == pytest.approx(4.5 * (WEIGHTS + 32 * 2 * 4096 * 1001.25), rel=1e-14)
    assert float(kv_bytes(w)) == pytest.approx(4.5 * 1001.25 * KV_BYTES, rel=1e-14)
    found = jax.grad(lambda b, c: macs(at(b, c)), (0, 1))(4.5, 1000.25)
    np.testing.assert_allclose(found, (WEIGHTS + 32 * 2 * 4096 * 1001.25, 4.5 * 32 * 2 * 4096), rtol=1e-14)
    np.testing.assert_allclose(
        jax.grad(lambda b, c: kv_bytes(at(b, c)), (0, 1))(4.5, 1000.25),
        (1001.25 * KV_BYTES, 4.5 * KV_BYTES),
        rtol=1e-14,
    )


@pytest.mark.parametrize("name, phase, at_points", [
    ("mistral-7b", "decode", [(3.0, 100.5), (3.0, 5000.5)]), ("mistral-7b", "prefill", [(1.5, 100.0), (2.0, 5000.0)]),
    ("mixtral-8x7b", "decode", [(1.25, 60.0), (8.0, 60.0), (9.5, 60.0)]), ("deepseek-v2-lite", "prefill", [(2.0, 4.0), (3.0, 64.0)]),
    ("mamba-130m", "decode", [(2.0, 7.0)]), ("gemma-2b", "decode", [(1.5, 7.0), (2.5, 7.0)]),
])  # fmt: skip
def test_gradients_are_central_differences(name, phase, at_points, x64):
    at, step = family(name, phase), 1e-4

    def amounts(b, c):
        w = at(b, c)
        count = 1.0 if w.count is None else w.count
        written = jnp.sum(w.outside_out_bytes * count)
        return jnp.stack(
            [macs(w), kv_bytes(w), jnp.sum(w.operators.weight_elements * count), jnp.sum(w.live_bytes * count), written]
        )

    of = jax.jit(amounts)
    slope = jax.jit(jax.jacfwd(amounts, (0, 1)))
    for b, c in at_points:
        by_batch, by_length = slope(b, c)
        # live bytes of experts move with the two loads, which derivatives take as one: those alone are left out
        some = slice(None) if at(b, c).count is None else np.asarray([0, 1, 2, 4])
        expected = (of(b + step, c) - of(b - step, c)) / (2 * step)
        np.testing.assert_allclose(by_batch[some], expected[some], rtol=1e-6, atol=1e-3)
        expected = (of(b, c + step) - of(b, c - step)) / (2 * step)
        np.testing.assert_allclose(by_length[some], expected[some], rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("name", ["mixtral-8x7b", "gemma-2b"])
def test_one_call_for_many_points_is_a_loop(name):
    at = family(name, fold=True)
    batch, context = jnp.asarray([1.0, 2, 3.5, 8, 9, 64, 65]), jnp.asarray([0.0, 1, 9, 4095, 4096.5, 8000, 131072])
    many = jax.jit(jax.vmap(at))(batch, context)
    for i, each in enumerate(zip(batch, context, strict=True)):
        one = at(*each)
        for x, alone in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
            varies = x.ndim > alone.ndim or x.shape[0] != alone.shape[0]
            np.testing.assert_allclose(x[i] if varies else x, alone, rtol=3e-7)


def test_what_does_not_depend_on_them_stays_as_it_is():
    w = jax.eval_shape(lambda b, c: jax.tree.map(jnp.asarray, family("llama-2-7b")(b, c)), 1.0, 1.0)
    assert w.operators.p.dtype == jnp.float32 and w.operators.kind.dtype == jnp.int32
    w = family("llama-2-7b")(jnp.asarray(2.0), jnp.asarray(3.0))
    assert isinstance(w.operators.parameters, np.ndarray) and isinstance(w.inputs, np.ndarray)
    assert isinstance(w.operators.p, jax.Array)


def equations(jaxpr) -> int:
    return sum(1 + sum(equations(p.jaxpr) for p in e.params.values() if hasattr(p, "jaxpr")) for e in jaxpr.eqns)


def test_programs_stay_small_whatever_the_model():
    sizes = {}
    for name in ("llama-2-7b", "llama-3-405b", "mixtral-8x7b"):
        jaxpr = jax.make_jaxpr(family(name))(1.0, 1.0)
        assert "callback" not in str(jaxpr)
        sizes[name] = equations(jaxpr.jaxpr)
    assert sizes["llama-2-7b"] == sizes["llama-3-405b"] < 100 and sizes["mixtral-8x7b"] < 250


@pytest.mark.parametrize("name, phase, ends", [
    ("llama-2-7b", "decode", 0), ("mixtral-8x7b", "decode", 0), ("mixtral-8x7b", "decode", 1), ("gemma-2-9b", "prefill", 0),
    ("mamba-130m", "prefill", 1), ("llava-1.5-7b", "prefill", 0),
])  # fmt: skip
def test_folded_families_are_folded_workloads(name, phase, ends):
    at, whole = family(name, phase, fold=True, ends=ends), family(name, phase)
    for batch, length in ((1, 5000), (4, 5001), (9, 7001)):
        want = fold(whole(batch, length), ends=ends)
        assert want.n_operators < whole(batch, length).n_operators / 5 or ends
        assert_same(at(batch, length), want)
        got = at(jnp.asarray(float(batch)), jnp.asarray(float(length)))
        counted = np.asarray(got.count) > 0
        np.testing.assert_array_equal(np.asarray(got.count)[counted], want.count)
        assert_close(got, want, 1e-6)


def test_alternating_windows_are_no_equal_layers_where_both_are_within():
    assert (
        fold(loaded("gemma-2-9b", "decode", 1, 100)).n_operators < family("gemma-2-9b", fold=True)(1, 100).n_operators
    )


def test_integers_of_experts_are_exact_beyond_float32():
    at = family("mixtral-8x7b", "prefill")
    batch, length = 1023, 65537  # 134 million pairs, 2^27
    want = loaded("mixtral-8x7b", "prefill", batch, length)
    assert_close(at(jnp.asarray(batch), jnp.asarray(length)), want, 1e-6)


@given(st.integers(1, 4096), st.integers(0, 2047))
@settings(max_examples=15)
def test_any_integers(batch, context):
    assert_same(family("opt-350m")(batch, min(context, 2047)), loaded("opt-350m", "decode", batch, min(context, 2047)))


@given(st.integers(1, 300), st.integers(1, 4000))
@settings(max_examples=15)
def test_loads_of_any_integers(batch, length):
    """Tokens at experts add up, no expert has two more than another, and weights are those of experts at work."""
    at = family("mixtral-8x7b", "prefill").leaves.pieces.traced(batch, length)
    pairs, n = 2 * batch * length, {name: int(value) for name, value in at.items() if name != "nobody"}
    assert n["more"] * n["more_tokens"] + n["fewer"] * n["fewer_tokens"] == pairs
    assert n["more_tokens"] == n["fewer_tokens"] + 1 and n["more"] + n["fewer"] == min(8, pairs)
    assert (float(at["nobody"]) == 1) == (n["more"] == 0)


@pytest.mark.parametrize("call, said", [
    (lambda: pm.models.family("llama-2-7c"), "did you mean llama-2-7b"),
    (lambda: pm.models.family("llama-2-7b", phase="decoding"), "llama-2-7b: phase is 'decoding'"),
    (lambda: pm.models.family("llama-2-7b", batch=3), "llama-2-7b: batch is 3; a family is called with it"),
    (lambda: pm.models.family("llama-2-7b", context=3), "llama-2-7b: context is 3; a family is called with it"),
    (lambda: pm.models.family("llama-2-7b", sequence=3), "llama-2-7b: option is 'sequence'"),
    (lambda: pm.models.family("mixtral-8x7b", imbalance=1.5), "mixtral-8x7b: imbalance is 1.5"),
    (lambda: pm.models.family("mixtral-8x7b", phase="train"), "mixtral-8x7b: phase is 'train'"),
    (lambda: pm.models.family("resnet50", phase="decode"), "resnet50: phase is 'decode'"),
    (lambda: family("gpt2")(1), "context is missing"),
    (lambda: family("resnet50", "prefill")(1, 7), "context is given"),
    (lambda: family("gpt2")(jnp.ones(3), 7.0), "batch has shape (3,); allowed: a scalar"),
    (lambda: family("gpt2")(0, 7), "batch is 0; allowed"),
    (lambda: family("gpt2")(1, -7), "context is -7; allowed"),
    (lambda: family("gpt2")(True, 7), "batch is True; allowed"),
    (lambda: family("gpt2")(2**28, 7), "allowed: an integer from 1 to 2147483647"),
])  # fmt: skip
def test_bad_calls(call, said):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_model_without_sequences_is_called_with_a_batch():
    at = family("resnet50", "prefill")
    assert_same(at(5), pm.models.load("resnet50", batch=5))
    assert_close(at(jnp.asarray(5.0)), pm.models.load("resnet50", batch=5), 1e-6)


@pytest.mark.slow
def test_evaluated_in_a_trace_sample(mcm):
    """The evaluator takes traced sizes: value at integers, and slopes by batch, context and hardware."""
    at = family("gpt2", fold=True)
    schedule = pm.Schedule.on_chiplet(at(1, 1), 0)

    def latency(batch, context, clock):
        chiplets = dataclasses.replace(mcm.chiplets, clock_hz=mcm.chiplets.clock_hz * clock)
        return pm.evaluate(at(batch, context), dataclasses.replace(mcm, chiplets=chiplets), schedule).latency_s

    value, slopes = jax.jit(jax.value_and_grad(latency, (0, 1, 2)))(3.0, 500.0, 1.0)
    assert float(value) == pytest.approx(float(pm.evaluate(at(3, 500), mcm, schedule).latency_s), rel=1e-5)
    assert np.isfinite(slopes).all() and slopes[0] > 0 and slopes[1] > 0 and slopes[2] <= 0
