"""Kernels of a decoder's layer and of its head on one device, as numbers of an operating point: what a library launches.

Every size is a closed form of batch, tokens, context and degrees of parallelism, elementwise, so that all of them may be traced.
The sums of multiply-accumulates and of weight bytes are those of the operator graph of `pm.models.load` (a test holds them).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from .._numerics import ceil_through
from ..models.zoo._records import Transformer
from ..workload._operators import LANE_OPS


class Gemm(NamedTuple):
    """`groups` products [m, k] x [k, n] with weights of their own, on one device. `bias`: 1 where one is added.
    `head`: whether the weights are the head's (never sparse, a precision of their own)."""

    name: str
    m: Any
    n: Any
    k: Any
    groups: Any = 1.0
    bias: float = 0.0
    head: bool = False

    @property
    def macs(self):
        return self.groups * self.m * self.n * self.k

    @property
    def weight_elements(self):
        return self.groups * self.n * (self.k + self.bias)

    @property
    def moved_elements(self):
        """Activations read and written."""
        return self.groups * self.m * (self.k + self.n)


class Attention(NamedTuple):
    """`batch` sequences of `q_len` queries that end at `kv_len` cached tokens, `heads` query and `kv_heads` key-value heads on this
    device; `size` and `value`: elements of a head's keys and values.  `cached_elements`: of one token in one layer."""

    name: str
    batch: Any
    q_len: Any
    kv_len: Any
    heads: Any
    kv_heads: Any
    size: Any
    value: Any
    cached_elements: Any
    decode: bool = False  # one query a sequence: another kernel

    @property
    def macs(self):
        """All queries against all keys, as the operator graph counts."""
        return self.batch * self.heads * self.q_len * self.kv_len * (self.size + self.value)

    @property
    def causal_macs(self):
        """Of them, those that causality leaves (each query sees the keys up to itself)."""
        narrow = self.kv_len * (1 - (self.kv_len - 1) / (2 * self.q_len))  # a window within the queries
        seen = jnp.where(self.kv_len < self.q_len, narrow, self.kv_len - (self.q_len - 1) / 2)
        return self.batch * self.heads * self.q_len * seen * (self.size + self.value)

    @property
    def past(self):
        return self.kv_len - self.q_len

    @property
    def lane_ops(self):
        return LANE_OPS["softmax"] * self.batch * self.heads * self.q_len * self.kv_len


class Vector(NamedTuple):
    """A kernel that moves data: `rows` of `width` elements. `kind`: whose constants it takes; `moves`: elements read and written for
    each element."""

    name: str
    kind: str
    rows: Any
    width: Any
    moves: float
    lane_ops: Any


class Mixture(NamedTuple):
    """A layer of gated experts: `tokens` of all ranks that share it, `hidden` units of each expert, cut in `tensor` parts and dealt to
    `expert` ranks."""

    name: str
    tokens: Any
    width: Any
    hidden: Any
    count: int
    chosen: int
    tensor: Any
    expert: Any

    @property
    def active(self):
        """Experts on this device that any token chose, the loads even."""
        return jnp.minimum(self.tokens * self.chosen, self.count * 1.0) / self.expert

    @property
    def macs(self):
        return self.tokens * self.chosen * 3.0 * self.width * self.hidden / (self.tensor * self.expert)

    @property
    def weight_elements(self):
        """Read."""
        return self.active * 3.0 * self.width * self.hidden / self.tensor

    @property
    def moved_elements(self):
        return self.tokens * self.chosen / self.expert * (2 * self.width + 3 * self.hidden / self.tensor)


class Collective(NamedTuple):
    """Between `ranks` devices, `elements` of the whole tensor; `kind` as `Machine.collective_s` has it."""

    name: str
    kind: str
    elements: Any
    ranks: Any


class Slice(NamedTuple):
    """What one device works on: `batch` sequences of `tokens` new ones after `context` cached; `tensor` parts of every layer; experts
    dealt to `expert` ranks and cut in `expert_tensor` parts, and `shared` replicas whose tokens meet there."""

    batch: Any
    tokens: Any
    context: Any
    tensor: Any = 1.0
    expert: Any = 1.0
    expert_tensor: Any = 1.0
    shared: Any = 1.0


def _part(total, parts):
    """The largest of `parts` shares of `total` equal pieces."""
    return ceil_through(total / parts)


def kept(k, density: float):
    """Inputs that an output of sparse weights still looks at."""
    return k if density == 1 else max(1, round(k * density))


