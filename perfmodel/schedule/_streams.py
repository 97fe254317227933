"""Fusion in the traversal: which tensors are streamed from producer to readers tile by tile, and what that keeps in the buffer.

`Schedule.fusion` says of every edge how far it is fused, 0 to 1. It counts as far as both ends are on the same chiplet, in the
same window. A tensor is streamed as far as all its edges are fused; relaxed values mix the two ways of holding it, whole or as a
tile, in proportion, so that the gradient sees what streaming would change however little a whole tensor fits.
"""

from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._numerics import varying_with
from ..workload import Workload
from ..workload._fusion_rules import ALL, ITEMS, POINTS, POOLS, WINDOW, incoming, needs
from ..workload._operators import KINDS
from ._placement import become, choose, each, plus, zeros
from ._registers import register, registers, set_register
from ._schedule import Schedule

# Rows of a tensor that a consumer takes at a time (the columns of a usual array, a tile of flash attention), double-buffered.
BLOCK_ROWS = 64
_BUFFERS = 2
_POOLS = [KINDS.index(kind) for kind in POOLS]
_RESIZE = KINDS.index("resize")


class Kernel(NamedTuple):
    """For kernels of a GPU: elements that rows read and write, `[L]`, and what of it fusion can save."""

    input_elements: jax.Array  # [L, I]
    out_elements: jax.Array  # [L]
    elements: jax.Array  # [L] moved by the row
    matrix_reads: jax.Array  # [L] elements of its result that fused matrix rows need not read
    is_matrix: jax.Array  # [L]
    readers: jax.Array  # [L]


class Streams(NamedTuple):
    """What fusion says of each row (`I` inputs)."""

    fused: jax.Array  # [L, I] how far each input is fused
    closes: jax.Array  # [L, I] 1.0 at the last reader of a tensor
    streamed: jax.Array  # [L] how far the result is streamed: the least of its edges
    tile_bytes: jax.Array  # [L] what is held of a streamed result
    ordered: jax.Array  # [L] how far its readers need whole rows in order
    reader_weights: jax.Array  # [L] bytes of weights of the fused rows that read it
    kernel: Kernel | None  # None where no chiplet is a GPU


class Streaming(NamedTuple):
    """What streams hold as the traversal goes on: registers by tensor, values over chiplets."""

    kept: tuple | jax.Array  # bytes of a tensor held whole
    streaming: tuple | jax.Array  # how far a tensor is a stream in the buffer
    credit: tuple | jax.Array  # elements that a GPU's matrix kernel, its result streamed, writes for the rows after it
    open: Any  # streams not yet read to their end
    tiles: Any  # bytes that streams hold, until none is open
    weights: Any  # bytes of weights of the rows that feed the open streams and need not be kept so far


class Streamed(NamedTuple):
    """What became of one row."""

    exec_s: jax.Array
    held: jax.Array  # whole or as a stream
    kept: jax.Array  # bytes held whole
    streaming: jax.Array
    tile_bytes: jax.Array  # of the stream, weights that have to stay included
    weights: jax.Array  # of `Streaming.weights` where the row is placed, after it
    credit: jax.Array


def tile_shares(workload: Workload, dtype, sub_batch) -> jax.Array:
    """`[E]` share of a tensor that its reader needs at a time: `_BUFFERS` blocks of `BLOCK_ROWS` rows; under a window of r x s
    pixels r + stride rows of the image; two items of a batch that is transposed; all of it where the reader needs all."""
    op = jax.tree.map(lambda x: jnp.asarray(x, dtype), workload.operators)
    at, of = jnp.asarray(workload.target), jnp.asarray(workload.source)
    kind = jnp.asarray(workload.operators.kind)[at]
    need = needs(workload, jnp)
    pixels = op.groups * op.batch * op.p * op.q
    image = op.batch * op.p
    window = jnp.where(kind == _RESIZE, 2.0, op.r[at])
    # a reduction has fewer rows than what it reads
    reduces = jnp.isin(kind, jnp.asarray([KINDS.index("reduce"), KINDS.index("top_k"), *_POOLS])) & (
        (op.p * op.q)[at] < (op.p * op.q)[of]
    )
    pooled = jnp.isin(kind, jnp.asarray(_POOLS)) & ((op.p * op.q)[at] == 1)
    by_rows = _BUFFERS * BLOCK_ROWS / jnp.where(reduces, pixels[of], pixels[at])
    share = jnp.where(need == ALL, jnp.inf, by_rows)
    share = jnp.where(need == ITEMS, _BUFFERS / (op.groups * op.batch)[at], share)
    share = jnp.where((need == WINDOW) & ~pooled, (window + op.stride[at]) / (image * op.stride)[at], share)
    return jnp.minimum(share / sub_batch, 1.0)


