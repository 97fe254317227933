"""What one of several sockets that stream a model has of every row, as shares, and the collectives that this asks for.

Of Megatron-LM's kind with sequence parallelism, by rules instead of by model. Where a tensor lies: `rows` (each socket has some of
its rows, as many of them), `features` (some of its columns or heads), `whole` (each socket has all), `partial` (sums still to be
added up). A product with weights gathers rows and leaves features; where it reads features it leaves partial sums, which the next
reader has scattered among the sockets as they are added (of fewer rows than sockets: added up everywhere). A norm takes rows; where its
features lie on several sockets each sends the others the columns of their rows. Softmax and the like exchange their sums instead.
Attention has heads of its own on each socket; fewer heads than sockets are shared.
"""

from typing import NamedTuple

import numpy as np

from ...workload import KINDS, Workload
from ...workload._fusion_rules import NORMS, ROWWISE

_WHOLE, _ROWS, _FEATURES, _PARTIAL = range(4)
_ATTENTION, _ADD, _OPTIMIZER = (KINDS.index(kind) for kind in ("attention_gemm", "add", "optimizer"))
_ROWWISE = frozenset(KINDS.index(kind) for kind in ROWWISE)
_NORMS = frozenset(KINDS.index(kind) for kind in NORMS)
_STATISTIC_BYTES = 8  # two fp32 sums a row, where a row's features lie on several sockets


class SocketShares(NamedTuple):
    """Rows with their shares; see `socket_shares`."""

    own: np.ndarray  # [L] row of the workload, -1: a collective ...
    of: np.ndarray  # [L] ... on the result of this row
    label: list[str]  # of collectives
    work_share: np.ndarray
    weight_share: np.ndarray
    read_share: np.ndarray
    write_share: np.ndarray
    out_share: np.ndarray
    added: np.ndarray  # [L] lane operations of collectives
    link_bytes: np.ndarray  # [L, 2]
    hops: np.ndarray  # [L, 2]
    source: np.ndarray
    target: np.ndarray
    edge_bytes: np.ndarray
    edge: np.ndarray  # [E] edge of the workload, -1: into a collective ...
    like: np.ndarray  # [E] ... that stands for this edge


def socket_shares(workload: Workload, sockets: int) -> SocketShares:
    """The rows of one socket; one socket leaves all as it is."""
    made = _Shares(workload, sockets)
    for row in range(workload.n_operators):
        made.row(row)
    return made.done()


def _part(out: int, work: float) -> float:
    """Of a tensor on a socket."""
    return 1.0 if out in (_WHOLE, _PARTIAL) else work


