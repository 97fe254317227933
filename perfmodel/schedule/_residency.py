"""Whether the weights placed on a chiplet may stay in its buffer for good."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._numerics import fits
from ._constants import Constants
from ._placement import agree, choose, columns, plus, weights
from ._rows import Rows, row_costs


class Residency(NamedTuple):
    """Tuples over chiplets: 1.0 where weights are resident; buffer bytes left for activations."""

    resident: tuple
    room: tuple


def residency(rows: Rows, placed, k: Constants, *, smooth: bool, temperature, unroll=1) -> Residency:
    """Weights of all models on a chiplet stay if, beside them, the largest live set of each model's pass there fits as many
    times as that model has passes in flight: one for each of its segments, at most one for each chiplet.
    The largest streaming tile of any operator (on that chiplet) stays free everywhere, so that no live tensor can keep an
    operator from running."""
    n, dtype = len(k.buffer_bytes), rows.weight_bytes.dtype
    zero = jnp.zeros((), dtype)
    zeros = (zero,) * n

    def step(carry, xs):
        stored, live, segments, most, before, largest = carry
        row, where = xs
        working = row_costs(row, k.chiplets, smooth).working_bytes  # the same for all candidates if from a table
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
            tuple(jnp.maximum(v, w) for v, w in zip(largest, working, strict=True)),
        ), None

    start = (zeros, zeros, zero, zeros, placed[0], (zero,) * k.n_columns)
    (stored, live, segments, most, _, largest), _ = jax.lax.scan(step, start, (rows, placed), unroll=unroll)
    need = _settle(live, segments, most, 1.0)
    if k.column is not None:
        one_each = [columns((jnp.ones((), dtype),), (of,), k.n_columns) for of in k.column]
        largest = tuple(choose(of, largest) for of in one_each)
    buffers = [b - w for b, w in zip(k.buffer_bytes, largest, strict=True)]
    resident = tuple(
        fits(w + a, b, temperature, smooth) * (w > 0) for w, a, b in zip(stored, need, buffers, strict=True)
    )
    return Residency(resident, tuple(b - r * w for b, r, w in zip(buffers, resident, stored, strict=True)))


def _settle(live: tuple, segments, most: tuple, when) -> tuple:
    in_flight = when * jnp.minimum(segments, len(live))
    return tuple(m + in_flight * v for m, v in zip(most, live, strict=True))
