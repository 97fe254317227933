"""Cycles of Gemmini in RTL (FireSim) for a given mapping: transfers counted by the loop-nest model, then four mechanisms.

Timeloop takes the busier of array and memories at full speed. The RTL differs in what follows; sizes without a
parameter are those of Gemmini's sources (LoopConv, ExecuteController, DMA; ucb-bar/gemmini, BSD-3-Clause):

- A weight block (rows x columns of the array) streams one instruction of at most 16 output pixels of an image row at a time. Its
  first instruction takes the 16 rows that preload the block, others at least 4 (writes to one accumulator address keep that
  distance); and the controller issues one instruction pair every `instruction_cycles`: narrow tiles wait for issue.
- The DMA asks for at most 64 B of one row of a tile at a time (a pixel's channels, or one weight row's filters), and each request
  takes `request_cycles` of its window however short it is: narrow filter tiles waste the bus. Partial sums come back 4 B wide.
- Results leave through the scaling unit, 64 B of a pixel in `store_cycles`.
- The shorter of array and transfers is hidden but for `exposed_share`; nothing hides the first tile.

A tile is loaded whenever the loop-nest model refills it (no halo kept: the software reloads whole tiles).
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._names import unknown_name
from ..._numerics import ceil_divide
from ...cost import DIMS, OURS, LoopNest, Problem, counts
from ...hardware import Hierarchy
from .._comparison import Comparison
from .._table_file import read_table
from .._timeloop import GEMMINI_COLUMNS, gemmini_rows, timeloop_cost

_PES = 16
_REQUEST_BYTES, _SUM_BYTES, _LEAST_ROWS = 64, 4, 4
_DRAM = {"W": 2, "I": 1, "O": 1}  # place of DRAM in each chain of `hardware.gemmini`
_READ_DOWN, _WRITE_UP = 0, 1  # hardware.DIRECTIONS
_BEND = 0.03
_COUNTED = OURS._replace(halo="none")
COLUMNS = {
    **GEMMINI_COLUMNS, "layer": str, "timeloop_cycles": float, "timeloop_energy_uJ": float, "rtl_cycles_given_mapping": float,
}  # fmt: skip


class GemminiRtl(NamedTuple):
    """What the RTL adds. The defaults are `fit` to all 108 rows of tests/data/gemmini_rtl.csv; their standard errors over 200
    resamplings of the layers are 0.7, 1.8 and 13 cycles and 0.25: the share is hardly determined, the rest is.

    - `instruction_cycles`: from one array instruction to the next.  `request_cycles`: of one DMA request of up to 64 B.
    - `store_cycles`: of up to 64 B of results.  `exposed_share`: of the shorter of array and transfers that is not hidden.
    """

    instruction_cycles: Float[Array, ""] | float = 8.72
    request_cycles: Float[Array, ""] | float = 6.89
    store_cycles: Float[Array, ""] | float = 40.6
    exposed_share: Float[Array, ""] | float = 0.104


class RtlWork(NamedTuple):
    """What a mapping makes the machine do; one value a row, `[n]` or a scalar.

    - `blocks`: weight blocks in all; each takes `block_rows` cycles of streaming and `block_instructions` instructions.
    - `loads, stores`: DMA requests in all; `first_loads`: those before the array can start.
    """

    blocks: Float[Array, "*n"]
    block_rows: Float[Array, "*n"]
    block_instructions: Float[Array, "*n"]
    loads: Float[Array, "*n"]
    stores: Float[Array, "*n"]
    first_loads: Float[Array, "*n"]


def compare(path: str | Path, parameters: str | Path | None = None) -> list[Comparison]:
    """RTL cycles by size of the filter, and Timeloop's own cycles and energy of the same mapping by our count with its conventions.

    **Arguments:** `parameters`: a JSON object with some or all fields of `GemminiRtl`; others keep their defaults.

    Raises ValueError in one line naming file, column and row (or field)."""
    rows = read_table(path, COLUMNS)
    rtl = GemminiRtl() if parameters is None else read_parameters(parameters)
    with jax.enable_x64(True):
        cycles = np.asarray(_cycles(work_of(path, rows), rtl))
        timeloop = timeloop_cost(*gemmini_rows(path, rows, np.full(len(rows["layer"]), _PES)))
        group = [f"{r}x{s}" for r, s in zip(rows["R"], rows["S"], strict=True)]
        return [
            Comparison("rtl_cycles", "cycles", cycles, rows["rtl_cycles_given_mapping"], group),
            Comparison("timeloop_cycles", "cycles", np.asarray(timeloop.cycles), rows["timeloop_cycles"], group, slack=1.0),
            Comparison("timeloop_energy_j", "J", np.asarray(timeloop.total_j), rows["timeloop_energy_uJ"] * 1e-6, group, 1e-4),
        ]  # fmt: skip


def work_of(path, rows: dict[str, np.ndarray]) -> RtlWork:
    """Every row's work, `[n]`. ValueError naming the row where its mapping cannot be used."""
    return _work(*gemmini_rows(path, rows, np.full(len(rows["layer"]), _PES)))


