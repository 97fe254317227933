"""The rows of one tensor rank: every row cut as the layouts say, collectives between rows that want a tensor otherwise than it lies."""

from fractions import Fraction

from .._operators import collective_row
from ._draft import ALL, NONE, Draft, Piece, cut, empty, length, part, piece
from ._facts import Facts
from ._layouts import FEATURES, HEADS, PARTIAL, SLOTS, TOKENS, WHOLE, Layouts

EXPERTS = (
    "experts"  # of `Draft.tokens`: rows whose tokens are those that the experts got, of all replicas that meet there
)


class TensorRank:
    """`made`: the rows of rank `rank` of the tensor ranks, which has part `group` of the experts and slice `slice_` of each.
    `shared[i]`: whether row i of the original works on all ranks alike."""

    def __init__(self, facts: Facts, layouts: Layouts, rank: int, group: int, slice_: int):
        self.facts, self.layouts, self.scheme = facts, layouts, layouts.scheme
        self.rank, self.group, self.slice = rank, group, slice_
        d = facts.d
        self.made = Draft(d.name, d.batch, list(d.cached))
        self.at: dict[tuple[int, str], int] = {}  # (row of the original, where it lies) -> row here
        self._pieces: dict[int, tuple[Piece, Piece]] = {}
        self.queries = query_shares(facts, layouts)
        for i in range(len(d.rows)):
            self._row(i)
        for i, readers in enumerate(facts.readers):
            if not readers and layouts.lies[i] != WHOLE:
                self._version(i, WHOLE, Fraction(1))  # the model's results
        self.made.kept_like(d)

    # what of which tensor is here

    def _set(self, i: int) -> tuple[Piece, Piece]:
        """Of the features that row i leaves, those of queries and those of keys and values that are here."""
        of = self.layouts.unit[i]
        if of not in self._pieces:
            self._pieces[of] = self._dealt(of)
        return self._pieces[of]

    def _dealt(self, of: int) -> tuple[Piece, Piece]:
        ranks, units = self.scheme.tensor, self.layouts.units.get(of, 1)
        heads, kv = self.layouts.heads.get(of, (0, 0))
        if not heads or ranks <= kv:
            both = piece(units if not heads else kv, ranks, self.rank)
            return both, both
        # fewer heads of keys than ranks: several ranks have the same one and share its queries
        each = heads // kv
        for head in range(kv):
            begin, end = (
                ranks - x for x in reversed(part(ranks, kv, kv - 1 - head))
            )  # the first heads have the fewest ranks
            if begin <= self.rank < end:
                first, last = part(each, end - begin, self.rank - begin)
                mine = Fraction(head * each + first, heads), Fraction(head * each + last, heads)
                return mine, (Fraction(head, kv), Fraction(head + 1, kv)) if last > first else NONE
        raise AssertionError("every rank has a head")

    def _features(self, i: int, columns: int) -> int:
        """Of `columns` features of a result those that are here."""
        queries, keys = self._set(i)
        of_queries = round(columns * self.queries[i])
        return cut(of_queries, queries) + cut(columns - of_queries, keys)

    def _share(self, i: int, lies: str) -> Fraction:
        """Of the tensor that row i leaves, what is here where it lies so."""
        if lies == FEATURES:
            queries, keys = self._set(i)
            return self.queries[i] * length(queries) + (1 - self.queries[i]) * length(keys)
        if lies == HEADS:
            return length(self._set(i)[0])
        if lies == TOKENS:
            return length(self._tokens(i))
        if lies == SLOTS:
            return self._slots(i) * length(self._sliced(i))
        return Fraction(1)

    def _tokens(self, i: int) -> Piece:
        return piece(self.facts.tokens[i], self.scheme.tensor, self.rank)

    def _sliced(self, i: int) -> Piece:
        """Of an expert's hidden units; its results are whole (parts of sums)."""
        units = self.layouts.units.get(self.layouts.unit[i], 0)
        cuts = self.scheme.slices > 1 and not (self.layouts.does[i] == "experts" and SLOTS in self.layouts.reads[i])
        return piece(units, self.scheme.slices, self.slice) if cuts and units > 1 else ALL

    def _slots(self, i: int) -> Fraction:
        """Share of the slots behind row i that this rank's experts have."""
        d = self.facts.d
        if self.facts.experts[i]:
            return length(piece(d.rows[i]["groups"], self.scheme.experts, self.group))
        found = [
            (self.facts.tokens[s], self._slots(s)) for s, _ in d.feeds[i] if self.layouts.lies[s] == SLOTS
        ]  # by loads
        return sum((n * share for n, share in found), Fraction(0)) / max(sum(n for n, _ in found), 1)

    # rows

    def _row(self, i: int) -> None:
        d, layouts = self.facts.d, self.layouts
        row, feeds = dict(d.rows[i]), []
        outside_in, outside_out = self._cut(i, row)
        idle = row["out_elements"] == 0
        self._returned(i)
        for j, (source, nbytes) in enumerate(d.feeds[i]):
            alone = len(self.facts.readers[source]) == 1  # then of its tensor only what this row reads has to come here
            some = min(Fraction(nbytes) / self._bytes(source), Fraction(1)) if alone else Fraction(1)
            here, lies = self._version(source, layouts.reads[i][j], some)
            feeds.append((here, 0.0 if idle else nbytes * float(self._read(i, j, lies))))
        tokens = EXPERTS if layouts.does[i] in ("experts", "slots") else d.tokens[i]
        if layouts.does[i] in ("columns", "experts") and not idle:
            row["ranks"] = self.scheme.tensor
        here = self.made.add(
            d.names[i], row, feeds, d.reads[i] * float(outside_in), d.writes[i] * float(outside_out), tokens
        )
        self.at[i, layouts.lies[i]] = here

    def _bytes(self, i: int) -> Fraction:
        row = self.facts.d.rows[i]
        return Fraction(row["out_elements"]) * Fraction(row["out_bits"]) / 8 or Fraction(1)

    def _returned(self, i: int) -> None:
        """One exchange brings back what several rows of experts left for row i."""
        feeds = [source for source, _ in self.facts.d.feeds[i]]
        away = [s for s in dict.fromkeys(feeds) if self.layouts.lies[s] == SLOTS and (s, WHOLE) not in self.at]
        if self.layouts.does[i] != "all" or len(away) < 2:
            return
        rows = [self.facts.d.rows[s] for s in away]
        self._collective(away, SLOTS, WHOLE, "all_to_all", sum(row["out_elements"] for row in rows))

    def _read(self, i: int, j: int, lies: str) -> Fraction:
        """Of feed j as row i has it in the original, what it reads here."""
        source, does = self.facts.d.feeds[i][j][0], self.layouts.does[i]
        if does in ("experts", "slots") and self.layouts.lies[source] != SLOTS:
            return self._slots(i)
        if does == "heads":
            return self._operand(i, j, lies)[0]
        if lies not in (WHOLE, PARTIAL):
            return self._share(source, lies)
        if does in ("along", "groups"):  # takes its features of what is whole
            return self._share(i, self.layouts.lies[i])
        return length(self._tokens(i)) if does == "tokens" else Fraction(1)

    def _operand(self, i: int, j: int, lies: str) -> tuple[Fraction, Fraction]:
        """Of feed j of a product of attention (share, elements) that are read here; second operands that are whole serve all heads."""
        of = self.facts.heads[i]
        assert of is not None
        first, second = of.operands[j]
        queries, keys = (length(x) for x in self._set(i))
        mine = first * queries + second * (1 if lies == WHOLE else keys)
        return mine / max(first + second, Fraction(1)), mine

    def _cut(self, i: int, row: dict) -> tuple[Fraction, Fraction]:
        """Cuts `row`, a copy of row i; returns the shares of what it reads from and writes to memory."""
        does, whole = self.layouts.does[i], self.facts.d.rows[i]
        share = self._share(i, self.layouts.lies[i])
        if does in ("all", "partial"):
            return Fraction(1), Fraction(1)
        if share == 0 or (does == "experts" and not self._slots(i)):
            row.update(empty(row))
            return Fraction(0), Fraction(0)
        if does == "columns":
            row["k"] = self._features(i, row["k"])
            self._scaled(row, weights=Fraction(row["k"], whole["k"]), out=Fraction(row["k"], whole["k"]))
            return Fraction(1), share
        if does == "groups":
            row["groups"] = cut(row["groups"], self._set(i)[0])
            share = Fraction(row["groups"], whole["groups"])
            self._scaled(row, weights=share, out=share, reads=share)
            return share, share
        if does == "rows":
            source = self.facts.d.feeds[i][0][0]
            row["c"] = cut(row["c"], self._set(source)[0])
            if not row["c"]:
                row.update(empty(row))
                return Fraction(0), Fraction(0)
            share = Fraction(row["c"], whole["c"])
            self._weights_by_depth(row, whole, share)
            row["in_elements"] = round(whole["in_elements"] * share)
            return share, Fraction(1)
        if does == "heads":
            return self._heads(i, row)
        if does == "table":
            entries = max(whole["parameters"] // whole["k"], 1)
            share = length(piece(entries, self.scheme.tensor, self.rank))
            row["parameters"] = round(whole["parameters"] * share)
            # of the tokens that pass, a rank finds its share in its part of the table
            row["in_elements"], row["lane_ops"] = (round(whole[x] * share) for x in ("in_elements", "lane_ops"))
            return share, Fraction(1)
        if does == "experts":
            return self._experts(i, row)
        if does == "combine":
            feeds = self.facts.d.feeds[i]
            total = sum(Fraction(b) for _, b in feeds) or Fraction(1)
            read = sum(
                (Fraction(b) * self._read(i, j, self.layouts.reads[i][j]) for j, (_, b) in enumerate(feeds)),
                Fraction(0),
            )
            self._scaled(row, reads=read / total, work=read / total)
            return Fraction(1), Fraction(1)
        self._lanes(i, row, share)
        return share, share

    @staticmethod
    def _scaled(row: dict, *, weights=Fraction(1), out=Fraction(1), reads=Fraction(1), work=None) -> None:
        for name in ("parameters", "weight_elements"):
            row[name] = round(row[name] * weights)
        row["out_elements"], row["in_elements"] = round(row["out_elements"] * out), round(row["in_elements"] * reads)
        row["lane_ops"] = round(row["lane_ops"] * (out if work is None else work))

    def _weights_by_depth(self, row: dict, whole: dict, share: Fraction) -> None:
        """Weights cut by their inputs; what is left over (biases) is added once, by the first rank."""
        for name in ("parameters", "weight_elements"):
            main = min(whole["groups"] * whole["k"] * whole["c"] * whole["r"] * whole["s"], whole[name])
            row[name] = round(main * share) + (whole[name] - main if self.rank == 0 else 0)

    def _heads(self, i: int, row: dict) -> tuple[Fraction, Fraction]:
        whole = self.facts.d.rows[i]
        queries, keys = self._set(i)
        of = self.facts.heads[i]
        assert of is not None
        q, kv = length(queries), length(keys)
        for name, by in (("groups", kv), ("p", q / kv)):
            row[name] = round(row[name] * by)
        fed = sum((a + b for a, b in of.operands), Fraction(0))
        here = sum((self._operand(i, j, lies)[1] for j, lies in enumerate(self.layouts.reads[i])), Fraction(0))
        row["in_elements"] = round(here + (whole["in_elements"] - fed) * kv)  # the rest lies in the cache, head by head
        row["out_elements"], row["lane_ops"] = round(whole["out_elements"] * q), round(whole["lane_ops"] * q)
        return kv, q

    def _experts(self, i: int, row: dict) -> tuple[Fraction, Fraction]:
        whole, scheme = self.facts.d.rows[i], self.scheme
        n = whole["groups"]
        mine = cut(n, piece(n, scheme.experts, self.group))
        each = whole["k"] * whole["c"]
        stored = whole["parameters"] // each if whole["parameters"] else 0
        row["groups"] = mine
        reads, out = Fraction(mine, n), Fraction(mine, n)
        sliced = Fraction(1)
        if scheme.slices > 1:
            if SLOTS in self.layouts.reads[i]:  # behind the hidden units: parts of sums
                of = self._sliced(self.facts.d.feeds[i][0][0])
                row["c"] = cut(row["c"], of)
                sliced = Fraction(row["c"], whole["c"])
                reads *= sliced
            elif self.layouts.units.get(self.layouts.unit[i], 0) > 1:
                row["k"] = cut(row["k"], self._sliced(i))
                sliced = Fraction(row["k"], whole["k"])
                out *= sliced
        here = cut(stored, piece(stored, scheme.experts, self.group)) if stored else 0
        row["parameters"] = round(whole["parameters"] * Fraction(here, max(stored, 1)) * sliced)
        row["weight_elements"] = round(whole["weight_elements"] * Fraction(mine, n) * sliced)
        row["in_elements"], row["out_elements"] = (
            round(whole["in_elements"] * reads),
            round(whole["out_elements"] * out),
        )
        return reads, out

    def _lanes(self, i: int, row: dict, share: Fraction) -> None:
        """A row on the lanes that does `share` of its work: a dimension of its shape shrinks where one divides."""
        does, whole = self.layouts.does[i], self.facts.d.rows[i]
        if does == "along" and self.layouts.lies[i] == HEADS:
            queries, keys = self._set(i)
            kv, each = length(keys), length(queries) / length(keys)
            if all((whole[n] * x).denominator == 1 for n, x in (("groups", kv), ("p", each))):
                row["groups"], row["p"] = int(whole["groups"] * kv), int(whole["p"] * each)
        else:
            order = ("p", "batch", "q", "k") if does in ("tokens", "slots") else ("k", "p", "groups", "batch")
            shrink(row, share, order)
        weights = share if does == "along" and self.layouts.own_weights(i) else Fraction(1)
        self._scaled(row, weights=weights, out=share, reads=share, work=share)

    # collectives

    def _version(self, i: int, want: str, some: Fraction) -> tuple[int, str]:
        """(row, where it lies) that has tensor i as wanted; a collective is added where there is none. `some`: of it that is read."""
        have, d = self.layouts.lies[i], self.facts.d
        if (i, want) in self.at:
            return self.at[i, want], want
        if want in (FEATURES, HEADS) or (have == WHOLE and want == TOKENS):
            return self.at[i, have], have
        if want == SLOTS:  # to the experts, wherever they are
            self._collective([i], have, SLOTS, "all_to_all", d.rows[i]["out_elements"])
            return self.at[i, SLOTS], SLOTS
        elements = max(round(d.rows[i]["out_elements"] * some), 1)
        if have == PARTIAL and self.scheme.sequence and self.facts.tokens[i] >= self.scheme.tensor:
            if (i, TOKENS) not in self.at:
                self._collective([i], have, TOKENS, "reduce_scatter", max(d.rows[i]["out_elements"], 1))
            if want == TOKENS:
                return self.at[i, TOKENS], TOKENS
            have = TOKENS
        if have == SLOTS:  # back to where the tokens came from
            self._collective([i], have, WHOLE, "all_to_all", elements)
        else:
            self._collective([i], have, WHOLE, "all_reduce" if have == PARTIAL else "all_gather", elements)
        return self.at[i, WHOLE], WHOLE

    def _collective(self, of: list[int], have: str, gives: str, kind: str, elements: int) -> None:
        d, row = self.facts.d, self.facts.d.rows[of[0]]
        ranks = self.scheme.experts if kind == "all_to_all" else self.scheme.tensor
        made = collective_row(kind, max(elements, 1), ranks, bits=row["out_bits"])
        read = made["in_elements"] * made["in_bits"] / 8
        total = sum(d.rows[i]["out_elements"] for i in of)
        feeds = [(self.at[i, have], read * d.rows[i]["out_elements"] / max(total, 1)) for i in of]
        here = self.made.add(f"{d.names[of[0]]}.{kind}", made, feeds, tokens=d.tokens[of[0]])
        for i in of:
            self.at[i, gives] = here


def query_shares(facts: Facts, layouts: Layouts) -> list[Fraction]:
    """Of each result the share that goes the way of queries; the rest goes that of keys and values."""
    n = len(facts.d.rows)
    share = [Fraction(1)] * n
    sums = [[Fraction(0), Fraction(0)] for _ in range(n)]
    for i in reversed(range(n)):
        if sum(sums[i]):
            share[i] = sums[i][0] / sum(sums[i])
        elements, heads = facts.elements(i), facts.heads[i]
        for j, (source, _) in enumerate(facts.d.feeds[i]):
            first, second = elements[j], Fraction(0)
            if layouts.does[i] == "heads" and heads is not None:
                first, second = heads.operands[j]
            elif layouts.does[i] in ("along", "groups"):
                first, second = elements[j] * share[i], elements[j] * (1 - share[i])
            sums[source][0] += first
            sums[source][1] += second
    return share


def shrink(row: dict, share: Fraction, order: tuple[str, ...]) -> bool:
    """Shrinks the first dimension of `order` that `share` divides; whether there is one."""
    for name in order:
        size = row[name] * share
        if size.denominator == 1 and size >= 1:
            row[name] = int(size)
            return True
    return False
