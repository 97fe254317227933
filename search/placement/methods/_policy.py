"""`placeto`: a policy trained by REINFORCE against the evaluator, a small stand-in for Placeto (NeurIPS 2019, arXiv 1906.08879).

What it shares with Placeto: an episode improves a placement by re-placing operators; a network that sees features of an operator,
of its neighbours and of the present placement, not its name, gives the chances of each device; policy gradient with a baseline;
the simulator is the reward. What it is not: no message passing over the graph (neighbours enter by where they stand, one hop), a
tenth of the operators re-placed at a time rather than one, trained from nothing on the one graph it is asked about, and it does
not transfer. It begins at the best single device, or any packing that fits: no heuristic helps it.
"""

import time
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from jaxtyping import Array, Float, Int

from .._arrays import Arrays, compiled, nodes_of
from .._bounds import units
from .._problem import Problem
from ._fit import Fit
from ._heft import upward_ranks
from .search._evolve import energies_of
from .search._small import quanta
from .search._starts import Start, best_start, packing, ranked_orders, single_devices, value

WIDTH, LAYERS = 32, 2
RATE = 3e-3
REPLACED = 0.1  # share of the operators re-placed in one step
WORSE = 1.01  # a rollout goes on from a placement at most so much worse than its last
ENTROPY = 1e-2
_FEATURES = 9  # of an operator on a device, see `_features`


class Setting(NamedTuple):
    """The problem as the policy sees it. `U` units, `M` nodes, `E` edges between units."""

    arrays: Arrays
    order: Int[Array, "M"]
    unit: Int[Array, "M"]
    source: Int[Array, "E"]
    target: Int[Array, "E"]
    fixed: Float[Array, "U D 5"]  # features that no placement changes
    able: Array  # [U, D]
    size: Int[Array, "U"]
    capacity: Int[Array, "D"]
    unit_excess: Float[Array, ""]
    work: Float[Array, "U D"]
    scale: Float[Array, ""]


