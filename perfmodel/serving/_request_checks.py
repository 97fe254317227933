"""What to serve and how: a request, its defaults, and what of it cannot be."""

import math
from dataclasses import dataclass, replace

import numpy as np

from .._names import unknown_name
from ..cost._device import Machine
from ..models._decoders import Decoder, decoder
from ._llm import PHASES
from ._residency import usable

MOST = 10**12  # of any count: beyond, nothing is meant
_CONTEXT = 1024
_PADDING = 1024  # rows by which token tables are padded to even sizes


@dataclass(frozen=True)
class Request:
    """What to serve and how. `context`: of decode the tokens in the cache, of prefill and mixed the prompt; None: 1024, or as many as the
    model's length allows. Elsewhere None: the default.

    - `context_limit`: longest sequence to allow, 0: any; learned positions end where they end.
    - `new_tokens`: of an answer (mixed).  `chunk`: tokens of a prompt that pass at a time (prefill, mixed), 0: all.
    - `draft_model`, `draft_tokens`, `acceptance`: speculative decoding; without a model drafting takes no time and no memory.
    - `offload`: tiers behind a host too; `kv_tier`: name of the tier where the cache begins; `block_tokens`: of a page
      of the cache, 0: none.
    - `pim`: decode attention and products of one token in the memory's own processors.
    """

    model: str
    phase: str = "decode"
    batch: int = 1
    context: int | None = None
    dtype: str = "bf16"
    weight_dtype: str | None = None
    kv_dtype: str | None = None
    head_dtype: str | None = None
    context_limit: int | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int = 1
    expert_parallel: int = 1
    data_parallel: int = 1
    new_tokens: int = 256
    chunk: int = 0
    draft_model: str | None = None
    draft_tokens: int = 0
    acceptance: float = 0.8
    offload: bool = False
    kv_tier: str | None = None
    block_tokens: int = 0
    pim: bool = False
    step_s: float = 0.0
    request_s: float = 0.0
    usd_per_hour: float | None = None


