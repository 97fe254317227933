"""ZigZag 3.9.1: words, energy and latency of its mapping on its machines, counted by its conventions."""

import json
from pathlib import Path

import jax
import numpy as np

from ...cost import ZIGZAG, Conventions, LoopNest, NestCost, Problem, loop_nest, loopnest_cost
from ...hardware import DIRECTIONS, OPERANDS, Hierarchy, Memory, Port, hierarchy, stack_hierarchies
from .._comparison import Comparison
from .._table_file import JSON, Column, read_table

MACHINES_FILE = "zigzag_hardware.json"  # beside the CSV
_SLOTS, _UNROLLED = 8, 6
_CONV = {"B": "N", "K": "K", "C": "C", "G": "G", "OY": "P", "OX": "Q", "FY": "R", "FX": "S"}
_GEMM = {"B": "P", "D": "P", "K": "K", "C": "C", "D0": "P", "D1": "K", "D2": "C"}
# The tool adds the time to empty a systolic array for this machine only, and no file says which are systolic.
_SYSTOLIC = ("tpu_like",)
COLUMNS = {
    "hardware": str, "workload": str, "layer": str, "layer_type": Column(str, allowed=("Conv", "Gemm")), "dims": JSON,
    "stride": Column(float, optional=True, least=1), "weight_bits": int, "input_bits": int, "partial_sum_bits": int,
    "output_bits": int, "spatial_mapping": JSON, "temporal_mapping": JSON, "latency_total_cycles": float,
    "energy_memory_pJ": float, "energy_total_pJ": float, "accesses_words": JSON,
    "dram_words_exceed_cycles": Column(float, optional=True),
}  # fmt: skip


def compare(path: str | Path, parameters: str | Path | None = None) -> list[Comparison]:
    """Words of every memory, energy and latency, by machine; latency also apart for rows whose latency can be used.

    The machines stand in `zigzag_hardware.json` beside the file. `parameters` are not used. Raises ValueError naming the row."""
    rows = read_table(path, COLUMNS)
    machines = load_machines(Path(path).with_name(MACHINES_FILE))
    cost = zigzag_cost(path, rows, machines)
    names = list(rows["hardware"])
    words, words_of, by = [], [], []
    for i, printed in enumerate(rows["accesses_words"]):
        chains = machines[names[i]]["memory_order_inner_to_outer"]
        for t, operand in enumerate(OPERANDS):
            for level, memory in enumerate(chains[operand]):
                given = printed.get(f"{operand}@{memory}", {})
                for way, direction in enumerate(DIRECTIONS):
                    mine = float(cost.accesses[t, level, way, i])
                    if mine or direction in given:
                        words.append(mine)
                        words_of.append(float(given.get(direction, 0)))
                        by.append(names[i])
    usable = rows["dram_words_exceed_cycles"] != 1
    usability = [f"{n} {'usable' if u else 'flagged'}" for n, u in zip(names, usable, strict=True)]
    memory_j = np.sum(np.asarray(cost.energy_j), axis=(0, 1))
    return [
        Comparison("words", "accesses", np.asarray(words), np.asarray(words_of), by),
        Comparison("energy_memory_j", "J", memory_j, rows["energy_memory_pJ"] * 1e-12, names),
        Comparison("energy_j", "J", np.asarray(cost.total_j), rows["energy_total_pJ"] * 1e-12, names),
        Comparison("latency_cycles", "cycles", np.asarray(cost.cycles), rows["latency_total_cycles"], usability),
    ]


def zigzag_cost(path, rows, machines: dict, how: Conventions = ZIGZAG) -> NestCost:
    """Every row's mapping on its machine, trailing axis the rows; in float64 where that is on."""
    built = {name: machine(name, description) for name, description in machines.items()}
    n = len(rows["hardware"])
    for i, name in enumerate(rows["hardware"]):
        if name not in built:
            raise ValueError(
                f"{path}: row {i + 1}, column hardware is {name!r}; {MACHINES_FILE} has: {', '.join(built)}"
            )
    problems = stacked([row_problem(rows, i) for i in range(n)])
    nests, drains = zip(*(row_nest(f"{path}: row {i + 1}", rows, i) for i in range(n)), strict=True)
    many = stack_hierarchies([built[name] for name in rows["hardware"]])
    return _cost(problems, stacked(nests), many, np.asarray(drains), how)


_cost = jax.jit(lambda p, nest, m, drain, how: loopnest_cost(p, nest, m, how, drain), static_argnames="how")