def placeto(
    problem: Problem,
    *,
    seed: int = 0,
    time_limit_s: float | None = None,
    updates: int | None = None,
    rollouts: int | None = None,
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Placement and order after `updates` of the policy (default: as many as the time allows, 30 s where none is given).

    **Arguments:** `rollouts`: placements improved side by side. Raises Infeasible where no packing is found.
    """
    began = time.perf_counter()
    limit = np.inf if updates is not None else (30.0 if time_limit_s is None else time_limit_s)
    fit, rng = Fit(problem), np.random.default_rng(seed)
    starts = [*single_devices(problem), packing(problem)]
    first, _ = best_start(problem, starts)
    scale = value(problem, first)
    s = _setting(problem, fit, scale)
    lanes = rollouts or int(np.clip(2**21 // (len(fit.size) * problem.n_devices * _FEATURES), 4, 64))
    where = jnp.asarray(np.repeat(_of_units(first.placement, fit)[:, None], lanes, 1), jnp.int8)
    key, made = random.key(seed), random.fold_in(random.key(seed), 1)
    policy = eqx.nn.MLP(_FEATURES, 1, WIDTH, LAYERS, jax.nn.tanh, key=made)
    parameters, static = eqx.partition(policy, eqx.is_array)
    state, energy = optax.adam(RATE).init(parameters), jnp.ones(lanes)
    best, best_where, done, slowest = 1.0 + 1e-9, _of_units(first.placement, fit), 0, 0.0
    flags = dict(congestion=problem.congestion, worst_case=problem.worst_case)
    while done < (updates if updates is not None else 10**9):
        now = time.perf_counter()
        if now - began + 1.5 * slowest > limit:
            break
        out = _update(s, parameters, state, where, energy, random.fold_in(key, done), static=static, **flags)
        parameters, state, where, energy, found, found_where = out
        if float(found) < best:
            best, best_where = float(found), np.asarray(found_where)
        done, slowest = done + 1, (time.perf_counter() - now if done else 0.0)
    placement = best_where.astype(int)[fit.of]
    own = [
        Start("policy", placement, o)
        for o in (_by_mean_rank(problem), *ranked_orders(problem, placement[None], 0.0, rng))
    ]
    chosen, _ = best_start(problem, [first, *own])
    note = f"{done} policy updates, {done * lanes} placements"
    return chosen.placement, chosen.order, {"evaluations": done * lanes, "updates": done, "start": scale, "note": note}


def _of_units(placement, fit: Fit) -> np.ndarray:
    where = np.zeros(len(fit.size), np.int8)
    where[fit.of] = placement
    return where


def _by_mean_rank(problem: Problem) -> np.ndarray:
    return problem.order[np.argsort(-upward_ranks(problem)[problem.order], kind="stable")]


def _setting(problem: Problem, fit: Fit, scale: float) -> Setting:
    c, found = compiled(problem, np.float32), units(problem)
    of, n = fit.of, len(fit.size)
    work = found.sum(np.where(np.isfinite(problem.times), problem.times, 0.0))
    unit = np.zeros(len(c.arrays.runs), np.int32)
    unit[: c.n_nodes] = of[np.asarray(c.arrays.owner)[: c.n_nodes]]
    a, b = of[problem.source], of[problem.target]
    between = a != b
    rank = np.zeros(n)
    np.maximum.at(rank, of, upward_ranks(problem))
    mean = np.maximum(work.mean(axis=1, keepdims=True), 1e-12)
    degree = np.bincount(a[between], minlength=n) + np.bincount(b[between], minlength=n)
    alone = lambda x: np.repeat(x[:, None], problem.n_devices, 1)  # noqa: E731
    fixed = np.stack([
        np.log(np.maximum(work, 1e-12) / mean).clip(-3, 3), alone(work.mean(1) / max(work.mean(), 1e-12)).clip(0, 10),
        alone(found.memory_bytes / max(found.memory_bytes.max(), 1.0)), alone(np.log1p(degree)), alone(rank / max(rank.max(), 1e-12)),
    ], axis=-1)  # fmt: skip
    size, capacity = quanta(found.memory_bytes, problem.capacity_bytes)
    f32 = partial(jnp.asarray, dtype=jnp.float32)
    return Setting(c.arrays, jnp.asarray(nodes_of(c, _by_mean_rank(problem))), jnp.asarray(unit), jnp.asarray(a[between]),
                   jnp.asarray(b[between]), f32(fixed), jnp.asarray(fit.able), jnp.asarray(size), jnp.asarray(capacity),
                   f32(max(size.mean(), 1.0)), f32(work), f32(scale))  # fmt: skip


def _features(s: Setting, where: Int[Array, "U B"]) -> Float[Array, "U B D F"]:
    """Of a unit on a device: five that stay (`Setting.fixed`); whether it stands there; the share of its producers and of its
    consumers there; the device's share of the work."""
    here = jax.nn.one_hot(where, s.able.shape[1])
    count = lambda a, b: jnp.zeros(here.shape).at[b].add(here[a])  # noqa: E731
    share = lambda x: x / jnp.maximum(x.sum(-1, keepdims=True), 1.0)  # noqa: E731
    load = (here * s.work[:, None]).sum(0)
    moving = jnp.stack([here, share(count(s.source, s.target)), share(count(s.target, s.source)),
                        jnp.broadcast_to(load / load.sum(-1, keepdims=True), here.shape)], axis=-1)  # fmt: skip
    fixed = jnp.broadcast_to(s.fixed[:, None], (*here.shape, s.fixed.shape[-1]))
    return jnp.concatenate([fixed, moving], axis=-1)


@partial(jax.jit, static_argnames=("static", "congestion", "worst_case"))
def _update(s: Setting, parameters, state, where, energy, key, *, static, congestion: bool, worst_case: bool):
    """One step of every rollout and one of Adam. Returns those, and the best feasible energy with its placement."""
    pick, draw = random.split(key)
    seen = _features(s, where)
    chosen = random.bernoulli(pick, jnp.maximum(REPLACED, 1.0 / where.shape[0]), where.shape)

    def chances(parameters):
        logits = jax.vmap(eqx.combine(parameters, static))(seen.reshape(-1, _FEATURES)).reshape(seen.shape[:-1])
        return jax.nn.log_softmax(jnp.where(s.able[:, None], logits, -1e9), axis=-1)

    sampled = random.categorical(draw, chances(parameters)).astype(jnp.int8)
    new = jnp.where(chosen, sampled, where)
    found, fits = energies_of(s, new, s.order, s.size, s.capacity, congestion, worst_case)
    gain = jnp.log(energy) - jnp.log(jnp.where(jnp.isfinite(found), found, 10.0 * energy))
    advantage = gain - gain.mean()
    advantage = advantage / (advantage.std() + 1e-6)

    def loss(parameters):
        log_chance = chances(parameters)
        taken = jnp.take_along_axis(log_chance, sampled[..., None].astype(jnp.int32), -1)[..., 0]
        entropy = -(jnp.exp(log_chance) * jnp.where(s.able[:, None], log_chance, 0.0)).sum(-1)
        return (
            -(advantage * jnp.where(chosen, taken, 0.0).sum(0) / chosen.sum(0).clip(1)).mean()
            - ENTROPY * entropy.mean()
        )

    updates, state = optax.adam(RATE).update(jax.grad(loss)(parameters), state)
    goes_on = found < WORSE * energy
    candidate = jnp.where(fits, found, jnp.inf)
    lane = jnp.argmin(candidate)
    where, energy = jnp.where(goes_on, new, where), jnp.where(goes_on, found, energy)
    return optax.apply_updates(parameters, updates), state, where, energy, candidate[lane], new[:, lane]
