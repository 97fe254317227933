"""The seven dataflows of the MAESTRO runs as loop nests, and the machine they run on.

Each is its directives read as loops: `T d(s, s)` a temporal loop over tiles of d, `S d(1, 1)` an unrolling over PEs (or groups
of PEs, `cluster n`), the order as written, a full filter inside a PE. A dimension that does not divide takes as many steps as it
needs, with the mean number of PEs at work (`size / steps`).
"""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

from ...cost import LoopNest, loop_nest
from ...hardware import DIRECTIONS, OPERANDS, Hierarchy, Memory, Port, hierarchy

SLOTS, UNROLLED = 8, 2
# The memory whose contents a loop walks over, for weights, inputs and outputs. The buffer holds one step of the outer loops (and
# the next one, double-buffered), which is the size that MAESTRO asks for: what walks over steps walks over DRAM.
_LOCAL, _BUFFER, _DRAM = (0, 0, 0), (1, 1, 1), (2, 2, 2)
_WORD = 8  # bits; one element
# Energies in units of one MAC, as MAESTRO gives them (whatever the size of the buffer); it has none for DRAM
L1_MACS, L2_MACS = 1.68, 18.61
_UNLIMITED = 1e30


class Layer(NamedTuple):
    """Filters, channels, outputs and filter of a convolution or GEMM (P rows of inputs, K columns, C reduced)."""

    k: int
    c: int
    p: int
    q: int
    r: int
    s: int


class _Builder:
    """Loops from the innermost to the outermost: first those in a PE, then those over steps."""

    def __init__(self):
        self.temporal: list = []
        self.spatial: list = []

    def inside(self, **loops: int) -> "_Builder":
        self.temporal += [(d, float(n), _LOCAL) for d, n in loops.items()]
        return self

    def unroll(self, dim: str, size: int, room: int) -> int:
        """Unrolls a dimension over at most `room` PEs; the steps left for time."""
        steps = ceil(size / room)
        self.spatial.append((dim, size / steps, _BUFFER))
        return steps

    def outside(self, *loops: tuple[str, float]) -> LoopNest:
        self.temporal += [(d, float(n), _DRAM) for d, n in loops]
        return loop_nest(self.temporal, self.spatial, SLOTS, UNROLLED)


def kcp_ws(x: Layer, pes: int) -> LoopNest:
    """NVDLA-like: filters over groups of 64 PEs, channels in a group; pixels innermost, so weights stay."""
    nest = _Builder().inside(S=x.s, R=x.r)
    c, k = nest.unroll("C", x.c, 64), nest.unroll("K", x.k, pes // 64)
    return nest.outside(("Q", x.q), ("P", x.p), ("C", c), ("K", k))


def ckp_ws(x: Layer, pes: int) -> LoopNest:
    """Channels over groups of 64 PEs, filters in a group; weights stay."""
    nest = _Builder().inside(S=x.s, R=x.r)
    k, c = nest.unroll("K", x.k, 64), nest.unroll("C", x.c, pes // 64)
    return nest.outside(("Q", x.q), ("P", x.p), ("K", k), ("C", c))


def ykp_os(x: Layer, pes: int) -> LoopNest:
    """Output rows over groups of 16 PEs, filters in a group; channels innermost, so sums stay."""
    nest = _Builder().inside(S=x.s, R=x.r)
    k, p = nest.unroll("K", x.k, 16), nest.unroll("P", x.p, pes // 16)
    return nest.outside(("C", x.c), ("Q", x.q), ("P", p), ("K", k))


def yxp_os(x: Layer, pes: int) -> LoopNest:
    """ShiDianNao-like: output rows over groups of 8 PEs, columns in a group; filters and channels outermost."""
    nest = _Builder().inside(S=x.s, R=x.r)
    q, p = nest.unroll("Q", x.q, 8), nest.unroll("P", x.p, pes // 8)
    return nest.outside(("Q", q), ("P", p), ("C", x.c), ("K", x.k))


def row_stationary(x: Layer, pes: int) -> LoopNest:
    """Output rows over groups of R PEs, a filter row in each PE of a group; 16 filters in a PE."""
    tile = min(x.k, 16)
    nest = _Builder().inside(S=x.s, K=tile)
    nest.unroll("R", x.r, x.r)
    p = nest.unroll("P", x.p, pes // x.r)
    return nest.outside(("K", x.k / tile), ("C", x.c), ("Q", x.q), ("P", p))


def nlr(x: Layer, pes: int) -> LoopNest:
    """No local reuse: channels over all PEs, in time innermost; nothing stays but a sum."""
    nest = _Builder().inside(S=x.s, R=x.r)
    c = nest.unroll("C", x.c, pes)
    return nest.outside(("C", c), ("Q", x.q), ("P", x.p), ("K", x.k))


def gemm_nmk(x: Layer, pes: int) -> LoopNest:
    """Rows of the input over groups of 64 PEs, the reduction in a group and innermost in time."""
    nest = _Builder()
    c, p = nest.unroll("C", x.c, 64), nest.unroll("P", x.p, pes // 64)
    return nest.outside(("C", c), ("P", p), ("K", x.k))


DATAFLOWS: dict[str, Callable[[Layer, int], LoopNest]] = {
    "kcp_ws": kcp_ws, "ckp_ws": ckp_ws, "ykp_os_RSfix": ykp_os, "yxp_os": yxp_os, "rs": row_stationary, "nlr": nlr,
    "gemm_nmk_ktile64": gemm_nmk,
}  # fmt: skip


def machine(pes: int, noc_words: float, offchip_words: float, swapped: bool = True) -> Hierarchy:
    """A local store a PE, one shared buffer, DRAM, all of unlimited size as MAESTRO never enforces one.

    `noc_words`: words a cycle from the buffer to the PEs, and as many back; `offchip_words` likewise between DRAM and buffer. What
    several PEs need is sent once. Energies in MACs (`mac_j` = 1). `swapped`: the halves of the buffer take turns and sums are handed
    up at every step, as in MAESTRO; else what stays is kept.
    """

    def memory(name, words, energy, serves, replaced=""):
        ports = {way: Port(words * _WORD, _WORD, _WORD) for way in ("read", "write")}
        far = {f"far {way}": Port(_UNLIMITED, _WORD, _WORD) for way in ("read", "write")}
        side = {"lower": "", "higher": "far "}
        route = {(t, way): side[way.split("_")[-1]] + way.split("_")[0] for t in OPERANDS for way in DIRECTIONS}
        return Memory(name, 1e30, energy, energy, serves, ports | far, route, replaced)

    memories = [
        memory("local", _UNLIMITED, L1_MACS, (), "O" if swapped else ""),
        memory("buffer", noc_words, L2_MACS, ("pes",), "WIO" if swapped else ""),
        memory("dram", offchip_words, 0.0, ("pes",)),
    ]
    chain = [m.name for m in memories]
    return hierarchy({"pes": pes}, 1.0, memories, dict.fromkeys(OPERANDS, chain))
