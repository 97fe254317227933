"""Sharding: the workload of one of many ranks that share a model, with the collectives between them as operators of its graph."""

from fractions import Fraction

from .._graph import Workload
from ._draft import Draft, draft, length, piece
from ._facts import Facts
from ._layouts import Layouts, Scheme
from ._ranks import Ranks
from ._stages import stage, stage_starts
from ._tensor import TensorRank, query_shares
from ._tokens import Sequences, mark_last, with_context, with_sequences


def shard(workload: Workload, ranks: Ranks, rank: int | None = None) -> Workload:
    """The rows of one rank of `ranks` that share a pass of `workload`, sizes of its part, collectives as rows of their own.

    Tensor ranks cut products by columns and by rows as Megatron-LM does, attention by heads, tables and the head by entries: an
    all-reduce behind attention and behind the MLP of a layer (one where they stand side by side), behind the token table, and an
    all-gather of logits; with `sequence` a reduce-scatter and an all-gather in place of each all-reduce. Experts are dealt out; where
    replicas meet there, tokens go all to all and come back. Context ranks gather keys and values. Stages of a pipeline send on what
    the next one reads. Nothing is told by names: a graph is followed from row to row, and what cannot be cut is done by all
    (`replicated`). Where something does not divide, the first ranks have more.

    **Arguments:** `workload`: of one model, all its sequences.  `rank`: see `Ranks.at`; None: the one that holds most (first of its
    tensor ranks and replicas, last of the context ranks, the stage with most weights).

    **Returns:** the workload itself if one rank has all.

    Raises ValueError for several models at once, and for degrees that the model cannot have.
    """
    if ranks.alone:
        return workload
    if rank is not None:
        return _Sharding(workload, ranks).of(*ranks.at(rank)).build()
    return max(stages(workload, ranks), key=lambda w: (w.weight_bytes, w.macs))


def stages(workload: Workload, ranks: Ranks) -> tuple[Workload, ...]:
    """Of every stage of the pipeline the workload of the rank that holds most. Raises ValueError as `shard`."""
    if ranks.alone:
        return (workload,)
    whole = _Sharding(workload, ranks)
    return tuple(whole.of(0, ranks.context - 1, 0, number).build() for number in range(ranks.pipeline))


def replicated(workload: Workload, ranks: Ranks) -> tuple[str, ...]:
    """Names of rows of which tensor ranks together have more than the whole: those that each does alike (norms, routers, what cannot be
    cut), norms of which each has the weights and some of the tokens, products for heads of keys that several ranks have. Raises
    ValueError as `shard`."""
    if ranks.tensor == 1:
        return ()
    whole = _Sharding(workload, ranks)
    d, found = whole.draft, []
    layouts, rows = whole.layouts, d.rows
    queries = query_shares(whole.facts, layouts)
    for i, does in enumerate(layouts.does):
        busy = rows[i]["is_matrix"] or rows[i]["lane_ops"] or rows[i]["parameters"]
        alike = does == "tokens" or (does == "along" and not layouts.own_weights(i))
        of_keys = 0 < layouts.heads.get(layouts.unit[i], (0, 0))[1] < ranks.tensor and queries[i] < 1
        if (does == "all" and busy) or (alike and rows[i]["parameters"]) or (does in ("columns", "along") and of_keys):
            found.append(d.names[i])
    return tuple(found)


class _Sharding:
    """What all ranks share: how the graph is cut."""

    def __init__(self, workload: Workload, ranks: Ranks):
        self.ranks, self.draft = ranks, draft(workload)
        self.facts = Facts(self.draft)
        if "optimizer" in self.facts.kind:
            raise ValueError(
                f"{self.draft.name}: a training step; share out the forward pass and make the step of that"
            )
        meeting = ranks.meeting
        self.scheme = Scheme(
            ranks.tensor, ranks.sequence, ranks.expert, 1 if meeting > 1 else ranks.tensor // ranks.expert, meeting > 1
        )
        if ranks.data > self.draft.batch:
            raise ValueError(
                f"ranks: data is {ranks.data}; allowed: 1 to {self.draft.batch}, the sequences of the batch"
            )
        if ranks.expert > 1 and not any(self.facts.experts):
            raise ValueError(f"ranks: expert is {ranks.expert}; {self.draft.name} has no experts: 1")
        if ranks.expert > 1 and ranks.context > 1:
            raise ValueError(
                f"ranks: expert is {ranks.expert} with context {ranks.context}; allowed: one of them above 1"
            )
        mark_last(self.facts)
        self.layouts = Layouts(self.facts, self.scheme)

    def of(self, tensor: int, context: int, data: int, number: int) -> Draft:
        ranks, made = self.ranks, self.draft
        if ranks.tensor > 1 or ranks.expert > 1:
            slices = self.scheme.slices
            group = tensor // slices if not self.scheme.exchange else data % ranks.meeting * ranks.tensor + tensor
            made = TensorRank(self.facts, self.layouts, tensor, group, tensor % slices).made
        step = ranks.tensor
        if ranks.context > 1:
            made = with_context(made, Facts(made), ranks.context, context, step)
        step *= ranks.context
        if ranks.data > 1:
            share = length(piece(self.draft.batch, ranks.data, data))
            of_slots = share if not self.scheme.exchange else Fraction(ranks.meeting, ranks.data)
            made = with_sequences(made, Sequences(share, of_slots))
        step *= ranks.data
        if ranks.pipeline > 1:
            made = stage(made, stage_starts(made, ranks.pipeline), number, step)
        return made
