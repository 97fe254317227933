"""Composition of experts: a router and many experts, of which some are in the fast memory and the rest in a slower tier.

SambaNova's SN40L (arXiv 2405.07518, section on composition of experts): the router runs at the batch size, then (prompt, expert)
pairs run one after another; an expert that is not in HBM is copied there first; weights are read only and never copied back.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._names import unknown_name
from ..hardware import MemoryTiers
from ._cache import POLICIES
from ._cache_rates import lru_hit_rate, static_hit_rate, turns_hit_rate, zipf

RESIDENCIES = ("hbm", "any")
HOST = "host"  # a tier of this name is the memory of a host, which experts are not meant to live in
_ON_CHIP_BELOW = 1e9


class Footprint(NamedTuple):
    """Where experts are, of one node unless said. Counts are whole numbers (floats); all elementwise in bytes and experts.

    - `in_hbm`: experts beside router and KV cache in the tier that runs them.  `slow`: homes in the slowest tier (0: there is none).
    - `on_node`: what a node holds at all: homes, and experts that are in the running tier alone, which keeps a frame free.
    - `capacity`: experts that count as held: `in_hbm` under residency `hbm`, else `slow` (never below `in_hbm`).
    - `nodes`: least number of nodes that hold all experts so. One of them runs the router.
    - `request_nodes`: nodes that latencies are of: 1 where a node holds all experts in any tier, else `nodes`.
    - `frames`: experts that the running tiers of those nodes cache together (one less on a node where some are homeless: they swap).
    - `fits`: 1 where one node holds them in the memory asked for.  `missing_bytes`: of what does not fit there.
    - `homeless`: experts beyond the homes of those nodes' slow tiers: what makes room then takes the place of what comes, one to each
      direction of the link, instead of being dropped.  `runs`: 1 where an expert, router and KV cache fit side by side.
    - `switch_s`: to copy an expert from the slowest tier to the running one (0: there is no slower tier).
    - `landing_s`: that the running tier spends on taking it in.
    """

    in_hbm: Float[Array, ""]
    slow: Float[Array, ""]
    on_node: Float[Array, ""]
    capacity: Float[Array, ""]
    nodes: Float[Array, ""]
    request_nodes: Float[Array, ""]
    frames: Float[Array, ""]
    fits: Float[Array, ""]
    missing_bytes: Float[Array, ""]
    homeless: Float[Array, ""]
    runs: Float[Array, ""]
    switch_s: Float[Array, ""]
    landing_s: Float[Array, ""]


def default_residency(memory: MemoryTiers) -> str:
    """`hbm` where the slowest tier is a host's memory, else `any`."""
    return "hbm" if memory.names[-1] == HOST else "any"


def running_tier(memory: MemoryTiers) -> int:
    """Index of the tier that experts run from: the first that is no on-chip memory, a GB or more of one chiplet (as `Machine.memory`)."""
    large = np.flatnonzero(np.asarray(memory.capacity_bytes) * np.asarray(memory.share) >= _ON_CHIP_BELOW)
    return int(large[0]) if len(large) else memory.n_tiers - 1


