"""Energies of operations, memories and links, each number with its source: what a system file may leave out.

Marks: [paper], [vendor], [released code] of a tool, [secondary] (a table in somebody else's account), [memory] (not verified),
[inferred], [assumed]. docs/silicon.md prints the tables and compares them with constants of other tools.
"""

import math
from typing import NamedTuple

from .._names import unknown_name

PJ = 1e-12

# Energy per operation at 45 nm (Horowitz, ISSCC 2014) and 7 nm, as printed in table 2 of "Ten Lessons From Three Generations
# Shaped Google's TPUv4i" (ISCA 2021) [secondary]. bf16 is not given at 45 nm: its 7 nm value times the ratio of fp16.
OPERATIONS_PJ = {
    "int8 add": (0.03, 0.007), "int8 mult": (0.2, 0.07), "int32 add": (0.1, 0.03), "int32 mult": (3.1, 1.48),
    "bf16 add": (0.11 * 0.4 / 0.16, 0.11), "bf16 mult": (0.21 * 1.1 / 0.34, 0.21),
    "fp16 add": (0.4, 0.16), "fp16 mult": (1.1, 0.34), "fp32 add": (0.9, 0.38), "fp32 mult": (3.7, 1.31),
}  # fmt: skip
# A multiply-accumulate is one multiplication and one addition at the width of the accumulator.
MAC_PARTS = {
    "int8": ("int8 mult", "int32 add"),
    "bf16": ("bf16 mult", "fp32 add"),
    "fp16": ("fp16 mult", "fp32 add"),
    "fp32": ("fp32 mult", "fp32 add"),
}
PRECISIONS = tuple(MAC_PARTS)

# SRAM per 64-bit access at 8 KiB, 32 KiB, 1 MiB: 45 nm 10, 20, 100 pJ; 7 nm 7.5, 8.5, 14 pJ (same table). The law
# a + b sqrt(KiB), wires as long as the side of the array, fits both by relative least squares within 4.5 % and 2.7 %.
SRAM_PJ_PER_64_BIT = {45: (10.0, 20.0, 100.0), 7: (7.5, 8.5, 14.0)}
SRAM_KIB = (8.0, 32.0, 1024.0)
_SRAM_LAW = {45: (1.28492749, 3.15190092), 7: (7.03584409, 0.21946039)}

# The store beside a PE per byte, in int8 MACs: MAESTRO's L1 constant [released code], there from CACTI.
LOCAL_MACS_PER_BYTE = 1.68

# 5 nm against 7 nm: "about -30 % power at equal speed" [memory: foundry's announcement]; SRAM hardly scales and is kept.
_5NM_LOGIC = 0.7


def between_nodes(at_45, at_7, node_nm: float):
    """A quantity at a node, elementwise, from its values at 45 and 7 nm: a power of the node [assumed]. Beyond 45 nm the
    same power goes on; below 7 nm the value stays (`mac_j` states the one exception)."""
    weight = max(math.log(node_nm / 7.0) / math.log(45.0 / 7.0), 0.0)
    return at_45**weight * at_7 ** (1.0 - weight)


def mac_j(node_nm: float, precision: str = "int8") -> float:
    """Energy of a multiply-accumulate, J: `MAC_PARTS` at the node. Raises ValueError for an unknown precision."""
    if precision not in MAC_PARTS:
        raise unknown_name("precision", precision, MAC_PARTS)
    logic = _5NM_LOGIC if node_nm < 7 else 1.0
    return PJ * logic * sum(between_nodes(*OPERATIONS_PJ[part], node_nm) for part in MAC_PARTS[precision])


def sram_j_per_byte(node_nm: float, capacity_bytes):
    """Energy of an access to an SRAM of this size, J per byte; elementwise and differentiable in the size."""
    root = (capacity_bytes / 1024.0) ** 0.5
    at_45, at_7 = (a + b * root for a, b in (_SRAM_LAW[45], _SRAM_LAW[7]))
    return PJ / 8.0 * between_nodes(at_45, at_7, node_nm)


def local_j_per_byte(node_nm: float) -> float:
    """Energy of an access to the store beside a PE, J per byte."""
    return LOCAL_MACS_PER_BYTE * mac_j(node_nm, "int8")


class MemoryKind(NamedTuple):
    """Energy per bit moved; price per bandwidth (0: no published price, so nothing is charged); where from."""

    pj_per_bit: float
    usd_per_gb_per_s: float
    source: str


