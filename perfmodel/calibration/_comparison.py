"""Predicted against reference: one quantity of many rows, and the figures that say how near the two are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

ALL = "all"  # the group of every row, always there
_ENDLESS = 1e300


class Comparison(NamedTuple):
    """One quantity over `n` rows.

    - `quantity`: name, with its SI unit where there is one (`energy_j`).  `unit`: as printed on axes.
    - `predicted, reference`: `[n]`, finite.  `group`: one label a row; figures are per group and over all rows.
    - `tolerance`: relative difference up to which a row counts as exact; `slack`: so does an absolute one (rounded references).
    """

    quantity: str
    unit: str
    predicted: Float[np.ndarray, "n"]
    reference: Float[np.ndarray, "n"]
    group: list[str]
    tolerance: float = 1e-9
    slack: float = 0.0


def relative_errors(comparison: Comparison) -> Float[np.ndarray, "n"]:
    """|predicted - reference| / |reference| of each row: 0 where both are zero, infinite where only the reference is.

    Raises ValueError naming the quantity and the row (from 1) of a value that is not finite, or lengths that differ.
    """
    quantity, _, predicted, reference, group, *_ = comparison
    predicted, reference = (np.asarray(x, np.float64) for x in (predicted, reference))
    if not predicted.shape == reference.shape == (len(group),) or not len(group):
        raise ValueError(
            f"{quantity}: {predicted.shape} predictions, {reference.shape} references and {len(group)} group labels; "
            "needed: at least one row, the same number of each"
        )
    for what, values in (("predicted", predicted), ("reference", reference)):
        if len(bad := np.flatnonzero(~np.isfinite(values))):
            raise ValueError(f"{quantity}: row {bad[0] + 1}: {what} is {values[bad[0]]}; needed: a finite number")
    off, size = np.abs(predicted - reference), np.abs(reference)
    return np.divide(off, size, out=np.where(off > 0, np.inf, 0.0), where=size > 0)


def figures(comparisons: list[Comparison]) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """quantity -> group (`all` first) -> figures, as plain numbers for JSON.

    - `rows`; `exact`: rows whose difference is at most the tolerance or the slack.
    - `mape_percent, median_ape_percent, p90_ape_percent`: mean, median and 90th percentile of the absolute relative
      error; None where a zero reference makes it infinite.
    - `spearman`: rank correlation; None where one side is constant.

    Raises ValueError as `relative_errors` does, and for a quantity that stands twice.
    """
    answer: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for comparison in comparisons:
        if comparison.quantity in answer:
            raise ValueError(f"quantity {comparison.quantity} stands twice; names must be distinct")
        errors, labels = relative_errors(comparison), np.asarray(comparison.group, str)
        groups = {ALL: np.ones(len(labels), bool)} | {g: labels == g for g in comparison.group if g != ALL}
        answer[comparison.quantity] = {g: _figures(comparison, errors, rows) for g, rows in groups.items()}
    return answer


def _figures(comparison: Comparison, errors, rows) -> dict[str, float | int | None]:
    mine = errors[rows]
    off = np.abs(np.asarray(comparison.predicted) - np.asarray(comparison.reference))[rows]
    middle, high = np.quantile(np.minimum(mine, _ENDLESS), (0.5, 0.9))  # interpolating towards infinity gives NaN
    return dict(
        rows=len(mine),
        exact=int(np.count_nonzero((mine <= comparison.tolerance) | (off <= comparison.slack))),
        mape_percent=_percent(np.mean(mine)),
        median_ape_percent=_percent(middle),
        p90_ape_percent=_percent(high),
        spearman=_rank_correlation(np.asarray(comparison.predicted)[rows], np.asarray(comparison.reference)[rows]),
    )


def _percent(share) -> float | None:
    return float(share) * 100 if share < _ENDLESS / 1e3 else None


def _rank_correlation(a, b) -> float | None:
    from scipy.stats import spearmanr

    if np.ptp(a) == 0 or np.ptp(b) == 0:  # also a single row
        return None
    return float(spearmanr(a, b)[0])  # type: ignore[arg-type]
