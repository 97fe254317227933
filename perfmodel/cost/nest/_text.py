"""A loop nest in words: one line a loop, from the outside in, with the memory each operand is fetched from as it turns."""

import numpy as np

from ...hardware import OPERANDS
from ._nest import DIMS, LoopNest

_LONG = {"G": "groups", "N": "batch", "K": "filters", "C": "channels", "P": "output rows", "Q": "output columns",
         "R": "filter rows", "S": "filter columns"}  # fmt: skip


def nest_text(nest: LoopNest, chains: dict[str, list[str]]) -> str:
    """One mapping (no trailing axes) as text.

    **Arguments:** `chains`: names of the memories of each operand, inner to outer.
    """
    dim, factor, level = (np.asarray(x) for x in (nest.dim, nest.factor, nest.level))
    lines, depth = [], 0
    width = max(len(name) for chain in chains.values() for name in chain) + 2
    for i in range(len(dim) - 1, -1, -1):
        if factor[i] <= 1:
            continue
        where = [chains[t][min(int(level[at, i]), len(chains[t]) - 1)] for at, t in enumerate(OPERANDS)]
        loop = f"{'  ' * depth}for {DIMS[dim[i]].lower()} in {factor[i]:g}"
        lines.append(
            f"{loop:32}"
            + "".join(f"{t} {name.removeprefix(t + ' '):{width}}" for t, name in zip(OPERANDS, where, strict=True))
        )
        depth += 1
    spatial_dim, spatial_factor = np.asarray(nest.spatial_dim), np.asarray(nest.spatial_factor)
    at_once = [f"{DIMS[d].lower()} {f:.4g}" for d, f in zip(spatial_dim, spatial_factor, strict=True) if f > 1]
    lines.append(f"{'  ' * depth}at once: {' x '.join(at_once) or 'one multiply-accumulate'}")
    used = sorted({int(d) for d in [*dim[factor > 1], *spatial_dim[spatial_factor > 1]]})
    legend = ", ".join(f"{DIMS[d].lower()} {_LONG[DIMS[d]]}" for d in used)
    return "\n".join([line.rstrip() for line in lines] + ([f"({legend})"] if legend else []))
