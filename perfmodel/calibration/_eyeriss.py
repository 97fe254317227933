"""Row-stationary dataflow against silicon: Eyeriss on AlexNet and VGG-16 (JSSC 52(1), 2017, Tables V and VI).

The chip is the catalogue's `eyeriss`; each layer's mapping is found by `best_row_mapping`, the same search for all. Volumes
that the paper prints in MB are multiples of 2**20 bytes (the buffer volumes agree with the model to four digits only so).

Activations cross the chip's edge run-length coded: three pairs of a 5-bit run of zeros and a 16-bit value, and one bit, in
64. How far that shrinks them follows from the share of zeros, an input of the experiment that Tables V and VI print: below
from memory, per layer; a file may give its own (`zeros_in_ifmaps_percent`). Outputs carry the zeros that the next layer's
inputs have (pooling between the two would only remove some); those of the last layer, the zeros of its inputs.
"""

from pathlib import Path

import jax
import msgspec
import numpy as np

from .._files import decode_file
from .._names import unknown_name
from ..cost import best_row_mapping
from ..hardware import _config as systems
from ..workload import operator_row
from ..workload._operators import stack_operators
from ._comparison import Comparison

TYPICAL_ZEROS = 0.58  # of all activations of a network: 57.5 % in AlexNet, 58.6 % in VGG-16 (the paper's totals)
_RUN_BITS, _VALUE_BITS, _PAIRS, _WORD_BITS = 5, 16, 3, 64
_MB = 2**20

# name: (groups, filters a group, channels a group, outputs along a side, filter side, stride, zeros in the inputs)
_LAYERS = {
    "alexnet": {
        "CONV1": (1, 96, 3, 55, 11, 4, 0.0001), "CONV2": (2, 128, 48, 27, 5, 1, 0.387), "CONV3": (1, 384, 256, 13, 3, 1, 0.725),
        "CONV4": (2, 192, 192, 13, 3, 1, 0.793), "CONV5": (2, 128, 192, 13, 3, 1, 0.776),
    },
    "vgg16": {
        "CONV1-1": (1, 64, 3, 224, 3, 1, 0.016), "CONV1-2": (1, 64, 64, 224, 3, 1, 0.477),
        "CONV2-1": (1, 128, 64, 112, 3, 1, 0.248), "CONV2-2": (1, 128, 128, 112, 3, 1, 0.387),
        "CONV3-1": (1, 256, 128, 56, 3, 1, 0.397), "CONV3-2": (1, 256, 256, 56, 3, 1, 0.581),
        "CONV3-3": (1, 256, 256, 56, 3, 1, 0.587), "CONV4-1": (1, 512, 256, 28, 3, 1, 0.643),
        "CONV4-2": (1, 512, 512, 28, 3, 1, 0.747), "CONV4-3": (1, 512, 512, 28, 3, 1, 0.854),
        "CONV5-1": (1, 512, 512, 14, 3, 1, 0.794), "CONV5-2": (1, 512, 512, 14, 3, 1, 0.874),
        "CONV5-3": (1, 512, 512, 14, 3, 1, 0.885),
    },
}  # fmt: skip


class _Layer(msgspec.Struct):
    layer: str
    processing_latency_ms: float
    active_pes: float
    global_buffer_MB: float  # noqa: N815
    dram_MB: float  # noqa: N815
    zeros_in_ifmaps_percent: float | None = None


class _Network(msgspec.Struct):
    batch: int
    layers: list[_Layer]


class _File(msgspec.Struct):
    alexnet: _Network | None = None
    vgg16: _Network | None = None


def run_length_ratio(zeros):
    """Bytes of run-length coded activations per byte of plain ones; at most 1: what would grow is left plain.

    Zeros fall independently: a pair covers (1 - z**32) / (1 - z) words on average, a run of at most 31 zeros and a value.
    """
    zeros = np.asarray(zeros, np.float64)
    words = np.where(zeros < 1, (1 - zeros ** (2**_RUN_BITS)) / np.where(zeros < 1, 1 - zeros, 1.0), 2.0**_RUN_BITS)
    return np.minimum(_WORD_BITS / (_PAIRS * _VALUE_BITS) / words, 1.0)


