"""Which mixes of chiplets lie on the front, how far is the baseline, and what did the search look at besides?"""

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito 2008, colours told apart by colour-blind readers (black left to the baseline). Seven colours against
# eight markers: the pair repeats only after 56 mixes.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_LEGEND_ROWS = 16  # mixes named in the legend; the rarest of more share one grey row
_DPI = 150
_SIZE_PX = (1600, 1100)
_SQUEEZED = 0.35  # share of the frame under which the front gets a panel of its own
_DECADE = 1.0  # axes that span more are logarithmic

_PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
_SI_SYMBOLS = ("s", "J", "W", "B", "Hz")

Axis = tuple[str, str, bool]  # what it shows, its unit in SI, whether more is better


def plot_front(
    path: str | os.PathLike,
    *,
    points: Float[np.ndarray, "N 2"],
    cloud: Float[np.ndarray, "K 2"],
    baseline: tuple[str, float, float] | None,
    labels: Sequence[str],
    axes: tuple[Axis, Axis],
    title: str,
) -> "Figure":
    """Draw a front of two objectives to an image file of 1600 x 1100 pixels.

    **Arguments:**
    - `points`: (x, y) of the front, in SI units; points dominated in this plane (a front of more objectives) are
      marked, but the line passes them by.
    - `cloud`: (x, y) of evaluated candidates behind the front; may be empty. Those far from it are counted, not drawn.
    - `baseline`: (name, x, y).  `labels`: the mix of each point, such as `3 ws + 1 os`.
    - `axes`: of x and of y (label, unit, whether more is better). Units `s, J, W, B, Hz` and what starts with them
      (`J per inference`) get an SI prefix.

    **Returns:** the figure.

    Raises ValueError in one line naming the argument that is empty, not finite and positive, or of a wrong length.
    """
    points, cloud = _positive("points", points), _positive("cloud", cloud)
    if not len(points):
        raise ValueError("points is empty; needed: at least one point of the front")
    if len(labels) != len(points):
        raise ValueError(f"labels has {len(labels)} names; needed: one for each of the {len(points)} points")
    if len(axes) != 2 or any(len(axis) != 3 for axis in axes):
        raise ValueError(f"axes is {axes!r}; needed: (label, unit, more is better) of x and of y")
    star = np.zeros((0, 2)) if baseline is None else _positive("baseline", [baseline[1:]])
    sign = np.asarray([-1.0 if more else 1.0 for _, _, more in axes])  # costs = sign * log(value), less is better
    low, high = _frame(np.concatenate([points, star]), cloud, sign)
    scaled = [engineering(unit, np.sqrt(a * b)) for (_, unit, _), a, b in zip(axes, low, high, strict=True)]
    factor, units = np.asarray([f for f, _ in scaled]), [unit for _, unit in scaled]
    frames = [(low, high)]
    if (
        baseline is not None and len(points) > 1
    ):  # a far baseline squeezes the front into a corner: show that corner beside it
        near = _frame(points, cloud[:0], sign)
        if np.all(np.log(near[1] / near[0]) < _SQUEEZED * np.log(high / low)):
            frames.append(near)

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(_SIZE_PX[0] / _DPI, _SIZE_PX[1] / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(fig)
    inside = np.all((cloud >= low) & (cloud <= high), axis=1)
    seen = cloud[inside] * factor
    notes = [(points[i], f"{what}: {labels[i]}") for i, what in _chosen(points, sign, axes).items()]
    handles, panels = [], []
    for i, (ax, (lowest, highest)) in enumerate(
        zip(fig.subplots(1, len(frames), squeeze=False)[0], frames, strict=True)
    ):
        _axes(ax, axes, units, lowest * factor, highest * factor)
        size = 3.0 if len(seen) > 3000 else 5.0
        ax.plot(
            seen[:, 0], seen[:, 1], ".", color="#B8B8B8", markersize=size, markeredgewidth=0, zorder=1, rasterized=True
        )
        stairs = _stairs(points, sign, lowest, highest) * factor
        ax.plot(stairs[:, 0], stairs[:, 1], color="#555555", linewidth=1.1, zorder=2)
        marked = _markers(ax, points * factor, labels)
        words = [] if i < len(frames) - 1 else list(notes)
        if baseline is not None and i == 0:
            marked += ax.plot(*(star[0] * factor), "*k", markersize=15, label=baseline[0], zorder=5)
            words.append((star[0], baseline[0]))
        handles = handles or marked
        if len(frames) > 1:
            ax.set_title(("with the baseline", "the front, enlarged")[i], fontsize=11.5, loc="left")
        panels.append((ax, words, stairs))
    fig.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    fig.legend(
        handles=handles, loc="outside right upper", fontsize=9.5, title="mix (points on the front)", title_fontsize=9.5,
        alignment="left", frameon=False,
    )  # fmt: skip
    caption = _caption(len(points), len(cloud), int((~inside).sum()))
    fig.supxlabel(caption, x=0.01, ha="left", fontsize=8.5, color="#444444")

    fig.draw_without_rendering()  # the layout stands from here on, so that texts can be placed by pixels
    for ax, words, stairs in panels:
        texts = [(xy * factor, f"{name}\n{_values(xy * factor, units)}") for xy, name in words]
        _annotate(ax, texts, np.concatenate([points * factor, star * factor]), stairs, seen)
    fig.savefig(path, dpi=_DPI)
    return fig


def engineering(unit: str, value: float) -> tuple[float, str]:
    """What to multiply values near `value` with, and the unit they then have: (1e3, "mJ per inference").

    Only SI symbols get a prefix; values in other units are scaled by a written power of ten, where they need one.
    """
    power = 3 * int(np.floor(np.log10(value) / 3 + 1e-9)) if value > 0 else 0
    if unit.replace("/", " ").replace("·", " ").split(" ")[0] in _SI_SYMBOLS:
        power = min(max(power, min(_PREFIXES)), max(_PREFIXES))
        return 10.0**-power, _PREFIXES[power] + unit
    if 1e-2 <= value < 1e5:
        return 1.0, unit
    return 10.0**-power, f"1e{power} {unit}"


def _positive(name: str, values) -> Float[np.ndarray, "N 2"]:
    got = np.asarray(values, np.float64)
    if got.size == 0:
        return np.zeros((0, 2))
    if got.ndim != 2 or got.shape[1] != 2:
        raise ValueError(f"{name} has shape {got.shape}; needed: (any number, 2)")
    bad = np.flatnonzero(~np.all(np.isfinite(got) & (got > 0), axis=1))
    if len(bad):
        x, y = got[bad[0]]
        raise ValueError(f"{name}[{bad[0]}] is ({x:g}, {y:g}); allowed: finite numbers above 0")
    return got


def _frame(core, cloud, sign):
    """Limits that keep the front readable: it, the baseline, and half as much again of the cloud behind them."""
    core, cloud = sign * np.log(core), sign * np.log(cloud)
    best, worst = core.min(axis=0), core.max(axis=0)
    if len(cloud):
        reach = worst + np.maximum(0.5 * (worst - best), np.log(1.2))
        worst = np.maximum(worst, np.minimum(reach, cloud.max(axis=0)))
    margin = np.maximum(0.07 * (worst - best), np.log(1.03))
    ends = np.exp(sign * np.stack([best - margin, worst + margin]))
    return ends.min(axis=0), ends.max(axis=0)


def _axes(ax, axes: tuple[Axis, Axis], units, low, high) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for i, (label, _, more) in enumerate(axes):
        axis = (ax.xaxis, ax.yaxis)[i]
        decades = np.log10(high[i] / low[i])
        if decades > _DECADE:
            (ax.set_xscale, ax.set_yscale)[i]("log")
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,), numticks=20))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        (ax.set_xlim, ax.set_ylim)[i](low[i], high[i])
        # a label of y reads upwards, so the same arrows point along both axes
        text = f"{label} ({units[i]})"
        (ax.set_xlabel, ax.set_ylabel)[i](f"{text}   better →" if more else f"← better   {text}", fontsize=11.5)
    ax.grid(True, color="#E6E6E6", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=10)
    ax.spines[["top", "right"]].set_visible(False)


