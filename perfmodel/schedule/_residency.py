"""Whether the weights placed on a chiplet may stay in its buffer for good."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._numerics import fits, varying_with
from ._constants import Constants
from ._placement import agree, choose, columns, each, plus, weights, zeros
from ._rows import Rows, row_costs


class Residency(NamedTuple):
    """Values over chiplets: 1.0 where weights are resident; buffer bytes left for activations."""

    resident: Any
    capacity: Any


def residency(rows: Rows, placed, k: Constants, *, smooth: bool, temperature, unroll=1) -> Residency:
    """Weights of all models on a chiplet stay if, beside them, the largest live set of each model's pass there fits as many
    times as that model has passes in flight: one for each of its segments, at most one for each chiplet.
    The largest streaming tile of any operator (on that chiplet) stays free everywhere, so that no live tensor can keep an
    operator from running."""
    n, dtype = k.n_chiplets, rows.weight_bytes.dtype
    zero = jnp.zeros((), dtype)
    none = zeros(n, zero, k.scalars)

    def settle(most, live, segments, when):
        in_flight = when * jnp.minimum(segments, n)
        return each(lambda m, v: m + in_flight * v, most, live)

    def step(carry, xs):
        stored, live, segments, most, before, largest = carry
        row, where = xs
        working = row_costs(row, k, smooth).working_bytes  # the same for all candidates if from a table
        x = weights(where, n, k.scalars)
        # at the first row of a model the one before is settled: its live sets, once for each pass in flight
        settled = settle(most, live, segments, row.first)
        keep = 1.0 - row.first
        moved = 1.0 - agree(x, weights(before, n, k.scalars), where, before, dtype)
        here = plus(none, x, row.live_bytes)
        return (
            plus(stored, x, row.weight_bytes * row.count),
            each(lambda v, h: jnp.maximum(v * keep, h), live, here),
            jnp.where(row.first > 0, 1.0, segments + moved * jnp.minimum(row.count, 1.0)),
            settled,
            where,
            each(jnp.maximum, largest, working),
        ), None

    *before, largest = varying_with((none, none, zero, none, zeros(k.n_columns, zero, k.scalars)), (rows, placed, k))
    start = (*before, placed[0], largest)
    (stored, live, segments, most, _, largest), _ = jax.lax.scan(step, start, (rows, placed), unroll=unroll)
    need = settle(most, live, segments, 1.0)
    if k.column is not None:
        largest = _by_chiplet(largest, k)
    capacity = each(lambda b, w: b - w, k.buffer_bytes, largest)
    resident = each(lambda w, a, b: fits(w + a, b, temperature, smooth) * (w > 0), stored, need, capacity)
    return Residency(resident, each(lambda b, r, w: b - r * w, capacity, resident, stored))


def _by_chiplet(largest, k: Constants):
    """From columns of a table to chiplets."""
    if not k.scalars:
        mixture = k.column.ndim == 2
        return k.column @ largest if mixture else largest[k.column.astype(jnp.int32)]
    one_each = [columns((jnp.ones((), largest[0].dtype),), (of,), k.n_columns) for of in k.column]
    return tuple(choose(of, largest) for of in one_each)
