"""Queues of the timeline: memory tiers, ports and links serve transfers one after another.

Rows are visited in execution order, but ask for transfers at times that are not in order (weights are fetched ahead, branches run side
by side). A memory tier therefore remembers, beside the time from which it is free, the longest gap before it: a transfer that fits
there takes it, any other stands at the end. A port serves in the order of rows. A link adds up its work: a transfer cannot end before
all that was asked of the link so far is done (it shares the way with ports, which order it). Chosen by the event-driven simulation
among order of rows, work alone and gaps, each for memory, ports and links, and by what they cost (benchmarks/oracle_accuracy.py).

Nothing here is faster than the busiest resource: every transfer adds its service to each resource on its way, and ends after it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._constants import Constants, Ways
from ._placement import become, choose, weights, zeros


class Queue(NamedTuple):
    """A memory tier, or values over chiplets where each has its own."""

    free_s: Any  # nothing after this is taken
    gap_s: Any  # the longest gap before it: from
    gap_end_s: Any  # and to


class Queues(NamedTuple):
    """All that transfers wait for. Without `Ways` (a single chiplet) there are no ports and no links."""

    memory: tuple  # of each tier
    out_s: Any  # when the port out of each chiplet is free
    into_s: Any
    links_s: Any  # work so far of each link: a tuple, or an array


class Sent(NamedTuple):
    """Bytes between two chiplets."""

    came: Any  # from: what `weights` made of `source`
    source: Any
    when: Any
    nbytes: Any


def no_queues(k: Constants, zero) -> Queues:
    """Before the first transfer."""
    none = zeros(k.n_chiplets, zero, k.scalars)
    memory = tuple(Queue(*((none if own else zero,) * 3)) for own in k.own)
    if k.ways is None:
        return Queues(memory, (), (), ())
    return Queues(memory, none, none, zeros(k.ways.n_links, zero, k.scalars))


def restarted(queues: Queues, go_on) -> Queues:
    """Empty again where a model begins (`go_on` 0): each is timed alone."""
    return jax.tree.map(lambda v: v * go_on, queues)


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


def _in_turn(free_s, x, when, service_s, keep):
    """The same of ports, in the order of rows: (end, when each port is free)."""
    free = choose(x, free_s)
    end = keep(jnp.where(service_s > 0, jnp.maximum(when, free) + service_s, free))
    return end, become(free_s, x, end)


def send(queues: Queues, k: Constants, x, placed, parts: list[Sent], keep):
    """(when each part has come to the chiplet at `x`, queues): out of ports, over links, into a port.
    `keep` marks what is computed once."""
    ways = k.ways
    if ways is None:
        return [part.when for part in parts], queues
    out_s, ends, ons = queues.out_s, [], []
    for part in parts:
        end, out_s = _in_turn(out_s, part.came, part.when, part.nbytes * ways.port_s_per_byte, keep)
        ends.append(end)
        ons.append(_between(ways.between, part.came, x, part.source, placed, keep))
    return _arrive(
        queues._replace(out_s=out_s), ways, x, [p.when for p in parts], ends, ons, [p.nbytes for p in parts], keep
    )


def _arrive(queues: Queues, ways: Ways, x, whens, ends, ons, amounts, keep):
    """Links and the port into a chiplet, which serves all its parts one after another."""
    total = sum(amounts[1:], amounts[0])
    first = jnp.full_like(total, jnp.inf)
    for when, nbytes in zip(whens, amounts, strict=True):
        first = jnp.minimum(first, jnp.where(nbytes > 0, when, jnp.inf))
    first = jnp.where(total > 0, first, 0.0)
    last, into_s = _in_turn(queues.into_s, x, first, total * ways.port_s_per_byte, keep)
    links_s = queues.links_s
    if ways.n_links:
        for on, nbytes in zip(ons, amounts, strict=True):
            links_s = _worked(links_s, on, nbytes * ways.link_s_per_byte)
        took = [
            jnp.maximum(when + nbytes * ways.link_s_per_byte, _most(links_s, on))
            for when, on, nbytes in zip(whens, ons, amounts, strict=True)
        ]
        ends = [jnp.maximum(end, t) for end, t in zip(ends, took, strict=True)]
    ends = [
        jnp.where(nbytes > 0, jnp.maximum(jnp.maximum(end, last), when), when)
        for end, nbytes, when in zip(ends, amounts, whens, strict=True)
    ]
    return ends, queues._replace(into_s=into_s, links_s=links_s)


def _worked(links_s, on, seconds):
    """Work of links with that of one transfer."""
    if isinstance(links_s, tuple):
        return tuple(jnp.where((on & (1 << i)) != 0, v + seconds, v) for i, v in enumerate(links_s))
    return links_s + on * seconds


def _most(links_s, on):
    """Most work of the links that are `on`."""
    if not isinstance(links_s, tuple):
        return jnp.max(jnp.where(on > 0, links_s, 0.0))
    most = jnp.zeros_like(links_s[0])
    for i, v in enumerate(links_s):
        most = jnp.maximum(most, jnp.where((on & (1 << i)) != 0, v, 0.0))
    return most


def _between(table, came, x, source, placed, keep):
    """Links of the way from `came` to `x`, which are what `weights` made of `source` and `placed`."""
    if isinstance(table, tuple):
        return choose(came, tuple(choose(x, row) for row in table)).astype(jnp.int32)
    if came.dtype == jnp.bool_:
        return table[source, placed]
    return jnp.einsum("a,b,abk->k", came, x, table)


def memory_transfer(queues: Queues, k: Constants, x, when, by_tier, waits_s, keep, *, reads: bool, before: Any = None):
    """(when bytes have moved between memory and the chiplet at `x`, queues). `by_tier`: bytes in each tier; `waits_s`: latency;
    `before`: bytes in each tier that are written before they are read."""
    total: Any = sum(by_tier[1:], by_tier[0])
    memory: list = list(queues.memory)
    end: Any = when
    for t, nbytes in enumerate(by_tier):
        service = nbytes * (k.read_s if reads else k.write_s)[t]
        if before is not None:
            service = service + before[t] * k.write_s[t]
        if k.own[t]:
            end, mine = ask(Queue(*(choose(x, v) for v in memory[t])), end, service)
            memory[t] = Queue(*(become(v, x, one) for v, one in zip(memory[t], mine, strict=True)))
        else:
            end, memory[t] = ask(memory[t], end, service)
    queues = queues._replace(memory=tuple(memory))
    if k.ways is not None and k.ways.read is not None:
        end, queues = _to_interface(queues, k, x, when, end, total, reads, keep)
    wait_s: Any = jnp.where(total > 0, waits_s, 0.0)
    return end + wait_s, queues


def _to_interface(queues: Queues, k: Constants, x, when, end, nbytes, reads: bool, keep):
    """Memory traffic of a chiplet without an interface: the ports of both chiplets, and the links between them."""
    ways: Any = k.ways
    far = nbytes * choose(x, ways.far)
    server = _server(x, ways.server, k)
    here, there = (x, server) if reads else (server, x)  # into, out of
    out, out_s = _in_turn(queues.out_s, there, when, far * ways.port_s_per_byte, keep)
    table = ways.read if reads else ways.write
    on = choose(x, table) if k.scalars else _mean(x, table)
    (arrived,), queues = _arrive(queues._replace(out_s=out_s), ways, here, [when], [out], [on], [far], keep)
    return jnp.maximum(end, arrived), queues


def _server(x, server, k: Constants):
    """Placement of the chiplet that serves the one at `x`."""
    if not isinstance(x, tuple) and x.dtype != jnp.bool_:
        return x @ (server[:, None] == jnp.arange(k.n_chiplets)).astype(x.dtype)
    return weights(choose(x, server), k.n_chiplets, k.scalars)


def _mean(x, table):
    return jnp.sum(jnp.where(x[:, None], table, 0.0), axis=0) if x.dtype == jnp.bool_ else x @ table
