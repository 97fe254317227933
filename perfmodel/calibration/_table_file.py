"""Reading a CSV file of reference rows into arrays, with errors that name column and row."""

import csv
import difflib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._names import unknown_name


class JSON:
    """Marks a column whose cells are JSON texts."""


class Column(NamedTuple):
    """What the cells of a column may hold.

    - `kind`: int, float, str or `JSON`.  `optional`: an empty cell is allowed: NaN (floats), "" (str), None (JSON).
    - `least`: least number allowed.  `allowed`: the only values allowed.
    """

    kind: type
    optional: bool = False
    least: float | None = None
    allowed: tuple[str, ...] | None = None


def Optional(kind: type) -> Column:
    """A column in which cells may be empty. Integers become floats there: an empty cell is NaN."""
    return Column(float if kind is int else kind, optional=True)


def read_table(path: str | Path, columns: Mapping[str, type | Column]) -> dict[str, np.ndarray]:
    """The named columns of a CSV file with a header row, each an array over the rows. Other columns are ignored.

    Numbers must be finite; `int` is int64, `float` float64, `str` a string array, `JSON` an array of objects.

    Raises ValueError in one line naming file, column and row (1 is the first below the header): a column missing or twice,
    no rows, an empty row or required cell, a row of another length, a cell that is no number (or one with a unit in it).
    """
    wanted = {name: spec if isinstance(spec, Column) else Column(spec) for name, spec in columns.items()}
    header, rows = _cells(path)
    place = {}
    for name in wanted:
        if name not in header:
            near = difflib.get_close_matches(name, header, n=2, cutoff=0.6)
            hint = (
                f"there is {' and '.join(near)}: another unit or spelling?"
                if near
                else f"there are: {', '.join(header)}"
            )
            raise ValueError(f"{path}: column {name} is missing; {hint}")
        if header.count(name) > 1:
            raise ValueError(f"{path}: column {name} stands {header.count(name)} times; names must be distinct")
        place[name] = header.index(name)
    if not rows:
        raise ValueError(f"{path}: no rows below the header; at least one is needed")
    for i, row in enumerate(rows, start=1):
        if not any(cell.strip() for cell in row):
            raise ValueError(f"{path}: row {i} is empty, from column {next(iter(wanted))} on; every row needs values")
        if len(row) != len(header):
            at = header[min(len(row), len(header) - 1)]
            raise ValueError(f"{path}: row {i} has {len(row)} cells (near column {at}); the header has {len(header)}")
    return {
        name: _array(spec.kind, [_value(f"{path}: row {i}, column {name}", spec, row[place[name]])
                                 for i, row in enumerate(rows, start=1)])
        for name, spec in wanted.items()
    }  # fmt: skip


def _cells(path) -> tuple[list[str], list[list[str]]]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text at byte {error.start}; a CSV file is needed") from None
    try:
        header, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except csv.Error as error:
        raise ValueError(f"{path}: not valid CSV: {error}") from None
    return [name.strip() for name in header], rows


def _value(where: str, spec: Column, cell: str) -> Any:
    cell = cell.strip()
    if not cell:
        if spec.optional:
            return math.nan if spec.kind in (int, float) else "" if spec.kind is str else None
        raise ValueError(f"{where} is empty; a value is needed")
    if spec.kind is JSON:
        try:
            return json.loads(cell)
        except ValueError:
            raise ValueError(f"{where} is {_short(cell)}; allowed: JSON") from None
    if spec.kind is str:
        if spec.allowed is not None and cell not in spec.allowed:
            raise unknown_name(where, cell, spec.allowed)
        return cell
    what = "a whole number" if spec.kind is int else "a finite number without a unit"
    try:
        number = int(cell) if spec.kind is int and cell.lstrip("+-").isdigit() else float(cell)
    except ValueError:
        raise ValueError(f"{where} is {_short(cell)}; allowed: {what}") from None
    if not math.isfinite(number) or (spec.kind is int and (number != int(number) or abs(number) >= 2**63)):
        raise ValueError(f"{where} is {_short(cell)}; allowed: {what}")
    if spec.least is not None and number < spec.least:
        raise ValueError(f"{where} is {_short(cell)}; allowed: {what} of at least {spec.least:g}")
    return spec.kind(number)


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")


def _array(kind: type, values: list) -> np.ndarray:
    if kind is JSON:
        array = np.empty(len(values), object)
        array[:] = values
        return array
    return np.asarray(values, {int: np.int64, float: np.float64}.get(kind))
