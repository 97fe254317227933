"""Silicon and packaging technologies: numbers with their sources; the formulas that use them live in `cost/`.

Sources: [G] constants of the released Gemini code (HPCA 2024); [A] `parameter.ini` of Chiplet Actuary (DAC 2022, public code at
commit b85c29f), from which Gemini took them; [C] foundry sale prices of CSET's "AI Chips: What They Are and Why They Matter"
(2020, appendix D); [S] relative area of Stillmaker and Baas 2017, table of area factors, between its nodes a power of the node.
"""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from .._names import unknown_name

# (1 + A D / layers)^-layers, exp(-A D), ((1 - exp(-A D)) / (A D))^2
YIELD_MODELS = ("negative-binomial", "poisson", "murphy")
PACKAGINGS = ("organic", "fan-out", "silicon")
RETICLE_MM2 = 858.0


class Packaging(eqx.Module):
    """How dies are put together. Areas in mm2, prices in USD. Organic packages have no carrier: its fields are 0.

    - `bump_usd_per_mm2`: of die.  `substrate_usd_per_mm2`: of organic substrate, under everything.
    - `bonding_yield`: of each die.  `package_yield`: of the carrier on its substrate.
    - `carrier_*`: fan-out layer or silicon interposer: area per die area, wafer, defects, clustering of the yield.
    - `io_dies` of `io_die_mm2` each, beside the chiplets, priced as dies of the same process.
    - `phy_mm2_per_bytes_per_s`: die-to-die interfaces: area at either end of a link, per bandwidth of one direction.
    """

    bump_usd_per_mm2: Float[Array, ""]
    substrate_usd_per_mm2: Float[Array, ""]
    bonding_yield: Float[Array, ""]
    package_yield: Float[Array, ""]
    carrier_area_factor: Float[Array, ""]
    carrier_wafer_usd: Float[Array, ""]
    carrier_defects_per_cm2: Float[Array, ""]
    carrier_layers: Float[Array, ""]
    io_dies: Float[Array, ""]
    io_die_mm2: Float[Array, ""]
    phy_mm2_per_bytes_per_s: Float[Array, ""]
    kind: str = eqx.field(static=True)


class Technology(eqx.Module):
    """A logic process and a packaging. Areas in mm2, prices in USD.

    - `mac_mm2, sram_mm2_per_bit`: before layout.  `layout_factor`: area after layout / before.
    - `defects_per_cm2, yield_layers`: of a die; the model is `yield_model` (static, one of `YIELD_MODELS`).
    - `static_w_per_mm2`: leakage, clocks and idle power of a die that states none of its own.
    """

    mac_mm2: Float[Array, ""]
    sram_mm2_per_bit: Float[Array, ""]
    layout_factor: Float[Array, ""]
    wafer_usd: Float[Array, ""]
    defects_per_cm2: Float[Array, ""]
    yield_layers: Float[Array, ""]
    static_w_per_mm2: Float[Array, ""]
    packaging: Packaging
    node_nm: float = eqx.field(static=True)
    yield_model: str = eqx.field(static=True)
    name: str = eqx.field(static=True)

    def logic_mm2(self, rows, columns, buffer_bytes):
        """MACs and buffer of a die after layout; elementwise."""
        return (rows * columns * self.mac_mm2 + buffer_bytes * 8 * self.sram_mm2_per_bit) * self.layout_factor


class _Node(NamedTuple):
    """`mac`, `sram`: area relative to 12 nm."""

    nm: float
    wafer_usd: float
    defects_per_cm2: float
    mac: float
    sram: float
    source: str


