"""Registers of a traversal: one value for each tensor that is still to be read."""

from functools import reduce

import jax.numpy as jnp

_FEW = 16  # registers held as scalars; more become one array with dynamic indexing


def registers(n: int, zero, scalars: bool):
    """`n` registers of the shape of `zero`."""
    return (zero,) * n if scalars and n <= _FEW else jnp.zeros((n, *zero.shape), zero.dtype)


def register(values, slot):
    """The register a row reads. The index is the same for all candidates, so selecting beats gathering while they are few."""
    if not isinstance(values, tuple):
        return values[jnp.maximum(slot, 0)]
    return reduce(lambda got, s: jnp.where(slot == s, values[s], got), range(1, len(values)), values[0])


def set_register(values, slot, value):
    """The registers after `value` is put into one of them (-1: into none)."""
    if not isinstance(values, tuple):
        return values.at[jnp.where(slot < 0, values.shape[0], slot)].set(value, mode="drop")
    return tuple(jnp.where(slot == s, value, old) for s, old in enumerate(values))
