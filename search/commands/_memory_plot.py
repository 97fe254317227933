"""The front of latency against budget, and what each budget is spent on."""

import os

import numpy as np

from perfmodel.plot._pareto import OKABE_ITO

from ..memory._prices import TIERS

_DPI = 150


def plot_memory(path: str | os.PathLike, design, *, title: str):
    """Draw a `MemoryDesign` to a PNG file; returns the figure. Above: the front, the design and the system as it is. Below: capacity
    (solid) and bandwidth (dashed) of each tier along the front."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    money = design.unit == "usd"
    fig = Figure(figsize=(8.4, 8.2), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(fig)
    top, sizes, rates = fig.subplots(3, 1, sharex=True, height_ratios=(2.2, 1.4, 1.4))
    own = design.own_usd if money else design.own_power_w
    here = design.usd if money else design.power_w
    top.plot(
        design.front_budget, design.front_latency_s * 1e3, color=OKABE_ITO[0], marker="o", markersize=5, label="front"
    )
    top.plot([here], [design.latency_s * 1e3], marker="D", markersize=9, color=OKABE_ITO[1], markeredgecolor="#222222", linestyle="none",
             label="design at the budget")  # fmt: skip
    top.plot([own], [design.own_latency_s * 1e3], marker="s", markersize=9, color=OKABE_ITO[2], markeredgecolor="#222222",
             linestyle="none", label="the system as it is")  # fmt: skip
    top.set_ylabel("mean latency (ms)")
    top.set_yscale("log")
    top.set_title(title, loc="left", fontsize=11.5)
    top.legend(frameon=False, fontsize=9.5)
    for t, tier in enumerate(TIERS):
        style = dict(color=OKABE_ITO[t], marker="o", markersize=4, label=tier.upper())
        sizes.plot(design.front_budget, design.front_parameters[:, t] / 1e9, **style)
        rates.plot(design.front_budget, design.front_parameters[:, 3 + t] / 1e9, **style)
    sizes.set_ylabel("capacity (GB)")
    rates.set_ylabel("bandwidth (GB/s)")
    rates.set_xlabel("budget for memory (USD)" if money else "power of memory at full bandwidth (W)")
    sizes.legend(frameon=False, fontsize=9.5, ncols=3)
    for ax in (top, sizes, rates):
        ax.set_xscale("log")
        if ax is not top:
            ax.set_yscale("log")
        ax.grid(True, color="#E6E6E6", linewidth=0.7)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    _plain_ticks(rates.xaxis, design.front_budget)
    _plain_ticks(top.yaxis, np.append(design.front_latency_s, design.own_latency_s) * 1e3)
    fig.savefig(path)
    return fig


def _plain_ticks(axis, values) -> None:
    """Numbers as they are, and enough of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = np.log10(np.max(values) / np.min(values))
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())
