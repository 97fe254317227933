"""Gradient-relaxed placement: thousands of fractional schedules descend side by side, then are rounded.

Each start has logits over chiplets for every operator and over types for every position, its own weights between the
objectives, and goes down the smooth evaluator with Adam while the softmax sharpens. Gradients reach placements only; the
costs of operators are a table.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from perfmodel import CostTable, Schedule, System, Workload
from perfmodel.schedule import evaluate_one

from ._objectives import costs

_OPTIMISER = optax.adam(0.3)
_HOT, _COLD = 1.0, 0.15  # temperature of the softmax over chiplets, from first to last step
_SMOOTH_HOT, _SMOOTH_COLD = 0.1, 0.02  # temperature of the evaluator
_LOOSE = 3.0  # weight of capacity violations


def initial_logits(key, n: int, n_operators: int, n_chiplets: int, n_kinds: int):
    """Random logits, correlated along the order of operators so that starts differ in their segments."""
    k_white, k_slow, k_mix, k_kind = jax.random.split(key, 4)
    white = jax.random.normal(k_white, (n, n_operators, n_chiplets))
    knots = jax.random.normal(k_slow, (n, 9, n_chiplets))
    slow = jax.image.resize(knots, (n, n_operators, n_chiplets), "linear")
    share = jax.random.uniform(k_mix, (n, 1, 1))
    return 0.5 * ((1 - share) * white + 2.0 * share * slow), jax.random.normal(k_kind, (n, n_chiplets, n_kinds))


def objective_weights(key, n: int, n_objectives: int) -> Float[Array, "N M"]:
    """Weights between objectives, even over the simplex; the first few starts go for one objective each."""
    drawn = jax.random.dirichlet(key, jnp.ones(n_objectives), (n,))
    alone = jnp.eye(n_objectives)[jnp.arange(n) % n_objectives]
    return jnp.where((jnp.arange(n) < n // 4)[:, None], 0.9 * alone + 0.1 / n_objectives, drawn)


start_descent = jax.jit(_OPTIMISER.init)


@functools.partial(jax.jit, static_argnums=(6,), donate_argnums=(0, 1))
def descend(
    logits, state, weights, workload: Workload, system: System, table: CostTable, objectives: tuple[str, ...], progress
):
    """One Adam step on every start for each entry of `progress` (0 hot to 1 cold): logits and optimiser state after them.

    **Arguments:** `logits`: of operators `N x L x D` and of positions `N x D x K`; `state`: from `start_descent`;
    `weights`: `N x M`; `table`: by type, its columns the `K` types on offer (or by chiplet, then `K` is 1).
    """

    def loss(one, weight, progress):
        place, kind = one
        softness = _HOT * (_COLD / _HOT) ** progress
        relaxed, chosen, costs_ = jax.nn.softmax(place / softness, axis=-1), system, table
        if kind.shape[-1] > 1:
            mixture = jax.nn.softmax(kind / softness, axis=-1)
            chosen, costs_ = system.with_kinds(mixture), eqx.tree_at(lambda t: t.column, table, mixture)
        smooth = _SMOOTH_HOT * (_SMOOTH_COLD / _SMOOTH_HOT) ** progress
        metrics = evaluate_one(workload, chosen, Schedule(relaxed), costs_, True, smooth, remat=True)[0]
        return jnp.sum(weight * costs(metrics, objectives, penalty=_LOOSE))

    def step(carry, progress):
        logits, state = carry
        slope = jax.vmap(jax.grad(loss), in_axes=(0, 0, None))(logits, weights, progress)
        slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), slope)
        updates, state = _OPTIMISER.update(slope, state)
        return (optax.apply_updates(logits, updates), state), None

    return jax.lax.scan(step, (logits, state), progress)[0]


def rounded(logits) -> tuple[Array, Array]:
    """Most likely chiplet of each operator, most likely type of each position."""
    return jnp.argmax(logits[0], axis=-1).astype(jnp.int8), jnp.argmax(logits[1], axis=-1).astype(jnp.int8)
