"""`lower(workload, software)`: from operators to what a machine's software launches, with the bytes that no longer leave a kernel gone.

The structure is decided on the host (`_launches`); sizes may be traced. Multiply-accumulates, lane operations, parameters, caches
and what is read from and written to memory from outside the graph are those of the workload.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from .._software import Software
from ._fusion import GIVEN, _numbered
from ._graph import Workload, array_module, assemble, forced_out
from ._launches import Launch, launches
from ._operators import KINDS, Operators

_KINDS = {"attention": "attention", "experts": "experts"}
_ORDER = ("experts", "attention", "products", "gated", "norm")


def lower(workload: Workload, software: Software) -> Workload:
    """The workload with a row for each kernel that `software` launches; the workload itself where nothing is joined.

    Kinds and edges must be known; every size (and the batch) may be traced. A row's name is its first operator's, with how many more.
    """
    found = launches(workload, software) if software.lowers else []
    if not found:
        return workload
    fusion, found = _convex(workload, found)
    if not found:
        return workload
    return _Lowered(workload, fusion.group, fusion.n_groups, found).build()


def _convex(workload: Workload, found: list[Launch]):
    """The launches, and the order of all kernels; kinds of launches that would have to wait for themselves are left out."""

    def grouped(some: list[Launch]):
        leader = list(range(workload.n_operators))
        for each in some:
            for row in each.rows:
                leader[row] = each.rows[0]
        return _numbered(workload, leader, GIVEN, ("",) * len(workload.source))

    try:
        return grouped(found), found
    except ValueError:
        kept: list[Launch] = []
        for what in _ORDER:
            try:
                grouped([*kept, *(each for each in found if each.what == what)])
            except ValueError:
                continue
            kept += [each for each in found if each.what == what]
        return grouped(kept), kept


class _Lowered:
    """Columns of the new rows, `G` of them: each that of its leading row, then what launches change. NumPy, or jax.numpy where any size is
    traced."""

    def __init__(self, workload: Workload, group: np.ndarray, n: int, found: list[Launch]):
        self.workload, self.group, self.n, self.found = workload, group, n, found
        sizes = (workload.operators, workload.edge_bytes, workload.batch, workload.outside_in_bytes, workload.count)
        self.xp = array_module(*jax.tree.leaves(sizes))
        self.traced = self.xp is jnp
        self.base = np.zeros(n, int)
        self.base[group[::-1]] = np.arange(workload.n_operators)[::-1]  # the first row of each
        for each in found:
            self.base[group[each.first]] = each.first
        # a row that says how many others stand with it: of experts the sum, as loads may be of no expert at all
        self.says = self.base.copy()
        for each in found:
            self.says[group[each.first]] = each.rows[-1] if each.what == "experts" else each.first
        self.times = 1.0
        if workload.count is not None:
            of = self.xp.asarray(workload.count)
            whole = of[self.says][group]
            self.times = self.xp.where(whole > 0, of / self.xp.where(whole > 0, whole, 1.0), 1.0)
        op = workload.operators
        self.columns = {name: self.xp.asarray(getattr(op, name))[self.base] for name in Operators.__dataclass_fields__}
        self.columns["kind"] = np.asarray(op.kind)[self.base]

    def summed(self, values, at, n: int | None = None):
        """Values added up by where they belong; `at`: known."""
        n = self.n if n is None else n
        if self.traced:
            return jax.ops.segment_sum(self.xp.asarray(values) * 1.0, at, n)
        return np.bincount(at, weights=np.asarray(values, np.float64), minlength=n)

    def of_rows(self, name: str):
        """Of each launch the sum over its rows, each as often as it stands for a row."""
        return self.summed(getattr(self.workload.operators, name) * self.times, self.group)

    def put_all(self, name: str, what: str, values) -> None:
        """Of `values`, `[G]`, those of the launches of a kind, in their column."""
        at = np.asarray([self.group[each.first] for each in self.some(what)], int)
        if len(at):
            self.put(name, what, values[at])

    def put(self, name: str, what: str, values) -> None:
        """`values`, one for each launch of a kind, in the column of its launches."""
        at = np.asarray([self.group[each.first] for each in self.some(what)], int)
        column = self.columns[name]
        if self.traced and name != "kind":
            dtype = jnp.result_type(column, values)
            self.columns[name] = jnp.asarray(column, dtype).at[at].set(jnp.asarray(values, dtype))
        else:
            column = np.array(column)
            column[at] = np.round(values) if column.dtype.kind == "i" else values
            self.columns[name] = column

    def some(self, what: str) -> list[Launch]:
        return [each for each in self.found if each.what == what]

    def build(self) -> Workload:
        w = self.workload
        edges, read = self.edges()
        self.sizes(read)
        kept = self.xp.stack([self.xp.asarray(x) for x in (w.kv_bytes_per_token, w.kv_tokens, w.state_bytes)])
        members = [0] * self.n
        for g in self.group.tolist():
            members[g] += 1
        names = tuple(
            w.names[b] + (f" +{m - 1}" if m > 1 else "") for b, m in zip(self.base.tolist(), members, strict=True)
        )
        made = assemble(
            Operators(**self.columns), edges, np.asarray(w.model)[self.base], self.summed(w.outside_in_bytes, self.group),
            self.summed(forced_out(w), self.group) - self.unread_sums(), w.rate, w.batch, kept, names, w.model_names, w.mix,
        )  # fmt: skip
        return made if w.count is None else replace(made, count=self.xp.asarray(w.count)[self.says])

    def unread_sums(self):
        """Bytes of the sums that a norm leaves which is a model's last row: nobody's output, so not written to memory."""
        w, op = self.workload, self.workload.operators
        last = np.ones(w.n_operators)
        last[w.source] = 0.0
        norms = np.zeros(w.n_operators)
        norms[[each.first for each in self.some("norm")]] = 1.0
        return self.summed(last * norms * (op.out_elements * op.out_bits / 8), self.group)

    def edges(self):
        """Edges between the new rows, and elements that each reads over them; a tensor that several members read is read once."""
        w, xp = self.workload, self.xp
        source, target = self.group[w.source], self.group[w.target]
        out = np.flatnonzero(source != target)
        nbytes, bits = xp.asarray(w.edge_bytes), xp.asarray(w.operators.out_bits)
        whole = xp.asarray(w.operators.out_elements) * bits / 8
        tensor, reader = np.asarray(w.source, np.int64)[out], target[out]
        pairs, first, where = np.unique(tensor * self.n + reader, return_index=True, return_inverse=True)
        carried = xp.minimum(self.summed(nbytes[out], where, len(pairs)), whole[pairs // self.n])
        read = self.summed(carried * 8 / bits[pairs // self.n], pairs % self.n)
        between = source[out[first]] * self.n + target[out[first]]
        pair, begin, which = np.unique(between, return_index=True, return_inverse=True)
        amount = self.summed(carried, which, len(pair))
        order = np.argsort(out[first[begin]], kind="stable")  # as the edges stood
        return [(int(pair[i] // self.n), int(pair[i] % self.n), amount[i]) for i in order], read

    def sizes(self, read) -> None:
        op, xp = self.workload.operators, self.xp
        for name in ("lane_ops", "parameters", "weight_elements"):
            total = self.of_rows(name)
            for what in _ORDER:
                self.put_all(name, what, total)
        source = self.group[self.workload.source]
        inside = np.flatnonzero(source == self.group[self.workload.target])
        passed = (
            xp.asarray(self.workload.edge_bytes)[inside]
            * 8
            / xp.asarray(op.out_bits)[np.asarray(self.workload.source)[inside]]
        )
        entering = self.of_rows("in_elements") - self.summed(passed, source[inside])
        for what in ("gated", "norm"):
            self.put_all("in_elements", what, entering)
        for name in ("k", "out_elements"):
            self.put_all(name, "products", self.of_rows(name))
        if self.some("gated"):
            acts = np.asarray([each.last for each in self.some("gated")])
            self.put("kind", "gated", np.asarray(op.kind)[acts])
        self.put_all("out_elements", "norm", 2.0 * xp.asarray(op.out_elements)[self.base])
        self.attention(read)
        self.experts(read)

    def attention(self, read) -> None:
        """Bounds of attention as one kernel: see `Operators`."""
        some, op, xp = self.some("attention"), self.workload.operators, self.xp
        if not some:
            return
        scores, values = (np.asarray([getattr(each, name) for each in some]) for name in ("first", "last"))
        beside = np.asarray([each.beside for each in some])
        at = self.group[scores]
        dim = {name: xp.asarray(getattr(op, name)) for name in ("groups", "batch", "k", "c", "p", "q")}
        heads, queries = (dim["groups"] * dim["batch"])[scores], (dim["p"] * dim["q"])[scores]
        batch = xp.asarray(self.workload.batch)[np.asarray(self.workload.model)[scores]]
        tokens = (dim["batch"] * dim["p"] * dim["q"])[np.maximum(beside, 0)] / batch  # of a sequence
        fits = (beside >= 0) & (tokens > 0) & _whole(queries / tokens) & _whole(heads / batch)
        if not self.traced:  # not batch x heads of all tokens (windows of images): each group by itself
            fits = np.asarray(fits, bool)
        size, value = dim["c"][scores], dim["k"][values]
        self.put("kind", "attention", KINDS.index("attention"))
        for name, found in dict(
            groups=xp.where(fits, heads / batch, heads), batch=xp.where(fits, batch, 1), p=xp.where(fits, tokens, queries),
            q=xp.where(fits, queries / tokens, 1), c=size + value, out_elements=heads * queries * value * 1.0,
        ).items():  # fmt: skip
            self.put(name, "attention", found)
        bits, cached = xp.asarray(op.out_bits)[scores], xp.asarray(op.weight_bits)[scores]
        outside = self.summed(self.workload.outside_in_bytes, self.group)[at] * 8 / cached
        self.put("in_elements", "attention", read[at] + outside)
        self.put("in_bits", "attention", (read[at] * bits + outside * cached) / (read[at] + outside))
        self.put("out_bits", "attention", xp.asarray(op.out_bits)[values])

    def experts(self, read) -> None:
        some, op, xp = self.some("experts"), self.workload.operators, self.xp
        if not some:
            return
        gate = np.asarray([each.first for each in some])
        self.put("kind", "experts", KINDS.index("experts"))
        # rows through the experts: those of all products, of which there are three
        at = self.group[gate]
        is_product = np.asarray(op.kind) == KINDS.index("gemm")
        rows = (
            self.summed(xp.where(is_product, xp.asarray(op.groups) * xp.asarray(op.p) * self.times, 0.0), self.group)
            / 3
        )
        last = np.asarray([each.rows[-1] for each in some])
        for name, found in dict(
            groups=1, batch=1, r=3, p=rows[at], in_elements=read[at], out_elements=xp.asarray(op.out_elements)[last],
            out_bits=xp.asarray(op.out_bits)[last], weight_bits=xp.asarray(op.weight_bits)[gate],
        ).items():  # fmt: skip
            self.put(name, "experts", found)


def _whole(x):
    """A whole number of at least one, as far as floats say."""
    return (x >= 1 - 1e-6) & (abs(x - (x + 0.5) // 1) < 1e-6)
