"""Reports as text for a person."""

from collections.abc import Callable

import numpy as np

from .._names import unknown_name
from ._operators import ENERGY, OperatorReport
from ._sensitivity import Sensitivities

ORDERS = ("latency", "energy", "memory")


def operators_text(
    report: OperatorReport, top: int = 15, by: str = "latency", mapping: Callable[[int], str] | None = None
) -> str:
    """The `top` operators by what they add to a round, and what bounds all of them.

    **Arguments:** `by`: one of `ORDERS` (time computing, energy, bytes from and to memory).  `mapping`: text of row i's mapping
    (a loop nest, any number of lines), printed below its line; None: none.

    Raises ValueError for an unknown order."""
    if by not in ORDERS:
        raise unknown_name("by", by, ORDERS)
    time, energy = report.latency_s * report.rate, report.total_j * report.rate
    weight = {"latency": time, "energy": energy, "memory": report.memory_bytes.sum(0) * report.rate}[by]
    shown = np.argsort(-weight, kind="stable")[:top]
    wide = max((len(report.names[i]) for i in shown), default=8) + 2
    bound = max((len(report.bound[i]) for i in shown), default=8) + 2
    parts = "".join(f"{part:>8}" for part in ENERGY)
    lines = [
        f"{'operator':{wide}}{'chiplet':10}{'us':>10}{'time':>7}{'wait us':>10}{'util':>7}  {'bound':{bound}}{'uJ':>10}{'energy':>7}"
        f"{'MB moved':>10} |{parts}"
    ]
    for i in shown:
        split = "".join(f"{report.energy_j[part][i] / max(report.total_j[i], 1e-300):8.1%}" for part in ENERGY)
        lines.append(
            f"{report.names[i]:{wide}}{report.chiplets[i]:10}{report.latency_s[i] * 1e6:10.4g}{_of(time, i):7.1%}"
            f"{report.wait_s[i] * 1e6:10.4g}{report.utilisation[i]:7.1%}  {report.bound[i]:{bound}}{report.total_j[i] * 1e6:10.4g}"
            f"{_of(energy, i):7.1%}{report.memory_bytes[:, i].sum() / 1e6:10.4g} |{split}"
        )
        if mapping is not None:
            lines += [f"    {line}" for line in mapping(int(i)).splitlines()]
    rest = len(report.names) - len(shown)
    if rest:
        left = 1 - sum(_of(time, i) for i in shown), 1 - sum(_of(energy, i) for i in shown)
        lines.append(f"... and {rest} more operators: {left[0]:.1%} of the time, {left[1]:.1%} of the energy")
    lines.append("time and energy: share of a round; us, uJ, MB: of one pass; the split is of the operator's energy")
    if len(report.tiers) > 1:
        for name, of in zip(report.tiers, report.memory_bytes, strict=True):
            total = float(np.sum(of * report.rate))
            lines.append(f"memory {name:14}{total / 1e6:10.4g} MB a round")
    for kind in dict.fromkeys(report.bound):
        mine = np.asarray([b == kind for b in report.bound])
        lines.append(f"bound by {kind:14}{mine.sum():6} operators, {time[mine].sum() / time.sum():6.1%} of the time computing, "
                     f"{energy[mine].sum() / energy.sum():6.1%} of the energy")  # fmt: skip
    return "\n".join(lines)


def _of(values: np.ndarray, i) -> float:
    return float(values[i] / max(values.sum(), 1e-300))


def sensitivities_text(found: Sensitivities, metric: str, top: int = 15) -> str:
    """The strongest parameters of one metric, in words and as a table. Raises ValueError for a metric that was not asked for."""
    column = found.column(metric)
    strongest = found.strongest(metric, top)
    lines = [found.sentence(i, metric) for i in strongest[:3]]
    wide = max((len(found.names[i]) for i in strongest), default=9) + 2
    lines.append(
        f"{'parameter':{wide}}{'value':>12}  {'unit':8}{'d log ' + metric + ' / d log p':>30}{'at +10 %':>10}{'at -10 %':>10}"
    )
    for i in strongest:
        mark = "~" if found.is_trend(i, metric) else " "
        up, down = (f ** column[i] - 1 for f in (1.1, 0.9))
        lines.append(
            f"{found.names[i]:{wide}}{found.values[i]:12.5g}  {found.units[i]:8}{column[i]:29.4f}{mark}{up:10.2%}{down:10.2%}"
        )
    others = len(found.strongest(metric, len(column))) - len(strongest)
    silent = len(column) - len(strongest) - others
    trend = any(found.is_trend(i, metric) for i in strongest)
    lines.append(f"not shown: {others} weaker parameters, and {silent} with less than 0.01 % for 10 %"
                 + ("; ~ counted in whole steps: slope of the smoothed model" if trend else ""))  # fmt: skip
    return "\n".join(lines)
