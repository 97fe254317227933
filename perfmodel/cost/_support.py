"""Which kinds of operators a type of chiplet can run at all."""

import numpy as np
from jaxtyping import Bool

from .._names import unknown_name
from ..hardware import System
from ..workload import KINDS


def supported(system: System) -> Bool[np.ndarray, "K N"]:
    """Whether each of the `K` chiplet types runs each of the kinds `KINDS`. Raises ValueError for a kind that does not exist."""
    able = np.ones((len(system.type_names), len(KINDS)), bool)
    for k, kinds in enumerate(system.runs):
        if kinds:
            for name in kinds:
                if name not in KINDS:
                    raise unknown_name(f"{system.name}: types.{system.type_names[k]}.operators", name, KINDS)
            able[k] = [kind in kinds for kind in KINDS]
    return able
