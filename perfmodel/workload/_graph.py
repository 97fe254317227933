"""A workload: operators, the edges between them, and the models they belong to.

Rows stand in execution order, model after model. Everything an evaluator needs to walk the graph in that order
(predecessors, last uses, register slots) is derived here once, on the host: no graph question is asked in a trace.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._numerics import frozen
from ._operators import KINDS, Operators, exact_macs, operator_row, stack_operators

MIXES = ("equal-work", "equal-inferences")
_WIDEST = 8  # inputs of a row: an evaluator's step looks at that many, whatever the row


class Workload(eqx.Module):
    """Operators + edges + models. Shapes: `L` operators, `E` edges, `M` models, `I` most inputs of an operator.

    **Fields:**
    - `operators`: `Operators`.  `source, target`: row indices of each edge.  `edge_bytes`: bytes it carries.
    - `model`: model of each row.  `rate`: passes of each model in a round (its weight in the mix).
    - `batch`: inferences in one pass of each model.
    - `kv_bytes_per_token, kv_tokens`: of each model the bytes that a token leaves in the KV cache, and how many tokens (of
      all sequences of the batch) are in it after a pass; 0 where there is none.  `state_bytes`: what else stays in memory from
      pass to pass (recurrent states, an optimizer's moments). The traffic of all of them is in the rows.
    - `outside_in_bytes, outside_out_bytes`: model inputs read from and model outputs written to memory, per row.
    - `hold_bytes`: buffer bytes that the output occupies from its production to its last use; two tiles (one head each)
      where producer and only consumer walk the same groups one after the other, else the whole tensor.
    - `inputs, input_bytes, input_last`: of each row the rows it reads (-1: none), the bytes, and whether it is the last
      reader.  `slot, input_slot`: register slot that holds a row's result, to walk the graph with `n_slots` registers.
    - `first`: whether a row is its model's first.  `live_bytes`: all that one pass of its model holds while it runs.
    - `names, model_names, mix, n_slots`: static; no formula looks at a name.
    - `count`: how many equal rows, one after another, a row stands for (`fold`); None: one each. 0: a row that only fills a program up,
      or of experts that nobody is at. All other fields are of one of them; totals over rows are sums times `count`.
    """

    operators: Operators
    source: Int[Array, "E"]
    target: Int[Array, "E"]
    edge_bytes: Float[Array, "E"]
    model: Int[Array, "L"]
    rate: Float[Array, "M"]
    batch: Float[Array, "M"]
    kv_bytes_per_token: Float[Array, "M"]
    kv_tokens: Float[Array, "M"]
    state_bytes: Float[Array, "M"]
    outside_in_bytes: Float[Array, "L"]
    outside_out_bytes: Float[Array, "L"]
    hold_bytes: Float[Array, "L"]
    inputs: Int[Array, "L I"]
    input_bytes: Float[Array, "L I"]
    input_last: Bool[Array, "L I"]
    slot: Int[Array, "L"]
    input_slot: Int[Array, "L I"]
    first: Bool[Array, "L"]
    live_bytes: Float[Array, "L"]
    names: tuple[str, ...] = eqx.field(static=True)
    model_names: tuple[str, ...] = eqx.field(static=True)
    mix: str = eqx.field(static=True)
    n_slots: int = eqx.field(static=True)
    count: Float[Array, "L"] | None = None

    @property
    def n_operators(self) -> int:
        return self.slot.shape[-1]

    @property
    def n_models(self) -> int:
        return self.rate.shape[-1]

    @property
    def macs(self) -> int:
        """Exact multiply-accumulates of one pass of every model (host only)."""
        return sum(_row_macs(self))

    @property
    def parameters(self) -> int:
        """Exact stored parameters of all models (host only)."""
        return sum(int(n) * times for n, times in zip(self.operators.parameters, _times(self), strict=True))

    @property
    def weight_bytes(self) -> float:
        """Bytes of all stored parameters."""
        times = 1.0 if self.count is None else self.count
        return float(np.sum(self.operators.parameters * self.operators.weight_bits * times) / 8)

    @property
    def kv_cache_bytes(self) -> float:
        """Bytes of the KV caches of all models after a pass."""
        return float(np.sum(self.kv_bytes_per_token * self.kv_tokens))

    @property
    def stored_bytes(self) -> float:
        """Bytes that stay in memory from pass to pass: weights, KV caches, states."""
        return self.weight_bytes + self.kv_cache_bytes + float(np.sum(self.state_bytes))


class GraphBuilder:
    """Collects operators in execution order and becomes a `Workload`; used by the zoo and by every importer.

    `kv_bytes_per_token`, `kv_tokens`, `state_bytes`: KV cache and states, see `Workload`; set by whoever builds a model that
    has them.
    """

    def __init__(self, model_name: str, batch: int = 1):
        self.model_name, self.batch = model_name, batch
        self.kv_bytes_per_token, self.kv_tokens, self.state_bytes = 0.0, 0.0, 0.0
        self.names: list[str] = []
        self.rows: list[dict] = []
        self.edges: list[tuple[int, int, float]] = []

    def add(
        self, name: str, row: dict, inputs: Sequence[int | tuple[int, float]] = (), outside_bytes: float = 0.0,
        outside_out_bytes: float = 0.0,
    ) -> int:  # fmt: skip
        """Append an operator fed by earlier rows; an input is a row or (row, bytes). Returns the new row's index.

        `outside_bytes` are read from memory (model inputs, KV cache), `outside_out_bytes` written to it whoever reads the
        result (KV cache); the outputs of a model, which nobody reads, are always written and need not be said.
        More than eight inputs are first copied together, eight at a time.

        Raises ValueError for an input that is no earlier row.
        """
        fed = [self._fed(name, item) for item in inputs]
        while len(fed) > _WIDEST:
            fed = [*fed[_WIDEST:], self._concatenated(f"{name}.concat{len(self.rows)}", fed[:_WIDEST], row["in_bits"])]
        here = len(self.rows)
        self.edges += [(source, here, nbytes) for source, nbytes in fed]
        self.names.append(name)
        self.rows.append({**row, "outside_in_bytes": outside_bytes, "outside_out_bytes": outside_out_bytes})
        return here

    def _fed(self, name: str, item: int | tuple[int, float]) -> tuple[int, float]:
        source, nbytes = item if isinstance(item, tuple) else (item, None)
        if not 0 <= source < len(self.rows):
            raise ValueError(
                f"{self.model_name}: operator {name!r}: input is row {source}; allowed: one of the {len(self.rows)} before it"
            )
        if nbytes is None:
            nbytes = self.rows[source]["out_elements"] * self.rows[source]["out_bits"] / 8
        return source, float(nbytes)

    def _concatenated(self, name: str, fed: list[tuple[int, float]], bits: float) -> tuple[int, float]:
        nbytes = sum(b for _, b in fed)
        elements = max(1, round(nbytes * 8 / bits))
        row = operator_row("copy", k=1, bits=bits, in_elements=elements, out_elements=elements, lane_ops=elements)
        return self.add(name, row, fed), nbytes

    def build(self) -> Workload:
        """The workload. Raises ValueError where no operator was added."""
        if not self.rows:
            raise ValueError(f"{self.model_name}: has no operators; at least one is needed")
        outside = {
            side: np.asarray([row[side] for row in self.rows], np.float64)
            for side in ("outside_in_bytes", "outside_out_bytes")
        }
        return assemble(
            stack_operators(self.rows), self.edges, np.zeros(len(self.rows), np.int32), *outside.values(),
            np.ones(1), np.asarray([float(self.batch)]),
            np.asarray([[self.kv_bytes_per_token], [self.kv_tokens], [self.state_bytes]], np.float64),
            tuple(self.names), (self.model_name,), "equal-inferences",
        )  # fmt: skip


def merge(workloads: Sequence[Workload], mix: str = "equal-work") -> Workload:
    """Several models as one workload that shares a package.

    **Arguments:** `workloads`; `mix`: `equal-work` gives every model the same ideal compute time in a round (rate
    inversely proportional to its MACs, 1 for the heaviest), `equal-inferences` one pass of each.

    Raises ValueError for an unknown mix or an empty list.
    """
    if mix not in MIXES:
        raise ValueError(f"mix is {mix!r}; allowed: {', '.join(MIXES)}")
    if not workloads:
        raise ValueError("merge needs at least one workload; got none")
    names, models, edges, offset = [], [], [], 0
    members = [(w, m) for w in workloads for m in range(w.n_models)]
    model_names = _distinct([w.model_names[m] for w, m in members])
    work = np.asarray([_macs(w, m) for w, m in members])
    rate = np.ones(len(members)) if mix == "equal-inferences" else max(work.max(), 1) / np.maximum(work, 1)
    for i, w in enumerate(workloads):
        seen = sum(other.n_models for other in workloads[:i])
        models.append(w.model + seen)
        edges += [(s + offset, t + offset, b) for s, t, b in zip(w.source, w.target, w.edge_bytes, strict=True)]
        for name, m in zip(w.names, w.model, strict=True):
            own = name if w.n_models == 1 else name.removeprefix(f"{w.model_names[m]}/")  # a merge has prefixes already
            names.append(f"{model_names[seen + m]}/{own}")
        offset += w.n_operators
    columns = {
        name: np.concatenate([getattr(w.operators, name) for w in workloads]) for name in Operators.__dataclass_fields__
    }
    merged = assemble(
        Operators(**columns), edges, np.concatenate(models).astype(np.int32),
        np.concatenate([w.outside_in_bytes for w in workloads]), np.concatenate([forced_out(w) for w in workloads]),
        rate, np.concatenate([w.batch for w in workloads]),
        np.concatenate([np.stack([w.kv_bytes_per_token, w.kv_tokens, w.state_bytes]) for w in workloads], axis=1),
        tuple(names), model_names, mix,
    )  # fmt: skip
    if all(w.count is None for w in workloads):
        return merged
    # what is held while a row runs is that of the whole pass: a folded graph does not show it again
    held = {name: np.concatenate([getattr(w, name) for w in workloads]) for name in ("hold_bytes", "live_bytes")}
    return replace(merged, count=np.concatenate([_times(w) for w in workloads]).astype(np.float64), **held)


def _macs(w: Workload, m: int) -> int:
    return sum(macs for macs, of in zip(_row_macs(w), w.model, strict=True) if of == m)


def _row_macs(w: Workload) -> list[int]:
    return [macs * times for macs, times in zip(exact_macs(w.operators), _times(w), strict=True)]


def _times(w: Workload) -> list[int]:
    """How many rows each row stands for."""
    return [1] * w.n_operators if w.count is None else [int(n) for n in w.count]


def forced_out(w: Workload):
    """Bytes that rows write to memory besides results that nobody reads (`assemble` adds those again), `[L]`; traced if these are."""
    sink = np.ones(w.n_operators, bool)
    sink[w.source] = False
    results = w.operators.out_elements * w.operators.out_bits / 8
    xp = array_module(results, w.outside_out_bytes)
    return xp.asarray(w.outside_out_bytes) - xp.where(sink, results, 0.0)


def array_module(*values) -> Any:
    """NumPy where all values are on the host, else jax.numpy."""
    return jnp if any(isinstance(v, jax.Array) for v in values) else np


def assemble(
    operators, edges, model, outside_in, forced_out, rate, batch, kv, names, model_names, mix
) -> Workload:  # fmt: skip
    """Derive the walk (predecessors, last uses, slots) and check that rows stand in execution order. Sizes and bytes may be traced.

    `forced_out`: bytes each row writes to memory whoever reads its result; `kv`: cache per token, tokens, states, `3 x M`.
    """
    n = len(names)
    readers: list[list[int]] = [[] for _ in range(n)]
    feeds: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for edge, (source, target, _) in enumerate(edges):
        source, target = int(source), int(target)
        if not source < target:
            raise ValueError(
                f"edge {names[source]} -> {names[target]} runs against the order of rows (or the graph has a cycle)"
            )
        readers[source].append(target)
        feeds[target].append((source, edge))
    width = max([len(f) for f in feeds] + [1])
    inputs, input_edge = np.full((n, width), -1, np.int32), np.full((n, width), len(edges))
    input_last = np.zeros((n, width), bool)
    last_reader = [max(of, default=-1) for of in readers]
    for row, feed in enumerate(feeds):
        released = set()  # a tensor read twice by one row is released once
        for i, (source, edge) in enumerate(feed):
            inputs[row, i], input_edge[row, i] = source, edge
            input_last[row, i] = last_reader[source] == row and source not in released
            released.add(source)
    out_bytes = operators.out_elements * operators.out_bits / 8
    sizes = [e[2] for e in edges]
    xp = array_module(out_bytes, outside_in, forced_out, operators.groups, *sizes)
    floats = np.float64 if xp is np else jnp.result_type(float)
    edge_bytes = xp.stack([xp.asarray(x, floats) for x in (*sizes, 0.0)])  # the last: of no edge
    sink = np.asarray([not r for r in readers])
    slot, n_slots = _slots(readers, inputs, input_last)
    hold = xp.where(sink, 0.0, out_bytes * _tile_share(operators, readers, xp))
    made = Workload(
        operators=operators,
        source=np.asarray([e[0] for e in edges], np.int32),
        target=np.asarray([e[1] for e in edges], np.int32),
        edge_bytes=edge_bytes[:-1],
        model=np.asarray(model, np.int32),
        rate=xp.asarray(rate, floats),
        batch=xp.asarray(batch, floats),
        kv_bytes_per_token=xp.asarray(kv[0], floats),
        kv_tokens=xp.asarray(kv[1], floats),
        state_bytes=xp.asarray(kv[2], floats),
        outside_in_bytes=xp.asarray(outside_in, floats),
        outside_out_bytes=xp.where(sink, out_bytes, 0.0) + forced_out,
        hold_bytes=hold,
        inputs=inputs,
        input_bytes=edge_bytes[input_edge],
        input_last=input_last,
        slot=slot,
        input_slot=np.where(inputs >= 0, slot[inputs], -1).astype(np.int32),
        first=np.concatenate([[True], model[1:] != model[:-1]]),
        live_bytes=_live(hold, readers, xp),
        names=tuple(names),
        model_names=tuple(model_names),
        mix=mix,
        n_slots=n_slots,
    )
    return frozen(made)


def _tile_share(operators: Operators, readers: list[list[int]], xp=np):
    """Share of a tensor that must be held: two groups of it where the next row is its only reader and walks the same
    groups (attention head by head), else all of it. Groups of weights (heads) and of activations (sequences) that are as many
    by chance are not the same."""
    of_weights = np.isin(operators.kind, [KINDS.index(kind) for kind in ("conv", "gemm")])
    alone = np.asarray([of == [row + 1] for row, of in enumerate(readers)]) & (of_weights == np.roll(of_weights, -1))
    groups = xp.asarray(operators.groups)
    return xp.where(alone & (groups > 2) & (groups == xp.roll(groups, -1)), 2 / xp.maximum(groups, 1), 1.0)


def _live(hold, readers: list[list[int]], xp=np):
    """Bytes held while each row runs: every tensor from its producer to its last reader, both included."""
    after = np.asarray([max(of, default=row) + 1 for row, of in enumerate(readers)])
    if xp is np:
        change = np.append(hold, 0.0)
        np.subtract.at(change, after, hold)
    else:
        change = jnp.append(hold, 0.0).at[after].add(-hold)
    return xp.maximum(xp.cumsum(change)[:-1], 0.0)


def _slots(readers, inputs, input_last) -> tuple[np.ndarray, int]:
    """Register allocation along the row order: a slot is free again after the last reader of its tensor."""
    slot, free, used = np.zeros(len(readers), np.int32), [], 0
    for row in range(len(readers)):
        # inputs are read before the result is written, so a slot released here may be taken here
        free += [int(slot[s]) for s, last in zip(inputs[row], input_last[row], strict=True) if s >= 0 and last]
        if free:
            slot[row] = free.pop()
        else:
            slot[row], used = used, used + 1
        if not readers[row]:
            free.append(int(slot[row]))
    return slot, max(used, 1)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The same model twice gets the next free number: gpt2, gpt2#2."""
    out: list[str] = []
    for name in names:
        numbered = (f"{name}#{i}" for i in count(2))
        out.append(next(free for free in chain([name], numbered) if free not in out))
    return tuple(out)
