"""Dense decoders against counts of released checkpoints and against two-line formulas; what the KV cache is asked for."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.workload import KINDS

# Parameters of the released checkpoints; the same from the classes of transformers 5.23.0 on torch's meta device (no weights).
PARAMETERS = {
    "opt-13b": 12_853_473_280,
    "bloom-176b": 176_247_271_424,  # the model card's 176,247,271,424
    "falcon-40b": 41_303_293_952,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
}
# vocabulary, width, layers, heads, KV heads, head size, MLP units, MLP matrices
SHAPES = {
    "gpt3-175b": (50257, 12288, 96, 96, 96, 128, 4 * 12288, 2),
    "opt-13b": (50272, 5120, 40, 40, 40, 128, 20480, 2),
    "bloom-176b": (250880, 14336, 70, 112, 112, 128, 4 * 14336, 2),
    "falcon-40b": (65024, 8192, 60, 128, 8, 64, 4 * 8192, 2),
    "llama-2-7b": (32000, 4096, 32, 32, 32, 128, 11008, 3),
    "llama-2-13b": (32000, 5120, 40, 40, 40, 128, 13824, 3),
    "llama-2-70b": (32000, 8192, 80, 64, 8, 128, 28672, 3),
    "llama-3-8b": (128256, 4096, 32, 32, 8, 128, 14336, 3),
    "llama-3-70b": (128256, 8192, 80, 64, 8, 128, 28672, 3),
    "llama-3-405b": (128256, 16384, 126, 128, 8, 128, 53248, 3),
}


def macs(name: str, batch: int, new: int, past: int, seen: int | None = None, logits: int = 1) -> int:
    vocabulary, d, layers, heads, kv, size, hidden, matrices = SHAPES[name]
    weights = d * size * (heads + 2 * kv) + heads * size * d + matrices * d * hidden
    attention = 2 * heads * size * (new + past if seen is None else seen)
    return batch * (layers * new * (weights + attention) + logits * d * vocabulary)


def rows(w, kind: str) -> list[int]:
    return [i for i, k in enumerate(w.operators.kind) if KINDS[k] == kind]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("phase", ["prefill", "decode", "train"])
def test_parameters_of_released_checkpoints(name, phase):
    assert pm.models.load(name, phase=phase, seq_len=8).parameters == PARAMETERS[name]


def test_parameters_of_gpt3():
    # arXiv 2005.14165, table 2.1: "174.6B"; 96 blocks of 12 d^2 + 13 d, two tables, a last norm
    assert (
        pm.models.load("gpt3-175b").parameters == 96 * (12 * 12288**2 + 13 * 12288) + (50257 + 2048) * 12288 + 2 * 12288
    )
    assert round(pm.models.load("gpt3-175b").parameters / 1e9, 1) == 174.6


@pytest.mark.parametrize("name", SHAPES)
def test_macs_of_prefill_decode_and_training(name):
    assert pm.models.load(name, seq_len=77, batch=3).macs == macs(name, 3, 77, 0)
    assert pm.models.load(name, seq_len=77, all_logits=True).macs == macs(name, 1, 77, 0, logits=77)
    assert pm.models.load(name, phase="decode", context=1000, batch=5).macs == macs(name, 5, 1, 1000)
    assert pm.models.load(name, seq_len=4, context=9).macs == macs(name, 1, 4, 9)  # a chunk of a prefill
    assert pm.models.load(name, phase="train", seq_len=16, batch=2).macs == 3 * macs(name, 2, 16, 0, logits=16)


def test_llama_2_13b_in_half_precision():
    """The figures of vLLM's paper (arXiv 2309.06180, section 3): 26 GB of weights, 800 KiB of KV cache a token (of OPT-13B)."""
    for name in ("llama-2-13b", "opt-13b"):
        w = pm.models.load(name, dtype="fp16", phase="decode", context=2047)
        assert w.kv_bytes_per_token.tolist() == [800 * 1024] and w.kv_tokens.tolist() == [2048]
        assert w.kv_cache_bytes == 2048 * 800 * 1024
    assert round(pm.models.load("llama-2-13b", dtype="fp16").weight_bytes / 1e9, 2) == 26.03


