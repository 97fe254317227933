"""What a byte costs in the tiers where it lives, row by row, in the form in which the walk reads it."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from ..hardware import System
from ..workload import Workload
from ._tiers import TierShares, amounts, is_embedding


class Pace(NamedTuple):
    """Of one object (or, with leading axes, of many): means over the tiers it lives in."""

    read_s: Any  # seconds a byte
    write_s: Any
    wait_s: Any  # latency of an access; None: in `Constants.memory_s`
    share: Any  # [..., T]; None: there is one tier


class Paces(NamedTuple):
    """Of each row; one tier: scalars for all rows. `I` inputs."""

    weights: Pace  # [L]
    outside_in: Pace  # [L]
    outside_out: Pace  # [L]
    result: Pace  # [L]
    inputs: Pace  # [L, I]
    passing_bytes: Any = None  # [L] of the model's inputs and outputs, in memory while the row runs
    input_gone: Any = None  # [L, I] bytes that leave memory after the row, if they were there

    def input(self, i: int) -> Pace:
        """Pace of an input of one row."""
        if self.inputs.share is None:
            return self.inputs
        return Pace(*(x[i] for x in self.inputs))


def one_tier(read_s, write_s) -> Paces:
    """Paces of a system with one tier."""
    pace = Pace(read_s, write_s, None, None)
    return Paces(pace, pace, pace, pace, pace)


def access_s_per_byte(system: System, only_gpus: bool, dtype):
    """Seconds a byte that one chiplet waits for each tier, reading and writing. Kernels of GPUs hold the first tier's in theirs."""
    read, write = system.memory.access_bytes_per_s(dtype, of_one=True)
    free = jnp.zeros_like(read).at[0].set(1.0 if only_gpus else 0.0)
    return (1.0 - free) / read, (1.0 - free) / write


def tier_paces(
    workload: Workload, system: System, shares: TierShares, only_gpus: bool, input_last, out_bytes, sub_batch, dtype
) -> Paces:
    """Paces of rows as they stand in the workload. `input_last`, `[L, I]`: the last reader of a tensor; `out_bytes`: of a result."""
    read_s, write_s = access_s_per_byte(system, only_gpus, dtype)
    wait_s = jnp.asarray(system.memory.latency_s, dtype)

    def pace(share) -> Pace:
        share = jnp.asarray(share, dtype)
        return Pace(share @ read_s, share @ write_s, share @ wait_s, share)

    source = jnp.maximum(jnp.asarray(workload.inputs), 0)
    outside = jnp.asarray(shares.outside, dtype)
    tables = jnp.where(is_embedding(workload)[:, None], jnp.asarray(shares.weights, dtype), outside)
    results = jnp.asarray(shares.results, dtype)
    return Paces(
        weights=pace(shares.weights),
        outside_in=pace(tables),
        outside_out=pace(outside),
        result=pace(results),
        inputs=pace(results[source]),
        passing_bytes=amounts(workload, sub_batch, dtype).passing,
        input_gone=jnp.where(jnp.asarray(input_last), out_bytes[source], 0.0),
    )


def parted(amount, pace: Pace, n_tiers: int) -> tuple:
    """An amount by tier."""
    return (amount,) if pace.share is None else tuple(amount * pace.share[t] for t in range(n_tiers))


def waited(memory_s, pace: Pace) -> Any:
    """Latency of an access: of the way to memory and of the tiers."""
    return memory_s if pace.wait_s is None else memory_s + pace.wait_s
