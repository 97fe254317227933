"""The hardware of one candidate as scalars, the form in which the walk reads it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..cost import CostTable
from ..hardware import Chiplets, System
from ._rates import Paces, access_s_per_byte, one_tier
from ._tiers import by_chiplet


class Constants(NamedTuple):
    """Tuples run over chiplets."""

    chiplets: tuple[Chiplets, ...]  # each with scalar fields
    buffer_bytes: tuple
    buffer_j_per_byte: tuple
    column: tuple | None  # column of the table of each chiplet, or its mixture of columns; None: column d is chiplet d
    n_columns: int
    hops: tuple  # [a][b]
    hop_s: jax.Array
    network_s_per_byte: jax.Array
    memory_s: tuple  # latency of memory seen from each chiplet; of several tiers the way alone
    n_tiers: int
    spread: (
        bool  # it matters which chiplet's bytes go to and from memory: they cross links, or it has memory of its own
    )
    paces: Paces | None  # of all rows where there is one tier; None: they are in the rows


def make_constants(system: System, table: CostTable | None, dtype) -> Constants:
    """Constants of a system and of the columns of a table."""
    n, package = system.n_chiplets, jax.tree.map(lambda x: jnp.asarray(x, dtype), system.package)
    chiplets = tuple(
        jax.tree.map(lambda x, d=d: x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(dtype), each)
        for d in range(n)
        for each in [jax.tree.map(lambda x, d=d: jnp.asarray(x)[d], system.chiplets)]
    )
    alone = one_memory(system)
    read_s, write_s = access_s_per_byte(system, only_gpus(system), dtype)
    latency_s = jnp.asarray(system.memory.latency_s, dtype)[0] if alone else 0.0
    column, n_columns = None, n
    if table is not None and table.column is not None:
        kind, n_columns = jnp.asarray(table.column), table.working_bytes.shape[1]
        mixed = jnp.issubdtype(kind.dtype, jnp.floating)  # D x K: every chiplet a mixture of types
        column = tuple(tuple(kind[d]) if mixed else kind[d].astype(dtype) for d in range(n))
    return Constants(
        chiplets=chiplets,
        buffer_bytes=tuple(chip.buffer_bytes for chip in chiplets),
        buffer_j_per_byte=tuple(chip.buffer_j_per_byte for chip in chiplets),
        column=column,
        n_columns=n_columns,
        hops=tuple(tuple(package.hops[a, b] for b in range(n)) for a in range(n)),
        hop_s=package.hop_s,
        network_s_per_byte=1.0 / jnp.minimum(package.link_bytes_per_s, package.port_bytes_per_s),
        memory_s=tuple(latency_s + package.memory_hops[d] * package.hop_s for d in range(n)),
        n_tiers=system.memory.n_tiers,
        spread=not package.direct or by_chiplet(system),
        paces=one_tier(read_s[0], write_s[0]) if alone else None,
    )


def one_memory(system: System) -> bool:
    """Whether all memory is one tier that all chiplets share."""
    return system.memory.n_tiers == 1 and not by_chiplet(system)


def only_gpus(system: System) -> bool:
    """Whether all chiplets are GPUs, whose kernels' seconds hold the traffic of the first tier already; what lives in another is
    staged there."""
    return system.gpus is not None and all(system.gpu_names)
