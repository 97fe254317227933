"""What an evaluation says."""

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int

from ..hardware import System

# Kinds of violation, in the order of Metrics.violations; all are amounts, 0 where satisfied. `memory_bytes` is of all tiers
# together; of several tiers the parts follow (`violation_names`).
VIOLATIONS = ("memory_bytes", "buffer_bytes", "edges_against_order")
# Parts of a round's energy, in the order of Metrics.energy_parts_j.
ENERGY_PARTS = ("on_chip", "buffer_off_chip", "network", "memory", "static")


def violation_names(system: System) -> tuple[str, ...]:
    """Names of `Metrics.violations` on a system: `VIOLATIONS`, then, of several memory tiers, the bytes that do not fit each."""
    tiers = system.memory.names
    return VIOLATIONS + (tuple(f"memory_bytes {name}" for name in tiers) if len(tiers) > 1 else ())


class ModelMetrics(eqx.Module):
    """Of each of the `M` models: first-result latency in an otherwise empty package; inferences per second in the mix."""

    latency_s: Float[Array, "M"]
    throughput_per_s: Float[Array, "M"]


class Metrics(eqx.Module):
    """Metrics of one candidate. `R` resources (named by `System.resource_names`), `M` models.

    - `throughput_per_s`: sum of all models' inferences per second in steady state.
    - `latency_s`: of the worst model, from empty package to first result.
    - `energy_j`: per inference (energy of a round / inferences in it, static power times period included).
    - `edp_js = energy_j * latency_s`.  `power_w`: energy of a round / period.
    - `area_mm2, cost_usd`: dies; dies + substrate + assembly + memory.
    - `feasible`, `violations` (`violation_names`).  `period_s`: time of a round (resources contend).
    - `busy_s`: of each resource in a round.  `bottleneck`: index of the busiest.
    - `utilisation`: MACs of a round / what all arrays could do in a period.
    - `energy_parts_j`: energy of a round by part (`ENERGY_PARTS`).
    - `resident`: chiplets whose weights stay in the buffer.
    """

    latency_s: Float[Array, ""]
    throughput_per_s: Float[Array, ""]
    energy_j: Float[Array, ""]
    edp_js: Float[Array, ""]
    power_w: Float[Array, ""]
    area_mm2: Float[Array, ""]
    cost_usd: Float[Array, ""]
    feasible: Bool[Array, ""]
    violations: Float[Array, "V"]
    period_s: Float[Array, ""]
    busy_s: Float[Array, "R"]
    bottleneck: Int[Array, ""]
    utilisation: Float[Array, ""]
    energy_parts_j: Float[Array, "P"]
    resident: Float[Array, "D"]
    models: ModelMetrics
