"""Any JAX function as a workload, through its jaxpr: traced on shapes, never run."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ....workload._dtypes import precision
from ....workload._graph import Workload
from .._sketch import Sketch
from ._flat import flatten
from ._handlers import HANDLERS
from ._patterns import collapse
from ._traversal import Walker

Parameters = int | Sequence[int] | Callable[[str, Any], bool] | None


def import_jax(fn: Callable, *args: Any, name: str | None = None, parameters: Parameters = None,
               trips: int | Sequence[int] | dict[str, int] | None = None, dtype: str | None = None, **kwargs: Any) -> Workload:  # fmt: skip
    """What `fn(*args, **kwargs)` computes. It is traced, not run: arrays may be `jax.ShapeDtypeStruct`.

    **Arguments:**
    - `fn`: any function that JAX can trace, also of `jax.grad`, `jax.vmap`, `jax.jit`, or an `equinox.Module` that is called.
    - `args`, `kwargs`: trees of arrays; leaves that are no arrays (numbers, functions, None) are passed on as they are.
    - `parameters`: which arguments are stored parameters: a position or several, or a predicate of (path, leaf) with paths such
      as `[0]['w']`; default: every `equinox.Module` among the arguments. Arrays that `fn` has captured always are, where they are
      of floating point or of at most 8 bits.
    - `trips`: passes of `while` loops whose condition does not tell: one number for all, a list in order of appearance, or
      a dictionary (`{"while": 10}` for all, `{"while1": 3}` for the second).
    - `dtype`: number format of everything in floating point (`bf16`, `nvfp4`, ...); default: that of the arrays.
    - `name`: of the model; default: that of the function.

    Products and convolutions are counted exactly, in loops as often as they run (XLA's `cost_analysis` counts a body once); zeros
    put between inputs (transposed convolutions, gradients of strided ones) are skipped. A product with a parameter, seen through
    reshapes, slices and conversions, is a `gemm`, one of two activations an `attention_gemm`. What is assumed or simplified is
    an `ImportedModelWarning`: loops without a known length, branches, loops folded because they are too long to unroll (4096
    rows), primitives that are not known (data movement).

    Raises ValueError in one line: `fn` raises while it is traced (its error is the cause), an array without elements, options that
    are not allowed, nothing to compute.
    """
    if not callable(fn):
        raise ValueError(f"import_jax: fn is {fn!r}; allowed: a function")
    name = _name_of(fn) if name is None else name
    bits_of = _bits(dtype)
    paths, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
    places = [_place(path) for path, _ in paths]
    arrays = [i for i, (_, leaf) in enumerate(paths) if _is_array(leaf)]
    for i in arrays:
        shape = paths[i][1].shape
        if 0 in shape:
            raise ValueError(f"{name}: argument {places[i]} has shape {shape}; allowed: at least one element")
    is_parameter = _parameters(name, parameters, args, [(places[i], paths[i][0], paths[i][1]) for i in arrays])

    def traced(*values):
        leaves = [leaf for _, leaf in paths]
        for i, value in zip(arrays, values, strict=True):
            leaves[i] = value
        here, named = jax.tree_util.tree_unflatten(tree, leaves)
        made = fn(*here, **named)
        return [leaf for leaf in jax.tree_util.tree_leaves(made) if eqx.is_array(leaf)]

    try:
        closed = jax.make_jaxpr(traced)(*(paths[i][1] for i in arrays))
    except Exception as error:
        said = " ".join(str(error).split())
        said = said if len(said) <= 200 else f"{said[:197]}..."
        raise ValueError(f"{name}: tracing failed: {type(error).__name__}: {said}") from error

    sketch = Sketch(name)
    loops: list[str] = []
    try:
        program = flatten(closed, collapse, loops)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    walker = Walker(sketch, bits_of, _trips(name, trips, loops), HANDLERS)
    inputs = []
    for i, parameter, variable in zip(arrays, is_parameter, program.inputs, strict=True):
        aval = program.avals[variable]
        kind, bits = bits_of(aval.dtype)
        stored = parameter and kind != "key"
        inputs.append(
            sketch.leaf(places[i], aval.shape, kind, bits) if stored else sketch.outside(aval.shape, kind, bits)
        )
    return sketch.build(walker.run(program, inputs))


def _name_of(fn: Any) -> str:
    return getattr(fn, "__name__", None) or type(fn).__name__


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _place(path: tuple) -> str:
    """`[0]['w']` for a leaf of the first argument, `x['w']` for one of a keyword argument."""
    side, rest = path[0].idx, path[1:]
    place = jax.tree_util.keystr(rest)
    return place if side == 0 else place.replace(f"[{rest[0].key!r}]", str(rest[0].key), 1)


def _parameters(name: str, chosen: Parameters, args: tuple, leaves: list[tuple[str, tuple, Any]]) -> list[bool]:
    if callable(chosen):
        return [bool(chosen(place, leaf)) for place, _, leaf in leaves]
    if chosen is None:
        numbers = [i for i, arg in enumerate(args) if isinstance(arg, eqx.Module)]
    else:
        numbers = [chosen] if isinstance(chosen, int) else list(chosen)
    for n in numbers:
        if isinstance(n, bool) or not isinstance(n, int) or not -len(args) <= n < len(args):
            raise ValueError(f"{name}: parameters names argument {n!r}; allowed: positions 0 to {len(args) - 1}")
    wanted = {n % len(args) for n in numbers}
    return [path[0].idx == 0 and path[1].idx in wanted for _, path, _ in leaves]


def _trips(name: str, chosen: int | Sequence[int] | dict[str, int] | None, loops: list[str]) -> dict[str, int]:
    """Passes by loop name; "while" stands for all others."""
    if chosen is None:
        return {}
    if isinstance(chosen, dict):
        found = dict(chosen)
    elif isinstance(chosen, int):
        found = {"while": chosen}
    else:
        if len(chosen) > len(loops):
            raise ValueError(f"{name}: trips lists {len(chosen)} loops; the function has {len(loops)} while loops")
        found = dict(zip(loops, chosen, strict=False))
    for loop, times in found.items():
        if loop != "while" and loop not in loops:
            raise ValueError(f"{name}: trips names {loop!r}; allowed: {', '.join(['while', *loops])}")
        if isinstance(times, bool) or not isinstance(times, int) or times < 0:
            raise ValueError(f"{name}: trips of {loop} is {times!r}; allowed: an integer of at least 0")
    return found


def _bits(dtype: str | None) -> Callable[[Any], tuple[str, float]]:
    """What (kind, bits) an element of a NumPy, JAX or extended dtype has."""
    chosen = None if dtype is None else precision(dtype)
    if chosen and chosen.density != 1:
        raise ValueError(f"dtype is {dtype!r}; only weights may be sparse, and a function says itself what it stores")

    def bits_of(of: Any) -> tuple[str, float]:
        if jax.dtypes.issubdtype(of, jax.dtypes.extended):
            return "key", 64.0
        of = np.dtype(of)
        if jax.dtypes.issubdtype(of, np.floating):
            return "float", chosen.bits if chosen else float(jax.numpy.finfo(of).bits)
        if jax.dtypes.issubdtype(of, np.complexfloating):
            return "complex", 2 * chosen.bits if chosen else 8.0 * of.itemsize
        if jax.dtypes.issubdtype(of, np.integer):
            return "int", float(jax.numpy.iinfo(of).bits)
        return "bool", 8.0

    return bits_of
