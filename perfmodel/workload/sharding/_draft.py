"""A workload in the making whose rows may still be cut: rows as dictionaries of exact integers, edges by their reader."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor

import numpy as np

from .._graph import GraphBuilder, Workload, forced_out
from .._operators import DIMS, Operators

Piece = tuple[Fraction, Fraction]  # from where to where, of 1
ALL: Piece = (Fraction(0), Fraction(1))
NONE: Piece = (Fraction(0), Fraction(0))
COUNTS = ("lane_ops", "in_elements", "out_elements", "parameters", "weight_elements")


@dataclass
class Draft:
    """Rows of one model in execution order. `feeds`: of each row (earlier row, bytes).  `cached`: of its KV cache bytes a token, tokens,
    states.  `tokens`: how a row follows the tokens of a batch, see `_tokens`."""

    name: str
    batch: int
    cached: list[float]
    names: list[str] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    feeds: list[list[tuple[int, float]]] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)  # from outside
    writes: list[float] = field(default_factory=list)  # to outside, whoever reads the result besides
    tokens: list[str] = field(default_factory=list)

    def add(self, name: str, row: dict, feeds: Sequence[tuple[int, float]], reads=0.0, writes=0.0, tokens="") -> int:
        """Appends a row; returns its index."""
        for of, value in (
            (self.names, name), (self.rows, row), (self.feeds, list(feeds)), (self.reads, float(reads)),
            (self.writes, float(writes)), (self.tokens, tokens),
        ):  # fmt: skip
            of.append(value)
        return len(self.rows) - 1

    def build(self) -> Workload:
        graph = GraphBuilder(self.name, self.batch)
        graph.kv_bytes_per_token, graph.kv_tokens, graph.state_bytes = self.cached
        for i, row in enumerate(self.rows):
            graph.add(self.names[i], row, self.feeds[i], self.reads[i], self.writes[i])
        return graph.build()

    def readers(self) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in self.rows]
        for i, feed in enumerate(self.feeds):
            for source, _ in feed:
                found[source].append(i)
        return found

    def kept_like(self, other: "Draft") -> None:
        """The share of caches and states that `other`, from which this was cut, has: as of what a pass leaves in memory."""
        mine, whole = sum(self.writes), sum(other.writes)
        part = mine / whole if whole else 1.0
        self.cached = [other.cached[0] * part, other.cached[1], other.cached[2] * part]


def draft(workload: Workload) -> Draft:
    """Raises ValueError for several models at once and for a folded workload."""
    w = workload
    if w.count is not None:
        raise ValueError(f"{w.model_names[0]}: is folded; shard the whole graph, then fold")
    if w.n_models != 1:
        raise ValueError(f"{', '.join(w.model_names)}: several models; shard each, then merge")
    found = Draft(
        w.model_names[0], int(w.batch[0]),
        [float(w.kv_bytes_per_token[0]), float(w.kv_tokens[0]), float(w.state_bytes[0])],
    )  # fmt: skip
    columns = {name: np.asarray(getattr(w.operators, name)).tolist() for name in Operators.__dataclass_fields__}
    for name in (*COUNTS, "ranks", "rank_step"):
        columns[name] = [int(value) for value in columns[name]]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    feeds: list[list[tuple[int, float]]] = [[] for _ in rows]
    for source, target, nbytes in zip(w.source.tolist(), w.target.tolist(), w.edge_bytes.tolist(), strict=True):
        feeds[target].append((source, nbytes))
    for i, row in enumerate(rows):
        found.add(w.names[i], row, feeds[i], float(w.outside_in_bytes[i]))
    found.writes = np.asarray(forced_out(w), np.float64).tolist()
    return found


def part(units: int, ranks: int, rank: int) -> tuple[int, int]:
    """Units from where to where rank has of `ranks`; the first ones have one more where they do not divide."""
    each, more = divmod(units, ranks)
    begin = rank * each + min(rank, more)
    return begin, begin + each + (rank < more)


def piece(units: int, ranks: int, rank: int) -> Piece:
    begin, end = part(units, ranks, rank)
    return Fraction(begin, units), Fraction(end, units)


def cut(size: int, of: Piece) -> int:
    """How many of `size` lie in a piece; over pieces that fill 1 they add up to `size`."""
    return floor(size * of[1]) - floor(size * of[0])


def length(of: Piece) -> Fraction:
    return of[1] - of[0]


def empty(row: dict) -> dict:
    """A row of the same kind without work: what a rank has of a row that was dealt to others."""
    return {**row, **dict.fromkeys(DIMS, 1), **dict.fromkeys(COUNTS, 0), "is_matrix": 0.0}