def make_streams(workload: Workload, schedule: Schedule, hold, out_bytes, input_last, live_bytes, dtype, gpus: bool):
    """(`Streams` or None, live bytes of each row) of a schedule, rows as they stand; sizes of the whole pass."""
    if schedule.fusion is None or not workload.source.shape[0]:
        return None, live_bytes
    n, op = workload.n_operators, workload.operators
    source, target = jnp.asarray(workload.source), jnp.asarray(workload.target)
    placed = jnp.asarray(schedule.assignment)
    if schedule.is_relaxed:
        same = jnp.sum(placed[source] * placed[target], axis=-1)
    else:
        same = placed[source] == placed[target]
    fused = jnp.asarray(schedule.fusion).astype(dtype) * same.astype(dtype)
    if schedule.window is not None:
        window = jnp.asarray(schedule.window)
        fused = fused * (window[source] == window[target])

    def most(values):
        return jax.ops.segment_max(values, source, n)

    def added(values, at=source):
        return jax.ops.segment_sum(values, at, n)

    order, begin = incoming(workload, jnp)
    there = jnp.asarray(workload.inputs) >= 0
    edge = jnp.where(there, begin[:, None] + jnp.arange(there.shape[1]), 0)
    edge = order[jnp.minimum(edge, order.shape[0] - 1)]

    def by_input(values):
        return jnp.where(there, values[edge], 0.0)

    readers = added(jnp.ones(source.shape, dtype))
    streamed = jnp.where(readers > 0, jnp.clip(jax.ops.segment_min(fused, source, n), 0.0, 1.0), 0.0)
    share = most(tile_shares(workload, dtype, jnp.asarray(schedule.sub_batch, dtype)))
    tile = jnp.where(readers > 0, jnp.minimum(out_bytes * share, hold), hold)
    in_order = (needs(workload, jnp) != POINTS).astype(dtype)
    matrix = jnp.asarray(op.is_matrix, dtype)
    weights = jnp.asarray(op.weight_elements * op.weight_bits / 8, dtype)
    fed = added(fused, target)
    kernel = None
    if gpus:
        elements = jnp.asarray(workload.edge_bytes, dtype) * 8 / jnp.asarray(op.out_bits, dtype)[source]
        kernel = Kernel(
            input_elements=by_input(elements),
            out_elements=jnp.asarray(op.out_elements, dtype),
            elements=jnp.asarray(op.in_elements, dtype) + jnp.asarray(op.out_elements, dtype),
            matrix_reads=added(fused * matrix[target] * elements),
            is_matrix=matrix,
            readers=jnp.maximum(readers, 1.0),
        )
    streams = Streams(
        fused=by_input(fused),
        closes=jnp.asarray(input_last, dtype),
        streamed=streamed,
        tile_bytes=tile,
        ordered=jnp.where(readers > 0, most(fused * in_order), 0.0),
        reader_weights=added(fused * weights[target] / jnp.maximum(fed[target], 1.0)),
        kernel=kernel,
    )
    # all edges of a row lie in its model, so the last reader is known whatever the schedule
    last = jnp.where(readers > 0, jax.ops.segment_max(target, source, n), jnp.arange(n))
    return streams, _live(streamed * jnp.where(tile < hold, 1.0, 0.0), hold, tile, last, live_bytes)


def _live(streams, hold, tile, last, live_bytes):
    """Live bytes where streamed tensors count as tiles, which are all held until no stream is open (rows as they stand)."""
    n = hold.shape[0]

    def ends(values, at):
        return jax.ops.segment_sum(values, at, n + 1)[:-1]

    def step(carry, row):
        gone, still, tiles = carry
        starts, whole, size, whole_before, closes = row
        gone = gone + whole - whole_before
        tiles = tiles * jnp.clip(still, 0.0, 1.0) + starts * size
        return (gone, still + starts - closes, tiles), (gone, tiles)

    zero = jnp.zeros((), hold.dtype)
    whole = streams * hold
    rows = (streams, whole, tile, ends(whole, last + 1), ends(streams, last))
    _, (gone, tiles) = jax.lax.scan(step, varying_with((zero, zero, zero), rows), rows)
    return jnp.maximum(live_bytes - gone + tiles, 0.0)