def _stairs(points, sign, low, high):
    """Edge of the dominated region: from the best x to the best y, both ends drawn on to the frame."""
    cost = sign * np.log(points)
    kept: list[int] = []
    for i in np.lexsort((cost[:, 1], cost[:, 0])):
        if not kept or cost[i, 1] < cost[kept[-1], 1]:
            kept.append(int(i))
    far = np.where(sign > 0, high, low)
    corners = [(points[kept[0], 0], far[1])]
    for i, j in zip(kept, [*kept[1:], None], strict=True):
        corners += [tuple(points[i]), (far[0] if j is None else points[j, 0], points[i, 1])]
    return np.asarray(corners)


def _markers(ax, points, labels) -> list:
    """One series a mix, the most frequent first; the rarest of too many mixes share a grey one."""
    ranked = sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
    split = len(ranked) if len(ranked) <= _LEGEND_ROWS else _LEGEND_ROWS - 1
    groups = [({mix}, f"{mix} ({count})") for mix, count in ranked[:split]]
    if split < len(ranked):
        rest = ranked[split:]
        groups.append(({mix for mix, _ in rest}, f"{len(rest)} more mixes ({sum(n for _, n in rest)})"))
    handles = []
    for i, (mixes, name) in enumerate(groups):
        mine = points[[label in mixes for label in labels]]
        colour = "#999999" if i >= split else OKABE_ITO[i % len(OKABE_ITO)]
        style = dict(color=colour, marker=_MARKERS[i % len(_MARKERS)], markeredgecolor="#222222", markeredgewidth=0.6)
        handles += ax.plot(mine[:, 0], mine[:, 1], linestyle="none", markersize=7.5, label=name, zorder=4, **style)
    return handles


