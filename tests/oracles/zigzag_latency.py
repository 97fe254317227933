"""ZigZag 3.9.1's latency of one mapped layer, restated slowly in plain Python (no JAX, nothing of perfmodel).

For one row of `tests/data/zigzag.csv` on its machine of `tests/data/zigzag_hardware.json`. The rules are facts about
ZigZag's cost model (github.com/KULeuven-MICAS/zigzag), stated and programmed anew. In short:

- Boundary `a` of an operand lies below its memory `a` (0: between the MACs and its innermost memory). Across it moves,
  `count[a]` times, every `period[a]` cycles, one `tile[a]` for each of `boost[a]` distinct units.
- A transfer takes ceil(bits / port width) cycles and may take a window: the whole period where the memory below
  can be double-buffered, else the part of it after which the data is no longer used.
- A port stalls by what its transfers exceed their windows, one by one and together; the worst port stalls the array.
- First tiles are loaded before, last tiles written after; a transfer made once may hide in the idle cycles of its port.

`repaired=True` mends two defects of the tool that let a port move more words than it has cycles: (1) spatial factors
rounded down to integers for latency but not for word counts, (2) the larger, not the sum, of the first loads of W and
I through one memory port that both share on one side only.
"""

import json
import math
from typing import NamedTuple

TO_LOW, FROM_LOW, TO_HIGH, FROM_HIGH = "to_low", "from_low", "to_high", "from_high"
READS, WRITES = (TO_LOW, TO_HIGH), (FROM_LOW, FROM_HIGH)

# Array dimensions along which results ripple out a cycle per unit: a property of the machine that its JSON leaves out.
SYSTOLIC_HARDWARE = ("tpu_like",)


class Layer(NamedTuple):
    """`relevant[t]`: the dimensions that index operand t one to one; `windows`: (output dim, filter dim) of I."""

    relevant: dict[str, set[str]]
    windows: tuple[tuple[str, str], ...]
    sizes: dict[str, int]
    stride: int
    padded: bool


class Transfer(NamedTuple):
    """One tile moving between memory `level` of operand `op` and its neighbour, as one port of that memory sees it."""

    op: str
    level: int
    direction: str
    cycles: int
    window: int
    period: int
    count: int
    mean_bits_per_cycle: int
    smallest_cycles: int


def read_layer(row: dict) -> Layer:
    sizes = json.loads(row["dims"])
    stride = int(row["stride"] or 1)
    if "FX" in sizes:
        relevant = {"O": set("BGK") | {"OX", "OY"}, "W": set("GKC") | {"FX", "FY"}, "I": set("BGC")}
        # The ResNet-18 of the table is padded to keep the size, as usual; the single convolutions are not padded.
        return Layer(relevant, (("OX", "FX"), ("OY", "FY")), sizes, stride, row["workload"] == "resnet18")
    if "D0" in sizes:
        rows, columns, reduction = {"D0"}, {"D1"}, {"D2"}
    else:
        rows, columns, reduction = {"B", "D"}, {"K"}, {"C"}
    relevant = {"O": rows | columns, "W": columns | reduction, "I": rows | reduction}
    return Layer(relevant, (), sizes, stride, False)


def product(loops, dims) -> float:
    return math.prod(factor for dim, factor in loops if dim in dims)


def window_extent(layer: Layer, out_size: int, filt_size: int) -> int:
    """How many different input positions stride*o + f there are, o < out_size, f < filt_size."""
    return out_size * filt_size - max(0, filt_size - layer.stride) * (out_size - 1)


def words(layer: Layer, op: str, loops) -> float:
    """Distinct elements of `op` that the loops touch (not rounded)."""
    total = product(loops, layer.relevant[op])
    if op == "I":
        for out, filt in layer.windows:
            here = window_extent(layer, *(int(product(loops, {dim}) + 1e-6) for dim in (out, filt)))
            # Padding is never read: the real input of a layer padded to keep its size is stride times its output.
            total *= min(here, layer.sizes[out] * layer.stride) if layer.padded else here
    return total


def outer_run(loops, wanted) -> int:
    """Product of the outermost loops up to the first that is not wanted."""
    run = 1
    for dim, factor in reversed(loops):
        if not wanted(dim):
            break
        run *= factor
    return run


