"""A whole composition of experts on nodes of a system: bytes, times, hit rates and latency, for any number of experts."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .. import models
from .._names import unknown_name
from ..hardware import System
from ._cache import POLICIES, batch_latency_s, cache_hits, load_trace, steady_hit_rate, zipf_trace
from ._footprint import RESIDENCIES, Footprint, copy_s, default_residency, footprint, hit_rate, request_s, running_tier
from ._times import ModelTimes, model_times

_SIMULATED = 20_000  # requests, where a hit rate has no formula


@dataclass(frozen=True)
class ExpertService:
    """A router and `experts` models alike on nodes of `system`. Sizes in tokens, bytes, seconds; None: worked out.

    - `batch` prompts arrive together; the router reads them at once and writes `router_tokens` tokens each, then every prompt
      goes to its expert, which writes `new_tokens` tokens, one pair after another.
    - `residency`: see `footprint`.  `cache`: policy.  `popularity`, `trace`: who is asked for (see `hit_rate`, `load_trace`).
    - `expert_bytes, copy_bytes_per_s, router_s, prefill_s, decode_s`: stated by the caller, in place of the models' own.

    Raises ValueError in one line for unknown names and values that are not allowed.
    """

    system: System
    expert_model: str
    experts: int
    router_model: str = ""
    batch: int = 1
    new_tokens: int = 20
    prompt: int = 128
    router_tokens: int = 1
    dtype: str = "bf16"
    residency: str | None = None
    popularity: float | None = None
    trace: str | None = None
    cache: str = "lru"
    overlap: bool = False
    expert_bytes: float | None = None
    copy_bytes_per_s: float | None = None
    router_s: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    seed: int = 0
    _shared: dict = field(
        default_factory=dict, repr=False, compare=False
    )  # models and times, whatever the number of experts

    def __post_init__(self):
        for name in ("experts", "batch", "new_tokens", "prompt", "router_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: an integer of at least 1")
        for name in ("expert_bytes", "copy_bytes_per_s", "router_s", "prefill_s", "decode_s"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; allowed: a finite number above 0")
        if self.residency not in (None, *RESIDENCIES):
            raise unknown_name("residency", self.residency, RESIDENCIES)
        if self.cache not in POLICIES:
            raise unknown_name("cache", self.cache, POLICIES)
        for name in (self.expert_model, self.router_model or self.expert_model):
            if "context" not in models.known_options(name):
                raise ValueError(f"{name} has no decode phase; an expert or a router is a language model")

    @property
    def memory(self):
        """Memory of a node, with the copy bandwidth that was stated."""
        memory = self.system.memory
        if self.copy_bytes_per_s is None or memory.n_tiers == 1:
            return memory
        rates = np.append(np.asarray(memory.copy_bytes_per_s, np.float64)[:-1], self.copy_bytes_per_s)
        return eqx.tree_at(lambda m: m.copy_bytes_per_s, memory, rates)

    @property
    def where(self) -> str:
        """The residency asked for, or the system's usual one."""
        return self.residency or default_residency(self.system.memory)

    def _once(self, key, make):
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def _loaded(self, model: str, batch: int):
        context = self.prompt + self.new_tokens - 1
        return self._once((model, batch), lambda: models.load(
            model, phase="decode", batch=batch, context=context, dtype=self.dtype))  # fmt: skip

    @property
    def size_bytes(self) -> float:
        """Of an expert."""
        return self.expert_bytes or self._loaded(self.expert_model, self.batch).weight_bytes

    @property
    def router_bytes(self) -> float:
        """Of the router: as much as an expert where it is the same model."""
        model = self.router_model or self.expert_model
        return self.size_bytes if model == self.expert_model else self._loaded(model, self.batch).weight_bytes

    @property
    def kv_bytes(self) -> float:
        """KV cache of all prompts of the batch, at the end of their experts."""
        return self._loaded(self.expert_model, self.batch).kv_cache_bytes

    @property
    def router_time_s(self) -> float:
        """The router on the whole batch."""
        return self.router_s or float(
            self._times(self.router_model or self.expert_model, self.batch).request_s(self.router_tokens)
        )

    @property
    def expert_times(self) -> ModelTimes:
        """An expert on one prompt."""
        if self.prefill_s and self.decode_s:
            return ModelTimes(jnp.asarray(self.prefill_s), jnp.asarray(self.decode_s))
        modelled = self._times(self.expert_model, 1)
        return ModelTimes(
            jnp.asarray(self.prefill_s or modelled.prefill_s), jnp.asarray(self.decode_s or modelled.decode_s)
        )

    def _times(self, model: str, batch: int) -> ModelTimes:
        return self._once(("times", model, batch), lambda: model_times(
            self.system, model, batch=batch, prompt=self.prompt, new_tokens=self.new_tokens, dtype=self.dtype))  # fmt: skip

    @cached_property
    def plan(self) -> Footprint:
        """Where the experts are."""
        return footprint(
            self.memory, experts=self.experts, expert_bytes=self.size_bytes, router_bytes=self.router_bytes, kv_bytes=self.kv_bytes,
            residency=self.where, tier=running_tier(self.memory),
        )  # fmt: skip

    @cached_property
    def requests(self):
        """The trace, if one was given."""
        return None if self.trace is None else load_trace(self.trace, self.experts)

    def rate(self, policy: str) -> float:
        """Hit rate of a policy: of the trace from an empty cache, or in steady state."""
        frames = int(self.plan.frames)
        if frames >= self.experts and self.requests is None:
            return 1.0
        if self.requests is not None:
            return float(np.mean(self.hits(policy)))
        if policy == "belady" and self.popularity is not None:
            return steady_hit_rate(zipf_trace(self.experts, self.popularity, _SIMULATED, self.seed), frames, policy)
        return float(hit_rate(self.plan, self.experts, policy=policy, popularity=self.popularity))

    def hits(self, policy: str):
        """Which requests of the trace hit."""
        assert self.requests is not None
        return cache_hits(self.requests, int(self.plan.frames), policy)

    def answer(self, policies=POLICIES) -> dict:
        """Everything the command prints, as plain numbers; latencies are None where an expert does not fit beside the router.

        `policies`: whose hit rates to work out beside that of `cache`."""
        f, memory, tier = self.plan, self.memory, running_tier(self.memory)
        runs = bool(f.runs)
        out = dict(
            switch_s=float(f.switch_s), request_s=None, experts_in_hbm=int(f.in_hbm), experts_capacity=int(f.capacity),
            nodes_for_experts=int(f.nodes), fits=bool(f.fits), missing_bytes=float(f.missing_bytes), residency=self.where,
            residency_stated=self.residency is not None, system=self.system.name, experts=self.experts, expert_model=self.expert_model,
            router_model=self.router_model or self.expert_model, batch=self.batch, new_tokens=self.new_tokens, prompt=self.prompt,
            dtype=self.dtype, expert_bytes=float(self.size_bytes), router_bytes=float(self.router_bytes), kv_bytes=float(self.kv_bytes),
            running_tier=memory.names[tier], capacity_tier=memory.names[-1], running_tier_bytes=float(memory.capacity_bytes[tier]),
            experts_on_node=int(f.on_node), experts_without_home=int(f.homeless), request_nodes=int(f.request_nodes),
            popularity=self.popularity, trace=self.trace, cache=self.cache, overlap=self.overlap,
            router_s=None, expert_s=None, prefill_s=None, decode_s=None, copy_s=None, hit_rate=None, hit_rates=None,
            request_without_copies_s=None,
            stated=[n for n in ("expert_bytes", "copy_bytes_per_s", "router_s", "prefill_s", "decode_s") if getattr(self, n) is not None],
        )  # fmt: skip
        if not runs:
            return out
        router, times = self.router_time_s, self.expert_times
        expert = float(times.request_s(self.new_tokens))
        rates = {policy: self.rate(policy) for policy in dict.fromkeys((*policies, self.cache))}
        parts = dict(router_s=router, expert_s=expert, switch_s=float(f.switch_s), batch=self.batch, overlap=self.overlap,
                     landing_s=float(f.landing_s))  # fmt: skip
        out |= dict(
            request_s=float(request_s(**parts, hit_rate=rates[self.cache])), router_s=router, expert_s=expert,
            prefill_s=float(times.prefill_s), decode_s=float(times.decode_s), copy_s=(1 - rates[self.cache]) * float(f.switch_s),
            hit_rate=rates[self.cache], hit_rates=rates, request_without_copies_s=float(request_s(**parts, hit_rate=1.0)),
        )  # fmt: skip
        if self.requests is not None:
            out["trace_latency"] = self._timeline(router, expert)
            out["request_s"] = out["trace_latency"]["mean_s"]
        return out

    def _timeline(self, router: float, expert: float) -> dict:
        """Latency of every batch of the trace."""
        if len(self.requests) < self.batch:
            raise ValueError(f"{self.trace}: {len(self.requests)} requests; needed: at least a batch of {self.batch}")
        each = batch_latency_s(self.hits(self.cache), self.batch, router_s=router, copy_s=float(self.plan.switch_s), expert_s=expert,
                               overlap=self.overlap, shared_s=float(self.plan.landing_s))  # fmt: skip
        cold = len(np.unique(self.requests)) / len(self.requests)
        return dict(requests=len(self.requests), batches=len(each), mean_s=float(each.mean()), p50_s=float(np.median(each)),
                    p95_s=float(np.percentile(each, 95)), max_s=float(each.max()), first_uses=cold)  # fmt: skip

    def curve(self, counts) -> dict:
        """Latency, hit rate, nodes over numbers of experts; lists as long as `counts`. A trace knows only its own number."""
        rows = [replace(self, experts=int(n), trace=None).answer(()) for n in counts]
        names = (
            "experts",
            "request_s",
            "request_without_copies_s",
            "hit_rate",
            "nodes_for_experts",
            "request_nodes",
            "fits",
        )
        return {name: [row[name] for row in rows] for name in names}


def switch_ratio(fast: System, slow: System) -> float:
    """How many times sooner the first system copies an expert to its running tier than the second."""
    return float(
        copy_s(slow.memory, 1e12, running_tier(slow.memory)) / copy_s(fast.memory, 1e12, running_tier(fast.memory))
    )
