"""`pm.models`: workloads by name or by file."""

import inspect
from pathlib import Path

from .._names import unknown_name
from ._file import load_workload_file
from ._graph import Workload
from .zoo import BUILDERS


def names() -> list[str]:
    """Names of all built-in models."""
    return sorted(BUILDERS)


def load(name: str, **options) -> Workload:
    """A model by its name, or from a workload file (`.yaml`, `.yml`, `.json`).

    **Arguments:** `name`; `options` of the builder: `batch` for all, `seq_len` and `lm_head` for GPT-2, `image` for ResNet.

    Raises ValueError for an unknown name (listing near ones), an unknown option, or a size below one.
    """
    if Path(name).suffix in (".yaml", ".yml", ".json"):
        if options:
            raise ValueError(f"{name}: a workload file takes no options; got {', '.join(options)}")
        return load_workload_file(name)
    if name not in BUILDERS:
        raise unknown_name("model", name, BUILDERS)
    builder = BUILDERS[name]
    allowed = [p.name for p in inspect.signature(builder).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option, value in options.items():
        if option not in allowed:
            raise unknown_name(f"{name}: option", option, allowed)
        if not isinstance(value, bool) and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}: {option} is {value!r}; allowed: an integer of at least 1")
    return builder(name, **options)
