"""Pipeline parallelism: where a graph can be cut into stages, and the rows of one."""

import numpy as np

from .._operators import DIMS, collective_row
from ._draft import Draft, part

_ALIKE = 4  # rows by whose kinds one tells that a block begins


def stage_starts(d: Draft, stages: int) -> list[int]:
    """First row of each of `stages` stages: blocks, as many to each (the first ones one more), where the graph has as many; else wherever a
    single tensor crosses, so that the most multiply-accumulates of a stage are as few as can be.

    Raises ValueError where there are not so many places.
    """
    narrow = _narrow(d)
    blocks = _blocks(d, narrow)
    if len(blocks) >= stages:
        return [0] + [blocks[part(len(blocks), stages, s)[0]] for s in range(1, stages)]
    if len(narrow) + 1 < stages:
        raise ValueError(
            f"ranks: pipeline is {stages}; allowed for {d.name}: 1 to {len(narrow) + 1}, where one tensor crosses"
        )
    return _even(d, narrow, stages)


def _narrow(d: Draft) -> list[int]:
    """Rows before which a single tensor is alive."""
    last = list(range(len(d.rows)))
    for i, feed in enumerate(d.feeds):
        for source, _ in feed:
            last[source] = i
    change = np.zeros(len(d.rows) + 1, int)
    for i, end in enumerate(last):
        change[i + 1] += 1  # alive before rows i + 1 to end
        change[end + 1] -= 1
    alive = np.cumsum(change)
    return [i for i in range(1, len(d.rows)) if alive[i] == 1]


def _blocks(d: Draft, narrow: list[int]) -> list[int]:
    """Places where equal sequences of kinds begin, those that begin first."""
    kinds = [row["kind"] for row in d.rows]
    begins: dict[tuple, list[int]] = {}
    for i in narrow:
        begins.setdefault(tuple(kinds[i : i + _ALIKE]), []).append(i)
    return next((found for found in begins.values() if len(found) > 1), [])


def _macs(row: dict) -> float:
    return row["is_matrix"] * float(np.prod([float(row[name]) for name in DIMS])) + 1e-3 * row["lane_ops"]


def _even(d: Draft, narrow: list[int], stages: int) -> list[int]:
    """Dynamic programming over the places: the least of the largest sums."""
    sums = np.concatenate([[0.0], np.cumsum([_macs(row) for row in d.rows])])
    starts = [0, *narrow]
    ends = np.asarray([sums[i] for i in [*starts[1:], len(d.rows)]])
    begins = np.asarray([sums[i] for i in starts])
    n = len(starts)
    best, choice = ends.copy(), []  # of one stage that ends with piece j
    for _ in range(stages - 1):
        cost = np.full((n, n), np.inf)  # [j, first piece of the last stage]
        for j in range(1, n):
            cost[j, 1 : j + 1] = np.maximum(best[:j], ends[j] - begins[1 : j + 1])
        choice.append(np.argmin(cost, axis=1))
        best = np.min(cost, axis=1)
    found, j = [], n - 1
    for first in reversed(choice):
        found.append(starts[int(first[j])])
        j = int(first[j]) - 1
    return [0, *reversed(found)]


def stage(d: Draft, starts: list[int], number: int, step: int) -> Draft:
    """Rows of a stage; what an earlier one made comes from memory, where it was received; what later ones read is sent on."""
    begin, end = starts[number], (*starts, len(d.rows))[number + 1]
    made = Draft(d.name, d.batch, list(d.cached))
    for i in range(begin, end):
        received = sum(nbytes for source, nbytes in d.feeds[i] if source < begin)
        feeds = [(source - begin, nbytes) for source, nbytes in d.feeds[i] if source >= begin]
        made.add(d.names[i], d.rows[i], feeds, d.reads[i] + received, d.writes[i], d.tokens[i])
    crossing = dict.fromkeys(source for i in range(end, len(d.rows)) for source, _ in d.feeds[i] if source < end)
    for source in crossing:  # from an earlier stage too: handed through
        row = d.rows[source]
        sent = collective_row("send", max(row["out_elements"], 1), len(starts), bits=row["out_bits"], rank_step=step)
        nbytes = row["out_elements"] * row["out_bits"] / 8
        mine = source >= begin
        made.add(f"{d.names[source]}.send", sent, [(source - begin, nbytes)] if mine else [], 0.0 if mine else nbytes)
    made.kept_like(d)
    return made
