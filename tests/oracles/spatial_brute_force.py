"""Slow and obvious: units of stages by enumeration, all convex partitions of small programs, bytes of a group by counting tensors."""

from itertools import product

import numpy as np


def best_slowest(work, units: int) -> float:
    """Least `max(work / units)` over all whole numbers of units, one at least for each stage with work."""
    stages = [w for w in work if w > 0]
    best = np.inf
    for some in product(range(1, units + 1), repeat=len(stages)):
        if sum(some) <= units:
            best = min(best, max(w / u for w, u in zip(stages, some, strict=True)))
    return best


def partitions(n: int):
    """All partitions of `range(n)`, as lists of lists."""
    if n == 0:
        yield []
        return
    for smaller in partitions(n - 1):
        for i in range(len(smaller)):
            yield [*smaller[:i], [*smaller[i], n - 1], *smaller[i + 1 :]]
        yield [*smaller, [n - 1]]


def is_convex(p, members) -> bool:
    """Whether the graph of groups has no cycle."""
    group = {row: g for g, rows in enumerate(members) for row in rows}
    after = {
        (group[int(s)], group[int(t)])
        for s, t in zip(p.source, p.target, strict=True)
        if group[int(s)] != group[int(t)]
    }
    left = set(range(len(members)))
    while left:
        free = [g for g in left if not any(b == g and a in left for a, b in after)]
        if not free:
            return False
        left -= set(free)
    return True


def moved_bytes(p, rows) -> tuple[float, float]:
    """(bytes read, bytes written) of a group, weights aside."""
    rows, read, write = set(rows), 0.0, 0.0
    for row in rows:
        read += p.read_bytes[row]
        write += p.write_bytes[row]
    edges = list(zip(p.source.tolist(), p.target.tolist(), p.edge_bytes.tolist(), strict=True))
    for tensor in range(p.n_rows):
        here = sum(b for s, t, b in edges if s == tensor and t in rows)
        if tensor not in rows and here:
            read += min(here, p.out_bytes[tensor])
        if tensor in rows and any(s == tensor and t not in rows for s, t, _ in edges):
            write += p.out_bytes[tensor]
    return read, write


def timeline(busy, inputs, grain, stage_s) -> float:
    """Finish of a pipeline, stage by stage."""
    start, finish = [], []
    for i, time in enumerate(busy):
        latency = stage_s if time > 0 else 0.0
        begun = max([start[s] + g * busy[s] for s, g in zip(inputs[i], grain[i], strict=True) if s >= 0], default=0.0)
        ended = max([finish[s] + g * time for s, g in zip(inputs[i], grain[i], strict=True) if s >= 0], default=0.0)
        start.append(begun + latency)
        finish.append(max(start[-1] + time, ended + latency))
    return max(finish)
