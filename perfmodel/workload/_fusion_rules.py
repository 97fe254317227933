"""What may be fused, as data: how a consumer reads an edge, which pairs of operators a backend joins, and how many at most.

Moirai (arXiv 2312.04025) fuses by the rules of the inference backend before it places anything; its rule set is not published.
These are the patterns that compilers and libraries document: XLA's loop, input and epilogue fusions, TensorRT's and cuDNN's
convolution and matmul epilogues and flash attention, and streaming between everything on dataflow machines (SN40L).
"""

from typing import NamedTuple

import numpy as np

from ._graph import Workload
from ._operators import KINDS, MATRIX_KINDS

POINTWISE = (
    "batch_norm", "relu", "gelu", "silu", "sigmoid", "tanh", "add", "mul", "rope", "elementwise", "quantize", "optimizer",
)  # fmt: skip
ROWWISE = ("layer_norm", "rms_norm", "softmax", "reduce", "top_k", "scan", "fft")
POOLS = ("max_pool", "avg_pool", "resize")
DENSE = ("conv", "gemm")
NORMS = ("layer_norm", "rms_norm")

# How much of a tensor a consumer must have before it can begin, and what it then needs at a time.
POINTS, ROWS, WINDOW, ITEMS, FIRST, ALL = range(6)
NEEDS = {
    **dict.fromkeys(POINTWISE, POINTS),  # any piece
    **dict.fromkeys((*ROWWISE, "gemm"), ROWS),  # whole rows, in order
    **dict.fromkeys(("conv", *POOLS), WINDOW),  # image rows under the window
    "copy": ITEMS,  # transposition and the like: whole items of the batch
    "attention_gemm": FIRST,  # rows of its first operand; all of its second
}  # the others: group_norm has its statistics over all, gather and embedding read anywhere
_NEEDS = np.asarray([NEEDS.get(kind, ALL) for kind in KINDS])


def incoming(workload: Workload, xp=np):
    """Edges sorted by their consumer (then as stored), `[E]`, and where those of each row begin, `[L]`. `xp`: numpy or jax.numpy."""
    target = xp.asarray(workload.target)
    order = xp.lexsort((xp.arange(target.shape[0]), target))
    return order, xp.searchsorted(target[order], xp.arange(workload.n_operators))


def needs(workload: Workload, xp=np):
    """Of each edge, `[E]`: how its consumer reads it (`POINTS` ... `ALL`). `xp`: numpy or jax.numpy.

    Of attention the first edge is the first operand if it carries just that; all others are the second one, or both."""
    op, source, target = workload.operators, xp.asarray(workload.source), xp.asarray(workload.target)
    order, start = incoming(workload, xp)
    rows = 1.0 * xp.asarray(op.groups) * xp.asarray(op.batch) * xp.asarray(op.c) * xp.asarray(op.p) * xp.asarray(op.q)
    carried = xp.asarray(workload.edge_bytes) * 8.0 / xp.asarray(op.out_bits)[source]
    first = order[start[target]] == xp.arange(target.shape[0])
    alone = first & (xp.abs(carried / rows[target] - 1.0) < 1e-5)
    need = xp.asarray(_NEEDS)[xp.asarray(op.kind)[target]]
    return xp.where(need == FIRST, xp.where(alone, ROWS, ALL), need)


class Rule(NamedTuple):
    """An edge from one of `producers` to one of `consumers` may be fused; `when` says something of the producer's group:
    `no matrix` (none of its rows runs on the array), `attention` (one of its rows is a product of attention)."""

    name: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    when: str = ""


RULES = (
    Rule("convolution epilogue", ("conv",), POINTWISE),  # conv + batch norm (+ add) + activation, with the chain below
    Rule("matmul epilogue", ("gemm",), POINTWISE),  # matmul + bias (part of the row) + activation or add
    Rule("attention epilogue", ("attention_gemm",), POINTWISE),  # scale and mask of scores
    Rule("attention", ("attention_gemm",), ("softmax",)),
    Rule("attention", POINTWISE, ("softmax", "attention_gemm"), "attention"),
    Rule("attention", ("softmax",), ("attention_gemm", "elementwise", "mul"), "attention"),
    Rule("elementwise chain", (*POINTWISE, "copy"), (*POINTWISE, "copy")),
    Rule("reduction of a chain", (*POINTWISE, "copy"), ROWWISE, "no matrix"),
    Rule("chain after a reduction", ROWWISE, POINTWISE),
    Rule("transposition of a product", MATRIX_KINDS, ("copy",)),
    Rule("normalisation + matmul", NORMS, MATRIX_KINDS),
    Rule("gated MLP", ("mul",), ("gemm",)),
    Rule("transposed operand", ("copy",), MATRIX_KINDS),
    Rule("stream", KINDS, KINDS),
)


class Backend(NamedTuple):
    """Rules by name, and the most (convolutions and GEMMs, products of attention) of one group: any of `most`; (): no limit."""

    rules: tuple[str, ...]
    most: tuple[tuple[int, int], ...]


_CHAINS = ("elementwise chain", "reduction of a chain", "chain after a reduction")
_EPILOGUES = ("convolution epilogue", "matmul epilogue")
BACKENDS = {
    "none": Backend((), ()),
    "xla-like": Backend(
        (*_EPILOGUES, "attention epilogue", *_CHAINS, "transposition of a product"), ((1, 0), (0, 1))
    ),
    "tensorrt-like": Backend((*_EPILOGUES, "attention epilogue", "attention", *_CHAINS), ((1, 0), (0, 2))),
    "dataflow": Backend(tuple(dict.fromkeys(rule.name for rule in RULES)), ()),
}  # fmt: skip


def rules_by_kind(backend: str) -> dict[tuple[int, int], list[tuple[str, str]]]:
    """Of a backend: (kind of producer, kind of consumer) -> [(rule, its `when`)], the first that holds applies."""
    found: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for rule in RULES:
        if rule.name in BACKENDS[backend].rules:
            for producer in rule.producers:
                for consumer in rule.consumers:
                    pair = KINDS.index(producer), KINDS.index(consumer)
                    found.setdefault(pair, []).append((rule.name, rule.when))
    return found
