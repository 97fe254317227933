"""Placement problems for tests: by hand from small tables, and random ones with every awkward thing in them."""

import numpy as np

from search.placement import NO_GROUP, Problem


def problem(times, edges, *, memory=None, capacity=None, group=None, **more) -> Problem:
    """`times [N][D]`; `edges`: (source, target, transfer time between unlike devices, a matrix of them, or None)."""
    times = np.asarray(times, float)
    n, d = times.shape
    transfer = np.zeros((len(edges), d, d))
    for e, (_, _, comm) in enumerate(edges):
        transfer[e] = 0.0 if comm is None else comm
        np.fill_diagonal(transfer[e], 0.0)
    return Problem(
        times=times,
        memory_bytes=np.zeros(n) if memory is None else np.asarray(memory, float),
        capacity_bytes=np.ones(d) if capacity is None else np.asarray(capacity, float),
        source=np.asarray([e[0] for e in edges], int), target=np.asarray([e[1] for e in edges], int), transfer=transfer,
        moves=np.asarray([e[2] is not None for e in edges], bool),
        group=np.full(n, NO_GROUP) if group is None else np.asarray(group),
        names=tuple(f"t{i}" for i in range(n)), device_names=tuple(f"d{k}" for k in range(d)), **more,
    )  # fmt: skip


def random_problem(seed: int, *, congestion: bool = False, memory: str = "loose", largest: int = 14) -> Problem:
    """Small whole numbers, so that sums are exact and ties many; tasks of no time, devices that cannot run a task, edges that move
    nothing, colocation groups. `memory`: loose, or exact (every device is full in the only kind of packing)."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, largest)), int(rng.integers(1, 5))
    times = rng.integers(0, 9, (n, d)).astype(float)
    times[rng.random(n) < 0.15] = 0.0
    home = rng.integers(0, d, n)  # a placement that always exists
    times[(rng.random((n, d)) < 0.1) & (np.arange(d) != home[:, None])] = np.inf
    edges = []
    for j in range(1, n):
        for i in rng.choice(j, size=min(j, int(rng.integers(0, 4))), replace=False):
            comm = None if rng.random() < 0.2 else rng.integers(0, 7, (d, d))
            edges.append((int(i), j, comm))
    group = np.full(n, NO_GROUP)
    for g in range(int(rng.integers(0, 3))):
        alone = np.flatnonzero(group == NO_GROUP)
        mates = rng.choice(alone, size=min(len(alone), 2), replace=False)
        group[mates] = 10 + g
        home[mates] = home[mates[0]] if len(mates) else 0
        times[mates, home[mates]] = rng.integers(0, 9, len(mates))
    size = rng.integers(0, 12, n).astype(float)
    full = np.bincount(home, weights=size, minlength=d)
    capacity = full if memory == "exact" else np.full(d, size.sum() + 1.0)
    return problem(
        times, edges, memory=size, capacity=capacity, group=group, congestion=congestion, name=f"random {seed}"
    )
