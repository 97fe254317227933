"""Systolic arrays against SCALE-Sim 3.0.0 (cycle simulator, CALC mode): cycles and words through its three SRAMs.

The model's answer is `on_chip`, which the cost table calls. Two conventions of the tool are taken over in the comparison
only: `total_cycles` is the index of the last cycle, one less than their number; and its `os` counts of output writes exceed
M N by (rows + columns) per fold, a defect, so that the reference is the repaired count.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from ..cost import on_chip
from ..hardware import DATAFLOWS, Chiplets
from ..workload import operator_row
from ..workload._operators import stack_operators
from ._comparison import Comparison
from ._table_file import Column, Optional, read_table

_FLOWS = ("os", "ws", "is")
_CONV = ("K", "C", "R", "S", "stride", "P_out", "Q_out")
_COUNTS = ("sram_ifmap_reads_words", "sram_filter_reads_words", "sram_ofmap_writes_words_raw")


def compare(path: str | Path, parameters: str | Path | None = None) -> list[Comparison]:
    """Cycles and SRAM words of every row of a `scalesim.csv`, grouped by dataflow.

    Raises ValueError as `read_table` does, and if `parameters` are given: there is nothing to calibrate.
    """
    if parameters is not None:
        raise ValueError(f"scalesim takes no parameters; got {parameters}")
    size = Column(int, least=1)
    table = read_table(
        path,
        {"dataflow": Column(str, allowed=_FLOWS)}
        | dict.fromkeys(("array_rows", "array_cols", "gemm_M", "gemm_N", "gemm_K"), size)
        | dict.fromkeys(_CONV, Optional(int))
        | dict.fromkeys(("total_cycles", *_COUNTS), Column(float, least=0)),
    )
    got = on_chip(stack_operators(_operators(table)), _arrays(table))
    folds = _folds(table) * (table["dataflow"] == "os")
    inputs, weights, outputs = (table[name] for name in _COUNTS)
    pairs = {
        "total_cycles": (got.cycles + got.fill_cycles - 1, table["total_cycles"]),
        "sram_ifmap_reads_words": (got.input_reads, inputs),
        "sram_filter_reads_words": (got.weight_reads, weights),
        "sram_ofmap_writes_words": (got.output_writes, outputs - folds * (table["array_rows"] + table["array_cols"])),
    }
    group = table["dataflow"].tolist()
    return [
        Comparison(name, "cycles" if name == "total_cycles" else "words", np.asarray(a, np.float64), b, group)
        for name, (a, b) in pairs.items()
    ]


def _operators(table: dict[str, np.ndarray]) -> list[dict]:
    """Convolutions where their sizes are given, else GEMMs."""
    rows = []
    for i in range(len(table["gemm_M"])):
        k, c, r, s, stride, p, q = (table[name][i] for name in _CONV)
        if np.isfinite([k, c, r, s, stride, p, q]).all():
            sizes = dict(k=int(k), c=int(c), p=int(p), q=int(q), r=int(r), s=int(s), stride=int(stride))
            rows.append(operator_row("conv", **sizes))
        else:
            m, n, depth = (int(table[f"gemm_{name}"][i]) for name in "MNK")
            rows.append(operator_row("gemm", k=n, c=depth, p=m))
    return rows


def _arrays(table: dict[str, np.ndarray]) -> Chiplets:
    """One chiplet a row: only its array matters here."""
    one = jnp.ones(len(table["dataflow"]))
    code = np.asarray([DATAFLOWS.index(f"{name}-systolic") for name in table["dataflow"]], np.int32)
    fields = dict.fromkeys(Chiplets.__dataclass_fields__, one)
    return Chiplets(**fields | dict(rows=table["array_rows"], columns=table["array_cols"], dataflow=code))


def _folds(table: dict[str, np.ndarray]) -> np.ndarray:
    """Folds of an output-stationary array."""
    return -(-table["gemm_M"] // table["array_rows"]) * -(-table["gemm_N"] // table["array_cols"])