@pytest.mark.parametrize("name, kib", [
    ("llama-2-7b", 512), ("llama-2-70b", 320), ("llama-3-8b", 128), ("llama-3-70b", 320), ("mistral-7b", 128),
    ("falcon-40b", 120), ("bloom-176b", 3920), ("gpt3-175b", 4608),
])  # fmt: skip
def test_kv_bytes_of_a_token(name, kib):
    assert pm.models.load(name).kv_bytes_per_token.tolist() == [kib * 1024]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kv_dtype, bytes_each", [(None, 2), ("fp8", 1), ("nvfp4", 4.5 / 8)])
def test_decode_reads_the_cache_once_and_adds_a_token_to_it(name, kv_dtype, bytes_each):
    _, _, layers, _, kv, size, *_ = SHAPES[name]
    w = pm.models.load(name, phase="decode", batch=3, context=700, kv_dtype=kv_dtype)
    each = 2 * layers * kv * size * bytes_each
    attention = rows(w, "attention_gemm")
    assert w.kv_bytes_per_token.tolist() == [each]
    assert w.outside_in_bytes[attention].sum() == 3 * 700 * each
    kept = np.delete(w.outside_out_bytes, w.n_operators - 1)  # the last row's result is the logits
    assert kept.sum() == 3 * each and w.kv_tokens.tolist() == [3 * 701]


def test_prefill_writes_the_cache_and_training_has_none():
    w = pm.models.load("llama-3-8b", seq_len=100, batch=2)
    assert w.outside_out_bytes.sum() == 200 * 128 * 1024 + 2 * 128256 * 2 and w.kv_tokens.tolist() == [200]
    assert w.outside_in_bytes.sum() == 200 * 4096 * 2  # token rows only: nothing is cached before
    w = pm.models.load("llama-3-8b", seq_len=100, batch=2, phase="train")
    assert w.kv_cache_bytes == 0


def test_grouped_heads_read_keys_once_for_all_their_queries():
    w = pm.models.load("llama-2-70b", phase="decode", batch=3, context=99)
    i = w.names.index("layer5.attn.scores")
    op = w.operators
    assert [int(getattr(op, n)[i]) for n in ("groups", "p", "k", "c")] == [3 * 8, 8, 100, 128]
    assert int(op.in_elements[i]) == 3 * (64 * 128 + 8 * 100 * 128)


def test_a_llama_block():
    w = pm.models.load("llama-2-7b", seq_len=10)
    block = [
        (n.removeprefix("layer3."), KINDS[k])
        for n, k in zip(w.names, w.operators.kind, strict=True)
        if n.startswith("layer3.")
    ]
    assert block == [
        ("norm_1", "rms_norm"), ("attn.q", "gemm"), ("attn.k", "gemm"), ("attn.v", "gemm"), ("attn.q.rope", "rope"),
        ("attn.k.rope", "rope"), ("attn.scores", "attention_gemm"), ("attn.softmax", "softmax"), ("attn.values", "attention_gemm"),
        ("attn.proj", "gemm"), ("add_1", "add"), ("norm_2", "rms_norm"), ("mlp.gate", "gemm"), ("mlp.silu", "silu"),
        ("mlp.up", "gemm"), ("mlp.mul", "mul"), ("mlp.down", "gemm"), ("add_2", "add"),
    ]  # fmt: skip


class TestSlidingWindow:
    """Mistral: a token sees 4096, itself included."""

    def test_decode_reads_no_more_than_the_window(self):
        near, far = (pm.models.load("mistral-7b", phase="decode", context=n) for n in (4095, 100_000))
        assert near.macs == far.macs
        attention = rows(far, "attention_gemm")
        assert far.outside_in_bytes[attention].sum() == 4095 * 128 * 1024
        assert far.kv_tokens.tolist() == near.kv_tokens.tolist() == [4096]

    def test_prefill_is_a_band(self):
        w = pm.models.load("mistral-7b", seq_len=10_000)

        assert w.macs == macs("llama-3-8b", 1, 10_000, 0, seen=4096) - 4096 * (
            128256 - 32000
        )  # but for the head the same
        i = w.names.index("layer0.attn.scores")
        assert (
            int(w.operators.k[i]) == 4096 and int(w.operators.in_elements[i]) == 10_000 * (32 + 8) * 128
        )  # all keys are read
        assert w.outside_out_bytes[:-1].sum() == 4096 * 128 * 1024 and w.kv_tokens.tolist() == [4096]


def test_macs_beyond_doubles_are_exact():
    """Llama-3.1 405B at its longest context, 131072 tokens: beyond 2**53, exact to the last digit."""
    w = pm.models.load("llama-3-405b", seq_len=131_072)
    assert w.macs == macs("llama-3-405b", 1, 131_072, 0) > 2**53
    assert isinstance(w.macs, int)


