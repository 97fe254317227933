"""Timeloop + Accelergy on Gemmini-like hardware (DOSA's data set): the same mapping, counted by Timeloop's conventions."""

import re
from pathlib import Path

import jax
import numpy as np

from ..cost import TIMELOOP, LoopNest, NestCost, Problem, loop_nest, loopnest_cost
from ..hardware import Hierarchy, gemmini
from ._comparison import Comparison
from ._table_file import Column, read_table

# Levels of W, I and O that a loop written at L0 (register) to L3 (DRAM) belongs to
_LEVELS = ((0, 0, 0), (1, 0, 0), (1, 0, 1), (2, 1, 1))
_SPATIAL = {("K", 2): (1, 0, 1), ("C", 1): (1, 0, 0)}  # over columns, over rows
_SLOTS, _UNROLLED = 16, 2
_SIZE = Column(int, least=1)
GEMMINI_COLUMNS = {
    "accumulator_entries_per_column": _SIZE, "scratchpad_entries": _SIZE, "R": _SIZE, "S": _SIZE, "P": _SIZE, "Q": _SIZE,
    "C": _SIZE, "K": _SIZE, "stride": _SIZE, "mapping": str,
}  # fmt: skip


def compare(path: str | Path, parameters: str | Path | None = None) -> list[Comparison]:
    """Cycles and energy of every row, by the array it ran on. `parameters` are not used."""
    columns = {**GEMMINI_COLUMNS, "pe_array_dim": _SIZE, "cycles": float, "energy_uJ": float}
    rows = read_table(path, columns)
    with jax.enable_x64(True):
        cost = timeloop_cost(*gemmini_rows(path, rows, rows["pe_array_dim"]))
        cycles, energy_j = np.asarray(cost.cycles), np.asarray(cost.total_j)
    group = [f"{d}x{d}" for d in rows["pe_array_dim"]]
    return [
        # a rounding error before its last ceil gives Timeloop a cycle more in 7 % of the rows
        Comparison("cycles", "cycles", cycles, rows["cycles"], group, slack=1.0),
        Comparison("energy_j", "J", energy_j, rows["energy_uJ"] * 1e-6, group, tolerance=1e-4),
    ]


def gemmini_rows(path, rows: dict[str, np.ndarray], pes: np.ndarray) -> tuple[Problem, LoopNest, Hierarchy]:
    """Every row's layer, mapping and Gemmini (arrays of `pes x pes`), trailing axis the rows. ValueError naming the row."""
    where = [f"{path}: row {i + 1}, column mapping" for i in range(len(rows["mapping"]))]
    nests = [parse_mapping(at, text) for at, text in zip(where, rows["mapping"], strict=True)]
    machines = [
        gemmini(int(d), a, s)
        for d, a, s in zip(pes, rows["accumulator_entries_per_column"], rows["scratchpad_entries"], strict=True)
    ]
    one = np.ones(len(nests))
    sizes = np.stack([one, one, *(rows[d] for d in "KCPQRS")]).astype(float)
    for i, nest in enumerate(nests):
        _check_bounds(where[i], nest, sizes[:, i])
    real = np.stack([(rows[a] - 1) * rows["stride"] + rows[b] for a, b in ("PR", "QS")])
    problem = Problem(sizes, rows["stride"] * 1.0, real, 8 * one, 8 * one, 32 * one, 8 * one)
    return problem, *(jax.tree.map(lambda *x: np.stack(x, axis=-1), *many) for many in (nests, machines))


@jax.jit
def timeloop_cost(problem: Problem, nest: LoopNest, machine: Hierarchy) -> NestCost:
    """The loop-nest model by Timeloop's conventions."""
    return loopnest_cost(problem, nest, machine, TIMELOOP)


def parse_mapping(where: str, text: str) -> LoopNest:
    """`L3[WIO] S3 K16 - L2[WI] N1 K4X - ...`: levels and loops from the outermost in, X marks what is unrolled.

    ValueError naming `where` and the token that is not understood."""
    temporal, spatial = [], []
    for part in text.split(" - "):
        head, *tokens = part.split()
        level = re.fullmatch(r"L([0-3])\[[WIO]+\]", head)
        if level is None:
            raise ValueError(f"{where}: {head!r}; allowed: a level such as L2[WI]")
        at = int(level.group(1))
        for token in tokens:
            loop = re.fullmatch(r"([NKCPQRS])(\d+)(X?)", token)
            if loop is None or int(loop.group(2)) < 1:
                raise ValueError(f"{where}: {token!r}; allowed: a loop such as K16, or K16X in space")
            dim, factor = loop.group(1), int(loop.group(2))
            if loop.group(3):
                if (dim, at) not in _SPATIAL:
                    raise ValueError(f"{where}: {token!r} at L{at}; allowed in space: K at L2, C at L1")
                spatial.append((dim, factor, _SPATIAL[dim, at]))
            elif factor > 1:
                temporal.append((dim, factor, _LEVELS[at]))
    return loop_nest(temporal[::-1], spatial, _SLOTS, _UNROLLED)


def _check_bounds(where: str, nest: LoopNest, sizes) -> None:
    for d, name in enumerate("GNKCPQRS"):
        bound = np.prod(nest.factor[nest.dim == d]) * np.prod(nest.spatial_factor[nest.spatial_dim == d])
        if bound != sizes[d]:
            raise ValueError(f"{where}: loops over {name} multiply to {bound:g}; the layer has {sizes[d]:g}")
