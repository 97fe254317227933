"""Which rows of a graph a machine's software launches together, found by the graph's structure: kinds and edges, no names, no sizes."""

from typing import NamedTuple

from .._software import Software
from ._fusion_rules import NORMS, POINTWISE
from ._graph import Workload
from ._operators import KINDS

_ACTIVATIONS = frozenset(KINDS.index(kind) for kind in ("silu", "gelu", "relu", "sigmoid", "tanh"))
_BETWEEN = frozenset(KINDS.index(kind) for kind in (*POINTWISE, "softmax", "copy"))
_BEFORE = frozenset(KINDS.index(kind) for kind in ("rope", "copy"))
_NORMS = frozenset(KINDS.index(kind) for kind in NORMS)
_GEMM, _PRODUCT, _SOFTMAX, _ADD, _MUL, _TOP_K, _GATHER, _REDUCE, _COPY = (
    KINDS.index(kind) for kind in ("gemm", "attention_gemm", "softmax", "add", "mul", "top_k", "gather", "reduce", "copy")
)  # fmt: skip


class Launch(NamedTuple):
    """Rows that are one kernel. `what`: attention, products (side by side), gated, norm or experts.  `first`, `last`: of attention the
    products of scores and of values; of experts a gate and a down product; else the row whose bounds the kernel has, twice.
    `beside`: of attention a product that reads or makes its tokens, whose rows are tokens (-1: none)."""

    what: str
    rows: tuple[int, ...]
    first: int
    last: int
    beside: int = -1


class Graph:
    """Kinds, and of each row the rows that it reads and those that read it, in order, each once."""

    def __init__(self, workload: Workload):
        self.kind: list[int] = workload.operators.kind.tolist()
        self.feeds: list[list[int]] = [[] for _ in self.kind]
        self.readers: list[list[int]] = [[] for _ in self.kind]
        for source, target in zip(workload.source.tolist(), workload.target.tolist(), strict=True):
            if source not in self.feeds[target]:
                self.feeds[target].append(source)
                self.readers[source].append(target)


def launches(workload: Workload, software: Software) -> list[Launch]:
    """All launches of more than one row; no row is in two of them."""
    graph = Graph(workload)
    found: list[Launch] = []
    used: set[int] = set()

    def take(some: list[Launch]) -> None:
        for each in some:
            if not used.intersection(each.rows):
                found.append(each)
                used.update(each.rows)

    if software.experts:
        take(_experts(graph))
    if software.attention:
        take(_attentions(graph))
    if software.qkv:
        take(_of_attention(graph, found))
    if software.gate or software.gated_activation:
        gated = _gated(graph)
        take([each for each in gated if (software.gate if each.what == "products" else software.gated_activation)])
    if software.residual_norm:
        take(_norms(graph))
    return found


def _attentions(graph: Graph) -> list[Launch]:
    found = []
    for row, kind in enumerate(graph.kind):
        if kind != _PRODUCT:
            continue
        chain = [row]
        while len(graph.readers[chain[-1]]) == 1:
            (following,) = graph.readers[chain[-1]]
            chain.append(following)
            if graph.kind[following] not in _BETWEEN:
                break
        last = chain[-1]
        if len(chain) > 2 and graph.kind[last] == _PRODUCT and any(graph.kind[r] == _SOFTMAX for r in chain):
            rows = set(chain)
            waiting = [*graph.feeds[row], *graph.feeds[last]]
            while waiting:  # rotary positions and transpositions before
                each = waiting.pop()
                if each not in rows and graph.kind[each] in _BEFORE and rows.issuperset(graph.readers[each]):
                    rows.add(each)
                    waiting += graph.feeds[each]
            out = last
            while len(graph.readers[out]) == 1 and graph.kind[graph.readers[out][0]] == _COPY:
                (out,) = graph.readers[out]
                rows.add(out)
            found.append(Launch("attention", tuple(sorted(rows)), row, last, _tokens(graph, rows, row, out)))
    return found


def _tokens(graph: Graph, rows: set[int], first: int, out: int) -> int:
    """A product with weights whose rows are the tokens: behind the attention, else before its queries."""
    for reader in graph.readers[out]:
        if graph.kind[reader] == _GEMM:
            return reader
    at = first
    while graph.feeds[at]:
        at = graph.feeds[at][0]
        if graph.kind[at] == _GEMM:
            return at
    return -1


