"""Which rows become one kernel: the best partition of a chain into segments, exactly, by dynamic programming."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._fabric import Fabric
from ._program import Program
from ._segments import Segments, segment_s, segments

LARGEST = 64  # rows of a kernel, where nothing else is said


class Partition(NamedTuple):
    """Kernels as (first row, end) in order, and the seconds they take one after another."""

    cuts: tuple[tuple[int, int], ...]
    time_s: float

    @property
    def members(self) -> list[list[int]]:
        return [list(range(*cut)) for cut in self.cuts]


def best_chain(
    p: Program, fabric: Fabric, *, largest: int = LARGEST, spilled: float = 0.0, found: Segments | None = None
) -> Partition:
    """The fastest partition of the rows, as they stand, into kernels of at most `largest` neighbours that fit the SRAM.

    Segments of a topological order are convex groups, so any order makes a valid partition, and for every convex partition there
    is an order of which its groups are segments: exact on chains, and on graphs for the order given (search._partition searches
    orders). `best[j] = min over i of best[i] + time of rows i ... j`. `found`: segments made before, for this fabric's units and links.
    """
    found = segments(p, fabric, largest) if found is None else found
    seconds = np.asarray(segment_s(found, fabric, spilled)[0], np.float64)
    n, w = seconds.shape
    best, came = np.full(n + 1, np.inf), np.zeros(n + 1, int)
    best[0] = 0.0
    for j in range(1, n + 1):
        starts = np.arange(max(0, j - w), j)
        total = best[starts] + seconds[starts, j - starts - 1]
        k = int(np.argmin(total))
        best[j], came[j] = total[k], starts[k]
    cuts, end = [], n
    while end:
        cuts.append((int(came[end]), end))
        end = int(came[end])
    return Partition(tuple(reversed(cuts)), float(best[n]))


def soft_chain_s(found: Segments, fabric: Fabric, *, spilled=0.0, temperature=0.02):
    """The least time of all partitions, relaxed: each way to cut counts by its Boltzmann weight, so that the value has gradients in
    memory, SRAM and launch of the fabric through every partition that is nearly best. No more than the least time.

    `temperature`: relative to the mean time of a row alone. SRAM enters where segments fit or do not, which has no gradient of its own."""
    seconds = segment_s(found, fabric, spilled)[0]
    n, w = seconds.shape
    scale = temperature * jnp.sum(seconds[:, 0]) / n
    back = jnp.arange(1, w + 1)

    def step(best, j):
        starts = j - back
        time = jnp.where(starts >= 0, seconds[jnp.maximum(starts, 0), back - 1], jnp.inf)
        possible = jnp.isfinite(time)
        total = best[jnp.maximum(starts, 0)] + jnp.where(possible, time, 0.0)
        return best.at[j].set(-scale * jax.nn.logsumexp(-total / scale, where=possible)), None

    best, _ = jax.lax.scan(step, jnp.full(n + 1, 0.0, seconds.dtype), jnp.arange(1, n + 1))
    return best[n]
