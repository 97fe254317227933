"""The evaluator of placements in JAX: the semantics of `timeline`, for one candidate or for thousands.

The walk is written once, for the nodes of one candidate; a trailing axis of candidates rides along (batch last, so that a step
reads and writes rows), and `makespans` is the one place that makes such batches. A task with many inputs is split beforehand:
*collectors* (no time, no device taken) gather all but its last inputs, so that a node has at most `K` of them and the walk no
padding to speak of. Transfers of a congested problem have an order, so there nothing is split.

Two walks, both measured in benchmarks/placement_speed.py: one shared order reads rows and picks device pairs by selects; an
order per candidate gathers, everything that does not depend on finish times before the walk.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from ._arrays import Arrays, Compiled, compiled, nodes_of
from ._problem import Problem

SELECT_DEVICES = 6  # up to so many devices a pair is picked by selects, else gathered
WIDTHS = (
    32,
    256,
    1024,
)  # candidates a program walks at once; with an order each 256 at most, whose tables fill the cache


def jax_makespan(a: Arrays, place, order, *, congestion: bool = False, worst_case: bool = False, shared: bool = True,
                 select_devices: int = SELECT_DEVICES):  # fmt: skip
    """Makespan of one candidate: `place` `[M]` device of each node, `order` `[M]` nodes. The mean, or the worst, over scenarios.

    A trailing axis of `place` `[M, B]` (and of `order`, if not `shared`) gives `[B]`.
    `select_devices` (static): up to so many devices a pair of a shared order is picked by selects.
    """
    walk = partial(_walk_shared, select_devices=select_devices) if shared else _walk_own
    place = place.astype(jnp.int8)
    fixed = None if shared else _gathered(a, place, order.astype(jnp.int32))

    def scenario(factors):
        return walk(a, place, order, factors, congestion, fixed)

    if a.factors.shape[0] == 1:
        return scenario(a.factors[0])
    start = jnp.zeros(place.shape[1:], a.times.dtype)
    join = jnp.maximum if worst_case else jnp.add
    total, _ = lax.scan(lambda c, f: (join(c, scenario(f)), None), start, a.factors)
    return total if worst_case else total / a.factors.shape[0]


class _Links(NamedTuple):
    """Until when each device sends and receives (congestion only)."""

    sending: tuple
    receiving: tuple


def _pick(values, which):
    """values[which] by selects: `values` a tuple of D rows or scalars."""
    return reduce(lambda x, d: jnp.where(which == d, values[d], x), range(1, len(values)), values[0])


def _ready(inputs, here, links: _Links | None):
    """When all inputs have arrived. `inputs`: (finish of the producer, its device, transfer time, carries data) of each."""
    ready = 0.0
    for finish, there, transfer, moves in inputs:
        if links is None:
            ready = jnp.maximum(ready, finish + transfer)
            continue
        waits = moves & (there != here)
        sent = jnp.maximum(finish, jnp.maximum(_pick(links.sending, there), _pick(links.receiving, here)))
        arrived = jnp.where(waits, sent, finish) + transfer
        links = _Links(tuple(jnp.where(waits & (there == d), arrived, s) for d, s in enumerate(links.sending)),
                       tuple(jnp.where(waits & (here == d), arrived, r) for d, r in enumerate(links.receiving)))  # fmt: skip
        ready = jnp.maximum(ready, arrived)
    return ready, links


def _loop(a: Arrays, batch, congestion: bool, step):
    """Walk the real nodes. `step(i, finish, free, links) -> (finish of node i, device, takes the device?, links)`.

    What a step found is written by the next one, before it reads: written at once, XLA copies the whole table in every step.
    """
    m, devices = a.times.shape
    zero = jnp.zeros(batch, a.times.dtype)

    def body(i, carry):
        table, free, links, found, where = carry
        table = lax.dynamic_update_index_in_dim(table, found, jnp.where(i > 0, i - 1, m + 1), 0)
        free = tuple(jnp.where(where == d, found, f) for d, f in enumerate(free))
        found, here, runs, links = step(i, table, free, links)
        return table, free, links, found, jnp.where(runs, here, jnp.int8(-1))

    zeros = (zero,) * devices
    start = (jnp.zeros((m + 2, *batch), a.times.dtype), zeros, _Links(zeros, zeros) if congestion else None, zero,
             jnp.full(batch, -1, jnp.int8))  # fmt: skip
    _, free, _, found, _ = lax.fori_loop(0, a.count, body, start)
    return jnp.maximum(reduce(jnp.maximum, free), found)


def _walk_shared(a: Arrays, place, order, factors, congestion: bool, _, select_devices: int):
    m, devices = a.times.shape
    at = jnp.full(m + 1, m, jnp.int32).at[order].set(jnp.arange(m, dtype=jnp.int32))
    place = jnp.concatenate([place[order], jnp.zeros_like(place[:1])])
    times, runs, moves = a.times[order], a.runs[order], a.moves[order]
    source, transfer = at[a.source[order]], (a.transfer * factors)[order]
    if congestion:  # a consumer's transfers go in the list order of their producers
        line = jnp.argsort(source, axis=1)
        source, moves = (jnp.take_along_axis(x, line, 1) for x in (source, moves))
        transfer = jnp.take_along_axis(transfer, line[..., None], 1)
    row = partial(lax.dynamic_index_in_dim, axis=0, keepdims=False)

    def step(i, finish, free, links):
        here = row(place, i)
        inputs = []
        for k in range(source.shape[1]):
            there = row(place, source[i, k])
            if devices <= select_devices:
                pair = transfer[i, k].reshape(devices, devices)
                time = _pick(tuple(_pick(tuple(pair[x]), here) for x in range(devices)), there)
            else:
                time = transfer[i, k][there.astype(jnp.int32) * devices + here]
            inputs.append((row(finish, source[i, k]), there, time, moves[i, k]))
        ready, links = _ready(inputs, here, links)
        start = jnp.where(runs[i], jnp.maximum(ready, _pick(free, here)), ready)
        return start + _pick(tuple(times[i]), here), here, runs[i], links

    return _loop(a, place.shape[1:], congestion, step)


def _at(table, rows):
    """table[rows] where both may carry the trailing axis of candidates."""
    return jnp.take_along_axis(table, rows, 0) if table.ndim == rows.ndim else table[rows]


def _gathered(a: Arrays, place, order):
    """Per position: device, time, takes the device?, and per input: position of the producer, its device, transfer, moves."""
    m, devices = a.times.shape
    at = positions(order)
    at, place = (jnp.concatenate([x, jnp.full_like(x[:1], fill)]) for x, fill in ((at, m), (place, 0)))
    here = _at(place, order).astype(jnp.int32)
    inputs = []
    for k in range(a.source.shape[1]):
        source = a.source[:, k][order]
        there = _at(place, source)
        pair = there.astype(jnp.int32) * devices + here
        time = a.transfer.reshape(-1)[(order * a.source.shape[1] + k) * devices**2 + pair]
        inputs.append((_at(at, source), there, pair, time, a.moves[:, k][order]))
    return here.astype(jnp.int8), a.times.reshape(-1)[order * devices + here], a.runs[order], inputs


def positions(order):
    """The inverse of orders `[M]` or `[M, B]`."""
    m = order.shape[0]
    where = jnp.arange(m, dtype=jnp.int32).reshape((m,) + (1,) * (order.ndim - 1))
    lanes = tuple(jnp.arange(s)[None] for s in order.shape[1:])
    return jnp.zeros(order.shape, jnp.int32).at[(order, *lanes)].set(jnp.broadcast_to(where, order.shape))


def _walk_own(a: Arrays, place, order, factors, congestion: bool, fixed):
    here, times, runs, inputs = fixed
    row = partial(lax.dynamic_index_in_dim, axis=0, keepdims=False)
    inputs = [(at, there, time * factors[pair], moves) for at, there, pair, time, moves in inputs]
    if congestion:  # a consumer's transfers go in the list order of their producers
        each = [jnp.stack(jnp.broadcast_arrays(*(i[k] for i in inputs))) for k in range(4)]
        line = jnp.argsort(each[0], axis=0)
        inputs = list(zip(*(jnp.take_along_axis(x, line, 0) for x in each), strict=True))
    lanes = tuple(jnp.arange(s) for s in order.shape[1:])

    def step(i, finish, free, links):
        h, r = row(here, i), row(runs, i)
        arriving = [
            (finish[(row(at, i), *lanes)], row(there, i), row(time, i), row(moves, i))
            for at, there, time, moves in inputs
        ]
        ready, links = _ready(arriving, h, links)
        start = jnp.where(r, jnp.maximum(ready, _pick(free, h)), ready)
        return start + row(times, i), h, r, links

    return _loop(a, order.shape[1:], congestion, step)


_program = partial(jax.jit, static_argnames=("congestion", "worst_case", "shared"))(jax_makespan)


def jax_makespans(
    problem: Problem | Compiled, placements: Int[np.ndarray, "B N"], orders=None
) -> Float[np.ndarray, "B"]:
    """Makespans of a batch of hard candidates.

    **Arguments:** `placements`: device of each task; `orders`: topological orders, `[N]` for all (default: the problem's own) or
    `[B, N]`. Neither is checked (`timeline` does): an order that is none gives a number that means nothing.

    Chunks of a fixed width share one program a problem shape; they run on all cores this process may use.
    """
    c = problem if isinstance(problem, Compiled) else compiled(problem)
    placements = np.asarray(placements, np.int8)
    orders = c.order if orders is None else np.asarray(orders, np.int32)
    own = orders.ndim == 2
    if not own and len(orders) == c.n_tasks:
        orders = nodes_of(c, orders)
    if own and orders.shape[1] == c.n_tasks:
        if c.n_nodes == c.n_tasks:
            tail = np.arange(c.n_tasks, len(c.arrays.runs), dtype=np.int32)
            orders = np.concatenate([orders, np.broadcast_to(tail, (len(orders), len(tail)))], axis=1)
        else:
            orders = np.stack([nodes_of(c, row) for row in orders])
    batch, owner = len(placements), np.asarray(c.arrays.owner)
    widths = WIDTHS[:2] if own else WIDTHS
    width = next((w for w in widths if batch <= w), widths[-1])
    shared_order = None if own else jnp.asarray(orders)

    def chunk(start: int) -> np.ndarray:
        rows = np.arange(start, min(start + width, batch))
        picked = np.concatenate([rows, np.full(width - len(rows), rows[0])])
        place = np.ascontiguousarray(placements[picked].T)[owner]
        order = np.ascontiguousarray(orders[picked].T) if own else shared_order
        out = _program(c.arrays, place, order, congestion=c.congestion, worst_case=c.worst_case, shared=not own)
        return np.asarray(out)[: len(rows)]

    starts = range(0, batch, width)
    if len(starts) < 2:
        return np.concatenate([chunk(s) for s in starts]) if batch else np.zeros(0)
    with ThreadPoolExecutor(cores()) as pool:
        return np.concatenate(list(pool.map(chunk, starts)))


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
