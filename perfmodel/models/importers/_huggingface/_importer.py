"""Hugging Face configurations: `config.json` to a workload, offline and without the transformers library.

Operators are those of the zoo: a configuration becomes the same record of numbers that the zoo writes down.
"""

from math import isfinite
from pathlib import Path

from ...._names import unknown_name
from ....workload._graph import Workload
from ...zoo._mamba import Mamba, recurrent
from ...zoo._transformer import language_model
from ._decoders import DECODERS
from ._fields import MOST_LAYERS, Config, read_config
from ._vision import OTHERS

# Classes of configurations that were written before `model_type`, or without it.
_CLASSES = {
    "Bert": "bert", "Bloom": "bloom", "CLIP": "clip", "DeepseekV2": "deepseek_v2", "DeepseekV3": "deepseek_v3", "Falcon": "falcon",
    "GPT2": "gpt2", "GPTJ": "gptj", "GPTNeoX": "gpt_neox", "Gemma": "gemma", "Gemma2": "gemma2", "LLaMA": "llama",
    "Llama": "llama", "Llava": "llava", "LlavaLlama": "llava", "Mamba": "mamba", "Mistral": "mistral", "Mixtral": "mixtral",
    "OPT": "opt", "Phi": "phi", "Phi3": "phi3", "Qwen2": "qwen2", "Qwen2Moe": "qwen2_moe", "Qwen3": "qwen3",
    "Qwen3Moe": "qwen3_moe", "RW": "RefinedWeb", "ResNet": "resnet", "Roberta": "roberta", "Swin": "swin", "ViT": "vit",
}  # fmt: skip


def import_huggingface(path: str | Path, *, batch: int = 1, phase: str = "prefill", seq_len: int | None = None,
                       context: int | None = None, imbalance: float = 0.0, absorb: str = "decode", images: int = 1,
                       image: int | None = None, lm_head: bool | None = None, all_logits: bool = False,
                       dtype: str | None = None, weight_dtype: str | None = None, kv_dtype: str | None = None,
                       head_dtype: str | None = None) -> Workload:  # fmt: skip
    """A workload from a `config.json`, or a directory that holds one; nothing else is read.

    **Arguments:** those of the zoo's language models (see `llama-2-7b`, `mixtral-8x7b`, `deepseek-v3`, `llava-1.5-7b`), as far
    as the model has them.  `image`: pixels a side of vision models.  `dtype`: what the configuration says (`dtype` or
    `torch_dtype`; fp32 where it is silent).  `weight_dtype`: of its `quantization_config`, which leaves token table and LM
    head in `dtype`.  `lm_head`: what its `architectures` say.

    Raises ValueError in one line that names the file: no configuration, not JSON, unknown model types, fields that are missing
    or no sensible size, and options that are not allowed.
    """
    config = read_config(path)
    file = Path(config.where)
    try:
        flags = dict(lm_head=lm_head, all_logits=all_logits)
        for option, value in flags.items():
            if value is not None and not isinstance(value, bool):
                raise ValueError(f"{option} is {value!r}; allowed: True or False")
        if isinstance(images, bool) or not isinstance(images, int) or images < 1:
            raise ValueError(f"images is {images!r}; allowed: an integer of at least 1")
        if (
            isinstance(imbalance, bool)
            or not isinstance(imbalance, int | float)
            or not isfinite(imbalance)
            or imbalance < 0
        ):
            raise ValueError(f"imbalance is {imbalance!r}; allowed: a number of at least 0")
        stored = None if weight_dtype else config.weight_dtype()
        dtype = dtype or config.dtype()
        options = dict(
            batch=batch, phase=phase, seq_len=seq_len, context=context, lm_head=_has_head(config) if lm_head is None else lm_head,
            all_logits=all_logits, dtype=dtype, weight_dtype=weight_dtype or stored, kv_dtype=kv_dtype,
            head_dtype=head_dtype or (dtype if stored else None),
        )  # fmt: skip
        name = file.parent.resolve().name if file.name == "config.json" else file.stem
        more = dict(imbalance=imbalance, absorb=absorb, images=images, image=image)
        return _built(config, _model_type(config), name or "model", options, more)
    except ValueError as error:
        told = " ".join(str(error).split())
        raise ValueError(told if told.startswith(config.where) else f"{config.where}: {told}") from None


def _built(config: Config, kind: str, name: str, options: dict, more: dict) -> Workload:
    if kind == "mamba":
        return recurrent(name, _mamba(config), **options)
    if kind in OTHERS:
        extra = ("images", "image") if OTHERS[kind] is OTHERS["llava"] else ("image",)
        return OTHERS[kind](config, name, options | {o: more[o] for o in extra})
    spec = DECODERS[kind](config)
    return language_model(name, spec, imbalance=more["imbalance"], absorb=more["absorb"], **options)


def _model_type(config: Config) -> str:
    """The model's type, or what its class says. Raises ValueError listing those known."""
    known = [*DECODERS, *OTHERS, "mamba"]
    kind = config.text("model_type")
    classes = config.names("architectures")
    if not kind and classes:
        stem = classes[0].split("For")[0].removesuffix("Model").removesuffix("LMHead").removesuffix("DoubleHeads")
        if stem not in _CLASSES:
            raise unknown_name("architecture", classes[0][:60], [f"{name}..." for name in _CLASSES])
        kind = _CLASSES[stem]
        config.data["model_type"] = kind
    if not kind:
        raise ValueError("model_type is missing, and so are architectures")
    if kind not in known:
        raise unknown_name("model_type", kind[:60], known)
    return kind


def _has_head(config: Config) -> bool:
    classes = config.names("architectures")
    return not classes or any(part in classes[0] for part in ("CausalLM", "LMHead", "ConditionalGeneration"))


def _mamba(config: Config) -> Mamba:
    width = config.size("hidden_size", "d_model")
    inner = config.size("intermediate_size", default=int(config.number("expand", default=2) * width) or 1)
    rank = 0 if config.data.get("time_step_rank", "auto") == "auto" else config.size("time_step_rank")
    return Mamba(
        config.size("vocab_size", most=2**30), width, config.size("num_hidden_layers", "n_layer", most=MOST_LAYERS),
        state=config.size("state_size", default=16), kernel=config.size("conv_kernel", default=4), inner=inner, dt_rank=rank,
        bias=config.flag("use_bias", default=False), conv_bias=config.flag("use_conv_bias", default=True),
        tied=config.flag("tie_word_embeddings", default=True),
    )  # fmt: skip
