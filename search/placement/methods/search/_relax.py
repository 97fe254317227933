"""Gradient-relaxed placement: tasks spread over devices by softmax rows, a smooth timeline, Adam on many starts side by side.

Row `x[i]` says how much of task i is on each device. Its time is the expectation over the row, a transfer's the expectation over
both rows, and a device is held in the measure in which the task is there: `free[d] <- (1 - x[d]) free[d] + x[d] finish`. Rows of
zeros and ones give the timeline of `timeline` with each maximum replaced by m_T(v) = T log sum exp(v / T), which lies between
max(v) and max(v) + T log n: so with `M` nodes of `K` inputs

    makespan <= relaxed <= makespan + T ((number of nodes) log(K + 1) + log(M)).

Congestion and scenarios are left out: links are nominal here (the mean of the scenarios' factors).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from ..._arrays import Arrays, Compiled

_OPTIMISER = optax.adam(0.3)
_HOT, _COLD = 1.5, 0.1  # temperature of the softmax, first to last step
_SMOOTH_HOT, _SMOOTH_COLD = 3e-2, 1e-3  # temperature of the maxima, share of the reference makespan
_CROWDED = 4.0  # weight of memory beyond capacity, share of that capacity


def relaxed_makespan(a: Arrays, rows: Float[Array, "N D"], order: Int[Array, "M"], temperature) -> Float[Array, ""]:
    """Smooth makespan of rows on the simplex, walked in `order` (nodes); `temperature` > 0 in the problem's unit, traced.

    A device that cannot run a task counts nothing: its share must be zero (`masked`).
    """
    m, devices = a.times.shape
    x = jnp.concatenate([rows, jnp.zeros((1, devices), rows.dtype)])[jnp.minimum(a.owner, rows.shape[0])]
    real = jnp.arange(m) < a.count
    x = jnp.where(real[:, None], x, 0.0)
    times = jnp.where(jnp.isfinite(a.times), a.times, 0.0)
    # a finite stand-in for links that do not exist, dear enough to be left
    far = 10.0 * times.max() + jnp.where(jnp.isfinite(a.transfer), a.transfer, 0.0).max()
    pairs = jnp.where(jnp.isfinite(a.transfer), a.transfer * a.factors.mean(0), far).reshape(m, -1, devices, devices)
    padded = jnp.concatenate([x, jnp.zeros((1, devices), x.dtype)])
    moved = jnp.einsum("mka,mkab,mb->mk", padded[a.source], pairs, x)
    work = (x * times).sum(-1)

    def step(carry, node):
        finish, free = carry
        here = x[node]
        arrivals = finish[a.source[node]] + moved[node]
        own = jnp.where(a.runs[node], (here * free).sum(), 0.0)
        there = a.source[node] < m
        start = smooth_max(jnp.append(arrivals, own), jnp.append(there, a.runs[node] | ~there.any()), temperature)
        found = start + work[node]
        held = jnp.where(a.runs[node], here, 0.0)
        return (finish.at[node].set(found), (1.0 - held) * free + held * found), None

    zero = jnp.zeros(m + 1, x.dtype)
    (finish, _), _ = lax.scan(step, (zero, jnp.zeros(devices, x.dtype)), order)
    return smooth_max(finish[:m], real, temperature)


def smooth_max(values, there, temperature):
    """T log sum exp(v / T) over the entries that are `there` (at least one)."""
    top = lax.stop_gradient(jnp.max(jnp.where(there, values, -jnp.inf)))
    powers = jnp.where(there, jnp.exp((jnp.where(there, values, top) - top) / temperature), 0.0)  # type: ignore
    return top + temperature * jnp.log(jnp.sum(powers))


def masked(logits, able):
    """Logits of units with devices that cannot run them struck out."""
    return jnp.where(able, logits, -1e9)


@jax.jit
def _descend(a: Arrays, unit, able, size, capacity, logits, orders, scale, noise, key, progress):
    def loss(logits, order, gumbel, t):
        soft = _HOT * (_COLD / _HOT) ** t
        rows = jax.nn.softmax(masked((logits + noise * (1 - t) * gumbel) / soft, able), axis=-1)
        smooth = scale * _SMOOTH_HOT * (_SMOOTH_COLD / _SMOOTH_HOT) ** t
        span = relaxed_makespan(a, rows[unit], order, smooth)
        used = (rows * size[:, None]).sum(0)
        return jnp.log(span) + _CROWDED * jnp.maximum(used / capacity - 1.0, 0.0).sum()

    def step(carry, t):
        logits, state, key = carry
        key, now = jax.random.split(key)
        gumbel = jax.random.gumbel(now, logits.shape, logits.dtype)
        slope = jax.vmap(jax.grad(loss), in_axes=(0, 0, 0, None))(logits, orders, gumbel, t)
        slope = jnp.where(jnp.isfinite(slope), slope, 0.0)
        updates, state = _OPTIMISER.update(slope, state)
        return (optax.apply_updates(logits, updates), state, key), None

    (logits, _, _), _ = lax.scan(step, (logits, _OPTIMISER.init(logits), key), progress)
    return jnp.argmax(masked(logits, able), axis=-1)


def descend(
    c: Compiled,
    of,
    size,
    capacity,
    able,
    logits,
    orders,
    *,
    scale: float,
    seed: int,
    steps: int = 60,
    noise: float = 0.5,
):
    """Placements of units `[B, U]` after `steps` of Adam from `logits` `[B, U, D]`, each start with its own order of nodes `[B, M]`.

    **Arguments:** `of` `[N]` unit of each task; `size` `[U]`, `capacity` `[D]`: memory; `able` `[U, D]`; `scale`: a makespan;
    `noise`: Gumbel noise on the logits (0: plain softmax), fading to none.
    """
    progress = jnp.linspace(0.0, 1.0, steps)
    room = jnp.maximum(jnp.asarray(capacity / max(size.max(), 1.0)), 1e-6)
    mass = jnp.asarray(size / max(size.max(), 1.0))
    found = _descend(c.arrays, jnp.asarray(of), jnp.asarray(able), mass, room, jnp.asarray(logits), jnp.asarray(orders), scale, noise,
                     jax.random.key(seed), progress)  # fmt: skip
    return np.asarray(found, np.int8)


def starting_logits(rng: np.random.Generator, batch: int, units: int, devices: int, line: np.ndarray) -> np.ndarray:
    """Random logits that lean towards one device over stretches of a linearisation `line` of the units."""
    white = rng.normal(size=(batch, units, devices))
    knots = rng.normal(size=(batch, 9, devices))
    at = np.linspace(0, 8, units)
    low = np.minimum(at.astype(int), 7)
    slow = np.empty_like(white)
    slow[:, line] = knots[:, low] * (1 - (at - low))[None, :, None] + knots[:, low + 1] * (at - low)[None, :, None]
    share = rng.uniform(size=(batch, 1, 1))
    return (0.5 * (1 - share) * white + share * slow).astype(np.float32)
