"""Latency of a request over the number of experts, a line a system."""

import os

import numpy as np

from perfmodel.plot._pareto import OKABE_ITO

_DPI = 150


def plot_experts(path: str | os.PathLike, curves: dict[str, tuple[dict, int]], *, title: str):
    """Draw `curves`, name -> (answer of `ExpertService.curve`, experts that HBM holds), to a PNG file; returns the figure.

    Solid: latency of a batch; dotted: as if no expert had to be copied; a mark where HBM is full. Where several nodes are needed, the
    line is of all of them and thin."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(8.4, 5.0), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(fig)
    ax = fig.subplots()
    top = 0.0
    for i, (name, (curve, edge)) in enumerate(curves.items()):
        n, nodes = np.asarray(curve["experts"]), np.asarray(curve["request_nodes"])
        whole = np.asarray([np.nan if v is None else v for v in curve["request_s"]], float)
        bare = np.asarray([np.nan if v is None else v for v in curve["request_without_copies_s"]], float)
        colour = OKABE_ITO[i % len(OKABE_ITO)]
        ax.plot(n, np.where(nodes == 1, whole, np.nan), color=colour, linewidth=2.0, label=name)
        many = nodes > 1
        if many.any():
            first = max(int(np.argmax(many)) - 1, 0)
            ax.plot(
                n[first:], whole[first:], color=colour, linewidth=1.0, linestyle="--", label=f"{name}, several nodes"
            )
        ax.plot(n, bare, color=colour, linewidth=1.2, linestyle=":")
        top = max(top, float(np.nanmax(whole)) if np.isfinite(whole).any() else 0.0)
        at = int(np.searchsorted(n, edge))
        if at < len(n) and n[at] == edge:
            ax.plot([edge], [whole[at]], marker="o", color=colour, markeredgecolor="#222222", markersize=7, zorder=4)
    ax.plot([], [], color="#555555", linewidth=1.2, linestyle=":", label="if nothing were copied")
    ax.plot([], [], color="#BBBBBB", marker="o", markeredgecolor="#222222", linestyle="none", label="HBM is full")
    ax.set_ylim(0.0, top * 1.08 or 1.0)
    ax.set_xlim(0, max(max(c["experts"]) for c, _ in curves.values()) * 1.02)
    ax.set_xlabel("experts", fontsize=11.5)
    ax.set_ylabel("latency of a batch (s)", fontsize=11.5)
    ax.set_title(title, fontsize=11.5, loc="left")
    ax.grid(True, color="#E6E6E6", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(loc="outside lower center", ncols=3, fontsize=9.5, frameon=False)
    fig.savefig(path)
    return fig
