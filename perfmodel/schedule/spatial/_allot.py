"""Units of a fabric among the stages of a pipeline, so that the slowest stage is as fast as can be."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import safe_divide

_STEPS = 26  # halvings of an interval [m, 2 m]: below the rounding of float32


def water_fill(work: Float[Array, "S"], units) -> Float[Array, ""]:
    """Least time `m` of the slowest stage where units may be divided: `sum(max(work / m, 1)) = units`, over stages with work.

    `work`: seconds of each stage on one unit; those of 0 take no unit. Infinite where there are more stages than units. The solution
    is the largest of `sum(k largest) / (units - the others)` over k (each bounds `m` from below, one is exact), so it has gradients
    in work and units."""
    size = work.shape[0]
    sorted_ = -jnp.sort(-work)
    some = jnp.sum(work > 0)
    spare = units - (some - jnp.arange(1, size + 1))
    counts = jnp.arange(size) < some
    bound = safe_divide(jnp.cumsum(sorted_), spare, jnp.inf)
    return jnp.max(jnp.where(counts, bound, 0.0), initial=0.0)


def allot(work: Float[Array, "S"], units, *, smooth: bool = False) -> Float[Array, "S"]:
    """Units of each stage, `[S]`: whole numbers whose sum is at most `units` that make `max(work / units)` least; stages without
    work get none.

    The least `m` with `sum(ceil(work / m)) <= units`, by bisection between the divisible optimum `m*` (`water_fill`) and `2 m*`,
    where rounding down is possible. Gradients hold the whole numbers fixed. `smooth` (static): the divisible optimum itself,
    `max(work / m*, 1)`, with gradients in work and units. Where stages outnumber units all are infinitesimal (times infinite).
    """
    least = water_fill(work, units)
    possible = jnp.isfinite(least) & (least > 0)
    m = jnp.where(possible, least, 1.0)
    if smooth:
        shares = jnp.where(work > 0, jnp.maximum(work / m, 1.0), 0.0)
        return jnp.where(possible, shares, 0.0)
    work = jax.lax.stop_gradient(work)
    m = jax.lax.stop_gradient(m)

    def taken(limit):
        # a millionth: a quotient that rounding alone put above a whole number takes no unit more
        return jnp.where(work > 0, jnp.maximum(jnp.ceil(work / limit * (1 - 1e-6)), 1.0), 0.0)

    def halve(bounds, _):
        low, high = bounds
        middle = 0.5 * (low + high)
        fits = jnp.sum(taken(middle)) <= units
        return (jnp.where(fits, low, middle), jnp.where(fits, middle, high)), None

    exact = jnp.sum(taken(m)) <= units
    (_, high), _ = jax.lax.scan(halve, (m, 2.0 * m), None, length=_STEPS)
    return jnp.where(possible, taken(jnp.where(exact, m, high)), 0.0)
