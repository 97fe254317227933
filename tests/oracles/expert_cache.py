"""Caches of experts and batches of requests in the slowest, most obvious way."""

from functools import cache


def lru(trace, frames):
    """A list from the longest unused to the last used."""
    order, hits = [], []
    for expert in trace:
        hits.append(expert in order)
        if expert in order:
            order.remove(expert)
        elif len(order) == frames:
            order.pop(0)
        order.append(expert)
    return hits


def most_hits(trace, frames):
    """The most hits that any choice of victims reaches, by trying all."""
    trace = tuple(trace)

    @cache
    def best(at, held):
        if at == len(trace):
            return 0
        expert = trace[at]
        if expert in held:
            return 1 + best(at + 1, held)
        if len(held) < frames:
            return best(at + 1, held | {expert})
        return max(best(at + 1, held - {victim} | {expert}) for victim in held)

    return best(0, frozenset())


def batch_timeline(misses, router_s, copy_s, expert_s, landing_s, overlap):
    """When the last expert of a batch is done: one copy engine, one processor, pair after pair, step by step."""
    ready = done = router_s
    started = router_s
    for i, miss in enumerate(misses):
        if overlap and i:  # copied from the moment the expert before began
            arrived = started + (copy_s if miss else 0.0)
            slowed = landing_s if miss else 0.0
            done += slowed  # the expert that runs meanwhile
        else:
            arrived = done + (copy_s if miss else 0.0)
        started = max(done, arrived)
        done = started + expert_s
        ready = done
    return ready


def che(p, frames):
    """Che's approximation by plain bisection in float64."""
    from math import exp

    low, high = 0.0, 1e9
    for _ in range(200):
        t = (low + high) / 2
        low, high = (t, high) if sum(1 - exp(-x * t) for x in p) < frames else (low, t)
    return sum(x * (1 - exp(-x * low)) for x in p)
