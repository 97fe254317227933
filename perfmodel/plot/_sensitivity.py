"""Which hardware parameter moves a metric, and by how much? A tornado plot."""

import os
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UP, _DOWN = "#0072B2", "#D55E00"  # Okabe and Ito 2008
_WIDTH_PX, _ROW_PX, _FRAME_PX, _DPI = 1500, 44, 330, 150
_CHANGE = 0.1
_LEAST = 1e-3  # weaker parameters are not drawn: 0.01 % for 10 %


def plot_sensitivities(
    path: str | os.PathLike,
    names: list[str],
    elasticity: Float[np.ndarray, "P"],
    *,
    metric: str,
    title: str,
    trend: Bool[np.ndarray, "P"] | None = None,
    top: int = 16,
) -> "Figure":
    """Draw the strongest of `P` parameters of one metric to an image file, the strongest on top.

    A bar to either side: what the metric does when the parameter grows or shrinks by 10 %, by its elasticity, d log(metric) /
    d log(parameter). Lengths are written beside the bars.

    **Arguments:** `names`: of the parameters, with their values.  `trend`: which slopes are of a smoothed model: marked `~`.

    **Returns:** the figure.

    Raises ValueError in one line for slopes that are not finite, or not one for each name."""
    column, trend = (
        np.asarray(elasticity, np.float64),
        np.zeros(len(names), bool) if trend is None else np.asarray(trend),
    )
    if column.shape != (len(names),) or trend.shape != (len(names),):
        raise ValueError(
            f"elasticity has shape {column.shape}, trend {trend.shape}; needed: ({len(names)},), as there are names"
        )
    if not np.all(np.isfinite(column)):
        p = int(np.flatnonzero(~np.isfinite(column))[0])
        raise ValueError(f"sensitivity of {metric} to {names[p]} is {column[p]}; allowed: finite numbers")
    strong = [int(p) for p in np.argsort(-np.abs(column), kind="stable") if abs(column[p]) >= _LEAST]
    shown = strong[:top]

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = _FRAME_PX + _ROW_PX * max(len(shown), 3)
    fig = Figure(figsize=(_WIDTH_PX / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(fig)
    ax = fig.subplots()
    up, down = (100 * ((1 + change) ** column[shown] - 1) for change in (_CHANGE, -_CHANGE))
    places = np.arange(len(shown))
    ax.barh(places, up, height=0.62, color=_UP, label="parameter + 10 %")
    ax.barh(places, down, height=0.62, color=_DOWN, label="parameter - 10 %")
    reach = max(np.max(np.abs([up, down])), 1e-3) if len(shown) else 1.0
    for place, values in enumerate(zip(up, down, strict=True)):
        for value in values:
            side = "left" if value >= 0 else "right"
            text = f"{value:+.1f} %" if abs(value) >= 0.995 else f"{value:+.2f} %"
            ax.annotate(text, (value, place), (4 if value >= 0 else -4, 0), textcoords="offset points", ha=side, va="center",
                        fontsize=8, color="#333333")  # fmt: skip
    ax.set_yticks(places, [names[p] + (" ~" if trend[p] else "") for p in shown], fontsize=9)
    ax.invert_yaxis()
    ax.set_xlim(-1.22 * reach, 1.22 * reach)  # room for the numbers
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:+g} %" if value else "0")
    ax.set_xlabel(f"change of {metric}")
    ax.axvline(0.0, color="#333333", linewidth=0.8)
    ax.grid(True, axis="x", color="#E6E6E6", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if not shown:
        ax.text(0.5, 0.5, "no parameter has any influence", transform=ax.transAxes, ha="center", va="center")
    fig.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    if shown:
        fig.legend(loc="outside upper right", ncols=2, fontsize=9, frameon=False)
    weaker = len(strong) - len(shown)
    said = ["Local slopes at this schedule (d log / d log), extended to 10 %."]
    if np.any(trend[shown]):
        said.append("~: counted in whole steps, slope of the smoothed model.")
    if weaker:
        said.append(f"Not drawn: {weaker} weaker.")
    fig.supxlabel(" ".join(said), x=0.01, ha="left", fontsize=8, color="#444444")
    fig.savefig(path, dpi=_DPI)
    return fig
