"""Whole executions: every operator a kernel of its own, or groups streamed; what each takes, moves and launches."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._fabric import Fabric
from ._groups import Group, groups_of
from ._pipeline import GroupCost, group_cost
from ._program import Program

EXECUTIONS = ("kernels", "streaming")


class Execution(NamedTuple):
    """Of one pass on one socket, all sockets alike. Seconds of the parts are sums over kernels, of which the longest counts.

    - `time_s`: kernels one after another.  `launch_s, compute_s, memory_s, link_s`; `memory_bytes`.
    - `units`: share of units that kernels use, averaged over their time.  `bandwidth`: share of the memory's bandwidth reached.
    - `fits`: 1 where all kernels run.
    """

    time_s: Float[Array, ""]
    launch_s: Float[Array, ""]
    compute_s: Float[Array, ""]
    memory_s: Float[Array, ""]
    link_s: Float[Array, ""]
    memory_bytes: Float[Array, ""]
    units: Float[Array, ""]
    bandwidth: Float[Array, ""]
    fits: Float[Array, ""]


def spilled_share(p: Program, fabric: Fabric):
    """Share of what a socket stores that its first tier cannot hold, and that lies in the next."""
    need = p.stored_bytes + p.live_bytes
    return jnp.clip(1.0 - fabric.memory_bytes / jnp.maximum(need, 1.0), 0.0, 1.0)


def unfused(p: Program) -> list[list[int]]:
    """Every row a kernel of its own."""
    return [[row] for row in range(p.n_rows)]


def groups(p: Program, members) -> Group:
    """`groups_of`, as JAX arrays."""
    return jax.tree.map(
        lambda x: jnp.asarray(x, None if x.dtype.kind == "i" else jnp.result_type(float)), groups_of(p, members)
    )


@eqx.filter_jit
def execution(kernels: Group, fabric: Fabric, *, spilled=0.0, smooth: bool = False) -> Execution:
    """What stacked kernels take one after another. Differentiable in the fabric (whole units of stages held fixed, unless `smooth`)."""
    cost: GroupCost = jax.vmap(lambda g: group_cost(g, fabric, spilled=spilled, smooth=smooth))(kernels)
    total = jnp.sum(cost.time_s)
    used = jnp.sum(cost.units, axis=-1) / fabric.units
    nbytes = jnp.sum(cost.memory_bytes)
    return Execution(
        time_s=total, launch_s=jnp.sum(cost.launch_s), compute_s=jnp.sum(cost.compute_s), memory_s=jnp.sum(cost.memory_s),
        link_s=jnp.sum(cost.link_s), memory_bytes=nbytes,
        units=jnp.sum(jnp.where(jnp.isfinite(cost.time_s), used * cost.time_s, 0.0)) / jnp.where(jnp.isfinite(total), total, 1.0),
        bandwidth=nbytes / fabric.memory_bytes_per_s / total, fits=jnp.all(cost.fits).astype(total.dtype),
    )  # fmt: skip
