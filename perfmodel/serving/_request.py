"""The answer to a request as plain numbers: what `perfmodel serve` prints."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..cost._device import Machine, machine
from ..cost._formats import Formats, formats
from ..hardware import System
from ..models._decoders import Decoder, decoder
from ._kernel_time import LIBRARY, Library
from ._llm import ALONE, Beside, Point, Serving, serve
from ._pass import CLASSES
from ._price import usd_per_device_hour, usd_per_million_tokens
from ._request_checks import Request, checked, draft_of
from ._residency import residency
from ._speculative import accepted_tokens, speculated
from ._storage import activation_bytes, cached_tokens, device_kv_share, device_weight_bytes, kv_bytes_per_token


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
        point, draft = _point(r), draft_of(r, model)
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
    cached = cached_tokens(spec, (r.context or 0) + r.draft_tokens + r.block_tokens / 2) * kv_bytes_per_token(
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
    context = r.context or 0
    held = context + {"decode": 0.0, "prefill": 0.0, "mixed": r.new_tokens / 2}[r.phase]
    cache = cached_tokens(spec, held + r.block_tokens / 2) * kv_bytes_per_token(spec, formed.kv_bytes)
    chunk = min(r.chunk or context, context)
    entering = {"decode": 1 + r.draft_tokens, "prefill": chunk, "mixed": 1 + context / r.new_tokens}[r.phase] * r.batch

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
