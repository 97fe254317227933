"""`perfmodel serve`: keys of the contract, bad input, what does not fit."""

import json

import pytest

import perfmodel as pm
from perfmodel.cost import machine
from perfmodel.models import decoder
from perfmodel.serving import Request, checked
from search.cli import main

KEYS = {
    "ttft_s",
    "tpot_s",
    "tokens_per_s",
    "mbu",
    "mfu",
    "weight_bytes",
    "kv_cache_bytes",
    "kv_bytes_per_token",
    "fits",
}


def run(capsys, *words: str) -> dict:
    assert main(["serve", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_keys_of_both_phases(capsys):
    decode = run(
        capsys,
        "--model",
        "llama-2-7b",
        "--system",
        "a100-80gb",
        "--phase",
        "decode",
        "--batch",
        "2",
        "--context",
        "512",
    )
    assert KEYS <= set(decode) and decode["ttft_s"] is None and decode["fits"] is True
    assert decode["tokens_per_s"] == pytest.approx(2 / decode["tpot_s"])
    assert (decode["kv_bytes_per_token"], decode["kv_cache_bytes"]) == (524288, 2 * 512 * 524288)
    prefill = run(
        capsys,
        "--model",
        "llama-2-7b",
        "--system",
        "a100-80gb",
        "--phase",
        "prefill",
        "--batch",
        "1",
        "--context",
        "512",
    )
    assert (
        KEYS <= set(prefill)
        and prefill["tpot_s"] is None
        and prefill["tokens_per_s"] == pytest.approx(512 / prefill["ttft_s"])
    )
    assert prefill["mfu"] > decode["mfu"] and prefill["mbu"] < decode["mbu"]


def test_formats_and_default_ranks(capsys):
    words = ("--model", "llama-3-8b", "--system", "dgx-h100", "--batch", "4", "--context", "1024")
    wide, narrow = run(capsys, *words), run(capsys, *words, "--dtype", "fp8", "--kv-dtype", "bf16")
    assert wide["tensor_parallel"] == 8
    assert narrow["weight_bytes"] * 2 == wide["weight_bytes"] and narrow["kv_cache_bytes"] == wide["kv_cache_bytes"]


def test_too_large_is_told_with_bytes_and_devices(capsys):
    told = run(capsys, "--model", "llama-2-70b", "--system", "a100-80gb", "--batch", "1", "--context", "1024")
    assert told["fits"] is False and told["least_devices"] == 2
    assert told["short_bytes"] == pytest.approx(
        told["weight_bytes"] + told["kv_cache_bytes"] + told["device_activation_bytes"] - 80e9
    )


def test_text_names_what_matters(capsys):
    assert main("serve --model gpt2 --system tpu-v4i --batch 2 --context 100".split()) == 0
    text = capsys.readouterr().out
    assert "time per token" in text and "KV cache a token" in text and "fits" in text


def test_speculative_decoding_and_directories(capsys):
    words = "--model tests/data/huggingface/llama-2-7b --system a100-80gb --context 100"
    plain = run(capsys, *words.split())
    free = run(capsys, *words.split(), "--draft-tokens", "3", "--acceptance", "1")
    assert free["tokens_per_step"] == 4 and free["tpot_s"] == pytest.approx(free["verify_s"] / 4)
    assert free["tpot_s"] < plain["tpot_s"] and plain["weight_bytes"] == 13476831232


def test_published_lengths(capsys):
    """Up to the published length and, if asked, beyond it."""
    words = "--model llama-2-7b --system a100-80gb --context".split()
    at_limit = run(capsys, *words, "4096")
    beyond = run(capsys, *words, "8192", "--context-limit", "0")
    assert beyond["kv_cache_bytes"] == 2 * at_limit["kv_cache_bytes"]


def test_default_context_is_what_the_model_allows():
    of, small, large = machine(pm.systems.load("a100-80gb")), decoder("gpt2"), decoder("llama-2-7b")
    for how, length in ((dict(phase="decode"), 1023), (dict(phase="decode", draft_tokens=3), 1020), (dict(phase="prefill"), 1024),
                        (dict(phase="mixed", new_tokens=24), 1000)):  # fmt: skip
        assert checked(Request("gpt2", **how), small, of).context == length
    assert checked(Request("llama-2-7b"), large, of).context == 1024
    assert checked(Request("llama-2-7b", context_limit=100), large, of).context == 100


def test_a_draft_takes_memory_time_and_energy(capsys):
    words = "--model llama-2-13b --system a100-40gb --context 1000 --batch 4 --draft-tokens 3".split()
    free = run(capsys, *words)
    told = run(capsys, *words, "--draft-model", "llama-2-7b")
    small = run(capsys, *"--model llama-2-7b --system a100-40gb --context 1000 --batch 4".split())
    assert told["device_weight_bytes"] == told["weight_bytes"] + small["weight_bytes"]
    assert told["weight_bytes"] == free["weight_bytes"]
    assert told["device_kv_bytes"] == free["device_kv_bytes"] + 4 * 1003 * small["kv_bytes_per_token"]
    assert not told["fits"] and free["fits"] and told["least_devices"] == 2
    step_s = 3 * told["draft_s"] + told["verify_s"]
    assert told["draft_s"] == pytest.approx(small["tpot_s"]) and told["verify_s"] == pytest.approx(free["verify_s"])
    assert told["tpot_s"] == pytest.approx(step_s / told["tokens_per_step"])
    assert told["power_w"] * step_s == pytest.approx(
        3 * small["power_w"] * small["tpot_s"] + free["power_w"] * free["verify_s"]
    )
    assert told["energy_j_per_token"] == pytest.approx(told["power_w"] / told["tokens_per_s"])
    for name in ("mbu", "mfu"):
        assert told[name] * step_s == pytest.approx(3 * small[name] * small["tpot_s"] + free[name] * free["verify_s"])
    assert sum(told["seconds"].values()) == pytest.approx(step_s)


@pytest.mark.slow
def test_idle_ranks_of_a_draft_draw_static_power(capsys):
    """A draft works on one stage of two: half of the devices wait."""
    words = "--model llama-2-70b --system dgx-a100 --context 500 --draft-tokens 2 --draft-model llama-2-7b"
    words += " --tensor-parallel 2 --pipeline-parallel 2"
    told = run(capsys, *words.split())
    small = run(capsys, *"--model llama-2-7b --system dgx-a100 --context 500 --tensor-parallel 2".split())
    free = run(capsys, *[w for w in words.split() if w not in ("--draft-model", "llama-2-7b")])
    step_s = 2 * small["tpot_s"] + free["verify_s"]
    idle_w = (told["power_w"] * step_s - free["power_w"] * free["verify_s"]) / (2 * small["tpot_s"]) - small["power_w"]
    static_w = 2 * float(machine(pm.systems.load("dgx-a100")).static_w)
    assert idle_w == pytest.approx(static_w, rel=1e-6)
    half = 2 * small["mbu"] * small["tpot_s"] / 2
    assert told["mbu"] * step_s == pytest.approx(half + free["mbu"] * free["verify_s"])


@pytest.mark.parametrize("words, told", [
    ("--batch 0", "batch is 0"),
    ("--context -1", "context is -1"),
    ("--phase train", "phase is 'train'"),
    ("--dtype fp9", "dtype is 'fp9'"),
    ("--weight-dtype bf17", "weight-dtype is 'bf17'"),
    ("--weight-dtype=", "weight-dtype is ''"),
    ("--kv-dtype int4-g32", "only weights"),
    ("--context 4097", "context is 4097; allowed: 1 to 4096 (as published"),
    ("--context 4000 --new-tokens 97 --phase mixed", "context + new-tokens is 4097"),
    ("--model tests/data/huggingface/llama-2-7b --context 5000", "allowed: 1 to 4096"),
    ("--context 200 --context-limit 100", "allowed: 1 to 100 (context-limit)"),
    ("--model gpt2 --context 1100 --context-limit 0", "allowed: 1 to 1024 (learned"),
    ("--draft-tokens 2 --draft-model llama-3-8b", "draft-model llama-3-8b has 128,256 tokens in its vocabulary, llama-2-7b 32,000"),
    ("--model gpt3-175b --draft-tokens 2 --draft-model gpt2 --context 1030", "gpt2: context + new tokens is 1033"),
    ("--model=", "model is ''"),
    ("--model mamba-2.8b", "model is 'mamba-2.8b', no Transformer decoder; allowed: bloom"),
    ("--tensor-parallel 0", "tensor-parallel is 0"),
    ("--tensor-parallel 2", "tensor-parallel is 2; allowed: 1 to 1"),
    ("--pipeline-parallel 2", "no way to others"),
    ("--expert-parallel 2", "no experts"),
    ("--data-parallel 2 --system dgx-a100", "allowed: 1 to 1, the batch"),
    ("--draft-model gpt2", "draft-tokens"),
    ("--acceptance 2 --draft-tokens 2", "acceptance is 2"),
    ("--kv-tier disk", "tier is 'disk'"),
    ("--pim", "no memory tier"),
    ("--parameters nowhere.json", "nowhere.json"),
    ("--model gpt2 --context 1024", "context + new tokens is 1025; allowed: 1 to 1024"),
    ("--model gpt3-175b --phase prefill --context 4096", "allowed: 1 to 2048"),
    ("--model resnet50", "model is 'resnet50'"),
    ("--system a100", "a100"),
])  # fmt: skip
def test_bad_input_is_one_line(capsys, words, told):
    base = {"--model": "llama-2-7b", "--system": "a100-80gb"}
    given = words.split()
    for flag, value in base.items():
        given += [] if flag in [word.split("=")[0] for word in given] else [flag, value]
    assert main(["serve", *given]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