def test_precisions_of_operands():
    w = pm.models.load(
        "llama-2-7b", weight_dtype="int4", head_dtype="bf16", phase="decode", kv_dtype="int8", context=64
    )
    tables = 2 * 32000 * 4096
    assert w.weight_bytes == (6_738_415_616 - tables) * 0.5 + tables * 2
    assert w.kv_bytes_per_token.tolist() == [2 * 32 * 4096]
    assert pm.models.load("llama-2-7b", weight_dtype="int4").weight_bytes == 6_738_415_616 / 2


def test_sparse_gpt():
    """GPT 13B with 87.5 % of the blocks' weights pruned (arXiv 2304.05511): tables, norms and biases stay."""
    w, dense = pm.models.load("sparse-gpt-13b"), pm.models.load("sparse-gpt-13b", weight_dtype="bf16")
    kept = (50257 + 2048) * 5120 + 2 * 5120 + 40 * 13 * 5120
    assert dense.parameters == kept + 40 * 12 * 5120**2 == 12_853_386_240
    assert w.parameters == kept + 40 * 12 * 5120**2 // 8
    attention, head = 40 * 2 * 1024 * 1024 * 5120, 50257 * 5120
    assert (w.macs - attention - head) * 8 == dense.macs - attention - head
    assert w.weight_bytes == 2 * w.parameters and (w.operators.in_elements == dense.operators.in_elements).all()


def test_parallel_blocks_and_distances():
    w = pm.models.load("falcon-40b", seq_len=4)
    block = [n for n in w.names if n.startswith("h1.")]
    assert block[0] == "h1.ln_1" and block[-2:] == ["h1.add_1", "h1.add_2"] and "h1.ln_2" in block
    reads = {w.names[s] for s, t in zip(w.source, w.target, strict=True) if w.names[t] == "h1.ln_2"}
    assert reads == {"h0.add_2"}  # beside attention, not behind it
    assert sum(n.endswith(".attn.alibi") for n in pm.models.load("bloom-176b", seq_len=4).names) == 70


@pytest.mark.parametrize("name, options, said", [
    ("llama-2-7b", {"phase": "generate"}, "llama-2-7b: phase is 'generate': allowed: decode, prefill, train"),
    ("llama-2-7b", {"seq_len": 0}, "llama-2-7b: seq_len is 0; allowed: an integer of at least 1"),
    ("llama-2-7b", {"context": -1}, "llama-2-7b: context is -1; allowed: an integer of at least 0"),
    ("llama-2-7b", {"phase": "train", "context": 5}, "llama-2-7b: context is 5; allowed in training: 0"),
    ("llama-2-7b", {"kv_dtype": "int3"}, "kv_dtype is 'int3': did you mean int8 or int4"),
    ("llama-2-7b", {"kv_dtype": "fp8-sparse50"}, "kv_dtype is 'fp8-sparse50'; only weights may be sparse"),
    ("llama-2-7b", {"head_dtype": "fp8-sparse50"}, "head_dtype is 'fp8-sparse50'; only weights may be sparse"),
    ("llama-2-7b", {"dtype": "bf16-sparse50"}, "only weights may be sparse"),
    ("llama-2-7b", {"seq_len": 2**31}, "allowed: an integer from 1 to 2147483647"),
    ("gpt3-175b", {"seq_len": 2049}, "gpt3-175b: seq_len is 2049; allowed: 1 to 2048 (learned positions)"),
    ("gpt2", {"phase": "decode", "context": 1024}, "gpt2: context + seq_len is 1025; allowed: 1 to 1024"),
    ("opt-13b", {"phase": "decode", "context": 2048}, "opt-13b: context + seq_len is 2049; allowed: 1 to 2048"),
])  # fmt: skip
def test_bad_options(name, options, said):
    with pytest.raises(ValueError) as error:
        pm.models.load(name, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_defaults_follow_the_phase():
    decode, prefill = pm.models.load("gpt2", phase="decode"), pm.models.load("gpt2")
    assert decode.kv_tokens.tolist() == [1024]  # 1023 before and the new one: all positions
    assert prefill.kv_cache_bytes == 0 and prefill.macs == 106_300_440_576  # nobody decodes after it
    kept = pm.models.load("gpt2", kv_cache=True)
    assert kept.kv_cache_bytes == 1024 * 2 * 12 * 768
    assert pm.models.load("opt-13b", phase="decode").kv_tokens.tolist() == [1025]
