"""Many points of operation in one call: the grid of formats x parallelism x batch x context, one jitted program of nested vmaps.

The nesting is what makes it fast: a product's time depends on formats, ranks and batch alone, so XLA computes it once for all
contexts; only what depends on the context is computed for every point.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._names import unknown_name
from ..cost._device import Machine
from ..cost._formats import Formats
from ..models._decoders import Decoder
from ._kernel_time import LIBRARY, Library
from ._llm import POINT, Point, Serving, serve

AXES = ("formats", "parallel", "batch", "context")
FIGURES = ("ttft_s", "tpot_s", "tokens_per_s", "tokens_per_s_per_device", "mbu", "mfu", "fits", "energy_j_per_token")
_DEGREES = 4  # tensor, pipeline, expert, data


def sweep(
    machine: Machine,
    model: Decoder,
    *,
    formats: Formats,
    parallel: Float[Array, "P 4"],
    batch: Float[Array, "B"],
    context: Float[Array, "C"],
    phase: str = "decode",
    point: Point = POINT,
    figures: tuple[str, ...] = FIGURES,
    density: float = 1.0,
    library: Library = LIBRARY,
    offload: bool = False,
) -> dict[str, Float[Array, "F P B C"]]:
    """Figures (names of `Serving`) of every combination, each `[F, P, B, C]`; axes are `AXES`.

    **Arguments:** `formats`: of `stack_formats`, `F` of them.  `parallel`: rows of tensor, pipeline, expert and data degrees.
    `context`: of decode tokens in the cache, otherwise tokens of the prompt.  `point`: everything else of a point.

    Raises ValueError for an unknown figure or phase.
    """
    for name in figures:
        if name not in Serving._fields:
            raise unknown_name("figure", name, Serving._fields)
    degrees = jnp.asarray(parallel, float)
    if degrees.ndim != 2 or degrees.shape[1] != _DEGREES:
        raise ValueError(
            f"parallel has shape {degrees.shape}; allowed: rows of 4, tensor, pipeline, expert and data degrees"
        )
    of_context = "context" if phase == "decode" else "tokens"
    return _grid(machine, formats, degrees, jnp.asarray(batch, float), jnp.asarray(context, float), point, model, phase, of_context,
                 tuple(figures), density, library, offload)  # fmt: skip


@partial(eqx.filter_jit)
def _grid(
    machine, formats, parallel, batch, context, point, model, phase, of_context, figures, density, library, offload
) -> dict[str, Any]:
    def one(formed, degrees, size, length):
        at = point._replace(batch=size, tensor=degrees[0], pipeline=degrees[1], expert=degrees[2], data=degrees[3])
        at = at._replace(**{of_context: length})
        found = serve(machine, model, formed, at, phase=phase, density=density, library=library, offload=offload)
        return {name: getattr(found, name) for name in figures}

    every = one
    for axis in reversed(range(len(AXES))):
        every = jax.vmap(every, [0 if i == axis else None for i in range(len(AXES))])
    return every(formats, parallel, batch, context)