# 12 nm: MAC 57.9 um2, SRAM 0.0964 um2/bit, 2.2 after layout [G]. Gemini's 7 nm core is 0.700 of its 12 nm core [inferred from
# areas it printed: (78.05 - 4.087) / (110.525 - 4.863)]; [S] would say 0.43.
_MAC_MM2, _SRAM_MM2_PER_BIT, _LAYOUT = 57.9e-6, 0.0964e-6, 2.2
NODES = {
    "5nm": _Node(5, 16988.0, 0.11, 0.7 / 1.7, 0.7 / 1.13, "wafer, defects [G, A, C]; area of 7 nm, logic 1.7 times as dense"
                 " (the least of the foundry's claims of 1.7-1.84 [secondary]), SRAM 1.13 times [secondary]"),
    "7nm": _Node(7, 9346.0, 0.09, 0.7, 0.7, "wafer, defects [G, A, C]; area inferred from Gemini's printed areas"),
    "12nm": _Node(12, 5992.0, 0.08, 1.0, 1.0, "wafer, defects, area [G]; [C] gives 3984 for 16/12 nm, and 5992 for 10 nm"),
    "14nm": _Node(14, 3984.0, 0.08, 1.27, 1.27, "wafer, defects [G, A]; area [S]"),
    "16nm": _Node(16, 3984.0, 0.08, 1.40, 1.40, "wafer [C] (16/12 nm); defects assumed those of 14 nm; area [S]"),
    "28nm": _Node(28, 2891.0, 0.07, 2.68, 2.68, "wafer, defects [G, A]; area [S]"),
    "40nm": _Node(40, 2274.0, 0.07, 5.63, 5.63, "wafer, defects [A]; area [S]"),
    "45nm": _Node(45, 2274.0, 0.07, 7.40, 7.40, "no published wafer price: that of 40 nm assumed, as its defects; area [S]"),
    "55nm": _Node(55, 1937.0, 0.07, 9.20, 9.20, "wafer, defects [G, A]; area [S]"),
    "65nm": _Node(65, 1937.0, 0.07, 11.03, 11.03, "wafer that of 55 nm, the figure [C] has for 65 nm [memory]; defects of"
                  " 55 nm assumed; area [S]"),
}  # fmt: skip
TECHNOLOGIES = tuple(NODES)

# 11 mW/mm2: what the catalogue's chiplets were given (200 mW a 4096-PE chiplet); no source states leakage of such dies. For
# scale: TPU v4 idles at 90 W with its memory [secondary], 150 mW/mm2 of a die below 600 mm2: a limit from above.
STATIC_W_PER_MM2 = 0.011

# [G], [A]: bumps cost 0.01 on a carrier (micro bumps); a wafer of silicon interposers costs what a 55 nm wafer does (the tool
# itself charged 0 for it, an initialisation slip).
_COMMON = dict(substrate_usd_per_mm2=0.005, io_dies=0.0, io_die_mm2=0.0, phy_mm2_per_bytes_per_s=0.0)
_NO_CARRIER = dict(carrier_area_factor=0.0, carrier_wafer_usd=0.0, carrier_defects_per_cm2=0.0, carrier_layers=0.0)
_PACKAGING = {
    "organic": dict(bump_usd_per_mm2=0.005, bonding_yield=0.99, package_yield=1.0, **_NO_CARRIER),
    "fan-out": dict(
        bump_usd_per_mm2=0.01, bonding_yield=0.98, package_yield=0.99,
        carrier_area_factor=1.2, carrier_wafer_usd=1200.0, carrier_defects_per_cm2=0.05, carrier_layers=3.0,
    ),
    "silicon": dict(
        bump_usd_per_mm2=0.01, bonding_yield=0.95, package_yield=0.99,
        carrier_area_factor=1.1, carrier_wafer_usd=1937.0, carrier_defects_per_cm2=0.06, carrier_layers=6.0,
    ),
}  # fmt: skip


def packaging(kind: str = "organic", **changes: float) -> Packaging:
    """A packaging by name (`PACKAGINGS`); `changes`: fields to set otherwise. Raises ValueError for an unknown name."""
    if kind not in _PACKAGING:
        raise unknown_name("packaging", kind, PACKAGINGS)
    numbers = {**_COMMON, **_PACKAGING[kind], **changes}
    return Packaging(kind=kind, **{field: np.float64(value) for field, value in numbers.items()})


def technology(
    name: str, packaged: Packaging | str = "organic", *, yield_model: str = YIELD_MODELS[0], **changes: float
) -> Technology:
    """A process by name (`TECHNOLOGIES`) in a packaging; `changes`: fields to set otherwise (`wafer_usd=...`).

    Raises ValueError for an unknown process, packaging or yield model."""
    if name not in NODES:
        raise unknown_name("technology", name, TECHNOLOGIES)
    if yield_model not in YIELD_MODELS:
        raise unknown_name("yield_model", yield_model, YIELD_MODELS)
    node = NODES[name]
    numbers = dict(
        mac_mm2=_MAC_MM2 * node.mac, sram_mm2_per_bit=_SRAM_MM2_PER_BIT * node.sram, layout_factor=_LAYOUT,
        wafer_usd=node.wafer_usd, defects_per_cm2=node.defects_per_cm2, yield_layers=10.0, static_w_per_mm2=STATIC_W_PER_MM2,
    ) | changes  # fmt: skip
    return Technology(
        packaging=packaging(packaged) if isinstance(packaged, str) else packaged,
        node_nm=node.nm,
        yield_model=yield_model,
        name=name,
        **{field: np.float64(value) for field, value in numbers.items()},
    )
