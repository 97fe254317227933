"""A model sampled: which sum of products each of its numbers is, and the workload of `load` from them."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from .._names import unknown_name
from ..workload import Operators, Workload
from ..workload._fold import Folding, folding
from ..workload._graph import assemble
from ..workload._operators import DIMS
from ._interpolation import Sums, interpolated
from ._leaves import by_input
from ._load import known_options, load
from ._pieces import FEWER, FEWER_TOKENS, MORE, MORE_TOKENS, STORED, Feature, Pieces
from ._samples import OF_MODELS, OF_OPERATORS, OF_ROWS, batches, lengths, longest, numbers, of_length, pieces, unlike

_SEQUENCE = {"decode": "context", "prefill": "seq_len", "train": "seq_len"}
_LOAD = re.compile(r"\.load(\d+)(?=\.|$)")  # rows of experts are named by their tokens
_MORE, _FEWER = ".more", ".fewer"
_EITHER = re.compile(r"\.(more|fewer)(?=\.|$)")
_OF_LOADS: tuple[Feature, ...] = (
    (MORE,), (MORE_TOKENS,), (MORE, MORE_TOKENS), (FEWER,), (FEWER_TOKENS,), (FEWER, FEWER_TOKENS), (STORED,),
)  # fmt: skip
_ONE_GRAPH = "is another graph at another batch or length; a family is one graph"
_INTEGERS = (*DIMS, "stride", "kind")
_LARGEST = 2**31 - 1


class Sampled(NamedTuple):
    """A model sampled. `of`: of each number the sum that it is, by name; see `Leaves` for the others."""

    load: Callable[[int, int], Workload]
    sequence: str | None
    least: int
    most: int
    template: Workload
    sums: Sums
    of: dict[str, np.ndarray]
    means: dict[str, np.ndarray]
    more: np.ndarray | None
    pieces: Pieces

    @property
    def needs_length(self) -> bool:
        by_length = np.asarray([any(q.startswith("s") or q == MORE for q in f) for f in self.sums.features])
        return self.sequence is not None and bool((self.sums.table[:, by_length] != 0).any())

    def present(self, batch: int, length: int) -> np.ndarray:
        """Rows that `load` has, `[L]` bool."""
        if self.more is None:
            return np.ones(self.template.n_operators, bool)
        return ~self.more | (self.pieces.exact(batch, length)[MORE] > 0)

    def at(self, batch: int, length: int) -> Workload | None:
        """The workload of `load`; None where sizes leave int32."""
        values, rows = self.sums.exact(self.pieces.exact(batch, length)), self.present(batch, length)
        of = {name: values[index] for name, index in self.of.items()}
        for name, means in self.means.items():
            side = name.removesuffix("_bits")
            of[name] = np.where(means, of[f"{side}_total"] / np.maximum(of[f"{side}_elements"], 1), of[name])
        if max(of[name].max() for name in DIMS) > _LARGEST:
            return None
        w, place = self.template, np.cumsum(rows) - 1
        columns = {name: of[name][rows] for name in OF_OPERATORS}
        operators = Operators(**{n: c.astype(np.int32) if n in _INTEGERS else c for n, c in columns.items()})
        kept = rows[w.source] & rows[w.target]
        edges = list(zip(place[w.source[kept]], place[w.target[kept]], of["edge_bytes"][kept], strict=True))
        read = np.isin(np.arange(w.n_operators), w.source)
        forced = of["outside_out_bytes"] - np.where(read, 0.0, of["out_total"] / 8)
        return assemble(
            operators, edges, w.model[rows], of["outside_in_bytes"][rows], forced[rows], w.rate, of["inferences"],
            np.stack([of[name] for name in OF_MODELS[1:]]), self._names(batch, length, rows), w.model_names, w.mix,
        )  # fmt: skip

    def _names(self, batch: int, length: int, rows: np.ndarray) -> tuple[str, ...]:
        names = [n for n, here in zip(self.template.names, rows, strict=True) if here]
        if self.more is None:
            return tuple(names)
        at = self.pieces.exact(batch, length)
        both = at[MORE] > 0
        ends = {_MORE: f".load{at[MORE_TOKENS]}", _FEWER: f".load{at[FEWER_TOKENS]}" if both else ""}
        return tuple(_EITHER.sub(lambda found: ends[found[0]], n) for n in names)


def alike(f: Sampled, ends: int) -> Folding:
    """Rows that are alike at every batch and length: whose numbers are the same sums."""
    w, of = f.template, f.of
    same = {name: of[name] for name in OF_OPERATORS}
    for name, means in f.means.items():
        same[name] = np.where(means, -1 - of[f"{name.removesuffix('_bits')}_total"], of[name])
    numbered = replace(
        w, operators=Operators(**same), edge_bytes=of["edge_bytes"], input_bytes=by_input(w, of["edge_bytes"], -1),
        **{name: of[name] for name in ("outside_in_bytes", "outside_out_bytes", "hold_bytes", "live_bytes")},
    )  # fmt: skip
    return folding(numbered, ends=ends)


def sampled(name: str, phase: str, options: tuple) -> Sampled:
    """A model sampled in a phase, with options as sorted pairs; what it raises, see `family`. First the least degree is tried."""
    known, given = known_options(name), dict(options)
    if phase not in _SEQUENCE:
        raise unknown_name(f"{name}: phase", phase, _SEQUENCE)
    sequence = _SEQUENCE[phase] if _SEQUENCE[phase] in known else None
    for option in ("batch", _SEQUENCE[phase]):
        if option in given:
            raise ValueError(f"{name}: {option} is {given[option]!r}; a family is called with it")

    def build(batch: int, length: int) -> Workload:
        return load(name, batch=batch, phase=phase, **given, **({sequence: length} if sequence else {}))

    of = pieces(name, phase, given) if sequence else Pieces()
    if of.loads is not None and given.get("imbalance"):
        raise ValueError(f"{name}: imbalance is {given['imbalance']}; allowed in a family: 0, even loads")
    if of.loads is not None and phase == "train":
        raise ValueError(
            f"{name}: phase is 'train'; allowed in a family with experts: decode, prefill (gradients are rows of every load)"
        )
    if len(batches(of.loads, 4)) < 4:  # all experts always have as many tokens
        of = of._replace(loads=None)
    least = 0 if phase == "decode" else 1
    most = longest(build, batches(of.loads, 1)[0], of.bends) if sequence else 1
    of = of._replace(bends=tuple(n for n in of.bends if n < most))
    for degree in (1, 2):
        nodes, features, held = _design(of, phase, degree, least, most, bool(sequence))
        single = [*(_OF_LOADS if of.loads else ()), *held]
        fitted = _fitted(
            name, [build(*node) for node in nodes], [of.exact(*node) for node in nodes], features, single, degree
        )
        if fitted is not None:
            found = Sampled(build, sequence, least, most, *fitted, of)
            _check_loads(found)
            return found
    raise AssertionError("the last degree raises")


def _check_loads(found: Sampled) -> None:
    """Where experts are idle, and where all have as many tokens, the graph has fewer rows: is it the same otherwise?"""
    loads = found.pieces.loads
    if loads is None:
        return
    for batch in (1, loads.count):
        if not _equal(found.at(batch, found.least), found.load(batch, found.least)):
            raise ValueError(f"{found.template.model_names[0]}: {_ONE_GRAPH}")


def _equal(a: Workload | None, b: Workload) -> bool:
    (one, names), (other, others) = (jax.tree.flatten(w) for w in (a, b))
    return names == others and all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


def _design(of: Pieces, phase: str, degree: int, least: int, most: int, sequence: bool):
    """Points to sample at, those for the sums first, then those that they must meet; features; features of what holds two groups."""
    by_length = of_length(of.bends, phase, degree) if sequence else [()]
    at = batches(of.loads, degree + 2)
    points = lengths(of, by_length, at[:-1], least, most) if sequence else [1]
    nodes = [(b, s) for b in at[:-1] for s in points]
    for b in (at[0], at[-1]):
        nodes.append((b, next((s for s in range(most, 0, -1) if unlike(of.loads, b, s)), points[0])))
    nodes.append((at[-1], points[0]))
    features = [(*("b",) * n, *s) for n in range(degree + 1) for s in by_length]
    return nodes, features, [("b2", *s) for s in by_length]


def _fitted(
    name: str, made: list[Workload], quantities: list[dict], features: list[Feature], single: list[Feature], degree: int
):
    """(template, sums, the sum of each number by name, rows that are means, rows of `MORE`) of samples; None where the degree is too low.

    Raises ValueError where graphs differ, or a number is no sum of degree 2 either."""
    template = made[-1]
    labels = [_canonical(w, at) for w, at in zip(made, quantities, strict=True)]
    for w, names in zip(made, labels, strict=True):
        same = all(np.array_equal(getattr(w, edge), getattr(template, edge)) for edge in ("source", "target"))
        if names != labels[-1] or not same:
            raise ValueError(f"{name}: {_ONE_GRAPH}")
    told = [numbers(w) for w in made]
    means = {}
    for side in ("in_bits", "out_bits"):
        means[side] = np.any([n[side] != told[0][side] for n in told], axis=0)
        for n in told:
            n[side] = np.where(means[side], 0.0, n[side])
    where, samples = {}, np.stack([np.concatenate([n[key] for key in told[0]]) for n in told])
    for key, value in told[0].items():
        begin = sum(len(told[0][k]) for k in where)
        where[key] = slice(begin, begin + len(value))
    try:
        sums, met = interpolated(quantities, samples, features, single)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not met.all():
        if degree == 1:
            return None
        key, at = next((key, np.flatnonzero(~met[at])[0]) for key, at in where.items() if not met[at].all())
        which = f" of {template.names[at]}" if key in OF_ROWS else ""
        raise ValueError(
            f"{name}: {key}{which} is no product of batch and length, or of the lesser of length and a known bound"
        )
    index = {key: sums.index[at] for key, at in where.items()}
    more = np.asarray([_MORE in n for n in labels[-1]])
    template = replace(template, names=labels[-1])
    sums, index["parameters"] = _stored(sums, index["parameters"])
    sums, index["hold_bytes"] = _held(sums, template, index)
    sums, index["live_bytes"] = _live(sums, template, index["hold_bytes"])
    return template, sums, index, means, more if more.any() else None


def _canonical(w: Workload, at: dict[str, int]) -> tuple[str, ...]:
    """Names of rows; of experts whether they have one token more than the others, not how many."""
    if MORE not in at:
        return w.names
    ends = {str(at[MORE_TOKENS]): _MORE, str(at[FEWER_TOKENS]): _FEWER}
    return tuple(_LOAD.sub(lambda found: ends.get(found[1], found[0]), n) for n in w.names)


def _stored(sums: Sums, of: np.ndarray) -> tuple[Sums, np.ndarray]:
    """Of stored weights those of idle experts lie with the experts that have fewer tokens; in the samples nobody was idle."""
    if (FEWER,) not in sums.features:
        return sums, of
    from_, to = sums.features.index((FEWER,)), sums.features.index((STORED,))
    rows = sums.table[of].copy()
    rows[:, to], rows[:, from_] = rows[:, to] + rows[:, from_], 0
    return sums.added(rows)


def _held(sums: Sums, w: Workload, of: dict[str, np.ndarray]) -> tuple[Sums, np.ndarray]:
    """Two groups are held where there are two: of rows with a group a sequence as many as the batch has, in the samples two."""
    place = {feature: k for k, feature in enumerate(sums.features)}
    a_sequence = np.zeros(len(sums.features), object)
    a_sequence[place["b",]] = sums.denominator
    streamed = (w.hold_bytes > 0) & (w.hold_bytes < w.operators.out_elements * w.operators.out_bits / 8)
    rows = sums.table[of["hold_bytes"]] * 2
    for i in np.flatnonzero(streamed):
        if (sums.table[of["groups"][i]] == a_sequence).all():
            for feature in [f for f in sums.features if "b" not in f and "b2" not in f and ("b2", *f) in place]:
                rows[i, place["b2", *feature]], rows[i, place[feature]] = rows[i, place[feature]] // 2, 0
    return sums._replace(table=sums.table * 2, denominator=sums.denominator * 2).added(rows)


def _live(sums: Sums, w: Workload, held: np.ndarray) -> tuple[Sums, np.ndarray]:
    """All that is held while a row runs, from its producer to its last reader."""
    last = np.arange(w.n_operators)
    np.maximum.at(last, w.source, w.target)
    change = np.zeros((w.n_operators + 1, len(sums.features)), object)
    for row, rows in enumerate(sums.table[held]):
        change[row] += rows
        change[last[row] + 1] -= rows
    return sums.added(np.cumsum(change, axis=0)[:-1])