def load_machines(path: Path) -> dict:
    """The machine descriptions of a `zigzag_hardware.json`. ValueError in one line where it cannot be used."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read: {error.strerror or error}; the machines stand beside the CSV"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: no machines; needed: a mapping from name to description")
    return found


def machine(name: str, description: dict) -> Hierarchy:
    """A machine of `zigzag_hardware.json`. ValueError naming machine and field where something is missing."""
    try:
        chains = description["memory_order_inner_to_outer"]
        memories = [
            Memory(
                m["name"], m["size_bits"], m["read_cost_pJ_per_access"] * 1e-12, m["write_cost_pJ_per_access"] * 1e-12,
                tuple(m["served_dims"]), *_ports(m),
            )
            for m in description["memories"]
        ]  # fmt: skip
        return hierarchy(description["array_dims"], description["unit_mac_energy_pJ"] * 1e-12, memories, chains)
    except KeyError as error:
        raise ValueError(f"{MACHINES_FILE}: machine {name}: {error.args[0]} is missing") from None


def _ports(m: dict) -> tuple[dict[str, Port], dict[tuple[str, str], str]]:
    """Which port carries what, which the file does not say. One port of both ways carries everything; of four, three serve one
    operand each towards the array and the last the side away from it; of two reads or writes, one serves either side."""
    ports = {
        f"port {i}": Port(p["bandwidth_bits_per_cycle"], p["bandwidth_bits_per_cycle"], p["min_access_bits"])
        for i, p in enumerate(m["ports"])
    }
    route = {}
    for operand in m["operands"]:
        for way in DIRECTIONS:
            kind, side = way.split("_")[0], way.split("_")[-1]
            both = [i for i, p in enumerate(m["ports"]) if p["type"] == "read_write"]
            own = [i for i, p in enumerate(m["ports"]) if p["type"] == kind]
            if len(both) > 1:
                at = "IWO".index(operand) if side == "lower" else len(both) - 1
                chosen = both[min(at, len(both) - 1)]
            else:
                chosen = both[0] if both else own[0 if side == "lower" else len(own) - 1]
            route[operand, way] = f"port {chosen}"
    return ports, route


def row_problem(rows, i: int) -> Problem:
    """The operator of a row. ResNet's layers are padded: their real input is stride times the output."""
    names = _CONV if rows["layer_type"][i] == "Conv" else _GEMM
    size = dict.fromkeys("GNKCPQRS", 1.0)
    for dim, bound in rows["dims"][i].items():
        size[names[dim]] *= bound
    stride = rows["stride"][i]
    stride = 1.0 if np.isnan(stride) else float(stride)
    if str(rows["workload"][i]).startswith("resnet"):
        real = [size["P"] * stride, size["Q"] * stride]
    else:
        real = [(size["P"] - 1) * stride + size["R"], (size["Q"] - 1) * stride + size["S"]]
    return Problem(
        np.asarray([size[d] for d in "GNKCPQRS"]), np.asarray(stride), np.asarray(real), np.asarray(rows["weight_bits"][i] * 1.0),
        np.asarray(rows["input_bits"][i] * 1.0), np.asarray(rows["partial_sum_bits"][i] * 1.0), np.asarray(rows["output_bits"][i] * 1.0),
    )  # fmt: skip


def row_nest(where: str, rows, i: int) -> tuple[LoopNest, float]:
    names = _CONV if rows["layer_type"][i] == "Conv" else _GEMM
    loops = {t: _levels(rows["temporal_mapping"][i][t]) for t in OPERANDS}
    if not [x[:2] for x in loops["W"]] == [x[:2] for x in loops["I"]] == [x[:2] for x in loops["O"]]:
        raise ValueError(
            f"{where}, column temporal_mapping: operands walk different loops; needed: one order, cut differently"
        )
    temporal = [
        (names[w[0]], w[1], (w[2], inputs[2], o[2]))
        for w, inputs, o in zip(loops["W"], loops["I"], loops["O"], strict=True)
    ]
    # an unrolling may stand at another level for each operand: match them by dimension, in the order of appearance
    unrolled = {t: _levels(rows["spatial_mapping"][i][t]) for t in OPERANDS}
    spatial = []
    for dim, factor, level in unrolled["W"]:
        found = [level]
        for t in ("I", "O"):
            match = next((x for x in unrolled[t] if x[:2] == (dim, factor)), None)
            if match is None:
                raise ValueError(f"{where}, column spatial_mapping: {dim} {factor:g} of W is missing for {t}")
            unrolled[t].remove(match)
            found.append(match[2])
        spatial.append((names[dim], factor, tuple(found)))
    drain = 0.0
    if rows["hardware"][i] in _SYSTOLIC:
        drain = float(sum(round(factor) - 1 for _, factor, _ in spatial))
    return loop_nest(temporal, spatial, _SLOTS, _UNROLLED), drain


def _levels(mapping: list) -> list[tuple[str, float, int]]:
    return [(dim, factor, level) for level, loops in enumerate(mapping) for dim, factor in loops]


def stacked(items):
    """Problems, or nests, side by side on a last axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis=-1), *items)