class Operand:
    """Tiles, periods and widths at each boundary of one operand, for given spatial factors (lists as in the row)."""

    def __init__(self, layer: Layer, op: str, temporal, spatial, row: dict):
        self.op, self.levels = op, len(temporal)
        window_dims = {dim for pair in layer.windows for dim in pair} if op == "I" else set()
        relevant = layer.relevant[op]

        def irrelevant(dim):
            return dim not in relevant and dim not in window_dims

        boundaries = range(self.levels + 1)
        below = [[loop for loops in temporal[:a] for loop in loops] for a in boundaries]
        inside = [[loop for loops in spatial[:a] for loop in loops] for a in boundaries]
        self.tile = [round(words(layer, op, below[a] + inside[a])) for a in boundaries]
        # Distinct units that one unit of the memory above feeds: what the unrolling between the two adds.
        self.boost = [round(words(layer, op, inside[a] + spatial[a]) / words(layer, op, inside[a])) for a in boundaries]
        self.period = [math.prod(factor for _, factor in below[a]) for a in boundaries]
        if op != "O":  # an input stays at the MAC while the innermost loops do not touch it
            self.period[0] = outer_run(list(reversed(temporal[0])), irrelevant)
        self.count = [self.period[-1] // period for period in self.period]
        self.outer_irrelevant = [1] + [outer_run(loops, irrelevant) for loops in temporal]
        self.outer_relevant = [1] + [outer_run(loops, relevant.__contains__) for loops in temporal]
        self.partial, self.bits = [False] * (self.levels + 1), []
        for a in boundaries:
            if op == "O":
                above = [loop for loops in temporal[a:] + spatial[a + 1 :] for loop in loops]
                self.partial[a] = any(irrelevant(dim) and factor > 1 for dim, factor in above)
                self.bits.append(int(row["partial_sum_bits" if self.partial[a] else "output_bits"]))
            else:
                self.bits.append(int(row[{"W": "weight_bits", "I": "input_bits"}[op]]))

    def moves(self):
        """(level, direction, boundary) of every link end of this operand that is used."""
        for level in range(self.levels):
            inner, outer = level, level + 1
            if self.op != "O" or self.partial[inner]:
                yield level, TO_LOW, inner
            if self.op == "O":
                yield level, FROM_LOW, inner
            if outer < self.levels:  # nothing lies above the outermost memory
                if self.op == "O":
                    yield level, TO_HIGH, outer
                if self.op != "O" or self.partial[outer]:
                    yield level, FROM_HIGH, outer

    def words_moved(self, direction: str, a: int) -> int:
        return self.tile[a] * (self.boost[a] if direction in (TO_LOW, FROM_LOW) else 1)


def port_of(memory: dict, op: str, direction: str) -> int:
    """Index of the port that serves this traffic. The JSON has no allocation; this rule is inferred from the machines:
    one read_write port takes all; of several, one per operand serves the level below, a last one the level above;
    two read (write) ports serve, in this order, the level below and the level above."""
    ports = memory["ports"]
    both = [i for i, port in enumerate(ports) if port["type"] == "read_write"]
    if len(both) == 1:
        return both[0]
    if both:
        return both[-1] if direction in (TO_HIGH, FROM_HIGH) else both[memory["operands"].index(op)]
    kind = "read" if direction in READS else "write"
    same = [i for i, port in enumerate(ports) if port["type"] == kind]
    return same[-1] if direction in (TO_HIGH, FROM_HIGH) else same[0]


def double_bufferable(operands: dict[str, Operand], order: str, hierarchy, memories) -> dict[str, list[bool]]:
    """Whether a second tile fits beside the data still in use, for boundary a (the memory below it)."""
    own, shared = {}, dict.fromkeys(memories, 0.0)
    for op, t in operands.items():
        for level, name in enumerate(hierarchy[op]):
            in_use = t.tile[level + 1] * t.bits[level + 1] // t.outer_relevant[level + 1]
            own[op, level] = in_use / memories[name]["size_bits"]
            shared[name] += own[op, level]
    flags = {op: [False] for op in operands}
    for op in order:  # first come, first served: a second tile uses up the free rest
        for level, name in enumerate(hierarchy[op]):
            fits = shared[name] <= 0.5
            if not fits and own[op, level] <= 1 - shared[name]:
                fits = True
                shared[name] += own[op, level]
            flags[op].append(fits)
    return flags


def covered(windows, span: int) -> int:
    """Cycles of [0, span) inside any window; windows = [(period, length)], periods rising, each dividing the next."""
    if not windows:
        return 0
    *inner, (period, length) = windows
    full, rest = divmod(span, period)
    outside = covered(inner, period) - covered(inner, length)
    last = rest if rest <= length else length + covered(inner, rest) - covered(inner, length)
    return full * (length + outside) + last


def port_stall(transfers: list[Transfer], cycles: int) -> int:
    """Cycles by which one port delays the array in steady state."""
    slack = [(t.cycles - t.window) * (t.count - 1) for t in transfers]
    if len(transfers) <= 1:
        return max([0, *slack])
    if any(t.window == t.period for t in transfers):
        union = cycles
    else:
        union = covered(sorted((t.period, t.window) for t in transfers), max(t.period for t in transfers))
        union *= min(t.count for t in transfers)
    together = sum(t.window * (t.count - 1) for t in transfers) - union
    return sum(s for s in slack if s > 0) + max(0, sum(s for s in slack if s < 0) + together)


def begin_or_end_cycles(transfers: list[Transfer], width: int, compute: float) -> dict[tuple, float]:
    """Cycles of each link end before (inputs) or after (outputs) the computation, after hiding what can be hidden."""
    transfers = [t for t in transfers if t.op != "O" or t.direction in (FROM_LOW, TO_HIGH)]
    busy = sum(t.mean_bits_per_cycle for t in transfers if t.count > 1)
    idle = max(0, (width - busy) / width * compute)
    cycles: dict[tuple, float] = {(t.op, t.level, t.direction): t.cycles for t in transfers}
    for t in sorted((t for t in transfers if t.count == 1), key=lambda t: -t.cycles):
        hidden = min(max(0, t.cycles - t.smallest_cycles), idle)
        cycles[t.op, t.level, t.direction] -= hidden
        idle -= hidden
    return cycles


def accesses(row: dict, machine: dict) -> dict[str, dict[str, int | float]]:
    """Full-width accesses per "operand@memory" and direction, as in the column accesses_words (zeros left out)."""
    layer, found = read_layer(row), {}
    temporal, spatial = (json.loads(row[name]) for name in ("temporal_mapping", "spatial_mapping"))
    memories = {memory["name"]: memory for memory in machine["memories"]}
    names = {TO_LOW: "read_to_lower", FROM_LOW: "write_from_lower"}
    names |= {TO_HIGH: "read_to_higher", FROM_HIGH: "write_from_higher"}
    for op in "WIO":
        t = Operand(layer, op, temporal[op], spatial[op], row)
        for level, direction, a in t.moves():
            memory = memories[machine["memory_order_inner_to_outer"][op][level]]
            port = memory["ports"][port_of(memory, op, direction)]
            least, most = port["min_access_bits"], port["bandwidth_bits_per_cycle"]
            units = round(math.prod(factor for loops in spatial[op][level + 1 :] for _, factor in loops))
            each = math.ceil(t.words_moved(direction, a) * t.bits[a] / least) * (least / most)
            found.setdefault(f"{op}@{memory['name']}", {})[names[direction]] = int(each * t.count[a] * units)
    return found


def latency(row: dict, machine: dict, repaired: bool = False) -> dict:
    """Cycles of one row: compute (with stalls), onload, offload (with the systolic drain, as in the table), drain (its
    part of offload) and total. `row` as csv.DictReader gives it, `machine` = zigzag_hardware.json[row["hardware"]]."""
    layer = read_layer(row)
    temporal, exact = json.loads(row["temporal_mapping"]), json.loads(row["spatial_mapping"])
    floored = {
        op: [[(dim, int(factor + 1e-6)) for dim, factor in level] for level in levels] for op, levels in exact.items()
    }
    hierarchy = machine["memory_order_inner_to_outer"]
    memories = {memory["name"]: memory for memory in machine["memories"]}
    real = {op: Operand(layer, op, temporal[op], exact[op], row) for op in "IWO"}
    timed = real if repaired else {op: Operand(layer, op, temporal[op], floored[op], row) for op in "IWO"}
    order = "OWI" if layer.windows else "OIW"  # of the operands in the layer's equation
    buffered = double_bufferable(real, order, hierarchy, memories)

    # Every transfer, at the port that serves it.
    ports: dict[tuple[str, int], list[Transfer]] = {}
    for op in "IWO":
        t = timed[op]
        for level, direction, a in t.moves():
            memory = memories[hierarchy[op][level]]
            index = port_of(memory, op, direction)
            width = memory["ports"][index]["bandwidth_bits_per_cycle"]
            bits = t.words_moved(direction, a) * t.bits[a]
            window = t.period[a] if buffered[op][a] else t.period[a] // t.outer_irrelevant[a]
            smallest = math.ceil(t.tile[1] * t.bits[1] / width)
            ports.setdefault((memory["name"], index), []).append(
                Transfer(
                    *(op, level, direction, math.ceil(bits / width)),
                    *(window, t.period[a], t.count[a], int(bits / t.period[a]), smallest),
                )
            )

    ideal = timed["O"].period[-1]
    compute = ideal + max(port_stall(transfers, ideal) for transfers in ports.values())
    ends, two_inputs = {}, {}
    for (name, index), transfers in ports.items():
        width = memories[name]["ports"][index]["bandwidth_bits_per_cycle"]
        ends |= begin_or_end_cycles(transfers, width, compute)
        serves = {t.op for t in transfers} >= {"I", "W"}
        two_inputs |= {(t.op, t.level, t.direction): serves for t in transfers}

    # First loads: links through ports that serve W and I one after the other, the others side by side.
    serial, apart = dict.fromkeys("WI", 0.0), dict.fromkeys("WI", 0.0)
    for op in "WI":
        for level in range(timed[op].levels - 1):
            low, high = (op, level, FROM_HIGH), (op, level + 1, TO_LOW)
            shared_sides = two_inputs[low] + two_inputs[high]
            in_series = shared_sides == 2 or (repaired and shared_sides == 1)
            (serial if in_series else apart)[op] += max(ends[low], ends[high])
    onload = min(
        serial[first] + max(serial[second] + apart[second], apart[first]) for first, second in (("W", "I"), ("I", "W"))
    )

    output = range(timed["O"].levels - 1)
    offload = sum(max(ends["O", level, TO_HIGH], ends["O", level + 1, FROM_LOW]) for level in output)
    drain = 0
    if row["hardware"] in SYSTOLIC_HARDWARE:
        drain = sum(max(math.ceil(factor) - 1, 0) for level in exact["O"] for _, factor in level)
    total = compute + onload + offload + drain
    return {"compute": compute, "onload": onload, "offload": offload + drain, "drain": drain, "total": total}
