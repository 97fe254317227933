"""Which device runs what when, and what travels between them meanwhile: a placement as a Gantt chart."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ._pareto import OKABE_ITO, engineering

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150
_WIDTH_PX, _LEAST_HEIGHT_PX = 1800, 1000
_ROW_PX = 130  # a device
_BAR = (0.42, 0.9)  # of a device's row: its tasks
_LANE = (0.12, 0.32)  # and what it sends
_MOST_ARROWS = 60
_OTHER = "#999999"
_LIGHT = ("#E69F00", "#56B4E9", "#F0E442", _OTHER)  # names on these are dark


def plot_gantt(
    path: str | os.PathLike,
    *,
    device_names: Sequence[str],
    names: Sequence[str],
    device: Int[np.ndarray, "N"],
    start: Float[np.ndarray, "N"],
    finish: Float[np.ndarray, "N"],
    transfers: Sequence[tuple[int, int, float, float]] = (),
    classes: Sequence[str] | None = None,
    lower_bound: float | None = None,
    unit: str = "",
    title: str,
) -> "Figure":
    """Draw a placement over time to an image file, 1800 pixels wide and at least 1000 high.

    A row a device: its tasks, named where the name fits, and below them what it sends, in the colour of the receiver. Few
    transfers have an arrow to where they arrive. The heading says makespan, bound and gap.

    **Arguments:** `device, start, finish`: of each task.  `transfers`: (from device, to device, sent, arrived).  `classes`: what
    kind of operator each task is, for its colour (default: the colour of its device).  `unit`: of all times; `s` gets a prefix.

    **Returns:** the figure.

    Raises ValueError in one line naming the argument that has a wrong length, an unknown device or a time that is none.
    """
    device, start, finish = np.asarray(device), np.asarray(start, float), np.asarray(finish, float)
    moved = np.asarray(transfers, float).reshape(len(transfers), -1) if len(transfers) else np.zeros((0, 4))
    _check(device_names, names, device, start, finish, moved, classes, lower_bound)
    makespan = float(finish.max())
    factor, unit = engineering(unit, makespan) if unit else (1.0, "")

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_devices = len(device_names)
    height = max(_LEAST_HEIGHT_PX, 260 + _ROW_PX * n_devices)
    fig = Figure(figsize=(_WIDTH_PX / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(fig)
    ax = fig.subplots()
    of_device = [OKABE_ITO[k % len(OKABE_ITO)] for k in range(n_devices)]
    kinds = _kinds(classes)
    base = (n_devices - 1 - device).astype(float)
    fills = [of_device[k] if classes is None else kinds[str(classes[i])] for i, k in enumerate(device)]
    for k in range(n_devices):
        here = np.flatnonzero(device == k)
        colours = [fills[i] for i in here]
        ax.broken_barh(
            [(start[i] * factor, (finish[i] - start[i]) * factor) for i in here], (n_devices - 1 - k + _BAR[0], _BAR[1] - _BAR[0]),
            facecolors=colours, edgecolor="white", linewidth=0.4 if len(here) < 400 else 0.0,
        )  # fmt: skip
        busy = float((finish[here] - start[here]).sum()) / makespan if makespan > 0 else 0.0
        ax.text(
            1.004,
            n_devices - 1 - k + sum(_BAR) / 2,
            f"{busy:.0%}",
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize=9,
        )
        if k:
            ax.axhline(n_devices - k, color="#DDDDDD", linewidth=0.8)
    _sent(ax, moved, n_devices, of_device, factor, makespan)
    _axes(ax, device_names, makespan * factor, unit)
    said = f"makespan {_number(makespan * factor)}{' ' * bool(unit)}{unit}"
    if lower_bound is not None:
        gap = 1.0 - lower_bound / makespan if makespan > 0 else 0.0
        said += f", bound {_number(lower_bound * factor)}{' ' * bool(unit)}{unit}, gap {100 * max(gap, 0.0):.2g} %"
    ax.set_title(f"{said}; {len(device):,} tasks, {len(moved):,} transfers", loc="left", fontsize=10.5)
    fig.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    _legend(fig, device_names, of_device, kinds, len(moved) > 0)
    fig.supxlabel(
        "Upper bar of a device: its tasks. Lower bar: what it sends, in the colour of the receiver, from sending to arrival "
        f"(darker: several at once){'; arrows lead to where it arrives' if 0 < len(moved) <= _MOST_ARROWS else ''}.",
        x=0.01, ha="left", fontsize=8, color="#444444",
    )  # fmt: skip
    fig.draw_without_rendering()  # the layout stands from here on, so that names can be measured against their bars
    _name_bars(ax, names, base, start * factor, finish * factor, fills)
    fig.savefig(path, dpi=_DPI)
    return fig


def _check(device_names, names, device, start, finish, moved, classes, lower_bound) -> None:
    n, d = len(names), len(device_names)
    if n == 0:
        raise ValueError("names is empty; needed: at least one task")
    for what, values in (("device", device), ("start", start), ("finish", finish)):
        if values.shape != (n,):
            raise ValueError(f"{what} has shape {values.shape}; needed: ({n},), one a task")
    if classes is not None and len(classes) != n:
        raise ValueError(f"classes has {len(classes)} names; needed: {n}, one a task")
    wrong = np.flatnonzero(~((device >= 0) & (device < d)))
    if len(wrong):
        raise ValueError(f"device[{wrong[0]}] is {device[wrong[0]]}; allowed: 0 to {d - 1}")
    wrong = np.flatnonzero(~(np.isfinite(start) & np.isfinite(finish) & (start >= 0) & (finish >= start)))
    if len(wrong):
        i = wrong[0]
        raise ValueError(
            f"task {names[i]} runs from {start[i]:g} to {finish[i]:g}; allowed: finite, 0 <= start <= finish"
        )
    if len(moved) and moved.shape[1] != 4:
        raise ValueError(f"transfers has {moved.shape[1]} columns; needed: 4 (from device, to device, sent, arrived)")
    for i, (a, b, sent, arrived) in enumerate(moved):
        if not (0 <= a < d and 0 <= b < d):
            raise ValueError(f"transfers[{i}] goes from device {a:g} to {b:g}; allowed: 0 to {d - 1}")
        if not (np.isfinite(arrived) and 0 <= sent <= arrived):
            raise ValueError(
                f"transfers[{i}] travels from {sent:g} to {arrived:g}; allowed: finite, 0 <= sent <= arrived"
            )
    if lower_bound is not None and not (np.isfinite(lower_bound) and lower_bound >= 0):
        raise ValueError(f"lower_bound is {lower_bound:g}; allowed: a number of at least 0")


def _kinds(classes) -> dict[str, str]:
    """Colour of each class, the most frequent first; the rarest of too many share grey."""
    if classes is None:
        return {}
    found, count = np.unique(np.asarray(classes, dtype=object).astype(str), return_counts=True)
    ranked = found[np.lexsort((found, -count))].tolist()
    return {name: OKABE_ITO[i] if i < len(OKABE_ITO) else _OTHER for i, name in enumerate(ranked)}


def _sent(ax, moved, n_devices: int, colours, factor: float, makespan: float) -> None:
    for k in range(n_devices):
        for to in range(n_devices):
            spans = [(s * factor, (e - s) * factor) for a, b, s, e in moved if a == k and b == to and e > s]
            ax.broken_barh(
                spans, (n_devices - 1 - k + _LANE[0], _LANE[1] - _LANE[0]), color=colours[to], alpha=0.5, linewidth=0
            )
    if len(moved) > _MOST_ARROWS:
        return
    for a, b, sent, arrived in moved[moved[:, 3] > moved[:, 2]]:
        begin, end = n_devices - 1 - a + sum(_LANE) / 2, n_devices - 1 - b + (_BAR[0] if b < a else _BAR[1])
        ax.annotate(
            "", (arrived * factor, end), (sent * factor, begin), zorder=3, annotation_clip=False,
            arrowprops=dict(arrowstyle="-|>", color="#444444", linewidth=0.7, mutation_scale=8, shrinkA=0, shrinkB=0, alpha=0.8),
        )  # fmt: skip


def _axes(ax, device_names, end: float, unit: str) -> None:
    n = len(device_names)
    ticks = [n - 1 - k + at for k in range(n) for at in (sum(_BAR) / 2, sum(_LANE) / 2)]
    ax.set_yticks(ticks, [text for name in device_names for text in (name, "sends")], fontsize=9)
    for i, text in enumerate(ax.get_yticklabels()):
        if i % 2:
            text.set(fontsize=7.5, color="#666666")
    ax.set_ylim(0, n)
    ax.set_xlim(0.0, end if end > 0 else 1.0)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g} {unit}".strip())
    ax.set_xlabel("time" if unit else "time (unit of the instance)", fontsize=10)
    ax.text(1.004, n, "busy", transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    ax.grid(True, axis="x", color="#E6E6E6", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(axis="x", labelsize=9)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _legend(fig, device_names, of_device, kinds: dict[str, str], any_sent: bool) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in kinds.items() if colour != _OTHER]
    if len(kinds) > len(handles):
        handles.append(Patch(color=_OTHER, label=f"{len(kinds) - len(handles)} other kinds"))
    if handles:
        handles = [Patch(color="none", label="operators"), *handles]
    if any_sent:
        lanes = [Patch(color=c, alpha=0.5, label=n) for n, c in zip(device_names, of_device, strict=True)]
        handles += [Patch(color="none", label="sent to"), *lanes]
    if handles:
        legend = fig.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
        for text in legend.get_texts():
            if text.get_text() in ("operators", "sent to"):
                text.set(fontweight="bold")


def _name_bars(ax, names, base, start, finish, fills) -> None:
    """Names on the bars, where a bar is wide enough for its name."""
    left, right = (ax.transData.transform(np.stack([at, base], axis=1))[:, 0] for at in (start, finish))
    renderer = ax.figure.canvas.get_renderer()
    for i in np.flatnonzero(right - left > 8):
        middle, colour = (start[i] + finish[i]) / 2, "#222222" if fills[i] in _LIGHT else "white"
        text = ax.text(middle, base[i] + sum(_BAR) / 2, names[i], ha="center", va="center", fontsize=8, color=colour)
        text.set_in_layout(False)
        if text.get_window_extent(renderer).width > right[i] - left[i] - 4:
            text.remove()
