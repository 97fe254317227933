"""Where a family is sampled, and what of a workload is."""

from collections.abc import Callable, Sequence

import numpy as np

from ..workload import Operators, Workload
from ._decoders import decoder
from ._interpolation import independent
from ._pieces import Feature, Loads, Pieces, product

# Lengths, first those far from any bend: odd, so that tokens do not divide evenly among experts.
_LENGTHS = (7, 11, 13, 3, 17, 1, 2, 0)
_FAR = 5
_BEYOND = (3, 4, 9, 10, 27, 28)
# A length that a family is checked at, the first of these that the model allows.
_LONG = (100_003, 30_011, 4_001, 2_003, 1_009, 509, 251, 73, 29)
OF_OPERATORS = tuple(Operators.__dataclass_fields__)
TOTALS = ("in_total", "out_total")  # bits of all elements together: `in_bits` and `out_bits` may be means
OF_ROWS = (*OF_OPERATORS, *TOTALS, "outside_in_bytes", "outside_out_bytes", "hold_bytes")
OF_MODELS = ("inferences", "kv_bytes_per_token", "kv_tokens", "state_bytes")  # the first: `Workload.batch`


def numbers(w: Workload) -> dict[str, np.ndarray]:
    """All numbers of a workload that may depend on batch and length, by name; of each row, each edge (`edge_bytes`), each model."""
    op = w.operators
    found = {name: np.asarray(getattr(op, name), np.float64) for name in OF_OPERATORS}
    found |= {f"{side}_total": found[f"{side}_elements"] * found[f"{side}_bits"] for side in ("in", "out")}
    found |= {name: np.asarray(getattr(w, name)) for name in (*OF_ROWS[-3:], "edge_bytes", *OF_MODELS[1:])}
    return found | {"inferences": np.asarray(w.batch)}


def pieces(name: str, phase: str, options: dict) -> Pieces:
    """The quantities that sizes of a model depend on, from its record; of what is no such decoder the state it may carry."""
    try:
        spec = decoder(name).spec
    except ValueError:
        return Pieces((1,)) if phase == "decode" else Pieces()
    tokens, before = options.get("seq_len") or 1, options.get("context") or 0
    bends: set[int] = set()
    for window in {n for n in spec.windows if n}:
        past = {window - 1, window - tokens} if phase == "decode" else set()
        bends |= past or {window, window - before, window - min(before, window - 1)}
    loads = None
    if spec.experts is not None:
        loads = Loads(spec.experts.count, spec.experts.chosen, tokens if phase == "decode" else 0)
    return Pieces(tuple(sorted(n for n in bends if n > 0)), loads)


def longest(build: Callable[[int, int], Workload], batch: int, bends: Sequence[int]) -> int:
    """A long length that a model allows."""
    far = 4 * max(bends, default=0) + 3
    for length in (far, *_LONG) if far > _LONG[0] else _LONG:
        try:
            build(batch, length)
        except ValueError:
            continue
        return length
    return max(_LENGTHS)


def of_length(bends: Sequence[int], phase: str, degree: int) -> list[Feature]:
    """Features of the length: in decode it enters once (keys a query meets), else twice (queries times keys)."""
    bent = [(f"s{n}",) for n in bends]
    if phase == "decode" and degree == 1:
        return [(), ("s",), *bent]
    return [(), ("s",), ("s", "s"), *bent, *(("s", *each) for each in bent)]


def unlike(loads: Loads | None, batch: int, length: int) -> bool:
    """Whether all experts are at work, some with a token more than the others: the graph has all rows it can have."""
    return loads is None or (loads.pairs(batch, length) > loads.count and loads.pairs(batch, length) % loads.count > 0)


def batches(loads: Loads | None, n: int) -> list[int]:
    """`n` batches that can be sampled at the usual lengths, all two groups or more; fewer where there are not so many. With experts
    the last is far from the others, so that loads are others."""
    if loads is None:
        return list(range(2, 2 + n))
    able = [b for b in range(2, _FAR * (loads.count + 8)) if all(unlike(loads, b, s) for s in _LENGTHS[:3])]
    return able[: n - 1] + [b for b in able if b > _FAR * able[0]][:1]


def lengths(of: Pieces, features: Sequence[Feature], at: Sequence[int], least: int, most: int) -> list[int]:
    """Lengths at which the features of the length are independent. Raises ValueError where there are not enough."""
    chosen: list[int] = []
    beyond = [n + more for n in of.bends for more in _BEYOND]
    for s in [*_LENGTHS, *beyond]:
        if not least <= s <= most or s in chosen or not all(unlike(of.loads, b, s) for b in at):
            continue
        rows = [[product(f, of.exact(2, each)) for f in features] for each in [*chosen, s]]
        if independent(rows):
            chosen.append(s)
        if len(chosen) == len(features):
            return chosen
    raise ValueError(f"allows too few lengths to tell how it depends on them, {least} to {most}")
