"""The mapping of a layer on a row-stationary chip, found by looking at every one that the hardware allows (on the host).

As the compiler of Eyeriss does (ISCA 2016, section VI): traffic with memory, by far the most expensive, decides; then time.
What "every one" leaves out, because no text states the compiler's rules and the published volumes and PE counts imply them:
mappings that use less than `LEAST_PES` of the PEs of the busiest one; parts of unequal size (p t and m divide the filters,
q r the channels); several images at once unless whole maps of the whole batch are.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ...hardware import Chiplets
from ...workload import Operators
from ._row_stationary import (
    BANK_BYTES,
    FILTER_BANKS,
    FILTER_WORDS,
    INPUT_WORDS,
    LONGEST_ROW,
    SPARE_BANKS,
    SUM_WORDS,
    RowMapping,
    RowStationary,
    row_stationary_cost,
)

LEAST_PES = 0.9  # from 0.86 to 0.928 nothing changes on the published layers
_BLOCK = 4096  # mappings are priced in blocks of this size, so that one program does for all layers


def best_row_mapping(op: Operators, chip: Chiplets, input_ratio: float = 1.0) -> tuple[RowMapping, RowStationary]:
    """Least traffic with memory, then least time; of one operator (scalars) on one chiplet (scalars). Not traced.

    **Arguments:** `input_ratio`: bytes of inputs in memory per byte on the chip (compression). Results and weights are
    moved equally by mappings of the same tiles.

    Raises ValueError if no mapping fits the buffer.
    """
    rows = row_mappings(op, chip)
    if not len(rows):
        raise ValueError(f"no row-stationary mapping fits a buffer of {float(chip.buffer_bytes):g} bytes")
    blocks = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        padded = np.concatenate([block, np.repeat(block[:1], _BLOCK - len(block), axis=0)])
        cost = _price(op, chip, RowMapping(*(jnp.asarray(padded[:, i]) for i in range(8))))
        blocks.append([np.asarray(x)[: len(block)] for x in cost])
    cost = RowStationary(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
    memory = cost.input_loads * input_ratio * float(op.in_bits) + cost.weight_loads * float(op.weight_bits)
    memory = np.where(cost.active_pes >= LEAST_PES * cost.active_pes.max(), memory, np.inf)
    seconds = cost.cycles + cost.ramp_cycles
    best = min(np.flatnonzero(memory <= memory.min() * (1 + 1e-9)), key=lambda i: seconds[i])
    return RowMapping(*rows[best]), RowStationary(*(float(x[best]) for x in cost))  # type: ignore[arg-type]


@jax.jit
def _price(op: Operators, chip: Chiplets, mapping: RowMapping) -> RowStationary:
    cost = row_stationary_cost(op, chip, mapping)
    return RowStationary(*(x + jnp.zeros_like(mapping.n) for x in cost))


def row_mappings(op: Operators, chip: Chiplets) -> np.ndarray:
    """Every mapping within the limits of scratchpads, array, banks and this module: rows of `RowMapping`, `[n, 8]`."""
    attention = bool(op.is_attention)
    images = 1 if attention else int(op.batch)
    rows, columns, stride = int(chip.rows), int(chip.columns), int(op.stride)
    height = -(-int(op.r) // -(-int(op.r) // rows))  # of a filter cut to what a column of PEs holds
    width = -(-int(op.s) // -(-int(op.s) // INPUT_WORDS))
    filters, channels = int(op.k), int(op.c)
    in_bytes, sum_bytes = float(op.in_bits) / 8, float(op.psum_bits) / 8
    banks = int(float(chip.buffer_bytes) // BANK_BYTES) - FILTER_BANKS - SPARE_BANKS
    filter_words = FILTER_BANKS * BANK_BYTES / (float(op.weight_bits) / 8)
    cuts = -(-int(op.q) // LONGEST_ROW)
    w = -(-int(op.q) // cuts)
    found = []
    for e in range(1, int(op.p) + 1):
        folds = -(-e // columns)  # of a set wider than the array
        places = (rows // height) * (columns // -(-e // folds))
        if places < folds:
            break
        channel_bytes = ((e - 1) * stride + height) * ((w - 1) * stride + width) * in_bytes
        for n in {1, images} if e == int(op.p) and cuts == 1 else {1}:
            for qr in _divisors(channels, places // folds * (INPUT_WORDS // width)):
                sum_banks = banks - int(-(-qr * channel_bytes // BANK_BYTES))
                at_once = int(sum_banks * BANK_BYTES / (n * e * w * sum_bytes))  # filters whose sums fit
                for q in _divisors(qr, INPUT_WORDS // width):
                    r = qr // q
                    for t in range(1, places // folds // r + 1):
                        for p in range(1, min(SUM_WORDS, FILTER_WORDS // (q * width), at_once // t) + 1):
                            if filters % (p * t) or p * t * qr * height * width > filter_words:
                                continue
                            m = p * t * _divisors(filters // (p * t), at_once // (p * t))[-1]
                            found.append((e, cuts, n, m, p, q, r, t))
    return np.asarray(found, np.float64).reshape(-1, len(RowMapping._fields))


def _divisors(number: int, most: int) -> list[int]:
    return [d for d in range(1, min(number, most) + 1) if number % d == 0]
