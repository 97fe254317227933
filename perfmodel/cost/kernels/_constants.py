"""Fitted constants of GPU kernels: the ones shipped with the package, and files of a user's own calibration."""

import json
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import msgspec

from ..._files import decode_file
from ..._names import unknown_name
from ._attention import DecodeParameters, PrefillParameters
from ._collective import CollectiveParameters
from ._elementwise import ElementwiseParameters
from ._gemm import GemmParameters
from ._moe import MoeParameters

FAMILIES: dict[str, Any] = {  # family of kernels -> its parameters
    "gemm": GemmParameters,
    "attn_decode": DecodeParameters,
    "attn_prefill": PrefillParameters,
    "moe_ffn": MoeParameters,
    "custom_all_reduce": CollectiveParameters,
    "nccl": CollectiveParameters,
    "elementwise": ElementwiseParameters,
}
SHIPPED = Path(__file__).parent / "gpu_constants.json"
_VERSION = 1


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """Constants of one kernel family on one GPU with one library; `gpu` and `source` are "any" for shared ones.

    `values` and `log_sd` (standard deviation of the logarithm) by name, nested names with a dot.
    """

    gpu: str
    source: str
    family: str
    variant: str
    values: dict[str, float]
    log_sd: dict[str, float] = {}
    rows: int = 0
    mape_percent: float = 0.0


class ParameterFile(msgspec.Struct, forbid_unknown_fields=True):
    """What a parameter file holds: its version, where it came from, and its entries."""

    version: int
    entries: list[Entry]
    fitted_to: str = ""


def flat(parameters: eqx.Module, prefix: str = "") -> dict[str, float]:
    """Values by name; those of a module inside as `name.inner`."""
    values: dict[str, float] = {}
    for field in fields(parameters):
        value = getattr(parameters, field.name)
        if isinstance(value, eqx.Module):
            values |= flat(value, f"{prefix}{field.name}.")
        else:
            values[prefix + field.name] = float(value)
    return values


def rebuilt(like: eqx.Module, values: dict[str, float], prefix: str = "") -> eqx.Module:
    """A module of the kind of `like` with the values of `flat`; what is missing keeps its default."""
    made: dict[str, Any] = {}
    for field in fields(like):
        value = getattr(like, field.name)
        if isinstance(value, eqx.Module):
            made[field.name] = rebuilt(value, values, f"{prefix}{field.name}.")
        else:
            made[field.name] = jnp.asarray(values.get(prefix + field.name, float(value)), float)
    return type(like)(**made)


class Constants:
    """Looks up parameters: those of this GPU and library, else the shared ones, else the defaults of the model."""

    def __init__(self, entries: list[Entry]):
        self._entries = {(e.gpu, e.source, e.family, e.variant): e for e in entries}

    def __call__(self, gpu: str, source: str, family: str, variant: str) -> Any:
        """Parameters of `family`'s model (a name in `FAMILIES`); `variant`: dtype ("bf16"), of attention with the cache's
        ("bf16/fp8"), or the operator ("nccl_all_gather")."""
        start = FAMILIES[family]()
        for key in ((gpu, source, family, variant), ("any", "any", family, variant)):
            if key in self._entries:
                return rebuilt(start, self._entries[key].values)
        return rebuilt(start, {})


@lru_cache(maxsize=1)
def _shipped() -> tuple[Entry, ...]:
    return tuple(read_entries(SHIPPED)) if SHIPPED.exists() else ()


def constants(path: str | Path | None = None) -> Constants:
    """Shipped constants, over them those of the parameter file at `path`. Raises ValueError in one line for a bad file."""
    return Constants([*_shipped(), *(read_entries(path) if path is not None else [])])


def read_entries(path: str | Path) -> list[Entry]:
    """Entries of a parameter file, checked. Raises ValueError in one line naming file, field and value."""
    content = decode_file(path, ParameterFile)
    if content.version != _VERSION:
        raise ValueError(f"{path}: version is {content.version}; allowed: {_VERSION}")
    for i, entry in enumerate(content.entries):
        where = f"{path}: entries[{i}]"
        if entry.family not in FAMILIES:
            raise unknown_name(f"{where}.family", entry.family, FAMILIES)
        known = flat(FAMILIES[entry.family]())
        for name, value in entry.values.items():
            if name not in known:
                raise unknown_name(f"{where}.values", name, known)
            if not 0 < value < float("inf"):
                raise ValueError(f"{where}.values.{name} is {value}; allowed: positive finite numbers")
    return content.entries


def write_entries(path: str | Path, entries: list[Entry], fitted_to: str) -> None:
    """A parameter file that `constants` reads. Raises ValueError if it cannot be written."""
    content = msgspec.to_builtins(ParameterFile(_VERSION, entries, fitted_to))
    try:
        Path(path).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from None
