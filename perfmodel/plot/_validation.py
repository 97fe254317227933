"""Is the model right? Predicted against reference, a panel a quantity, with bands of error."""

import math
import os
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from ..calibration import Comparison, figures
from ._pareto import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DPI = 150
_PANEL_IN = (4.6, 4.3)
_LEGEND_IN = 2.4
_LEGEND_ROWS = 18  # groups named in the legend; the smallest of more share one grey row
_BANDS = ((2.0, "#EFEFEF", "within 2x"), (1.1, "#D2D2D2", "within 10 %"))


def plot_validation(path: str | os.PathLike, comparisons: list[Comparison], title: str) -> "Figure":
    """Draw predicted against reference values, log-log, to a PNG file: one panel a quantity, one colour a group.

    The line of equality, and bands of a factor of 1.1 and of 2 about it. Rows in which either value is not positive are
    counted in their panel, not drawn.

    **Returns:** the figure.

    Raises ValueError if there is nothing to draw, or as `figures` does.
    """
    if not comparisons:
        raise ValueError("comparisons is empty; needed: at least one quantity")
    answer = figures(comparisons)

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, math.ceil(math.sqrt(len(comparisons))))
    rows = math.ceil(len(comparisons) / columns)
    styles = _styles(comparisons)
    beside = max(_LEGEND_IN, 0.6 + 0.075 * max(len(name) for name in styles))
    size = (columns * _PANEL_IN[0] + beside, rows * _PANEL_IN[1] + 0.5)
    fig = Figure(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(fig)
    for i, comparison in enumerate(comparisons, start=1):
        ax = fig.add_subplot(rows, columns, i)
        _panel(ax, comparison, styles)
        whole = answer[comparison.quantity]["all"]
        mape = whole["mape_percent"]
        said = "no finite MAPE" if mape is None else "MAPE 0 %" if mape < 1e-9 else f"MAPE {mape:.3g} %"
        ax.set_title(
            f"{comparison.quantity}\n{whole['rows']:,} rows, {whole['exact']:,} exact, {said}", fontsize=10, loc="left"
        )
    fig.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    fig.legend(
        handles=_legend(styles, comparisons), loc="outside right upper", fontsize=9, alignment="left", frameon=False
    )
    fig.draw_without_rendering()  # the layout settles in a second pass: ticks of square panels depend on their size
    fig.savefig(path, dpi=_DPI, format="png")
    return fig


def _styles(comparisons: list[Comparison]) -> dict[str, dict]:
    """Colour and marker of each group, the largest first; grey for the smallest of too many."""
    rows = Counter(g for c in comparisons for g in c.group)
    ranked = [name for name, _ in rows.most_common()]
    named = len(ranked) if len(ranked) <= _LEGEND_ROWS else _LEGEND_ROWS - 1
    kept = sorted(ranked[:named])
    return {
        name: dict(color=OKABE_ITO[i % len(OKABE_ITO)], marker=_MARKERS[(i + i // len(OKABE_ITO)) % len(_MARKERS)])
        for i, name in enumerate(kept)
    } | {name: dict(color="#8A8A8A", marker=".") for name in ranked[named:]}


def _panel(ax, comparison: Comparison, styles: dict[str, dict]) -> None:
    predicted, reference = np.asarray(comparison.predicted, float), np.asarray(comparison.reference, float)
    labels, drawn = np.asarray(comparison.group, str), (predicted > 0) & (reference > 0)
    ax.set_xlabel(f"reference ({comparison.unit})", fontsize=10)
    ax.set_ylabel(f"predicted ({comparison.unit})", fontsize=10)
    if left_out := int((~drawn).sum()):
        ax.text(
            0.98,
            0.02,
            f"not drawn: {left_out:,} with a value of zero or less",
            transform=ax.transAxes,
            ha="right",
            fontsize=8,
        )
    if not drawn.any():
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_box_aspect(1)
        return
    both = np.concatenate([predicted[drawn], reference[drawn]])
    margin = max(1.3, (both.max() / both.min()) ** 0.06)
    ends = np.asarray([both.min() / margin, both.max() * margin])
    for factor, colour, _ in _BANDS:
        ax.fill_between(ends, ends / factor, ends * factor, color=colour, linewidth=0, zorder=0)
    ax.plot(ends, ends, color="#444444", linewidth=0.9, zorder=1)
    size = 26.0 if drawn.sum() <= 150 else 12.0 if drawn.sum() <= 1500 else 6.0
    for name, style in styles.items():
        mine = drawn & (labels == name)
        if mine.any():
            ax.scatter(
                reference[mine], predicted[mine], s=size, alpha=0.75, linewidths=0, zorder=2, rasterized=True, **style
            )
    _axes(ax, ends)


def _axes(ax, ends) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    decades = np.log10(ends[1] / ends[0])
    subs = (1.0, 2.0, 3.0, 5.0, 7.0) if decades < 1 else (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
    for axis in (ax.xaxis, ax.yaxis):
        (ax.set_xscale if axis is ax.xaxis else ax.set_yscale)("log")
        axis.set_major_locator(LogLocator(subs=subs, numticks=8))
        axis.set_major_formatter(FuncFormatter(_tick))
        axis.set_minor_formatter(NullFormatter())
        if decades > 6:
            axis.set_minor_locator(NullLocator())
    ax.set_xlim(*ends)
    ax.set_ylim(*ends)
    ax.set_box_aspect(1)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=9)
    ax.spines[["top", "right"]].set_visible(False)


def _tick(value: float, _) -> str:
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    power = math.floor(math.log10(value) + 1e-9)
    lead = round(value / 10.0**power, 6)
    return f"$10^{{{power}}}$" if lead == 1 else f"${lead:g}\\times10^{{{power}}}$"


def _legend(styles: dict[str, dict], comparisons: list[Comparison]) -> list:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    named = [(name, style) for name, style in styles.items() if style["marker"] != "."]
    handles: list = [Line2D([], [], linestyle="none", label=name, markersize=6, **style) for name, style in named]
    if rest := len(styles) - len(named):
        handles.append(Line2D([], [], linestyle="none", label=f"{rest} more groups", color="#8A8A8A", marker="."))
    handles.append(Line2D([], [], color="#444444", linewidth=0.9, label="predicted = reference"))
    return handles + [Patch(color=colour, label=label) for _, colour, label in reversed(_BANDS)]
