"""Whether the weights placed on a chiplet may stay in its buffer for good."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._numerics import fits
from ..hardware import System
from ._placement import agree, plus, weights
from ._rows import Rows


class Residency(NamedTuple):
    """Tuples over chiplets: 1.0 where weights are resident; buffer bytes left for activations."""

    resident: tuple
    room: tuple


def residency(rows: Rows, placed, system: System, working_bytes, *, smooth: bool, temperature, unroll=1) -> Residency:
    """Weights of all models on a chiplet stay if, beside them, the largest live set of each model's pass there fits as many
    times as that model has passes in flight: one for each of its segments, at most one for each chiplet.

    `working_bytes`: buffer that must stay free for the streaming tiles of any operator; scalar.
    """
    n, dtype = system.n_chiplets, rows.exec_s.dtype
    zero = jnp.zeros((), dtype)
    zeros = (zero,) * n

    def step(carry, xs):
        stored, live, segments, most, before = carry
        row, where = xs
        x = weights(where, n)
        # at the first row of a model the one before is settled: its live sets, once for each pass in flight
        settled = _settle(live, segments, most, row.first)
        keep = 1.0 - row.first
        moved = 1.0 - agree(x, weights(before, n), where, before, dtype)
        return (
            tuple(plus(v, x[d], row.weight_bytes) for d, v in enumerate(stored)),
            tuple(jnp.maximum(v * keep, plus(zero, x[d], row.live_bytes)) for d, v in enumerate(live)),
            jnp.where(row.first > 0, 1.0, segments + moved),
            settled,
            where,
        ), None

    start = (zeros, zeros, zero, zeros, placed[0])
    (stored, live, segments, most, _), _ = jax.lax.scan(step, start, (rows, placed), unroll=unroll)
    need = _settle(live, segments, most, 1.0)
    buffers = [jnp.asarray(system.chiplets.buffer_bytes, dtype)[d] - working_bytes for d in range(n)]
    resident = tuple(
        fits(w + a, b, temperature, smooth) * (w > 0) for w, a, b in zip(stored, need, buffers, strict=True)
    )
    return Residency(resident, tuple(b - r * w for b, r, w in zip(buffers, resident, stored, strict=True)))


def _settle(live: tuple, segments, most: tuple, when) -> tuple:
    in_flight = when * jnp.minimum(segments, len(live))
    return tuple(m + in_flight * v for m, v in zip(most, live, strict=True))
