"""Workloads from files and functions that others wrote: ONNX, Hugging Face configurations, PyTorch exports, JAX functions.

`import_file` looks at what it is given; each importer is one module and loads what it needs when it is called.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ...workload._graph import Workload

_BY_SUFFIX = {".onnx": "onnx", ".pt2": "torch_export"}


class ImportedModelWarning(UserWarning):
    """Something of a model was assumed or simplified; the message names it."""


def is_importable(path: str | Path) -> bool:
    """Whether a path is one of an ONNX file, a PyTorch export, a `config.json` or a directory (workload files are not imported)."""
    return Path(path).suffix in _BY_SUFFIX or Path(path).name == "config.json" or Path(path).is_dir()


def importer_of(path: str | Path) -> Callable[..., Workload]:
    """The importer of a file by what it is; anything unknown is taken for a Hugging Face `config.json` or its directory."""
    kind = "huggingface" if Path(path).is_dir() else _BY_SUFFIX.get(Path(path).suffix, "huggingface")
    return getattr(import_module(f"._{kind}", __name__), f"import_{kind.removesuffix('_export')}")


def import_file(path: str | Path, **options) -> Workload:
    """A workload from a file by what it is: `.onnx`, `.pt2`, or a Hugging Face `config.json` or the directory that holds one.

    **Arguments:** options of `import_onnx`, `import_torch` or `import_huggingface`.

    Raises ValueError in one line naming file and problem.
    """
    return importer_of(path)(path, **options)


def import_onnx(path: str | Path, **options) -> Workload:
    """A workload from an ONNX file, see `importers._onnx.import_onnx`."""
    from ._onnx._importer import import_onnx

    return import_onnx(path, **options)


def import_huggingface(path: str | Path, **options) -> Workload:
    """A workload from a Hugging Face configuration, see `importers._huggingface.import_huggingface`."""
    from ._huggingface._importer import import_huggingface

    return import_huggingface(path, **options)


def import_torch(path, **options) -> Workload:
    """A workload from a PyTorch export, see `importers._torch_export.import_torch`."""
    from ._torch_export._importer import import_torch

    return import_torch(path, **options)


def import_jax(fn: Callable, *args, **options) -> Workload:
    """A workload from a JAX function, see `importers._jaxpr.import_jax`."""
    from ._jaxpr._importer import import_jax

    return import_jax(fn, *args, **options)