def layer(spec: Transformer, at: Slice, *, window: int = 0, experts: bool = False, absorb: bool = False, fused_gate: bool = True,
          density: float = 1.0, decode: bool = False) -> list[Any]:  # fmt: skip
    """Kernels of one block. `window`: tokens that a token sees, 0: all.  `experts`: whether it is a layer of experts.  `absorb`: latent
    attention meets the latents themselves (decode).  `fused_gate`: gate and up are one product.  `density`: of the weights.
    `decode`: attention is a decode kernel."""
    rows = at.batch * at.tokens
    attention = (_latent if spec.latent else _plain)(spec, at, rows, window, absorb, density, decode)
    mlp = _experts(spec, at, rows, density) if experts else _mlp(spec, at, rows, fused_gate, density)
    share = _all_reduce(spec, rows, at)
    if spec.parallel:  # both results are added before ranks add up
        return [*_norms(spec, rows, (5.0, 2.0)[: spec.parallel]), *attention, *mlp, *share]
    both = [*attention, *share, *mlp]
    # ranks that share experts hand their tokens back instead of adding up
    both += [_all_to_all("combine", spec, at, rows), *_joined(spec, at, rows)] if experts else share
    shared = float(experts and spec.experts is not None and spec.experts.shared > 0)  # a result more to add up
    return [
        *_norms(spec, rows, (4.0, 2.0, 4.0 + shared, 2.0) if spec.order == "sandwich" else (4.0, 4.0 + shared)),
        *both,
    ]


def _joined(spec: Transformer, at: Slice, rows) -> list[Any]:
    ranks = jnp.where(at.shared > 1, at.expert_tensor, at.tensor)
    return [Collective("all_reduce", "all_reduce", rows * spec.width, ranks)]


def _all_reduce(spec: Transformer, rows, at: Slice) -> list[Any]:
    return [Collective("all_reduce", "all_reduce", rows * spec.width, at.tensor)]


def _all_to_all(name: str, spec: Transformer, at: Slice, rows) -> Collective:
    assert spec.experts is not None
    ranks = jnp.where(at.shared > 1, at.expert, 1.0)
    return Collective(name, "all_to_all", rows * spec.experts.chosen * spec.width, ranks)


def _norms(spec: Transformer, rows, moves: tuple[float, ...]) -> list[Any]:
    """Each reads and writes, and adds the residual beside: four elements moved for one, five where attention and MLP come together; two
    where nothing has been added since the norm before."""
    ops = (LANE_OPS[spec.norm] + LANE_OPS["add"]) * rows * spec.width
    return [
        Vector(f"norm{i + 1}", "input_layernorm", rows, spec.width * 1.0, each, ops) for i, each in enumerate(moves)
    ]


def _plain(spec: Transformer, at: Slice, rows, window: int, absorb: bool, density: float, decode: bool) -> list[Any]:
    heads, kv = _part(spec.heads, at.tensor), jnp.maximum(_part(spec.kv, at.tensor), 1.0)
    wide, size = kept(spec.width, density), spec.size
    past = jnp.minimum(at.context, window - 1.0) if window else at.context
    seen = jnp.minimum(past + at.tokens, window) if window else past + at.tokens
    found: list[Any] = [Gemm("qkv", rows, (heads + 2 * kv) * size, wide, bias=float(spec.qkv_bias))]
    if spec.qk_norm:
        each = LANE_OPS["rms_norm"] * rows * (heads + kv) * size
        found.append(Vector("qk_norm", "input_layernorm", rows * (heads + kv), size * 1.0, 2.0, each))
    found.append(Attention("attention", at.batch, at.tokens, seen, heads, kv, size, size, 2 * kv * size, decode))
    # ceil(total / parts) * parts heads where they do not divide: the output product sees only the real ones
    inner = heads * size if density == 1 else kept(spec.heads * size, density) / at.tensor
    return [*found, Gemm("proj", rows, spec.width * 1.0, inner, bias=float(spec.out_bias))]


def _latent(spec: Transformer, at: Slice, rows, window: int, absorb: bool, density: float, decode: bool) -> list[Any]:
    part = spec.latent
    assert part is not None
    heads, bias = _part(spec.heads, at.tensor), float(spec.qkv_bias)
    size, keys = part.plain + part.rotary, at.context + at.tokens
    wide = kept(spec.width, density)

    def norm(name: str, width: int) -> Vector:
        return Vector(name, "input_layernorm", rows, width * 1.0, 2.0, LANE_OPS["rms_norm"] * rows * width)

    found: list[Any] = []
    if part.q_rank:  # the way down is the same on every rank
        found += [Gemm("q_a", rows, part.q_rank * 1.0, wide, bias=bias), norm("q_a.norm", part.q_rank)]
    found += [
        Gemm("q_b", rows, heads * size, kept(part.q_rank or spec.width, density)),
        Gemm("kv_a", rows, part.kv_rank + part.rotary * 1.0, wide, bias=bias), norm("kv_a.norm", part.kv_rank),
    ]  # fmt: skip
    cached = part.kv_rank + part.rotary
    if absorb:
        found += [
            Gemm("q.absorb", rows, part.kv_rank * 1.0, kept(part.plain, density), groups=heads),
            Attention("attention", at.batch, at.tokens, keys, heads, 1.0, cached, part.kv_rank, cached, decode),
            Gemm("v.absorb", rows, part.value * 1.0, kept(part.kv_rank, density), groups=heads),
        ]  # fmt: skip
    else:
        found += [
            Gemm("kv_b", at.batch * keys, heads * (part.plain + part.value), kept(part.kv_rank, density)),
            Attention("attention", at.batch, at.tokens, keys, heads, heads, size, part.value, cached, decode),
        ]  # fmt: skip
    inner = kept(part.value * spec.heads, density) / at.tensor if density != 1 else heads * part.value
    return [*found, Gemm("proj", rows, spec.width * 1.0, inner, bias=float(spec.out_bias))]


