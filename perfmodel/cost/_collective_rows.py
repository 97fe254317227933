"""Columns of the cost table that rows of collective kinds fill: what they take on the machine that the system is."""

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ..hardware import System
from ..workload import COLLECTIVE_KINDS, KINDS, Operators
from ._collectives import CollectiveCost, collective_cost
from ._columns import CostTable, with_sub_batch
from ._topology import Mesh, Topology, mesh_of, topology
from .kernels._collective import COLLECTIVES, KERNELS, measured_s
from .kernels._columns import as_gpu
from .kernels._constants import constants


def collective_row_s(operators: Operators, system: System) -> Float[Array, "L K"]:
    """Seconds of every row of a collective kind between devices of each of the `K` chiplet types; 0 of other rows and of one rank.

    Between GPUs of a package the fitted kernels (shipped constants); elsewhere, and between packages, `collective_cost`.
    """
    return collective_rows(operators, system).seconds


class Ways(eqx.Module):
    """What a program without names has to know of a system whose devices work together: `mesh` (None: a switch), and constants of measured
    collectives, (family, variant) -> leaves `[K]`, where types are GPUs."""

    mesh: Mesh | None
    kernels: dict[tuple[str, str], Any] | None


def has_collectives(operators: Operators) -> bool:
    """Whether any row is a collective, as far as one can see: True where kinds are traced."""
    return isinstance(operators.kind, Tracer) or bool(np.any(np.asarray(operators.is_collective)))


def with_ways(system: System) -> System:
    """The system with its `Ways`: tables of it have columns of collectives."""
    return system if system.ways is not None else replace(system, ways=_ways(system))


def _ways(system: System) -> Ways:
    package, names = system.package, system.gpu_names
    kernels = None
    if system.gpus is not None and any(names):
        each = [_constants(name, str(jnp.result_type(float))) for name in names]
        kernels = jax.tree.map(lambda *x: np.stack(x), *each)
    return Ways(mesh_of(package.positions) if package.link_names else None, kernels)


def collective_rows(operators: Operators, system: System) -> CollectiveCost:
    """What the rows take and move, leaves `[L, K]`."""
    known = system.ways if system.ways is not None else _ways(system)
    routes = topology(system, known.mesh)
    names = system.gpu_names or ("",) * len(system.type_names)
    if known.kernels is None:
        one = _rows(operators, routes, None)
        return jax.tree.map(lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], len(names))), one)
    found = [_rows(operators, *_of_type(system, known, routes, k)) for k in range(len(names))]
    return jax.tree.map(lambda *x: jnp.stack(x, axis=1), *found)


def with_collectives(table: CostTable, operators: Operators, system: System, sub_batch, by_type: bool) -> CostTable:
    """The table with columns of collectives: seconds of links and launches, energy of links and of the lanes that add up.

    A system that does not know its ways (`with_ways`) was asked for no collective: the table as it is."""
    if system.ways is None:
        return table
    rows = with_sub_batch(operators, sub_batch)
    found, chips = collective_rows(rows, system), system.types
    if not by_type:
        kind = jnp.asarray(system.kind)
        found, chips = jax.tree.map(lambda x: x[:, kind], found), system.chiplets
    mine = jnp.asarray(rows.is_collective)[:, None]
    lanes = jnp.where(mine, jnp.asarray(rows.lane_ops)[:, None], 0.0) * jnp.asarray(chips.lane_op_j)[None, :]
    # a byte between packages is taken to cost what a link inside costs: systems state no other energy
    wires = (found.hop_bytes + found.adapter_bytes) * jnp.asarray(system.package.hop_j_per_byte)
    dtype = table.compute_s.dtype

    def put(old, new):
        return jnp.where(mine, jnp.asarray(new, dtype), old)

    return eqx.tree_at(
        lambda t: (t.compute_s, t.transfer_s, t.fill_s, t.launch_s, t.moving_s, t.onchip_j),
        table,
        (
            put(table.compute_s, found.seconds),
            put(table.transfer_s, 0.0),
            put(table.fill_s, 0.0),
            put(table.launch_s, jnp.minimum(table.launch_s, found.seconds)),
            put(table.moving_s, 0.0),
            put(table.onchip_j, lanes + wires),
        ),
    )


def _rows(operators: Operators, ways: Topology, inside_s) -> CollectiveCost:
    """All kinds of every row, of which one is taken; leaves `[L]`."""
    message, ranks, step, kinds = (
        jnp.asarray(x) for x in (operators.message_bytes, operators.ranks, operators.rank_step, operators.kind)
    )
    total: Any = None
    for kind in COLLECTIVE_KINDS:
        inside = inside_s if kind in COLLECTIVES else None
        cost = collective_cost(kind, message, ranks, ways, step=step, inside_s=inside)
        here = kinds == KINDS.index(kind)
        cost = jax.tree.map(lambda x, here=here: jnp.where(here, x, 0.0), cost)
        total = cost if total is None else jax.tree.map(jnp.add, total, cost)
    return total


def _of_type(system: System, known: Ways, routes: Topology, k: int) -> tuple[Topology, Any]:
    """(ways, measured collectives) of the chiplet type k."""
    if not system.gpu_names[k]:
        return routes, None
    sheet = jax.tree.map(lambda x: jnp.asarray(x)[k], system.gpus)
    gpu = as_gpu(sheet, jax.tree.map(jnp.asarray, system.types).pick(k), jax.tree.map(jnp.asarray, system.memory))
    alone = system.package.hops.shape[0] == 1
    link = gpu.link_bytes_per_s if alone else routes.link_bytes_per_s  # one alone: as its sheet says
    gpu = eqx.tree_at(lambda g: g.link_bytes_per_s, gpu, link)
    kernels = jax.tree.map(lambda x: jnp.asarray(x)[k], known.kernels)
    return eqx.tree_at(lambda t: t.link_bytes_per_s, routes, link), partial(measured_s, kernels, gpu)


@lru_cache(maxsize=64)
def _constants(name: str, _dtype: str) -> dict[tuple[str, str], Any]:
    with jax.ensure_compile_time_eval():  # may be called while a function is traced, and is cached
        look_up = constants()
        # types that are no GPUs take any constants: nobody asks them
        return {key: jax.tree.map(np.asarray, look_up(name, "", *key)) for key in KERNELS}
