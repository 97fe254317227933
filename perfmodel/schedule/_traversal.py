"""The traversal: one pass over the operators in execution order that adds up a round and keeps the clock of the timeline.

Written for one candidate. Values over chiplets are scalars in tuples or arrays, placements are weights over chiplets, hard or relaxed:
the same code for all (`_placement.py`). Transfers stand in the queues of memory tiers, ports and links (`_queues.py`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._numerics import fits, varying_with
from ._access import parted, waited
from ._constants import Constants
from ._placement import agree, become, choose, columns, each, pairs, plus, weights, zeros
from ._queues import Queues, Sent, memory_transfer, no_queues, restarted, send
from ._registers import register, registers, set_register
from ._residency import Residency
from ._rows import Costs, Rows, row_costs
from ._streams import Streaming, after_row, inputs_of, no_streams, stream_row


class Totals(NamedTuple):
    """What a round adds up to. Values over chiplets, `traffic` over ordered pairs of them; `read`, `written` and `resting` over tiers,
    in each over chiplets (one entry for all where it does not matter which)."""

    busy_s: Any  # time each chiplet computes
    traffic: Any  # bytes from chiplet a to chiplet b
    read: Any  # bytes read from memory
    written: Any
    onchip_j: jax.Array
    filled_j: jax.Array  # buffers, for bytes that enter or leave a chiplet
    excess_bytes: jax.Array  # by how much the streaming tile of an operator exceeds its chiplet's buffer
    resting: Any  # most bytes of results in memory at a time, of all models; empty with one tier


class Clock(NamedTuple):
    """Where the timeline stands: when each chiplet is free, when it last started, and what the registers hold."""

    free_s: Any
    started_s: Any
    live: Any  # bytes held in each buffer
    finish_s: Any  # of the tensor in each register: when it is held, or in memory
    held: Any  # 1.0 where that tensor stays in its producer's buffer
    placed: Any  # placement of its producer
    latest_s: tuple  # finish of the latest result of each model
    window: jax.Array  # window being executed
    barrier_s: jax.Array  # nothing of this window starts before
    queues: Queues
    streams: Streaming | None  # what streams hold; None without fusion
    rest: (
        tuple | None
    )  # of results in memory: bytes now, most of this model, most of the models before; None with one tier


class Record(NamedTuple):
    """What the timeline saw of each row, in execution order; `I` inputs."""

    start_s: jax.Array  # [L]
    finish_s: jax.Array  # [L]
    held: jax.Array  # [L] 1.0 where the result stays in the buffer
    by_network: jax.Array  # [L, I] 1.0 where an input crosses the package network
    by_memory: jax.Array  # [L, I]
    input_done_s: jax.Array  # [L, I] when it could be fetched
    weights_read: jax.Array  # [L] bytes of a pass from memory
    outside_read: jax.Array  # [L]
    input_read: jax.Array  # [L, I]
    input_late: jax.Array  # [L, I] of a tensor that its producer held, written now
    written: jax.Array  # [L] of the result


def traverse(rows: Rows, placed, windows, constants: Constants, held_weights: Residency, n_slots: int, n_models: int, *,
             smooth: bool, temperature, warm: bool = True, unroll: int | bool = 1, remat: bool = False,
             record: bool = False):  # fmt: skip
    """Totals of a round, first-result latency of each model, and a `Record` of every row if asked (else None).

    `placed[l]` is the placement of row l, `windows[l]` its window (or None). `warm`: what is resident is in the buffers when the
    timeline begins. `unroll` is XLA's: 1 on a CPU, more fuses steps on a GPU.
    """
    k, dtype = constants, rows.weight_bytes.dtype
    zero = jnp.zeros((), dtype)
    none = zeros(k.n_chiplets, zero, k.scalars)
    one = none if k.spread else (zero,) if k.scalars else jnp.zeros(1, dtype)
    by_tier = (one,) * k.n_tiers
    alone = rows.access is None
    n_pairs = k.n_chiplets * (k.n_chiplets - 1)
    traffic = (zero,) * n_pairs if k.scalars else jnp.zeros((k.n_chiplets,) * 2, dtype)
    totals = Totals(none, traffic, by_tier, by_tier, zero, zero, zero, () if alone else by_tier)
    empty = registers(n_slots, zero, k.scalars)
    clock = Clock(
        none, none, none, empty, empty, registers(n_slots, jnp.zeros_like(placed[0]), k.scalars), (zero,) * n_models,
        jnp.zeros((), jnp.int32), zero, no_queues(k, zero),
        None if rows.stream is None else no_streams(n_slots, k.n_chiplets, zero, k.scalars),
        None if alone else (by_tier,) * 3,
    )  # fmt: skip

    totals, clock = varying_with((totals, clock), (rows, placed, windows, k, held_weights))
    if windows is not None:
        clock = clock._replace(window=varying_with(jnp.zeros((), jnp.int32), windows))

    def step(carry, xs):
        total, clock, seen = _step(*carry, *xs, k, held_weights, smooth, temperature, warm)
        return (total, clock), seen if record else None

    if remat:  # reverse mode keeps only the carry of each step
        step = jax.checkpoint(step)
    (totals, clock), seen = jax.lax.scan(step, (totals, clock), (rows, placed, windows), unroll=unroll)
    if clock.rest is not None:
        totals = totals._replace(resting=jax.tree.map(jnp.add, *clock.rest[1:]))
    return totals, jnp.stack(clock.latest_s), seen


def _step(total: Totals, clock: Clock, row: Rows, placed, window, k: Constants, held_weights: Residency, smooth,
          temperature, warm: bool):  # fmt: skip
    n, dtype = k.n_chiplets, clock.barrier_s.dtype
    one = jnp.where(row.slot < 0, 2.0, 1.0).astype(dtype)

    def keep(value):
        # XLA on CPU copies a cheap producer into every consumer, here dozens; it never copies a division. Dividing by a one
        # that it cannot see through makes it compute a shared value once (measured: benchmarks/schedules_per_second.py).
        return value / one if k.scalars else value

    x = weights(placed, n, k.scalars)
    y = x if k.column is None else columns(x, k.column, k.n_columns, keep)
    # of this row where it is placed
    costs = Costs(*(None if column is None else choose(y, column) for column in row_costs(row, k, smooth)))

    access = k.access if row.access is None else row.access
    assert access is not None

    # a new model starts in an empty package; a new window waits for the one before
    go_on = 1.0 - row.first
    barrier = clock.barrier_s
    if window is not None:
        barrier = barrier * go_on
        so_far = sum(m * t for m, t in zip(row.of_model, clock.latest_s, strict=True))
        barrier = jnp.where(window > clock.window, so_far, barrier)
    free, started = (each(lambda v: v * go_on, v) for v in (clock.free_s, clock.started_s))
    queues = restarted(clock.queues, go_on)
    capacity, resident = choose(x, held_weights.capacity), choose(x, held_weights.resident)
    spare = keep(capacity - choose(x, clock.live))
    exec_s, refetch, memory_s = keep(costs.exec_s * row.count), keep(costs.input_refetch), choose(x, k.memory_s)
    started_here, free_here = keep(choose(x, started)), keep(choose(x, free))
    asked = keep(jnp.maximum(barrier, started_here))  # a chiplet fetches for the operator after the one that runs

    def moved_by(queues, when, parts, memory_s, at=x, reads=True):
        """(when bytes have moved, queues). `parts`: (bytes, bytes that are written before, where they live), all asked for at once."""
        if row.access is None:  # one tier, whatever lives there
            parts = [(sum(part[0] for part in parts), sum(part[1] for part in parts), parts[0][2])]
        end = when
        for nbytes, late, lives in parts:
            by_tier, before = (tuple(v * row.count for v in parted(each, lives, k.n_tiers)) for each in (nbytes, late))
            wait_s = waited(memory_s, lives)
            wait_s = wait_s + jnp.where(late > 0, wait_s, 0.0)
            done, queues = memory_transfer(queues, k, at, when, by_tier, wait_s, keep, reads=reads, before=before)
            end = jnp.maximum(end, done)
        return keep(end), queues._replace(memory=jax.tree.map(keep, queues.memory))

    # where each input comes from
    shares: tuple[list, ...] = ([], [], [], [], [])
    found, fused = [], []
    from_memory, arrived = jnp.where(row.outside_in > 0, 1.0, 0.0), jnp.zeros((), dtype)
    for i in range(row.input_slot.shape[0]):
        slot, nbytes = row.input_slot[i], row.input_bytes[i]
        there = slot >= 0  # a missing input has no bytes, so its placement says nothing
        source = register(clock.placed, slot)
        came = weights(source, n, k.scalars)
        held, done = keep(register(clock.held, slot)), register(clock.finish_s, slot)
        same = keep(agree(came, x, source, placed, dtype))
        space = _fits(arrived + nbytes, spare, capacity, smooth, temperature)
        by_network = keep(held * (1.0 - same) * space)
        by_memory = keep(1.0 - held * same - by_network)
        late = held * (1.0 - same) - by_network  # held by its producer, but does not fit here: written when needed
        arrived = keep(arrived + by_network * nbytes)
        late_bytes, input_read = keep(late * row.input_write[i]), keep(by_memory * nbytes * refetch)
        if clock.streams is not None:
            fused.append((came, tuple(keep(v) for v in inputs_of(clock.streams, row.stream, i, slot, held))))
        from_memory = jnp.maximum(from_memory, jnp.where(there, by_memory, 0.0))
        found.append((there, source, came, held, done, by_network, by_memory, late_bytes, input_read))
        for share, value in zip(shares, (by_network, by_memory, done, input_read, late_bytes), strict=True):
            share.append(jnp.where(there, value, 0.0))

    # what comes from memory ahead: bytes from outside; weights, as often as tiles need them where inputs come from memory
    again = row.weight_bytes * (costs.weight_refetch - 1.0) * from_memory * (1.0 - resident)
    load = keep(row.weight_bytes * (1.0 - resident) + again)
    load_now = load if warm else keep(row.weight_bytes + again)
    outside_read = row.outside_in * refetch
    none = jnp.zeros((), dtype)
    ahead = [(load_now, none, access.weights), (outside_read, none, access.outside_in)]
    ready, queues = moved_by(queues, asked, ahead, memory_s)
    in_read = outside_read  # bytes this row reads from memory
    reads = list(parted(in_read, access.outside_in, k.n_tiers))  # the same by tier

    # the inputs: over the network from where they are held; from memory all together, those held elsewhere once they are written
    inputs = []  # of each: where it came from, bytes over the network, bytes spilled late, bytes given back
    sent = [keep(jnp.maximum(done, asked)) for *_, done, _, _, _, _ in found]
    written = asked
    if k.ways is not None:
        parts = [
            Sent(came, source, when, by_network * nbytes * row.count)
            for when, nbytes, (_, source, came, _, _, by_network, *_) in zip(sent, row.input_bytes, found, strict=True)
        ]
        ends: Any
        ends, queues = send(queues, k, x, placed, parts, keep)
        sent = [keep(end + choose(part.came, _hops_to(x, k)) * k.hop_s) for end, part in zip(ends, parts, strict=True)]
    for i, (there, _, came, _, done, _, by_memory, late_bytes, _) in enumerate(found):
        when = asked + by_memory * jnp.where(there, jnp.maximum(done - asked, 0.0), 0.0)
        if k.spread:  # the way out of the other chiplet is another one
            out_s = choose(came, k.memory_s)
            when, queues = moved_by(queues, when, [(late_bytes, none, access.input(i))], out_s, came, reads=False)
        written = jnp.maximum(written, when)
    from_tiers = [
        (input_read, none if k.spread or k.ways is None else late_bytes, access.input(i))
        for i, (*_, late_bytes, input_read) in enumerate(found)
    ]
    fetched, queues = moved_by(queues, keep(written), from_tiers, memory_s)
    for i, (there, _, came, held, done, by_network, by_memory, late_bytes, input_read) in enumerate(found):
        at, nbytes = access.input(i), row.input_bytes[i]
        here = done + by_network * (sent[i] - done) + by_memory * (jnp.maximum(fetched, done) - done)
        ready = jnp.maximum(ready, jnp.where(there, here, 0.0))
        moved, back = by_network * (nbytes * row.rate), held * row.input_release[i]
        late_by_tier = tuple(keep(v) for v in parted(late_bytes * row.rate, at, k.n_tiers))
        gone = None if row.access is None else parted((1.0 - held) * row.access.input_gone[i], at, k.n_tiers)
        inputs.append((came, keep(moved), late_by_tier, keep(back), gone))
        in_read = in_read + input_read
        reads = [v + more for v, more in zip(reads, parted(input_read, at, k.n_tiers), strict=True)]

    start = keep(jnp.maximum(ready, free_here))
    one_streamed = None
    if clock.streams is not None:
        one_streamed = stream_row(
            row, costs, x, clock.streams, [v for _, v in fused], arrived, resident,
            lambda need: _fits(need, spare, capacity, smooth, temperature), keep,
        )  # fmt: skip
        exec_s = keep(one_streamed.exec_s * row.count)
    finish = keep(start + exec_s)

    # models are timed one at a time, so nothing of another model is live here: see docs/model.md for what that leaves out
    if one_streamed is None:
        held = keep(_fits(arrived + row.hold_bytes, spare, capacity, smooth, temperature))
    else:
        held = one_streamed.held
    made = row.out_bytes * (1.0 - held)
    behind = [(made, none, access.result), (row.outside_out, none, access.outside_out)]
    written_s, queues = moved_by(queues, finish, behind, memory_s, reads=False)
    after = jnp.where(row.outside_out > 0, written_s, finish)
    out = keep((made + row.outside_out) * row.rate)
    in_read = keep((in_read + load) * row.rate)
    buffer_j = choose(x, k.buffer_j_per_byte)

    filled_j = total.filled_j + (in_read + out) * buffer_j
    made_by_tier = parted(made, access.result, k.n_tiers)
    if row.access is None:
        reads, writes = [in_read], [out]
    else:
        reads = [
            keep((v + more) * row.rate) for v, more in zip(reads, parted(load, access.weights, k.n_tiers), strict=True)
        ]
        writes = [
            keep((v + more) * row.rate)
            for v, more in zip(made_by_tier, parted(row.outside_out, access.outside_out, k.n_tiers), strict=True)
        ]
    read = tuple(_put(v, x, amount, k) for v, amount in zip(total.read, reads, strict=True))
    live = plus(clock.live, x, held * row.hold_bytes)
    written = [_put(v, x, amount, k) for v, amount in zip(total.written, writes, strict=True)]
    traffic = total.traffic
    for came, moved, late, back, _ in inputs:
        filled_j = filled_j + moved * buffer_j + (moved + sum(late)) * choose(came, k.buffer_j_per_byte)
        live = plus(live, came, -back)
        written = [_put(v, came, amount, k) for v, amount in zip(written, late, strict=True)]
        if n > 1:
            traffic = pairs(traffic, came, x, moved)
    streams = None
    if one_streamed is not None:
        streams, live = after_row(clock.streams, clock.live, row.slot, x, one_streamed, fused)
    new_clock = Clock(
        free_s=become(free, x, jnp.where(row.count > 0, finish, free_here)),
        started_s=become(started, x, jnp.where(row.count > 0, start, started_here)),
        live=live,
        finish_s=set_register(clock.finish_s, row.slot, keep(finish + (1.0 - held) * (written_s - finish))),
        held=set_register(clock.held, row.slot, held),
        placed=set_register(clock.placed, row.slot, placed),
        latest_s=tuple(jnp.where(row.of_model[m] > 0, jnp.maximum(v, after), v) for m, v in enumerate(clock.latest_s)),
        window=clock.window if window is None else window,
        barrier_s=barrier,
        queues=queues,
        streams=streams,
        rest=None if clock.rest is None else _rested(clock.rest, row, x, made_by_tier, inputs, access, k),
    )
    new_total = Totals(
        busy_s=plus(total.busy_s, x, _unless_filler(exec_s, row)),
        traffic=traffic,
        read=read,
        written=tuple(written),
        onchip_j=total.onchip_j + costs.onchip_j * row.rate,
        filled_j=filled_j,
        excess_bytes=jnp.maximum(
            total.excess_bytes, (costs.working_bytes - choose(x, k.buffer_bytes)) * jnp.minimum(row.count, 1.0)
        ),
        resting=total.resting,
    )
    seen = Record(start, finish, held, *(jnp.stack(share) for share in shares[:3]), load, outside_read,
                  jnp.stack(shares[3]), jnp.stack(shares[4]), made)  # fmt: skip
    return new_total, new_clock, seen


def _unless_filler(exec_s, row: Rows):
    """Seconds in a round: `rate` counts rows that stand for several, and so does `exec_s`."""
    return exec_s * row.rate / jnp.maximum(row.count, 1.0)


def _hops_to(x, k: Constants):
    """Links to the chiplet at `x` from each chiplet."""
    if k.scalars:
        return tuple(choose(x, row) for row in k.hops)
    return jnp.sum(jnp.where(x, k.hops, 0.0), axis=1) if x.dtype == jnp.bool_ else k.hops @ x


def _put(values, x, amount, k: Constants):
    """Bytes of a tier where they are wanted: by chiplet, or all in one entry."""
    return plus(values, x, amount) if k.spread else each(lambda v: v + amount, values)


def _rested(rest: tuple, row: Rows, x, made: tuple, inputs: list, access, k: Constants) -> tuple:
    """Results in memory after a row: those made come, those read for the last time go; inputs and outputs pass."""
    now, most, before = rest
    go_on = 1.0 - row.first
    before = jax.tree.map(lambda v, m: v + row.first * m, before, most)
    now, most = (jax.tree.map(lambda v: v * go_on, values) for values in (now, most))
    now = tuple(_put(v, x, amount, k) for v, amount in zip(now, made, strict=True))
    passing = parted(access.passing_bytes, access.outside_out, k.n_tiers)
    most = tuple(
        each(jnp.maximum, m, _put(held, x, amount, k)) for m, held, amount in zip(most, now, passing, strict=True)
    )
    for came, *_, gone in inputs:
        now = tuple(_put(v, came, -amount, k) for v, amount in zip(now, gone, strict=True))
    return now, most, before


def _fits(need, spare, capacity, smooth, temperature):
    """`need <= spare`; smooth: relative to the whole capacity."""
    return fits(need - spare + capacity, capacity, temperature, smooth) if smooth else fits(need, spare)
