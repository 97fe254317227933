"""Degrees of parallelism of a model, and where a rank stands among them."""

from dataclasses import astuple, dataclass, fields
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Ranks:
    """How many ranks share a model, in which way; they stand in this order: tensor neighbours next to each other, then context, then data,
    then pipeline.

    - `tensor`: share every layer.  `sequence`: norms and residuals are shared out by tokens among them.
    - `context`: each has a part of every sequence's tokens.  `data`: each has some of the sequences.
    - `expert`: of tensor x data ranks, those that experts are dealt to; up to `tensor` within the tensor ranks, each expert cut in
      tensor / expert parts; beyond, replicas exchange tokens.
    - `pipeline`: each has some of the layers.
    """

    tensor: int = 1
    sequence: bool = False
    expert: int = 1
    context: int = 1
    pipeline: int = 1
    data: int = 1

    def __post_init__(self):
        for name in ("tensor", "expert", "context", "pipeline", "data"):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
                raise ValueError(f"ranks: {name} is {size!r}; allowed: an integer of at least 1")
        if not isinstance(self.sequence, bool):
            raise ValueError(f"ranks: sequence is {self.sequence!r}; allowed: True or False")
        inner, outer = sorted((self.tensor, self.expert))
        if outer % inner or (self.expert > self.tensor and (self.data * self.tensor) % self.expert):
            raise ValueError(
                f"ranks: expert is {self.expert}; allowed: divisors of the {self.tensor} tensor ranks, or multiples that divide "
                f"tensor x data = {self.tensor * self.data}"
            )

    @property
    def count(self) -> int:
        return self.tensor * self.context * self.data * self.pipeline

    @property
    def alone(self) -> bool:
        """Whether one rank has all."""
        return astuple(self) == tuple(field.default for field in fields(self)) or (self.count == 1 and self.expert == 1)

    @property
    def meeting(self) -> int:
        """Replicas whose tokens meet at the same experts."""
        return max(self.expert // self.tensor, 1)

    def at(self, rank: int) -> "Place":
        """Where a rank stands. Raises ValueError for one that there is not."""
        if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 0 <= rank < self.count:
            raise ValueError(f"rank is {rank!r}; allowed: 0 to {self.count - 1}")
        left, tensor = divmod(int(rank), self.tensor)
        left, context = divmod(left, self.context)
        stage, data = divmod(left, self.data)
        return Place(tensor, context, data, stage)


class Place(NamedTuple):
    """Of a rank."""

    tensor: int
    context: int
    data: int
    stage: int