def compare(path: str | Path, parameters: str | Path | None = None) -> list[Comparison]:
    """Active PEs, processing latency, volume of the global buffer and of memory, of each layer; grouped by network.

    Raises ValueError as `decode_file` does, for a layer whose shape is not known, for numbers that are not positive, and if
    `parameters` are given: nothing is calibrated.
    """
    if parameters is not None:
        raise ValueError(f"eyeriss takes no parameters; got {parameters}")
    file = decode_file(path, _File)
    networks = {name: network for name in _LAYERS if (network := getattr(file, name)) is not None and network.layers}
    if not networks:
        raise ValueError(f"{path}: no layers; needed: layers of {' or '.join(_LAYERS)}")
    chip = jax.tree.map(lambda x: x[0], systems.load("eyeriss").chiplets)
    predicted, reference, group = [], [], []
    for name, network in networks.items():
        _check(f"{path}: {name}", name, network)
        zeros = [_zeros(name, layer) for layer in network.layers]
        for i, layer in enumerate(network.layers):
            first = layer.layer == next(
                iter(_LAYERS[name])
            )  # its inputs are a picture, which has no zeros to plan with
            out = zeros[min(i + 1, len(zeros) - 1)]
            predicted.append(_layer(chip, _LAYERS[name][layer.layer], network.batch, zeros[i], out, first))
            volumes = layer.global_buffer_MB * _MB, layer.dram_MB * _MB
            reference.append((layer.active_pes, layer.processing_latency_ms / 1e3, *volumes))
            group.append(name)
    columns = zip(np.asarray(predicted).T, np.asarray(reference).T, strict=True)
    named = (("active_pes", "PEs"), ("processing_latency_s", "s"), ("global_buffer_bytes", "B"), ("dram_bytes", "B"))
    return [Comparison(name, unit, *pair, group) for (name, unit), pair in zip(named, columns, strict=True)]


def _layer(chip, shape: tuple, batch: int, zeros_in: float, zeros_out: float, first: bool) -> tuple[float, ...]:
    groups, k, c, side, window, stride, _ = shape
    row = operator_row("conv", groups=groups, batch=batch, k=k, c=c, p=side, q=side, r=window, s=window, stride=stride,
                       bits=_VALUE_BITS, psum_bits=_VALUE_BITS)  # fmt: skip
    op = jax.tree.map(lambda x: x[0], stack_operators([row]))
    _, cost = best_row_mapping(op, chip, 1.0 if first else float(run_length_ratio(TYPICAL_ZEROS)))
    outputs = float(op.out_elements)
    loads = cost.input_loads * run_length_ratio(zeros_in) + cost.weight_loads + outputs * run_length_ratio(zeros_out)
    # the paper's buffer volume: a sum is read and written in every pass (the first reads the bias)
    buffer = cost.input_reads + cost.weight_reads + 2 * outputs * cost.sum_passes
    word = _VALUE_BITS / 8
    seconds = (cost.cycles + cost.ramp_cycles) / float(chip.clock_hz)
    return float(cost.active_pes), float(seconds), float(buffer * word), float(loads * word)


def _zeros(network: str, layer: _Layer) -> float:
    given = layer.zeros_in_ifmaps_percent
    return _LAYERS[network][layer.layer][-1] if given is None else given / 100


def _check(where: str, name: str, network: _Network) -> None:
    if network.batch < 1:
        raise ValueError(f"{where}.batch is {network.batch}; allowed: an integer of at least 1")
    for i, layer in enumerate(network.layers):
        at = f"{where}.layers[{i}]"
        if layer.layer not in _LAYERS[name]:
            raise unknown_name(f"{at}.layer", layer.layer, _LAYERS[name])
        for field in ("processing_latency_ms", "active_pes", "global_buffer_MB", "dram_MB"):
            if not getattr(layer, field) > 0 or not np.isfinite(getattr(layer, field)):
                raise ValueError(f"{at}.{field} is {getattr(layer, field)}; allowed: a finite number above 0")
        if layer.zeros_in_ifmaps_percent is not None and not 0 <= layer.zeros_in_ifmaps_percent <= 100:
            raise ValueError(f"{at}.zeros_in_ifmaps_percent is {layer.zeros_in_ifmaps_percent}; allowed: 0 to 100")
