"""The kernel that a library takes for a product: the fastest of several tiles and splits of the K loop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ._parts import fourth_power, fourth_root, settled_s

K_STEP = 64.0
# Thread-block tiles of cuBLAS and CUTLASS, and how many blocks may share one tile's K loop. Widths that are no power of
# two need the instructions that came with tensor copies (Hopper's wgmma takes any multiple of 8).
TILES = ((16, 64), (16, 128), (32, 64), (32, 128), (64, 64), (64, 128), (64, 256), (128, 64), (128, 128), (128, 256),
         (256, 128), (128, 160), (128, 192))  # fmt: skip
SPLITS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
TILE_M, TILE_N = np.array(TILES, float).T
ODD_WIDTH = np.log2(TILE_N) % 1 > 0
NEVER_S = 1e9


class Tiles(NamedTuple):
    """What each of `T` tiles is and takes: `rows` (height), `columns` (tiles beside each other); of a step of the K loop `tensor_s` on the
    tensor cores, `other_s` on operand path, loads and widening; `barred_s`: added where a GPU lacks the tile."""

    rows: Float[Array, "T"]
    columns: Float[Array, "T"]
    tensor_s: Float[Array, "T"]
    other_s: Float[Array, "T"]
    barred_s: Float[Array, "T"]


class Product(NamedTuple):
    """What is the same for all tiles. `E` groups of `heights` rows take part `parts` times each; `k`; `units`: multiprocessors.

    `slow`, `settle_s`: of the power limit.  `memory_s4`: fourth powers of the times of DRAM and L2, added up.  `launch_s` once, `wave_s` a
    wave; a split K loop is joined in `join_s` a split and `sync_s`.
    """

    heights: Float[Array, "E"]
    parts: Float[Array, "E"]
    k: Any
    units: Any
    slow: Any
    settle_s: Any
    memory_s4: Any
    launch_s: Any
    wave_s: Any
    join_s: Any
    sync_s: Any


def tiled_s(product: Product, tile: Any, split) -> Any:
    """Seconds with one tile (a `Tiles` of scalars) and split: blocks go to the multiprocessors in waves, the last one partly empty."""
    p = product
    blocks = jnp.sum(p.parts * jnp.ceil(p.heights / tile.rows)) * tile.columns * split
    waves = jnp.ceil(blocks / p.units)
    steps = waves * jnp.ceil(p.k / split / K_STEP)
    tensor_s = settled_s(steps * tile.tensor_s, p.slow, p.settle_s)
    busy_s = fourth_root(fourth_power(tensor_s) + fourth_power(steps * tile.other_s) + p.memory_s4)
    joined_s = jnp.where(split > 1, split * p.join_s + p.sync_s, 0.0)
    return p.launch_s + waves * p.wave_s + busy_s + joined_s + tile.barred_s


@jax.custom_jvp
def fastest_s(product: Product, tiles: Tiles) -> Float[Array, ""]:
    """Seconds with the best tile and split; the slope is that of the best one.

    A scan over tiles, so that in a large batch every candidate is a vectorised pass over numbers that stay in cache, not an axis to
    reduce: five times faster than all candidates as an array.
    """

    def step(best, tile):
        for split in SPLITS:
            best = jnp.minimum(best, tiled_s(product, tile, split))
        return best, None

    return lax.scan(step, _never(product), tiles)[0]


@fastest_s.defjvp
def _slope_of_the_fastest(primals, tangents):
    """A reverse pass through all candidates would keep them all; only the best one has a slope."""
    product, tiles = lax.stop_gradient(primals)

    def step(best, numbered):
        number, tile = numbered
        for i, split in enumerate(SPLITS):
            seconds = tiled_s(product, tile, split)
            better: Any = seconds < best[0]
            best = jnp.where(better, seconds, best[0]), jnp.where(better, number + i, best[1])
        return best, None

    numbers = jnp.arange(len(TILES)) * len(SPLITS)
    start = _never(product)
    (_, best), _ = lax.scan(step, (start, jnp.zeros_like(start, numbers.dtype)), (numbers, tiles))
    split = jnp.asarray(SPLITS)[best % len(SPLITS)]

    def chosen_s(product, tiles):
        return tiled_s(product, jax.tree.map(lambda x: x[best // len(SPLITS)], tiles), split)

    return jax.jvp(chosen_s, primals, tangents)


def _never(product: Product):
    """Slower than any, in the type that seconds have."""
    return jnp.full_like(product.memory_s4 + product.launch_s, 2 * NEVER_S)
