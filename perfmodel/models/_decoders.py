"""Which language models can be served: the decoders of the zoo, some more that benchmarks name, and Hugging Face configurations."""

from pathlib import Path
from typing import NamedTuple

from .._names import unknown_name
from . import _load as models
from .zoo import _bloom, _deepseek, _falcon, _gpt2, _gpt3, _llama, _llava, _moe, _opt
from .zoo._gpt2 import gpt
from .zoo._llama import llama
from .zoo._records import Experts, Transformer


class Decoder(NamedTuple):
    """A model to serve. `weights`: format of its weights unless an option says otherwise ("": as the activations).
    `extra_parameters`: stored beside the language model (a vision tower).  `limit`: longest sequence that learned positions allow,
    `published`: that its publisher states; 0: none."""

    name: str
    spec: Transformer
    weights: str = ""
    extra_parameters: int = 0
    published: int = 0

    @property
    def limit(self) -> int:
        return self.spec.limit


# Models of published measurements that the zoo does not have, from the configurations that their publishers released.
_MORE = {
    "gpt-j-6b": gpt(4096, 16, 28, vocabulary=50400, positions=0, limit=2048, parallel=1, rotary=64, fused_qkv=False, qkv_bias=False,
                    out_bias=False, head_bias=True, tied=False),
    "falcon-180b": _falcon.falcon(14848, 232, 80, kv_heads=8),
    "qwen3-30b-a3b": llama(151936, 2048, 48, 32, 4, 6144, head_dim=128, rotary=128, qk_norm=True, experts=Experts(128, 8, 768)),
    "qwen3-235b-a22b": llama(151936, 4096, 94, 64, 4, 12288, head_dim=128, rotary=128, qk_norm=True, experts=Experts(128, 8, 1536)),
}  # fmt: skip

# Longest sequences of models without learned positions, as their publishers state them. Llama 3: of versions 3.1 and 3.3, which
# have the shapes of 3.0 (8,192). Bloom has none: its attention biases go on.
_PUBLISHED = {
    "llama-2-7b": 4096, "llama-2-13b": 4096, "llama-2-70b": 4096, "llama-3-8b": 131072, "llama-3-70b": 131072, "llama-3-405b": 131072,
    "llava-1.5-7b": 4096, "mistral-7b": 32768, "mixtral-8x7b": 32768, "falcon-40b": 2048, "falcon-180b": 2048, "deepseek-v3": 163840,
    "qwen3-30b-a3b": 40960, "qwen3-235b-a22b": 40960,
}  # fmt: skip
_STRETCHED = ("linear", "dynamic", "yarn")  # rotary scalings whose factor comes on top of the published positions


def _zoo() -> dict[str, Decoder]:
    found = {name: _gpt2.gpt(*size) for name, size in _gpt2._SIZES.items()}
    for family in (_bloom, _deepseek, _falcon, _gpt3, _llama, _moe, _opt):
        found |= family.SPECS
    decoders = {name: Decoder(name, spec) for name, spec in (found | _MORE).items()}
    decoders["sparse-gpt-13b"] = decoders["sparse-gpt-13b"]._replace(weights="bf16-sparse87.5")
    for name, (tower, spec) in _llava.SPECS.items():
        width = spec.width
        projector = (tower.spec.width + 1) * width + (width + 1) * width
        decoders[name] = Decoder(name, spec, extra_parameters=tower.parameters + projector)
    return {name: model._replace(published=_PUBLISHED.get(name, 0)) for name, model in decoders.items()}


def decoders() -> list[str]:
    """Names of the built-in models that can be served."""
    return sorted(_zoo())


def decoder(name: str) -> Decoder:
    """A model by its name, or from a Hugging Face `config.json` or the directory that holds one.

    Raises ValueError in one line for an unknown name, a configuration that cannot be used, or one of no Transformer decoder.
    """
    known = _zoo()
    if name in known:
        return known[name]
    if name and (Path(name).name == "config.json" or Path(name).is_dir()):
        from .importers._huggingface._decoders import DECODERS
        from .importers._huggingface._fields import read_config
        from .importers._huggingface._importer import _model_type

        config = read_config(name)
        try:
            kind = _model_type(config)
            if kind not in DECODERS:
                raise unknown_name("model_type", kind, DECODERS)
            spec = DECODERS[kind](config)
            published = _positions(config)
        except ValueError as error:
            told = " ".join(str(error).split())
            raise ValueError(told if told.startswith(config.where) else f"{config.where}: {told}") from None
        return Decoder(Path(config.where).resolve().parent.name or "model", spec, published=published)
    if name in models.names():
        raise ValueError(f"model is {name!r}, no Transformer decoder; allowed: {', '.join(sorted(known))}")
    raise unknown_name("model", name, known)


def _positions(config) -> int:
    """Longest sequence that a configuration states, 0: none. Stretched rotary positions reach `factor` times as far."""
    most = config.size("max_position_embeddings", default=0, least=0)
    if not isinstance(config.data.get("rope_scaling"), dict):
        return most
    scaling = config.nested("rope_scaling")
    if scaling.text("rope_type", "type") not in _STRETCHED:
        return most
    first = scaling.size("original_max_position_embeddings", default=most, least=0)
    return max(most, int(first * scaling.number("factor", default=1.0)))
