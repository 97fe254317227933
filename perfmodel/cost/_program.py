"""One compiled program for many workloads and systems: what differs between two calls without need is taken away.

Names leave (nothing computes with a name), sizes of a workload are filled up to round ones (`fill_up`; rows with a `count` of 0), numbers
get the types of the computation. So a renamed system, or another model of the same size, runs the program that is there.

Called by itself a program is compiled quickly rather than well: it runs once, in milliseconds, and compiling it is what one waits for.
Inside another trace (`jit`, `vmap`, `grad`, `scan` ...) the same function is an ordinary jitted one.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..hardware import System
from ..workload import Workload, fill_up, round_size
from ._collective_rows import has_collectives, with_ways
from .kernels._kernel_set import gpu_kernels

try:
    from jax.core import trace_ctx
except ImportError:  # no public name for it in some versions
    from jax._src.core import trace_ctx

# What takes most of the time of compiling on a CPU and saves nothing that a single candidate could notice (benchmarks/start_up.py).
_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


@cache
def known_options(**options) -> dict | None:
    """Those of XLA's options that this version has; None for none."""

    def known(some: dict) -> bool:
        try:
            jax.jit(lambda: np.float32(0), compiler_options=some).lower().compile()
        except Exception as error:  # XLA says it in words alone
            if "No such compile option" in str(error):
                return False
            raise
        return True

    if known(options):
        return options
    return {name: value for name, value in options.items() if known({name: value})} or None


def alone() -> bool:
    """Whether the call is by itself, not inside another trace (where a program takes no options of its own)."""
    return trace_ctx.is_top_level()


def run_compiled(function: Callable, workload: Workload, system: System, *others, **static) -> Any:
    """`function(workload, system, *others, **static)`, compiled once for all that are alike. `workload` has no names and, where it is
    concrete, is filled up; `others` must have been filled up by the caller (`filled_sizes`, `longer`); `static` is hashable."""
    dtype, top = jnp.result_type(float), alone()
    made = _on_device if top else _on_host
    others = jax.tree.map(lambda x: canonical(x, dtype), others)
    run = _program(function, jax.default_backend() if top else "", tuple(sorted(static.items())))
    strip = _unnamed_with_ways if has_collectives(workload.operators) else unnamed_system
    return run(_once(made, _filled, workload, dtype), _once(made, strip, system, dtype), *others)


def filled_sizes(workload: Workload) -> tuple[int, int]:
    """Rows and edges of the workload that `run_compiled` hands on."""
    rows, edges = workload.n_operators, workload.source.shape[0]
    return (round_size(rows), round_size(edges)) if _concrete(workload) else (rows, edges)


@cache
def _program(function, backend: str, static: tuple):
    def run(*arguments):
        return function(*arguments, **dict(static))

    run.__name__ = function.__name__.strip("_")
    return jax.jit(run, compiler_options=known_options(**_QUICK) if backend == "cpu" else None)


def unnamed(workload: Workload) -> Workload:
    """The workload without names of operators and models."""
    return replace(workload, names=(), model_names=(), mix="")


def unnamed_system(system: System) -> System:
    """The system without names: which GPUs its types are stands in constants of kernels and in flags."""
    kernels = system.kernels
    if kernels is None and system.gpus is not None:
        kernels = gpu_kernels(system.gpu_names)
    types = system.types.knowing()
    return replace(
        system,
        chiplets=system.chiplets.knowing(),
        types=types,
        kernels=None if kernels is None else replace(kernels, sources=()),
        memory=replace(system.memory, names=()),
        package=replace(system.package, positions=(), link_names=()),
        technology=replace(system.technology, name=""),
        gpu_names=tuple("gpu" if name else "" for name in system.gpu_names),
        name="",
        chiplet_names=(),
        type_names=("",) * len(system.type_names),
        runs=(),
    )


def _unnamed_with_ways(system: System) -> System:
    return unnamed_system(with_ways(system))


def _filled(workload: Workload) -> Workload:
    return fill_up(unnamed(workload)) if _concrete(workload) else unnamed(workload)


def _concrete(tree) -> bool:
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _on_host(make, thing, dtype):
    return jax.tree.map(lambda x: canonical(x, dtype), make(thing))


def _on_device(make, thing, dtype):
    return jax.device_put(_on_host(make, thing, dtype))


_made: dict = {}


def _once(how, make, thing, dtype):
    """`how(make, thing, dtype)`, made once of a thing that nobody can change: its arrays are read-only, as those that we load are."""
    if any(isinstance(x, Tracer) or isinstance(x, np.ndarray) and x.flags.writeable for x in jax.tree.leaves(thing)):
        return how(make, thing, dtype)
    key = how, make, id(thing), dtype, jax.default_backend()
    if key not in _made:
        _made[key] = how(make, thing, dtype)
        weakref.finalize(thing, _made.pop, key, None)
    return _made[key]


def longer(x, n: int, mode: str = "edge"):
    """`x` with rows appended until there are `n`: copies of the last one, or zeros (`constant`)."""
    more = n - np.shape(x)[0]
    if not more:
        return x
    pad = jnp.pad if isinstance(x, Tracer) else np.pad
    return pad(x if isinstance(x, Tracer) else np.asarray(x), ((0, more),) + ((0, 0),) * (np.ndim(x) - 1), mode=mode)


def canonical(x, dtype):
    """An argument as a program takes it: floats of one type, integers of 32 bits."""
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
    if x.dtype == jnp.bool_:
        return x
    wanted = dtype if jnp.issubdtype(x.dtype, jnp.floating) else np.dtype(np.int32)
    return x if x.dtype == wanted else x.astype(wanted)
