"""The only place that knows batches of candidates.

`evaluate_many` is `jax.vmap` of the very function behind `evaluate`, compiled once for each shape and run in chunks that stay
in the cache. A candidate is a schedule, and optionally the kinds of its chiplets or a whole system of its own.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..cost import CostTable, alone, cost_table, unnamed, unnamed_system
from ..hardware import Chiplets, System
from ..workload import Workload
from ._evaluate import evaluate_one
from ._metrics import Metrics
from ._schedule import Schedule

KERNELS = ("scan", "fused")
# Measured (benchmarks/schedules_per_second.py, benchmarks/gpu.py): the kernel and the chunk that are faster on a backend.
# "scan": one step an operator, candidates side by side; "fused": steps unrolled in blocks, for devices with costly launches.
_DEFAULT_KERNEL = {"cpu": "scan"}
_CHUNK = {"cpu": 32768}
_FUSED_STEPS = 16
_SMALLEST = 64  # smaller batches are filled up to this, larger ones to a power of two or whole chunks
# Wider vectors pay on CPUs that have them.
_CPU_OPTIONS = {"xla_cpu_prefer_vector_width": 512}


def evaluate_many(
    workload: Workload,
    system: System,
    schedules: Schedule,
    *,
    table: CostTable | None = None,
    kinds: jax.Array | None = None,
    smooth: bool = False,
    temperature=0.05,
    kernel: str | None = None,
    chunk: int | None = None,
    recompute: bool = False,
    warm: bool = True,
) -> Metrics:
    """Metrics of `B` candidates at once; every field gains a leading axis `B`.

    **Arguments:**
    - `schedules`: every array has a leading axis `B` (int8 assignments are the fastest).
    - `table`: costs shared by all candidates (`cost_table`, for the chiplets or `by_type`); None: made here.
    - `kinds`: chiplet type of each position, `B x D`: candidates differ in their chiplet mix. Needs a `by_type` table.
    - `recompute`: `system` itself has a leading axis `B` on the fields of `system.chiplets`, and each candidate's costs are
      computed inside the walk.
    - `kernel`: `scan` or `fused`; None: the one measured faster on this backend.
    - `chunk`: candidates a call, exactly (a short last one is filled up), so one value means one compilation; None: a size
      that suits the backend, or for small batches the next power of two.
    - `warm`: as of `evaluate`.

    Raises ValueError for an unknown kernel or arrays whose leading axes differ.
    """
    backend = jax.default_backend()
    kernel = _DEFAULT_KERNEL.get(backend, "scan") if kernel is None else kernel
    if kernel not in KERNELS:
        raise ValueError(f"kernel is {kernel!r}; allowed: {', '.join(KERNELS)}")
    if recompute and (table is not None or kinds is not None):
        raise ValueError("recompute makes the costs of every candidate; it goes with neither table nor kinds")
    if recompute and system.gpus is not None:
        raise ValueError(
            f"{system.name}: recompute cannot time the kernels of a GPU candidate by candidate; leave it out"
        )
    if table is None and not recompute:
        table = cost_table(workload, system, by_type=kinds is not None)
    if kinds is not None and table is not None and table.column is None:
        raise ValueError("kinds needs a table by type: cost_table(workload, system, by_type=True)")

    workload, system = unnamed(workload), unnamed_system(system)
    candidates = Candidates(schedules, kinds, system.chiplets if recompute else None)
    n = schedules.assignment.shape[0]
    per_candidate = jax.tree.map(lambda x: jnp.ndim(x) > 0, candidates)  # a scalar sub-batch is shared by all
    for leaf in jax.tree.leaves(candidates):
        if jnp.ndim(leaf) and leaf.shape[0] != n:
            raise ValueError(f"candidates: an array has leading axis {leaf.shape[0]}; the assignments have {n}")
    if chunk is None:
        chunk = min(_CHUNK.get(backend, 1 << 20), max(_SMALLEST, 1 << (n - 1).bit_length()))
    top = alone()
    run = _compiled(backend, kernel, smooth, top, warm)
    parts = []
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)

        def cut(x, yes, start=start, stop=stop):
            if not yes:
                return x
            return _batch_last(x if n == chunk else _filled(x[start:stop], chunk))

        out = run(workload, system, jax.tree.map(cut, candidates, per_candidate), table, temperature)
        parts.append(out if stop - start == chunk else jax.tree.map(lambda x, m=stop - start: x[:m], out))
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


class Candidates(NamedTuple):
    """What differs between candidates; None where nothing does."""

    schedule: Schedule
    kinds: jax.Array | None
    chiplets: Chiplets | None


@functools.cache
def _compiled(backend: str, kernel: str, smooth: bool, top: bool, warm: bool):
    """One jitted function a kernel: jit caches by shape, so a batch size compiles once."""

    def run(workload, system, candidates, table, temperature):
        def one(candidate):
            system_, table_ = system, table
            if candidate.kinds is not None:
                system_ = system.with_kinds(candidate.kinds)
                table_ = eqx.tree_at(lambda t: t.column, table, candidate.kinds)
            if candidate.chiplets is not None:
                system_ = eqx.tree_at(lambda s: s.chiplets, system, candidate.chiplets)
            unroll = _FUSED_STEPS if kernel == "fused" else 1
            return evaluate_one(
                workload,
                system_,
                candidate.schedule,
                table_,
                smooth,
                temperature,
                unroll,
                scalars=backend == "cpu",
                warm=warm,
            )[0]

        axes = jax.tree.map(lambda x: x.ndim - 1 if x.ndim else None, candidates)
        return jax.vmap(one, in_axes=(axes,))(candidates)

    return jax.jit(run, compiler_options=_CPU_OPTIONS if backend == "cpu" and top else None)


@jax.jit
def _batch_last(x):
    """Candidates side by side. A program of its own: fused into the walk, XLA's transpose is several times slower."""
    return jnp.moveaxis(x, 0, -1)


def _filled(x, n: int):
    """The last chunk filled up with copies of its first row, so that one program serves any batch size."""
    short = n - x.shape[0]
    return x if not short else jnp.concatenate([x, jnp.broadcast_to(x[:1], (short, *x.shape[1:]))])
