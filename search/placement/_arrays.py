"""A placement problem as arrays for the evaluator: tasks with many inputs split, everything padded to shapes that problems share."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._problem import Problem


class Arrays(NamedTuple):
    """A problem as the walk wants it: `M` nodes (tasks first, then collectors, then padding), `K` inputs each, a row a node.

    `source` is `M` where there is no input; `transfer` `[M, K, D D]` is already zero there. `count`: nodes that are real.
    `last`: node that ends a task; `owner`: task whose device a node shares.
    """

    times: Float[Array, "M D"]
    runs: Bool[Array, "M"]
    source: Int[Array, "M K"]
    transfer: Float[Array, "M K DD"]
    moves: Bool[Array, "M K"]
    factors: Float[Array, "S DD"]
    owner: Int[Array, "M"]
    count: Int[Array, ""]


class Compiled(NamedTuple):
    """`Arrays`, what is static about them, and how orders of tasks become orders of nodes."""

    arrays: Arrays
    n_tasks: int
    n_nodes: int
    congestion: bool
    worst_case: bool
    before: tuple[np.ndarray, ...]  # collectors of each task, in the order in which they are walked
    order: np.ndarray  # the problem's own order, nodes, padded


def bucket(n: int) -> int:
    """The next of 16, 20, 24, 28, 32, 40, ...: problems of like size share a program, at most a quarter is padding."""
    step = 4
    while n > 7 * step:
        step *= 2
    return max(16, -(-n // step) * step)


def compiled(problem: Problem, dtype=None) -> Compiled:
    """A problem's arrays. `dtype`: float32, or float64 where JAX is allowed it (default: what JAX has by default)."""
    n, d = problem.n_tasks, problem.n_devices
    inputs = [[e for e in row if e >= 0] for row in problem.inputs.tolist()]
    slots = max(1, max(map(len, inputs))) if problem.congestion else 2
    before: list[np.ndarray] = []
    nodes: list[list[tuple[int, int]]] = [[] for _ in range(n)]  # (source node, edge or -1) of each node
    owner = list(range(n))
    for task, edges in enumerate(inputs):
        todo, mine = [(int(problem.source[e]), e) for e in edges], []
        while len(todo) > slots:
            mine.append(len(nodes))
            nodes.append(todo[:slots])
            owner.append(task)
            todo = [*todo[slots:], (mine[-1], -1)]
        nodes[task] = todo
        before.append(np.asarray(mine, np.int32))
    m = bucket(len(nodes))
    dtype = jax.dtypes.canonicalize_dtype(dtype or float)
    times, runs = np.zeros((m, d)), np.arange(m) < n
    times[:n] = problem.times
    source, owner_ = np.full((m, slots), m, np.int32), np.zeros(m, np.int32)
    owner_[: len(nodes)] = owner
    transfer, moves = np.zeros((m, slots, d * d), dtype), np.zeros((m, slots), bool)
    for node, row in enumerate(nodes):
        for k, (where, edge) in enumerate(row):
            source[node, k] = where
            if edge >= 0:
                transfer[node, k], moves[node, k] = problem.transfer[edge].reshape(-1), problem.moves[edge]
    cast = partial(jnp.asarray, dtype=dtype)
    factors = problem.factors.reshape(-1, d * d)
    arrays = Arrays(cast(times), jnp.asarray(runs), jnp.asarray(source), cast(transfer), jnp.asarray(moves), cast(factors),
                    jnp.asarray(owner_), jnp.asarray(len(nodes), jnp.int32))  # fmt: skip
    made = Compiled(arrays, n, len(nodes), problem.congestion, problem.worst_case, tuple(before), np.empty(0, np.int32))
    return made._replace(order=nodes_of(made, problem.order))


def nodes_of(c: Compiled, order: np.ndarray) -> np.ndarray:
    """The order of nodes `[M]` of an order of tasks `[N]`: collectors stand right before their task, padding comes last."""
    rows = [x for task in order for x in (*c.before[task], task)] if c.n_nodes > c.n_tasks else list(order)
    return np.concatenate([np.asarray(rows, np.int32), np.arange(c.n_nodes, len(c.arrays.runs), dtype=np.int32)])


def tasks_of(c: Compiled, order: np.ndarray) -> np.ndarray:
    """The order of tasks `[N]` in an order of nodes `[M]`."""
    return order[order < c.n_tasks]