def _of_attention(graph: Graph, found: list[Launch]) -> list[Launch]:
    """Products of the same input that all end in one attention, normed on the way or not."""
    made = []
    for kernel in (each for each in found if each.what == "attention"):
        inside = set(kernel.rows)

        def ends_there(row: int, inside: set[int] = inside) -> bool:
            readers = graph.readers[row]
            return bool(readers) and all(
                r in inside or (graph.kind[r] in _NORMS and inside.issuperset(graph.readers[r])) for r in readers
            )

        before = sorted({s for row in inside for s in graph.feeds[row] if s not in inside})
        before += sorted({s for row in before if graph.kind[row] in _NORMS for s in graph.feeds[row]})
        products = [row for row in before if graph.kind[row] == _GEMM and ends_there(row)]
        made += _side_by_side(graph, products)
    return made


def _side_by_side(graph: Graph, products: list[int]) -> list[Launch]:
    by_input: dict[tuple[int, ...], list[int]] = {}
    for row in sorted(set(products)):
        by_input.setdefault(tuple(graph.feeds[row]), []).append(row)
    return [
        Launch("products", tuple(rows), rows[0], rows[0]) for read, rows in by_input.items() if read and len(rows) > 1
    ]


def _gated(graph: Graph) -> list[Launch]:
    """activation(gate) * up: the multiplication with the activation, and the two products side by side."""
    found = []
    for row, kind in enumerate(graph.kind):
        if kind != _MUL:
            continue
        for act in graph.feeds[row]:
            if graph.kind[act] not in _ACTIVATIONS or graph.readers[act] != [row] or len(graph.feeds[act]) != 1:
                continue
            (gate,), ups = graph.feeds[act], [r for r in graph.feeds[row] if r != act]
            if graph.kind[gate] != _GEMM or any(graph.kind[up] != _GEMM for up in ups) or len(ups) > 1:
                continue
            found.append(Launch("gated", (act, row), row, act))
            if ups and ups[0] != gate and graph.readers[gate] == [act] and graph.readers[ups[0]] == [row]:
                found += _side_by_side(graph, [gate, ups[0]])
            break
    return found


def _norms(graph: Graph) -> list[Launch]:
    """A norm with the additions before it, of which the last one may be read by others too."""
    found, taken = [], set()
    for row, kind in enumerate(graph.kind):
        if kind not in _NORMS or len(graph.feeds[row]) != 1:
            continue
        rows, at = [row], graph.feeds[row][0]
        while graph.kind[at] == _ADD and at not in taken and len(graph.feeds[at]) > 1:
            rows.append(at)
            taken.add(at)
            more = [s for s in graph.feeds[at] if graph.kind[s] == _ADD and graph.readers[s] == [at]]
            if not more:
                break
            at = more[0]
        if len(rows) > 1:
            found.append(Launch("norm", tuple(sorted(rows)), row, row))
    return found


def _experts(graph: Graph) -> list[Launch]:
    """From the router's scores to the sum of what the experts made: gated experts, of one load or several."""
    found = []
    for row, kind in enumerate(graph.kind):
        if kind != _TOP_K:
            continue
        sent = [r for r in graph.readers[row] if graph.kind[r] == _GATHER]
        joined = [r for r in graph.readers[row] if graph.kind[r] == _REDUCE]
        if len(sent) != 1 or len(joined) != 1 or len(graph.readers[row]) != 2:
            continue
        inside, waiting = {sent[0]}, list(graph.readers[sent[0]])
        while waiting:
            each = waiting.pop()
            if each not in inside and each != joined[0]:
                inside.add(each)
                waiting += graph.readers[each]
                if not graph.readers[each] or each > joined[0]:
                    break
        else:
            products = sorted(r for r in inside if graph.kind[r] == _GEMM)
            entering = [r for r in products if sent[0] in graph.feeds[r]]
            leaving = [r for r in products if r not in entering]
            alone = all(inside.issuperset(graph.feeds[r]) for r in inside if r != sent[0])
            if alone and leaving and len(entering) == 2 * len(leaving):
                scores = [s for s in graph.feeds[row] if graph.readers[s] == [row] and graph.kind[s] != _GEMM]
                rows = (*scores, row, *inside, joined[0])
                found.append(Launch("experts", tuple(sorted(rows)), entering[0], leaving[0]))
    return found
