"""The quantities that sizes of a language model are products of, as functions of batch and sequence, on the host or in a trace.

Every leaf of a workload is a sum of products of a few quantities times constants: the batch `b`, the length `s`, the lesser of
them and a bound (a sliding window stops at its width, a state is there or not, two groups are held), and how many tokens the
experts get. All of them are exact for integers; between integers they are joined by straight lines.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

Feature = tuple[str, ...]  # the product of quantities, (): one


class Loads(NamedTuple):
    """Even loads of `count` experts, `chosen` of them a token; `tokens` of each sequence (0: as many as its length)."""

    count: int
    chosen: int
    tokens: int

    def pairs(self, batch, length):
        """Tokens at experts, a token `chosen` times."""
        return batch * (self.tokens or length) * self.chosen


class Pieces(NamedTuple):
    """`bends`: lengths beyond which something of a sequence stays as it is.  `loads`: of experts, or None."""

    bends: tuple[int, ...] = ()
    loads: Loads | None = None

    def exact(self, batch: int, length: int) -> dict[str, int]:
        """The quantities of integers."""
        found = {"b": batch, "s": length, "b2": min(batch, 2)} | {f"s{n}": min(length, n) for n in self.bends}
        if self.loads is not None:
            total = self.loads.pairs(batch, length)
            active = min(self.loads.count, total)
            found |= _loads(self.loads.count, total, active, total // active)
        return found

    def traced(self, batch, length) -> dict[str, Any]:
        """The quantities of scalars of a trace."""
        dtype = jnp.result_type(float)
        b, s = jnp.asarray(batch, dtype), jnp.asarray(length, dtype)
        found = {"b": b, "s": s, "b2": jnp.minimum(b, 2.0)} | {f"s{n}": jnp.minimum(s, float(n)) for n in self.bends}
        if self.loads is not None:
            # of integers as long as they are (exact up to 2^31), of float32 exact up to 2^24 pairs
            total = self.loads.pairs(*(jnp.asarray(x) for x in (batch, length)))
            active = jnp.minimum(total, self.loads.count)
            least = total // active
            least = (
                least + (total - (least + 1) * active >= 0) - (total - least * active < 0)
            )  # a quotient may be rounded
            found |= _even(_loads(self.loads.count, total, active, least), total, active, dtype)
        return found


# The experts that get one token more than the others, and tokens of each; the others; those whose weights are stored with the
# others, idle ones among them; and 1 where no expert gets more.
MORE, MORE_TOKENS, FEWER, FEWER_TOKENS, STORED, NOBODY = (
    "more", "more_tokens", "fewer", "fewer_tokens", "stored", "nobody"
)  # fmt: skip


def _loads(count, total, active, least) -> dict[str, Any]:
    """The two loads of `expert_loads` without imbalance: `total` over `active` experts, `least` each or one more."""
    more = total - least * active
    return {MORE: more, MORE_TOKENS: least + 1, FEWER: active - more, FEWER_TOKENS: least, STORED: count - more}


def _even(loads: dict[str, Any], total, active, dtype) -> dict[str, Any]:
    """The same in a trace. Derivatives are those of a token spread evenly over the experts at work (or of one expert more at work),
    as experts come and go between the two loads: those of all sums are the same, and none is lost with a row of nobody."""
    fixed = {name: lax.stop_gradient(jnp.asarray(x, dtype)) for name, x in loads.items()}
    total, active = jnp.asarray(total, dtype), jnp.asarray(active, dtype)
    mean = total / active
    more_tokens, at_work = mean - lax.stop_gradient(mean), active - lax.stop_gradient(active)
    moving = {MORE_TOKENS: more_tokens, FEWER_TOKENS: more_tokens, FEWER: at_work}
    nobody = jnp.where(fixed[MORE] > 0, 0.0, 1.0)
    return {name: x + moving.get(name, 0.0) for name, x in fixed.items()} | {NOBODY: nobody}


def product(feature: Feature, quantities: dict[str, Any]):
    """The value of a feature."""
    value = 1
    for name in feature:
        value = value * quantities[name]
    return value
