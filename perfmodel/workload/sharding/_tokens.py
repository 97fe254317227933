"""Tokens shared out: some of the sequences for each of several replicas, a part of every sequence for each of several context ranks."""

from dataclasses import dataclass
from fractions import Fraction

from .._operators import FIRST_COLLECTIVE, KINDS, MATRIX_KINDS, collective_row
from ._draft import Draft, empty, part
from ._facts import Facts
from ._tensor import EXPERTS, shrink

LAST = "last"
_ATTENTION = KINDS.index("attention_gemm")


@dataclass(frozen=True)
class Sequences:
    """`share` of the sequences; of the tokens at experts, which several replicas may send there, `of_slots`."""

    share: Fraction
    of_slots: Fraction


def with_sequences(d: Draft, at: Sequences) -> Draft:
    """The rows of a replica: everything but weights in proportion to its sequences.

    Raises ValueError for loads of experts that do not divide.
    """
    made = Draft(
        d.name,
        max(int(d.batch * at.share), 1),
        [d.cached[0], d.cached[1] * float(at.share), d.cached[2] * float(at.share)],
    )
    for i, row in enumerate(d.rows):
        share = at.of_slots if d.tokens[i] == EXPERTS else at.share
        row = dict(row)
        if share != 1 and row["out_elements"]:
            _fewer(d.names[i], row, share, d.tokens[i] == EXPERTS)
        feeds = [(source, nbytes * float(share)) for source, nbytes in d.feeds[i]]
        made.add(d.names[i], row, feeds, d.reads[i] * float(share), d.writes[i] * float(share), d.tokens[i])
    return made


def _fewer(name: str, row: dict, share: Fraction, experts: bool) -> None:
    kind = KINDS[row["kind"]]
    if row["kind"] == _ATTENTION:
        order = ("groups", "batch", "p")
    elif kind == "conv":
        order = ("batch", "p")
    else:
        order = ("p", "batch", "groups", "q") if experts or kind not in MATRIX_KINDS else ("p", "batch", "q")
    groups = row["groups"]
    if row["kind"] < FIRST_COLLECTIVE and not shrink(row, share, order) and row["is_matrix"]:
        raise ValueError(
            f"{name}: a share of {share} of its tokens is no whole number of rows; allowed: what divides them"
        )
    if experts and row["groups"] < groups:  # fewer experts have any token
        row["weight_elements"] = round(row["weight_elements"] * Fraction(row["groups"], groups))
    for each in ("lane_ops", "in_elements", "out_elements"):
        row[each] = round(row[each] * share)


def with_context(d: Draft, facts: Facts, ranks: int, rank: int, step: int) -> Draft:
    """The rows of a context rank, which has a part of the tokens of every sequence (the last rank the largest) and gathers keys and values
    of all: an all-gather of each a layer, as Llama 3 was trained (arXiv 2407.21783, section 3.3.2); ring attention sends as many bytes.
    What works on the last token alone is with the last rank. `facts`: of the rows `d`.

    Raises ValueError where products other than of attention mix tokens, or sequences have fewer tokens than there are ranks.
    """
    tokens = usual_tokens(facts) // d.batch
    if usual_tokens(facts) % d.batch or tokens < ranks:
        raise ValueError(f"ranks: context is {ranks}; allowed for {d.name}: 1 to {tokens}, the tokens of a sequence")
    begin, end = part(tokens, ranks, ranks - 1 - rank)
    share = Fraction(end - begin, tokens)
    made = Draft(d.name, d.batch, [d.cached[0], d.cached[1] * float(share), d.cached[2] * float(share)])
    at: list[int] = []
    gathered: dict[int, int] = {}
    needed = _needed(d, facts)
    for i, row in enumerate(d.rows):
        row, feeds = dict(row), []
        mine = Fraction(int(rank == ranks - 1)) if d.tokens[i] == LAST else share
        if KINDS[row["kind"]] == "conv" or (
            facts.weighted[i] and facts.tokens[i] > usual_tokens(facts) and not facts.experts[i]
        ):
            raise ValueError(
                f"{d.names[i]}: mixes tokens, or works on more of them than pass; context ranks need attention alone to do so"
            )
        heads = facts.heads[i]
        for j, (source, nbytes) in enumerate(d.feeds[i]):
            first, second = (Fraction(1), Fraction(0)) if heads is None else heads.operands[j]
            if not second or facts.of_heads[source] is not None:
                feeds.append((at[source], nbytes * float(mine)))
                continue
            if source not in gathered:
                bits = d.rows[source]["out_bits"]
                made_row = collective_row("all_gather", max(needed[source], 1), ranks, bits=bits, rank_step=step)
                here = [(at[source], needed[source] * bits / 8 * float(share))]
                gathered[source] = made.add(f"{d.names[source]}.all_gather", made_row, here)
            of_first = float(first / (first + second))
            if first:
                feeds.append((at[source], nbytes * of_first * float(mine)))
            feeds.append((gathered[source], nbytes * (1 - of_first)))
        writes = d.writes[i] * float(share)
        if not mine:
            row = {**empty(row), "parameters": row["parameters"]}
            feeds = [(source, 0.0) for source, _ in feeds]
        elif mine != 1 and row["out_elements"]:
            _part_of_tokens(d, facts, i, row, mine)
        reads = d.reads[i] if row["kind"] == _ATTENTION else d.reads[i] * float(mine)  # the whole cache is looked at
        at.append(made.add(d.names[i], row, feeds, reads, writes, d.tokens[i]))
    return made


def _part_of_tokens(d: Draft, facts: Facts, i: int, row: dict, share: Fraction) -> None:
    whole = d.rows[i]
    if row["kind"] == _ATTENTION and facts.heads[i] is None:
        raise ValueError(
            f"{d.names[i]}: a product of two activations without heads that can be told; context ranks need them"
        )
    if row["kind"] < FIRST_COLLECTIVE and not shrink(row, share, ("p", "q")) and row["is_matrix"]:
        raise ValueError(f"{d.names[i]}: a share of {share} of its tokens is no whole number of rows")
    for each in ("lane_ops", "out_elements", "in_elements"):
        row[each] = round(row[each] * share)
    heads = facts.heads[i]
    if heads is not None:
        first = sum((a for a, _ in heads.operands), Fraction(0))
        row["in_elements"] = round(whole["in_elements"] - first * (1 - share))


def _needed(d: Draft, facts: Facts) -> list[int]:
    """Elements of each result that products of attention read as keys or values."""
    found = [Fraction(0)] * len(d.rows)
    for i, heads in enumerate(facts.heads):
        if heads is not None:
            for (_, second), (source, _) in zip(heads.operands, d.feeds[i], strict=True):
                found[source] += second
    return [min(round(n), row["out_elements"]) for n, row in zip(found, d.rows, strict=True)]


def usual_tokens(facts: Facts) -> int:
    """Tokens that most products with weights have."""
    counts: dict[int, int] = {}
    for i, weighted in enumerate(facts.weighted):
        if weighted and not facts.experts[i]:
            counts[facts.tokens[i]] = counts.get(facts.tokens[i], 0) + 1
    return max(counts, key=lambda n: counts[n]) if counts else facts.d.batch


def mark_last(facts: Facts) -> None:
    """Marks rows of fewer tokens than pass: they have the last one of each sequence (the head)."""
    usual = usual_tokens(facts)
    for i, tokens in enumerate(facts.tokens):
        if tokens < usual and not facts.experts[i]:
            facts.d.tokens[i] = LAST
