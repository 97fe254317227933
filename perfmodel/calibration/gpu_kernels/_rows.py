"""Rows of measured GPU kernels as arguments of the kernel models, group by group."""

import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._names import unknown_name
from ...cost.kernels import _attention as attention
from ...cost.kernels import _collective as collective
from ...cost.kernels import _elementwise as elementwise
from ...cost.kernels import _gemm as gemm
from ...cost.kernels import _moe as moe
from ...cost.kernels._parts import PRECISIONS
from ...hardware import gpu_names, stack_gpus
from .._table_file import Column, Optional, read_table

_FLOATS = ("n_gpus", "M", "N", "K", "batch", "q_len", "kv_len", "n_heads", "n_kv_heads", "head_dim", "message_bytes",
           "moe_expert_parallel", "moe_top_k", "moe_experts")  # fmt: skip
_COLUMNS = {
    **{name: Optional(float) for name in _FLOATS},
    **{name: Optional(str) for name in ("dtype", "kv_dtype", "flag", "moe_token_distribution")},
    "source": str, "gpu": str, "op": str, "median_ms": Column(float, least=1e-9),
}  # fmt: skip
_16BIT = ("fp16", "bf16", "bfloat16")
_PROJECTIONS = ("gemm", "attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
_ELEMENTWISE = {"input_layernorm": "layernorm", "layernorm": "layernorm", "softmax": "softmax", "gelu": "gelu",
                "mlp_act": "gated_activation", "attn_rope": "rope", "add": "add", "emb": "embedding"}  # fmt: skip
_COLLECTIVES = {"custom_all_reduce": "all_reduce", "nccl_all_reduce": "all_reduce", "nccl_all_gather": "all_gather",
                "nccl_reduce_scatter": "reduce_scatter", "nccl_alltoall": "all_to_all"}  # fmt: skip
QUANTITIES = {"gemm": "gemm_s", "attn_decode": "decode_attention_s", "attn_prefill": "prefill_attention_s", "moe_ffn": "moe_s",
              "custom_all_reduce": "all_reduce_s", "nccl": "collective_s", "elementwise": "elementwise_s"}  # fmt: skip


class Group(NamedTuple):
    """Measurements of one kernel family on one GPU by one source.

    - `gpu, source, family, variant`: `variant` is what selects the code path: dtype, or the operator.
    - `rows`: arguments of the model, arrays [n] (`Gpu` included).  `measured_s` [n].  `shapes` [n]: text of the shape.
    - `predict(parameters, row)`: seconds of one row.  `index` [n]: rows of the file, from 0.
    """

    gpu: str
    source: str
    family: str
    variant: str
    rows: dict
    measured_s: np.ndarray
    shapes: list[str]
    predict: Callable
    index: np.ndarray

    @property
    def key(self) -> tuple[str, str, str, str]:
        """GPU, source, family, variant: what `Constants` are looked up by."""
        return self.gpu, self.source, self.family, self.variant

    @property
    def label(self) -> str:
        return f"{self.gpu} {self.source} {self.family} {self.variant}"

    @property
    def shared_key(self) -> str:
        """Groups with this in common share the shipped constants."""
        return f"{self.family} {self.variant}"

    def take(self, chosen) -> "Group":
        """The rows where `chosen` [n] is true."""
        return self._replace(
            rows={name: _taken(value, chosen) for name, value in self.rows.items()},
            measured_s=self.measured_s[chosen],
            shapes=[shape for shape, yes in zip(self.shapes, chosen, strict=True) if yes],
            index=self.index[chosen],
        )

    def half(self, salt: str = "shape") -> np.ndarray:
        """[n] true for about half of the shapes, by hash: a shape is wholly in one half, whatever the group."""
        digest = [hashlib.sha256(f"{salt} {shape}".encode()).digest()[0] for shape in self.shapes]
        return np.array([value % 2 == 0 for value in digest])


def _taken(value, chosen):
    return jax.tree.map(lambda leaf: leaf[chosen], value)


def read_groups(path: str | Path) -> list[Group]:
    """Every group of the file, in order of appearance; rows flagged as impossible, and whole layers, are left out.

    Raises ValueError in one line naming file, column and row.
    """
    table = read_table(path, _COLUMNS)
    members: dict[tuple, list[int]] = {}
    for i, op in enumerate(table["op"]):
        if op.startswith("layer:") or table["flag"][i] == "suspect_above_peak_bw":
            continue
        if table["gpu"][i] not in gpu_names():
            raise unknown_name(f"{path}: row {i + 1}, column gpu", table["gpu"][i], gpu_names())
        family, variant = _family(path, table, i)
        members.setdefault((str(table["gpu"][i]), str(table["source"][i]), family, variant), []).append(i)
    if not members:
        raise ValueError(f"{path}: column flag: no row is usable")
    return [_group(path, table, *key, np.array(index)) for key, index in members.items()]


def _family(path, table, i) -> tuple[str, str]:
    op, dtype = str(table["op"][i]), str(table["dtype"][i])
    kind = "bf16" if dtype in _16BIT else dtype
    where = f"{path}: row {i + 1}, column"
    if op in _ELEMENTWISE:
        return "elementwise", op
    if op in _COLLECTIVES:
        return ("custom_all_reduce", "") if op == "custom_all_reduce" else ("nccl", op)
    if kind not in PRECISIONS:
        raise unknown_name(f"{where} dtype", dtype, [*PRECISIONS, *_16BIT])
    if op in _PROJECTIONS:
        return "gemm", kind
    if op == "moe_ffn":
        return op, kind
    if op in ("attn_decode", "attn_prefill"):
        kv = str(table["kv_dtype"][i])
        cache = "bf16" if kv in _16BIT else kv
        if cache not in ("bf16", "fp8"):
            raise unknown_name(f"{where} kv_dtype", kv, [*_16BIT, "fp8"])
        return op, f"{kind}/{cache}"
    raise unknown_name(
        f"{where} op", op, [*_PROJECTIONS, "moe_ffn", "attn_decode", "attn_prefill", *_ELEMENTWISE, *_COLLECTIVES]
    )


_NEEDS: dict[str, tuple[str, ...]] = {
    "gemm": ("M", "N", "K"),
    "attn_decode": ("batch", "kv_len", "n_heads", "n_kv_heads", "head_dim"),
    "attn_prefill": ("batch", "q_len", "kv_len", "n_heads", "n_kv_heads", "head_dim"),
    "moe_ffn": ("M", "N", "K", "n_gpus", "moe_expert_parallel", "moe_top_k", "moe_experts"),
    "custom_all_reduce": ("message_bytes", "n_gpus"),
    "nccl": ("message_bytes", "n_gpus"),
    "elementwise": ("M",),
}
_SHAPE: dict[str, tuple[str, ...]] = {"elementwise": ("M", "N", "n_heads", "n_gpus")}


def _group(path, table, name, source, family, variant, index) -> Group:
    rows: dict = {}
    for column in _NEEDS[family]:
        rows[column] = table[column][index]
        wrong = ~(rows[column] > 0)
        if wrong.any():
            at, value = index[wrong][0] + 1, rows[column][wrong][0]
            got = "empty" if np.isnan(value) else f"{value:g}"
            raise ValueError(f"{path}: row {at}, column {column} is {got}; {family} needs a positive number")
    named = _SHAPE.get(family, _NEEDS[family])
    shapes = ["x".join(f"{table[column][i]:g}" for column in named) for i in index]
    if family == "gemm":
        rows["footprint_bytes"] = (
            _copies(source, variant, name, rows) * rows["N"] * rows["K"] * PRECISIONS[variant].weight_bytes
        )
    if family == "moe_ffn":
        rows["skew"] = np.array([_skew(text) for text in table["moe_token_distribution"][index]])
    if family == "custom_all_reduce":
        rows["limit"] = np.full(len(index), 8 * 2**20 if "vllm" in source else np.inf)
    if family == "elementwise":
        rows["N"], rows["M"] = _width(table, index, variant)
    rows["gpu"] = stack_gpus([name] * len(index))
    return Group(
        name,
        source,
        family,
        variant,
        rows,
        table["median_ms"][index] * 1e-3,
        shapes,
        _predictor(family, variant),
        index,
    )


def _copies(source: str, kind: str, name: str, rows: dict):
    """Weights that the benchmark touches between two uses of the same ones, in copies.

    From the collectors of AIConfigurator (collector/trtllm/collect_gemm.py, collector/vllm/collect_gemm.py): TensorRT-LLM 1.3: as many
    copies as fill L2, at most 5; before: 5; vLLM: 6, but 1 with block-scaled weights. Vidur and LLMCompass: other layers come between.
    """
    nominal_l2 = {"A100-SXM-80GB": 40 * 2**20, "H100-SXM-80GB": 50 * 2**20, "L40S": 96 * 2**20}.get(name, 40 * 2**20)
    if "trtllm-1.3" in source:
        return np.clip(np.ceil(nominal_l2 / (rows["N"] * rows["K"] * PRECISIONS[kind].weight_bytes)), 1, 5)
    if "trtllm" in source:
        return 5.0
    if "vllm" in source:
        return 1.0 if kind == "fp8_block" else 6.0
    return np.inf


def _skew(distribution: str) -> float:
    return float(distribution.removeprefix("power_law_")) if distribution.startswith("power_law_") else 0.0


def _width(table, index, op):
    """Elements of a row on one GPU, and rows: vidur shards rotary embedding by heads; gelu is a flat array."""
    rows, width = table["M"][index], table["N"][index]
    if op == "attn_rope":
        heads = (table["n_heads"] + table["n_kv_heads"])[index] / table["n_gpus"][index]
        return np.maximum(heads, 1.0) * table["head_dim"][index], rows
    flat = np.isnan(width)
    return np.where(flat, 1024.0, width), np.where(flat, rows / 1024.0, rows)


@cache
def _predictor(family: str, variant: str) -> Callable:
    """One function a code path, so that compiled programs are shared."""
    return partial(_PREDICT[family], variant)


def _gemm(kind, p, r):
    return gemm.gemm_s(p, r["gpu"], r["M"], r["N"], r["K"], kind=kind, footprint_bytes=r["footprint_bytes"])


def _decode(variant, p, r):
    shape = (r["batch"], r["kv_len"], r["n_heads"], r["n_kv_heads"], r["head_dim"])
    return attention.decode_attention_s(p, r["gpu"], *shape, kv_bytes=1.0 if variant.endswith("fp8") else 2.0)


def _prefill(variant, p, r):
    shape = (r["batch"], r["q_len"], r["kv_len"], r["n_heads"], r["n_kv_heads"], r["head_dim"])
    kv_bytes = 1.0 if variant.endswith("fp8") else 2.0
    return attention.prefill_attention_s(p, r["gpu"], *shape, kv_bytes=kv_bytes, eight_bit=variant.startswith("fp8"))


def _moe(kind, p, r):
    return moe.moe_s(p, r["gpu"], r["M"], r["K"], r["N"], r["moe_experts"], r["moe_top_k"], tensor_parallel=r["n_gpus"],
                     expert_parallel=r["moe_expert_parallel"], skew=r["skew"], kind=kind, footprint=1.0)  # fmt: skip


def _custom_all_reduce(_, p, r):
    return collective.collective_s(p, r["gpu"], r["message_bytes"], r["n_gpus"], low_latency_limit_bytes=r["limit"])


def _nccl(op, p, r):
    return collective.collective_s(p, r["gpu"], r["message_bytes"], r["n_gpus"], kind=_COLLECTIVES[op])


def _elementwise(op, p, r):
    return elementwise.elementwise_s(p, r["gpu"], r["M"], r["N"], kind=_ELEMENTWISE[op])


_PREDICT = {"gemm": _gemm, "attn_decode": _decode, "attn_prefill": _prefill, "moe_ffn": _moe,
            "custom_all_reduce": _custom_all_reduce, "nccl": _nccl, "elementwise": _elementwise}  # fmt: skip


def predicted_s(group: Group, parameters) -> np.ndarray:
    """[n] seconds of every row of a group."""
    return np.asarray(jax.jit(jax.vmap(group.predict, (None, 0)))(parameters, jnp_rows(group.rows)))


def jnp_rows(rows: dict) -> dict:
    """Rows as JAX arrays."""
    return jax.tree.map(jnp.asarray, rows)
