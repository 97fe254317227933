"""Configurations of Hugging Face: parameters against the library's own classes, operators against the zoo, and bad files.

Each folder of tests/data/huggingface holds the published `config.json` of a checkpoint.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.models import import_huggingface

DATA = Path(__file__).parents[2] / "data" / "huggingface"
# Counted by transformers 5.23.0 (torch 2.15.0) on the meta device: the class named in `architectures`, built of that
# config.json, tied weights once. DeepSeek-V3's does not count 58 * 256 corrections of routing, which it keeps as buffers.
PARAMETERS = {
    "bert-base": 109514298, "bert-large": 335141888, "bloom-176b": 176247271424, "clip-vit-base-patch32": 151277313,
    "deepseek-v2-lite": 15706484224, "deepseek-v3": 671026404352 + 58 * 256, "falcon-40b": 41303293952, "falcon-7b": 6921720704,
    "gemma-2-9b": 9241705984, "gemma-2b": 2506172416, "gpt-j-6b": 6050882784, "gpt2": 124439808, "llama-2-13b": 13015864320,
    "llama-2-70b": 68976648192, "llama-2-7b": 6738415616, "llama-3-405b": 405853388800, "llama-3-8b": 8030261248,
    "llava-1.5-7b": 7063427072, "mamba-130m": 129135360, "mistral-7b": 7241732096, "mixtral-8x7b": 46702792704,
    "opt-13b": 12853473280, "opt-350m": 331196416, "phi-2": 2779683840, "phi-3-mini": 3821079552, "pythia-1b": 1011781632,
    "qwen2-7b": 7615616512, "qwen3-0.6b": 596049920, "qwen3-30b-a3b": 30532122624, "resnet-50": 25557032,
    "roberta-base": 124697433, "swin-tiny": 28288354, "vit-base": 86567656,
}  # fmt: skip
# What the zoo calls it, and options of the zoo that say what the configuration does.
SAME = {
    "bert-base": ("bert-base", {"head": "mlm", "dtype": "fp32"}), "bert-large": ("bert-large", {"dtype": "fp32"}),
    "bloom-176b": ("bloom-176b", {}), "deepseek-v3": ("deepseek-v3", {"weight_dtype": "fp8", "head_dtype": "bf16"}),
    "falcon-40b": ("falcon-40b", {}),
    "gpt2": ("gpt2", {"lm_head": True, "all_logits": False, "kv_cache": True, "dtype": "fp32"}),
    "llama-2-7b": ("llama-2-7b", {"dtype": "fp16"}), "llama-2-13b": ("llama-2-13b", {"dtype": "fp16"}),
    "llama-2-70b": ("llama-2-70b", {"dtype": "fp16"}), "llama-3-8b": ("llama-3-8b", {}), "llama-3-405b": ("llama-3-405b", {}),
    "llava-1.5-7b": ("llava-1.5-7b", {"dtype": "fp16"}), "mamba-130m": ("mamba-130m", {"dtype": "fp32"}),
    "mistral-7b": ("mistral-7b", {}), "mixtral-8x7b": ("mixtral-8x7b", {}), "opt-13b": ("opt-13b", {"dtype": "fp16"}),
    "resnet-50": ("resnet50", {"dtype": "fp32"}), "swin-tiny": ("swin-t", {"dtype": "fp32"}),
}  # fmt: skip
WHOLE = ("bert-base", "bert-large", "resnet-50", "swin-tiny")  # no phases, or not all


def assert_same(a, b):
    assert a.names == b.names
    for field in a.operators.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(a.operators, field), getattr(b.operators, field), field)
    for field in (
        "source",
        "target",
        "edge_bytes",
        "outside_in_bytes",
        "outside_out_bytes",
        "kv_bytes_per_token",
        "kv_tokens",
    ):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), field)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameters_as_the_library_counts_them(name):
    w = import_huggingface(DATA / name)
    assert w.parameters == PARAMETERS[name] and w.model_names == (name,)


def test_every_file_is_tested():
    assert {path.parent.name for path in DATA.glob("*/config.json")} == set(PARAMETERS)


@pytest.mark.parametrize("name", sorted(SAME))
def test_operators_of_the_zoo(name):
    zoo, options = SAME[name]
    assert_same(import_huggingface(DATA / name), pm.models.load(zoo, **options))
    for more in (
        ({"batch": 3},)
        if name in WHOLE
        else ({"phase": "decode", "context": 100, "batch": 2}, {"phase": "train", "seq_len": 4})
    ):
        chosen = options | more
        assert_same(import_huggingface(DATA / name, **more), pm.models.load(zoo, **chosen))


def test_options_of_experts_and_latents_reach_them():
    more = {"seq_len": 64, "imbalance": 1.5}
    assert_same(import_huggingface(DATA / "mixtral-8x7b", **more), pm.models.load("mixtral-8x7b", **more))
    more = {"phase": "decode", "absorb": "never", "context": 50}
    assert_same(
        import_huggingface(DATA / "deepseek-v3", **more),
        pm.models.load("deepseek-v3", weight_dtype="fp8", head_dtype="bf16", **more),
    )


def test_vit_has_the_work_of_the_zoo():
    """Q, K and V are three GEMMs in the library, one in torchvision; else it is the same."""
    a, b = import_huggingface(DATA / "vit-base"), pm.models.load("vit-b", dtype="fp32")
    assert a.macs == b.macs and a.parameters == b.parameters and a.weight_bytes == b.weight_bytes


def test_file_or_directory():
    a, b = import_huggingface(DATA / "gpt2"), pm.models.load(str(DATA / "gpt2" / "config.json"))
    assert_same(a, b)
    assert a.model_names == b.model_names == ("gpt2",)


@pytest.mark.parametrize("name, macs", [
    # a token: weights of the blocks and of the head, less tables, norms and biases; attention to itself
    ("qwen3-0.6b", 28 * (1024 * 128 * (16 + 16) + 2048 * 1024 + 3 * 1024 * 3072 + 2 * 2048) + 1024 * 151936),  # head_dim is 128
    ("gemma-2b", 18 * (2048 * 256 * (8 + 2) + 2048 * 2048 + 3 * 2048 * 16384 + 2 * 2048) + 2048 * 256000),
    ("phi-2", 32 * (4 * 2560**2 + 2 * 2560 * 10240 + 2 * 2560) + 2560 * 51200),
    ("gpt-j-6b", 28 * (12 * 4096**2 + 2 * 4096) + 4096 * 50400),
    ("qwen3-30b-a3b", 48 * (2048 * 128 * (32 + 8) + 4096 * 2048 + 2048 * 128 + 8 * 3 * 2048 * 768 + 2 * 4096) + 2048 * 151936),
    ("opt-350m", 24 * (12 * 1024**2 + 2 * 1024) + 2 * 512 * 1024 + 512 * 50272),
])  # fmt: skip
def test_macs_of_a_token(name, macs):
    assert import_huggingface(DATA / name, seq_len=1).macs == macs


def test_windows_of_every_other_layer():
    w = import_huggingface(DATA / "gemma-2-9b", phase="decode", context=8000)
    keys = [int(w.operators.k[w.names.index(f"layer{i}.attn.scores")]) for i in range(42)]
    assert keys == [4096, 8001] * 21
    assert w.kv_tokens.tolist() == [(4096 + 8001) / 2] and w.kv_bytes_per_token.tolist() == [42 * 2 * 8 * 256 * 4]


def write(folder: Path, **fields) -> Path:
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def changed(folder: Path, name: str, **fields) -> Path:
    """A real configuration with other fields; `...` removes one."""
    base = json.loads((DATA / name / "config.json").read_text()) | fields
    return write(folder, **{k: v for k, v in base.items() if v is not ...})


@pytest.mark.parametrize("fields, weights, bits", [
    ({"torch_dtype": "float32"}, 32, 32), ({"torch_dtype": ..., "dtype": "bfloat16"}, 16, 16), ({"torch_dtype": "torch.float16"}, 16, 16),
    ({"torch_dtype": ...}, 32, 32),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, 4, 16),
    ({"quantization_config": {"quant_method": "awq", "bits": 8}}, 8, 16),
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, 4, 16),
    ({"quantization_config": {"load_in_8bit": True}}, 8, 16),
    ({"quantization_config": {"quant_method": "fp8"}}, 8, 16),
    ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, 4.5, 16),
    ({"quantization_config": {"quant_method": "compressed-tensors",
                              "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}}}, 4, 16),
])  # fmt: skip
def test_precisions(tmp_path, fields, weights, bits):
    w = import_huggingface(changed(tmp_path, "llama-3-8b", **fields), seq_len=2)
    of = {name: i for i, name in enumerate(w.names)}
    assert w.operators.weight_bits[of["layer9.mlp.down"]] == weights
    assert w.operators.weight_bits[of["lm_head"]] == bits == w.operators.in_bits[of["layer9.mlp.down"]]


def test_options_win_over_the_configuration(tmp_path):
    path = changed(tmp_path, "llama-3-8b", quantization_config={"quant_method": "gptq", "bits": 4})
    w = import_huggingface(path, weight_dtype="int8", dtype="fp16", lm_head=False)
    assert w.weight_bytes == w.parameters == 8030261248 - 128256 * 4096 and "lm_head" not in w.names


def test_older_and_barer_configurations(tmp_path):
    old = changed(tmp_path, "llama-2-7b", model_type=..., architectures=["LLaMAForCausalLM"], num_key_value_heads=...)
    assert import_huggingface(old).parameters == 6738415616
    bare = changed(tmp_path, "llama-2-7b", architectures=["LlamaModel"])
    assert import_huggingface(bare).parameters == 6738415616 - 32000 * 4096
    authors = changed(tmp_path, "llama-2-7b", model_type="llava", mm_vision_tower="openai/clip-vit-large-patch14-336")
    assert import_huggingface(authors).parameters == 6738415616 + 303507456 + 20979712
    first = changed(
        tmp_path, "falcon-40b", model_type="RefinedWeb", new_decoder_architecture=..., num_kv_heads=..., n_head_kv=8
    )
    assert import_huggingface(first).parameters == 41303293952


LLAMA = "llama-2-7b"
BAD = {
    "text": (dict(hidden_size="abc"), "hidden_size is 'abc'; allowed: an integer from 1 to 16777216"),
    "zero": (dict(hidden_size=0), "hidden_size is 0; allowed"),
    "negative": (dict(num_hidden_layers=-1), "num_hidden_layers is -1; allowed: an integer from 1 to 4096"),
    "huge": (dict(hidden_size=1e30), "hidden_size is 1e+30; allowed"),
    "many layers": (dict(num_hidden_layers=10**9), "num_hidden_layers is 1000000000; allowed: an integer from 1 to 4096"),
    "fraction": (dict(intermediate_size=11008.5), "intermediate_size is 11008.5; allowed"),
    "truth": (dict(vocab_size=True), "vocab_size is True; allowed"),
    "missing": (dict(intermediate_size=...), "intermediate_size is missing"),
    "null": (dict(hidden_size=None), "hidden_size or n_embd or d_model or n_embed is missing"),
    "heads": (dict(num_attention_heads=33, num_key_value_heads=33), "number of heads is 33; allowed: a divisor of the width, 4096"),
    "kv heads": (dict(num_key_value_heads=5), "num_key_value_heads is 5; allowed: a divisor of num_attention_heads, 32"),
    "list": (dict(hidden_size=[4096]), "hidden_size is [4096]; allowed"),
    "flag": (dict(tie_word_embeddings="no"), "tie_word_embeddings is 'no'; allowed: true or false"),
    "activation": (dict(hidden_act="swilu"), "hidden_act is 'swilu': did you mean silu"),
    "dtype": (dict(torch_dtype="float17"), "torch_dtype is 'float17': did you mean float16"),
    "type": (dict(model_type="llamas"), "model_type is 'llamas': did you mean llama"),
    "type of type": (dict(model_type=3), "model_type is 3; allowed: a string"),
    "class": (dict(model_type=..., architectures=["LlamoForCausalLM"]), "architecture is 'LlamoForCausalLM'"),
    "no type": (dict(model_type=..., architectures=...), "model_type is missing, and so are architectures"),
    "quantisation": (dict(quantization_config={"quant_method": "gptq", "bits": 3}), "quantization_config: bits is 3; allowed: 4 or 8"),
    "method": (dict(quantization_config={"quant_method": "magic"}), "quant_method is 'magic'"),
    "no object": (dict(quantization_config=7), "quantization_config is 7; allowed: an object"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_fields(tmp_path, what):
    fields, said = BAD[what]
    path = changed(tmp_path, LLAMA, **fields)
    with pytest.raises(ValueError) as error:
        import_huggingface(path)
    told = str(error.value)
    assert told.startswith(f"{path / 'config.json'}: ") and said in told and "\n" not in told


@pytest.mark.parametrize("name, fields, said", [
    ("mixtral-8x7b", dict(num_experts_per_tok=9), "num_experts_per_tok is 9; allowed: an integer from 1 to 8"),
    ("gemma-2-9b", dict(layer_types=["full_attention"]), "layer_types has 1 entries; allowed: 42"),
    ("llava-1.5-7b", dict(text_config={"model_type": "t5"}), "text_config: model_type is 't5'; allowed"),
    ("llava-1.5-7b", dict(vision_config=3), "vision_config is 3; allowed: an object"),
    ("llava-1.5-7b", dict(vision_feature_layer=99), "vision_feature_layer is 99; allowed: an integer from -24 to 24"),
    ("swin-tiny", dict(window_size=12), "allowed: those of swin-t"), ("resnet-50", dict(depths=[1, 2, 3, 4]), "allowed: those of resnet18"),
    ("bert-base", dict(num_attention_heads=7), "num_attention_heads is 7; allowed: a divisor of hidden_size, 768"),
    ("vit-base", dict(patch_size=500), "patch_size is 500; allowed: an integer from 1 to 224"),
    ("mamba-130m", dict(expand=-1), "expand is -1"),
])  # fmt: skip
def test_bad_fields_of_other_families(tmp_path, name, fields, said):
    removed = {"intermediate_size": ...} if name == "mamba-130m" else {}
    with pytest.raises(ValueError) as error:
        import_huggingface(changed(tmp_path, name, **fields, **removed))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content, said", [
    (b"", "not JSON"), (b"{", "not JSON"), (b"\xff\xfe\x00", "not JSON"), (b"[1, 2]", "the JSON is no object"), (b"null", "is no object"),
    (b"[" * 200_000, "nested too deep"), (b'{"a": ' * 200_000, "nested too deep"), (b'{"hidden_size": ' + b"9" * 5000 + b"}", "not JSON"),
    (b" " * (2**24 + 1), "larger than 16777216 bytes"),
])  # fmt: skip
def test_bad_files(tmp_path, content, said):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError) as error:
        import_huggingface(tmp_path)
    assert (
        str(error.value).startswith(f"{tmp_path / 'config.json'}: ")
        and said in str(error.value)
        and "\n" not in str(error.value)
    )


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="a directory without config.json"):
        import_huggingface(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        import_huggingface(tmp_path / "nothing.json")


@pytest.mark.parametrize("options, said", [
    ({"batch": 0}, "batch is 0; allowed: an integer of at least 1"), ({"phase": "idle"}, "phase is 'idle'"),
    ({"imbalance": -1.0}, "imbalance is -1.0; allowed: a number of at least 0"), ({"imbalance": float("nan")}, "imbalance is nan"),
    ({"images": 0}, "images is 0"), ({"all_logits": "yes"}, "all_logits is 'yes'; allowed: True or False"),
    ({"dtype": "int5"}, "dtype is 'int5'"), ({"seq_len": 2**40}, "allowed: an integer from 1 to 2147483647"),
])  # fmt: skip
def test_bad_options(options, said):
    with pytest.raises(ValueError) as error:
        import_huggingface(DATA / LLAMA, **options)
    assert said in str(error.value) and str(DATA / LLAMA) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name, options", [
    ("bert-base", {"phase": "decode"}), ("bert-base", {"context": 4}), ("vit-base", {"phase": "decode"}), ("vit-base", {"image": 0}),
    ("resnet-50", {"context": 3}), ("swin-tiny", {"image": 3}), ("gpt2", {"seq_len": 1025}), ("roberta-base", {"seq_len": 513}),
])  # fmt: skip
def test_options_that_a_model_does_not_take(name, options):
    with pytest.raises(ValueError, match=str(DATA / name)):
        import_huggingface(DATA / name, **options)


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from leaves(inner, (*path, key))


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=250)
@given(st.sampled_from(sorted(PARAMETERS)), st.data())
def test_odd_values_are_read_or_refused_in_a_line(tmp_path_factory, name, data):
    config = json.loads((DATA / name / "config.json").read_text())
    for path in data.draw(st.lists(st.sampled_from(sorted(leaves(config))), min_size=1, max_size=3)):
        inner = config
        for key in path[:-1]:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[path[-1]] = data.draw(ODD)
    folder = tmp_path_factory.mktemp("config")
    read_or_refused(write(folder, **config), phase=data.draw(st.sampled_from(["prefill", "decode"])))


@settings(max_examples=150)
@given(st.sampled_from(sorted(PARAMETERS)), st.data())
def test_damaged_bytes_are_read_or_refused_in_a_line(tmp_path_factory, name, data):
    content = bytearray((DATA / name / "config.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.json").write_bytes(
        content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content
    )
    read_or_refused(folder)


def read_or_refused(path: Path, **options) -> None:
    try:
        w = import_huggingface(path, seq_len=2, **options)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert w.macs > 0
