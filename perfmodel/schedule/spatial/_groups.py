"""Groups of rows that run as one kernel: what each moves, holds and computes, prepared on the host for `_pipeline`."""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from ._program import BLOCKS, Program


class Group(eqx.Module):
    """A kernel of up to `S` stages; `I` inputs of a stage, `K` sizes of a tile. Groups of a partition are stacked, `[G, ...]`.

    - `macs, lane_ops, reuse`, `link_bytes, hops` (`[S, 2]`): of the stages, 0 where there is none.  `here`: 1 where there is one.
    - `inputs`: earlier stages that a stage reads, -1: none.  `grain[K, S, I]`: of that tensor what the stage must have to begin.
    - `read_bytes, write_bytes, weight_bytes`: from and to memory.
    - `sram_bytes[K]`: tiles and weights held, less the weights that only pass through a stage;  `chunks[K]`: how many stages of those,
      `chunk_bytes[K]` their weights.
    - `single`: 1 for a row alone, which may fetch operands again where they do not fit.  `passes`: ... and weights meet many rows.
    """

    macs: Float[Array, "S"]
    lane_ops: Float[Array, "S"]
    reuse: Float[Array, "S"]
    link_bytes: Float[Array, "S 2"]
    hops: Float[Array, "S 2"]
    here: Float[Array, "S"]
    inputs: Int[Array, "S I"]
    grain: Float[Array, "K S I"]
    read_bytes: Float[Array, ""]
    write_bytes: Float[Array, ""]
    weight_bytes: Float[Array, ""]
    sram_bytes: Float[Array, "K"]
    chunks: Float[Array, "K"]
    single: Float[Array, ""]
    passes: Float[Array, ""]


def grain_of(share: np.ndarray) -> np.ndarray:
    """Of a tensor what its reader must have to begin: one of two buffers, or all."""
    return np.where(share < 1.0, share / 2, 1.0)


def stage_weights(p: Program) -> tuple[np.ndarray, np.ndarray]:
    """(bytes of weights that must stay, whether weights only pass through), `[K, L]`: those that meet no more rows than a tile has."""
    passing = p.reuse <= np.asarray(BLOCKS, np.float64)[:, None]
    return np.where(passing, 0.0, p.weight_bytes), (passing & (p.weight_bytes > 0)).astype(float)


def inputs_of(p: Program) -> tuple[np.ndarray, np.ndarray]:
    """(rows that each row reads, -1: none, `[L, I]`; the edges, `[L, I]`)."""
    order = np.argsort(p.target, kind="stable")
    count = np.bincount(p.target, minlength=p.n_rows)
    width = max(int(count.max(initial=0)), 1)
    inputs, edges = np.full((p.n_rows, width), -1), np.zeros((p.n_rows, width), int)
    place = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    inputs[p.target[order], place], edges[p.target[order], place] = p.source[order], order
    return inputs, edges


def groups_of(p: Program, members: Sequence[Sequence[int]]) -> Group:
    """The groups of a partition, stacked. `members`: rows of each, in order.

    Bytes: a tensor from another group is read once by a group, however many of its rows do (at most whole; their sum where each reads
    a part); a result that another group reads is written once; caches, inputs and outputs of the model always. Held in SRAM: of
    each tensor that is read here the largest tile of its readers here, weights that stay, both operands of attention.

    Raises ValueError where rows are missing or named twice.
    """
    flat = [row for rows in members for row in rows]
    if sorted(flat) != list(range(p.n_rows)):
        raise ValueError(
            f"a partition names {len(flat)} rows ({len(set(flat))} different); needed: each of {p.n_rows} once"
        )
    inputs, edges = inputs_of(p)
    group = np.zeros(p.n_rows, int)
    for g, rows in enumerate(members):
        group[list(rows)] = g
    n, size, width = len(members), max(len(rows) for rows in members), inputs.shape[1]
    staying, passing = stage_weights(p)

    def empty(*shape):
        return np.zeros(shape)

    out = dict(
        macs=empty(n, size), lane_ops=empty(n, size), reuse=empty(n, size) + 1, link_bytes=empty(n, size, 2), hops=empty(n, size, 2),
        here=empty(n, size), inputs=np.full((n, size, width), -1), grain=np.ones((n, len(BLOCKS), size, width)),
    )  # fmt: skip
    read, write, held = _moved(p, group, n)
    for g, rows in enumerate(members):
        rows, m = np.asarray(rows), len(rows)
        place = {int(row): i for i, row in enumerate(rows)}
        for name in ("macs", "lane_ops", "reuse", "link_bytes", "hops"):
            out[name][g, :m] = getattr(p, name)[rows]
        out["here"][g, :m] = 1.0
        out["inputs"][g, :m] = [[place.get(int(s), -1) for s in inputs[row]] for row in rows]
        out["grain"][g, :, :m] = grain_of(p.share[:, edges[rows]])

    def summed(of_rows):
        return np.stack([np.bincount(group, weights=each, minlength=n) for each in np.atleast_2d(of_rows)], axis=-1)

    alone = np.asarray([len(rows) == 1 for rows in members], float)
    first = np.asarray([rows[0] for rows in members])
    return Group(
        **out, read_bytes=read, write_bytes=write, weight_bytes=summed(p.weight_bytes)[:, 0],
        sram_bytes=held + summed(staying + p.held_bytes), chunks=summed(passing), single=alone,
        passes=alone * (p.reuse[first] > BLOCKS[0]),
    )  # fmt: skip


def _moved(p: Program, group: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bytes read, written, tiles `[G, K]`) of each group."""
    read = np.bincount(group, weights=p.read_bytes, minlength=n)
    write = np.bincount(group, weights=p.write_bytes, minlength=n)
    if not len(p.source):
        return read, write, np.zeros((n, len(BLOCKS)))
    reader = group[p.target]
    pairs, where = np.unique(p.source.astype(np.int64) * n + reader, return_inverse=True)
    tensor, at = pairs // n, pairs % n
    nbytes = np.minimum(np.bincount(where, weights=p.edge_bytes), p.out_bytes[tensor])
    outside = group[tensor] != at
    read += np.bincount(at[outside], weights=nbytes[outside], minlength=n)
    leaves = np.unique(tensor[outside])
    write += np.bincount(group[leaves], weights=p.out_bytes[leaves], minlength=n)
    tile = np.zeros((len(pairs), len(BLOCKS)))
    np.maximum.at(tile, where, p.share.T)
    held = np.zeros((n, len(BLOCKS)))
    np.add.at(held, at, tile * p.out_bytes[tensor][:, None])
    return read, write, held
