"""A request to serve, checked, and its answer as plain numbers: what `perfmodel serve` prints."""

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._names import unknown_name
from ..hardware import System
from ._decoders import Decoder, decoder
from ._formats import Formats, formats
from ._kernel_time import LIBRARY, Library
from ._llm import ALONE, PHASES, Beside, Point, Serving, serve
from ._machine import Machine, machine
from ._pass import CLASSES
from ._price import usd_per_device_hour, usd_per_million_tokens
from ._residency import residency, usable
from ._speculative import accepted_tokens, speculated
from ._storage import activation_bytes, cached_tokens, device_kv_share, device_weight_bytes, kv_bytes_per_token

MOST = 10**12  # of any count: beyond, nothing is meant
_PADDING = 1024  # rows by which token tables are padded to even sizes


@dataclass(frozen=True)
class Request:
    """What to serve and how. `context`: of decode the tokens in the cache, of prefill and mixed the prompt. `None`: the default.

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
    context: int = 1024
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
    least = dict(batch=1, context=0 if r.phase == "decode" else 1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, new_tokens=1,
                 chunk=0, draft_tokens=0, block_tokens=0, context_limit=0)  # fmt: skip
    for name, low in least.items():
        value = getattr(r, name)
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
    _check_length(r, model)
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
    return Request(**{**r.__dict__, "tensor_parallel": tensor})


def _check_length(r: Request, model: Decoder) -> None:
    """Raises ValueError for a sequence longer than learned positions, or than the publisher states (decode: without the new tokens)."""
    what = "context + new-tokens" if r.phase == "mixed" else "context"
    longest = r.context + (r.new_tokens if r.phase == "mixed" else 0)
    ahead = 1 + r.draft_tokens if r.phase == "decode" else 0
    if model.limit and longest + ahead > model.limit:
        what = "context + new tokens" if ahead else what
        raise ValueError(f"{model.name}: {what} is {longest + ahead}; allowed: 1 to {model.limit} (learned positions)")
    limit = model.published if r.context_limit is None else r.context_limit
    if limit and longest > limit:
        whose = "as published; context-limit sets another, 0 none" if r.context_limit is None else "context-limit"
        raise ValueError(f"{model.name}: {what} is {longest}; allowed: 1 to {limit} ({whose})")


def _draft(r: Request, model: Decoder) -> Decoder | None:
    """The model that drafts. Raises ValueError for one of another vocabulary (tables padded by less than 1024 rows count as one)."""
    if not r.draft_model:
        return None
    small = decoder(r.draft_model)
    ours, theirs = model.spec.vocabulary, small.spec.vocabulary
    if abs(ours - theirs) >= _PADDING:
        raise ValueError(
            f"draft-model {small.name} has {theirs:,} tokens in its vocabulary, {model.name} {ours:,}; it has to draft the same tokens"
        )
    _check_length(r, small)
    return small


def answer(request: Request, system: System, *, parameters: str | None = None, source: str | None = None,
           library: Library = LIBRARY) -> dict[str, Any]:  # fmt: skip
    """The figures of a request as plain numbers (None where the phase has none), in float64; see `Serving` for what they are.

    Besides: `devices`, `short_bytes` (of all devices) and, where it does not fit, `least_devices` that would hold it (None: no number
    found); `time_model`: `fitted kernels`, or `roofline`, a bound; `seconds`: of a pass by class of kernel; `usd_per_device_hour`,
    `usd_per_million_tokens`.

    Raises ValueError in one line for bad input.
    """
    with jax.enable_x64(True):
        of, model = machine(system, parameters=parameters, source=source), decoder(request.model)
        r = checked(request, model, of)
        formed, density = formats(
            of, r.dtype, model.weights or None if r.weight_dtype is None else r.weight_dtype, r.kv_dtype, r.head_dtype
        )
        kv_tier = None if r.kv_tier is None else of.tier(r.kv_tier)
        how = library._replace(pim=r.pim)
        options = dict(
            density=density, library=how, offload=r.offload, kv_tier=kv_tier, block_tokens=float(r.block_tokens)
        )
        point, draft = _point(r), _draft(r, model)
        options["beside"] = _beside(r, draft, formed, r.tensor_parallel)
        found = _program(of, model, r.phase, options)(formed, point)
        extra = {}
        if r.draft_tokens:
            drafting = _drafting(of, draft, formed, point, options)
            extra = dict(
                tokens_per_step=float(accepted_tokens(r.draft_tokens, r.acceptance)), verify_s=float(found.tpot_s),
                draft_s=float(drafting.tpot_s) if drafting else 0.0,
            )  # fmt: skip
            found = _speculated(r, of, draft, found, drafting)
        told = _told(found, r, of) | extra
        told["least_devices"] = (
            None if told["fits"] else _least_devices(r, of, model, draft, formed, density, r.offload)
        )
        if not told["fits"]:
            told["largest_batch"] = (
                min(told["largest_batch"], r.batch - 1) if told["largest_batch"] >= r.batch else told["largest_batch"]
            )
        hour = r.usd_per_hour
        if hour is None:
            hour = float(usd_per_device_hour(system, told["power_w"] / told["devices"]))
        told |= dict(
            usd_per_device_hour=hour,
            usd_per_million_tokens=float(usd_per_million_tokens(hour, told["devices"], told["tokens_per_s"])),
        )
        return told


def _point(r: Request) -> Point:
    tokens = {"prefill": r.context, "decode": 1 + r.draft_tokens, "mixed": r.context}[r.phase]
    return Point(*[jnp.asarray(float(x)) for x in (
        r.batch, r.context if r.phase == "decode" else 0, tokens, r.chunk, r.new_tokens, r.tensor_parallel or 1, r.pipeline_parallel,
        r.expert_parallel, r.data_parallel, r.step_s, r.request_s,
    )])  # fmt: skip


def _program(of: Machine, model: Decoder, phase: str, options: dict):
    return eqx.filter_jit(lambda formed, point: serve(of, model, formed, point, phase=phase, **options))


def _told(found: Serving, r: Request, of: Machine) -> dict[str, Any]:
    numbers = {name: float(x) for name, x in found._asdict().items() if name != "busy_s"}
    told: dict[str, Any] = {name: None if math.isnan(x) else x for name, x in numbers.items()}
    devices = (r.tensor_parallel or 1) * r.pipeline_parallel * r.data_parallel
    for name in ("weight_bytes", "kv_cache_bytes", "kv_bytes_per_token", "largest_batch"):
        told[name] = int(told[name]) if float(told[name]).is_integer() else told[name]
    told["fits"] = bool(told["fits"])
    told["device_short_bytes"] = told.pop("short_bytes")
    busy = {name: float(x) for name, x in zip(CLASSES, found.busy_s, strict=True)}
    return dict(
        model=r.model, system=of.name, phase=r.phase, batch=r.batch, context=r.context, dtype=r.dtype, devices=devices,
        tensor_parallel=r.tensor_parallel, pipeline_parallel=r.pipeline_parallel, data_parallel=r.data_parallel,
        expert_parallel=r.expert_parallel, time_model="roofline" if of.gpu is None else "fitted kernels", **told,
        short_bytes=told["device_short_bytes"] * devices, seconds=busy,
    )  # fmt: skip


def _drafting(of: Machine, draft: Decoder | None, formed: Formats, point: Point, options: dict) -> Serving | None:
    """Figures of a pass of the draft: on the tensor ranks of one stage."""
    if draft is None:
        return None
    one = jnp.asarray(1.0)
    point = point._replace(
        tokens=one, pipeline=one, expert=one, tensor=jnp.minimum(point.tensor, float(draft.spec.heads))
    )
    return _program(of, draft, "decode", options | {"density": 1.0, "beside": ALONE})(formed, point)


def _beside(r: Request, draft: Decoder | None, formed: Formats, tensor) -> Beside:
    """Memory of a draft on each of its devices; elementwise in `tensor`."""
    if draft is None:
        return ALONE
    spec = draft.spec
    ranks = jnp.minimum(jnp.asarray(tensor, float), float(spec.heads))
    cached = cached_tokens(spec, r.context + r.draft_tokens + r.block_tokens / 2) * kv_bytes_per_token(
        spec, formed.kv_bytes
    )
    return Beside(
        device_weight_bytes(spec, formed.weight_bytes, formed.head_bytes, tensor=ranks, expert_tensor=ranks),
        cached * device_kv_share(spec, ranks),
    )


def _speculated(r: Request, of: Machine, draft: Decoder | None, found: Serving, drafting: Serving | None) -> Serving:
    tensor, others = r.tensor_parallel or 1, r.pipeline_parallel * r.data_parallel
    drafts = 0 if draft is None else min(tensor, draft.spec.heads) * r.data_parallel
    return speculated(
        found, drafting, batch=float(r.batch), drafted=float(r.draft_tokens), acceptance=r.acceptance,
        draft_share=drafts / (tensor * others), idle_w=of.static_w * (tensor * others - drafts),
    )  # fmt: skip


def _least_devices(
    r: Request, of: Machine, model: Decoder, draft: Decoder | None, formed: Formats, density: float, offload: bool
) -> int | None:
    """The least tensor x pipeline parallel devices of this kind that hold weights, cache and activations; tensor ranks a power of two up
    to the package's devices."""
    spec = model.spec
    ranks = [2**i for i in range(int(math.log2(of.devices)) + 1) if 2**i <= spec.heads]
    t, p = (jnp.asarray(x, float).reshape(-1) for x in np.meshgrid(ranks, np.arange(1, spec.layers + 1), indexing="ij"))
    held = r.context + {"decode": 0.0, "prefill": 0.0, "mixed": r.new_tokens / 2}[r.phase]
    cache = cached_tokens(spec, held + r.block_tokens / 2) * kv_bytes_per_token(spec, formed.kv_bytes)
    chunk = min(r.chunk or r.context, r.context)
    entering = {"decode": 1 + r.draft_tokens, "prefill": chunk, "mixed": 1 + r.context / r.new_tokens}[
        r.phase
    ] * r.batch

    def short(t, p):
        weights = device_weight_bytes(
            spec, formed.weight_bytes, formed.head_bytes, tensor=t, pipeline=p, expert_tensor=t, density=density,
            extra_parameters=model.extra_parameters,
        )  # fmt: skip
        parts = jnp.minimum(p, float(r.batch))
        rows = entering / parts
        if r.phase == "mixed":
            rows = jnp.maximum(rows, r.batch / parts + chunk)
        active = activation_bytes(spec, rows, formed.activation_bytes, r.batch / parts, t)
        other = _beside(r, draft, formed, t)
        kept = r.batch * (cache * device_kv_share(spec, t, p) + other.sequence_bytes)
        return residency(of, weights + other.weight_bytes, kept, active, offload=offload).short_bytes

    enough = np.asarray(jax.vmap(short)(t, p)) <= 0
    return int(np.min(np.asarray(t * p)[enough])) if enough.any() else None
