"""Number formats of operands: how many bits an element takes in memory, scales included, and how many of them are stored."""

from typing import NamedTuple

from .._names import unknown_name

# Bits of one element. Block formats carry a shared scale: nvfp4 8 bits for 16 elements (NVIDIA), mxfp4 and mxfp8 8 bits for
# 32 (OCP Microscaling Formats v1.0).
DTYPES = {
    "fp32": 32.0, "tf32": 32.0, "bf16": 16.0, "fp16": 16.0, "fp8": 8.0, "int8": 8.0, "int4": 4.0,
    "nvfp4": 4.5, "mxfp4": 4.25, "mxfp8": 8.25,
}  # fmt: skip
_SPARSE = "-sparse"


class Precision(NamedTuple):
    """Bits of a stored element, and the share of elements that are stored (the others are zeros nobody multiplies by)."""

    bits: float
    density: float = 1.0


def precision(name: str, field: str = "dtype") -> Precision:
    """The format `name`: one of `DTYPES`, weights also `NAME-sparseP`, P per cent zeros (`bf16-sparse87.5`).

    Sparse weights are pruned in blocks or per output, so that every output keeps the same share of its inputs and the
    positions take negligible room: a row's contraction is that much shorter. Raises ValueError for an unknown name.
    """
    base, sparse, percent = str(name).partition(_SPARSE)
    if base not in DTYPES:
        raise unknown_name(field, name, [*DTYPES, f"NAME{_SPARSE}PERCENT"])
    if not sparse:
        return Precision(DTYPES[base])
    try:
        zeros = float(percent)
    except ValueError:
        zeros = -1.0
    if not 0 <= zeros < 100:
        raise ValueError(f"{field} is {name!r}; allowed after {_SPARSE}: per cent of zeros, at least 0 and below 100")
    return Precision(DTYPES[base], 1 - zeros / 100)
