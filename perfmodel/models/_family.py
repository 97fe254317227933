"""A model at any batch and length: `family(name)` is sampled once, and is then a `Workload` whose leaves may be traced."""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np

from ..workload import Workload
from ..workload._fold import Folding, folded
from ._leaves import Leaves, leaves_of
from ._load import names
from ._sampled import Sampled, alike, sampled


def family(name: str, *, phase: str = "decode", fold: bool = False, ends: int = 0, **options) -> "Family":
    """A model by its name or a Hugging Face configuration, at any batch and context: `family(name)(batch, context)`.

    **Arguments:**
    - `phase`: what `context` means. `decode`: tokens in the cache before the new one, `load(phase="decode", context=...)` and
      `serve --phase decode --context`. `prefill`: tokens of the prompt, `load(phase="prefill", seq_len=...)` and
      `serve --phase prefill --context`. `train`: tokens of a sequence, `seq_len`.
    - `fold`: layers that are equal are one, with `count` (`perfmodel.workload.fold`); `ends`: first and last ones stay apart.
    - `options`: those of `load` but batch and that length; in decode `seq_len` is the number of new tokens a sequence (a
      draft that is verified), in prefill `context` that of tokens in the cache before the prompt.

    Integers give the workload of `load`, NumPy leaves and all. Anything else gives JAX arrays where a leaf depends on batch or
    context, sizes as floats too (of the same value): it works under `jit`, `vmap` and `grad`, also at fractions. A leaf is a
    sum of products of batch and context, of the lesser of context and a bound (a sliding window; 1 where a recurrent state
    is carried) and of the tokens at experts, exact at integers; in float32 within 1e-6 of itself. With experts, those that have
    one token more than the others are rows of their own (`.more`, `.fewer`), whose `count` is 0 where all have as many.

    The sums are found by sampling `load` at some points, exactly, and hold at others that are tried, up to a context of 100,003 or the
    longest that learned positions allow: some 0.1 to 0.5 s a model (kept for names of the zoo).

    Raises ValueError for what `load` does not take, for experts with `imbalance`, and where a model is no such sum, naming what is not.
    """
    made = _kept if name in names() else _made
    return made(name, phase, bool(fold), ends, tuple(sorted(options.items())))


class Family:
    """A model at any batch and context; see `family`. `leaves`: what it is in a trace, as a pytree."""

    def __init__(self, name: str, phase: str, found: Sampled, by: Folding | None):
        self.name, self.phase = name, phase
        self._sampled, self._by = found, by
        f = found
        self.leaves: Leaves = leaves_of(f.template, f.sums, f.of, f.means, f.more, f.pieces, by)

    def __repr__(self) -> str:
        return f"Family({self.name!r}, phase={self.phase!r}, operators={self.leaves.template.n_operators})"

    def __call__(self, batch, context=None) -> Workload:
        """The workload at a batch and a context, scalars each. Raises ValueError for arrays (use `jax.vmap`), a context where there is
        none or none where there is one, and integers that `load` does not take."""
        f = self._sampled
        if context is None:
            if f.needs_length:
                raise ValueError(f"{self.name}: context is missing; allowed: a number of tokens")
            context = max(f.least, 1)
        elif f.sequence is None:
            raise ValueError(f"{self.name}: context is given; it has none, batch is all it depends on")
        for what, value in (("batch", batch), ("context", context)):
            if jnp.ndim(value):
                raise ValueError(
                    f"{self.name}: {what} has shape {jnp.shape(value)}; allowed: a scalar (jax.vmap for many)"
                )
        if isinstance(batch, int | np.integer) and isinstance(context, int | np.integer):
            return self._exact(batch, context)
        return self.leaves(batch, context)

    def _exact(self, batch, context) -> Workload:
        f = self._sampled
        inside = not isinstance(batch, bool) and batch >= 1 and f.least <= context <= f.most
        w = f.at(int(batch), int(context)) if inside else None
        w = f.load(batch, context) if w is None else w  # says what is wrong, or goes where nothing was tried
        return w if self._by is None else folded(w, self._by.only(f.present(int(batch), int(context))))


def _made(name: str, phase: str, fold: bool, ends: int, options: tuple) -> Family:
    found = sampled(name, phase, options)
    return Family(name, phase, found, alike(found, ends) if fold else None)


@lru_cache(maxsize=64)
def _kept(name: str, phase: str, fold: bool, ends: int, options: tuple) -> Family:
    return _made(name, phase, fold, ends, options)
