"""Area of dies, and the price of a system: dies, package, memory (Gemini, HPCA 2024, in the form of Chiplet Actuary)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...hardware import Chiplets, System, Technology
from ._yield import die_yield, dies_per_wafer, known_good_die_usd

_SUBSTRATE_PER_AREA = 4.0  # of the dies (organic) or of the carrier


class Price(NamedTuple):
    """USD. `dies_usd`: good dies with bumps.  `package_usd`: substrate, carrier, and everything lost in assembly."""

    dies_usd: Float[Array, ""]
    package_usd: Float[Array, ""]
    memory_usd: Float[Array, ""]


def chiplet_area_mm2(chiplets: Chiplets, technology: Technology) -> Float[Array, "D"]:
    """MACs and SRAM after layout, and what the chiplets state beside (`other_mm2`). Vector lanes, local stores, control and
    memory PHYs have no published area: they count only where a system file states them."""
    return technology.logic_mm2(chiplets.rows, chiplets.columns, chiplets.buffer_bytes) + chiplets.other_mm2


def phy_area_mm2(interfaces, bytes_per_s, phy_mm2_per_bytes_per_s):
    """Die-to-die interfaces of a die: `interfaces` links, each of a bandwidth each way; elementwise."""
    return interfaces * bytes_per_s * phy_mm2_per_bytes_per_s


def die_areas_mm2(system: System) -> Float[Array, "D"]:
    """Every chiplet with its die-to-die interfaces, one for each neighbour, or one to a switch."""
    package = system.package
    neighbours = 1 if package.switched else jnp.sum(jnp.asarray(package.hops) == 1, axis=1)
    density = system.technology.packaging.phy_mm2_per_bytes_per_s
    phys = phy_area_mm2(neighbours, package.link_bytes_per_s, density)
    return chiplet_area_mm2(system.chiplets, system.technology) + phys


def package_usd(dies_usd, area_mm2, n_dies, technology: Technology) -> Float[Array, "..."]:
    """Substrate, carrier and assembly losses of `n_dies` good dies of an area and a price in all; elementwise.

    Organic: the substrate is dearer with its size (more layers), in steps, unless under a single die. Fan-out, silicon: a
    carrier larger than the dies, made on wafers with a yield, on a substrate; a bad bond loses dies and carrier."""
    p = technology.packaging
    bonded = p.bonding_yield**n_dies
    if p.kind == "organic":
        substrate_mm2 = _SUBSTRATE_PER_AREA * area_mm2
        many = jnp.where(substrate_mm2 > 900, 2.0, jnp.where(substrate_mm2 > 289, 1.75, 1.5))
        substrate = p.substrate_usd_per_mm2 * substrate_mm2 * jnp.where(jnp.asarray(n_dies) == 1, 1.0, many)
        return substrate + (substrate + dies_usd) * (1 / bonded - 1)
    carrier_mm2 = p.carrier_area_factor * area_mm2
    # the carrier's own connections cost what C4 bumps cost, and the substrate its price per area: both 0.005 USD/mm2
    carrier = p.carrier_wafer_usd / dies_per_wafer(carrier_mm2) + p.substrate_usd_per_mm2 * carrier_mm2
    substrate = p.substrate_usd_per_mm2 * _SUBSTRATE_PER_AREA * carrier_mm2
    made = die_yield(carrier_mm2, p.carrier_defects_per_cm2, p.carrier_layers)
    lost = carrier * (1 / (made * bonded * p.package_yield) - 1)
    return (
        carrier
        + substrate
        + lost
        + substrate * (1 / p.package_yield - 1)
        + dies_usd * (1 / (bonded * p.package_yield) - 1)
    )


def system_price(system: System) -> Price:
    """Dies, package and memory of a system. Around a switch every chiplet is in a package of its own (the switch costs nothing here)."""
    technology = system.technology
    p, areas = technology.packaging, die_areas_mm2(system)
    some = p.io_dies > 0  # a die of no area would divide by zero in the gradient
    io_usd = jnp.where(some, p.io_dies * known_good_die_usd(jnp.where(some, p.io_die_mm2, 1.0), technology), 0.0)
    chips = known_good_die_usd(areas, technology)
    if not system.package.switched:
        chips, areas, together = jnp.sum(chips), jnp.sum(areas), system.n_chiplets
    else:
        together = 1
    dies = chips + io_usd
    package = package_usd(dies, areas + p.io_dies * p.io_die_mm2, together + p.io_dies, technology)
    return Price(jnp.sum(dies), jnp.sum(package), jnp.sum(jnp.asarray(system.memory.usd)))


def system_usd(system: System) -> Float[Array, ""]:
    """Dies, package with assembly losses, and memory: the sum of `system_price`."""
    return sum(system_price(system), jnp.zeros(()))


def system_area_mm2(system: System) -> Float[Array, ""]:
    """Silicon of all dies, I/O dies included; not that of a carrier."""
    p = system.technology.packaging
    return jnp.sum(die_areas_mm2(system)) + p.io_dies * p.io_die_mm2
