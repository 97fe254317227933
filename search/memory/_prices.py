"""What a byte and a byte per second of each memory tier cost, in USD and in W: the assumptions of `design_memory`, with sources.

All linear, so that a budget is divided into shares. Marks as in `hardware/_energy_table.py`: [released code], [vendor],
[secondary], [memory] (not verified), [assumed].
"""

from typing import NamedTuple

import numpy as np

from perfmodel.cost import chiplet_area_mm2, known_good_die_usd
from perfmodel.hardware import System
from perfmodel.hardware import _energy_table as energies

TIERS = ("sram", "hbm", "ddr")
GB = 1e9

# HBM3E costs 4 to 5 times as much a bit as server DDR5 (TrendForce, December 2025 [secondary]); 8-10 and 1.5-2 USD/GB in a
# trade page of 2026 [secondary]. The rest of Gemini's 320 USD for a stack of 819 GB/s [released code], taken as 16 GB, is for
# bandwidth: base die, vias, interposer: (320 - 16 x 9) / 819.
HBM_USD_PER_GB = 9.0
HBM_USD_PER_GB_PER_S = (320.0 - 16 * HBM_USD_PER_GB) / 819.0
DDR_USD_PER_GB = 1.8
# A DDR5 channel has no published price of its own; that of GDDR6X in Gemini, 3.50 USD per 56 GB/s [released code].
DDR_USD_PER_GB_PER_S = 3.5 / 56.0
# Ports and wires of on-chip memory: 0.5 mm2 per TB/s [assumed]; 200 TB/s are then 100 of an SN40L's 1200 mm2.
SRAM_MM2_PER_BYTES_PER_S = 0.5e-12
# Standby and refresh, W/GB: 64 GB modules idle at 2-3 W [memory]; stacks run hotter [assumed].
HBM_W_PER_GB, DDR_W_PER_GB = 0.1, 0.04
_BANK_BYTES = 256 * 1024  # of on-chip memory: its energy a byte is that of a bank [assumed]


class MemoryPrices(NamedTuple):
    """USD and W per byte and per byte/s of SRAM, HBM, DDR, in this order; `[3]` each. Power is at full bandwidth."""

    usd_per_byte: np.ndarray
    usd_per_bytes_per_s: np.ndarray
    w_per_byte: np.ndarray
    w_per_bytes_per_s: np.ndarray

    def usd(self) -> np.ndarray:
        """Of the six parameters: three capacities, then three bandwidths."""
        return np.concatenate([self.usd_per_byte, self.usd_per_bytes_per_s])

    def w(self) -> np.ndarray:
        return np.concatenate([self.w_per_byte, self.w_per_bytes_per_s])


def memory_prices(system: System, *, hbm: str = "hbm3", ddr: str = "ddr5") -> MemoryPrices:
    """The prices for dies of a system's technology and size. SRAM is die area, at what a good die of the system costs per mm2.

    **Arguments:** `hbm`, `ddr`: kinds of memory whose energy per bit counts (`hardware.energies.MEMORY_KINDS`).
    """
    t = system.technology
    area = float(np.mean(np.asarray(chiplet_area_mm2(system.chiplets, t))))
    usd_per_mm2 = float(known_good_die_usd(area, t)) / area
    byte_mm2 = 8 * float(t.sram_mm2_per_bit * t.layout_factor)
    leak = float(t.static_w_per_mm2)
    sram_j = float(energies.sram_j_per_byte(t.node_nm, _BANK_BYTES))
    j = [sram_j, *(energies.memory(kind).pj_per_bit * 8e-12 for kind in (hbm, ddr))]
    return MemoryPrices(
        usd_per_byte=np.asarray([byte_mm2 * usd_per_mm2, HBM_USD_PER_GB / GB, DDR_USD_PER_GB / GB]),
        usd_per_bytes_per_s=np.asarray(
            [SRAM_MM2_PER_BYTES_PER_S * usd_per_mm2, HBM_USD_PER_GB_PER_S / GB, DDR_USD_PER_GB_PER_S / GB]
        ),
        w_per_byte=np.asarray([byte_mm2 * leak, HBM_W_PER_GB / GB, DDR_W_PER_GB / GB]),
        w_per_bytes_per_s=np.asarray(j),
    )
