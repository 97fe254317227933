"""Where workloads come from: the zoo of built-in models, workload files, and what others wrote (ONNX, Hugging Face, PyTorch, JAX)."""

from ._decoders import Decoder as Decoder
from ._decoders import decoder as decoder
from ._decoders import decoders as decoders
from ._family import Family as Family
from ._family import family as family
from ._file import load_workload_file as load_workload_file
from ._load import check_option as check_option
from ._load import known_options as known_options
from ._load import load as load
from ._load import names as names
from ._load import options as options
from ._net import Net as Net
from ._net import Tensor as Tensor
from .importers import ImportedModelWarning as ImportedModelWarning
from .importers import import_file as import_file
from .importers import import_huggingface as import_huggingface
from .importers import import_jax as import_jax
from .importers import import_onnx as import_onnx
from .importers import import_torch as import_torch
from .importers import is_importable as is_importable
