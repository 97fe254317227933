"""What a system file says of silicon: process, packaging, areas; and what it leaves out and the technology knows."""

from typing import Any

import msgspec

from .._names import unknown_name
from . import _energy_table as energies
from ._quantity import quantity
from ._technology import PACKAGINGS, TECHNOLOGIES, YIELD_MODELS, Technology, packaging, technology

Amount = float | str


class TechnologyChoice(msgspec.Struct, forbid_unknown_fields=True):
    """`technology:` as a mapping, where more than the name of the node is said."""

    node: str
    wafer_price: Amount | None = None
    defects_per_cm2: float | None = None
    yield_model: str = YIELD_MODELS[0]


def read_technology(where: str, choice: str | TechnologyChoice, package: Any) -> Technology:
    """The process and packaging of a file; `package`: its section of that name, or None.

    Raises ValueError in one line naming file, field, value and what is allowed."""
    said = TechnologyChoice(choice) if isinstance(choice, str) else choice
    at = f"{where}: technology" + ("" if isinstance(choice, str) else ".node")
    if said.node not in TECHNOLOGIES:
        raise unknown_name(at, said.node, TECHNOLOGIES)
    if said.yield_model not in YIELD_MODELS:
        raise unknown_name(f"{where}: technology.yield_model", said.yield_model, YIELD_MODELS)
    changes = {}
    if said.wafer_price is not None:
        changes["wafer_usd"] = quantity(said.wafer_price, "usd", f"{where}: technology.wafer_price")
    if said.defects_per_cm2 is not None:
        if not 0 <= said.defects_per_cm2 < float("inf"):
            raise ValueError(
                f"{where}: technology.defects_per_cm2 is {said.defects_per_cm2}; allowed: a finite number of at least 0"
            )
        changes["defects_per_cm2"] = said.defects_per_cm2
    process = technology(said.node, yield_model=said.yield_model, **changes)
    if package is None:
        return process
    return technology(said.node, _packaging(where, package, process), yield_model=said.yield_model, **changes)


def _packaging(where: str, package: Any, process: Technology):
    if package.packaging not in PACKAGINGS:
        raise unknown_name(f"{where}: package.packaging", package.packaging, PACKAGINGS)
    if package.io_dies < 0:
        raise ValueError(f"{where}: package.io_dies is {package.io_dies}; allowed: an integer of at least 0")
    phy = package.phy_area
    if package.link_kind is not None:
        if package.link_kind not in energies.LINK_KINDS:
            raise unknown_name(f"{where}: package.link_kind", package.link_kind, energies.LINK_KINDS)
        if phy is None:
            phy = energies.link(package.link_kind, process.node_nm, package.packaging).phy_mm2_per_gb_per_s / 1e9
    return packaging(
        package.packaging,
        io_dies=package.io_dies,
        io_die_mm2=quantity(package.io_die_area, "mm2", f"{where}: package.io_die_area", zero=package.io_dies == 0),
        phy_mm2_per_bytes_per_s=quantity(phy or 0.0, "mm2_per_bytes_per_s", f"{where}: package.phy_area", zero=True),
    )


def link_j_per_byte(kind: str, process: Technology) -> float:
    """Energy of a hop over links of this kind."""
    return energies.link(kind, process.node_nm, process.packaging.kind).pj_per_bit * 8e-12


def chiplet_defaults(where: str, t: Any, process: Technology) -> Any:
    """The chiplet type `t` with everything that its technology knows. Raises ValueError naming the field."""
    if t.precision not in energies.PRECISIONS:
        raise unknown_name(f"{where}.precision", t.precision, energies.PRECISIONS)
    node = process.node_nm
    buffer = quantity(t.buffer, "bytes", f"{where}.buffer")
    mac = energies.mac_j(node, t.precision)
    known = dict(
        mac_energy=mac, lane_energy=mac, local_energy=energies.local_j_per_byte(node),
        buffer_energy=energies.sram_j_per_byte(node, buffer), other_area=_other_mm2(where, t, buffer, process),
    )  # fmt: skip
    area = float(process.logic_mm2(t.rows, t.columns, buffer)) + quantity(
        known["other_area"], "mm2", f"{where}.other_area", zero=True
    )
    known["static_power"] = float(process.static_w_per_mm2) * area
    return msgspec.structs.replace(t, **{name: v for name, v in known.items() if getattr(t, name) is None})


def _other_mm2(where: str, t: Any, buffer: float, process: Technology) -> Amount:
    """What is neither MACs nor buffer: as stated, the rest of a stated die, or nothing."""
    if t.area is None:
        return 0.0 if t.other_area is None else t.other_area
    if t.other_area is not None:
        raise ValueError(f"{where}.other_area is {t.other_area!r}; allowed: this or area, not both")
    whole, known = quantity(t.area, "mm2", f"{where}.area"), float(process.logic_mm2(t.rows, t.columns, buffer))
    if whole < known:
        raise ValueError(
            f"{where}.area is {t.area!r}; allowed: at least {known:.4g} mm2, what MACs and buffer take in {process.name}"
        )
    return whole - known


def memory_defaults(where: str, tier: Any) -> Any:
    """The tier with energy and price of its kind where it states none. Raises ValueError naming the field."""
    if tier.kind is None:
        if tier.energy is None:
            raise ValueError(f"{where}.energy is missing; needed: joules per byte, e.g. 5 pJ/bit, or a kind")
        return msgspec.structs.replace(tier, price=0.0) if tier.price is None else tier
    if tier.kind not in energies.MEMORY_KINDS:
        raise unknown_name(f"{where}.kind", tier.kind, energies.MEMORY_KINDS)
    kind = energies.memory(tier.kind)
    bandwidth = quantity(tier.bandwidth, "bytes_per_s", f"{where}.bandwidth")
    known = dict(energy=kind.pj_per_bit * 8e-12, price=kind.usd_per_gb_per_s * bandwidth / 1e9)
    return msgspec.structs.replace(tier, **{name: v for name, v in known.items() if getattr(tier, name) is None})
