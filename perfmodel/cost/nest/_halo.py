"""Timeloop's count of a sliding input tile, reproduced: a walk over first and second iterations only.

Timeloop does not step through every tile. Its results are those of a walk that visits each loop above the tile at index 0
and at index 1, the latter standing for all later ones, and that credits the overlap with the tile before only while
the shift from tile to tile stays the same (inferred from its results; loop-nest reference of this project, section 1.5).
"""

import jax
import jax.numpy as jnp
import numpy as np

from ._nest import DIMS, WINDOW

_WALKED = 8  # loops above a tile that are walked; every step of a loop beyond them reloads the tile
_REST = tuple(DIMS.index(d) for d in "GNC")


def walked_words(problem, loops, rest, window, tile, batch):
    """Words of inputs that enter tile number `tile` (an index, per candidate) over the whole nest.

    **Arguments:** `loops`: (dim, factor, level) of the nest; `rest`, `window`: the tiles' sizes outside and inside the window.
    """
    dim, factor, level = (jnp.broadcast_to(x, (x.shape[0], *batch)) for x in (loops[0], loops[1], loops[2][1]))
    stride = jnp.broadcast_to(problem.stride, batch)
    size = [chosen(window[a], tile) for a in range(4)]
    side = [(size[0] - 1) * stride + size[2], (size[1] - 1) * stride + size[3]]
    words = chosen(rest, tile) * side[0] * side[1]

    real = (level >= tile) & (factor > 1)
    order = jnp.argsort(~real, axis=0, stable=True)
    dim, factor, real = (jnp.take_along_axis(x, order, axis=0) for x in (dim, factor, real))
    beyond = jnp.prod(jnp.where(real, factor, 1.0)[_WALKED:], axis=0)
    n = min(_WALKED, dim.shape[0])
    dim, factor = dim[:n], jnp.where(real[:n], factor[:n], 1.0)
    steps = _steps(dim, factor, real[:n], size, stride)
    # the flip of loop k sends every loop inside it from index 1 back to 0
    shifts = steps - jnp.concatenate([jnp.zeros_like(steps[:1]), jnp.cumsum(steps, axis=0)[:-1]])
    extent = jnp.stack([*[jnp.ones(batch)] * len(_REST), side[0], side[1]])
    overlap = jnp.prod(jnp.clip(1.0 - jnp.abs(shifts) / extent, 0.0, 1.0), axis=1)

    visits = np.arange(1, 2**n)
    digits = (visits[:, None] >> np.arange(n)) & 1
    flipped = np.argmax(digits, axis=1)

    def visit(state, now):
        moved, before, sliding = state
        digit, shift, shared = now
        weight = jnp.prod(jnp.where(digit.reshape(n, *(1,) * len(batch)) > 0, factor - 1.0, 1.0), axis=0)
        same = ~sliding | jnp.all(shift == before, axis=0)
        exists = weight > 0
        moved = moved + weight * jnp.asarray(jnp.where(same, 1.0 - shared, 1.0))
        before = jnp.where(exists & same, shift, before)
        return (moved, before, jnp.where(exists, same, sliding)), None

    start = (jnp.ones(batch), jnp.zeros_like(shifts[0]), jnp.zeros(batch, bool))
    (moved, *_), _ = jax.lax.scan(visit, start, (jnp.asarray(digits), shifts[flipped], overlap[flipped]))
    return words * moved * beyond


def _steps(dim, factor, real, size, stride):
    """How far one step of each loop moves the tile: in G, N, C (in tiles), rows and columns (in words)."""
    found = []
    done = {d: jnp.ones_like(stride) for d in (*_REST, *WINDOW)}
    for i in range(dim.shape[0]):
        here = {d: jnp.asarray(jnp.where((dim[i] == d) & real[i], reach, 0.0)) for d, reach in done.items()}
        p, q, r, s = [here[d] * jnp.asarray(size[a]) for a, d in enumerate(WINDOW)]
        found.append(jnp.stack([*(here[d] for d in _REST), p * stride + r, q * stride + s]))
        done = {d: jnp.asarray(jnp.where(dim[i] == d, value * factor[i], value)) for d, value in done.items()}
    return jnp.stack(found)


def chosen(values, index):
    """`values[index]` along the first axis, by selection: an index differs from candidate to candidate."""
    found = values[0]
    for i in range(1, values.shape[0]):
        found = jnp.where(index == i, values[i], found)
    return found
