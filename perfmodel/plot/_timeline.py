"""What does each chiplet do when, in one pass of each model, and what travels meanwhile?"""

import os
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from ..hardware import System
from ..schedule import Timeline
from ..workload import CLASS_OF, CLASSES, KINDS, Workload
from ._pareto import engineering

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colour of every class of operators (Okabe and Ito 2008, a brown, and three of Tol 2021).
CLASS_COLOURS = dict(zip(CLASSES, (
    "#0072B2", "#D55E00", "#009E73", "#117733", "#882255", "#CC79A7", "#F0E442", "#E69F00", "#56B4E9", "#000000", "#8C564B", "#332288",
), strict=True))  # fmt: skip
WAYS = ("network", "memory")
_TRANSFER = "#6E6E6E"
_DPI = 150
_WIDTH_PX, _LEAST_HEIGHT_PX = 1800, 1000
_LANE = 0.55  # height of a transfer row; that of a chiplet is 1
_BAR = 0.64  # of a chiplet's row the lower part is the bar, the rest carries the names of blocks


def plot_schedule(
    path: str | os.PathLike, workload: Workload, system: System, timeline: Timeline, *, title: str
) -> "Figure":
    """Draw a timeline to an image file, 1800 pixels wide and at least 1000 high.

    One panel a model (each is timed alone in an empty package) with a row a chiplet, operators coloured by class, and
    below a row each for the transfers over the network and through memory. Blocks of operators (`h3`, `layer2`) are
    named where the name fits.

    **Returns:** the figure.

    Raises ValueError in one line if the timeline is not one of this workload on this system, or not finite.
    """
    _check(workload, system, timeline)
    rows = system.n_chiplets + len(WAYS) * _LANE
    height = max(_LEAST_HEIGHT_PX, round(workload.n_models * (100 + 58 * rows) + 160))

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(_WIDTH_PX / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(fig)
    panels = fig.subplots(workload.n_models, 1, squeeze=False)[:, 0]
    blocks = [_panel(ax, m, workload, system, timeline) for m, ax in enumerate(panels)]
    panels[-1].set_xlabel("time since the start of the pass")
    fig.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    _legend(fig, workload)
    fig.supxlabel(
        "Each model alone in an otherwise empty package. Transfers of activations between operators: from the end of "
        "the producer to the start of the consumer,\nwaiting included. Weights, model inputs and outputs: not drawn.",
        x=0.01, ha="left", fontsize=8, color="#444444",
    )  # fmt: skip
    fig.draw_without_rendering()  # the layout stands from here on, so that names can be measured against their blocks
    for ax, named in zip(panels, blocks, strict=True):
        _name_blocks(ax, named)
    fig.savefig(path, dpi=_DPI)
    return fig


def _check(workload: Workload, system: System, timeline: Timeline) -> None:
    for name in ("start_s", "finish_s", "chiplet"):
        values = np.asarray(getattr(timeline, name))
        if values.shape != (workload.n_operators,):
            raise ValueError(f"timeline.{name} has shape {values.shape}; needed: ({workload.n_operators},)")
        if not np.all(np.isfinite(values)):
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"timeline.{name}[{row}] is {values[row]}; allowed: finite numbers")
    if np.max(timeline.chiplet) >= system.n_chiplets:
        raise ValueError(f"timeline.chiplet contains {np.max(timeline.chiplet)}; allowed: 0 to {system.n_chiplets - 1}")


