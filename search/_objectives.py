"""Objectives by name: what is better, and the cost that a search minimises."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from perfmodel import Metrics
from perfmodel._names import unknown_name

# name -> (field of Metrics, whether more is better)
OBJECTIVES = {
    "throughput": ("throughput_per_s", True),
    "latency": ("latency_s", False),
    "energy": ("energy_j", False),
    "edp": ("edp_js", False),
    "power": ("power_w", False),
    "area": ("area_mm2", False),
    "cost": ("cost_usd", False),
}


_SHOWN = {"throughput_per_s": (1, "/s"), "latency_s": (1e3, " ms"), "energy_j": (1e3, " mJ"), "edp_js": (1e6, " uJ s"),
          "power_w": (1, " W"), "area_mm2": (1, " mm2"), "cost_usd": (1, " USD")}  # fmt: skip


def in_words(logs, objectives: tuple[str, ...]) -> list[str]:
    """Costs (logarithms, minimised) as values with units."""
    words = []
    for log, name in zip(logs, objectives, strict=False):
        field, more_is_better = OBJECTIVES[name]
        scale, unit = _SHOWN[field]
        words.append(f"{math.exp(-log if more_is_better else log) * scale:.4g}{unit}")
    return words


def check_objectives(names) -> tuple[str, ...]:
    """The names, if all are known and distinct; else ValueError."""
    names = tuple(names)
    for name in names:
        if name not in OBJECTIVES:
            raise unknown_name("objectives", name, OBJECTIVES)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"objectives is {','.join(names)!r}; allowed: distinct names among {', '.join(OBJECTIVES)}")
    return names


def costs(metrics: Metrics, objectives: tuple[str, ...], penalty: float = 10.0) -> Float[Array, "... M"]:
    """Logarithms of the objectives, all to be minimised. Infeasible candidates stay in, `penalty` (in e-folds) plus the
    logarithm of their violations worse, so that a search finds its way back."""
    values = []
    for name in objectives:
        field, more_is_better = OBJECTIVES[name]
        logs = jnp.log(jnp.maximum(getattr(metrics, field), 1e-30))
        values.append(-logs if more_is_better else logs)
    violation = jnp.sum(metrics.violations, axis=-1)
    worse = jnp.where(violation > 0, penalty + jnp.log1p(violation), 0.0)
    return jnp.stack(values, axis=-1) + worse[..., None]
