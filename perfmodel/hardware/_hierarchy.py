"""The memory hierarchy inside and above one PE array, as a loop-nest model sees it.

Each operand (weights, inputs, outputs) has its own chain of memories, inner to outer; a memory may hold only some operands,
and operands may share a memory or a port. All of it is data, padded to the next step of room, so that one compiled program
serves every machine of the usual size; a larger machine gets the room that it needs.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

OPERANDS = ("W", "I", "O")  # weights, inputs, outputs: the order of every operand axis
# What crosses the two sides of a memory: the order of every direction axis. Only outputs use the middle two.
DIRECTIONS = ("read_to_lower", "write_from_lower", "read_to_higher", "write_from_higher")
LEVELS, MEMORIES, PORTS, ARRAY_DIMS = 4, 8, 16, 4  # room in the padded arrays grows in these steps


class Port(NamedTuple):
    """A port of one memory instance. `bits_per_cycle`: bandwidth; an access moves `access_bits`, in steps of `min_bits`."""

    bits_per_cycle: float
    access_bits: float
    min_bits: float


class Memory(NamedTuple):
    """A memory as it is declared: `serves` are the array dimensions over which one instance is shared (none: one a PE).

    `ports`: name -> Port; `route`: (operand, direction) -> name of the port it uses. Energies are per access.
    `swapped`: operands whose content is replaced whole at every step of the loops above, whatever of it would do for the next
    (two halves that take turns; sums handed up rather than kept)."""

    name: str
    capacity_bits: float
    read_j: float
    write_j: float
    serves: tuple[str, ...]
    ports: dict[str, Port]
    route: dict[tuple[str, str], str]
    swapped: str = ""


class Hierarchy(eqx.Module):
    """Chains of memories over a PE array of `A` dimensions; every axis is padded to whole steps of room (`padded`).

    - `array`: extent of each array dimension (1 where unused).  `mac_j`: energy of one multiply-accumulate.
    - `held[t, l]`: chain of operand t has a level l.  `memory[t, l]`: which memory that is (0 where none).
    - `capacity_bits[m]` of one instance; `read_j, write_j[t, l]` per access.
    - `bits_per_cycle, access_bits, min_bits[t, l, way]` of the port used; `uses[p, t, l, way]`: 1.0 where it is port p.
    - `stores[m, t, l]`: 1.0 where level l of operand t is memory m.  `outermost[p]`: 1.0 for ports of the outermost memory.
    - `swapped[t, l]`: nothing that level l of operand t holds is kept for the next step.
    - `entry[t, a]`: the level below which array dimension a is unrolled for operand t (0: below its innermost memory).
    """

    array: Float[Array, "A"]
    mac_j: Float[Array, ""]
    held: Bool[Array, "3 levels"]
    swapped: Bool[Array, "3 levels"]
    memory: Int[Array, "3 levels"]
    capacity_bits: Float[Array, "memories"]
    read_j: Float[Array, "3 levels"]
    write_j: Float[Array, "3 levels"]
    bits_per_cycle: Float[Array, "3 levels 4"]
    access_bits: Float[Array, "3 levels 4"]
    min_bits: Float[Array, "3 levels 4"]
    uses: Float[Array, "ports 3 levels 4"]
    stores: Float[Array, "memories 3 levels"]
    outermost: Float[Array, "ports"]
    entry: Int[Array, "3 A"]


def hierarchy(array: dict[str, int], mac_j: float, memories: list[Memory], chains: dict[str, list[str]]) -> Hierarchy:
    """A machine from its declaration: array dimensions, memories, and the chain of each operand, inner to outer.

    Raises ValueError naming the memory or operand where a chain is empty, a memory unknown or a route missing.
    """
    index = {memory.name: i for i, memory in enumerate(memories)}
    ports = [(memory.name, name) for memory in memories for name in memory.ports]
    for operand in OPERANDS:
        if not chains[operand]:
            raise ValueError(f"operand {operand}: its chain has no memory; needed: at least one")
    levels = _room(max(len(chains[operand]) for operand in OPERANDS), LEVELS)
    room, dims = _room(len(memories), MEMORIES), _room(len(array), ARRAY_DIMS)
    shape = (len(OPERANDS), levels)
    held, memory = np.zeros(shape, bool), np.zeros(shape, np.int32)
    swapped = np.zeros(shape, bool)
    read_j, write_j = np.zeros(shape), np.zeros(shape)
    widths = np.ones((3, *shape, len(DIRECTIONS)))
    uses, stores = np.zeros((_room(len(ports), PORTS), *shape, len(DIRECTIONS))), np.zeros((room, *shape))
    entry = np.zeros((len(OPERANDS), dims), np.int32)
    outermost = np.zeros(len(uses))
    for t, operand in enumerate(OPERANDS):
        chain = chains[operand]
        for level, name in enumerate(chain):
            if name not in index:
                raise ValueError(f"operand {operand}: memory {name!r} is not declared; declared: {', '.join(index)}")
            here = memories[index[name]]
            held[t, level], memory[t, level] = True, index[name]
            swapped[t, level] = operand in here.swapped
            read_j[t, level], write_j[t, level] = here.read_j, here.write_j
            stores[index[name], t, level] = 1.0
            for way, direction in enumerate(DIRECTIONS):
                port = here.route.get((operand, direction))
                if port is None:
                    if _taken(operand, direction, level == len(chain) - 1):
                        raise ValueError(f"memory {name}: no route for operand {operand}, {direction}")
                    continue
                if port not in here.ports:
                    raise ValueError(f"memory {name}: port {port!r} is not declared; declared: {', '.join(here.ports)}")
                widths[:, t, level, way] = here.ports[port]
                uses[ports.index((name, port)), t, level, way] = 1.0
        for a, dimension in enumerate(array):
            inside = [dimension in memories[index[name]].serves for name in chain]
            entry[t, a] = inside.index(True) if True in inside else len(chain)
    last = chains["W"][-1]
    for p, (name, _) in enumerate(ports):
        outermost[p] = float(name == last)
    return Hierarchy(
        array=np.asarray([*array.values(), *[1] * (dims - len(array))], np.float64),
        mac_j=np.float64(mac_j),
        held=held,
        swapped=swapped,
        memory=memory,
        capacity_bits=np.asarray([m.capacity_bits for m in memories] + [np.inf] * (room - len(memories)), np.float64),
        read_j=read_j,
        write_j=write_j,
        bits_per_cycle=widths[0],
        access_bits=widths[1],
        min_bits=widths[2],
        uses=uses,
        stores=stores,
        outermost=outermost,
        entry=entry,
    )


def stack_hierarchies(machines: list[Hierarchy]) -> Hierarchy:
    """Machines as one, with a trailing axis; smaller ones are padded to the room of the largest."""
    rooms = np.max([[*m.uses.shape[:3:2], m.capacity_bits.shape[0], m.array.shape[0]] for m in machines], axis=0)
    many = [_padded(m, *(int(n) for n in rooms)) for m in machines]
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis=-1), *many)


def _padded(machine: Hierarchy, ports: int, levels: int, memories: int, dims: int) -> Hierarchy:
    """More room: levels, memories and ports that hold nothing, array dimensions of one."""

    def pad(value, sizes: dict[int, int], fill=0.0):
        value = np.asarray(value)
        more = [(0, sizes.get(axis, length) - length) for axis, length in enumerate(value.shape)]
        return np.pad(value, more, constant_values=fill)

    of_levels = {
        name: pad(getattr(machine, name), {1: levels}) for name in ("held", "swapped", "memory", "read_j", "write_j")
    }
    widths = {
        name: pad(getattr(machine, name), {1: levels}, 1.0) for name in ("bits_per_cycle", "access_bits", "min_bits")
    }
    return Hierarchy(
        array=pad(machine.array, {0: dims}, 1.0),
        mac_j=machine.mac_j,
        capacity_bits=pad(machine.capacity_bits, {0: memories}, np.inf),
        uses=pad(machine.uses, {0: ports, 2: levels}),
        stores=pad(machine.stores, {0: memories, 2: levels}),
        outermost=pad(machine.outermost, {0: ports}),
        entry=pad(machine.entry, {1: dims}),
        **of_levels,
        **widths,
    )


def _room(number: int, step: int) -> int:
    """Whole steps of room for so many."""
    return -(-max(number, 1) // step) * step


def _taken(operand: str, direction: str, outermost: bool) -> bool:
    """Whether traffic of an operand takes a direction: only outputs come up, and nothing stands above the outermost memory."""
    if direction in ("read_to_higher", "write_from_higher") and outermost:
        return False
    return operand == "O" or direction in ("read_to_lower", "write_from_higher")
