"""MAESTRO's runtime, energy and accesses against the same dataflows as loop nests under our own conventions.

Nothing of MAESTRO's engine is copied: a machine with its bandwidths and its energies per access, its dataflows as loop nests
(`_maestro_dataflows`), and the loop-nest model. The machine is MAESTRO's in one more respect: its buffer has two halves that
take turns, and its PEs hand their sums up at every step, so nothing is kept from one step to the next (`Memory.swapped`).
On a machine that keeps what stays, the runtimes of three dataflows rank differently (`benchmarks/accuracy.py` gives both).
Beyond that the two disagree where MAESTRO does what no machine has to:

- a transfer of at most the bandwidth is free (`ceil(x / bw) - 1` cycles);
- sums that come down again are not counted.

Energies differ besides by what fills the buffer: it holds a step here, as its size asks, and everything once in MAESTRO's counts.

What counts is whether both rank layers and machines alike (Spearman's rank correlation per dataflow).
"""

from pathlib import Path

import jax
import numpy as np

from ...cost import OURS, LoopNest, NestCost, Problem, loopnest_cost
from ...hardware import Hierarchy
from .._comparison import Comparison
from .._table_file import Column, read_table
from ._dataflows import DATAFLOWS, Layer, machine

_SIZE, _MAYBE = Column(int, least=1), Column(float, optional=True, least=1)
_LOCAL = [f"{operand}_l1_{side}" for operand in ("input", "filter", "output") for side in ("reads", "writes")]
COLUMNS = {
    "lowering": str, "K": _MAYBE, "C": _MAYBE, "R": _MAYBE, "S": _MAYBE, "Y_in": _MAYBE, "X_in": _MAYBE, "stride": _MAYBE,
    "gemm_M": _SIZE, "gemm_N": _SIZE, "gemm_K": _SIZE, "dataflow": Column(str, allowed=tuple(DATAFLOWS)), "num_pes": _SIZE,
    "noc_bw_elements_per_cycle": Column(float, least=1), "offchip_bw_elements_per_cycle": Column(float, least=1),
    "macs": _SIZE, "runtime_cycles": float, "energy_mac_units": float,
    **dict.fromkeys([*_LOCAL, "input_l2_reads", "filter_l2_reads"], float),
}  # fmt: skip
_BITS = 8.0
HOW = OURS._replace(latched="")  # every product reads its operands and its sum from the local store
_FREE_LINK = 1024  # elements a cycle; more than any row can use (the data says 70,000 for unbounded)
_LEAST_PES = 64  # the largest group of PEs of a dataflow


def compare(path: str | Path, parameters: str | Path | None = None) -> list[Comparison]:
    """Runtime, energy (in MACs), accesses of the local stores and words from the buffer to the PEs, by dataflow; runtime also
    apart for the rows whose off-chip link is unbounded. `parameters`: takes none.

    Raises ValueError in one line naming file, column and row; also for a layer whose MACs are not those of its sizes."""
    if parameters is not None:
        raise ValueError(f"--parameters is {str(parameters)!r}; maestro takes none")
    rows = read_table(path, COLUMNS)
    cost = maestro_cost(path, rows)
    group = np.asarray(rows["dataflow"], str)
    free = rows["offchip_bw_elements_per_cycle"] >= _FREE_LINK
    accesses = np.asarray(cost.accesses)
    ours = {
        "runtime_cycles": np.asarray(cost.cycles),
        "energy_macs": np.asarray(cost.total_j),
        "local_words": np.sum(accesses[:, 0], axis=(0, 1)),
        "buffer_words_to_pes": np.sum(accesses[:2, 1, 0], axis=0),
    }
    told = {
        "runtime_cycles": rows["runtime_cycles"],
        "energy_macs": rows["energy_mac_units"],
        "local_words": np.sum([rows[name] for name in _LOCAL], axis=0),
        "buffer_words_to_pes": rows["input_l2_reads"] + rows["filter_l2_reads"],
    }
    units = dict(runtime_cycles="cycles", energy_macs="MACs")
    found = [Comparison(name, units.get(name, "words"), ours[name], told[name], list(group)) for name in ours]
    if np.any(free):  # without MAESTRO's charge for the off-chip link
        found.insert(
            1,
            Comparison(
                "runtime_cycles_free_link",
                "cycles",
                ours["runtime_cycles"][free],
                told["runtime_cycles"][free],
                list(group[free]),
            ),
        )
    return found


def maestro_cost(path, rows: dict[str, np.ndarray], swapped: bool = True) -> NestCost:
    """Every row's layer in its dataflow on its machine, trailing axis the rows. `swapped`: nothing stays between steps."""
    problems, nests, machines = [], [], []
    for i in range(len(rows["dataflow"])):
        where = f"{path}: row {i + 1}"
        layer, stride, real = _layer(where, rows, i)
        pes = int(rows["num_pes"][i])
        if pes < _LEAST_PES:
            raise ValueError(f"{where}, column num_pes is {pes}; allowed: at least {_LEAST_PES}, one group of PEs")
        k, c, p, q, r, s = layer
        problems.append(Problem(np.asarray([1.0, 1.0, k, c, p, q, r, s]), stride, real, *(np.float64(_BITS),) * 4))
        nests.append(DATAFLOWS[rows["dataflow"][i]](layer, pes))
        machines.append(
            machine(pes, rows["noc_bw_elements_per_cycle"][i], rows["offchip_bw_elements_per_cycle"][i], swapped)
        )
    return _cost(*(jax.tree.map(lambda *x: np.stack(x, axis=-1), *many) for many in (problems, nests, machines)))


def _layer(where: str, rows, i: int) -> tuple[Layer, np.float64, np.ndarray]:
    """Sizes, stride, and rows and columns of the input, of which the strided edge that no filter reaches is left out."""
    if rows["lowering"][i] == "gemm_native":
        layer, stride = Layer(rows["gemm_N"][i], rows["gemm_K"][i], rows["gemm_M"][i], 1, 1, 1), 1
    else:
        size = {}
        for name in ("K", "C", "R", "S", "Y_in", "X_in", "stride"):
            size[name] = rows[name][i]
            if not np.isfinite(size[name]):
                raise ValueError(f"{where}, column {name} is empty; only rows of lowering gemm_native may leave it out")
        stride = size["stride"]
        p, q = ((size[a] - size[b]) // stride + 1 for a, b in (("Y_in", "R"), ("X_in", "S")))
        layer = Layer(*(int(x) for x in (size["K"], size["C"], p, q, size["R"], size["S"])))
    macs = np.prod([float(x) for x in layer])
    if abs(macs / rows["macs"][i] - 1) > 1e-6:
        raise ValueError(f"{where}, column macs is {rows['macs'][i]}; the layer has {macs:.0f}")
    real = np.asarray([(layer.p - 1) * stride + layer.r, (layer.q - 1) * stride + layer.s], float)
    return layer, np.float64(stride), real


@jax.jit
def _cost(problem: Problem, nest: LoopNest, machine: Hierarchy) -> NestCost:
    return loopnest_cost(problem, nest, machine, HOW)
