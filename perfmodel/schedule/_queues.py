"""Queues of the timeline: memory tiers, ports and links serve transfers one after another.

Rows are visited in execution order, but ask for transfers at times that are not in order (weights are fetched ahead, branches run side
by side). A memory tier and a port therefore remember, beside the time from which they are free, the longest gap before it: a transfer
that fits there takes it, any other stands at the end. So no two transfers overlap, and none waits for one that asks later while there
is a gap to take. A link only adds up its work: a transfer cannot end before all that was asked of the link so far is done (it shares
the way with ports, which order it). Chosen by the event-driven simulation among first come, first served, work alone and gaps, each
for memory, ports and links (benchmarks/oracle_accuracy.py).

Nothing here is faster than the busiest resource: every transfer adds its service to each resource on its way, and ends after it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._constants import Constants
from ._placement import become, choose, weights, zeros


class Queue(NamedTuple):
    """Of one resource, or values over chiplets."""

    free_s: Any  # nothing after this is taken
    gap_s: Any  # the longest gap before it: from
    gap_end_s: Any  # and to


class Queues(NamedTuple):
    """All that transfers wait for."""

    memory: tuple  # of each tier: a queue, or one of each chiplet
    out: Queue | None  # ports, values over chiplets; None: a single chiplet
    into: Queue | None
    links: Any  # seconds of work so far of each link: a tuple, or an array


def no_queues(k: Constants, zero) -> Queues:
    """Before the first transfer."""

    def queue(own: bool) -> Queue:
        return Queue(*((zeros(k.n_chiplets, zero, k.scalars) if own else zero,) * 3))

    memory = tuple(queue(own) for own in k.own)
    if k.ways is None:
        return Queues(memory, None, None, ())
    return Queues(memory, queue(True), queue(True), zeros(k.ways.n_links, zero, k.scalars))


def ask(queue: Queue, when, service_s):
    """(end of a transfer that asks at `when` for so many seconds, the queue after it); without service at once and unchanged."""
    begin = jnp.maximum(when, queue.gap_s)
    inside = begin + service_s <= queue.gap_end_s
    start = jnp.where(inside, begin, jnp.maximum(when, queue.free_s))
    end = start + service_s
    # what is left of the gap taken (its longer side), or the gap that this one leaves before it
    after, before = queue.gap_end_s - end, begin - queue.gap_s
    longer = start - queue.free_s > queue.gap_end_s - queue.gap_s
    gap = jnp.where(inside, jnp.where(after >= before, end, queue.gap_s), jnp.where(longer, queue.free_s, queue.gap_s))
    gap_end = jnp.where(
        inside, jnp.where(after >= before, queue.gap_end_s, begin), jnp.where(longer, start, queue.gap_end_s)
    )
    free = jnp.where(inside, queue.free_s, end)
    used = service_s > 0
    new = Queue(*(jnp.where(used, n, o) for n, o in zip((free, gap, gap_end), queue, strict=True)))
    return jnp.where(used, end, when), new


def ask_at(queue: Queue, x, when, service_s):
    """The same of the resource where `x` is."""
    end, new = ask(Queue(*(choose(x, v) for v in queue)), when, service_s)
    return end, Queue(*(become(v, x, one) for v, one in zip(queue, new, strict=True)))


def _over_links(links, on, k: Constants, seconds):
    """(all that is asked of the links that are `on` so far, the links' work with it)."""
    if isinstance(links, tuple):
        lit = [(on & (1 << i)) != 0 for i in range(len(links))]
        links = tuple(jnp.where(w, v + seconds, v) for w, v in zip(lit, links, strict=True))
        asked = [jnp.where(w, v, 0.0) for w, v in zip(lit, links, strict=True)]
        most = asked[0]
        for v in asked[1:]:
            most = jnp.maximum(most, v)
        return most, links
    links = links + on * seconds
    return jnp.max(jnp.where(on > 0, links, 0.0)), links


def send(queues: Queues, k: Constants, came, x, source, placed, when, nbytes):
    """(when bytes from a chiplet have come to another, queues): out of a port, over links, into a port. `came` and `x` are what
    `weights` made of the placements `source` and `placed`."""
    ways = k.ways
    if ways is None:
        return when, queues
    end, out = ask_at(queues.out, came, when, nbytes * ways.port_s_per_byte)
    more, into = ask_at(queues.into, x, when, nbytes * ways.port_s_per_byte)
    end, links = jnp.maximum(end, more), queues.links
    if ways.n_links:
        seconds = nbytes * ways.link_s_per_byte
        most, links = _over_links(links, _between(ways.between, came, x, source, placed), k, seconds)
        end = jnp.maximum(end, jnp.where(nbytes > 0, jnp.maximum(when + seconds, most), when))
    return end, queues._replace(out=out, into=into, links=links)


def _between(table, came, x, source, placed):
    """Links of the way from `came` to `x`."""
    if isinstance(table, tuple):
        return choose(came, tuple(choose(x, row) for row in table))
    if came.dtype == jnp.bool_:
        return table[source, placed]
    return jnp.einsum("a,b,abk->k", came, x, table)


def memory_transfer(queues: Queues, k: Constants, x, when, by_tier, waits_s, *, reads: bool):
    """(when bytes have moved between memory and the chiplet at `x`, queues). `by_tier`: bytes in each tier; `waits_s`: latency."""
    total, memory, end = sum(by_tier[1:], by_tier[0]), list(queues.memory), when
    for t, nbytes in enumerate(by_tier):
        service = nbytes * (k.read_s if reads else k.write_s)[t]
        end, memory[t] = ask_at(memory[t], x, end, service) if k.own[t] else ask(memory[t], end, service)
    queues = queues._replace(memory=tuple(memory))
    if k.ways is not None and k.ways.read is not None:
        end, queues = _to_interface(queues, k, x, when, end, total, reads)
    return end + jnp.where(total > 0, waits_s, 0.0), queues


def _to_interface(queues: Queues, k: Constants, x, when, end, nbytes, reads: bool):
    """Memory traffic of a chiplet without an interface: the ports of both chiplets, and the links between them."""
    ways = k.ways
    far = nbytes * choose(x, ways.far)
    server = _server(x, ways.server, k)
    here, there = (x, server) if reads else (server, x)  # into, out of
    seconds = far * ways.port_s_per_byte
    a, out = ask_at(queues.out, there, when, seconds)
    b, into = ask_at(queues.into, here, when, seconds)
    end, links = jnp.maximum(end, jnp.maximum(a, b)), queues.links
    if ways.n_links:
        on = (
            choose(x, ways.read if reads else ways.write) if k.scalars else _mean(x, ways.read if reads else ways.write)
        )
        took = far * ways.link_s_per_byte
        most, links = _over_links(links, on, k, took)
        end = jnp.maximum(end, jnp.where(far > 0, jnp.maximum(when + took, most), end))
    return end, queues._replace(out=out, into=into, links=links)


def _server(x, server, k: Constants):
    """Placement of the chiplet that serves the one at `x`."""
    if not isinstance(x, tuple) and x.dtype != jnp.bool_:
        return x @ (server[:, None] == jnp.arange(k.n_chiplets)).astype(x.dtype)
    if isinstance(x, tuple) and x[0].dtype != jnp.bool_:
        return tuple(sum(w * (s == d) for w, s in zip(x, server, strict=True)) for d in range(k.n_chiplets))
    return weights(choose(x, server), k.n_chiplets, k.scalars)


def _mean(x, table):
    return jnp.sum(jnp.where(x[:, None], table, 0.0), axis=0) if x.dtype == jnp.bool_ else x @ table


def restarted(queues: Queues, go_on) -> Queues:
    """Empty again where a model begins (`go_on` 0): each is timed alone."""
    return jax.tree.map(lambda v: v * go_on, queues)
