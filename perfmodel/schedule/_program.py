"""One compiled program for many workloads, systems and schedules: what differs between two calls without need is taken away.

Names leave (nothing computes with a name), sizes of a workload are filled up to round ones (`fill_up`; rows with a `count` of 0), numbers
get the types of the computation. So a renamed system, or another model of the same size, runs the program that is there.

Called by itself a program is compiled quickly rather than well: it runs once, in microseconds, and compiling it is what one waits for.
Inside another trace (`jit`, `vmap`, `grad`, `scan` ...) it is a plain function of that trace, with the sizes it came with.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..cost import gpu_kernels
from ..hardware import System
from ..workload import Workload, fill_up
from ._schedule import Schedule
from ._tiers import TierShares

# What takes most of the time of compiling on a CPU and saves nothing that a single candidate could notice (benchmarks/start_up.py).
_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


@cache
def known_options(**options) -> dict | None:
    """Those of XLA's options that this version has; None for none."""
    known = {}
    for name, value in options.items():
        try:
            jax.jit(lambda: np.float32(0), compiler_options={name: value}).lower().compile()
        except Exception as error:  # XLA says it in words alone
            if "No such compile option" not in str(error):
                raise
        else:
            known[name] = value
    return known or None


def compiled(function, workload: Workload, system: System, schedule: Schedule, table, *numbers, **static) -> Any:
    """`function(workload, system, schedule, table, *numbers, **static)`, compiled once for all that are alike."""
    workload, system, schedule = unnamed(workload), unnamed_system(system), schedule
    if not jax.core.trace_ctx.is_top_level():
        return function(workload, system, schedule, table, *numbers, **static)
    dtype = jnp.result_type(float)
    n = workload.n_operators
    workload = fill_up(workload)
    schedule, table = _filled_schedule(schedule, n, workload), _filled_table(table, n, workload.n_operators)
    arguments = jax.tree.map(lambda x: _canonical(x, dtype), (workload, system, schedule, table, numbers))
    return _program(function, jax.default_backend(), tuple(sorted(static.items())))(*arguments)


@cache
def _program(function, backend: str, static: tuple):
    def run(workload, system, schedule, table, numbers):
        return function(workload, system, schedule, table, *numbers, **dict(static))

    return jax.jit(run, compiler_options=known_options(**_QUICK) if backend == "cpu" else None)


def unnamed(workload: Workload) -> Workload:
    """The workload without names of operators and models."""
    return replace(workload, names=(), model_names=(), mix="")


def unnamed_system(system: System) -> System:
    """The system without names: which GPUs its types are stands in constants of kernels and in flags."""
    kernels = system.kernels
    if kernels is None and system.gpus is not None:
        kernels = gpu_kernels(system.gpu_names)
    if kernels is not None:
        kernels = replace(kernels, sources=())
    nameless = {"name": "", "chiplet_names": (), "type_names": ("",) * len(system.type_names), "runs": ()}
    gpus = tuple("gpu" if name else "" for name in system.gpu_names)
    memory = replace(system.memory, names=())
    package = replace(system.package, positions=(), link_names=())
    technology = replace(system.technology, name="") if hasattr(system.technology, "name") else system.technology
    types = system.types.knowing()
    chiplets = replace(system.chiplets, present=system.chiplets.knowing().present)
    return replace(
        system, chiplets=chiplets, types=types, kernels=kernels, gpu_names=gpus, memory=memory, package=package,
        technology=technology, **nameless,
    )  # fmt: skip


def _filled_schedule(schedule: Schedule, n: int, workload: Workload) -> Schedule:
    """The schedule of a workload that was filled up: rows that fill up stand where the last one stands."""
    more, edges = workload.n_operators - n, workload.source.shape[0]

    def last(x):
        return x if x is None else _padded(x, more, "edge")

    order = None if schedule.order is None else _order(schedule.order, n, workload.n_operators)
    fusion = None if schedule.fusion is None else _padded(schedule.fusion, edges - schedule.fusion.shape[0], "constant")
    tiers = None if schedule.tiers is None else TierShares(*(last(x) for x in jax.tree.leaves(schedule.tiers)))
    return replace(
        schedule,
        assignment=last(schedule.assignment),
        order=order,
        window=last(schedule.window),
        fusion=fusion,
        tiers=tiers,
    )


def _order(order, n: int, filled: int):
    return np.concatenate([np.asarray(order), np.arange(n, filled)])


def _filled_table(table, n: int, filled: int):
    """The table with rows that nobody asks for."""
    if table is None:
        return None

    def rows(x):
        return _padded(x, filled - n, "edge") if np.ndim(x) == 2 and np.shape(x)[0] == n else x

    return eqx.tree_at(lambda t: t.column, jax.tree.map(rows, table), table.column, is_leaf=lambda x: x is None)


def _padded(x, more: int, mode: str):
    """Rows appended on the host."""
    return np.pad(np.asarray(x), ((0, more),) + ((0, 0),) * (np.ndim(x) - 1), mode=mode) if more else x


def _canonical(x, dtype):
    """An argument as the program takes it: floats of one type, integers of 32 bits."""
    if isinstance(x, jax.Array):
        kind = x.dtype
    else:
        x = np.asarray(x)
        kind = x.dtype
    if kind == jnp.bool_:
        return x
    wanted = dtype if jnp.issubdtype(kind, jnp.floating) else np.int32
    return x if kind == wanted else x.astype(wanted)
