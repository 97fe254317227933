"""Which language models can be served: the decoders of the zoo, some more that benchmarks name, and Hugging Face configurations."""

from pathlib import Path
from typing import NamedTuple

from .._names import unknown_name
from ..workload.zoo import _bloom, _deepseek, _falcon, _gpt2, _gpt3, _llama, _llava, _moe, _opt
from ..workload.zoo._gpt2 import gpt
from ..workload.zoo._llama import llama
from ..workload.zoo._records import Experts, Transformer


class Decoder(NamedTuple):
    """A model to serve. `weights`: format of its weights unless an option says otherwise ("": as the activations).
    `extra_parameters`: stored beside the language model (a vision tower).  `limit`: longest sequence, 0: none."""

    name: str
    spec: Transformer
    weights: str = ""
    extra_parameters: int = 0

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
    return decoders


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
    if Path(name).name == "config.json" or Path(name).is_dir():
        from ..workload.importers._huggingface._decoders import DECODERS
        from ..workload.importers._huggingface._fields import read_config
        from ..workload.importers._huggingface._importer import _model_type

        config = read_config(name)
        try:
            kind = _model_type(config)
            if kind not in DECODERS:
                raise unknown_name("model_type", kind, DECODERS)
            spec = DECODERS[kind](config)
        except ValueError as error:
            told = " ".join(str(error).split())
            raise ValueError(told if told.startswith(config.where) else f"{config.where}: {told}") from None
        return Decoder(Path(config.where).resolve().parent.name or "model", spec)
    raise unknown_name("model", name, known)