def checked(request: Request, model: Decoder, of: Machine) -> Request:
    """The request with its defaults. Raises ValueError in one line for what cannot be."""
    r = request
    if r.phase not in PHASES:
        raise unknown_name("phase", r.phase, PHASES)
    context = _default_context(r, model) if r.context is None else r.context
    least = dict(batch=1, context=0 if r.phase == "decode" else 1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, new_tokens=1,
                 chunk=0, draft_tokens=0, block_tokens=0, context_limit=0)  # fmt: skip
    for name, low in least.items():
        value = context if name == "context" else getattr(r, name)
        if name == "context_limit" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{name.replace('_', '-')} is {value!r}; allowed: an integer of at least {low}")
        if value > MOST:
            raise ValueError(f"{name.replace('_', '-')} is {value!r}; allowed: at most {MOST:,}")
    for name, high in dict(acceptance=1.0, step_s=math.inf, request_s=math.inf).items():
        if not (0 <= getattr(r, name) <= high and math.isfinite(getattr(r, name))):
            raise ValueError(f"{name.replace('_', '-')} is {getattr(r, name)}; allowed: 0 to {high:g}")
    if r.usd_per_hour is not None and not (math.isfinite(r.usd_per_hour) and r.usd_per_hour >= 0):
        raise ValueError(f"usd-per-device-hour is {r.usd_per_hour}; allowed: a number of at least 0")
    check_length(r, model, context)
    if r.draft_tokens and r.phase != "decode":
        raise ValueError(f"draft-tokens is {r.draft_tokens}; speculative decoding goes with phase decode")
    if r.draft_model and not r.draft_tokens:
        raise ValueError("draft-model is given without draft-tokens; say how many tokens it drafts")
    others = r.pipeline_parallel * r.data_parallel
    tensor = r.tensor_parallel if r.tensor_parallel is not None else max(of.devices // others, 1)
    if r.offload and usable(of, True) == usable(of):
        raise ValueError(f"offload: {of.name} has no memory tier behind its {of.tier_names[of.memory]}")
    if isinstance(tensor, bool) or not isinstance(tensor, int) or tensor < 1:
        raise ValueError(f"tensor-parallel is {tensor!r}; allowed: an integer of at least 1")
    if tensor > of.devices:
        raise ValueError(f"tensor-parallel is {tensor}; allowed: 1 to {of.devices}, the devices of {of.name}")
    if tensor * others > of.devices and not float(of.outside_bytes_per_s) > 0:
        raise ValueError(
            f"tensor x pipeline x data parallel is {tensor * others}; {of.name} has {of.devices} devices and no way to others"
        )
    for name, value, most in (
        ("tensor-parallel", tensor, model.spec.heads),
        ("pipeline-parallel", r.pipeline_parallel, model.spec.layers),
    ):
        if value > most:
            raise ValueError(f"{name} is {value}; allowed for {model.name}: 1 to {most}")
    if r.data_parallel > r.batch:
        raise ValueError(f"data-parallel is {r.data_parallel}; allowed: 1 to {r.batch}, the batch")
    experts = model.spec.experts
    if r.expert_parallel > 1 and experts is None:
        raise ValueError(f"expert-parallel is {r.expert_parallel}; {model.name} has no experts: 1")
    if experts is not None and (experts.count % r.expert_parallel or (tensor * r.data_parallel) % r.expert_parallel):
        raise ValueError(
            f"expert-parallel is {r.expert_parallel}; allowed: divisors of {experts.count} experts and of tensor x data parallel,"
            f" {tensor * r.data_parallel}"
        )
    if r.pim and not np.any(np.asarray(of.tiers.ops_per_s) > 0):
        raise ValueError(f"pim: no memory tier of {of.name} has processors (ops_per_s)")
    return replace(r, tensor_parallel=tensor, context=context)


def _beyond(r: Request) -> tuple[int, int]:
    """(tokens of a sequence beyond its context that count against a length, and against learned positions alone: decode's new ones)."""
    return (r.new_tokens if r.phase == "mixed" else 0), (1 + r.draft_tokens if r.phase == "decode" else 0)


def _default_context(r: Request, model: Decoder) -> int:
    later, ahead = _beyond(r)
    limit = model.published if r.context_limit is None else r.context_limit
    ends = [limit - later] if limit else []
    ends += [model.limit - later - ahead] if model.limit else []
    return max(min([_CONTEXT, *ends]), 1)


def check_length(r: Request, model: Decoder, context: int) -> None:
    """Raises ValueError for a sequence longer than learned positions, or than the publisher states (decode: without the new tokens)."""
    later, ahead = _beyond(r)
    what, longest = "context + new-tokens" if later else "context", context + later
    if model.limit and longest + ahead > model.limit:
        what = "context + new tokens" if ahead else what
        raise ValueError(f"{model.name}: {what} is {longest + ahead}; allowed: 1 to {model.limit} (learned positions)")
    limit = model.published if r.context_limit is None else r.context_limit
    if limit and longest > limit:
        whose = "as published; context-limit sets another, 0 none" if r.context_limit is None else "context-limit"
        raise ValueError(f"{model.name}: {what} is {longest}; allowed: 1 to {limit} ({whose})")


def draft_of(r: Request, model: Decoder) -> Decoder | None:
    """The model that drafts. Raises ValueError for one of another vocabulary (tables padded by less than 1024 rows count as one)."""
    if not r.draft_model:
        return None
    small = decoder(r.draft_model)
    ours, theirs = model.spec.vocabulary, small.spec.vocabulary
    if abs(ours - theirs) >= _PADDING:
        raise ValueError(
            f"draft-model {small.name} has {theirs:,} tokens in its vocabulary, {model.name} {ours:,}; it has to draft the same tokens"
        )
    check_length(r, small, r.context or 0)
    return small
