"""From what a round adds up to, to metrics: resources, period, energy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics import relative_max, safe_divide
from ..cost import system_area_mm2, system_usd
from ..hardware import System
from ..workload import Workload
from ._constants import only_gpus
from ._metrics import Metrics, ModelMetrics
from ._placement import vector
from ._tiers import by_chiplet
from ._traversal import Totals


def as_arrays(total: Totals) -> Totals:
    """The tuples of a traversal as arrays: `[D]`, `[D, D]` for the traffic, `[T, C]` for what memory moves (C: D, or 1 for all)."""
    traffic = total.traffic
    if isinstance(traffic, tuple):
        n = len(total.busy_s)
        zero, pairs = jnp.zeros_like(total.onchip_j), iter(traffic)
        traffic = jnp.stack([jnp.stack([zero if a == b else next(pairs) for b in range(n)]) for a in range(n)])
    return total._replace(
        traffic=traffic,
        busy_s=vector(total.busy_s, False),
        read=jnp.stack([vector(tier, False) for tier in total.read]),
        written=jnp.stack([vector(tier, False) for tier in total.written]),
    )


def moved_bytes(total: Totals, system: System) -> tuple[Float[Array, "T C"], Float[Array, "T C"]]:
    """Bytes that each tier reads and writes. What the kernels of GPUs have in a slower tier is staged in the first."""
    if not only_gpus(system):
        return total.read, total.written
    staged_in, staged_out = jnp.sum(total.read[1:], axis=0), jnp.sum(total.written[1:], axis=0)
    both = staged_in + staged_out
    return total.read.at[0].add(both), total.written.at[0].add(both)


def memory_busy_s(total: Totals, system: System) -> Float[Array, "T"]:
    """Busy time of every tier; where each chiplet has its own, of the busiest."""
    memory, (read, written) = system.memory, moved_bytes(total, system)
    read_rate, write_rate = memory.access_bytes_per_s(read.dtype)
    if not by_chiplet(system):
        return jnp.sum(read, axis=1) / read_rate + jnp.sum(written, axis=1) / write_rate
    busy = []
    for t in range(memory.n_tiers):
        each = read[t] / read_rate[t] + written[t] / write_rate[t]
        busy.append(jnp.max(each) / jnp.asarray(memory.share, each.dtype)[t] if memory.is_own(t) else jnp.sum(each))
    return jnp.stack(busy)


def busy_seconds(total: Totals, system: System) -> Float[Array, "R"]:
    """Busy time per round of every resource, in the order of `System.resource_names`."""
    package = system.package
    inward, outward = _over_links(total)
    links = (
        jnp.einsum("kab,ab->k", _like(package.route, inward), total.traffic)
        + _like(package.memory_route, inward) @ inward
        + _like(package.memory_back, inward) @ outward
    )
    # memory traffic of a chiplet without an interface passes two ports, its own and its server's
    far, serves = jnp.sum(_like(package.serves, inward), axis=0), _like(package.serves, inward)
    out = jnp.sum(total.traffic, axis=1) + far * outward + serves @ inward
    into = jnp.sum(total.traffic, axis=0) + far * inward + serves @ outward
    ports = jnp.concatenate([out, into]) / package.port_bytes_per_s
    return jnp.concatenate([total.busy_s, links / package.link_bytes_per_s, ports, memory_busy_s(total, system)])


def _over_links(total: Totals) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
    """Bytes that each chiplet reads from and writes to memory; zeros where that crosses no link."""
    n = jnp.shape(total.busy_s)[0]
    if jnp.shape(total.read)[1] != n or n == 1:
        return jnp.zeros_like(total.busy_s), jnp.zeros_like(total.busy_s)
    return jnp.sum(total.read, axis=0), jnp.sum(total.written, axis=0)


def far_bytes(total: Totals, system: System) -> Float[Array, ""]:
    """Bytes on the way from and to memory, times links crossed."""
    inward, outward = _over_links(total)
    return jnp.sum((inward + outward) * _like(system.package.memory_hops, inward))


# With finite buffers and few passes in flight, resources that are all nearly saturated cannot all be kept busy: passes queue
# behind one another. Judged against the event-driven simulation (benchmarks/oracle_accuracy.py), one exponent serves both
# package-bound and memory-bound schedules; infinity would be the largest busy time itself.
CONTENTION_EXPONENT = 16.0


def contended_s(busy_s: Float[Array, "R"]) -> Float[Array, ""]:
    """Time in which resources with these busy times do a round: their `CONTENTION_EXPONENT`-norm. One saturated resource
    alone takes its busy time, four alike 9 % more."""
    return relative_max(busy_s, 1.0 / CONTENTION_EXPONENT, smooth=True)


def energy_parts(total: Totals, system: System, period_s) -> Float[Array, "P"]:
    """Energy of a round by part, in the order of `ENERGY_PARTS`."""
    package, memory = system.package, system.memory
    hop_bytes = jnp.sum(total.traffic * _like(package.hops, period_s)) + far_bytes(total, system)
    read, written = moved_bytes(total, system)
    static_w = jnp.sum(jnp.asarray(system.chiplets.static_w)) + jnp.sum(jnp.asarray(memory.static_w))
    return jnp.stack(
        [
            total.onchip_j,
            total.filled_j,
            hop_bytes * package.hop_j_per_byte,
            jnp.sum(jnp.sum(read + written, axis=1) * _like(memory.j_per_byte, period_s)),
            static_w * period_s,
        ]
    )


def metrics(totals: list[Totals], latency_s: Float[Array, "M"], resident, violations, workload: Workload, system: System,
            sub_batch, *, smooth: bool, temperature) -> Metrics:  # fmt: skip
    """Metrics of a round made of windows (`totals`, one each) that run one after another."""
    dtype = latency_s.dtype
    resident = vector(resident, False)
    totals = [as_arrays(t) for t in totals]
    by_window = [busy_seconds(t, system) for t in totals]
    period = sum([contended_s(b) for b in by_window[1:]], contended_s(by_window[0]))
    busy = sum(by_window[1:], by_window[0])
    round_total = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *totals)
    parts = energy_parts(round_total, system, period)
    energy = jnp.sum(parts)
    inferences = _like(workload.rate, period) * _like(workload.batch, period) * sub_batch
    count = 1.0 if workload.count is None else _like(workload.count, period)
    macs = jnp.zeros(workload.n_models, dtype).at[workload.model].add(_like(workload.operators.macs, period) * count)
    peak = jnp.sum(_like(system.chiplets.peak_macs_per_s, period))
    worst = relative_max(latency_s, temperature, smooth)
    per_inference = energy / jnp.sum(inferences)
    return Metrics(
        latency_s=worst,
        throughput_per_s=safe_divide(jnp.sum(inferences), period),
        energy_j=per_inference,
        edp_js=per_inference * worst,
        power_w=safe_divide(energy, period),
        area_mm2=jnp.asarray(system_area_mm2(system), dtype),
        cost_usd=jnp.asarray(system_usd(system), dtype),
        feasible=jnp.all(violations <= 0),
        violations=violations,
        period_s=period,
        busy_s=busy,
        bottleneck=jnp.argmax(busy),
        utilisation=safe_divide(jnp.sum(macs * _like(workload.rate, period)) * sub_batch, peak * period),
        energy_parts_j=parts,
        resident=resident,
        models=ModelMetrics(latency_s=latency_s, throughput_per_s=safe_divide(inferences, period)),
    )


def _like(x, like) -> jax.Array:
    return jnp.asarray(x, like.dtype)
