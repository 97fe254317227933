"""Chains of equal layers as one layer whose rows carry a count, for schedules that do not tell the layers apart."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ._graph import Workload, assemble
from ._operators import Operators

_ALIGNMENTS = 8  # where a chain may begin: it repeats from any of its rows on, but what reads it may only allow some
_LIVE = 1e-9  # relative: what is live is a running sum


class Folding(NamedTuple):
    """Which rows of a graph of `L` rows stand for others.

    - `stand_in`: of each row the row that stands for it (itself, or an earlier one), `[L]` int.
    - `count`: how many rows it stands for, itself included; 0 where another one stands for it, `[L]` int.
    """

    stand_in: np.ndarray
    count: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Rows that stay."""
        return np.flatnonzero(self.count)

    def only(self, rows: np.ndarray) -> "Folding":
        """That of the graph which has only some rows, `[L]` bool: of rows alike all or none."""
        place = np.cumsum(rows) - 1
        return Folding(place[self.stand_in[rows]], self.count[rows])


def fold(workload: Workload, *, ends: int = 0) -> Workload:
    """A workload whose repeated layers are there once, with `count`; on the host.

    Layers are a chain where rows repeat in every field, edges included, each layer reads nothing from outside but the one before
    it (the first: rows before the chain that leave as much), and nothing behind the chain reads any but the last. All fields
    are those of one layer, so that amounts of the whole are sums over rows times `count`, and so are times and energies of a
    schedule that treats all layers alike (one chiplet, one window, one memory tier for all of their weights).

    `ends`: first and last layers of each chain that stay apart. Rules that look at an edge's both ends (fusion) find the same
    neighbours around a folded layer as around each of those it stands for from 1 on.

    What does not repeat so stays as it is: a workload without such chains, training (backward rows read every layer). Counts
    of a workload that is folded already are multiplied. Raises ValueError where `ends` is negative.
    """
    return folded(workload, folding(workload, ends=ends))


def folding(workload: Workload, *, ends: int = 0) -> Folding:
    """Which rows `fold` lets stand for others: chains that save most rows first."""
    if ends < 0:
        raise ValueError(f"ends is {ends}; allowed: an integer of at least 0")
    n = workload.n_operators
    found = Folding(np.arange(n), np.ones(n, int))
    taken = np.zeros(n, bool)
    for _, period, start, length in sorted(_repeats(_alike(workload), ends), key=lambda r: (-r[0], r[1], r[2])):
        for begin in range(start, start + min(length % period, _ALIGNMENTS - 1) + 1):
            layers = (length - (begin - start)) // period
            rows = np.arange(begin, begin + layers * period)
            if layers < 2 + 2 * ends or taken[rows].any() or not _is_chain(workload, begin, period, layers):
                continue
            taken[rows] = True
            first, inner = begin + ends * period, layers - 2 * ends
            found.stand_in[first : first + inner * period] = np.tile(np.arange(first, first + period), inner)
            found.count[first : first + inner * period] = np.repeat([inner] + [0] * (inner - 1), period)
            break
    return found


def folded(workload: Workload, by: Folding) -> Workload:
    """The workload of the rows that stay. What is live while a row runs is that of the whole pass."""
    w, rows = workload, by.rows
    if len(rows) == w.n_operators:
        return w
    place = np.full(w.n_operators, -1)
    place[rows] = np.arange(len(rows))
    kept = by.count[w.target] > 0
    edges = zip(place[by.stand_in[w.source[kept]]], place[w.target[kept]], w.edge_bytes[kept], strict=True)
    short = assemble(
        Operators(**{name: np.asarray(getattr(w.operators, name))[rows] for name in Operators.__dataclass_fields__}),
        list(edges), w.model[rows], w.outside_in_bytes[rows], w.outside_out_bytes[rows], w.rate, w.batch,
        np.stack([w.kv_bytes_per_token, w.kv_tokens, w.state_bytes]), tuple(w.names[i] for i in rows), w.model_names, w.mix,
    )  # fmt: skip
    of_one = {name: getattr(w, name)[rows] for name in ("outside_out_bytes", "hold_bytes", "live_bytes")}
    before = 1.0 if w.count is None else w.count[rows]
    return replace(short, count=by.count[rows] * np.asarray(before, np.float64), **of_one)


def _alike(w: Workload) -> np.ndarray:
    """A number for each row, equal where all fields are and what it reads lies as far before it."""
    offsets = np.where(w.inputs >= 0, np.arange(w.n_operators)[:, None] - w.inputs, 0)
    of_rows = [w.outside_in_bytes, w.outside_out_bytes, w.hold_bytes, w.model, w.first]
    of_rows += [getattr(w.operators, name) for name in Operators.__dataclass_fields__]
    of_rows += [] if w.count is None else [w.count]
    table = np.column_stack([*of_rows, offsets, w.input_bytes, w.input_last]).astype(np.float64)
    return np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)


def _repeats(alike: np.ndarray, ends: int) -> list[tuple[int, int, int, int]]:
    """(rows saved, period, first row, rows) of every stretch that repeats with a period."""
    found = []
    for period in range(1, len(alike) // (2 + 2 * ends) + 1):
        same = np.concatenate([[False], alike[period:] == alike[:-period], [False]])
        bounds = np.flatnonzero(same[1:] != same[:-1])
        for begin, end in zip(bounds[::2].tolist(), bounds[1::2].tolist(), strict=True):
            layers = (end - begin) // period + 1
            if layers >= 2 + 2 * ends:
                found.append(((layers - 1 - 2 * ends) * period, period, begin, end - begin + period))
    return found


def _is_chain(w: Workload, begin: int, period: int, layers: int) -> bool:
    end = begin + layers * period
    source, target = w.source, w.target
    inside, layer_of = (source >= begin) & (source < end), (target - begin) // period
    reads = (target >= begin) & (target < end)
    between = reads & (source < begin + layer_of * period)  # edges into a layer from outside
    later = between & (layer_of > 0)
    if (source[later] < begin + (layer_of[later] - 1) * period).any():
        return False
    if ((target >= end) & inside & (source < end - period)).any():
        return False
    # what enters the first layer is as large as what enters the second
    first = between & (layer_of == 0)
    if not np.array_equal(w.hold_bytes[source[first]], w.hold_bytes[source[between & (layer_of == 1)]]):
        return False
    live = w.live_bytes[begin:end].reshape(layers, period)
    return bool(np.allclose(live, live[:1], rtol=_LIVE, atol=0))
