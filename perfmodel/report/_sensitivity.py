"""Which hardware parameter is worth changing: d log(metric) / d log(parameter) of all of them, by autodiff.

Parameters are those of a system file: of every chiplet *type* in use (its chiplets change together), memory, package and
technology. Gradients hold discrete choices (schedule, tiling, what fits) fixed, so a time that depends on a parameter only
through whole steps (rows and columns of the array, lanes, what a buffer of some size can hold) has slope zero almost everywhere,
which says nothing. For those four fields the slope is that of the smooth model (`evaluate(smooth=True)`): ceilings and fits
smoothed, the trend across steps. They are marked (`smooth`). All others are slopes of the exact model.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._names import unknown_name
from ..hardware import System
from ..schedule import Schedule, evaluate
from ..workload import Workload

METRICS = {
    "throughput": "throughput_per_s", "latency": "latency_s", "energy": "energy_j", "edp": "edp_js", "power": "power_w",
    "area": "area_mm2", "cost": "cost_usd",
}  # fmt: skip
STEPPING = ("rows", "columns", "lanes", "buffer_bytes")
# Field -> (word, unit to print, SI units in it).
_CHIPLET = {
    "rows": ("array rows", "", 1), "columns": ("array columns", "", 1), "clock_hz": ("clock", "GHz", 1e9),
    "lanes": ("vector lanes", "", 1), "buffer_bytes": ("buffer size", "MB", 1e6),
    "buffer_bytes_per_s": ("buffer bandwidth", "GB/s", 1e9), "launch_s": ("launch overhead", "us", 1e-6),
    "mac_j": ("MAC energy", "pJ", 1e-12), "lane_op_j": ("lane energy", "pJ", 1e-12),
    "local_j_per_byte": ("local store energy", "pJ/B", 1e-12), "buffer_j_per_byte": ("buffer energy", "pJ/B", 1e-12),
    "static_w": ("static power", "W", 1), "other_mm2": ("other area", "mm2", 1),
}  # fmt: skip
_MEMORY = {
    "capacity_bytes": ("capacity", "GB", 1e9), "bytes_per_s": ("bandwidth", "GB/s", 1e9), "latency_s": ("latency", "ns", 1e-9),
    "j_per_byte": ("energy", "pJ/B", 1e-12), "static_w": ("static power", "W", 1), "usd": ("price", "USD", 1),
    "write_bytes_per_s": ("write bandwidth", "GB/s", 1e9), "copy_bytes_per_s": ("copy bandwidth", "GB/s", 1e9),
}  # fmt: skip
# Bandwidths of a tier that change with `bytes_per_s` where they are the same number, and are parameters of their own elsewhere.
_WITH_READING = ("write_bytes_per_s", "copy_bytes_per_s")
_PACKAGE = {
    "link_bytes_per_s": ("link bandwidth", "GB/s", 1e9), "port_bytes_per_s": ("port bandwidth", "GB/s", 1e9),
    "hop_s": ("hop latency", "ns", 1e-9), "hop_j_per_byte": ("hop energy", "pJ/B", 1e-12),
}  # fmt: skip
_TECHNOLOGY = {
    "mac_mm2": ("MAC area", "um2", 1e-6), "sram_mm2_per_bit": ("SRAM area per bit", "um2", 1e-6),
    "layout_factor": ("layout factor", "", 1), "wafer_usd": ("wafer price", "USD", 1),
    "defects_per_cm2": ("defect density", "/cm2", 1), "yield_layers": ("yield clustering", "", 1),
}  # fmt: skip
_PACKAGING = {
    "bump_usd_per_mm2": ("bump price", "USD/mm2", 1), "substrate_usd_per_mm2": ("substrate price", "USD/mm2", 1),
    "bonding_yield": ("bonding loss", "", 1), "package_yield": ("package loss", "", 1),
    "carrier_area_factor": ("carrier area factor", "", 1), "carrier_wafer_usd": ("carrier wafer price", "USD", 1),
    "carrier_defects_per_cm2": ("carrier defect density", "/cm2", 1), "carrier_layers": ("carrier yield clustering", "", 1),
    "io_die_mm2": ("I/O die area", "mm2", 1), "phy_mm2_per_bytes_per_s": ("PHY area per GB/s", "mm2", 1e-9),
}  # fmt: skip


@dataclass(frozen=True)
class Sensitivities:
    """`P` parameters by name, `M` metrics. `elasticity[p, m]` = d log(metric) / d log(parameter).

    - `values`: of the parameters, in `units` (as printed).  `smooth[p]`: slope of the smooth model (see the module), except of
      area and price, which know no steps.
    - `base`: the metrics themselves, exact.
    """

    names: list[str]
    values: np.ndarray
    units: list[str]
    smooth: np.ndarray
    metrics: list[str]
    base: np.ndarray
    elasticity: np.ndarray

    def column(self, metric: str) -> np.ndarray:
        """`[P]` of one metric. Raises ValueError for one that was not asked for."""
        if metric not in self.metrics:
            raise unknown_name("metric", metric, self.metrics)
        return self.elasticity[:, self.metrics.index(metric)]

    def sentence(self, p: int, metric: str) -> str:
        """`10 % more dram bandwidth gives 4.1 % more throughput.`"""
        change = 1.1 ** float(self.column(metric)[p]) - 1
        return (
            f"10 % more {self.names[p]} gives {100 * abs(change):.2g} % {'more' if change >= 0 else 'less'} {metric}."
        )

    def label(self, p: int) -> str:
        """Name and value: `dram bandwidth, 64 GB/s`."""
        return f"{self.names[p]}, {self.values[p]:.4g} {self.units[p]}".rstrip()

    def is_trend(self, p: int, metric: str) -> bool:
        """Whether this slope is that of the smooth model."""
        return bool(self.smooth[p]) and metric not in ("area", "cost")

    def strongest(self, metric: str, top: int) -> list[int]:
        """At most `top` parameters with any influence worth printing (0.01 % for 10 %), the strongest first."""
        column = self.column(metric)
        return [int(p) for p in np.argsort(-np.abs(column), kind="stable")[:top] if abs(column[p]) >= 1e-3]

    def rows(self) -> list[dict]:
        """One dictionary of plain numbers a parameter, for JSON and CSV."""
        return [
            dict(
                parameter=n,
                value=float(v),
                unit=u,
                smooth=bool(s),
                **dict(zip(self.metrics, map(float, e), strict=True)),
            )
            for n, v, u, s, e in zip(self.names, self.values, self.units, self.smooth, self.elasticity, strict=True)
        ]


@dataclass(frozen=True)
class _Parameter:
    """`where`: attributes from the system to the array; `index`: entries of it that change together (None: all); `also`: other
    arrays whose same entries change with it."""

    name: str
    unit: str
    si: float
    where: tuple[str, ...]
    index: tuple[int, ...] | None = None
    loss: bool = False  # the parameter is 1 - value
    also: tuple[tuple[str, ...], ...] = ()


def parameters(system: System) -> list[_Parameter]:
    """Every parameter of a system that is not zero: of chiplet types in use, memory tiers, package, technology."""
    found = []
    kinds = np.asarray(system.kind)
    for kind in dict.fromkeys(kinds.tolist()):
        mine = tuple(np.flatnonzero(kinds == kind).tolist())
        for field, (word, unit, si) in _CHIPLET.items():
            found.append(_Parameter(f"{system.type_names[kind]} {word}", unit, si, ("chiplets", field), mine))
    for t, name in enumerate(system.memory.names):
        rates = [f for f in _WITH_READING if t > 0 or f != "copy_bytes_per_s"]  # the first tier is copied to no other
        with_reading = [f for f in rates if getattr(system.memory, f)[t] == system.memory.bytes_per_s[t]]
        for field, (word, unit, si) in _MEMORY.items():
            if field in with_reading or (field in _WITH_READING and field not in rates):
                continue
            also = tuple(("memory", f) for f in with_reading) if field == "bytes_per_s" else ()
            found.append(_Parameter(f"{name} {word}", unit, si, ("memory", field), (t,), also=also))
    if system.n_chiplets > 1:
        found += [_Parameter(word, unit, si, ("package", field)) for field, (word, unit, si) in _PACKAGE.items()]
    found += [_Parameter(word, unit, si, ("technology", field)) for field, (word, unit, si) in _TECHNOLOGY.items()]
    for field, (word, unit, si) in _PACKAGING.items():
        found.append(_Parameter(word, unit, si, ("technology", "packaging", field), loss=field.endswith("_yield")))
    return [p for p in found if np.any(_value(system, p))]


def _array(system: System, where: tuple[str, ...]):
    for name in where:
        system = getattr(system, name)
    return system


def _value(system: System, p: _Parameter) -> np.ndarray:
    array = np.asarray(_array(system, p.where), np.float64)
    array = 1.0 - array if p.loss else array
    return array if p.index is None else array[list(p.index)]


def scaled(system: System, which: list[_Parameter], log_scale: Float[Array, "P"]) -> System:
    """The system with parameter p times `exp(log_scale[p])`; differentiable."""
    values: dict[tuple[str, ...], Float[Array, "..."]] = {}
    for i, p in enumerate(which):
        change = jnp.exp(log_scale[i])
        for where in (p.where, *p.also):
            now = values.get(where, jnp.asarray(_array(system, where), jnp.result_type(float)))
            if p.index is not None:
                values[where] = jnp.where(np.isin(np.arange(len(now)), p.index), now * change, now)
            else:
                values[where] = 1.0 - (1.0 - now) * change if p.loss else now * change
    return eqx.tree_at(lambda s: [_array(s, where) for where in values], system, list(values.values()))


def sensitivities(workload: Workload, system: System, schedule: Schedule, metrics=("throughput", "latency", "energy", "cost"), *,
                  temperature=0.05) -> Sensitivities:  # fmt: skip
    """d log(metric) / d log(parameter) of every parameter of a system under a schedule.

    **Arguments:** `metrics`: of `METRICS`.  `temperature`: of the smooth model, for the fields in `STEPPING`.

    Raises ValueError for an unknown metric, or chiplets that are mixtures of types."""
    metrics = list(metrics)
    for name in metrics:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    if not np.issubdtype(np.asarray(system.kind).dtype, np.integer):
        raise ValueError(f"{system.name}: chiplets are mixtures of types; sensitivities need one type each")
    which = parameters(system)
    stepping = np.asarray([p.where[-1] in STEPPING for p in which])
    elasticity, base = np.zeros((len(which), len(metrics))), np.zeros(len(metrics))
    for smooth, rows in ((True, np.flatnonzero(stepping)), (False, np.flatnonzero(~stepping))):
        these = tuple(which[p] for p in rows)
        base, slopes = _slopes(workload, system, schedule, temperature, these, tuple(metrics), smooth)
        elasticity[rows] = np.asarray(slopes, np.float64).T
    values = np.asarray([_value(system, p).reshape(-1)[0] / p.si for p in which])
    names, units = [p.name for p in which], [p.unit for p in which]
    return Sensitivities(names, values, units, stepping, metrics, np.asarray(base, np.float64), elasticity)


@eqx.filter_jit
def _slopes(workload, system, schedule, temperature, which, metrics, smooth):
    """The metrics, `[M]`, and derivatives of their logarithms, `[M, P]`: forward, which compiles faster than reverse."""

    def logs(log_scale):
        found = evaluate(
            workload, scaled(system, list(which), log_scale), schedule, smooth=smooth, temperature=temperature
        )
        values = jnp.stack([getattr(found, METRICS[m]) for m in metrics])
        return jnp.log(values), values

    slopes, values = jax.jacfwd(logs, has_aux=True)(jnp.zeros(len(which), jnp.result_type(float)))
    return values, slopes
