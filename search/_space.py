"""What may be chosen: the chiplet type of each position, and the chiplet of each operator."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Int

from perfmodel import System


class Space(eqx.Module):
    """A package whose positions each take one of several chiplet types.

    - `system`: the package.  `types`: indices (into `system.type_names`) of the types allowed at every position.
    """

    system: System
    types: Int[Array, "K"]

    @classmethod
    def mix(cls, system: System, type_names) -> "Space":
        """Every position takes any of the named types. Raises ValueError for a type the system file does not declare."""
        names = list(dict.fromkeys(type_names))
        if not names:
            raise ValueError("Space.mix needs at least one chiplet type; got none")
        found = [system.with_types([name] * system.n_chiplets).kind[0] for name in names]
        return cls(system, np.asarray(found, np.int32))

    @classmethod
    def fixed(cls, system: System) -> "Space":
        """The chiplets as they stand: only the schedule is free."""
        return cls(system, np.zeros(0, np.int32))

    @property
    def is_fixed(self) -> bool:
        return self.types.size == 0

    @property
    def n_kinds(self) -> int:
        """Choices at every position."""
        return max(self.types.size, 1)

    def mix_name(self, kinds) -> str:
        """A chiplet mix in words: `3 ws + 1 os`."""
        names = [self.system.type_names[int(k)] for k in np.asarray(kinds)]
        counts = {name: names.count(name) for name in self.system.type_names if name in names}
        return " + ".join(f"{count} {name}" for name, count in counts.items())
