"""Fitting positive model parameters to measurements: gradient descent through the model, with uncertainty."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

NOISE = 0.06  # typical relative scatter of a kernel measurement; weighs the data against the prior
_ROUND = 0.02  # below this relative error the loss is quadratic


class Fit(NamedTuple):
    """What a fit found.

    - `parameters`: the model's parameters.  `log_sd`: the same structure: standard deviations of their logarithms.
    - `start_error`, `error`: mean |log(predicted / measured)| before and after.
    """

    parameters: Any
    log_sd: Any
    start_error: float
    error: float


def fit(
    predict: Callable,
    rows: Any,
    measured,
    start: Any,
    *,
    prior_sd: Any = 0.5,
    also: Sequence[Any] = (),
    steps: int = 400,
    starts: int = 1,
    spread: float = 0.2,
    seed: int = 0,
    learning_rate: float = 0.03,
) -> Fit:
    """Maximum a posteriori parameters: robust (rounded absolute) error of log times, log-normal prior around `start`.

    Adam on the logarithms of the parameters, so that they stay positive, from `start`, from the points `also`, and from
    `starts - 1` points scattered around `start`; the best point seen is kept. Uncertainty: Gauss-Newton with the robust
    scatter of the residuals, prior included.

    **Arguments:** `predict(parameters, row)`: seconds of one row.  `rows`: its arrays, leading axis the rows.
    `measured` [n]: seconds.  `prior_sd`: of the logarithms; a number, or a structure like `start`; 0 holds a parameter fixed.

    Raises ValueError without rows, or where the model gives no finite positive time at the start.
    """
    measured = np.asarray(measured, float)
    if not len(measured):
        raise ValueError("there is nothing to fit: no rows")
    origin, unravel = _logs(start)
    sd = (
        np.full(origin.shape, float(prior_sd))
        if np.isscalar(prior_sd)
        else np.asarray(ravel_pytree(prior_sd)[0], float)
    )
    padded, weights, target = _padded(rows, measured)
    begin = np.asarray(_residuals(predict, unravel, origin, padded, target))[: len(measured)]
    if not np.isfinite(begin).all():
        raise ValueError(f"the model gives no finite positive time for row {int(np.argmin(np.isfinite(begin)))}")
    scatter = np.random.default_rng(seed).normal(size=(starts - 1, origin.size)) * np.minimum(spread, sd)
    points = jnp.asarray(np.concatenate([origin[None], *[_logs(point)[0][None] for point in also], origin + scatter]))
    found, losses = _descend(
        predict, unravel, points, origin, jnp.asarray(sd), padded, weights, target, learning_rate, steps
    )
    best = found[int(np.argmin(np.asarray(losses)))]
    end = np.asarray(_residuals(predict, unravel, best, padded, target))[: len(measured)]
    slopes = np.asarray(_slopes(predict, unravel, best, padded, target))[: len(measured)]
    log_sd = _uncertainty(slopes, end, sd)
    return Fit(
        unravel(jnp.exp(best)),
        unravel(jnp.asarray(log_sd)),
        float(np.mean(abs(begin))),
        float(np.mean(abs(end))),
    )


def _logs(start):
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), start))
    return np.log(np.asarray(flat)), _Unravel(unravel, start)


class _Unravel:
    """`unravel` as a static argument: equal for equal structures, so that programs are reused."""

    def __init__(self, call, like):
        self.call, self.key = call, jax.tree.structure(like)

    def __call__(self, flat):
        return self.call(flat)

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return isinstance(other, _Unravel) and self.key == other.key


def _padded(rows, measured):
    """Rows repeated up to a power of two with weight 0: few distinct shapes, few compilations."""
    n = len(measured)
    size = max(16, 1 << (n - 1).bit_length())
    index = np.arange(size) % n
    return (
        jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], rows),
        jnp.asarray(np.arange(size) < n, float),
        jnp.asarray(np.log(measured)[index]),
    )


@partial(jax.jit, static_argnums=(0, 1))
def _residuals(predict, unravel, logs, rows, target):
    return jnp.log(jax.vmap(predict, (None, 0))(unravel(jnp.exp(logs)), rows)) - target


@partial(jax.jit, static_argnums=(0, 1))
def _slopes(predict, unravel, logs, rows, target):
    return jax.jacfwd(lambda x: _residuals(predict, unravel, x, rows, target))(logs)


@partial(jax.jit, static_argnums=(0, 1, 9))
def _descend(predict, unravel, points, origin, sd, rows, weights, target, learning_rate, steps):
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    free = sd > 0
    width = jnp.where(free, sd, 1.0)

    def loss(logs):
        error = _residuals(predict, unravel, logs, rows, target)
        misfit = jnp.sum(weights * jnp.sqrt(error**2 + _ROUND**2)) / NOISE
        return (misfit + 0.5 * jnp.sum(((logs - origin) / width) ** 2)) / jnp.sum(weights)

    def descend(logs):
        def step(carry, _):
            logs, state, best, least = carry
            value, slope = jax.value_and_grad(loss)(logs)
            slope = jnp.where(free & jnp.isfinite(slope), slope, 0.0)
            better = value < least
            best, least = jnp.where(better, logs, best), jnp.where(better, value, least)
            change, state = optimiser.update(slope, state)
            return (logs + change, state, best, least), None

        (_, _, best, least), _ = jax.lax.scan(step, (logs, optimiser.init(logs), logs, jnp.inf), None, length=steps)
        return best, least

    return jax.vmap(descend)(points)


def _uncertainty(slopes, residuals, sd):
    """Standard deviations of the logarithms: inverse of J'J / sigma^2 + 1 / sd^2, fixed parameters 0."""
    free = sd > 0
    sigma = max(1.4826 * float(np.median(abs(residuals - np.median(residuals)))), 1e-4)
    slopes = np.nan_to_num(slopes[:, free])
    precision = slopes.T @ slopes / sigma**2 + np.diag(1 / sd[free] ** 2)
    out = np.zeros(sd.shape)
    out[free] = np.sqrt(np.maximum(np.diag(np.linalg.inv(precision)), 0.0))
    return out
