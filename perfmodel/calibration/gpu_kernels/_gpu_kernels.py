"""Kernel models against measured GPU kernels, and their calibration."""

from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ...cost.kernels._constants import FAMILIES, Entry, constants, flat, rebuilt, write_entries
from .._comparison import Comparison
from .._fit import Fit, fit
from ._rows import QUANTITIES, Group, predicted_s, read_groups

# How far a library's constants may be from the shared ones (standard deviation of the logarithm): tight where a constant
# belongs to silicon, loose where libraries differ in kind.
PRIOR_SD = 0.4
_PRIOR_SD_OF = {
    "l2_share": 0.1, "pj_per_op": 0.3, "settle_s": 0.3, "load_latency_s": 0.3, "copy_stages": 0.3,
    # whether a library can split a loop at all, and whether its launches are recorded in a graph
    "combine_cycles": 2.0, "split_cost": 1.0, "quantise_cycles": 1.0,
}  # fmt: skip


def compare(path: str | Path, parameters: str | Path | None = None) -> list[Comparison]:
    """Predicted against measured seconds of every usable row, a quantity a kernel family, a group a GPU, source and dtype.

    Without `parameters` the specification sheet and the shipped shared constants are used. Left out: rows flagged
    `suspect_above_peak_bw` and whole-layer rows (`layer:*`). Raises ValueError in one line for a file that cannot be used.
    """
    look_up = constants(parameters)
    parts: dict[str, list[tuple[Group, np.ndarray]]] = {}
    for group in read_groups(path):
        parts.setdefault(QUANTITIES[group.family], []).append((group, predicted_s(group, look_up(*group.key))))
    return [
        Comparison(
            quantity,
            "s",
            np.concatenate([predicted for _, predicted in members]),
            np.concatenate([group.measured_s for group, _ in members]),
            [group.label.strip() for group, _ in members for _ in group.shapes],
        )
        for quantity, members in parts.items()
    ]


def prior_sd(parameters):
    """A structure like `parameters`: standard deviations of the logarithms around it."""
    widths = {name: _PRIOR_SD_OF.get(name.split(".")[-1], PRIOR_SD) for name in flat(parameters)}
    return rebuilt(parameters, widths)


def fit_group(group: Group, start, *, steps: int = 400) -> Fit:
    """Constants of one GPU and library, held near `start`; the descent begins there and at the model's defaults."""
    defaults = FAMILIES[group.family]()
    return fit(
        group.predict, group.rows, group.measured_s, start, prior_sd=prior_sd(start), also=[defaults], steps=steps
    )


def fit_shared(groups: list[Group], start, *, steps: int = 600, prior: float = 0.6) -> Fit:
    """One set of constants for all `groups` (of one family and variant); each group weighs as its rows, at most 400."""
    picked = [group.take(_thinned(len(group.shapes), 400)) for group in groups]
    rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *[jax.tree.map(jnp.asarray, g.rows) for g in picked])
    measured = np.concatenate([group.measured_s for group in picked])
    widths = jax.tree.map(lambda sd: jnp.where(sd < PRIOR_SD, sd / 2, jnp.maximum(sd, prior)), prior_sd(start))
    return fit(picked[0].predict, rows, measured, start, prior_sd=widths, steps=steps)


def _thinned(n: int, most: int) -> np.ndarray:
    """[n] true for at most `most` rows, the same ones every time."""
    chosen = np.zeros(n, bool)
    chosen[np.random.default_rng(0).permutation(n)[:most]] = True
    return chosen


def mape_percent(predicted, measured) -> float:
    """Mean absolute relative error in percent."""
    return float(100 * np.mean(np.abs(np.asarray(predicted) / np.asarray(measured) - 1)))


def calibrate(
    path: str | Path, out: str | Path, *, progress: Callable[[Iterable, int], Iterable] | None = None
) -> dict:
    """Fits every group of the file and writes the parameter file `out`.

    Returns `groups`: label -> `rows`, `mape_before_percent`, `mape_after_percent`, `values` and `log_sd` by name;
    `parameters`: the file written. Raises ValueError in one line for a file that cannot be used or written.
    """
    with jax.enable_x64(True):
        groups = read_groups(path)
        look_up = constants()
        entries, report = [], {}
        for group in progress(groups, len(groups)) if progress else groups:
            start = look_up(*group.key)
            found = fit_group(group, start)
            before = mape_percent(predicted_s(group, start), group.measured_s)
            after = mape_percent(predicted_s(group, found.parameters), group.measured_s)
            values, log_sd = flat(found.parameters), flat(found.log_sd)
            entries.append(entry(group, found.parameters, found.log_sd, after))
            report[group.label.strip()] = {
                "rows": len(group.shapes),
                "mape_before_percent": before,
                "mape_after_percent": after,
                "values": values,
                "log_sd": log_sd,
            }
        write_entries(out, entries, f"{Path(path).name}: {sum(len(g.shapes) for g in groups)} rows")
    return {"groups": report, "parameters": str(out)}


def entry(group: Group, parameters, log_sd, mape: float, *, shared: bool = False) -> Entry:
    """An entry of a parameter file, six digits."""
    owner = ("any", "any") if shared else (group.gpu, group.source)
    values, sds = ({k: float(f"{v:.6g}") for k, v in flat(tree).items()} for tree in (parameters, log_sd))
    return Entry(*owner, group.family, group.variant, values, sds, len(group.shapes), round(mape, 3))