class _Shares:
    def __init__(self, workload: Workload, sockets: int):
        op = workload.operators
        self.n = float(sockets)
        self.kind, self.groups = op.kind.tolist(), np.asarray(op.groups).tolist()
        self.rows = np.asarray(op.groups * 1.0 * op.batch * op.p * op.q).tolist()
        self.matrix, self.parameters = np.asarray(op.is_matrix).tolist(), op.parameters.tolist()
        self.width = np.asarray(op.k).tolist()
        self.whole = np.asarray(op.out_elements * op.out_bits / 8).tolist()
        self.elements, self.bits = op.out_elements.tolist(), op.out_bits.tolist()
        self.feeds: list[list[tuple[int, int, float]]] = [[] for _ in self.kind]
        for e, (s, t, b) in enumerate(
            zip(workload.source.tolist(), workload.target.tolist(), workload.edge_bytes.tolist(), strict=True)
        ):
            self.feeds[t].append((e, s, b))
        self.readers = np.bincount(workload.source, minlength=len(self.kind)).tolist()
        self.table: list[tuple] = []  # a row each: own, of, label, shares, added, links
        self.edges: list[tuple] = []
        self.pending: list[tuple[int, float, int]] = []
        self.at: dict[tuple[int, int], int] = {}  # (row of the workload, where it lies) -> row here
        self.lies: list[int] = [_WHOLE] * len(self.kind)
        self.part: list[float] = [1.0] * len(self.kind)  # of a tensor on a socket

    def row(self, r: int) -> None:
        feeds = self.feeds[r]
        where = [self._reduced(r, s) for _, s, _ in feeds]
        share = 1.0 / self.n
        if self.n == 1:
            reads, out, work = where, _WHOLE, 1.0
        elif self.matrix[r] > 0 and self.kind[r] != _ATTENTION:
            if where and all(w == _FEATURES for w in where) and self.readers[r]:
                reads, out, work = where, _PARTIAL, share
            else:
                reads, out, work = [_WHOLE] * len(where), _FEATURES, share
        elif self.kind[r] == _ATTENTION:
            split_ = min(self.n, self.groups[r]) if self.groups[r] > 1 else self.n
            keep = [_FEATURES if w == _FEATURES else _WHOLE for w in where]
            reads, out, work = keep, _FEATURES, 1.0 / split_
        else:
            reads, out, work = self._vector(r, where, share)
        # what each socket reads of its inputs
        weights = 1.0 if self.n == 1 or (self.matrix[r] <= 0 and out != _FEATURES) else share
        alone = self.matrix[r] > 0 and self.kind[r] != _ATTENTION and not feeds  # a first layer reads the whole input
        fed = []
        for (e, s, b), w in zip(feeds, reads, strict=True):
            version = self._version(e, s, b, w)  # a collective stands before its reader
            sliced = self.kind[r] == _ATTENTION or (self.matrix[r] <= 0 and out == _FEATURES)
            part = work if w == _WHOLE and sliced else self.part[s] if w == self.lies[s] else 1.0
            fed.append((self.at[version], b * (share if w == _ROWS else part), e))
        here = self._add(r, r, "", work, weights, 1.0 if alone else work, work, _part(out, work), 0.0, 0.0, 0.0)
        self.edges += [(of, here, nbytes, e, e) for of, nbytes, e in fed]
        for of, nbytes, e in self.pending:
            self.edges.append((of, here, nbytes, -1, e))
        self.lies[r], self.part[r], self.pending = out, _part(out, work), []
        self.at[r, out] = here

    def _vector(self, r: int, where: list[int], share: float):
        few = self.rows[r] < self.n
        if where and all(w == _PARTIAL for w in where):
            return where, _PARTIAL, 1.0
        if not where:
            return where, _WHOLE if few else _ROWS, 1.0 if few else share
        if _FEATURES in where:
            if self.kind[r] in _NORMS and self.parameters[r] >= self.width[r] and not few:
                return [_ROWS if w == _FEATURES else w for w in where], _ROWS, share
            if self.kind[r] in _ROWWISE and self.groups[r] == 1 and self.parameters[r] not in range(1, self.width[r]):
                self._statistics(r)
            return [w if w == _FEATURES else _WHOLE for w in where], _FEATURES, share
        if _ROWS in where:
            return where, _ROWS, share
        if self.kind[r] == _OPTIMIZER:
            return where, _FEATURES, share
        return where, _WHOLE, 1.0

    def _reduced(self, r: int, s: int) -> int:
        """Where input `s` lies for its readers: partial sums stay partial only into sums that read nothing else."""
        if self.lies[s] != _PARTIAL:
            return self.lies[s]
        sums = self.kind[r] == _ADD and not self.parameters[r]
        if sums and all(self.lies[other] == _PARTIAL for _, other, _ in self.feeds[r]):
            return _PARTIAL
        return _WHOLE if self.rows[s] < self.n else _ROWS

    def _version(self, e: int, s: int, b: float, want: int) -> tuple[int, int]:
        """The row that has tensor `s` lying as wanted; a collective is added where there is none yet."""
        have = self.lies[s]
        if (s, want) in self.at:
            return s, want
        if want == _FEATURES or (have == _WHOLE and want == _ROWS):
            return s, have  # every socket takes its part of what it has
        whole, n, others = self.whole[s], self.n, self.n - 1
        some = min(b / whole, 1.0) if self.readers[s] == 1 else 1.0  # a reader of the last token only needs no other
        whole, elements = whole * some, self.elements[s] * some
        if have == _PARTIAL and not (want == _WHOLE and self.rows[s] < n):
            if (s, _ROWS) not in self.at:
                bytes_, work = others / n * whole, others / n * elements
                self._collective(
                    s, have, _ROWS, "reduce_scatter", some / n, work, (bytes_, bytes_), (1.0, 1.0), e, whole
                )
            have = _ROWS
            if want == _ROWS:
                return s, _ROWS
        if have == _PARTIAL:  # few rows: everything to everyone at once, or scattered and gathered
            links, hops = (others * whole, 2 * others / n * whole), (1.0, 2.0)
            self._collective(s, have, _WHOLE, "all_reduce", some, others * elements / n, links, hops, e, whole)
        elif want == _ROWS:  # of features: every socket sends each other the columns of its rows
            bytes_ = others / n * whole / n
            self._collective(s, have, _ROWS, "all_to_all", some / n, 0.0, (bytes_, bytes_), (1.0, 1.0), e, whole / n)
            return s, _ROWS
        else:
            part = 1 / n if have == _ROWS else self.part[s]
            bytes_ = (1 - part) * whole
            self._collective(s, have, _WHOLE, "all_gather", some, 0.0, (bytes_, bytes_), (1.0, 1.0), e, part * whole)
        return s, _WHOLE

    def _collective(self, s, have, gives, label, out, work, links, hops, e, read) -> None:
        here = self._add(-1, s, label, 0.0, 0.0, 0.0, 0.0, out, work, links, hops)
        self.edges.append((self.at[s, have], here, read, -1, e))
        self.at[s, gives] = here

    def _statistics(self, r: int) -> None:
        """Rows whose features lie on several sockets exchange their sums: charged to a collective beside the row's input."""
        e, s, _ = self.feeds[r][0]
        nbytes = self.rows[r] * _STATISTIC_BYTES
        links = ((self.n - 1) * nbytes, 2 * (self.n - 1) / self.n * nbytes)
        here = self._add(-1, s, "statistics", 0.0, 0.0, 0.0, 0.0, nbytes / self.whole[s], 0.0, links, (1.0, 2.0))
        self.edges.append((self.at[s, self.lies[s]], here, nbytes, -1, e))
        self.pending.append((here, nbytes, e))

    def _add(self, own, of, label, work, weights, read, write, out, added, links, hops) -> int:
        self.table.append((own, of, label, work, weights, read, write, out, added, links, hops))
        return len(self.table) - 1

    def done(self) -> SocketShares:
        columns = list(zip(*self.table, strict=True))
        pairs = [np.asarray([x if isinstance(x, tuple) else (x, x) for x in columns[i]], np.float64) for i in (9, 10)]
        edges = list(zip(*self.edges, strict=True)) if self.edges else [()] * 5
        source, target, nbytes, edge, like = (np.asarray(x) for x in edges)
        return SocketShares(
            np.asarray(columns[0]), np.asarray(columns[1]), list(columns[2]),
            *(np.asarray(x, np.float64) for x in columns[3:9]), *pairs, source.astype(int), target.astype(int),
            nbytes.astype(np.float64), edge.astype(int), like.astype(int),
        )  # fmt: skip
