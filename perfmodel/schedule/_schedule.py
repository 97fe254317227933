"""A schedule: where every operator runs, in which order and window, with which sub-batch. Hard or relaxed."""

from collections.abc import Sequence
from dataclasses import fields, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from ..cost import CostTable, filled_sizes, longer
from ..workload import Workload, fuse
from ._tiers import TierShares


class Schedule(eqx.Module):
    """One candidate; arrays of candidates carry a leading axis under `jax.vmap` or `evaluate_many`.

    - `assignment`: chiplet of each operator (integers, `L`), or a simplex row for each (floats, `L x D`): relaxed.
    - `sub_batch`: passes of each model are made of this many of its batches.
    - `order`: rows in execution order (a permutation); None: the order of the workload.
    - `window`: time window of each row; windows of a round run one after another; None: all in one.
    - `n_windows`: static.
    - `fusion`: how far each edge of the workload is fused, `E` (bool, or numbers from 0 to 1); None: none is. It counts as far as both
      ends are on one chiplet, in one window. From the rules of a backend: `fuse_schedule`. Groups of fused edges are meant to
      be convex (`perfmodel.workload.fusion_of` says); here they are taken as they come.
    - `tiers`: share of each memory tier in what every operator has in memory (from `allocate`, or relaxed); None: tiers are
      filled from the fastest on (`default_shares`).

    A *segment* (maximal run, in order, of one model's operators on one chiplet) is derived, never stored.
    """

    assignment: Int[Array, "L"] | Float[Array, "L D"]
    sub_batch: Float[Array, ""] = eqx.field(default_factory=lambda: np.float32(1.0))
    order: Int[Array, "L"] | None = None
    window: Int[Array, "L"] | None = None
    n_windows: int = eqx.field(static=True, default=1)
    fusion: Float[Array, "E"] | Bool[Array, "E"] | None = None
    tiers: TierShares | None = None

    @classmethod
    def on_chiplet(cls, workload: Workload, chiplet: int) -> "Schedule":
        """Every operator on one chiplet."""
        return cls(np.full(workload.n_operators, chiplet, np.int32))

    @classmethod
    def relaxed(cls, simplex: Float[Array, "L D"]) -> "Schedule":
        """Every operator a mixture of chiplets; rows sum to 1."""
        return cls(simplex)

    @property
    def is_relaxed(self) -> bool:
        return jnp.issubdtype(self.assignment.dtype, jnp.floating)

    def check(self, workload: Workload, n_chiplets: int, n_tiers: int = 1) -> None:
        """Raise ValueError where shapes or concrete values cannot belong to `workload` on `n_chiplets` chiplets with `n_tiers`."""
        n = workload.n_operators
        want = (n, n_chiplets) if self.is_relaxed else (n,)
        if self.assignment.shape != want:
            raise ValueError(f"schedule.assignment has shape {self.assignment.shape}; needed: {want}")
        for name in ("order", "window"):
            value = getattr(self, name)
            if value is not None and value.shape != (n,):
                raise ValueError(f"schedule.{name} has shape {value.shape}; needed: ({n},)")
        if self.fusion is not None:
            if self.fusion.shape != workload.source.shape:
                raise ValueError(f"schedule.fusion has shape {self.fusion.shape}; needed: {workload.source.shape}")
            outside = np.asarray([]) if not _is_concrete(self.fusion) else np.asarray(self.fusion, float)
            outside = outside[~((outside >= 0) & (outside <= 1))]
            if outside.size:
                raise ValueError(f"schedule.fusion contains {outside[0]:g}; allowed: 0 to 1")
        if self.tiers is not None:
            _check_tiers(self.tiers, n, n_tiers)
        if _is_concrete(self.assignment) and not self.is_relaxed:
            _in_range("assignment", np.asarray(self.assignment), n_chiplets)
        if _is_concrete(self.window):
            _in_range("window", np.asarray(self.window), self.n_windows)
        if _is_concrete(self.order) and not np.array_equal(np.sort(np.asarray(self.order)), np.arange(n)):
            raise ValueError("schedule.order is not a permutation of the operators")

    def segments(self, workload: Workload) -> list[tuple[int, int, int]]:
        """Hard schedules: (first position, past the last, chiplet) of every segment, in execution order (host only)."""
        walked = execution_order(workload, self)
        order = np.arange(workload.n_operators) if walked is None else np.asarray(walked)
        where, model = np.asarray(self.assignment)[order], np.asarray(workload.model)[order]
        cut = np.flatnonzero((where[1:] != where[:-1]) | (model[1:] != model[:-1])) + 1
        bounds: Sequence[int] = [0, *cut.tolist(), len(where)]
        return [(a, b, int(where[a])) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def fuse_schedule(workload: Workload, schedule: Schedule, backend: str) -> Schedule:
    """The schedule with the edges fused that the rules of a backend (`perfmodel.workload.BACKENDS`) fuse; `none`: no fusion.

    Raises ValueError for an unknown backend."""
    fused = fuse(workload, backend).fused
    return replace(schedule, fusion=fused if backend != "none" else None)


def filled_up(workload: Workload, schedule: Schedule, table: CostTable | None):
    """A schedule and a table as long as the workload that a compiled program gets: rows that fill up stand where the last one stands."""
    n, (rows, edges) = workload.n_operators, filled_sizes(workload)

    def fill(x):
        return x if x is None else longer(x, rows)

    order = schedule.order
    if order is not None:
        join = jnp if isinstance(order, Tracer) else np
        order = join.concatenate([join.asarray(order), np.arange(n, rows)])
    tiers = None if schedule.tiers is None else jax.tree.map(fill, schedule.tiers)
    made = replace(
        schedule, assignment=fill(schedule.assignment), order=order, window=fill(schedule.window), tiers=tiers,
        fusion=None if schedule.fusion is None else longer(schedule.fusion, edges, "constant"),
    )  # fmt: skip
    if table is not None:
        columns = [f.name for f in fields(table) if f.name not in ("sub_batch", "column")]
        table = replace(table, **{name: longer(getattr(table, name), rows) for name in columns})
    return made, table


def execution_order(workload: Workload, schedule: Schedule):
    """Rows in the order they are walked: by model, then by window, then as the schedule says; None: as they stand.

    Models do not wait for each other in the walk (latency is measured in an otherwise empty package, and the steady
    state only adds up), so their relative order says nothing."""
    if schedule.order is None and schedule.window is None:
        return None
    n = workload.n_operators
    order = jnp.arange(n) if schedule.order is None else jnp.asarray(schedule.order)
    group = jnp.asarray(workload.model)[order] * schedule.n_windows
    if schedule.window is not None:
        group = group + jnp.asarray(schedule.window)[order]
    return order[jnp.argsort(group, stable=True)]


def _is_concrete(values) -> bool:
    return values is not None and not isinstance(values, Tracer)


def _check_tiers(tiers: TierShares, n_operators: int, n_tiers: int) -> None:
    for name in ("weights", "results", "outside"):
        share = getattr(tiers, name)
        if share.shape != (n_operators, n_tiers):
            raise ValueError(f"schedule.tiers.{name} has shape {share.shape}; needed: {(n_operators, n_tiers)}")
        if _is_concrete(share):
            values = np.asarray(share, float)
            if not ((values >= 0).all() and np.allclose(values.sum(axis=1), 1.0, atol=1e-4)):
                bad = int(np.argmax((values < 0).any(axis=1) | ~np.isclose(values.sum(axis=1), 1.0, atol=1e-4)))
                raise ValueError(
                    f"schedule.tiers.{name}[{bad}] is {values[bad].tolist()}; allowed: shares of at least 0 that sum to 1"
                )


def _in_range(name: str, values: np.ndarray, limit: int) -> None:
    if values.size and (values.min() < 0 or values.max() >= limit):
        bad = int(values[(values < 0) | (values >= limit)][0])
        raise ValueError(f"schedule.{name} contains {bad}; allowed: 0 to {limit - 1}")
