"""What an ONNX graph is traced into: values with concrete shapes, and operators that make them, in a flat list."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

MOST_ELEMENTS = 2**62  # of one tensor
MOST_AXES = 32
FOLDED = 65_536  # elements of a constant that are kept and computed with

# ONNX element types (TensorProto.DataType) by number: name and bits. A string is moved as a pointer.
UNDEFINED, FLOAT, UINT8, INT8, INT32, INT64, STRING, BOOL, FLOAT16 = 0, 1, 2, 3, 6, 7, 8, 9, 10
BITS = {
    0: 32, 1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 8: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2, 27: 6, 28: 6,
}  # fmt: skip
FLOATS = {1, 10, 11, 14, 15, 16, 17, 18, 19, 20, 23, 24, 27, 28}
QUANTISED = {2, 3, 4, 5, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 28}  # what weights and activations are quantised to
NUMPY = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
    11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip


class NeedsElements(ValueError):
    """A shape depends on elements that the file does not have."""


Made = list[tuple[tuple[int, ...], int]]  # shape and element type of each result


@dataclass(slots=True, eq=False)
class Root:
    """Stored elements: an initialiser or a constant. `given`: written down in the file, not computed from a shape."""

    name: str
    elements: int  # stored (those of a sparse initialiser: not zero)
    elem: int
    size: int  # of the tensor
    given: bool = True


@dataclass(slots=True, eq=False)
class Value:
    """A tensor. Static: known when the file is loaded; its elements `array` where it is small, the `roots` it is made of.

    `computed`: static by arithmetic, not by moving stored elements. `items`: a sequence (of values) instead of a tensor.
    """

    name: str
    shape: tuple[int, ...]
    elem: int = FLOAT
    static: bool = False
    array: np.ndarray | None = None
    roots: tuple[Root, ...] = ()
    computed: bool = False
    items: "list[Value] | None" = None
    maker: "Op | None" = None
    readers: "list[Op]" = field(default_factory=list)
    returned: bool = False  # an output of the model

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def is_scalar(self) -> bool:
        """One element, known when the file is loaded."""
        return self.static and self.size == 1


@dataclass(slots=True, eq=False)
class Op:
    """One node. `times`: how often it runs (the body of a loop that is not unrolled)."""

    kind: str
    label: str
    attributes: dict[str, Any]
    inputs: list[Value | None]
    outputs: list[Value] = field(default_factory=list)
    times: int = 1
    opset: int = 99

    def input(self, index: int) -> Value | None:
        """An input, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def needed(self, index: int) -> Value:
        value = self.input(index)
        if value is None:
            raise ValueError(f"input {index} is missing")
        return value

    def shape(self, index: int) -> tuple[int, ...]:
        return self.needed(index).shape

    def elements(self, index: int) -> np.ndarray:
        """Elements of an input that a shape depends on."""
        value = self.needed(index)
        if value.array is None:
            raise NeedsElements(
                f"the result's shape depends on the elements of {value.name!r}, which are not in the file"
            )
        return value.array

    def optional_integers(self, name: str, index: int | None = None) -> list[int] | None:
        """Integers from an attribute or (in later opsets) an input, None where there is neither."""
        found = self.attributes.get(name)
        if found is None and index is not None and self.input(index) is not None:
            found = self.elements(index)
        if found is None:
            return None
        numbers = np.asarray(found).reshape(-1)
        if numbers.size > FOLDED or not np.isfinite(numbers.astype(np.float64)).all():
            raise ValueError(f"{name} is not a list of integers")
        return [int(n) for n in numbers]

    def integers(self, name: str, index: int | None = None, default: Sequence[int] = ()) -> list[int]:
        """As `optional_integers`, `default` where there is neither."""
        found = self.optional_integers(name, index)
        return list(default) if found is None else found

    def integer(self, name: str, default: int) -> int:
        found = self.attributes.get(name, default)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise ValueError(f"attribute {name} is not an integer")
        return int(found)

    def text(self, name: str, default: str) -> str:
        found = self.attributes.get(name, default)
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)


Rule = Callable[[Op], Made]  # shapes and element types of an operator's results


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is none of a tensor of rank {rank}")
    return axis % rank


def checked(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape with sizes that can be."""
    if len(shape) > MOST_AXES:
        raise ValueError(f"{len(shape)} axes; allowed: at most {MOST_AXES}")
    made = tuple(int(size) for size in shape)
    if any(size < 0 for size in made):
        raise ValueError(f"shape {made} has a negative size")
    if prod(made) >= MOST_ELEMENTS:
        raise ValueError(f"shape {made} has more than 2**62 elements")
    return made


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape, by the rules of NumPy."""
    rank = max((len(shape) for shape in shapes), default=0)
    made = [1] * rank
    for shape in shapes:
        for i, size in enumerate(shape, rank - len(shape)):
            if made[i] == 1:
                made[i] = size
            elif size not in (1, made[i]):
                raise ValueError(f"shapes {', '.join(str(tuple(s)) for s in shapes)} do not go together")
    return tuple(made)


def axes_of(op: Op, rank: int, index: int | None = 1) -> list[int] | None:
    """Axes from an attribute or input, counted from the front and sorted; None where none are named."""
    found = op.optional_integers("axes", index)
    return None if found is None else sorted({axis_of(axis, rank) for axis in found})


def with_rank(op: Op, rank: int, index: int = 0) -> tuple[int, ...]:
    """The shape of an input that must have so many axes."""
    if len(op.shape(index)) != rank:
        raise ValueError(f"input {index} has shape {op.shape(index)}; expected {rank} axes")
    return op.shape(index)
