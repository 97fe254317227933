"""What a good die costs: dies per wafer, yield, losses to defects. Elementwise and differentiable in everything."""

import jax.numpy as jnp
from jaxtyping import Array, Float

_SCRIBE_MM, _USABLE_RADIUS_MM = 0.2, 145.0  # 300 mm wafer, 5 mm edge


def dies_per_wafer(area_mm2) -> Float[Array, "..."]:
    """Dies of an area, with their scribe lanes, on a 300 mm wafer: the usual circle less its rim, at least 1.

    Source: Chiplet Actuary (DAC 2022), as coded; not rounded to whole dies."""
    with_scribe = area_mm2 + 2 * _SCRIBE_MM * jnp.sqrt(area_mm2) + _SCRIBE_MM**2
    radius = _USABLE_RADIUS_MM
    dies = jnp.pi * radius**2 / with_scribe - jnp.pi * 2 * radius / jnp.sqrt(2 * with_scribe)
    return jnp.maximum(dies, 1.0)


def die_yield(area_mm2, defects_per_cm2, layers, model: str = "negative-binomial") -> Float[Array, "..."]:
    """Share of good dies, in (0, 1]. `model` (static): `negative-binomial` (1 + A D / layers)^-layers, `poisson` exp(-A D),
    `murphy` ((1 - exp(-A D)) / (A D))^2."""
    defects = jnp.asarray(area_mm2 * defects_per_cm2 / 100)
    if model == "poisson":
        return jnp.exp(-defects)
    if model == "murphy":
        some = defects > 1e-4  # below, 1 - x/2 is exact to 2e-9, and the quotient is not
        x = jnp.where(some, defects, 1.0)
        half = jnp.where(some, -jnp.expm1(-x) / x, 1.0 - defects / 2)
        return half * half
    return (1 + defects / layers) ** -layers


def die_usd(area_mm2, technology) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(raw price, loss to defects) of a die in a `Technology`: wafer price / dies per wafer, and what the bad ones cost."""
    t = technology
    raw = t.wafer_usd / dies_per_wafer(area_mm2)
    return raw, raw / die_yield(area_mm2, t.defects_per_cm2, t.yield_layers, t.yield_model) - raw


def known_good_die_usd(area_mm2, technology) -> Float[Array, "..."]:
    """A die with bumps that is ready to be packaged."""
    raw, defects = die_usd(area_mm2, technology)
    return raw + technology.packaging.bump_usd_per_mm2 * area_mm2 + defects
