"""How each tensor lies across the ranks that share every layer (tensor parallelism), and what each row does with it.

Rules of Megatron-LM (arXiv 1909.08053, with sequence parallelism 2205.05198) by graph instead of by model. A product whose columns all
readers can use is cut by columns; one that reads columns is cut by rows and leaves partial sums; products of attention and what lies
between them are cut by heads; rows on the lanes follow what they read, if they work feature by feature. Everything else is done by all.
"""

from dataclasses import dataclass
from math import gcd

from .._operators import KINDS
from ._facts import Facts

# Where a tensor lies. SLOTS: tokens that were sent to experts, each rank has those of its experts.
WHOLE, TOKENS, FEATURES, HEADS, SLOTS, PARTIAL = "whole", "tokens", "features", "heads", "slots", "partial"
_CUT = (FEATURES, HEADS)


@dataclass(frozen=True)
class Scheme:
    """Ranks that share a layer. `experts`: ranks to which experts are dealt, `slices`: parts each of them is cut in; `exchange`: tokens of
    several replicas meet at the experts."""

    tensor: int
    sequence: bool
    experts: int = 1
    slices: int = 1
    exchange: bool = False


class Layouts:
    """`does[i]`: what row i is cut by: `all` (nothing), `columns`, `rows` (of the weights), `groups` (of weights), `heads`, `along` (what
    it reads), `tokens`, `partial` (sums of parts of sums), `table` (entries), `experts`, `slots`, `combine`.
    `reads[i]`: how each feed must lie; `lies[i]`: how the result does.  `unit[i]`: of features the set of rows cut alike, its number.
    `units[n]`: of each set the columns that stay together, as many of them; `heads[n]`: its heads, if it is one of attention.
    """

    def __init__(self, facts: Facts, scheme: Scheme):
        self.facts, self.scheme = facts, scheme
        n = len(facts.d.rows)
        self.does, self.lies = ["all"] * n, [WHOLE] * n
        self.reads: list[list[str]] = [[] for _ in range(n)]
        self._set = list(range(n))
        for i in range(n):
            self.does[i], self.reads[i], self.lies[i] = self._row(i)
            self._join(i)
        self.unit = [self._find(i) for i in range(n)]
        self.units: dict[int, int] = {}
        self.heads: dict[int, tuple[int, int]] = {}
        for i in range(n):
            self._widths(i)

    def _row(self, i: int) -> tuple[str, list[str], str]:
        facts, scheme = self.facts, self.scheme
        feed = facts.d.feeds[i]
        lies = [self.lies[source] for source, _ in feed]
        whole = [WHOLE] * len(feed)
        if facts.experts[i] or SLOTS in lies:
            return self._expert(i, lies)
        if scheme.tensor == 1:
            return "all", whole, WHOLE
        kept = [x if x in _CUT else WHOLE for x in lies]
        if facts.weighted[i]:
            if facts.batched[i]:
                return ("groups", kept, FEATURES) if facts.wanted[i] else ("all", whole, WHOLE)
            if lies and all(x == FEATURES for x in lies):
                return "rows", lies, PARTIAL
            return ("columns", whole, FEATURES) if facts.wanted[i] else ("all", whole, WHOLE)
        if facts.kind[i] == "attention_gemm":
            heads = facts.heads[i]
            if heads is None or not any(x in _CUT for x in lies):
                return "all", whole, WHOLE
            return "heads", kept, HEADS if heads.scores else FEATURES
        return self._lanes(i, lies, kept)

    def _lanes(self, i: int, lies: list[str], kept: list[str]) -> tuple[str, list[str], str]:
        facts, scheme = self.facts, self.scheme
        row, whole = facts.d.rows[i], [WHOLE] * len(lies)
        if facts.kind[i] == "embedding" and not lies and row["parameters"] > 0:
            return "table", [], PARTIAL
        # nobody else waits for the sums
        alone = all(len(facts.readers[source]) == 1 for source, _ in facts.d.feeds[i])
        sums = facts.kind[i] == "add" and not row["parameters"] and alone and all(x == PARTIAL for x in lies)
        scaled = facts.kind[i] == "mul" and lies.count(PARTIAL) == 1 and lies.count(WHOLE) == len(lies) - 1
        if lies and (sums or scaled):
            return "partial", lies, PARTIAL
        if any(x in _CUT for x in lies):
            if not facts.along(i):
                return "all", whole, WHOLE
            return "along", kept, FEATURES if facts.of_heads[i] is None else HEADS
        many = scheme.sequence and facts.tokens[i] >= scheme.tensor
        split = any(x in (TOKENS, PARTIAL) for x in lies)
        if many and split and facts.by_token(i):
            return "tokens", [TOKENS] * len(lies), TOKENS
        return "all", whole, WHOLE

    def _expert(self, i: int, lies: list[str]) -> tuple[str, list[str], str]:
        """Experts are dealt out, each cut by columns and rows as an MLP is; what they leave is added up where tokens are put together."""
        facts, scheme = self.facts, self.scheme
        kept = [SLOTS if x == SLOTS else WHOLE for x in lies]
        if scheme.tensor == 1 and scheme.experts == 1:
            return "all", [WHOLE] * len(lies), WHOLE
        if facts.experts[i]:
            return "experts", [SLOTS] * len(lies) if scheme.exchange else kept, SLOTS
        slots = sum(facts.tokens[s] for (s, _), x in zip(facts.d.feeds[i], lies, strict=True) if x == SLOTS)
        if facts.tokens[i] == slots or all(
            facts.tokens[i] == facts.tokens[s] for (s, _), x in zip(facts.d.feeds[i], lies, strict=True) if x == SLOTS
        ):
            return "slots", kept, SLOTS
        if scheme.exchange:
            return "all", [WHOLE] * len(lies), WHOLE
        return "combine", kept, PARTIAL

    def own_weights(self, i: int) -> bool:
        """Whether a row that goes along has weights for each of its features or heads; else all of them have the same."""
        row = self.facts.d.rows[i]
        return self.lies[i] == HEADS or row["parameters"] >= row["k"] == self.facts.width[i]

    # rows that are cut alike

    def _find(self, i: int) -> int:
        while self._set[i] != i:
            self._set[i] = i = self._set[self._set[i]]
        return i

    def _join(self, i: int) -> None:
        if self.does[i] not in ("along", "groups", "heads", "slots"):
            return
        for (source, _), lies in zip(self.facts.d.feeds[i], self.reads[i], strict=True):
            if lies in (*_CUT, SLOTS) and self.lies[source] == lies:
                self._set[self._find(source)] = self._find(i)

    def _widths(self, i: int) -> None:
        facts, row = self.facts, self.facts.d.rows[i]
        heads = facts.heads[i]
        if self.does[i] == "heads" and heads is not None:
            found = heads.heads, heads.kv
            self._units(self.unit[i], found[1])
            if self.heads.setdefault(self.unit[i], found) != found:
                self.heads[self.unit[i]] = 0, 0  # attention of two kinds: both are cut by what divides both
        elif self.does[i] == "columns" or (self.does[i] == "experts" and SLOTS not in self.reads[i]):
            self._units(self.unit[i], row["k"])
        elif self.does[i] == "groups":
            self._units(self.unit[i], row["groups"])
        elif self.does[i] == "along" and facts.of_heads[i] is None:
            norm = KINDS[row["kind"]].endswith("norm") and row["k"] < facts.width[i]
            self._units(self.unit[i], int(facts.width[i] / row["k"]) if norm else int(facts.width[i]))
        elif self.does[i] in ("rows", "experts"):
            for source, _ in facts.d.feeds[i]:
                self._units(self.unit[source], int(facts.width[source]))

    def _units(self, of: int, columns: int) -> None:
        self.units[of] = gcd(self.units.get(of, 0), max(columns, 1))
