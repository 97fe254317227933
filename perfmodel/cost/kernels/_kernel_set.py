"""Constants of all kernels that rows of a workload may be, of each type of chiplet that is a GPU."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._names import unknown_name
from ._attention import DecodeParameters, PrefillParameters
from ._constants import SHIPPED, constants, read_entries
from ._elementwise import ElementwiseParameters
from ._gemm import GemmParameters
from ._moe import MoeParameters

INT8_ONLY = ("A100", "A40", "MI210")  # no 8-bit floating point: int8, "sq"
FOUR_BIT_DOUBLES = ("A100", "A40", "B200", "L40S")  # matrix units that do 4 bits at twice the 8-bit rate (vendor)

# Kernel -> what calibrations call it, and the kinds of operators that it stands for.
ELEMENTWISE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "layernorm": (("layernorm", "input_layernorm"), ("layer_norm", "rms_norm", "group_norm")),
    "softmax": (("softmax",), ("softmax",)),
    "embedding": (("emb",), ("embedding", "gather")),
    "add": (("add",), ("add", "mul")),
    "gelu": (
        ("gelu", "mlp_act"),
        ("gelu", "relu", "batch_norm", "max_pool", "avg_pool", "elementwise"),
    ),  # and all the rest
}
EMBEDDING, ADD = (list(ELEMENTWISE).index(name) for name in ("embedding", "add"))
# positions of the constants that a precision asks for
GEMM_16, GEMM_8, GEMM_INT8_WEIGHTS, GEMM_INT4_WEIGHTS = range(4)
_DECODE = ("bf16/bf16", "bf16/fp8")
_PREFILL = ("bf16/bf16", "bf16/fp8", "fp8/fp8")
_MOE = ("bf16", "fp8")


class GpuKernels(eqx.Module):
    """Constants of the kernels of `K` chiplet types.

    - `gemm`: leaves `[K, 4]`: 16-bit, 8-bit, weights alone of 8 and of 4 bits.  `elementwise`: `[K, 5]`.  `decode`: `[K, 2]`, caches of
      16 and of 8 bits.  `prefill`: `[K, 3]`: the same, and 8-bit products too.  `moe`: `[K, 2]`: 16 and 8 bits.
    - `floats_8bit [K]`: 1.0 where there are 8-bit floats (without, attention and experts stay in 16 bits).  `four_bit_rate [K]`: of the
      matrix units, relative to 8 bits.
    - `sources` (static): the library whose measurements each type's are fitted to, "" for the shipped ones.
    """

    gemm: GemmParameters
    elementwise: ElementwiseParameters
    decode: DecodeParameters
    prefill: PrefillParameters
    moe: MoeParameters
    floats_8bit: Float[Array, "K"]
    four_bit_rate: Float[Array, "K"]
    sources: tuple[str, ...] = eqx.field(static=True)


def gpu_kernels(names: tuple[str, ...], path: str | Path | None = None, source: str | None = None) -> GpuKernels:
    """Constants for chiplet types that are the GPUs `names` ("" for another type).

    **Arguments:** `path`: a parameter file of `perfmodel calibrate gpu-kernels`; None: the shipped constants.
    `source`: which library's, where the file has several; None: the first with a GEMM of that GPU, else its first.

    Raises ValueError in one line for a file that cannot be used, without one of the GPUs, or without the source.
    """
    if path is None:
        return _shipped_kernels(tuple(names), str(jnp.result_type(float)))
    return _kernels(names, path, source)


@lru_cache(maxsize=64)
def _shipped_kernels(names: tuple[str, ...], _dtype: str) -> GpuKernels:
    return _kernels(names, None, None)


def _kernels(names, path, source) -> GpuKernels:
    entries = [] if path is None else read_entries(path)
    with jax.ensure_compile_time_eval():  # may be called while a function is traced, and is cached
        look_up = constants(path)
        chosen = [_source(path, entries, name, source) if path and name else "" for name in names]
        found = [_of_type(look_up, entries, *pair) for pair in zip(names, chosen, strict=True)]
        families = (_stacked(kind) for kind in zip(*found, strict=True))
        floats = np.asarray([not name.startswith(INT8_ONLY) for name in names], float)
        faster = np.asarray([2.0 if name.startswith(FOUR_BIT_DOUBLES) else 1.0 for name in names])
        return GpuKernels(*families, jnp.asarray(floats), jnp.asarray(faster), tuple(chosen))


def _stacked(several) -> Any:
    return jax.tree.map(lambda *x: np.stack(x), *several)


def _source(path, entries, name: str, wanted: str | None) -> str:
    """The source to take of those that the file has for a GPU."""
    mine = [e for e in entries if e.gpu == name]
    if not mine:
        has = ", ".join(sorted({e.gpu for e in entries} - {"any"})) or "none"
        raise ValueError(f"{path}: no constants of gpu {name!r}; the file has: {has}")
    there = dict.fromkeys(e.source for e in sorted(mine, key=lambda e: e.family != "gemm"))
    if wanted is not None and wanted not in there:
        raise unknown_name(f"{path}: source for gpu {name}", wanted, there)
    return wanted or next(iter(there))


def _of_type(look_up, entries, name: str, source: str) -> tuple[Any, ...]:
    shared = [e for e in read_entries(SHIPPED) if e.gpu == "any"] if SHIPPED.exists() else []
    own = [e for e in entries if (e.gpu, e.source) == (name, source)]
    fitted, known = ({(e.family, e.variant) for e in some} for some in (own, shared))

    def best(family: str, *variants: str):
        """Of the first variant that is fitted, else of the first that is shipped, else of the first."""
        found = [v for there in (fitted, known) for v in variants if (family, v) in there]
        return look_up(name, source, family, (found or variants)[0])

    eight = ("sq", "fp8") if name.startswith(INT8_ONLY) else ("fp8", "sq")
    return (
        _stacked([best("gemm", "bf16"), best("gemm", *eight), best("gemm", "int8_wo"), best("gemm", "int4_wo")]),
        _stacked([best("elementwise", *variants) for variants, _ in ELEMENTWISE.values()]),
        _stacked([best("attn_decode", kind) for kind in _DECODE]),
        _stacked([best("attn_prefill", kind) for kind in _PREFILL]),
        _stacked([best("moe_ffn", kind) for kind in _MOE]),
    )
