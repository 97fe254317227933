"""Rows of measured language models, served and trained: which model, machine, formats and software each one is."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._table_file import Column, Optional, read_table

_COLUMNS = {
    "source": str, "gpu": str, "model": str, "dtype": str, "n_gpu": Column(float, least=1), "tensor_parallel": Column(float, least=1),
    **{name: Optional(float) for name in ("pipeline_parallel", "batch", "output_tokens", "ttft_ms", "tpot_ms", "output_tokens_per_s",
                                          "output_tokens_per_s_per_gpu", "training_step_s")},
    "input_tokens": Column(float, least=1), "training_activation_recompute": Optional(str),
}  # fmt: skip
# What the sources call models, lower case and with dashes, and what we do. LLaMA 7B has the shape of Llama 2 7B; the 70B is Llama 2's.
_MODELS = {
    "llama-7b": "llama-2-7b", "llama-13b": "llama-2-13b", "llama-70b": "llama-2-70b", "llama-3.1-8b": "llama-3-8b", "llama-3.1-70b":
    "llama-3-70b", "llama-3.3-70b": "llama-3-70b", "llama-3.1-405b": "llama-3-405b", "gpt-j": "gpt-j-6b", "mixtral-8x7b": "mixtral-8x7b",
    "megatron-175b": "gpt3-175b", "megatron-530b": "turing-530b",
}  # fmt: skip
# Beginnings of the sources' names of GPUs -> system of the catalogue with one of them. Longest first.
_GPUS = {
    "a100-sxm-40gb": "a100-40gb", "a100-40gb": "a100-40gb", "a100-sxm-80gb": "a100-80gb", "a100-80gb": "a100-80gb", "a100-sxm": "a100-80gb",
    "a100": "a100-80gb", "h100-sxm": "h100-80gb", "h100-80gb": "h100-80gb", "h100": "h100-80gb", "h200-sxm": "h200", "h200": "h200",
    "b200": "b200", "l40s": "l40s",
}  # fmt: skip
_CAP = re.compile(r"\((\d+)\s*W cap\)", re.IGNORECASE)
_VERSION = re.compile(r"\bv(\d+)\.(\d+)")
QUANTITIES = ("ttft_ms", "tpot_ms", "output_tokens_per_s_per_gpu", "output_tokens_per_s", "training_step_s")


class Row(NamedTuple):
    """A measurement. `system`, `model`: ours.  `power_w`: limit of each GPU, 0: its own.  `software`: `gpt-fast`, `trtllm`, `megatron` or
    another, with `version`.  `quantity`, `measured`: what was measured (one of `QUANTITIES`); `group`: label of figures."""

    software: str
    version: tuple[int, int]
    system: str
    power_w: float
    model: str
    dtype: str
    devices: float
    tensor: float
    pipeline: float
    batch: float
    input_tokens: float
    output_tokens: float
    recompute: str
    quantity: str
    measured: float
    group: str


def read_rows(path: str | Path) -> tuple[list[Row], dict[str, int]]:
    """(rows, how many others there are of each model or GPU that we do not know, or without any quantity of ours).

    Raises ValueError in one line for a file that cannot be used.
    """
    from ...models._decoders import decoders

    table = read_table(path, _COLUMNS)
    known = set(decoders())
    rows: list[Row] = []
    others: dict[str, int] = {}
    for i in range(len(table["source"])):
        cell = {name: table[name][i] for name in _COLUMNS}
        model, system = _model(str(cell["model"]), known), _system(str(cell["gpu"]))
        quantity = _quantity(cell)
        reason = (
            f"model {cell['model']}"
            if not model
            else f"gpu {cell['gpu']}"
            if not system
            else ""
            if quantity
            else "no known quantity"
        )
        if reason:
            others[reason] = others.get(reason, 0) + 1
            continue
        cap = _CAP.search(str(cell["gpu"]))
        software, version = _software(str(cell["source"]))
        number = {
            name: float(np.nan_to_num(cell[name], nan=0.0)) for name in ("pipeline_parallel", "batch", "output_tokens")
        }
        rows.append(Row(
            software, version, system, float(cap.group(1)) if cap else 0.0, model, str(cell["dtype"]), float(cell["n_gpu"]),
            float(cell["tensor_parallel"]), number["pipeline_parallel"] or 1.0, number["batch"], float(cell["input_tokens"]),
            number["output_tokens"], str(cell["training_activation_recompute"]), quantity, float(cell[quantity]),
            f"{software} {cell['gpu']} {cell['dtype']}",
        ))  # fmt: skip
    return rows, others


def _model(name: str, known: set[str]) -> str:
    plain = name.lower().replace(" ", "-").replace("_", "-")
    found = _MODELS.get(plain, plain)
    return found if found in known else ""


def _system(name: str) -> str:
    plain = name.lower().replace(" ", "-")
    return next(
        (
            _GPUS[start]
            for start in sorted(_GPUS, key=len, reverse=True)
            if plain == start or plain.startswith(f"{start}-")
        ),
        "",
    )


def _quantity(cell: dict) -> str:
    """What a row measures: latencies before the rates that are derived from them."""
    return next((name for name in QUANTITIES if np.isfinite(cell[name]) and cell[name] > 0), "")


def _software(source: str) -> tuple[str, tuple[int, int]]:
    lower = source.lower()
    found = _VERSION.search(source)
    version = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
    for mark, name in (
        ("gpt-fast", "gpt-fast"),
        ("tensorrt-llm", "trtllm"),
        ("calculon", "megatron"),
        ("megatron", "megatron"),
    ):
        if mark in lower:
            return name, version
    return lower.split("/")[0].split(" ")[0] or "unknown", version
