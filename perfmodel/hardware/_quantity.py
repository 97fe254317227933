"""Quantities at the configuration boundary: `500 MHz`, `10e6 B`, `2.04 pJ/bit`, or a plain number in SI units."""

import math
import re

_PREFIX = {
    "": 1.0, "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3,
    "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
}  # fmt: skip
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_UNITS = {  # dimension -> units of scale 1, and what to print as allowed
    "bytes": ({"B": 1.0, "bit": 0.125}, "bytes, e.g. 10e6 or 10 MB"),
    "bytes_per_s": ({"B/s": 1.0, "bit/s": 0.125}, "bytes per second, e.g. 64 GB/s"),
    "ops_per_s": ({"op/s": 1.0}, "operations per second, e.g. 600 Gop/s"),
    "hz": ({"Hz": 1.0}, "hertz, e.g. 500 MHz"),
    "s": ({"s": 1.0}, "seconds, e.g. 35 ns"),
    "j": ({"J": 1.0}, "joules, e.g. 0.56 pJ"),
    "j_per_byte": ({"J/B": 1.0, "J/bit": 8.0}, "joules per byte, e.g. 2.04 pJ/bit"),
    "w": ({"W": 1.0}, "watts, e.g. 200 mW"),
    "mm2": ({"mm2": 1.0}, "square millimetres, e.g. 9.5 mm2"),
    "mm2_per_bytes_per_s": ({"mm2/(B/s)": 1.0}, "area per bandwidth, e.g. 0.025 nmm2/(B/s), which is mm2 per GB/s"),
    "usd": ({"USD": 1.0}, "US dollars, e.g. 4 USD"),
}
# no nan, no inf: they are refused like any word
_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*")


def quantity(value: float | int | str, dimension: str, where: str, *, zero: bool = False) -> float:
    """A quantity in SI units. `where` names file and field for the error.

    Raises ValueError for anything but a finite number above zero (or zero, where `zero`) in a known unit.
    """
    units, allowed = _UNITS[dimension]
    number = None
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        scale = _scale(match.group(2), units) if match else None
        if match and scale is not None:
            number = float(match.group(1)) * scale
    else:
        number = float(value)
    if number is None or not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        bound = "at least" if zero else "above"
        raise ValueError(f"{where} is {value!r}; allowed: a finite number {bound} 0 in {allowed}")
    return number


def _scale(unit: str, units: dict[str, float]) -> float | None:
    """Factor to SI of a unit with an optional prefix; an empty unit is SI; None if unknown."""
    if not unit:
        return 1.0
    for name, factor in units.items():
        if unit.endswith(name):
            prefix = unit[: -len(name)]
            if prefix in _PREFIX:
                return _PREFIX[prefix] * factor
            if prefix in _BINARY:
                return _BINARY[prefix] * factor
    return None
