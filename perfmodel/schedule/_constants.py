"""The hardware of one candidate as scalars, the form in which the walk reads it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..cost import CostTable
from ..hardware import Chiplets, System


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
    memory_s_per_byte: jax.Array
    memory_s: tuple  # latency of memory seen from each chiplet
    direct: bool  # memory traffic crosses no link


def make_constants(system: System, table: CostTable | None, dtype) -> Constants:
    """Constants of a system and of the columns of a table."""
    n, package = system.n_chiplets, jax.tree.map(lambda x: jnp.asarray(x, dtype), system.package)
    chiplets = tuple(
        jax.tree.map(lambda x, d=d: x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(dtype), each)
        for d in range(n)
        for each in [jax.tree.map(lambda x, d=d: jnp.asarray(x)[d], system.chiplets)]
    )
    latency_s = jnp.asarray(system.memory.latency_s, dtype)[0]
    only_gpus = system.gpus is not None and all(system.gpu_names)
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
        # the seconds of GPU kernels hold their memory traffic already
        memory_s_per_byte=(0.0 if only_gpus else 1.0)
        / jnp.asarray(system.memory.bytes_per_s * system.memory.share, dtype)[0],
        memory_s=tuple(latency_s + package.memory_hops[d] * package.hop_s for d in range(n)),
        direct=package.direct,
    )
