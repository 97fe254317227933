"""Placements as weights over chiplets, hard or relaxed, and values over chiplets, behind the same few verbs.

A hard placement is masks (exactly one true), a relaxed one fractions that sum to 1. The verbs mean the same for both; on masks they
select instead of multiplying, which is exact and about twice as fast in the traversal.

Masks, fractions and values over chiplets are tuples of scalars or arrays `[D]`. Tuples are the fastest form for a batch on a CPU (each
scalar becomes one contiguous array over candidates) and grow the program with the number of chiplets; arrays keep it small. Both select
the same numbers, bit for bit.
"""

from functools import reduce

import jax
import jax.numpy as jnp


def weights(where, n: int, scalars: bool):
    """A placement: an integer becomes masks, a simplex row its entries."""
    if jnp.issubdtype(where.dtype, jnp.floating):
        return tuple(where[d] for d in range(n)) if scalars else where
    return tuple(where == d for d in range(n)) if scalars else where == jnp.arange(n, dtype=where.dtype)


def vector(values, scalars: bool):
    """Values over chiplets: as tuple or array."""
    if isinstance(values, tuple):
        return values if scalars else jnp.stack(values)
    return tuple(values[d] for d in range(values.shape[0])) if scalars else values


def zeros(n: int, zero, scalars: bool):
    """Nothing at each of `n` chiplets."""
    return (zero,) * n if scalars else jnp.zeros((n, *zero.shape), zero.dtype)


def each(function, *vectors):
    """`function` of the values at each chiplet."""
    if isinstance(vectors[0], tuple):
        return tuple(function(*values) for values in zip(*vectors, strict=True))
    return function(*vectors)


def choose(x, values) -> jax.Array:
    """The value where the placement is (the mean, weighted, if relaxed)."""
    if isinstance(x, tuple):
        if _hard(x[0]):
            return reduce(
                lambda got, pair: jnp.where(pair[0], pair[1], got), zip(x[1:], values[1:], strict=True), values[0]
            )
        return reduce(jnp.add, [w * v for w, v in zip(x, values, strict=True)])
    if _hard(x):
        return jnp.sum(jnp.where(x, values, jnp.zeros((), values.dtype)), dtype=values.dtype)
    return jnp.sum(x * values)


def plus(old, x, amount):
    """`old`, and `amount` on top as far as `x` says."""
    return each(lambda o, w: jnp.where(w, o + amount, o) if _hard(w) else o + w * amount, old, x)


def become(old, x, new):
    """`new` as far as `x` says, else `old`."""
    return each(lambda o, w: jnp.where(w, new, o) if _hard(w) else o + w * (new - o), old, x)


def agree(x, y, where, there, dtype) -> jax.Array:
    """1.0 where two placements are the same chiplet; `where`, `there` are what `weights` made `x` and `y` of."""
    if not jnp.issubdtype(where.dtype, jnp.floating):
        return (where == there).astype(dtype)
    if isinstance(x, tuple):
        return reduce(jnp.add, [w * v for w, v in zip(x, y, strict=True)])
    return jnp.sum(x * y)


def columns(x, of, n_columns: int, keep=lambda value: value):
    """The same placement over columns of a table. `of`: column of each chiplet, or (`D x K`, tuples of tuples) its mixture of columns.

    `keep` marks the one value that all columns share."""
    if isinstance(x, tuple):
        if _hard(x[0]) and not isinstance(of[0], tuple):
            column = keep(choose(x, of))
            return tuple(column == c for c in range(n_columns))
        shares = [v if isinstance(v, tuple) else tuple((v == c) * 1.0 for c in range(n_columns)) for v in of]
        return tuple(
            reduce(jnp.add, [w * share[c] for w, share in zip(x, shares, strict=True)]) for c in range(n_columns)
        )
    if _hard(x) and of.ndim == 1:
        return choose(x, of) == jnp.arange(n_columns, dtype=of.dtype)
    share = of if of.ndim == 2 else (of[:, None] == jnp.arange(n_columns, dtype=of.dtype)) * 1.0
    return x.astype(share.dtype) @ share


def pairs(old, came, x, amount):
    """`old`, values over ordered pairs of chiplets (a tuple leaves out a chiplet with itself), and `amount` on top where a pair is
    (producer `came`, consumer `x`)."""
    if isinstance(old, tuple):
        n = len(x)
        both = [came[a] & x[b] if _hard(x[0]) else came[a] * x[b] for a in range(n) for b in range(n) if a != b]
        return plus(old, tuple(both), amount)
    return plus(old, came[:, None] & x if _hard(x) else came[:, None] * x, amount)


def _hard(x) -> bool:
    return x.dtype == jnp.bool_
