"""The ways between the devices of a machine, as numbers: links or a switch inside a package, one adapter a device out of it."""

from functools import lru_cache

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..hardware import System

Position = tuple[int, int]


class Mesh(eqx.Module):
    """What rings and exchanges meet on a mesh of `D` devices, XY routes; `[s - 1, n - 1]`: groups of `n` devices that stand `s` apart in
    the order of devices, all groups of the package at the same time.

    - `ring_load`: steps of rings that cross the busiest directed link.  `ring_hops`: of the longest step.  `ring_way`: of the mean one.
    - `pair_load`, `pair_hops`, `pair_way`: the same of every device sending to every other of its group; `pair_hops` is a group's diameter.
    """

    ring_load: Float[Array, "D D"]
    ring_hops: Float[Array, "D D"]
    ring_way: Float[Array, "D D"]
    pair_load: Float[Array, "D D"]
    pair_hops: Float[Array, "D D"]
    pair_way: Float[Array, "D D"]


class Topology(eqx.Module):
    """A machine of packages of equal devices; every leaf may be traced and differentiated.

    - `devices`: of a package; ranks fill one after the other.
    - `link_bytes_per_s`: each way between neighbours, of a switch into and out of every port; `hop_s`: latency of a link.
    - `outside_bytes_per_s`: of each device's own adapter to other packages, each way (0: no way); `outside_s`: latency.
    - `launch_s`: of a collective.  `reduces`: 1.0 where the switch adds up what passes it.
    - `mesh`: None for a switch.
    """

    devices: float | Float[Array, ""]
    link_bytes_per_s: float | Float[Array, ""]
    hop_s: float | Float[Array, ""]
    outside_bytes_per_s: float | Float[Array, ""] = 0.0
    outside_s: float | Float[Array, ""] = 0.0
    launch_s: float | Float[Array, ""] = 0.0
    reduces: float | Float[Array, ""] = 0.0
    mesh: Mesh | None = None


def topology(system: System, mesh: Mesh | None = None) -> Topology:
    """The ways between the chiplets of a system, and between packages of its kind. Differentiable in every leaf of the system.

    `mesh`: of its package, where the names of its links are not there to tell."""
    package = system.package
    link = jnp.minimum(jnp.asarray(package.link_bytes_per_s), jnp.asarray(package.port_bytes_per_s))
    return Topology(
        devices=float(package.hops.shape[0]), link_bytes_per_s=link, hop_s=jnp.asarray(package.hop_s),
        outside_bytes_per_s=jnp.asarray(package.outside_bytes_per_s), outside_s=jnp.asarray(package.outside_s),
        launch_s=jnp.max(jnp.asarray(system.chiplets.launch_s)),
        mesh=mesh_of(package.positions) if package.link_names else mesh,
    )  # fmt: skip


@lru_cache(maxsize=64)
def mesh_of(positions: tuple[Position, ...]) -> Mesh:
    """Rings and exchanges on a mesh of devices at `positions`, in the order of devices."""
    n = len(positions)
    found = np.zeros((6, n, n))
    found[[0, 1, 2, 3, 4, 5]] = 1.0  # a group of one; never used
    for step in range(1, n):
        for ranks in range(2, -(-n // step) + 1):
            block = step * ranks
            starts = range(0, n - block + 1, block) if block <= n else [0]
            groups = [positions[first + lane : n : step][:ranks] for first in starts for lane in range(step)]
            groups = [tuple(group) for group in groups if len(group) == ranks]
            rings = [min((_ring(o) for o in _orders(g)), key=lambda r: (r[0].max(), r[1].max())) for g in groups]
            pairs = [_ways([(a, b) for a in group for b in group if a != b]) for group in groups]
            for row, ways in ((0, rings), (3, pairs)):
                load = sum(count for count, _ in ways)
                hops = np.concatenate([lengths for _, lengths in ways])
                found[row : row + 3, step - 1, ranks - 1] = np.max(load), hops.max(), hops.mean()
        found[:, step - 1, -(-n // step) :] = found[:, step - 1, [-(-n // step) - 1]]  # no more than there are
    return Mesh(*found)


def _orders(group: tuple[Position, ...]) -> list[list[Position]]:
    """Ways to go round a group: as it stands, in serpentines, and as a loop of neighbours where it fills a rectangle that has one."""

    def serpentine(turned: bool, positions) -> list[Position]:
        lines: dict[int, list[Position]] = {}
        for x, y in positions:
            lines.setdefault(x if turned else y, []).append((x, y))
        return [at for i, key in enumerate(sorted(lines)) for at in sorted(lines[key], reverse=i % 2 == 1)]

    orders = [list(group), serpentine(False, group), serpentine(True, group)]
    for turned in (False, True):
        across = 1 if turned else 0
        first = min(at[across] for at in group)
        back = sorted((at for at in group if at[across] == first), key=lambda at: at[1 - across], reverse=True)
        orders.append(serpentine(turned, [at for at in group if at[across] != first]) + back)
    return orders


def _ring(order: list[Position]) -> tuple[np.ndarray, np.ndarray]:
    return _ways(list(zip(order, [*order[1:], order[0]], strict=True)))


_SIDE = 64  # of the largest mesh


def _ways(pairs: list[tuple[Position, Position]]) -> tuple[np.ndarray, np.ndarray]:
    """(how many of the routes cross each directed link, hops of each), x first, then y."""
    load, hops = np.zeros((4, _SIDE, _SIDE)), []
    for (x, y), (to_x, to_y) in pairs:
        if x != to_x:
            low, high = sorted((x, to_x))
            load[int(to_x < x), low:high, y] += 1
        if y != to_y:
            low, high = sorted((y, to_y))
            load[2 + int(to_y < y), to_x, low:high] += 1
        hops.append(abs(to_x - x) + abs(to_y - y))
    return load, np.asarray(hops, float)
