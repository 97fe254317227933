"""Arrays of an imported program: where their elements lie, so that reshaping, slicing, splitting and concatenating cost nothing."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

OUTSIDE, LOOP, LEAF = -1, -2, -3  # sources of parts that are no rows; LEAF - n is the n-th parameter array


class Part(NamedTuple):
    """Elements that lie in one place: the result of row `source`, memory (`OUTSIDE`), the previous pass of a loop (`LOOP`), or
    a parameter array (`LEAF - n`) of which `key` names the slice; `stack` slices of it, one a pass, in a folded loop."""

    source: int
    elements: int
    bits: float = 0.0
    key: tuple | None = ()
    stack: int = 1


class Value(NamedTuple):
    """An array: `parts` say where it lies, none: a constant (masks, counters), which costs nothing.

    `kind`: "float", "complex", "int" or "bool". `const`: the value of a scalar known on the host. `items`: the slices along
    the first axis where they were made one by one (outputs of a loop). `moved`: its axes were permuted and nobody copied yet.
    """

    shape: tuple[int, ...]
    kind: str
    bits: float
    parts: tuple[Part, ...] = ()
    const: object = None
    items: tuple["Value", ...] = ()
    moved: bool = False

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def is_weight(self) -> bool:
        """Whether it is made of parameters only, through views."""
        return bool(self.parts) and all(part.source <= LEAF for part in self.parts)

    @property
    def rows(self) -> list[int]:
        return [part.source for part in self.parts if part.source >= 0]


def joined(values: Sequence[Value]) -> tuple[Part, ...]:
    """Parts of all values, those of one place together."""
    found: dict[tuple, int] = {}
    for part in (part for value in values for part in parts_of(value)):
        place = (part.source, part.bits, part.key, part.stack)
        found[place] = found.get(place, 0) + part.elements
    return tuple(Part(source, n, bits, key, stack) for (source, bits, key, stack), n in found.items())


def parts_of(value: Value) -> tuple[Part, ...]:
    return joined(value.items) if value.items else value.parts


def scaled(parts: Iterable[Part], up: int, down: int = 1) -> tuple[Part, ...]:
    """`up / down` of the elements of every part, at least one."""
    return tuple(part._replace(elements=max(1, part.elements * up // down)) for part in parts)


def keyed(parts: Iterable[Part], key: object) -> tuple[Part, ...]:
    """The parts of a slice that `key` tells from other slices; None: it cannot be told which slice."""
    return tuple(
        part._replace(key=None if key is None or part.key is None else (*part.key, key))
        if part.source <= LEAF
        else part
        for part in parts
    )


def flat(value: Value) -> Value:
    """The value as parts, where it is a stack of items."""
    return value._replace(parts=parts_of(value), items=()) if value.items else value
