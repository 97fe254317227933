"""Every run of neighbouring rows as a group: bytes in closed form, pipelines of all lengths in one program."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._fabric import Fabric
from ._groups import Group, grain_of, inputs_of, stage_weights
from ._pipeline import bytes_of, memory_seconds, pipeline_s
from ._program import BLOCKS, Program

MOST_ROWS = 3000  # of a program: tables of rows x rows are made
_AT_ONCE = 32


class Segments(NamedTuple):
    """Costs of rows `i ... i + w`, `[L, W]`; infinite where they do not fit one kernel or pass the end. Launches are not in them.

    - `compute_s[K, L, W]`: of the pipeline by size of tile.  `link_s`.  `group`: bytes, stacked `[L, W]` (no stages).
    """

    compute_s: jax.Array
    link_s: jax.Array
    group: Group


def segments(p: Program, fabric: Fabric, largest: int) -> Segments:
    """Pipelines and bytes of all segments of at most `largest` rows (units, clock and links of the fabric; not its memory or SRAM).

    Raises ValueError for `largest` below 1 and for more than `MOST_ROWS` rows.
    """
    if isinstance(largest, bool) or largest != int(largest) or largest < 1:
        raise ValueError(f"largest is {largest!r}; allowed: an integer of at least 1")
    if p.n_rows > MOST_ROWS:
        raise ValueError(f"the workload has {p.n_rows} rows on a socket; allowed here: {MOST_ROWS}; give fewer layers")
    w = min(int(largest), p.n_rows)
    inputs, edges = inputs_of(p)
    rows = [p.macs, p.lane_ops, p.reuse, p.link_bytes, p.hops, inputs, np.moveaxis(grain_of(p.share[:, edges]), 0, -1)]
    n = -(-p.n_rows // _AT_ONCE) * _AT_ONCE
    padded = [
        np.concatenate([x, np.full((n - p.n_rows + w, *x.shape[1:]), -1 if x is inputs else 0, x.dtype)]) for x in rows
    ]
    padded = [jnp.asarray(x, None if x.dtype.kind == "i" else jnp.result_type(float)) for x in padded]
    compute, links = _pipelines(padded, fabric, n, w)
    inside = (np.arange(p.n_rows)[:, None] + np.arange(w)) < p.n_rows
    compute = jnp.where(inside, jnp.moveaxis(compute, -1, 0)[:, : p.n_rows], jnp.inf)
    return Segments(compute, links[: p.n_rows], _bytes(p, w))


@eqx.filter_jit
def _pipelines(rows, fabric: Fabric, n: int, w: int):
    """(`[n, w, K]`, `[n, w]`)."""

    def of_start(i):
        macs, lanes, reuse, links, hops, inputs, grain = (jax.lax.dynamic_slice_in_dim(x, i, w) for x in rows)
        inputs = jnp.where(inputs >= i, inputs - i, -1)
        nothing = jnp.zeros(())

        def of_length(length):
            here = (jnp.arange(w) < length).astype(macs.dtype)
            group = Group(macs, lanes, reuse, links, hops, here, inputs, jnp.moveaxis(grain, -1, 0), nothing, nothing, nothing,
                          nothing, nothing, nothing, nothing)  # fmt: skip
            times, _, total = pipeline_s(group, fabric)
            return times, total

        return jax.vmap(of_length)(jnp.arange(1, w + 1))

    return jax.lax.map(of_start, jnp.arange(n), batch_size=_AT_ONCE)


def segment_s(found: Segments, fabric: Fabric, spilled=0.0) -> tuple[jax.Array, jax.Array]:
    """(seconds of each segment as a kernel, launch included, `[L, W]`; size of tile)."""
    nbytes, held, fits = jax.vmap(jax.vmap(lambda g: bytes_of(g, fabric)))(found.group)
    times = jnp.where(jnp.moveaxis(fits, -1, 0), found.compute_s, jnp.inf)
    longest = jnp.maximum(jnp.min(times, axis=0), jnp.maximum(memory_seconds(nbytes, spilled, fabric), found.link_s))
    return longest + fabric.launch_s, jnp.argmin(times, axis=0)


def _bytes(p: Program, w: int) -> Group:
    """What `groups_of` counts, of all segments."""
    n = p.n_rows
    read, write, tiles = _Corners(n), _Corners(n), [_Corners(n) for _ in BLOCKS]
    readers: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for e in np.argsort(p.target, kind="stable").tolist():
        readers[int(p.source[e])].append((int(p.target[e]), e))
    for s, of in enumerate(readers):
        if not of:
            continue
        rows = sorted({t for t, _ in of})
        nbytes = {t: sum(float(p.edge_bytes[e]) for r, e in of if r == t) for t in rows}
        share = {t: np.max([p.share[:, e] for r, e in of if r == t], axis=0) for t in rows}
        write.add(0, s, s + 1, rows[-1], p.out_bytes[s])  # made here, read behind the end
        for a, first in enumerate(rows):
            before = rows[a - 1] if a else -1
            total, tile = 0.0, np.zeros(len(BLOCKS))
            for b in range(a, len(rows)):
                total, tile = total + nbytes[rows[b]], np.maximum(tile, share[rows[b]])
                if rows[b] - first >= w:
                    break
                ends = rows[b] + 1, rows[b + 1] if b + 1 < len(rows) else n
                read.add(max(before, s) + 1, first, *ends, min(total, p.out_bytes[s]))
                for k, corners in enumerate(tiles):
                    corners.add(before + 1, first, *ends, tile[k] * p.out_bytes[s])
    staying, passing = stage_weights(p)

    def along(of_rows):
        total = np.concatenate([[0.0], np.cumsum(of_rows)])
        return total[_ends(n, w)] - total[:n, None]

    held = [along(staying[k] + p.held_bytes[k]) + tiles[k].table(w) for k in range(len(BLOCKS))]
    alone = np.zeros((n, w))
    alone[:, 0] = 1.0
    none = np.zeros((n, w, 0))
    return Group(
        none, none, none, none, none, none, none.astype(int), none, read_bytes=along(p.read_bytes) + read.table(w),
        write_bytes=along(p.write_bytes) + write.table(w), weight_bytes=along(p.weight_bytes), sram_bytes=np.stack(held, axis=-1),
        chunks=np.stack([along(x) for x in passing], axis=-1), single=alone, passes=alone * (p.reuse > BLOCKS[0])[:, None],
    )  # fmt: skip


def _ends(n: int, w: int) -> np.ndarray:
    return np.minimum(np.arange(n)[:, None] + np.arange(1, w + 1), n)


class _Corners:
    """A table over (first row i, end j) to which rectangles are added, summed up once."""

    def __init__(self, n: int):
        self.n, self.change = n, np.zeros((n + 2, n + 2))

    def add(self, low: int, high: int, start: int, end: int, value: float) -> None:
        """`value` for `low <= i <= high` and `start <= j <= end`."""
        if low > high or start > end:
            return
        c = self.change
        c[low, start] += value
        c[high + 1, start] -= value
        c[low, end + 1] -= value
        c[high + 1, end + 1] += value

    def table(self, w: int) -> np.ndarray:
        """`[n, w]`: of rows `i ... i + w`."""
        total = self.change.cumsum(axis=0).cumsum(axis=1)
        return np.maximum(total[np.arange(self.n)[:, None], _ends(self.n, w)], 0.0)
