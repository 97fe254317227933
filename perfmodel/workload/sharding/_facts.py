"""What one has to know of a graph to cut it: how many tokens each tensor has, which products are of heads or of experts, and where columns
that are dealt out would meet a reader that can use them."""

from dataclasses import dataclass
from fractions import Fraction
from math import prod

from .._fusion_rules import NORMS, POINTWISE, POOLS
from .._operators import COLLECTIVE_KINDS, KINDS, MATRIX_KINDS
from ._draft import Draft

_ALONG = frozenset((*POINTWISE, *POOLS, "copy", "scan"))  # channel by channel
_ROWS = frozenset((*POINTWISE, *NORMS, "softmax", "reduce", "top_k", "copy"))  # token by token


@dataclass(frozen=True)
class Heads:
    """A product of attention: query heads and heads of keys and values; of each feed the elements of first and second operand."""

    heads: int
    kv: int
    operands: tuple[tuple[Fraction, Fraction], ...]
    scores: bool  # else the product with the values

    @property
    def each(self) -> int:
        """Query heads of a head of keys."""
        return self.heads // self.kv


class Facts:
    """`tokens[i]`, `width[i]`: the result of row i has so many tokens of so many features.  `heads[i]`: of products of attention that
    can be dealt out by heads, else None.  `of_heads[i]`: the result lies head by head (scores).  `batched[i]`: weights of their own for
    every head (or group of channels).  `experts[i]`: weights of experts, each with tokens of its own.
    `takes[i]`: whether the row can use columns of its input on several devices; `wanted[i]`: whether all readers of its result can.
    """

    def __init__(self, d: Draft):
        n = len(d.rows)
        self.d, self.readers = d, d.readers()
        self.kind = [KINDS[row["kind"]] for row in d.rows]
        self.weighted = [k in MATRIX_KINDS and k != "attention_gemm" for k in self.kind]
        self.tokens, self.width = [1] * n, [Fraction(1)] * n
        self.heads: list[Heads | None] = [None] * n
        self.of_heads: list[Heads | None] = [None] * n
        self.batched, self.experts = [False] * n, [False] * n
        for i in range(n):
            self._row(i)
        self.takes, self.wanted = [False] * n, [False] * n
        for i in reversed(range(n)):
            self.wanted[i] = all(self.takes[t] for t in self.readers[i])
            self.takes[i] = self._takes(i)

    def elements(self, i: int) -> list[Fraction]:
        """Of each feed."""
        return [Fraction(nbytes) * 8 / Fraction(self.d.rows[source]["out_bits"]) for source, nbytes in self.d.feeds[i]]

    def _row(self, i: int) -> None:
        row, feed = self.d.rows[i], self.d.feeds[i]
        own = row["batch"] * row["p"] * row["q"]
        first = feed[0][0] if feed else None
        if self.kind[i] in COLLECTIVE_KINDS:
            self.tokens[i] = self.tokens[first] if first is not None else own
        elif self.weighted[i]:
            self.tokens[i] = own
            if row["groups"] > 1:
                dealt = self.kind[i] == "gemm" and first is not None and self.tokens[first] != own
                self.experts[i], self.batched[i] = dealt, not dealt
                self.tokens[i] = own * row["groups"] if dealt else own
        elif self.kind[i] == "attention_gemm":
            found = self.heads[i] = self._attention(i)
            self.tokens[i] = self.tokens[first] if first is not None else own * row["groups"]
            if found is not None and found.scores:
                self.of_heads[i] = found
        else:
            declared = own * row["groups"]
            self.tokens[i] = declared
            if first is not None and self.kind[i] != "gather":
                same = row["groups"] == 1 and row["k"] == self.width[first]
                if not same and declared % self.tokens[first] == 0:
                    self.tokens[i] = self.tokens[first]
                if declared * row["k"] == self.d.rows[first]["out_elements"]:
                    self.of_heads[i] = self.of_heads[first]
        self.width[i] = Fraction(row["out_elements"], max(self.tokens[i], 1))

    def _attention(self, i: int) -> Heads | None:
        """Heads by the widths of what is read: queries bring `heads * c` features a token, keys `kv * c`."""
        row, feed = self.d.rows[i], self.d.feeds[i]
        left, operands = Fraction(prod(row[x] for x in ("groups", "batch", "p", "q", "c", "r", "s"))), []
        for elements in self.elements(i):
            mine = min(elements, left)
            left -= mine
            operands.append((mine, elements - mine))
        if left or not feed:
            return None  # part of the first operand comes from memory
        source = feed[0][0]
        of = self.of_heads[source]
        if of is not None:
            return Heads(of.heads, of.kv, tuple(operands), False)
        widths = [
            (a / self.tokens[s], b / self.tokens[s]) for (a, b), (s, _) in zip(operands, feed, strict=True)
        ]  # features a token
        heads, kv = (sum((w[j] for w in widths), Fraction(0)) / row["c"] for j in (0, 1))
        if heads.denominator != 1 or heads < 1:
            return None
        heads, groups = int(heads), row["groups"] * row["batch"]
        if not any(b for _, b in widths):  # all keys from memory
            kv = Fraction(groups, self.d.batch)
        if kv.denominator != 1 or kv < 1 or heads % int(kv) or groups % int(kv):
            kv = heads
        if groups % int(kv):
            return None
        return Heads(heads, int(kv), tuple(operands), True)

    def along(self, i: int) -> bool:
        """Whether a row on the lanes works on each feature (or head) by itself."""
        feed = self.d.feeds[i]
        if self.kind[i] in COLLECTIVE_KINDS or self.weighted[i] or not feed:
            return False
        if self.of_heads[i] is not None:
            return self.kind[i] in _ALONG or self.kind[i] in _ROWS
        width, k = self.width[feed[0][0]], self.d.rows[i]["k"]
        if self.kind[i] in NORMS:  # of every head
            return k < width and width % k == 0
        return self.kind[i] in _ALONG and (self.d.rows[i]["groups"] == 1 or self.tokens[i] == self.tokens[feed[0][0]])

    def by_token(self, i: int) -> bool:
        """Whether a row on the lanes works on each token by itself, as many as it reads."""
        same = all(self.tokens[source] == self.tokens[i] for source, _ in self.d.feeds[i])
        return self.kind[i] in _ROWS and same and self.of_heads[i] is None

    def _takes(self, i: int) -> bool:
        if self.weighted[i]:
            return self.wanted[i] if self.batched[i] else True
        if self.kind[i] == "attention_gemm":
            return self.heads[i] is not None
        return self.along(i) and self.wanted[i]
