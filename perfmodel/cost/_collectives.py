"""Seconds and bytes of collectives on any machine: rings, trees, a switch's one hop, and all of them over packages.

Textbook forms (Thakur, Rabenseifner, Gropp 2005; double binary trees: Sanders, Speck, Traff 2009), `n` ranks, `m` bytes, `a` seconds a
step, `b` bytes/s each way:

    ring                all-reduce 2 (n-1) a + 2 (n-1)/n m/b; all-gather, reduce-scatter half of that
    double binary tree  all-reduce 2 log2(n) a + 2 m/b; all-gather, reduce-scatter half of that
    switch              every rank sends to every other at once: all-gather, reduce-scatter, exchange a + (n-1)/n m/b; all-reduce
                        a + (n-1) m/b, or scattered and gathered, 2 a + 2 (n-1)/n m/b; one that adds up: a + (n+1)/n m/b
    mesh                rings over neighbours; `m/b` times the steps that cross the busiest link
    packages            i ranks in each of o packages, all with adapters of their own: one ring after the other through all packages, an
                        i-th of the bytes on each, or a reduce-scatter inside, an all-reduce of m/i across, an all-gather inside

The fastest that the machine can do is taken. Elementwise in bytes and ranks, which may be traced; 0 for one rank.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._names import unknown_name
from .._numerics import safe_divide
from ..workload import COLLECTIVE_KINDS
from ._topology import Topology


class CollectiveCost(eqx.Module):
    """Of one of the ranks. `link_bytes`: that it sends inside its package; `hop_bytes`: the same times links crossed.
    `adapter_bytes`: that it sends to other packages."""

    seconds: Float[Array, "..."]
    link_bytes: Float[Array, "..."]
    hop_bytes: Float[Array, "..."]
    adapter_bytes: Float[Array, "..."]


Inside = Callable[[str, Any, Any], Any]  # kind, bytes, ranks -> seconds measured in a package


def collective_cost(
    kind: str, message_bytes, ranks, topology: Topology, *, step=1.0, inside_s: Inside | None = None
) -> CollectiveCost:
    """A collective of `COLLECTIVE_KINDS` between `ranks` devices, `step` apart in the order of devices.

    **Arguments:** `message_bytes`: of the whole tensor (`all_reduce`, `all_gather`, `reduce_scatter`), of what a rank holds
    (`all_to_all`), of what goes to the next of a chain of `ranks` (`send`: over the slowest way that the chain has).
    `inside_s`: seconds of measured collectives within a package in place of the formulas.

    Raises ValueError for an unknown kind.
    """
    if kind not in COLLECTIVE_KINDS:
        raise unknown_name("collective", kind, COLLECTIVE_KINDS)
    n, m = jnp.maximum(ranks, 2.0), jnp.asarray(message_bytes, float)
    # ranks of this package; where no way leads out of it, it stands for as many devices as there are ranks
    i = jnp.where(
        jnp.asarray(topology.outside_bytes_per_s) > 0, jnp.clip(jnp.ceil(topology.devices / step - 1e-6), 1.0, n), n
    )
    near = _inside(kind, m, jnp.maximum(i, 2.0), topology, step, inside_s)
    far = _outside(kind, m, n, i, topology, step, inside_s)
    chosen = _select(n > i, far, near)
    alone = jnp.asarray(ranks) > 1
    return jax.tree.map(lambda x: jnp.where(alone, x, 0.0), chosen)


def _select(when, a: CollectiveCost, b: CollectiveCost) -> CollectiveCost:
    return jax.tree.map(lambda x, y: jnp.where(when, x, y), a, b)


def _faster(a: CollectiveCost, b: CollectiveCost) -> CollectiveCost:
    return _select(a.seconds <= b.seconds, a, b)


def _then(*phases: CollectiveCost) -> CollectiveCost:
    return jax.tree.map(lambda *x: sum(x), *phases)


def _wire_s(nbytes, bytes_per_s) -> Any:
    return safe_divide(nbytes, bytes_per_s, jnp.inf)


def _at(table, step, ranks):
    """An entry of `Mesh`."""
    size = table.shape[0]
    row, column = (jnp.clip(jnp.asarray(x).astype(int) - 1, 0, size - 1) for x in (jnp.ceil(step), jnp.ceil(ranks)))
    return jnp.asarray(table, float)[row, column]


def _cost(seconds, link_bytes, way) -> CollectiveCost:
    return CollectiveCost(seconds, link_bytes, link_bytes * way, 0.0 * link_bytes)


def _inside(kind: str, m, n, t: Topology, step, inside_s: Inside | None) -> CollectiveCost:
    """Between `n` >= 2 ranks of one package."""
    if kind == "send":
        hops = jnp.ones(()) if t.mesh is None else _at(t.mesh.ring_hops, step, n)
        return _cost(t.launch_s + hops * t.hop_s + _wire_s(m, t.link_bytes_per_s), m, hops)
    share = (n - 1) / n * m
    times = 2.0 if kind == "all_reduce" else 1.0
    if inside_s is not None:
        return _cost(inside_s(kind, m, n), times * share, 1.0)
    ways = [_exchanged(m, n, t, step)] if kind == "all_to_all" else [_ring(times, m, n, t, step)]
    if kind != "all_to_all":
        ways.append(_tree(times, m, n, t, step))
    if t.mesh is None:
        ways += _switched(kind, m, n, t)
    best = ways[0]
    for way in ways[1:]:
        best = _faster(best, way)
    return eqx.tree_at(lambda c: c.seconds, best, best.seconds + t.launch_s)


def _ring(times: float, m, n, t: Topology, step) -> CollectiveCost:
    load, hops, way = (
        (1.0, 1.0, 1.0)
        if t.mesh is None
        else tuple(_at(x, step, n) for x in (t.mesh.ring_load, t.mesh.ring_hops, t.mesh.ring_way))
    )
    sent = times * (n - 1) / n * m
    seconds = times * (n - 1) * hops * t.hop_s + _wire_s(sent * load, t.link_bytes_per_s)
    return _cost(seconds, sent, way)


def _tree(times: float, m, n, t: Topology, step) -> CollectiveCost:
    """Double binary trees around a switch; on a mesh one tree as deep as the group is wide, whose inner ranks take in two tensors."""
    if t.mesh is None:
        depth, in_ports, way = jnp.ceil(jnp.log2(n) - 1e-6), 1.0, 1.0
    else:
        depth, in_ports, way = _at(t.mesh.pair_hops, step, n), 2.0, 1.0
    seconds = times * depth * t.hop_s + _wire_s(times * in_ports * m, t.link_bytes_per_s)
    return _cost(seconds, times * m, way)


def _exchanged(m, n, t: Topology, step) -> CollectiveCost:
    """Every rank sends an n-th of what it holds to each other one, all at once."""
    if t.mesh is None:
        load, hops, way = n - 1, 1.0, 1.0
    else:
        load, hops, way = (_at(x, step, n) for x in (t.mesh.pair_load, t.mesh.pair_hops, t.mesh.pair_way))
        load = jnp.maximum(load, n - 1)  # its port
    seconds = hops * t.hop_s + _wire_s(load * m / n, t.link_bytes_per_s)
    return _cost(seconds, (n - 1) / n * m, way)


def _switched(kind: str, m, n, t: Topology) -> list[CollectiveCost]:
    """One hop from all to all; of an all-reduce besides, a switch that adds up."""

    def way(hops, sent):
        return _cost(hops * t.hop_s + _wire_s(sent, t.link_bytes_per_s), sent, 1.0)

    once = (n - 1) / n * m
    if kind != "all_reduce":
        return [way(1.0, once)]
    summed = way(1.0, (n + 1) / n * m)
    able = jnp.where((t.reduces > 0) & (n > 2), summed.seconds, jnp.inf)
    return [way(1.0, (n - 1) * m), way(2.0, 2 * once), eqx.tree_at(lambda c: c.seconds, summed, able)]


def _outside(kind: str, m, n, i, t: Topology, step, inside_s: Inside | None) -> CollectiveCost:
    """Between `n` ranks, `i` of them in each package."""
    nothing = 0.0 * (m + n)
    if kind == "send":
        seconds = t.launch_s + t.outside_s + _wire_s(m, t.outside_bytes_per_s)
        return CollectiveCost(seconds, nothing, nothing, m + nothing)
    within = jnp.maximum(i, 2.0)

    def inside(kind, m, part=1.0):
        """Inside this package; nothing where its only rank is this one. `part`: of the bytes that pass there."""
        found = _inside(kind, m, within, t, step, inside_s)
        return jax.tree.map(lambda x: jnp.where(i > 1, part * x, 0.0), found)

    if kind == "all_to_all":  # ways inside and outside are not the same: both at once
        near = inside(kind, m * i / n)
        away = (n - i) / n * m
        across = t.launch_s + t.outside_s + _wire_s(away, t.outside_bytes_per_s)
        return CollectiveCost(jnp.maximum(across, near.seconds), near.link_bytes, near.hop_bytes, away)
    times = 2.0 if kind == "all_reduce" else 1.0
    # i rings through all ranks, each with the adapter of another one: an i-th of the bytes; a step waits for the slowest
    share = times * (n - 1) / n * m
    near = inside(kind, m, (1 - 1 / n) / (1 - 1 / within))
    wire_s = _wire_s(share / i, t.outside_bytes_per_s)
    latency = times * (n - 1) * jnp.maximum(t.outside_s, t.hop_s)
    flat = CollectiveCost(
        t.launch_s + latency + jnp.maximum(wire_s, near.seconds), near.link_bytes, near.hop_bytes, share / i
    )
    across = _across(times, m / i, jnp.maximum(jnp.ceil(n / i - 1e-6), 2.0), t)
    before = inside("reduce_scatter", m) if kind != "all_gather" else None
    behind = inside("all_gather", m) if kind != "reduce_scatter" else None
    return _faster(flat, _then(*(phase for phase in (before, across, behind) if phase is not None)))


def _across(times: float, m, o, t: Topology) -> CollectiveCost:
    """Ring or double binary tree of one rank from each of `o` packages."""

    def way(steps, sent):
        seconds = t.launch_s + times * steps * t.outside_s + _wire_s(times * sent, t.outside_bytes_per_s)
        return CollectiveCost(seconds, 0.0 * sent, 0.0 * sent, times * sent)

    return _faster(way(o - 1, (o - 1) / o * m), way(jnp.ceil(jnp.log2(o) - 1e-6), m))
