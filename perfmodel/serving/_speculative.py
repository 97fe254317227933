"""Speculative decoding: a small model drafts, the large one verifies several tokens in one pass (Leviathan et al., arXiv 2211.17192)."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def accepted_tokens(drafted, acceptance) -> Float[Array, ""]:
    """Tokens that a step yields in the mean: (1 - a^(k+1)) / (1 - a), from 1 (nothing accepted) to k + 1 (all); elementwise.

    `drafted`: k, `acceptance`: a, the chance that a drafted token is kept, each independent of the others.
    """
    some = jnp.minimum(acceptance, 1.0 - 1e-6)
    return jnp.where(acceptance >= 1.0 - 1e-6, drafted + 1.0, (1.0 - some ** (drafted + 1.0)) / (1.0 - some))


def speculative_tpot_s(verify_s, draft_s, drafted, acceptance) -> Float[Array, ""]:
    """Mean seconds between tokens of a sequence: a step is `drafted` passes of the draft model, one after another, and a pass of the
    large model over `drafted + 1` tokens (`verify_s`)."""
    return (drafted * draft_s + verify_s) / accepted_tokens(drafted, acceptance)
