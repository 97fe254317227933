"""Areas and prices of chiplet packages against those that Gemini printed (HPCA 2024): `perfmodel validate gemini-cost`.

Prices are those of the functions behind `system_usd`, given the areas that the tool printed; areas those of
`chiplet_area_mm2` and `phy_area_mm2`, given the configuration. Two slips of the tool's prices are mended, both in the reference
or by what is left out of it, none in the model:

- memory costs 15.75 USD in every row, where 3.50 USD per 56 GB/s makes 9.00 for its 144 GB/s (an integer division): the
  reference of `cost_overall_usd` is corrected by the known 6.75, nothing else is changed;
- a silicon interposer is made on wafers of 0 USD (initialisation order): the file has no such rows; the model charges 1937.
"""

from pathlib import Path

import numpy as np

from ..cost import chiplet_area_mm2, known_good_die_usd, package_usd, phy_area_mm2
from ..hardware import Technology, stack_chiplets, technology
from ..hardware import _energy_table as energies
from ._comparison import Comparison
from ._table_file import Column, read_table

PACKAGES = {"OS": "organic", "FO": "fan-out", "SI": "silicon"}
_LINKS = {"USR": "usr", "UCIe": "ucie", "XSR": "xsr"}
_CORES, _MACS_PER_CORE, _MEMORY_GB_PER_S = 6, 1024, 144.0  # 6 x 6 cores; the same in all rows
_MEMORY_SLIP_USD = 15.75 - 9.00
_PRINTED = 5e-4  # figures are printed to a thousandth of a dollar or mm2, a few dollars being the least

# [inferred from these rows] Of a core at 12 nm, what MACs and buffer of the published densities leave unexplained: local
# stores, control, router; two numbers from the two buffer sizes (rows of 1 x 1 and 6 x 6 dies). And the four I/O dies
# without their die-to-die interfaces, the same at both nodes.
_CORE_OTHER_MM2, _CORE_OTHER_MM2_PER_KIB = 1.81748, 1.77757e-4
_IO_DIES_MM2 = 36.138

_COLUMNS = {
    "technology_nm": int, "chiplets_x": Column(int, least=1), "chiplets_y": Column(int, least=1),
    "package": Column(str, allowed=tuple(PACKAGES)), "d2d_io": Column(str, allowed=tuple(_LINKS)),
    "d2d_bandwidth_GBps": Column(float, least=0), "buffer_KiB_per_core": Column(float, least=0),
    "compute_die_area_mm2": Column(float, least=0), "io_dies_total_area_mm2": Column(float, least=0),
    "cost_dies_usd": float, "cost_package_usd": float, "cost_dies_plus_package_usd": float, "cost_overall_usd": float,
}  # fmt: skip


def compare(path: str | Path, parameters: str | Path | None = None) -> list[Comparison]:
    """Prices (USD) and areas (mm2) of every row; groups are node and package, `12nm organic`.

    **Arguments:** `path`: a CSV file as `tests/data/gemini_cost.csv`.  `parameters`: takes none.

    Raises ValueError in one line naming file, column and row; also where `parameters` is given."""
    if parameters is not None:
        raise ValueError(f"--parameters is {str(parameters)!r}; gemini-cost takes none")
    table = read_table(path, _COLUMNS)
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    predicted: dict[str, list[float]] = {}
    groups = []
    for i, row in enumerate(rows, start=1):
        try:
            process = technology(f"{row['technology_nm']}nm", PACKAGES[row["package"]])
        except ValueError as error:
            raise ValueError(f"{path}: row {i}, column technology_nm: {error}") from None
        for quantity, value in {**_prices(row, process), **_areas(row, process)}.items():
            predicted.setdefault(quantity, []).append(value)
        groups.append(f"{process.name} {process.packaging.kind}")
    reference = dict(table)
    reference["cost_overall_usd"] = table["cost_overall_usd"] - _MEMORY_SLIP_USD
    return [
        Comparison(
            name, "USD" if name.endswith("usd") else "mm2", np.asarray(values), reference[name], groups, _PRINTED
        )
        for name, values in predicted.items()
    ]


def _prices(row, process: Technology) -> dict[str, float]:
    """From the printed areas. A single die pays for no I/O dies, as in the tool (its area lists them)."""
    n = row["chiplets_x"] * row["chiplets_y"]
    n_io = 0 if n == 1 else 4
    dies = n * known_good_die_usd(row["compute_die_area_mm2"], process)
    area = n * row["compute_die_area_mm2"]
    if n_io:
        dies = dies + n_io * known_good_die_usd(row["io_dies_total_area_mm2"] / n_io, process)
        area = area + row["io_dies_total_area_mm2"]
    dies = float(dies)
    package = float(package_usd(dies, area, n + n_io, process))
    memory = energies.memory("gddr6x").usd_per_gb_per_s * _MEMORY_GB_PER_S
    return dict(
        cost_dies_usd=dies,
        cost_package_usd=package,
        cost_dies_plus_package_usd=dies + package,
        cost_overall_usd=dies + package + memory,
    )


def _areas(row, process: Technology) -> dict[str, float]:
    """From the configuration: interfaces at every core on an edge that another die touches (I/O dies: left and right)."""
    across, down = row["chiplets_x"], row["chiplets_y"]
    wide, high = _CORES / across, _CORES / down
    cores = wide * high
    link = energies.link(_LINKS[row["d2d_io"]], process.node_nm, process.packaging.kind)
    density, bandwidth = link.phy_mm2_per_gb_per_s / 1e9, row["d2d_bandwidth_GBps"] * 1e9
    other = _CORE_OTHER_MM2 + _CORE_OTHER_MM2_PER_KIB * row["buffer_KiB_per_core"]
    scale = float(process.mac_mm2 / technology("12nm").mac_mm2)
    die = stack_chiplets([
        dict.fromkeys(("clock_hz", "lanes", "buffer_bytes_per_s", "launch_s", "mac_j", "lane_op_j", "local_j_per_byte",
                       "buffer_j_per_byte", "static_w", "dataflow"), 0.0)
        | dict(rows=cores, columns=_MACS_PER_CORE, buffer_bytes=cores * row["buffer_KiB_per_core"] * 1024,
               other_mm2=cores * other * scale)
    ])  # fmt: skip
    one_die = across * down == 1
    edges = 0.0 if one_die else 2 * high + (2 * wide if down > 1 else 0.0)
    at_io_dies = 0.0 if one_die else 2.0 * _CORES
    return dict(
        compute_die_area_mm2=float(chiplet_area_mm2(die, process)[0] + phy_area_mm2(edges, bandwidth, density)),
        io_dies_total_area_mm2=_IO_DIES_MM2 + float(phy_area_mm2(at_io_dies, bandwidth, density)),
    )
