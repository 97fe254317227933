"""Speculative decoding: a small model drafts, the large one verifies several tokens in one pass (Leviathan et al., arXiv 2211.17192)."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._llm import Serving


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


def speculated(
    verify: Serving, draft: Serving | None, *, batch, drafted, acceptance, draft_share=1.0, idle_w=0.0
) -> Serving:
    """Figures of decode with a draft model, of those of both models' passes (`serve`); elementwise.

    **Arguments:** `verify`: of a pass over `drafted + 1` tokens.  `draft`: of a pass over one; None: drafting takes nothing.
    `draft_share`: of the devices that draft; `idle_w`: of all others meanwhile.

    `mbu`, `mfu`, `power_w` are means over a step, `busy_s` its sum; operations on tokens that are not kept count as done. Energy and time
    are those of a step over the tokens that it yields.
    """
    yields = batch * accepted_tokens(drafted, acceptance)
    step_s, joules = verify.tpot_s, verify.power_w * verify.tpot_s
    mbu, mfu, busy = verify.mbu * verify.tpot_s, verify.mfu * verify.tpot_s, verify.busy_s
    if draft is not None:
        draft_s = drafted * draft.tpot_s
        step_s, joules = step_s + draft_s, joules + (draft.power_w + idle_w) * draft_s
        mbu, mfu = (total + draft_share * each * draft_s for total, each in ((mbu, draft.mbu), (mfu, draft.mfu)))
        busy = busy + jnp.expand_dims(jnp.asarray(drafted), -1) * draft.busy_s
    rate: Any = yields / step_s
    devices = verify.tokens_per_s / verify.tokens_per_s_per_device
    return verify._replace(
        tpot_s=batch / rate, tokens_per_s=rate, tokens_per_s_per_user=rate / batch, tokens_per_s_per_device=rate / devices,
        mbu=mbu / step_s, mfu=mfu / step_s, energy_j_per_token=joules / yields, power_w=joules / step_s, busy_s=busy,
    )  # fmt: skip
