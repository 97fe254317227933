"""A chiplet of the catalogue as a memory hierarchy: what its dataflow keeps where, and what it may unroll over its array."""

import equinox as eqx
import jax.numpy as jnp

from ...hardware import DATAFLOWS, DIRECTIONS, Chiplets, Hierarchy, Memory, MemoryTiers, Port, hierarchy
from ._nest import OURS, Conventions

# A chiplet file gives one energy for local stores and no size. This much a PE is what the small arrays of the golden data
# have (1 to 128 bytes of weights in ZigZag's machines, 24 words of sums in Eyeriss); sums of `ws` are pooled along a column.
_LOCAL_BYTES = 64.0
_BYTE = 8.0

# Output-stationary PEs pass inputs on to their neighbours: their stores of inputs are one plane over the whole array.
_PLANES = ("os", "os-flex", "os-systolic")
# What moves on through a systolic array (or leaves it) is gone: it comes again, even if it is the same at the next step.
_MOVES_ON = {"os-systolic": "I", "ws-systolic": "O", "is-systolic": "O"}
_LATCHED = {"os-systolic": "O", "ws-systolic": "W", "is-systolic": "I"}  # at the multiplier; elsewhere all three

# What stays next to the PEs, and the alternatives of what is unrolled over rows (0) and columns (1).
_PIXELS, _FILTERS, _DEPTH = ("P", "Q", "N"), ("K",), ("C", "S", "R")
_FLOWS: dict[str, tuple[str, dict[int, list[tuple[str, ...]]]]] = {
    "ws": ("WIO", {0: [("K",)], 1: [("C",)]}),
    "os": ("IO", {0: [("P",)], 1: [("Q", "P")]}),
    "os-flex": ("IO", {0: [("P",), ("K",)], 1: [("Q", "P"), ("K",)]}),
    "os-systolic": ("IO", {0: [_PIXELS], 1: [_FILTERS]}),
    "ws-systolic": ("WO", {0: [_DEPTH], 1: [_FILTERS]}),
    "is-systolic": ("IO", {0: [_DEPTH], 1: [_PIXELS]}),
    "rs": ("WIO", {0: [("R", "C"), ("R", "K")], 1: [("P", "K")]}),
}
BUFFER = {
    flow: {t: int(t in kept) for t in "WIO"} for flow, (kept, _) in _FLOWS.items()
}  # level of the buffer in each chain


def unrolling(dataflow: str) -> dict[int, list[tuple[str, ...]]]:
    """For each array dimension (rows, columns) the alternatives that a dataflow allows (see `spaces`)."""
    return _FLOWS[dataflow][1]


def table_conventions(dataflow: str) -> Conventions:
    """Ours, without rounding to whole accesses: a chiplet's port moves bytes, and gradients see every byte. A systolic array
    latches only what is stationary."""
    return OURS._replace(rounding="none", latched=_LATCHED.get(dataflow, OURS.latched))


def chains(dataflow: str) -> dict[str, list[str]]:
    """Names of the memories of each operand, inner to outer."""
    return {t: [*([f"{t} store"] if t in _FLOWS[dataflow][0] else []), "buffer", "memory"] for t in "WIO"}


def chiplet_machine(dataflow: str, chip: Chiplets, memory: MemoryTiers) -> Hierarchy:
    """Local stores, buffer and memory of one chiplet (fields are scalars, may be traced), bandwidths per cycle of its clock.

    Sums meet along the array dimension that is unrolled over a reduction, in a store at its end. ValueError: unknown dataflow.
    """
    if dataflow == "gpu":
        raise ValueError(
            f"dataflow is 'gpu': its kernels are a library's, not loop nests; the mapper knows: {', '.join(_FLOWS)}"
        )
    if dataflow not in _FLOWS:
        raise ValueError(f"dataflow is {dataflow!r}; the mapper knows: {', '.join(_FLOWS)} (of {', '.join(DATAFLOWS)})")
    kept, alternatives = _FLOWS[dataflow]
    # the dimension along which products are added in space, if the dataflow has one
    adds = [
        name for a, name in enumerate(("rows", "columns")) if any(set(way) & {"C", "R", "S"} for way in alternatives[a])
    ]

    def declared(name, serves, operands):
        route = {(t, way): "port" for t in operands for way in DIRECTIONS}
        moves_on = _MOVES_ON.get(dataflow, "") if name.endswith("store") else ""
        return Memory(name, 1.0, 1.0, 1.0, serves, {"port": Port(1.0, _BYTE, _BYTE)}, route, moves_on)

    locals_ = {t: f"{t} store" for t in kept}
    everywhere = ("rows", "columns")
    # the PEs of `ws` that multiply the same channel read it from one store beside them
    over = {
        "W": (),
        "O": tuple(adds),
        "I": everywhere if dataflow in _PLANES else ("rows",) if dataflow == "ws" else (),
    }
    stores = [declared(name, over[t], t) for t, name in locals_.items()]
    names = [*locals_.values(), "buffer", "memory"]
    memories = [*stores, declared("buffer", everywhere, "WIO"), declared("memory", everywhere, "WIO")]
    made = hierarchy({"rows": 1, "columns": 1}, 1.0, memories, chains(dataflow))

    endless, extent = 1e30, {"rows": chip.rows, "columns": chip.columns}
    size = {}
    for t, name in locals_.items():  # a store at the end of a dimension pools what its PEs have
        size[name] = _LOCAL_BYTES
        for dimension in over[t]:
            size[name] = size[name] * extent[dimension]
    capacity = jnp.stack(
        [jnp.asarray({**size, "buffer": chip.buffer_bytes, "memory": endless}[n] * 8.0) for n in names]
    )
    price = [*[chip.local_j_per_byte] * len(locals_), chip.buffer_j_per_byte, memory.j_per_byte[0]]
    rate = [
        *[endless] * len(locals_),
        chip.buffer_bytes_per_s / chip.clock_hz * 8,
        memory.bytes_per_s[0] / chip.clock_hz * 8,
    ]
    which = jnp.asarray(made.memory)
    cost, bits = (jnp.stack([jnp.asarray(x) for x in values])[which] for values in (price, rate))
    more = jnp.full((made.capacity_bits.shape[0] - len(names),), jnp.inf)
    array = jnp.concatenate(
        [jnp.stack([jnp.asarray(chip.rows), jnp.asarray(chip.columns)]), jnp.ones(made.array.shape[0] - 2)]
    )
    return eqx.tree_at(
        lambda m: (m.array, m.mac_j, m.capacity_bits, m.read_j, m.write_j, m.bits_per_cycle),
        made,
        (
            array,
            chip.mac_j,
            jnp.concatenate([capacity, more]),
            cost,
            cost,
            jnp.broadcast_to(bits[..., None], made.bits_per_cycle.shape),
        ),
    )
