"""The walk: one pass over the operators in execution order that adds up a round and keeps the clock of the timeline.

Written for one candidate with every number a scalar, and every "vector over chiplets" a tuple of scalars: `jax.vmap` then
turns each into one contiguous array over candidates, which is the fastest form on a CPU (and what `unroll` fuses on a GPU).
Placements are weights over chiplets, hard or relaxed, the same code (`_placement.py`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._numerics import fits
from ._constants import Constants
from ._placement import agree, become, both, choose, columns, plus, weights
from ._rates import parted, waited
from ._registers import register, registers, set_register
from ._residency import Residency
from ._rows import Costs, Rows, row_costs
from ._streams import Flow, after_row, inputs_of, no_flow, stream_row


class Totals(NamedTuple):
    """What a round adds up to. Tuples run over chiplets, `traffic` over ordered pairs of different chiplets; `read`, `written` and
    `resting` over tiers, in each over chiplets (one entry for all where it does not matter which)."""

    busy_s: tuple  # time each chiplet computes
    traffic: Any  # tuple, then `D x D`: bytes from chiplet a to chiplet b, a != b, in row-major order of (a, b)
    read: Any  # tuples, an array once the walk is done: bytes read from memory
    written: Any  # the same, written
    onchip_j: jax.Array
    filled_j: jax.Array  # buffers, for bytes that enter or leave a chiplet
    excess_bytes: jax.Array  # by how much the streaming tile of an operator exceeds its chiplet's buffer
    resting: Any  # most bytes of results in memory at a time, of all models; empty with one tier


class Clock(NamedTuple):
    """Where the timeline stands: when each chiplet is free, when it last started, and what the registers hold."""

    free_s: tuple
    started_s: tuple
    live: tuple  # bytes held in each buffer
    finish_s: tuple | jax.Array  # of the tensor in each register
    held: tuple | jax.Array  # 1.0 where that tensor stays in its producer's buffer
    placed: tuple | jax.Array  # placement of its producer
    latest_s: tuple  # finish of the latest result of each model
    window: jax.Array  # window being executed
    barrier_s: jax.Array  # nothing of this window starts before
    flow: Flow | None  # what streams hold; None without fusion
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
    input_done_s: jax.Array  # [L, I] when its producer finished
    weights_read: jax.Array  # [L] bytes of a pass from memory
    outside_read: jax.Array  # [L]
    input_read: jax.Array  # [L, I]
    input_late: jax.Array  # [L, I] of a tensor that its producer held, written now
    written: jax.Array  # [L] of the result


def walk(rows: Rows, placed, windows, constants: Constants, stay: Residency, n_slots: int, n_models: int, *,
         smooth: bool, temperature, unroll: int | bool = 1, remat: bool = False, record: bool = False):  # fmt: skip
    """Totals of a round, first-result latency of each model, and a `Record` of every row if asked (else None).

    `placed[l]` is the placement of row l, `windows[l]` its window (or None). `unroll` is XLA's: 1 on a CPU, more fuses steps on a GPU.
    """
    n, dtype = len(constants.buffer_bytes), rows.weight_bytes.dtype
    zero = jnp.zeros((), dtype)
    zeros = (zero,) * n
    by_tier = (zeros if constants.spread else (zero,),) * constants.n_tiers
    alone = rows.paces is None
    rest = None if alone else (by_tier,) * 3
    totals = Totals(zeros, (zero,) * (n * (n - 1)), by_tier, by_tier, zero, zero, zero, () if alone else by_tier)
    empty, places = registers(n_slots, zero), registers(n_slots, jnp.zeros_like(placed[0]))
    flow = None if rows.stream is None else no_flow(n_slots, n, zero)
    clock = Clock(
        zeros, zeros, zeros, empty, empty, places, (zero,) * n_models, jnp.zeros((), jnp.int32), zero, flow, rest
    )

    def step(carry, xs):
        total, clock, seen = _step(*carry, *xs, constants, stay, smooth, temperature)
        return (total, clock), seen if record else None

    if remat:  # reverse mode keeps only the carry of each step
        step = jax.checkpoint(step)
    (totals, clock), seen = jax.lax.scan(step, (totals, clock), (rows, placed, windows), unroll=unroll)
    if clock.rest is not None:
        totals = totals._replace(resting=jax.tree.map(jnp.add, *clock.rest[1:]))
    return totals, jnp.stack(clock.latest_s), seen


def _step(total: Totals, clock: Clock, row: Rows, placed, window, k: Constants, stay: Residency, smooth, temperature):
    n, dtype = len(k.buffer_bytes), clock.barrier_s.dtype
    one = jnp.where(row.slot < 0, 2.0, 1.0).astype(dtype)

    def keep(value):
        # XLA on CPU copies a cheap producer into every consumer, here dozens; it never copies a division. Dividing by a one
        # that it cannot see through makes it compute a shared value once (measured: benchmarks/schedules_per_second.py).
        return value / one

    x = weights(placed, n)
    y = x if k.column is None else columns(x, k.column, k.n_columns, keep)
    # of this row where it is placed
    costs = Costs(*(None if column is None else choose(y, column) for column in row_costs(row, k.chiplets, smooth)))

    paces = k.paces if row.paces is None else row.paces
    assert paces is not None

    # a new model starts in an empty package; a new window waits for the one before
    go_on = 1.0 - row.first
    barrier = clock.barrier_s
    if window is not None:
        barrier = barrier * go_on
        so_far = sum(m * t for m, t in zip(row.of_model, clock.latest_s, strict=True))
        barrier = jnp.where(window > clock.window, so_far, barrier)
    free = tuple(f * go_on for f in clock.free_s)
    started = tuple(s * go_on for s in clock.started_s)
    live_here, room_here = choose(x, clock.live), choose(x, stay.room)
    spare = keep(room_here - live_here)
    exec_s, refetch, memory_s = keep(costs.exec_s), keep(costs.input_refetch), choose(x, k.memory_s)

    ready, from_memory, arrived = barrier, jnp.where(row.outside_in > 0, 1.0, 0.0), jnp.zeros((), dtype)
    in_read = outside_read = row.outside_in * refetch  # bytes this row reads from memory
    pace = paces.outside_in
    reads = list(parted(in_read, pace, k.n_tiers))  # the same by tier
    ready = jnp.maximum(ready, from_memory * (in_read * pace.read_s + waited(memory_s, pace)))
    shares: tuple[list, ...] = ([], [], [], [], [])
    inputs = []  # of each: where it came from, bytes over the network, bytes spilled late, bytes given back
    fused: list = []  # of each: where it came from, what fusion says of it
    for i in range(row.input_slot.shape[0]):
        slot, nbytes = row.input_slot[i], row.input_bytes[i]
        there = slot >= 0  # a missing input has no bytes, so its placement says nothing
        source = register(clock.placed, slot)
        came = weights(source, n)
        held, done = keep(register(clock.held, slot)), register(clock.finish_s, slot)
        same = keep(agree(came, x, source, placed, dtype))
        space = _fits(arrived + nbytes, spare, room_here, smooth, temperature)
        by_network = keep(held * (1.0 - same) * space)
        by_memory = keep(1.0 - held * same - by_network)
        late = held * (1.0 - same) - by_network  # held by its producer, but does not fit here: written when needed
        arrived = keep(arrived + by_network * nbytes)
        pace = paces.input(i)
        hops = choose(came, [choose(x, k.hops[a]) for a in range(n)])
        late_bytes = late * row.input_write[i]
        moved, late, back = by_network * (nbytes * row.rate), late_bytes * row.rate, held * row.input_release[i]
        late_by_tier = tuple(keep(v) for v in parted(late, pace, k.n_tiers))
        gone = None if row.paces is None else parted((1.0 - held) * row.paces.input_gone[i], pace, k.n_tiers)
        inputs.append((came, keep(moved), late_by_tier, keep(back), gone))
        if clock.flow is not None:
            fused.append((came, tuple(keep(v) for v in inputs_of(clock.flow, row.stream, i, slot, held))))
        input_read = by_memory * nbytes * refetch
        in_read = in_read + input_read
        reads = [v + more for v, more in zip(reads, parted(input_read, pace, k.n_tiers), strict=True)]
        for share, value in zip(shares, (by_network, by_memory, done, input_read, late_bytes), strict=True):
            share.append(jnp.where(there, value, 0.0))
        network_time = nbytes * k.network_s_per_byte + hops * k.hop_s
        memory_time = row.input_write[i] * pace.write_s + nbytes * refetch * pace.read_s + 2.0 * waited(memory_s, pace)
        delay = by_network * network_time + by_memory * memory_time
        ready = jnp.maximum(ready, jnp.where(there, done + delay, 0.0))
        from_memory = jnp.maximum(from_memory, jnp.where(there, by_memory, 0.0))

    # weights: one operator of prefetch, from the moment the operator before started on that chiplet
    load = row.weight_bytes * (1.0 + (costs.weight_refetch - 1.0) * from_memory)
    load = keep(load * (1.0 - choose(x, stay.resident)))
    pace = paces.weights
    ready = jnp.maximum(
        ready, choose(x, started) + load * pace.read_s + jnp.where(load > 0, waited(memory_s, pace), 0.0)
    )
    start = keep(jnp.maximum(ready, choose(x, free)))
    one_streamed = None
    if clock.flow is not None:
        one_streamed = stream_row(
            row, costs, x, clock.flow, [each for _, each in fused], arrived, choose(x, stay.resident),
            lambda need: _fits(need, spare, room_here, smooth, temperature), keep,
        )  # fmt: skip
        exec_s = one_streamed.exec_s
    finish = keep(start + exec_s)

    # models are timed one at a time, so nothing of another model is live here: see docs/model.md for what that leaves out
    if one_streamed is None:
        held = keep(_fits(arrived + row.hold_bytes, spare, room_here, smooth, temperature))
    else:
        held = one_streamed.held
    made = row.out_bytes * (1.0 - held)
    out = keep((made + row.outside_out) * row.rate)
    pace = paces.outside_out
    last: Any = jnp.where(row.outside_out > 0, row.outside_out * pace.write_s + waited(memory_s, pace), 0.0)
    after = finish + last
    in_read = keep((in_read + load) * row.rate)
    buffer_j = choose(x, k.buffer_j_per_byte)

    filled_j = total.filled_j + (in_read + out) * buffer_j
    made_by_tier = parted(made, paces.result, k.n_tiers)
    if row.paces is None:
        reads, writes = (in_read,), (out,)
    else:
        reads = [
            keep((v + more) * row.rate) for v, more in zip(reads, parted(load, paces.weights, k.n_tiers), strict=True)
        ]
        writes = [
            keep((v + more) * row.rate)
            for v, more in zip(made_by_tier, parted(row.outside_out, pace, k.n_tiers), strict=True)
        ]
    read = tuple(_put(v, x, amount) for v, amount in zip(total.read, reads, strict=True))
    live = [plus(v, x[d], held * row.hold_bytes) for d, v in enumerate(clock.live)]
    written = [_put(v, x, amount) for v, amount in zip(total.written, writes, strict=True)]
    traffic = list(total.traffic)
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    for came, moved, late, back, _ in inputs:
        filled_j = filled_j + moved * buffer_j + (moved + sum(late)) * choose(came, k.buffer_j_per_byte)
        live = [plus(v, came[a], -back) for a, v in enumerate(live)]
        written = [_put(v, came, amount) for v, amount in zip(written, late, strict=True)]
        traffic = [plus(v, both(came[a], x[b]), moved) for v, (a, b) in zip(traffic, pairs, strict=True)]
    flow = None
    if one_streamed is not None:
        flow, live = after_row(clock.flow, clock.live, row.slot, x, one_streamed, fused)
    new_clock = Clock(
        free_s=tuple(become(f, x[d], finish) for d, f in enumerate(free)),
        started_s=tuple(become(s, x[d], start) for d, s in enumerate(started)),
        live=tuple(live),
        finish_s=set_register(clock.finish_s, row.slot, finish),
        held=set_register(clock.held, row.slot, held),
        placed=set_register(clock.placed, row.slot, placed),
        latest_s=tuple(jnp.where(row.of_model[m] > 0, jnp.maximum(v, after), v) for m, v in enumerate(clock.latest_s)),
        window=clock.window if window is None else window,
        barrier_s=barrier,
        flow=flow,
        rest=None if clock.rest is None else _rested(clock.rest, row, x, made_by_tier, inputs, paces, k.n_tiers),
    )
    new_total = Totals(
        busy_s=tuple(plus(v, x[d], exec_s * row.rate) for d, v in enumerate(total.busy_s)),
        traffic=tuple(traffic),
        read=read,
        written=tuple(written),
        onchip_j=total.onchip_j + costs.onchip_j * row.rate,
        filled_j=filled_j,
        excess_bytes=jnp.maximum(total.excess_bytes, costs.working_bytes - choose(x, k.buffer_bytes)),
        resting=total.resting,
    )
    seen = Record(start, finish, held, *(jnp.stack(share) for share in shares[:3]), load, outside_read,
                  jnp.stack(shares[3]), jnp.stack(shares[4]), made)  # fmt: skip
    return new_total, new_clock, seen


def _put(values: tuple, x, amount) -> tuple:
    """Bytes of a tier where they are wanted: by chiplet, or all in one entry."""
    return (values[0] + amount,) if len(values) == 1 else tuple(plus(v, x[d], amount) for d, v in enumerate(values))


def _rested(rest: tuple, row: Rows, x, made: tuple, inputs: list, paces, n_tiers: int) -> tuple:
    """Results in memory after a row: those made come, those read for the last time go; inputs and outputs pass."""
    now, most, before = rest
    go_on = 1.0 - row.first
    before = jax.tree.map(lambda v, m: v + row.first * m, before, most)
    now, most = (jax.tree.map(lambda v: v * go_on, values) for values in (now, most))
    now = tuple(_put(v, x, amount) for v, amount in zip(now, made, strict=True))
    passing = parted(paces.passing_bytes, paces.outside_out, n_tiers)
    most = tuple(
        tuple(jnp.maximum(m, v) for m, v in zip(each, _put(held, x, amount), strict=True))
        for each, held, amount in zip(most, now, passing, strict=True)
    )
    for came, *_, gone in inputs:
        now = tuple(_put(v, came, -amount) for v, amount in zip(now, gone, strict=True))
    return now, most, before


def _fits(need, spare, room, smooth, temperature):
    """`need <= spare`; smooth: relative to the whole room."""
    return fits(need - spare + room, room, temperature, smooth) if smooth else fits(need, spare)
