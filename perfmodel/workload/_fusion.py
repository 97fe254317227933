"""Operator fusion: a workload's rows gathered into groups that run as one kernel, by the declared rules of a backend.

Groups are convex: no path leaves one and comes back, so the graph of groups has no cycle and every group can run as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from .._names import unknown_name
from ._fusion_rules import ALL, BACKENDS, incoming, needs, rules_by_kind
from ._graph import Workload
from ._operators import CLASSES, DIMS, KINDS, MATRIX_KINDS

_ATTENTION = KINDS.index("attention_gemm")
_MATRIX = frozenset(KINDS.index(kind) for kind in MATRIX_KINDS)
_FAR = 1 << 60
GIVEN = "given"  # the rule of edges that a caller chose


@dataclass(frozen=True)
class Fusion:
    """Groups of a workload. `L` operators, `E` edges, `G` groups, numbered so that edges between groups run upwards.

    - `backend`: whose rules.  `group`: of each row, `[L]` int.  `fused`: edges that are streamed inside a group, `[E]` bool.
    - `rule`: name of the rule of each fused edge, "" of the others.
    - `start`, `rows`: rows of group g are `rows[start[g]:start[g + 1]]`; `rows`, `[L]`, is an execution order in which every
      group stands together.
    """

    backend: str
    group: np.ndarray
    fused: np.ndarray
    rule: tuple[str, ...]
    start: np.ndarray
    rows: np.ndarray

    @property
    def n_groups(self) -> int:
        return len(self.start) - 1

    def members(self, group: int) -> np.ndarray:
        """Rows of a group, in order."""
        return self.rows[self.start[group] : self.start[group + 1]]


@dataclass(frozen=True)
class Coarse:
    """A workload whose nodes are groups, `G` of them, in topological order; everything exact.

    - `names`: the first member's, and how many more.  `model`: of each node.  `members`: rows of each.
    - `macs`, `parameters`, `weight_bytes`: Python integers (bytes rounded up).
    - `source`, `target`, `edge_bytes`: edges between nodes, each pair once, `source < target`. A tensor that several members of
      a node read is carried once.
    """

    names: tuple[str, ...]
    model: np.ndarray
    members: tuple[tuple[int, ...], ...]
    macs: tuple[int, ...]
    parameters: tuple[int, ...]
    weight_bytes: tuple[int, ...]
    source: np.ndarray
    target: np.ndarray
    edge_bytes: np.ndarray


@dataclass(frozen=True)
class Intensity:
    """Of each group, `[G]`: operations (2 a multiply-accumulate, 1 a lane operation; data movement is none), and bytes that it
    reads and writes outside (inputs, weights and outputs, each once)."""

    ops: np.ndarray
    read_bytes: np.ndarray
    weight_bytes: np.ndarray
    written_bytes: np.ndarray

    @property
    def bytes(self) -> np.ndarray:
        return self.read_bytes + self.weight_bytes + self.written_bytes

    @property
    def by_group(self) -> np.ndarray:
        """Operations a byte of each group."""
        return self.ops / np.maximum(self.bytes, 1e-300)

    @property
    def total(self) -> float:
        """Operations a byte of all groups together."""
        return float(self.ops.sum() / max(self.bytes.sum(), 1e-300))


def fuse(workload: Workload, backend: str, *, largest: int | None = None) -> Fusion:
    """Groups by the rules of `backend` (a name in `BACKENDS`), at most `largest` rows each (None: any number).

    One pass over the rows, in near-linear time. A row joins the groups it reads from where every edge between them matches a
    rule and can be streamed. Each group has a level, above those of the groups it reads; a group may rise as long as it stays
    below those that read it. So edges between groups always climb, and no group is entered again from outside.

    Raises ValueError for an unknown backend or `largest` below 1.
    """
    if backend not in BACKENDS:
        raise unknown_name("fusion backend", backend, BACKENDS)
    if largest is not None and largest < 1:
        raise ValueError(f"largest is {largest}; allowed: at least 1")
    rules, most, n = rules_by_kind(backend), BACKENDS[backend].most, workload.n_operators
    kinds, sources = workload.operators.kind.tolist(), workload.source.tolist()
    edges, begin = (x.tolist() for x in incoming(workload))
    begin.append(len(edges))
    whole = (needs(workload) == ALL).tolist()
    rule = [""] * len(edges)
    level, ceiling = [0] * n, [_FAR] * n  # of the group that a row leads: its own, the least of those that read it
    dense, attention = [int(k in _MATRIX and k != _ATTENTION) for k in kinds], [int(k == _ATTENTION) for k in kinds]
    size = [1] * n
    sets = _Sets(n)

    def matched(edge: int, group: int, row: int) -> str:
        for name, when in () if whole[edge] else rules.get((kinds[sources[edge]], kinds[row]), ()):
            if not when or (when == "attention" and attention[group]) or (
                when == "no matrix" and not attention[group] and not dense[group]
            ):  # fmt: skip
                return name
        return ""

    for row in range(n):
        by_group: dict[int, list[int]] = {}
        for edge in edges[begin[row] : begin[row + 1]]:
            by_group.setdefault(sets.find(sources[edge]), []).append(edge)
        level[row] = 1 + max((level[g] for g in by_group), default=-1)
        mine, joined = row, False
        for group in sorted(by_group, key=lambda g: -level[g]):
            members = by_group[group]
            names = [matched(edge, group, row) for edge in members]
            others = max((level[g] for g in by_group if g != group), default=-1)
            rise = max(level[group], 1 + others, level[mine] if joined else 0)
            held = dense[mine] + dense[group], attention[mine] + attention[group]
            if (
                not all(names)
                or (most and not any(held[0] <= d and held[1] <= a for d, a in most))
                or (largest is not None and size[mine] + size[group] > largest)
                or rise >= min(ceiling[group], ceiling[mine])
            ):
                continue
            for edge, name in zip(members, names, strict=True):
                rule[edge] = name
            del by_group[group]
            root, size_ = sets.union(group, mine), size[mine] + size[group]
            level[root], ceiling[root], size[root] = rise, min(ceiling[group], ceiling[mine]), size_
            (dense[root], attention[root]), mine, joined = held, root, True
        for group in by_group:
            ceiling[group] = min(ceiling[group], level[mine])
    return _numbered(workload, [sets.find(row) for row in range(n)], backend, tuple(rule))


class _Sets:
    """Disjoint sets of rows."""

    def __init__(self, n: int):
        self._parent = list(range(n))

    def find(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    def union(self, a: int, b: int) -> int:
        """Joins two sets given by their leaders; the earlier row leads."""
        low, high = min(a, b), max(a, b)
        self._parent[high] = low
        return low


def fusion_of(workload: Workload, fused) -> Fusion:
    """The groups that a caller's choice of edges makes: rows that fused edges connect. `fused`: `[E]`, true where fused.

    Raises ValueError where the shape is wrong, or a group is not convex (a path leaves it and comes back)."""
    fused = np.asarray(fused)
    if fused.shape != workload.source.shape:
        raise ValueError(f"fused has shape {fused.shape}; needed: {workload.source.shape}")
    fused = fused > 0
    sets = _Sets(workload.n_operators)
    for source, target in zip(workload.source[fused].tolist(), workload.target[fused].tolist(), strict=True):
        a, b = sets.find(source), sets.find(target)
        if a != b:
            sets.union(a, b)
    leaders = [sets.find(row) for row in range(workload.n_operators)]
    return _numbered(workload, leaders, GIVEN, tuple(GIVEN if f else "" for f in fused))


def _numbered(workload: Workload, leader: Sequence[int], backend: str, rule: tuple[str, ...]) -> Fusion:
    """Groups numbered in topological order, of those that are free the one whose first row is first (Kahn's algorithm)."""
    _, first, dense = np.unique(np.asarray(leader), return_index=True, return_inverse=True)
    n = len(first)
    source, target = dense[workload.source], dense[workload.target]
    between = source != target
    source, target = source[between], target[between]
    order = np.argsort(source, kind="stable")
    readers, begin = target[order].tolist(), np.searchsorted(source[order], np.arange(n + 1)).tolist()
    waiting = np.bincount(target, minlength=n).tolist()
    free = [(int(first[g]), g) for g in range(n) if not waiting[g]]
    heapify(free)
    number, done = [0] * n, 0
    while free:
        _, g = heappop(free)
        number[g], done = done, done + 1
        for reader in readers[begin[g] : begin[g + 1]]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heappush(free, (int(first[reader]), reader))
    if done < n:
        stuck = int(min(first[g] for g in range(n) if waiting[g] > 0))
        raise ValueError(
            f"the group of operator {workload.names[stuck]!r} is not convex: a path leaves it, or one it waits for, and comes back"
        )
    group = np.asarray(number)[dense]
    rows = np.argsort(group, kind="stable")
    start = np.searchsorted(group[rows], np.arange(n + 1))
    return Fusion(backend, group, np.asarray([r != "" for r in rule], bool), rule, start, rows)


def coarsen(workload: Workload, fusion: Fusion) -> Coarse:
    """The workload with each group as one node."""
    op, group = workload.operators, fusion.group.tolist()
    size = np.asarray(op.is_matrix, np.int64).astype(object)
    for name in DIMS:  # Python integers: a row may pass 2**63
        size = size * np.asarray(getattr(op, name), np.int64).astype(object)
    bits = np.round(np.asarray(op.weight_bits) * 32).astype(np.int64).tolist()  # of a weight, in 32nds
    macs, parameters, stored = ([0] * fusion.n_groups for _ in range(3))
    for g, m, p, b in zip(group, size.tolist(), op.parameters.tolist(), bits, strict=True):
        macs[g] += m
        parameters[g] += int(p)
        stored[g] += int(p) * b
    tensor, reader, nbytes = _carried(workload, fusion)
    pair = fusion.group[tensor] * fusion.n_groups + reader
    pairs, where = np.unique(pair, return_inverse=True)
    members = tuple(tuple(fusion.members(g).tolist()) for g in range(fusion.n_groups))
    return Coarse(
        names=tuple(workload.names[m[0]] + (f" +{len(m) - 1}" if len(m) > 1 else "") for m in members),
        model=np.asarray([workload.model[m[0]] for m in members], np.int32),
        members=members,
        macs=tuple(macs),
        parameters=tuple(parameters),
        weight_bytes=tuple(-(-n // 256) for n in stored),
        source=pairs // fusion.n_groups,
        target=pairs % fusion.n_groups,
        edge_bytes=np.bincount(where, weights=nbytes, minlength=len(pairs)),
    )


def _carried(workload: Workload, fusion: Fusion) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row whose result is read, group that reads it, bytes) of every tensor that crosses between groups, once a group."""
    group, op = fusion.group, workload.operators
    crosses = group[workload.source] != group[workload.target]
    source, reader = workload.source[crosses].astype(np.int64), group[workload.target[crosses]]
    pairs, where = np.unique(source * fusion.n_groups + reader, return_inverse=True)
    tensor, reader = pairs // fusion.n_groups, pairs % fusion.n_groups
    nbytes = np.bincount(where, weights=workload.edge_bytes[crosses], minlength=len(pairs))
    whole = np.asarray(op.out_elements * op.out_bits / 8)[tensor]  # readers of the same part read it together
    return tensor, reader, np.minimum(nbytes, whole)


_MOVEMENT = [KINDS.index(kind) for kind in CLASSES["embedding, movement"]]


def intensity(workload: Workload, fusion: Fusion) -> Intensity:
    """Operations and bytes of every group; papers.md D.2 (SN40L, arXiv 2405.07518, Table I) counts an operator's like this."""
    op, n = workload.operators, fusion.n_groups
    tensor, reader, nbytes = _carried(workload, fusion)
    whole = np.asarray(op.out_elements * op.out_bits / 8, np.float64)
    leaves = np.zeros(workload.n_operators)
    leaves[tensor] = whole[tensor]
    lanes = np.where(np.isin(op.kind, _MOVEMENT), 0.0, op.lane_ops)

    def summed(by_row):
        return np.bincount(fusion.group, weights=by_row, minlength=n)

    read = np.bincount(reader, weights=nbytes, minlength=n) + summed(workload.outside_in_bytes)
    return Intensity(
        ops=summed(2.0 * np.asarray(op.macs, np.float64) + lanes),
        read_bytes=read,
        weight_bytes=summed(op.weight_elements * op.weight_bits / 8),
        written_bytes=summed(leaves + workload.outside_out_bytes),
    )