_NO_PRICE = "no published price: 0"
MEMORY_KINDS = {
    "hbm2": MemoryKind(3.9, 320 / 819, "250 pJ per 64 bit, O'Connor, MICRO 2017 [secondary]; price Gemini's of HBM [released code]"),
    "hbm2e": MemoryKind(6.0, 320 / 819, "'average device power' [vendor]; price Gemini's of HBM [released code]"),
    "hbm3": MemoryKind(4.0, 320 / 819, "3.5-4.5 [memory]; price Gemini's of HBM [released code]"),
    "hbm3e": MemoryKind(3.5, 320 / 819, "3-4 [memory], one page says 7-9; price Gemini's of HBM [released code]"),
    "gddr6": MemoryKind(7.5, 0.0, f"device [vendor]; {_NO_PRICE}"),
    "gddr6x": MemoryKind(7.25, 3.5 / 56, "device [vendor], Gemini uses 10.5; 3.50 USD per 56 GB/s, Gemini [released code]"),
    "lpddr5": MemoryKind(5.0, 0.0, f"4-6 [memory]; {_NO_PRICE}"),
    "ddr5": MemoryKind(15.0, 0.0, f"10-20 with PHY [memory]; {_NO_PRICE}"),
    "ddr4": MemoryKind(17.5, 0.0, f"15-20 with PHY [memory]; {_NO_PRICE}"),
    "ddr3": MemoryKind(1300 / 64, 0.0, f"1300 pJ per 64 bit, Horowitz [secondary]; {_NO_PRICE}"),
}  # fmt: skip


class LinkKind(NamedTuple):
    """Energy per bit and hop, and PHY area per GB/s of one direction at either end (0: no source), of a packaging."""

    pj_per_bit: float
    phy_mm2_per_gb_per_s: float
    source: str


# PHY areas of usr, ucie and xsr: [inferred] from areas that Gemini printed with 16 GB/s links; a chiplet with 12 of them is
# larger by 12 times one number, the four I/O dies by the same 12 together (calibration/_gemini_cost.py checks every row).
_PRINTED = "PHY area inferred from Gemini's printed die areas"
_USR_12 = LinkKind(2.4, 4.863 / 12 / 16, f"Gemini, 12 nm [released code]; {_PRINTED}")
_USR_7 = LinkKind(1.7, 4.087 / 12 / 16, f"Gemini, 7 nm [released code]; {_PRINTED}")
LINK_KINDS = ("usr", "xsr", "ucie", "nvlink-c2c", "serdes-112g", "nvlink-3", "nvlink-4", "pcie-5", "grs", "scar-nop")
_LINKS = {
    "xsr": LinkKind(
        97.44 / 112, 2.431 / 12 / 16, f"97.44 mW a saturated 112G lane, Gemini [released code]; {_PRINTED}"
    ),
    "nvlink-c2c": LinkKind(1.3, 0.0, "[secondary]; no area"),
    "serdes-112g": LinkKind(5.5, 0.0, "112G long reach [secondary]; no area"),
    "nvlink-3": LinkKind(9.0, 0.0, "8-10 [memory]; no area"),
    "nvlink-4": LinkKind(6.5, 0.0, "5-8 [memory]; no area"),
    "pcie-5": LinkKind(6.0, 0.0, "5-7 [memory]; no area"),
    "grs": LinkKind(1.285, 0.0, "Simba, 0.82-1.75 [memory]; no area"),
    "scar-nop": LinkKind(2.04, 0.0, "SCAR, arXiv 2405.00790 [paper]; no area"),
}
_UCIE = {
    "organic": LinkKind(1.0, 1.459 / 12 / 16, f"Gemini [released code], 0.5 in two other sources; {_PRINTED}"),
    "fan-out": LinkKind(0.6, 0.3355 / 12 / 16, f"Gemini [released code]; {_PRINTED}"),
    "silicon": LinkKind(0.3, 1 / 1350, "Gemini [released code], 0.25 in UCIe's; 1.35 TB/s/mm2 at 45 um bumps [secondary]"),
}  # fmt: skip


def link(kind: str, node_nm: float, packaging: str) -> LinkKind:
    """The link of this name between dies of this node in this packaging. Raises ValueError for an unknown name."""
    if kind == "usr":  # the only one with a figure for two nodes
        return _USR_7 if node_nm <= 7 else _USR_12
    if kind == "ucie":
        return _UCIE[packaging]
    if kind not in _LINKS:
        raise unknown_name("link kind", kind, LINK_KINDS)
    return _LINKS[kind]


def memory(kind: str) -> MemoryKind:
    """The memory of this name. Raises ValueError for an unknown name."""
    if kind not in MEMORY_KINDS:
        raise unknown_name("memory kind", kind, MEMORY_KINDS)
    return MEMORY_KINDS[kind]
