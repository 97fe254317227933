"""A call of a PyTorch operator: its arguments by name, values of its tensors, what it makes."""

from collections.abc import Sequence
from dataclasses import dataclass

from .._sketch import Sketch
from .._sketch_ops import vector
from .._sketch_value import Value, scaled
from ._read import Argument


@dataclass
class Call:
    """`name`: without overload and underscores. `outs`: blank values of all results. Raises KeyError for what is missing."""

    sketch: Sketch
    name: str
    label: str
    arguments: dict[str, Argument]
    env: dict[str, Value]
    outs: list[Value]

    def maybe(self, *names: str) -> Value | None:
        """The tensor of the first of `names` that is given."""
        for name in names:
            argument = self.arguments.get(name)
            if argument and argument.as_tensor:
                return self.env[argument.as_tensor.name]
            if argument and argument.as_optional_tensor and argument.as_optional_tensor.as_tensor:
                return self.env[argument.as_optional_tensor.as_tensor.name]
        return None

    def value(self, *names: str) -> Value:
        found = self.maybe(*names)
        if found is None:
            raise KeyError(names[0])
        return found

    def values(self, *names: str) -> list[Value]:
        """A list of tensors; without names: all tensors of the call."""
        found = []
        for name, argument in self.arguments.items():
            if names and name not in names:
                continue
            optional = [argument.as_optional_tensor] if argument.as_optional_tensor else []
            several = [
                *([argument.as_tensor] if argument.as_tensor else []), *(argument.as_tensors or []),
                *(item.as_tensor for item in [*optional, *(argument.as_optional_tensors or [])] if item.as_tensor),
            ]  # fmt: skip
            found += [self.env[tensor.name] for tensor in several]
        return found

    def numbers(self, name: str, default: Sequence[int] = ()) -> list[int]:
        argument = self.arguments.get(name)
        if argument is None:
            return list(default)
        if argument.as_ints is not None:
            return argument.as_ints
        if argument.as_sym_ints is not None:
            return [item.as_int for item in argument.as_sym_ints if item.as_int is not None]
        return list(default) if argument.as_int is None else [argument.as_int]

    def number(self, name: str, default: int = 0) -> int:
        return next(iter(self.numbers(name)), default)

    def flag(self, name: str, default: bool | int = False) -> bool:
        argument = self.arguments.get(name)
        return bool(default) if argument is None or argument.as_bool is None else argument.as_bool

    def text(self, name: str) -> str:
        argument = self.arguments[name]
        if argument.as_string is None:
            raise KeyError(name)
        return argument.as_string

    def fan(self, made: Value) -> list[Value]:
        """Several results of one row."""
        total = max(1, sum(out.elements for out in self.outs))
        return [
            out._replace(parts=scaled(made.parts, out.elements, total) if out.elements else ()) for out in self.outs
        ]

    def unknown(self, said: str = "") -> list[Value]:
        """Everything read and everything written, nothing computed."""
        if said:
            self.sketch.warn(said)
        whole = self.outs[0]._replace(shape=(sum(out.elements for out in self.outs),))
        return self.fan(vector(self.sketch, self.label, "copy", self.values(), whole))
