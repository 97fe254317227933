"""Workloads filled up to round sizes, so that one compiled program serves many."""

from dataclasses import replace

import numpy as np

from ._graph import Workload
from ._operators import KINDS, Operators

_INPUTS = (2, 3, 4, 8)


def round_size(n: int, least: int = 8) -> int:
    """The next round size: four to an octave, so that at most a fifth of it is empty."""
    if n <= least:
        return least
    step = max(1, 1 << (n.bit_length() - 3))
    return -(-n // step) * step


def fill_up(workload: Workload) -> Workload:
    """The same workload with rows and edges of nothing at its end: rows have a `count` of 0, edges lead from and to no row.

    Whoever reads `count` says the same of both, to the last bit. Leaves are NumPy arrays: on the host only.
    """
    n, edges = workload.n_operators, workload.source.shape[0]
    rows, more_edges = round_size(n) - n, round_size(edges) - edges
    width = workload.inputs.shape[1]
    inputs = next((w for w in _INPUTS if w >= width), width) - width
    count = np.ones(n) if workload.count is None else np.asarray(workload.count)

    def longer(x, value):
        return np.concatenate([np.asarray(x), np.full((rows, *np.shape(x)[1:]), value, np.asarray(x).dtype)])

    def wider(x, value):
        x = longer(x, value)
        return np.concatenate([x, np.full((x.shape[0], inputs), value, x.dtype)], axis=1)

    def edge(x, value):
        return np.concatenate([np.asarray(x), np.full(more_edges, value, np.asarray(x).dtype)])

    nowhere = n + rows
    return replace(
        workload,
        operators=_operators(workload.operators, longer),
        source=edge(workload.source, nowhere),
        target=edge(workload.target, nowhere),
        edge_bytes=edge(workload.edge_bytes, 0.0),
        model=longer(workload.model, workload.n_models - 1),
        outside_in_bytes=longer(workload.outside_in_bytes, 0.0),
        outside_out_bytes=longer(workload.outside_out_bytes, 0.0),
        hold_bytes=longer(workload.hold_bytes, 0.0),
        inputs=wider(workload.inputs, -1),
        input_bytes=wider(workload.input_bytes, 0.0),
        input_last=wider(workload.input_last, False),
        slot=longer(workload.slot, -1),
        input_slot=wider(workload.input_slot, -1),
        first=longer(workload.first, False),
        live_bytes=longer(workload.live_bytes, 0.0),
        n_slots=max(8, 1 << (workload.n_slots - 1).bit_length()),
        count=longer(count, 0.0),
    )


# A row that nobody counts: a copy of one element, so that nothing is divided by zero, in derivatives neither.
_BOUNDS = dict.fromkeys(
    ("groups", "batch", "k", "c", "p", "q", "r", "s", "stride", "ranks", "rank_step"), 1
) | dict.fromkeys(("lane_ops", "in_elements", "out_elements"), 1.0)
_BITS = dict.fromkeys(("in_bits", "weight_bits", "out_bits", "psum_bits"), 8.0)


def _operators(operators: Operators, longer) -> Operators:
    fill = {"kind": KINDS.index("copy"), **_BOUNDS, **_BITS}
    names = Operators.__dataclass_fields__
    return Operators(**{n: longer(getattr(operators, n), fill.get(n, 0.0)) for n in names})
