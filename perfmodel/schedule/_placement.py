"""Placements as weights over chiplets, hard or relaxed, behind the same few verbs.

A hard placement is a tuple of masks (exactly one true), a relaxed one a tuple of fractions that sum to 1. The verbs mean the
same for both; on masks they select instead of multiplying, which is exact and about twice as fast in the walk.
"""

from functools import reduce

import jax
import jax.numpy as jnp


def weights(where, n: int) -> tuple:
    """A placement: an integer becomes masks, a simplex row its entries."""
    if jnp.issubdtype(where.dtype, jnp.floating):
        return tuple(where[d] for d in range(n))
    return tuple(where == d for d in range(n))


def choose(x: tuple, values) -> jax.Array:
    """The value where the placement is (the mean, weighted, if relaxed)."""
    if _hard(x[0]):
        return reduce(
            lambda got, pair: jnp.where(pair[0], pair[1], got), zip(x[1:], values[1:], strict=True), values[0]
        )
    return reduce(jnp.add, [w * v for w, v in zip(x, values, strict=True)])


def plus(old, x, amount):
    """`old`, and `amount` on top as far as `x` says."""
    return jnp.where(x, old + amount, old) if _hard(x) else old + x * amount


def become(old, x, new):
    """`new` as far as `x` says, else `old`."""
    return jnp.where(x, new, old) if _hard(x) else old + x * (new - old)


def both(x, y):
    """As far as both say."""
    return x & y if _hard(x) else x * y


def agree(x: tuple, y: tuple, where, there, dtype) -> jax.Array:
    """1.0 where two placements are the same chiplet; `where`, `there` are what `weights` made `x` and `y` of."""
    if _hard(x[0]):
        return (where == there).astype(dtype)
    return reduce(jnp.add, [w * v for w, v in zip(x, y, strict=True)])


def columns(x: tuple, of: tuple, n_columns: int, keep=lambda value: value) -> tuple:
    """The same placement over columns of a table. `of[d]`: column of chiplet d, or its mixture of columns (a tuple).

    `keep` marks the one value that all columns share."""
    if _hard(x[0]) and not isinstance(of[0], tuple):
        column = keep(choose(x, of))
        return tuple(column == c for c in range(n_columns))
    shares = [each if isinstance(each, tuple) else tuple((each == c) * 1.0 for c in range(n_columns)) for each in of]
    return tuple(reduce(jnp.add, [w * share[c] for w, share in zip(x, shares, strict=True)]) for c in range(n_columns))


def _hard(x) -> bool:
    return x.dtype == jnp.bool_
