"""What one socket runs: rows of a workload with the socket's share of work and bytes, and the collectives between sockets as rows."""

from typing import NamedTuple

import jax
import numpy as np

from ...workload import Workload
from ...workload._fusion_rules import POINTS, ROWS, needs
from .._streams import BLOCK_ROWS, tile_shares
from ._socket_shares import socket_shares

# Rows of a tile, small to whole tensors: a group takes the one it is fastest with. Weights that meet more rows than a tile has must
# stay in SRAM for all tiles; with a tile of all rows they only pass through.
BLOCKS = (BLOCK_ROWS, 8 * BLOCK_ROWS, 64 * BLOCK_ROWS)


class Program(NamedTuple):
    """Rows of one socket in execution order, NumPy float64; `L` rows, `E` edges, `K` sizes of a tile (`BLOCKS`).

    - `macs, lane_ops`; `reuse`: rows that a weight (second operand) meets.  `weight_bytes`, `out_bytes` of the result.
    - `read_bytes, write_bytes`: from and to memory whoever fuses what (caches, inputs, outputs of the model).
    - `held_bytes`: of `read_bytes`, what stays in SRAM while the row runs with tiles of `K` sizes, `[K, L]`.
    - `link_bytes, hops`: of collectives, two ways each of which does it, `[L, 2]`; 0 for other rows.
    - `source, target, edge_bytes`; `share[K, E]`: of the tensor held for the reader (both buffers).
    - `stored_bytes, live_bytes`: of the socket from pass to pass, and at most while it runs.
    - `names`; `own`: row of the workload, -1 for collectives.
    """

    macs: np.ndarray
    lane_ops: np.ndarray
    reuse: np.ndarray
    weight_bytes: np.ndarray
    out_bytes: np.ndarray
    read_bytes: np.ndarray
    write_bytes: np.ndarray
    held_bytes: np.ndarray
    link_bytes: np.ndarray
    hops: np.ndarray
    source: np.ndarray
    target: np.ndarray
    edge_bytes: np.ndarray
    share: np.ndarray
    stored_bytes: float
    live_bytes: float
    names: tuple[str, ...]
    own: np.ndarray

    @property
    def n_rows(self) -> int:
        return len(self.names)


def program(workload: Workload, sockets: int = 1, *, causal: bool = False) -> Program:
    """The rows of one of `sockets` sockets that share a model by tensor parallelism.

    `causal`: the second operand of attention (keys, values) streams in order of tokens as the first does, since a token looks at
    earlier ones only; without, all of it must be there first. Raises ValueError for sockets below 1.
    """
    if isinstance(sockets, bool) or sockets != int(sockets) or sockets < 1:
        raise ValueError(f"sockets is {sockets!r}; allowed: an integer of at least 1")
    op = jax.tree.map(lambda x: np.asarray(x, np.float64), workload.operators)
    parts = socket_shares(workload, int(sockets))
    n, own = len(parts.own), parts.own
    mine, at = own >= 0, np.maximum(own, 0)
    elements = np.where(op.weight_elements > 0, op.out_elements / np.maximum(op.weight_elements, 1.0), 1.0)
    reuse = np.where(mine, np.where(op.is_matrix > 0, op.batch * op.p * op.q, elements)[at], 1.0)
    share = _shares(workload, causal)
    # edges into and out of collectives stream in rows, as the edge they stand for
    out = (op.out_elements * op.out_bits / 8)[np.where(mine, at, parts.of)] * parts.out_share
    outside_in, outside_out = (
        np.where(mine, np.asarray(x, np.float64)[at], 0.0)
        for x in (workload.outside_in_bytes, workload.outside_out_bytes)
    )
    read = outside_in * parts.read_share
    attention = np.asarray(workload.operators.is_attention)[at] & mine
    block = np.asarray(BLOCKS, np.float64)[:, None]
    return Program(
        macs=np.where(mine, np.asarray(op.macs)[at] * parts.work_share, 0.0),
        lane_ops=np.where(mine, op.lane_ops[at] * parts.work_share, parts.added),
        reuse=reuse,
        weight_bytes=np.where(mine, (op.weight_elements * op.weight_bits / 8)[at] * parts.weight_share, 0.0),
        out_bytes=out,
        read_bytes=read,
        write_bytes=outside_out * parts.write_share,
        held_bytes=np.where(attention & (reuse > block) & (not causal), read, 0.0),
        link_bytes=parts.link_bytes,
        hops=parts.hops,
        source=parts.source,
        target=parts.target,
        edge_bytes=parts.edge_bytes,
        share=np.where(parts.edge >= 0, share[:, np.maximum(parts.edge, 0)], share[:, parts.like]),
        stored_bytes=float(workload.stored_bytes) / sockets,
        live_bytes=float(np.max(workload.live_bytes)) / sockets,
        names=tuple(
            f"{workload.names[parts.of[i]]}.{parts.label[i]}" if parts.label[i] else workload.names[own[i]]
            for i in range(n)
        ),
        own=own,
    )


def _shares(workload: Workload, causal: bool) -> np.ndarray:
    """`[K, E]`: `_streams.tile_shares` for tiles of `BLOCKS` rows of every head."""
    if not workload.source.shape[0]:
        return np.zeros((len(BLOCKS), 1))
    one = np.asarray(tile_shares(workload, np.float32, 1.0), np.float64)
    op, target, need = workload.operators, workload.target, needs(workload)
    streams = np.isin(need, (POINTS, ROWS))
    rows = np.asarray(op.groups * 1.0 * op.batch * op.p * op.q)
    finest = np.maximum(
        rows[workload.source], rows[target]
    )  # any piece will do: those of the producer if they are smaller
    one = np.where(need == POINTS, np.minimum(2.0 * BLOCK_ROWS / finest, 1.0), one)
    if causal:
        whole = np.asarray(op.is_attention)[target] & ~streams
        tokens = np.maximum(np.asarray(op.batch * op.p * op.q, np.float64)[target], 1.0)
        one = np.where(whole, np.minimum(2.0 * BLOCK_ROWS / tokens, 1.0) / np.asarray(op.groups)[target], one)
        streams = streams | whole
    heads = np.asarray(op.groups, np.float64)[target]
    blocks = np.asarray(BLOCKS, np.float64)[:, None] / BLOCK_ROWS
    return np.where(streams, np.minimum(one * heads * blocks, 1.0), one)
