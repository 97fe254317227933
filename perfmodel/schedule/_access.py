"""In which tiers the bytes of each row live, and how long an access waits there, in the form in which the traversal reads it."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from ..hardware import System
from ..workload import Workload
from ._tiers import TierShares, amounts, is_embedding


class Access(NamedTuple):
    """Of one object (or, with leading axes, of many): the tiers it lives in."""

    wait_s: Any  # latency of an access; None: in `Constants.memory_s`
    share: Any  # [..., T]; None: there is one tier


class Accesses(NamedTuple):
    """Of each row; one tier: scalars for all rows. `I` inputs."""

    weights: Access  # [L]
    outside_in: Access  # [L]
    outside_out: Access  # [L]
    result: Access  # [L]
    inputs: Access  # [L, I]
    passing_bytes: Any = None  # [L] of the model's inputs and outputs, in memory while the row runs
    input_gone: Any = None  # [L, I] bytes that leave memory after the row, if they were there

    def input(self, i: int) -> Access:
        """Access of an input of one row."""
        if self.inputs.share is None:
            return self.inputs
        return Access(*(x[i] for x in self.inputs))


def one_tier() -> Accesses:
    """Of a system with one tier: nothing to be said of single rows."""
    one = Access(None, None)
    return Accesses(one, one, one, one, one)


def access_s_per_byte(system: System, only_gpus: bool, dtype):
    """Seconds a byte that one chiplet waits for each tier, reading and writing. Kernels of GPUs hold the first tier's in theirs."""
    read, write = system.memory.access_bytes_per_s(dtype, of_one=True)
    free = jnp.zeros_like(read).at[0].set(1.0 if only_gpus else 0.0)
    return (1.0 - free) / read, (1.0 - free) / write


def tier_access(
    workload: Workload, system: System, shares: TierShares, input_last, out_bytes, sub_batch, dtype
) -> Accesses:
    """Of rows as they stand in the workload. `input_last`, `[L, I]`: the last reader of a tensor; `out_bytes`: of a result."""
    wait_s = jnp.asarray(system.memory.latency_s, dtype)

    def one(share) -> Access:
        share = jnp.asarray(share, dtype)
        return Access(share @ wait_s, share)

    source = jnp.maximum(jnp.asarray(workload.inputs), 0)
    outside = jnp.asarray(shares.outside, dtype)
    tables = jnp.where(is_embedding(workload)[:, None], jnp.asarray(shares.weights, dtype), outside)
    results = jnp.asarray(shares.results, dtype)
    return Accesses(
        weights=one(shares.weights),
        outside_in=one(tables),
        outside_out=one(outside),
        result=one(results),
        inputs=one(results[source]),
        passing_bytes=amounts(workload, sub_batch, dtype).passing,
        input_gone=jnp.where(jnp.asarray(input_last), out_bytes[source], 0.0),
    )


def parted(amount, one: Access, n_tiers: int) -> tuple:
    """An amount by tier."""
    return (amount,) if one.share is None else tuple(amount * one.share[t] for t in range(n_tiers))


def waited(memory_s, one: Access) -> Any:
    """Latency of an access: of the way to memory and of the tiers."""
    return memory_s if one.wait_s is None else memory_s + one.wait_s