def footprint(
    memory: MemoryTiers, *, experts, expert_bytes, router_bytes, kv_bytes, residency: str, tier: int = 0
) -> Footprint:
    """Capacity, nodes and switching time of `experts` experts on nodes with this `memory`.

    **Arguments:** bytes of one expert, of the router, of the KV cache kept beside them.  `residency`: experts must be in the
    memory that runs them (`hbm`) or may be in any tier (`any`).  `tier`: that runs them (see `running_tier`).

    Raises ValueError for an unknown residency. Elementwise in all numbers; differentiable where not counting.
    """
    if residency not in RESIDENCIES:
        raise unknown_name("residency", residency, RESIDENCIES)
    capacity, last = jnp.asarray(memory.capacity_bytes), memory.n_tiers - 1
    experts, expert_bytes = (
        jnp.asarray(experts, jnp.result_type(float)),
        jnp.asarray(expert_bytes, jnp.result_type(float)),
    )
    hbm = capacity[tier]
    in_hbm = jnp.maximum(_whole(hbm - router_bytes - kv_bytes, expert_bytes), 0.0)
    without_router = jnp.maximum(_whole(hbm - kv_bytes, expert_bytes), 0.0)
    runs = jnp.where(in_hbm >= 1, 1.0, 0.0)
    slow = _whole(capacity[last], expert_bytes) if last > tier else jnp.zeros_like(in_hbm)
    on_node = jnp.where(slow > 0, jnp.maximum(slow + in_hbm - 1.0, in_hbm), in_hbm) * runs
    together = router_bytes + kv_bytes + expert_bytes
    if residency == "hbm" or last <= tier:
        held, holds = in_hbm, in_hbm
        spread = 1.0 + jnp.ceil(jnp.maximum(experts - in_hbm, 0.0) / jnp.maximum(without_router, 1.0))
        pooled = jnp.ceil((together + (experts - 1.0) * expert_bytes) / hbm)
    else:
        held, holds = jnp.maximum(slow, in_hbm), jnp.maximum(on_node, in_hbm)
        beside = jnp.maximum(slow + without_router - 1.0, without_router)  # of a node that runs no router
        spread = 1.0 + jnp.ceil(jnp.maximum(experts - holds, 0.0) / jnp.maximum(beside, 1.0))
        pooled = jnp.ceil(experts * expert_bytes / capacity[last])
    # where not even one expert runs on a node, several nodes hold it together
    nodes = jnp.where(runs > 0, spread, jnp.maximum(jnp.maximum(pooled, jnp.ceil(together / hbm)), 2.0))
    beyond = jnp.where(runs > 0, jnp.maximum(experts - holds, 0.0) * expert_bytes, jnp.maximum(together - hbm, 0.0))
    request_nodes = jnp.where(experts <= on_node, 1.0, nodes)
    frames = in_hbm + (request_nodes - 1.0) * without_router
    homeless = jnp.where(experts > frames, jnp.maximum(experts - request_nodes * slow, 0.0), 0.0) * runs
    return Footprint(
        in_hbm=in_hbm, slow=slow, on_node=on_node, capacity=held, nodes=nodes,
        request_nodes=request_nodes, frames=frames - jnp.minimum(homeless, request_nodes),
        fits=runs * jnp.where(experts <= holds, 1.0, 0.0), missing_bytes=beyond,
        homeless=homeless, runs=runs,
        switch_s=copy_s(memory, expert_bytes, tier), landing_s=expert_bytes / jnp.asarray(memory.write_bytes_per_s)[tier],
    )  # fmt: skip


def copy_s(memory: MemoryTiers, size_bytes, tier: int = 0):
    """Time to copy from the slowest tier to `tier`, streamed through those between them; 0 where there is none slower."""
    if memory.n_tiers - 1 <= tier:
        return 0.0 * jnp.asarray(size_bytes)
    steps = slice(tier + 1, memory.n_tiers)
    narrowest = jnp.min(jnp.asarray(memory.copy_bytes_per_s)[steps])
    return size_bytes / narrowest + jnp.sum(jnp.asarray(memory.latency_s)[steps])


def hit_rate(where: Footprint, experts, *, policy: str = "lru", popularity=None, most: int | None = None):
    """Share of requests that find their expert in the running tier of `where.request_nodes` nodes, in steady state.

    **Arguments:** `popularity`: exponent of Zipf's law, requests independent of each other (0: all experts alike); None: experts
    are asked for in turn, the worst case of LRU.  `most` (static): upper limit of `experts`, needed where it is traced.

    Raises ValueError for an unknown policy, and for Belady's under a popularity: only `steady_hit_rate` of a trace knows that.
    """
    if policy not in POLICIES:
        raise unknown_name("cache", policy, POLICIES)
    experts = jnp.asarray(experts, jnp.result_type(float))
    if popularity is None:
        rate = turns_hit_rate(experts, where.frames, policy)
    elif policy == "belady":
        raise ValueError("cache is 'belady' with a popularity: no formula is known; simulate a trace of requests")
    else:
        p = zipf(int(experts) if most is None else most, popularity, experts)
        rate = (lru_hit_rate if policy == "lru" else static_hit_rate)(p, where.frames)
    return jnp.where(where.frames >= experts, 1.0, rate)


def request_s(*, router_s, expert_s, switch_s, batch, hit_rate, overlap: bool = False, landing_s=0.0):
    """Mean latency of a batch: the router, then `batch` (prompt, expert) pairs one after another; elementwise.

    Not overlapped: `router_s + batch ((1 - hit_rate) switch_s + expert_s)`. Overlapped: while an expert runs, the next one is
    copied if it misses, and slows it by `landing_s`; only the first copy is waited for in full.
    """
    miss = 1.0 - hit_rate
    if not overlap:
        return router_s + batch * (miss * switch_s + expert_s)
    beside = miss * jnp.maximum(expert_s + landing_s, switch_s) + hit_rate * expert_s
    return router_s + miss * switch_s + (batch - 1.0) * beside + expert_s


def _whole(size, of):
    """How many times `of` goes into `size`, whole."""
    count = jnp.floor(size / of)
    return jnp.where((count + 1.0) * of <= size, count + 1.0, count)