def _panel(ax, m: int, workload: Workload, system: System, timeline: Timeline) -> list[tuple[str, float, float, float]]:
    """Draw model `m`; returns its blocks (name, bottom of their row, begin, end), in the unit of the axis."""
    mine = np.flatnonzero(np.asarray(workload.model) == m)
    start, finish = np.asarray(timeline.start_s, float), np.asarray(timeline.finish_s, float)
    where, kind = np.asarray(timeline.chiplet), np.asarray(workload.operators.kind)
    end_s = float(finish[mine].max())
    factor, unit = engineering("s", end_s)
    ticks, names, blocks = [], [], []
    for d in range(system.n_chiplets):
        base = float(system.n_chiplets - 1 - d)
        here = sorted((i for i in mine if where[i] == d), key=lambda i: start[i])
        _busy(ax, [(start[i] * factor, finish[i] * factor, int(kind[i])) for i in here], base)
        for name, run in groupby(here, key=lambda i: _block(workload.names[i])):
            run = list(run)
            blocks.append((name, base, start[run[0]] * factor, finish[run[-1]] * factor))
        busy = float(np.sum(finish[here] - start[here])) / end_s
        ax.text(1.004, base + _BAR / 2, f"{busy:.0%}", transform=ax.get_yaxis_transform(), va="center", fontsize=8)
        ticks.append(base + _BAR / 2)
        names.append(f"{system.chiplet_names[d]} ({system.type_names[int(system.kind[d])]})")
    for lane, way in enumerate(WAYS):
        base = -(lane + 1) * _LANE
        spans = [(b, e) for _, to, by, b, e in timeline.transfers if by == way and workload.model[to] == m and e > b]
        # transfers overlap: where several wait at once the lane is darker
        spans = [(b * factor, (e - b) * factor) for b, e in spans]
        ax.broken_barh(spans, (base, 0.6 * _LANE), color=_TRANSFER, alpha=0.45, linewidth=0)
        ticks.append(base + 0.3 * _LANE)
        names.append(way)
    ax.axhline(-0.5 * (1 - _BAR) * _LANE, color="#BBBBBB", linewidth=0.6)
    ax.set_yticks(ticks, names, fontsize=9)
    ax.set_ylim(-len(WAYS) * _LANE - 0.1, system.n_chiplets)
    ax.set_xlim(0.0, end_s * factor)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g} {unit}")
    heading = f"{workload.model_names[m]}: {len(mine)} operators in {end_s * factor:.3g} {unit}"
    ax.set_title(heading, loc="left", fontsize=10.5)
    ax.text(1.004, system.n_chiplets, "busy", transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    ax.grid(True, axis="x", color="#E6E6E6", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(axis="x", labelsize=9)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return blocks


def _busy(ax, bars: list[tuple[float, float, int]], base: float) -> None:
    """The operators of one chiplet, in order of time."""
    spans, colours, until = [], [], -np.inf
    # Each bar is drawn on to the end of its busy stretch and the next painted over it: side by side, the blurred edges
    # of operators thinner than a pixel would let the background through and look like idle time.
    for begin, end, kind in reversed(bars):
        if not (spans and abs(end - spans[-1][0]) <= 1e-6 * end):
            until = end
        spans.append((begin, until - begin))
        colours.append(CLASS_COLOURS[_class(kind)])
    ax.broken_barh(spans[::-1], (base, _BAR), facecolors=colours[::-1], linewidth=0, snap=False)


def _class(kind: int) -> str:
    return CLASS_OF[KINDS[kind]]


def _block(name: str) -> str:
    """The block that an operator belongs to: h3 of gpt2/h3.attn.qkv."""
    return name.split("/", 1)[-1].split(".", 1)[0]


def _name_blocks(ax, blocks) -> None:
    """Names above the bars, where a block is wide enough for its name."""
    renderer = ax.figure.canvas.get_renderer()
    for name, base, begin, end in blocks:
        middle, top = (begin + end) / 2, base + _BAR + 0.04
        text = ax.text(middle, top + 0.01, name, ha="center", va="bottom", fontsize=7.5, color="#222222")
        text.set_in_layout(False)
        left, right = ax.transData.transform([(begin, base), (end, base)])[:, 0]
        if text.get_window_extent(renderer).width > right - left - 4:
            text.remove()
        else:
            gap = 2 * (end - begin) / (right - left)  # two pixels, so that neighbours stay apart
            ax.plot([begin + gap, end - gap], [top, top], color="#222222", linewidth=0.8, solid_capstyle="butt")


def _legend(fig, workload: Workload) -> None:
    from matplotlib.patches import Patch

    present = {_class(int(kind)) for kind in np.unique(workload.operators.kind)}
    handles = [Patch(color=colour, label=name) for name, colour in CLASS_COLOURS.items() if name in present]
    handles.append(Patch(color=_TRANSFER, alpha=0.45, label="transfer"))
    fig.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
