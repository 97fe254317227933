"""Small numerical pieces shared by all floors: smooth maxima, ceilings, steps and safe division.

`smooth` is always a static flag: it changes the program. `temperature` is always traced: annealing never recompiles.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def safe_divide(numerator, denominator, otherwise=0.0):
    """`numerator / denominator`, `otherwise` where the denominator is not positive; finite values and gradients."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1.0), otherwise)


def ceil_divide(numerator, denominator, smooth: bool = False):
    """`ceil(numerator / denominator)` of positive sizes, at least 1.

    Smooth: half way between the bounds a/b and (a+b-1)/b, so off by at most (1 - 1/b)/2.
    """
    ratio = numerator / denominator
    if smooth:
        return jnp.maximum(ratio + 0.5 * (1.0 - 1.0 / jnp.maximum(denominator, 1.0)), 1.0)
    count = jnp.ceil(ratio)
    # XLA divides by a constant by multiplying with its reciprocal, which may land just above a whole number
    return jnp.maximum(jnp.where((count - 1.0) * denominator >= numerator, count - 1.0, count), 1.0)


@jax.custom_jvp
def ceil_through(x):
    """`ceil(x)`, elementwise; a millionth above a whole number is that number. Its derivative is that of `x` (straight through)."""
    return jnp.ceil(x - 1e-6)


@ceil_through.defjvp
def _ceil_through_jvp(primals, tangents):
    return ceil_through(*primals), tangents[0]


def relative_max(values: Float[Array, "N"], temperature=0.05, smooth: bool = False) -> Float[Array, ""]:
    """Largest of non-negative values.

    Smooth: log-sum-exp of their logarithms, so the temperature is relative and 1 ns behaves as 1 s;
    max <= result <= max * N**temperature.
    """
    if not smooth:
        return jnp.max(values)
    tiny = jnp.finfo(values.dtype).tiny
    logs = jnp.log(jnp.maximum(values, 1e3 * tiny))
    return jnp.exp(temperature * jax.nn.logsumexp(logs / temperature))


def fits(need, capacity, temperature=0.05, smooth: bool = False):
    """1 where `need <= capacity`, else 0. Smooth: logistic in the relative excess; 1/2 at the boundary."""
    if not smooth:
        return jnp.where(need <= capacity, 1.0, 0.0)
    return jax.nn.sigmoid((1.0 - need / jnp.maximum(capacity, 1e-30)) / temperature)


def frozen(tree):
    """The same tree; its NumPy arrays can no longer be written to (change a copy, `equinox.tree_at`), so what is made of it can be kept."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, np.ndarray):
            leaf.flags.writeable = False
    return tree


def varying_with(start, tree):
    """`start`, the initial carry of a scan over `tree`, varying over the same axes of a `shard_map` as `tree` does; elsewhere as it is."""
    axes = set().union(*(getattr(jax.typeof(leaf), "vma", ()) for leaf in jax.tree.leaves(tree)))

    def cast(x):
        more = tuple(axes - set(getattr(jax.typeof(x), "vma", ())))
        return jax.lax.pcast(x, more, to="varying") if more else x

    return jax.tree.map(cast, start) if axes else start
