"""`pm.models`: workloads by name or by file."""

import inspect
from math import isfinite
from pathlib import Path

from .._names import unknown_name
from ..workload._graph import Workload
from ..workload._training import training_step
from ._file import load_workload_file
from .importers import import_file, importer_of, is_importable
from .zoo import BUILDERS

_FILES = (".yaml", ".yml", ".json")
_PHASE = "phase"


def names() -> list[str]:
    """Names of all built-in models."""
    return sorted(BUILDERS)


def options(name: str) -> dict[str, object]:
    """Options that a built-in model takes, and their defaults. Raises ValueError for an unknown name."""
    if name not in BUILDERS:
        raise unknown_name("model", name, BUILDERS)
    return _keywords(BUILDERS[name])


def known_options(name: str) -> dict[str, object]:
    """Options that `load(name, ...)` takes, and their defaults: of a built-in model or of an importer; a workload file none.
    Raises ValueError for an unknown name."""
    own = _own_options(name)
    return own and {_PHASE: "prefill"} | own  # what knows no phases can still be trained


def _own_options(name: str) -> dict[str, object]:
    if name not in BUILDERS and is_importable(name):
        return _keywords(importer_of(name))
    return {} if Path(name).suffix in _FILES else options(name)


def _keywords(function) -> dict[str, object]:
    found = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}


def load(name: str, **chosen) -> Workload:
    """A model by its name, or from a file: a workload file (`.yaml`, `.yml`, `.json`), an ONNX file, a directory or
    `config.json` of Hugging Face.

    **Arguments:** `name`; options of the builder (`options(name)`) or of the importer: `batch` and `dtype` for all;
    `weight_dtype`; `phase` (prefill, train; language models also decode); language models `seq_len` (tokens that pass),
    `context` (tokens in the KV
    cache before), `kv_dtype`; vision models `image` (pixels a side).

    Raises ValueError for an unknown name (listing near ones), an unknown option, or a value that is not allowed.
    """
    known = known_options(name)
    for option in chosen:
        if option not in known and not known:
            raise ValueError(f"{name}: a workload file takes no options; got {', '.join(chosen)}")
        if option not in known:
            raise unknown_name(f"{name}: option", option, known)
    if _PHASE in chosen and _PHASE not in _own_options(name):
        phase = chosen.pop(_PHASE)
        if phase not in ("prefill", "train"):
            raise unknown_name(f"{name}: phase", phase, ("prefill", "train"))
        made = load(name, **chosen)
        return training_step(made) if phase == "train" else made
    if name not in BUILDERS:
        return import_file(name, **chosen) if is_importable(name) else load_workload_file(name)
    for option, value in chosen.items():
        check_option(name, option, value, known[option])
    return BUILDERS[name](name, **chosen)


def check_option(name: str, option: str, value: object, default: object) -> None:
    """Raise ValueError where `value` is not of the kind of an option's `default`: a size is at least 1, one that defaults to 0
    at least 0, a factor a positive number. What a name may be, its builder knows."""
    where = f"{name}: {option} is {value!r}; allowed:"
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{where} True or False")
    elif isinstance(default, int):
        least = min(default, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{where} an integer of at least {least}")
    elif isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
            raise ValueError(f"{where} a number of at least 0")
    elif isinstance(default, str) and not isinstance(value, str):
        raise ValueError(f"{where} a name")
