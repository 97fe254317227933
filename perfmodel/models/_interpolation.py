"""Exact interpolation: sums of products of known quantities through sampled values, in integers."""

from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from typing import NamedTuple

import numpy as np

from ._pieces import Feature, product

_GRAIN = 1024  # bytes and bits are multiples of 1/32; means over layers have other denominators
_ROUNDED = 1e-12  # relative: what a sample may have lost
_MOST_LAYERS = 4096


class Sums(NamedTuple):
    """`U` different sums over `K` features: sum k is `table[u, k] / denominator` times feature k, added up; exact.

    `index`: of each of the `R` sampled numbers the sum that it is."""

    features: tuple[Feature, ...]
    table: np.ndarray
    denominator: int
    index: np.ndarray

    def exact(self, quantities: dict[str, int]) -> np.ndarray:
        """The sums at integers, `[U]` float64, each rounded once."""
        values = self.table @ np.asarray([product(f, quantities) for f in self.features], object)
        return np.asarray([int(value) / self.denominator for value in values], np.float64)

    @property
    def coefficients(self) -> np.ndarray:
        """`[U, K]` float64."""
        return np.asarray([[n / self.denominator for n in row] for row in self.table.tolist()], np.float64)

    @property
    def varies(self) -> np.ndarray:
        """Which sums depend on anything, `[U]` bool."""
        of = [k for k, feature in enumerate(self.features) if feature]
        return (self.table[:, of] != 0).any(axis=1)

    def added(self, rows: np.ndarray) -> tuple["Sums", np.ndarray]:
        """With sums of other numerators, `[N, K]`, and the number of each."""
        known = {tuple(row): u for u, row in enumerate(self.table.tolist())}
        where = np.asarray([known.setdefault(tuple(row), len(known)) for row in rows.tolist()], int)
        return self._replace(table=np.asarray(list(known), object).reshape(len(known), -1)), where


def interpolated(
    quantities: Sequence[dict[str, int]], samples: np.ndarray, features: Sequence[Feature], single: Sequence[Feature]
) -> tuple[Sums, np.ndarray]:
    """The sums that numbers are, `samples` being `[N, R]` float64, and which of them were found, `[R]` bool.

    Through the first `len(features)` samples goes one sum of `features` at most; it is taken where it meets all others too.
    What is none is tried as a constant times one of `single`.
    """
    columns, index = np.unique(samples, axis=1, return_inverse=True)
    whole, grain = _whole(columns)
    known = np.asarray([[product(f, at) for f in features] for at in quantities], object)
    solve, scale = _inverse(known[: len(features)])
    found = solve @ whole[: len(features)]
    met = (known @ found == scale * whole).all(axis=0)
    fractions = [
        [Fraction(int(n), scale * d) for n in column] + [Fraction(0)] * len(single)
        for column, d in zip(found.T, grain, strict=True)
    ]
    for u in np.flatnonzero(~met):
        for k, feature in enumerate(single):
            of = [product(feature, at) for at in quantities]
            if all(a * of[0] == b * whole[0, u] for a, b in zip(whole[:, u], of, strict=True)):
                fractions[u] = [Fraction(0)] * len(fractions[u])
                fractions[u][len(features) + k] = Fraction(int(whole[0, u]), of[0] * grain[u])
                met[u] = True
                break
    common = lcm(*(f.denominator for u in np.flatnonzero(met) for f in fractions[u]))
    table = np.asarray([[int(f * common) for f in row] for row in fractions], object).reshape(len(fractions), -1)
    index = index.reshape(-1)
    return Sums((*features, *single), table, common, index), met[index]


def independent(rows: Sequence[Sequence[int]]) -> bool:
    """Whether no row is a combination of others; exact."""
    left = [[Fraction(x) for x in row] for row in rows]
    while left:
        pivot = left.pop()
        at = next((i for i, x in enumerate(pivot) if x), None)
        if at is None:
            return False
        left = [[a - row[at] / pivot[at] * b for a, b in zip(row, pivot, strict=True)] for row in left]
    return True


def _whole(columns: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Numbers as integers over one denominator a column. Raises ValueError for what is no rational number of a small one."""
    grains = columns * _GRAIN
    nearest = np.round(grains)
    dyadic = (np.abs(grains - nearest) <= _ROUNDED * np.abs(grains)).all(axis=0)
    whole = np.empty(columns.shape, object)
    denominators = [_GRAIN] * columns.shape[1]
    whole[:, dyadic] = np.asarray([[int(x) for x in row] for row in nearest[:, dyadic].tolist()], object).reshape(
        len(columns), -1
    )
    for u in np.flatnonzero(~dyadic):
        parts = [Fraction(x).limit_denominator(_MOST_LAYERS) for x in columns[:, u].tolist()]
        if any(abs(float(p) - x) > _ROUNDED * abs(x) for p, x in zip(parts, columns[:, u].tolist(), strict=True)):
            raise ValueError(f"{columns[:, u].tolist()} are no multiples of one fraction")
        denominators[u] = lcm(*(p.denominator for p in parts))
        whole[:, u] = [int(p * denominators[u]) for p in parts]
    return whole, denominators


def _inverse(square: np.ndarray) -> tuple[np.ndarray, int]:
    """The inverse of integers as integers over one denominator (Gauss and Jordan)."""
    n = len(square)
    rows = [[Fraction(int(x)) for x in row] + [Fraction(int(i == j)) for j in range(n)] for i, row in enumerate(square)]
    for i in range(n):
        pivot = next(j for j in range(i, n) if rows[j][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for j in range(n):
            if j != i and rows[j][i]:
                rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i], strict=True)]
    inverse = [row[n:] for row in rows]
    common = lcm(*(x.denominator for row in inverse for x in row))
    return np.asarray([[int(x * common) for x in row] for row in inverse], object), common
