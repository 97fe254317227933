"""Area, yield and price of dies and of an organic package (Gemini, HPCA 2024, in the form of Chiplet Actuary)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..hardware import Chiplets, System, Technology

_SCRIBE_MM, _USABLE_RADIUS_MM = 0.2, 145.0  # 300 mm wafer, 5 mm edge
_SUBSTRATE_PER_DIE_AREA = 4.0


def chiplet_area_mm2(chiplets: Chiplets, technology: Technology) -> Float[Array, "D"]:
    """MACs and SRAM after layout. Vector lanes and interfaces have no published area here and count nothing."""
    macs = chiplets.rows * chiplets.columns * technology.mac_mm2
    return (macs + chiplets.buffer_bytes * 8 * technology.sram_mm2_per_bit) * technology.layout_factor


def die_usd(area_mm2, technology: Technology):
    """(raw price, loss to defects) of a die: wafer price / dies per wafer; negative-binomial yield with 10 layers."""
    with_scribe = area_mm2 + 2 * _SCRIBE_MM * jnp.sqrt(area_mm2) + _SCRIBE_MM**2
    radius = _USABLE_RADIUS_MM
    dies = jnp.pi * radius**2 / with_scribe - jnp.pi * 2 * radius / jnp.sqrt(2 * with_scribe)
    raw = technology.wafer_usd / jnp.maximum(dies, 1.0)
    die_yield = (1 + technology.defects_per_cm2 / 100 * area_mm2 / 10) ** -10
    return raw, raw / die_yield - raw


def system_usd(system: System) -> Float[Array, ""]:
    """Dies, organic substrate, assembly losses and memory."""
    technology = system.technology
    area = chiplet_area_mm2(system.chiplets, technology)
    raw, defects = die_usd(area, technology)
    chips = jnp.sum(raw + technology.bump_usd_per_mm2 * area) + jnp.sum(defects)
    substrate_mm2 = _SUBSTRATE_PER_DIE_AREA * jnp.sum(area)
    many = jnp.where(substrate_mm2 > 900, 2.0, jnp.where(substrate_mm2 > 289, 1.75, 1.5))
    n = system.n_chiplets
    substrate = technology.substrate_usd_per_mm2 * substrate_mm2 * (1.0 if n == 1 else many)
    assembly = technology.bonding_yield**-n - 1
    return chips + substrate + (substrate + chips) * assembly + jnp.sum(jnp.asarray(system.memory.usd))


def system_area_mm2(system: System) -> Float[Array, ""]:
    """Silicon of all dies."""
    return jnp.sum(chiplet_area_mm2(system.chiplets, system.technology))