def _chosen(points, sign, axes: tuple[Axis, Axis]) -> dict[int, str]:
    """Points worth a note: the best of each objective (ties: the better of the other), and the knee, nearest to the
    ideal of both when the logarithm of each objective is scaled to 0..1 over the front."""
    cost = sign * np.log(points)
    first = [int(np.lexsort((cost[:, 1 - i], cost[:, i]))[0]) for i in range(2)]
    span = np.ptp(cost[first], axis=0)
    knee = int(np.argmin(np.sum(((cost - cost.min(axis=0)) / np.where(span > 0, span, 1.0)) ** 2, axis=1)))
    out: dict[int, str] = {}
    for i, what in ((first[0], f"best {axes[0][0]}"), (first[1], f"best {axes[1][0]}"), (knee, "knee")):
        if i not in out:
            out[i] = what
        elif what != "knee":
            out[i] += f" and {what.removeprefix('best ')}"
    return out


def _values(xy, units) -> str:
    return ", ".join(f"{value:.3g} {unit.split(' per ')[0]}" for value, unit in zip(xy, units, strict=True))


def _caption(front: int, evaluated: int, outside: int) -> str:
    text = f"Points on the front: {front:,}. Other candidates evaluated (grey): {evaluated:,}"
    return text + (f", of which {outside:,} lie outside the frame." if outside else ".")


def _annotate(ax, notes, marks, line, cloud) -> None:
    """A text beside each noted point, where it covers least: texts count most, then the front, then the cloud."""
    pixels = ax.transData.transform
    marks, line = pixels(marks), pixels(line)
    steps = np.linspace(0.0, 1.0, 200)[:, None]
    solid = np.concatenate([a + steps * (b - a) for a, b in zip(line[:-1], line[1:], strict=True)])
    solid = solid[np.append(True, np.any(np.diff(np.round(solid / 4), axis=0) != 0, axis=1))]  # every 4 pixels
    dust = pixels(cloud) if len(cloud) else np.zeros((0, 2))
    frame, placed = ax.get_window_extent(), []
    renderer = ax.figure.canvas.get_renderer()
    for xy, text in notes:
        note = ax.annotate(
            text, xy, xytext=(0, 0), textcoords="offset pixels", ha="center", va="center", fontsize=9, zorder=6,
            bbox=dict(boxstyle="round,pad=0.2", facecolor="white", edgecolor="#BBBBBB", linewidth=0.6, alpha=0.92),
            arrowprops=dict(arrowstyle="-", color="#222222", linewidth=0.8, shrinkA=0, shrinkB=5),
        )  # fmt: skip
        note.set_in_layout(False)
        box = note.get_window_extent(renderer)
        half, here = np.asarray([box.width, box.height]) / 2 + 12, pixels(xy)  # half a marker away from anything
        best = (np.inf, here)
        for radius in (16, 40, 75, 110, 150, 200, 260, 330):
            for turn in np.arange(24) * np.pi / 12:
                way = np.asarray([np.cos(turn), np.sin(turn)])
                centre = here + way * (radius + half)
                a, b = centre - half, centre + half
                leader = here + steps * (centre - here)
                out = np.any(a < (frame.x0, frame.y0)) or np.any(b > (frame.x1, frame.y1))
                hits = sum(np.all((a < d) & (c < b)) + 0.5 * _inside(leader, c, d).any() for c, d in placed)
                front = 60 * _inside(marks, a, b).sum() + 20 * _inside(solid, a, b).sum()
                price = 1e5 * out + 1e4 * hits + front + min(_inside(dust, a, b).sum(), 100) + radius
                if price < best[0]:
                    best = (price, centre)
        note.set_position(best[1] - here)
        placed.append((best[1] - half, best[1] + half))


def _inside(points, a, b):
    return np.all((points > a) & (points < b), axis=1)