def read_parameters(path: str | Path) -> GemminiRtl:
    """A `GemminiRtl` from a JSON object of some of its fields. ValueError in one line naming file and field."""
    try:
        given = json.loads(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path}: a {type(given).__name__}; needed: an object of {', '.join(GemminiRtl._fields)}")
    for name, value in given.items():
        if name not in GemminiRtl._fields:
            raise unknown_name(f"{path}: parameter", name, GemminiRtl._fields)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
            raise ValueError(f"{path}: {name} is {value!r}; allowed: a positive number")
    return GemminiRtl(**given)


def rtl_work(problem: Problem, nest: LoopNest, machine: Hierarchy) -> RtlWork:
    """The work of a mapping on `hardware.gemmini` (trailing axes: many), transfers as the loop-nest model counts them."""
    found = counts(problem, nest, machine, _COUNTED)
    times = found.times
    inside = nest.level[0] < _DRAM["W"]  # DRAM's loops are the same for all operands
    tile = {d: _extent(nest, inside, DIMS.index(d)) for d in "KCPQRS"}
    tiles = jnp.prod(jnp.where(inside, 1.0, nest.factor), axis=0)
    rows, columns = machine.array[0], machine.array[1]

    whole = jnp.floor(tile["P"] / rows)
    rest = tile["P"] - whole * rows
    narrow = jnp.where(rest > 0, jnp.maximum(rest, _LEAST_ROWS), 0.0)
    stream = (whole * rows + narrow) * tile["Q"]
    first = jnp.where(whole > 0, rows, narrow)
    blocks = ceil_divide(tile["K"], columns) * ceil_divide(tile["C"], rows) * tile["R"] * tile["S"]

    pixels = found.amount[1, _DRAM["I"], _READ_DOWN] / tile["C"]
    weights = tile["R"] * tile["S"] * tile["C"] * ceil_divide(tile["K"], _REQUEST_BYTES)
    inputs = pixels * ceil_divide(tile["C"], _REQUEST_BYTES)
    out = tile["P"] * tile["Q"]
    returns = out * ceil_divide(tile["K"] * _SUM_BYTES, _REQUEST_BYTES)
    return RtlWork(
        blocks=tiles * blocks,
        block_rows=rows + stream - first,
        block_instructions=ceil_divide(tile["P"], rows) * tile["Q"],
        loads=weights * times[0, _DRAM["W"], _READ_DOWN]
        + inputs * times[1, _DRAM["I"], _READ_DOWN]
        + returns * times[2, _DRAM["O"], _READ_DOWN],
        stores=out * ceil_divide(tile["K"], _REQUEST_BYTES) * times[2, _DRAM["O"], _WRITE_UP],
        first_loads=weights + inputs,
    )


