"""Hit rates of a cache of experts without a simulation: differentiable in popularity and in the number of frames.

Requests are independent, expert `i` with probability `p[i]` (the independent reference model), or come in turns.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics import safe_divide

_STEPS = 36  # bisections of a logarithm over 32 decades, to 1e-9; then a step of Newton


def zipf(experts: int, exponent, present=None) -> Float[Array, "N"]:
    """Probabilities in proportion to `(i + 1) ** -exponent`, over `experts` (static) places of which the first `present`
    (traced; default: all) exist."""
    rank = jnp.arange(1, experts + 1, dtype=jnp.result_type(float))
    weights = jnp.exp(-exponent * jnp.log(rank))
    if present is not None:
        weights = jnp.where(rank <= present, weights, 0.0)
    return jnp.divide(weights, jnp.sum(weights))


def lru_hit_rate(p: Float[Array, "N"], frames) -> Float[Array, ""]:
    """Che's approximation (Che, Tung and Wang 2002): an expert stays for a characteristic time T after each use, where the
    expected number present, `sum(1 - exp(-p T))`, is `frames`; the hit rate is `sum(p (1 - exp(-p T)))`.

    `frames` may be a fraction; 1 where all fit, 0 without any. The gradient is that of the exact root."""
    p, frames = jnp.asarray(p), jnp.asarray(frames, jnp.result_type(float))
    there = jnp.sum(jnp.where(p > 0, 1.0, 0.0))
    inside = jnp.clip(frames, 1e-6, there * (1 - 1e-5))

    def present(p, log_t):
        return jnp.sum(-jnp.expm1(-p * jnp.exp(log_t)))

    fixed_p, fixed = jax.lax.stop_gradient((p, inside))  # no derivative goes through the bisection

    def halved(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        below = present(fixed_p, middle) < fixed
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = (jnp.full(jnp.shape(inside), x, inside.dtype) for x in (-18.0, 56.0))
    root = jax.lax.fori_loop(0, _STEPS, halved, (low, high))[1]
    # a step of Newton from the root: leaves it where it is, and carries the gradient of the implicit function
    slope = jnp.sum(fixed_p * jnp.exp(root - fixed_p * jnp.exp(root)))
    root = root + jnp.where(slope > 1e-12, (inside - present(p, root)) / jnp.maximum(slope, 1e-12), 0.0)
    rate = jnp.sum(p * -jnp.expm1(-p * jnp.exp(root)))
    return jnp.where(frames >= there, 1.0, jnp.where(frames <= 0, 0.0, rate))


def static_hit_rate(p: Float[Array, "N"], frames) -> Float[Array, ""]:
    """The `frames - 1` most popular experts stay; the others take turns in one frame, which the last of them still holds.
    Exact for whole `frames`, linear between them. `p` falls."""
    rank = jnp.arange(p.shape[0], dtype=p.dtype)
    kept = jnp.clip(frames - 1.0 - rank, 0.0, 1.0)
    visiting = p * (1.0 - kept)
    again = jnp.asarray(safe_divide(jnp.sum(visiting**2), jnp.sum(visiting)))
    rate = jnp.sum(p * kept) + again * jnp.clip(frames, 0.0, 1.0)
    return jnp.where(frames >= jnp.sum(jnp.where(p > 0, 1.0, 0.0)), 1.0, rate)


def turns_hit_rate(experts, frames, policy: str = "lru"):
    """Experts asked for in turn, 0 to `experts - 1` and again: the worst case of LRU, which then never hits once they do not
    all fit. Belady keeps `frames - 1` of the `experts - 1` others; a static set hits its `frames - 1`. Steady state; elementwise."""
    experts, frames = jnp.asarray(experts, jnp.result_type(float)), jnp.asarray(frames, jnp.result_type(float))
    kept = jnp.maximum(frames - 1.0, 0.0)
    few = {"lru": 0.0 * kept, "static": kept / experts, "belady": kept / jnp.maximum(experts - 1.0, 1.0)}[policy]
    return jnp.where(frames >= experts, 1.0, few)
