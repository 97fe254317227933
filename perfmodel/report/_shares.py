"""What each operator adds to a round: the evaluator's own totals taken apart, not a second account of the bytes.

Every total of a round is a sum of what a row does times how often it runs (`Rows.rate`), so a row's part is the total when it alone
runs once; and on-chip energy is linear in the energies of a chiplet, so each part of it is the derivative along that energy.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..cost import CostTable, Mappings, cost_table
from ..hardware import System
from ..schedule import Schedule
from ..schedule._evaluate import prepared
from ..schedule._steady_state import as_arrays, far_bytes, moved_bytes
from ..schedule._traversal import traverse
from ..workload import Workload

# Parts of on-chip energy, and the chiplet field that each is proportional to.
ON_CHIP = {"mac": "mac_j", "lane": "lane_op_j", "local": "local_j_per_byte", "buffer": "buffer_j_per_byte"}


class Shares(NamedTuple):
    """Of one pass of each row, in workload order; `T` memory tiers."""

    read_bytes: Float[Array, "T L"]
    written_bytes: Float[Array, "T L"]
    network_bytes: Float[Array, "L"]  # between chiplets
    hop_bytes: Float[Array, "L"]  # the same times links crossed
    memory_hop_bytes: Float[Array, "L"]  # on the way from and to memory interfaces, times links crossed
    filled_j: Float[Array, "L"]  # buffers, for bytes that enter or leave a chiplet
    rate: Float[Array, "L"]  # passes in a round


@eqx.filter_jit
def shares(workload: Workload, system: System, schedule: Schedule, table: CostTable) -> Shares:
    """Parts of a hard schedule's totals, by row."""
    dtype = jnp.result_type(float)
    made = prepared(workload, system, schedule, table, False, 0.05)
    rows, order = made.rows, made.order
    package = jax.tree.map(lambda x: jnp.asarray(x, dtype), system.package)

    def totals(rate):
        total, _, _ = traverse(rows._replace(rate=rate), made.placed, made.window, made.constants, made.residency, made.n_slots,
                               workload.n_models, smooth=False, temperature=0.05)  # fmt: skip
        total = as_arrays(total)
        far = far_bytes(total, system)
        network = [jnp.sum(total.traffic), jnp.sum(total.traffic * package.hops), far, total.filled_j]
        memory = [jnp.sum(way, axis=1) for way in moved_bytes(total, system)]
        return jnp.concatenate([*memory, jnp.stack(network)])

    by_row = jax.vmap(totals, out_axes=1)(jnp.eye(workload.n_operators, dtype=dtype))
    rate = rows.rate
    if order is not None:  # back to the order of the workload
        by_row, rate = jnp.zeros_like(by_row).at[:, order].set(by_row), jnp.zeros_like(rate).at[order].set(rate)
    tiers = system.memory.n_tiers
    return Shares(by_row[:tiers], by_row[tiers : 2 * tiers], *by_row[2 * tiers :], rate)


def on_chip_parts(
    workload: Workload, system: System, sub_batch, mappings: Mappings | None = None
) -> dict[str, Float[Array, "L D"]]:
    """On-chip energy of a pass of every operator on every chiplet, by part (`ON_CHIP`); the parts add up to `onchip_j`."""
    # with mappings the table needs to know each chiplet's type, which a compiled function does not
    return (_parts if mappings is None else _plain_parts)(workload, system, sub_batch, mappings)


def _plain_parts(workload, system, sub_batch, mappings):
    def fields(s):
        return [getattr(s.chiplets, field) for field in ON_CHIP.values()]

    def onchip(values):
        changed = eqx.tree_at(fields, system, list(values))
        return cost_table(workload, changed, sub_batch, mappings=mappings).onchip_j

    values = jnp.stack([jnp.asarray(v, jnp.result_type(float)) for v in fields(system)])
    alone = jnp.eye(len(ON_CHIP), dtype=values.dtype)[:, :, None] * values
    found = jax.vmap(lambda along: jax.jvp(onchip, (values,), (along,))[1])(alone)
    return dict(zip(ON_CHIP, found, strict=True))


_parts = eqx.filter_jit(_plain_parts)