def rtl_cycles(work: RtlWork, rtl: GemminiRtl) -> Float[Array, "*n"]:
    """Cycles of the work; differentiable in the parameters and in the work."""
    array = work.blocks * jnp.maximum(work.block_rows, rtl.instruction_cycles * work.block_instructions)
    transfers = rtl.request_cycles * work.loads + rtl.store_cycles * work.stores
    hidden = rtl.exposed_share * jnp.minimum(array, transfers)
    return jnp.maximum(array, transfers) + hidden + rtl.request_cycles * work.first_loads


def fit(work: RtlWork, cycles: Float[Array, "n"], weight: Float[Array, "n"], steps: int = 400) -> GemminiRtl:
    """Parameters for measured cycles: Adam on their logarithms (the share's logit) through `rtl_cycles`. `weight` of each row: 0
    leaves it out. The loss, sqrt(log-error^2 + 0.03^2), does not bend to the few rows whose mechanism is missing."""

    def loss(free):
        error = jnp.log(rtl_cycles(work, _bounded(free)) / cycles)
        return jnp.sum(weight * jnp.sqrt(error**2 + _BEND**2)) / jnp.sum(weight)

    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps, 0.01))

    def step(state, _):
        free, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(free), moments)
        return (optax.apply_updates(free, updates), moments), None

    guess = GemminiRtl(*(jnp.asarray(x, cycles.dtype) for x in (8.0, 8.0, 16.0, 0.2)))  # 8 B a cycle, 4 B out, a fifth
    start = jax.tree.map(jnp.log, guess)._replace(exposed_share=jax.scipy.special.logit(guess.exposed_share))
    (free, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, steps)
    return _bounded(free)


def held_out(rows: dict[str, np.ndarray], work: RtlWork, seeds: Sequence[int]) -> Float[np.ndarray, "splits n"]:
    """|predicted / measured - 1| with parameters fitted on a random half of the *layers*, one split a seed; NaN on the rows fitted."""
    layers, of = np.unique(rows["layer"], return_inverse=True)
    fitted = np.stack([np.random.default_rng(s).permutation(len(layers)) < len(layers) // 2 for s in seeds])[:, of]
    measured = jnp.asarray(rows["rtl_cycles_given_mapping"])
    found = _fits(work, measured, jnp.asarray(fitted, measured.dtype))
    predicted = jax.vmap(partial(rtl_cycles, work))(found)
    return np.where(fitted, np.nan, np.abs(np.asarray(predicted / measured) - 1))


def uncertainty(
    rows: dict[str, np.ndarray], work: RtlWork, samples: int = 200, seed: int = 0
) -> tuple[GemminiRtl, GemminiRtl]:
    """(fit to all rows, standard error of each parameter over resamplings of the layers with replacement)."""
    layers, of = np.unique(rows["layer"], return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(layers), np.full(len(layers), 1 / len(layers)), samples)[:, of]
    weights = np.concatenate([np.ones((1, len(of))), drawn])
    found = _fits(work, jnp.asarray(rows["rtl_cycles_given_mapping"]), jnp.asarray(weights))
    return jax.tree.map(lambda x: x[0], found), jax.tree.map(lambda x: jnp.std(x[1:]), found)


def _bounded(free: GemminiRtl) -> GemminiRtl:
    return jax.tree.map(jnp.exp, free)._replace(exposed_share=jax.nn.sigmoid(free.exposed_share))


def _extent(nest: LoopNest, inside, dim: int):
    held = jnp.prod(jnp.where(inside & (nest.dim == dim), nest.factor, 1.0), axis=0)
    return held * jnp.prod(jnp.where(nest.spatial_dim == dim, nest.spatial_factor, 1.0), axis=0)


_work, _cycles = jax.jit(rtl_work), jax.jit(rtl_cycles)
_fits = jax.jit(jax.vmap(fit, in_axes=(None, None, 0)))
