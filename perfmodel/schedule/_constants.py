"""The hardware of one candidate in the form in which the traversal reads it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..cost import CostTable
from ..hardware import Chiplets, System
from ._access import Accesses, access_s_per_byte, one_tier
from ._placement import vector
from ._tiers import by_chiplet

MOST_SCALARS = 8  # chiplets that a batch keeps as scalars; more are arrays
_MOST_BITS = 31  # links that fit a mask


class Ways(NamedTuple):
    """Links between chiplets, and from and to memory where that crosses any. `K` links."""

    link_s_per_byte: jax.Array
    port_s_per_byte: jax.Array
    between: Any  # links of the way from a to b: bits (tuples [a][b]), or an array [D, D, K]
    read: Any  # of the way from memory to d: bits (a tuple), or [D, K]; None where memory is everywhere direct
    write: Any
    server: Any  # chiplet whose interface serves d; values over chiplets
    far: Any  # 1.0 where that is another chiplet
    n_links: int


class Constants(NamedTuple):
    """Values over chiplets are tuples or arrays, as `scalars` says (`_placement.py`)."""

    scalars: bool
    n_chiplets: int
    chiplets: Any  # of `scalars` a tuple of chiplets with scalar fields, else one with fields [D]
    buffer_bytes: Any
    buffer_j_per_byte: Any
    column: Any  # column of the table of each chiplet, or its mixture of columns; None: column d is chiplet d
    n_columns: int
    hops: Any  # [a][b]
    hop_s: jax.Array
    memory_s: Any  # latency of memory seen from each chiplet; of several tiers the way alone
    n_tiers: int
    own: tuple[bool, ...]  # tiers of which each chiplet has its own
    read_s: tuple  # of each tier, seconds a byte
    write_s: tuple
    spread: (
        bool  # it matters which chiplet's bytes go to and from memory: they cross links, or it has memory of its own
    )
    ways: Ways | None  # None: a single chiplet
    access: Accesses | None  # of all rows where there is one tier; None: they are in the rows


def make_constants(system: System, table: CostTable | None, dtype, *, scalars: bool) -> Constants:
    """Constants of a system and of the columns of a table. `scalars`: for a batch of hard placements on a CPU."""
    n, package = system.n_chiplets, jax.tree.map(lambda x: jnp.asarray(x, dtype), system.package)
    chips = jax.tree.map(
        lambda x: jnp.asarray(x) if jnp.issubdtype(jnp.result_type(x), jnp.integer) else jnp.asarray(x, dtype),
        system.chiplets,
    )
    alone = one_memory(system)
    read_s, write_s = access_s_per_byte(system, only_gpus(system), dtype)
    latency_s = jnp.asarray(system.memory.latency_s, dtype)[0] if alone else jnp.zeros((), dtype)
    column, n_columns = None, n
    if table is not None and table.column is not None:
        kind, n_columns = jnp.asarray(table.column), table.working_bytes.shape[1]
        mixed = jnp.issubdtype(kind.dtype, jnp.floating)  # D x K: every chiplet a mixture of types
        column = kind if mixed else kind.astype(dtype)
        if scalars:
            column = tuple(tuple(column[d]) if mixed else column[d] for d in range(n))
    tiers = range(system.memory.n_tiers)
    hops = package.hops
    return Constants(
        scalars=scalars,
        n_chiplets=n,
        chiplets=_one_each(chips, n) if scalars else chips,
        buffer_bytes=vector(chips.buffer_bytes, scalars),
        buffer_j_per_byte=vector(chips.buffer_j_per_byte, scalars),
        column=column,
        n_columns=n_columns,
        hops=tuple(tuple(hops[a, b] for b in range(n)) for a in range(n)) if scalars else hops,
        hop_s=package.hop_s,
        memory_s=vector(latency_s + package.memory_hops * package.hop_s, scalars),
        n_tiers=system.memory.n_tiers,
        own=tuple(system.memory.is_own(t) and by_chiplet(system) for t in tiers),
        read_s=tuple(read_s[t] for t in tiers),
        write_s=tuple(write_s[t] for t in tiers),
        spread=not package.direct or by_chiplet(system),
        ways=_ways(package, n, scalars, dtype) if n > 1 else None,
        access=one_tier() if alone else None,
    )


def _one_each(chips: Chiplets, n: int) -> tuple[Chiplets, ...]:
    return tuple(jax.tree.map(lambda x, d=d: x[d], chips) for d in range(n))


def _ways(package, n: int, scalars: bool, dtype) -> Ways:
    n_links = package.route.shape[0]
    between, read, write = jnp.moveaxis(package.route, 0, -1), package.memory_route.T, package.memory_back.T
    if scalars:

        def bits(on):  # of links that are on, as one integer
            return jnp.sum(on.astype(jnp.int32) << jnp.arange(n_links, dtype=jnp.int32), axis=-1, dtype=jnp.int32)

        between, read, write = bits(between), bits(read), bits(write)
        between = tuple(tuple(between[a, b] for b in range(n)) for a in range(n))
        read, write = vector(read, True), vector(write, True)
    server = jnp.argmax(package.serves, axis=0).astype(jnp.int32)
    direct = package.direct
    return Ways(
        link_s_per_byte=1.0 / package.link_bytes_per_s,
        port_s_per_byte=1.0 / package.port_bytes_per_s,
        between=between,
        read=None if direct else read,
        write=None if direct else write,
        server=None if direct else vector(server, scalars),
        far=None if direct else vector(jnp.sum(package.serves, axis=0), scalars),
        n_links=n_links,
    )


def few_enough(system: System) -> bool:
    """Whether a batch of candidates may keep values over chiplets as scalars, and links as bits."""
    return system.n_chiplets <= MOST_SCALARS and system.package.route.shape[0] <= _MOST_BITS


def one_memory(system: System) -> bool:
    """Whether all memory is one tier that all chiplets share."""
    return system.memory.n_tiers == 1 and not by_chiplet(system)


def only_gpus(system: System) -> bool:
    """Whether all chiplets are GPUs, whose kernels' seconds hold the traffic of the first tier already; what lives in another is
    staged there."""
    return system.gpus is not None and all(system.gpu_names)