def _mlp(spec: Transformer, at: Slice, rows, fused_gate: bool, density: float) -> list[Any]:
    hidden, bias = _part(spec.hidden, at.tensor), float(spec.mlp_bias)
    return _two_products("mlp", spec, rows, spec.hidden, hidden, bias, fused_gate, density, at.tensor)


def _two_products(
    name, spec: Transformer, rows, total: int, hidden, bias, fused_gate: bool, density: float, tensor
) -> list[Any]:
    wide = kept(spec.width, density)
    ops = (LANE_OPS.get(spec.activation, 1) + spec.gated) * rows * hidden
    activation = Vector(
        f"{name}.{spec.activation}", "mlp_act", rows, hidden * (1.0 + spec.gated), 1.5 if spec.gated else 2.0, ops
    )
    if spec.gated and not fused_gate:
        up = [Gemm(f"{name}.{each}", rows, hidden, wide, bias=bias) for each in ("gate", "up")]
    else:
        up = [Gemm(f"{name}.up", rows, hidden * (1.0 + spec.gated), wide, bias=bias)]
    inner = hidden if density == 1 else kept(total, density) / tensor
    return [*up, activation, Gemm(f"{name}.down", rows, spec.width * 1.0, inner, bias=bias)]


def _experts(spec: Transformer, at: Slice, rows, density: float) -> list[Any]:
    experts = spec.experts
    assert experts is not None
    found: list[Any] = [
        Gemm("router", rows, experts.count * 1.0, kept(spec.width, density)),
        _all_to_all("dispatch", spec, at, rows),
        Mixture("experts", rows * at.shared, kept(spec.width, density) * 1.0, experts.hidden * 1.0, experts.count, experts.chosen,
                at.expert_tensor, at.expert),
    ]  # fmt: skip
    if experts.shared:
        gated = spec._replace(gated=True)
        hidden = _part(experts.shared, at.tensor)
        found += _two_products("shared", gated, rows, experts.shared, hidden, 0.0, True, density, at.tensor)
        if experts.shared_gate:
            found.append(Gemm("shared.scale", rows, 1.0, kept(spec.width, density)))
    return found


def ends(spec: Transformer, at: Slice, *, replicated_head: bool = False) -> list[Any]:
    """Kernels before and behind the blocks: token rows, the last norm, the LM head on each sequence's last token."""
    rows, width, table = at.batch * at.tokens, spec.width * 1.0, (spec.table_width or spec.width) * 1.0
    tables = 1 + (spec.positions > 0) + (spec.types > 0)
    found: list[Any] = [Vector("embed", "emb", rows, table, 1.0 + tables, LANE_OPS["embedding"] * rows * table)]
    if table != width:
        found.append(Gemm("embed.in", rows, width, table))
    norms = int(spec.embed_norm) + int(spec.final_norm)
    found += [
        # with the last norm all that follow a layer add a residual; the very first one, listed here instead of it, does not
        Vector(f"norm{i}", "input_layernorm", rows, width, 2.0, LANE_OPS[spec.norm] * rows * width)
        for i in range(norms)
    ]
    if table != width:
        found.append(Gemm("embed.out", at.batch, table, width))
    parts = 1.0 if replicated_head else at.tensor
    out = _part(spec.vocabulary, parts)
    found.append(Gemm("lm_head", at.batch, out, table, bias=float(spec.head_bias), head=True))
    found.append(Collective("logits", "all_gather", at.batch * spec.vocabulary, parts))
    return found


def kinds(spec: Transformer) -> list[tuple[int, int, bool]]:
    """(how many, window, whether of experts) of each kind of layer, in order of appearance."""
    found: dict[tuple[int, bool], int] = {}
    for i in range(spec.layers):
        key = spec.window(i), spec.experts is not None and i not in spec.experts.dense
        found[key] = found.get(key, 0) + 1
    return [(count, *key) for key, count in found.items()]
