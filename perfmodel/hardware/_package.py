"""The package: where chiplets sit, which links a transfer crosses, where memory is attached; and the way out of it."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float


class Package(eqx.Module):
    """A mesh of directed links with XY routing, or a switch: one hop from any chiplet to any, through its ports alone (`K` = 0).
    `D` chiplets, `K` directed links.

    - `hops[a, b]`: links between chiplets a and b.  `route[k, a, b]`: 1 where the way from a to b crosses link k.
    - `memory_hops[d]`: links between d and the chiplet whose memory interface serves it.  `serves[a, d]`: 1 where that is
      another chiplet, a.
    - `memory_route[k, d]`: 1 where data from memory to d cross link k; `memory_back[k, d]` the same from d to memory.
    - `direct` (static): every chiplet has a memory interface of its own, so memory traffic crosses no link.
    - `port_bytes_per_s`: into, and out of, every chiplet's network port.
    - `outside_bytes_per_s`: of each chiplet to other packages, each way; 0 where there is no way.  `outside_s`: latency.
    """

    hops: Float[Array, "D D"]
    route: Float[Array, "K D D"]
    memory_hops: Float[Array, "D"]
    serves: Float[Array, "D D"]
    memory_route: Float[Array, "K D"]
    memory_back: Float[Array, "K D"]
    link_bytes_per_s: Float[Array, ""]
    port_bytes_per_s: Float[Array, ""]
    hop_s: Float[Array, ""]
    hop_j_per_byte: Float[Array, ""]
    outside_bytes_per_s: Float[Array, ""]
    outside_s: Float[Array, ""]
    positions: tuple[tuple[int, int], ...] = eqx.field(static=True)
    direct: bool = eqx.field(static=True)
    link_names: tuple[str, ...] = eqx.field(static=True)

    @property
    def switched(self) -> bool:
        """Whether every chiplet is one hop from every other."""
        return not self.link_names and len(self.positions) > 1


TOPOLOGIES = ("mesh", "switch")


def switch(positions, *, port_bytes_per_s, hop_s, hop_j_per_byte, outside_bytes_per_s=0.0, outside_s=0.0) -> Package:
    """Chiplets around a switch that never blocks; each has memory of its own, or a memory interface of its own."""
    n = len(positions)
    nothing = np.zeros((0, n))
    return Package(
        hops=1.0 - np.eye(n), route=np.zeros((0, n, n)), memory_hops=np.zeros(n), serves=np.zeros((n, n)), memory_route=nothing,
        memory_back=nothing, link_bytes_per_s=np.float64(port_bytes_per_s), port_bytes_per_s=np.float64(port_bytes_per_s),
        hop_s=np.float64(hop_s), hop_j_per_byte=np.float64(hop_j_per_byte), outside_bytes_per_s=np.float64(outside_bytes_per_s),
        outside_s=np.float64(outside_s), positions=tuple((int(x), int(y)) for x, y in positions), direct=True, link_names=(),
    )  # fmt: skip


def mesh(
    positions, attached, chiplet_names, *, link_bytes_per_s, port_bytes_per_s, hop_s, hop_j_per_byte, outside_bytes_per_s=0.0,
    outside_s=0.0,
) -> Package:  # fmt: skip
    """A mesh over `positions` (x, y of each chiplet); `attached`: indices of the chiplets with a memory interface.

    Routes go along x first, then along y, and need a chiplet at every corner they pass: ValueError otherwise.
    Memory traffic of a chiplet goes through the nearest attached chiplet (the first among equals).
    """
    at = {tuple(xy): i for i, xy in enumerate(positions)}
    links: dict[tuple[int, int], int] = {}
    for (x, y), i in at.items():
        for step in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            if (x + step[0], y + step[1]) in at:
                links[i, at[x + step[0], y + step[1]]] = len(links)
    n = len(positions)
    hops, route = np.zeros((n, n)), np.zeros((len(links), n, n))
    for a in range(n):
        for b in range(n):
            for pair in _way(positions[a], positions[b], at, chiplet_names):
                route[links[pair], a, b] = 1.0
                hops[a, b] += 1
    server = [min(attached, key=lambda m, d=d: hops[d, m]) for d in range(n)]
    return Package(
        hops=hops,
        route=route,
        memory_hops=np.asarray([hops[d, m] for d, m in enumerate(server)]),
        serves=np.asarray([[float(server[d] == a != d) for d in range(n)] for a in range(n)]),
        memory_route=np.stack([route[:, m, d] for d, m in enumerate(server)], axis=1),
        memory_back=np.stack([route[:, d, m] for d, m in enumerate(server)], axis=1),
        link_bytes_per_s=np.float64(link_bytes_per_s),
        port_bytes_per_s=np.float64(port_bytes_per_s),
        hop_s=np.float64(hop_s),
        hop_j_per_byte=np.float64(hop_j_per_byte),
        outside_bytes_per_s=np.float64(outside_bytes_per_s),
        outside_s=np.float64(outside_s),
        positions=tuple((int(x), int(y)) for x, y in positions),
        direct=all(server[d] == d for d in range(n)),
        link_names=tuple(f"{chiplet_names[a]}->{chiplet_names[b]}" for a, b in links),
    )


def _way(start, end, at, names):
    """Links (pairs of chiplet indices) from `start` to `end`: x first, then y."""
    x, y = start
    while (x, y) != tuple(end):
        nx, ny = (x + (1 if end[0] > x else -1), y) if x != end[0] else (x, y + (1 if end[1] > y else -1))
        if (nx, ny) not in at:
            raise ValueError(
                f"package: the XY route from {names[at[tuple(start)]]} to {names[at[tuple(end)]]} passes position "
                f"({nx}, {ny}), where no chiplet stands; fill the mesh"
            )
        yield at[x, y], at[nx, ny]
        x, y = nx, ny
