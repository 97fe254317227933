"""Workloads from files and functions that others wrote: ONNX, Hugging Face configurations, JAX functions.

`import_file` looks at what it is given; each importer is one module and loads what it needs when it is called.
"""

from pathlib import Path

from .._graph import Workload


class ImportedModelWarning(UserWarning):
    """Something of a model was assumed or simplified; the message names it."""


def is_importable(path: str) -> bool:
    """Whether a name is one of an ONNX file, of a `config.json` or of a directory (workload files are not imported)."""
    return Path(path).suffix == ".onnx" or Path(path).name == "config.json" or Path(path).is_dir()


def import_file(path: str | Path, **options) -> Workload:
    """A workload from a file by what it is: `.onnx`, or a Hugging Face `config.json` or the directory that holds one.

    **Arguments:** options of `import_onnx` or `import_huggingface`. Raises ValueError in one line naming file and problem.
    """
    if Path(path).suffix == ".onnx":
        return import_onnx(path, **options)
    return import_huggingface(path, **options)


def import_onnx(path: str | Path, **options) -> Workload:
    from ._onnx import import_onnx

    return import_onnx(path, **options)


def import_huggingface(path: str | Path, **options) -> Workload:
    from ._huggingface import import_huggingface

    return import_huggingface(path, **options)
