"""Real models, built from configuration; one file a family. `BUILDERS` maps a published name to its builder."""

from . import (
    _alphafold,
    _bert,
    _bloom,
    _deepseek,
    _diffusion,
    _dlrm,
    _falcon,
    _gpt2,
    _gpt3,
    _inception,
    _llama,
    _llava,
    _mamba,
    _mobilenet,
    _moe,
    _monarch,
    _nerf,
    _opt,
    _resnet,
    _swin,
    _unet,
    _vit,
    _yolo,
)
from ._experts import expert_loads as expert_loads
from ._records import Experts as Experts
from ._records import Transformer as Transformer
from ._transformer import language_model as language_model

_FAMILIES = (
    _alphafold, _bert, _bloom, _deepseek, _diffusion, _dlrm, _falcon, _gpt2, _gpt3, _inception, _llama, _llava,
    _mamba, _mobilenet, _moe, _monarch, _nerf, _opt, _resnet, _swin, _unet, _vit, _yolo,
)  # fmt: skip
BUILDERS = {name: build for family in _FAMILIES for name, build in family.BUILDERS.items()}