def no_streams(n_slots: int, n_chiplets: int, zero, scalars: bool) -> Streaming:
    """Before the first row."""
    empty, none = registers(n_slots, zero, scalars), zeros(n_chiplets, zero, scalars)
    return Streaming(empty, empty, empty, none, none, none)


def inputs_of(now: Streaming, stream: Streams, i: int, slot, held) -> tuple:
    """Of input `i`: how far it comes fused, how far as a stream, bytes to give back and streams that end after this row, credit."""
    fused, closes, streaming = stream.fused[i], stream.closes[i], register(now.streaming, slot)
    return (fused * held, fused * streaming, register(now.kept, slot) * closes, streaming * closes,
            register(now.credit, slot) * fused)  # fmt: skip


def stream_row(row, costs, x, now: Streaming, inputs: list, arrived, resident, fits, keep) -> Streamed:
    """What becomes of a row. `inputs`: of `inputs_of`; `fits(bytes)`: whether they fit; `costs` where it is placed."""
    stream = row.stream
    joined, covered = (reduce(jnp.maximum, [each[i] for each in inputs]) for i in (0, 1))
    # weights of the rows that feed the open streams, and its own, unless the stream into it keeps them already
    before = keep(choose(x, now.weights) + row.weight_bytes * (1.0 - covered) * (1.0 - resident))
    tile = keep(stream.tile_bytes + stream.ordered * before + stream.reader_weights * (1.0 - resident))
    streamed = stream.streamed * jnp.where(tile < row.hold_bytes, 1.0, 0.0)
    whole = keep((1.0 - streamed) * fits(arrived + row.hold_bytes))
    streaming = keep(streamed * fits(arrived + tile))
    held = keep(whole + streaming)
    seconds = costs.exec_s - joined * costs.launch_s
    credit = jnp.zeros_like(held)
    if stream.kernel is not None:
        saved, credit = _kernel(stream.kernel, inputs, stream.streamed * held, held)
        seconds = seconds - saved * costs.moving_s
    return Streamed(keep(jnp.maximum(seconds, 0.0)), held, whole * row.hold_bytes, streaming, tile,
                    before * (1.0 - streaming * stream.ordered), credit)  # fmt: skip


def _kernel(k: Kernel, inputs: list, streamed, held) -> tuple:
    """(share of a vector kernel's traffic that fusion saves, credit that it leaves). `streamed`: how far its result is streamed.

    Fused inputs are not read, a streamed result is not written, nor read by a matrix row. A matrix row's own time keeps the write
    of its result; as that is streamed, it stands for the write at the chain's end, which is therefore free."""
    cut = sum(fused * e for (fused, *_), e in zip(inputs, k.input_elements, strict=True))
    cut = cut + streamed * k.out_elements + held * k.matrix_reads
    credit = sum(each[4] for each in inputs)
    paid = jnp.minimum(credit, k.out_elements * (1.0 - streamed))
    on = jnp.where(k.is_matrix > 0, k.out_elements, credit - paid)
    return jnp.minimum((cut + paid) / k.elements, 1.0), streamed * on / k.readers


def after_row(now: Streaming, live, slot, x, one: Streamed, inputs: list) -> tuple[Streaming, Any]:
    """Streams and live bytes after a row, from those before it. `inputs`: (placement of the producer, `inputs_of`) of each."""
    live = plus(live, x, one.kept + one.streaming * one.tile_bytes)
    tiles = plus(now.tiles, x, one.streaming * one.tile_bytes)
    still = plus(now.open, x, one.streaming)
    weights = become(now.weights, x, one.weights)
    for came, (_, _, back, ended, _) in inputs:
        live, still = plus(live, came, -back), plus(still, came, -ended)
    goes_on = each(lambda s: jnp.clip(s, 0.0, 1.0), still)
    new = Streaming(
        kept=set_register(now.kept, slot, one.kept),
        streaming=set_register(now.streaming, slot, one.streaming),
        credit=set_register(now.credit, slot, one.credit),
        open=still,
        tiles=each(jnp.multiply, tiles, goes_on),
        weights=each(jnp.multiply, weights, goes_on),
    )
    return new, each(lambda v, t, s: v - t * (1.0 - s), live, tiles, goes_on)
