"""Silicon and package technologies: numbers with their sources; formulas that use them live in `cost/_silicon.py`."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float


class Technology(eqx.Module):
    """A logic process and an organic package. Areas in mm2, prices in USD."""

    mac_mm2: Float[Array, ""]
    sram_mm2_per_bit: Float[Array, ""]
    layout_factor: Float[Array, ""]
    wafer_usd: Float[Array, ""]
    defects_per_cm2: Float[Array, ""]
    bump_usd_per_mm2: Float[Array, ""]
    substrate_usd_per_mm2: Float[Array, ""]
    bonding_yield: Float[Array, ""]
    name: str = eqx.field(static=True)


# Areas, prices, defects: constants of the released Gemini code (HPCA 2024), as collected from it with its formulas.
_SHARED = dict(
    mac_mm2=57.9e-6, sram_mm2_per_bit=0.0964e-6, layout_factor=2.2, bump_usd_per_mm2=0.005,
    substrate_usd_per_mm2=0.005, bonding_yield=0.99,
)  # fmt: skip
_NODES = {"12nm": dict(wafer_usd=5992.0, defects_per_cm2=0.08), "7nm": dict(wafer_usd=9346.0, defects_per_cm2=0.09)}
TECHNOLOGIES = tuple(_NODES)


def technology(name: str) -> Technology:
    """A technology by name (`TECHNOLOGIES`)."""
    return Technology(name=name, **{key: np.float64(value) for key, value in {**_SHARED, **_NODES[name]}.items()})
