"""Public lists whose modules are loaded when a name of theirs is first asked for."""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def listed(package: str, lists: Mapping[str, tuple[str, ...]], name: str) -> Any:
    """The name `name` of a package that lists names by module: what `__getattr__` of the package returns.

    **Arguments:** `package`: its `__name__`.  `lists`: names by the module of the package that defines them.

    Raises AttributeError for a name that is not listed, as Python wants it.
    """
    for module, names in lists.items():
        if name in names:
            found = getattr(import_module(f".{module}", package), name)
            setattr(sys.modules[package], name, found)  # asked once
            return found
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
