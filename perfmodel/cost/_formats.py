"""Number formats of weights, activations and KV cache, and which kernels a library runs for them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._names import unknown_name
from ..workload._dtypes import DTYPES
from ..workload._dtypes import precision as stored
from ._device import Machine
from .kernels._kernel_set import INT8_ONLY
from .kernels._parts import Precision

# Weights that are stored in groups with a scale and a zero of 16 bits each (GPTQ, AWQ, gpt-fast): int4-g32, int4-g128, int8-g64
_GROUPED = "-g"
_ALIASES = {"float16": "fp16", "bfloat16": "bf16", "half": "fp16", "fp4": "nvfp4"}


class Formats(NamedTuple):
    """Bytes an element, and the GPU kernels of them. Every leaf may be traced: `stack_formats` makes an axis of them.

    - `weight_bytes`, `head_bytes` (token table and LM head), `activation_bytes`, `kv_bytes`.  `density`: share of weights stored.
    - `rate`: index of the peak: 16, 8 or 4 bits.
    - `gemm, head`: how `gemm_s` runs them, with `constants` and `head_constants`; `moe`, `prefill`, `decode`: constants (None: no GPU).
    - `eight_bit_attention`: whether prefill's products run in 8 bits.
    - `bare_cycles`: launch of a 16-bit product. What an 8-bit one takes beyond belongs to the pass that converts: measurements hold both,
      and a fit cannot tell their launches apart.
    """

    weight_bytes: Any
    head_bytes: Any
    activation_bytes: Any
    kv_bytes: Any
    rate: Any
    gemm: Precision
    head: Precision
    constants: Any = None
    head_constants: Any = None
    moe: Any = None
    prefill: Any = None
    decode: Any = None
    eight_bit_attention: Any = False
    bare_cycles: Any = None


def bits(name: str, field: str, *, plain: bool = False) -> tuple[float, float]:
    """(bits of a stored element with its share of scales, share of elements stored) of a format: those of workloads, `fp4`, and
    grouped ones (`int4-g32`: a scale and a zero of 16 bits for 32 weights). Raises ValueError for an unknown name; `plain`: also for
    a grouped or sparse one."""
    base, grouped, size = name.partition(_GROUPED)
    base = _ALIASES.get(base, base)
    more = [] if plain else ["int4-gN", "int8-gN", "NAME-sparsePERCENT"]
    if grouped and not plain:
        if base not in ("int4", "int8") or not size.isdigit() or int(size) < 1:
            raise ValueError(f"{field} is {name!r}; allowed with groups: int4-gN or int8-gN, N weights to a scale")
        return DTYPES[base] + 32.0 / int(size), 1.0
    try:
        form = stored(base, field)
    except ValueError:
        raise unknown_name(field, name, [*DTYPES, *more]) from None
    if plain and (grouped or form.density != 1):
        raise ValueError(f"{field} is {name!r}; only weights may be sparse or grouped (weight-dtype)")
    return form.bits, form.density


def formats(machine: Machine, dtype: str = "bf16", weight_dtype: str | None = None, kv_dtype: str | None = None,
            head_dtype: str | None = None, *, generated: bool = False) -> tuple[Formats, float]:  # fmt: skip
    """(formats, density of the weights) of a point of operation on a machine. Not given: as `dtype`; the head as the weights.

    On GPUs, 16-bit activations with narrower weights take weight-only kernels, 8-bit ones 8-bit kernels (int8 where there are no
    8-bit floats), and 4-bit ones 8-bit kernels with half of the bytes (and twice the rate where the machine states one).
    `generated`: weight-only products are kernels that a compiler made (gpt-fast's), with the constants of 16-bit ones.

    Raises ValueError for an unknown format, and for activations or caches that are sparse or grouped.
    """
    activation, _ = bits(dtype, "dtype", plain=True)
    weight, density = bits(dtype if weight_dtype is None else weight_dtype, "weight-dtype")
    cache, _ = bits(dtype if kv_dtype is None else kv_dtype, "kv-dtype", plain=True)
    head, dense = (weight, 1.0) if head_dtype is None else bits(head_dtype, "head-dtype")
    if dense != 1:
        raise ValueError(f"head-dtype is {head_dtype!r}; only weights of blocks may be sparse")
    rate = 0 if activation > 8.25 else (1 if activation > 4.5 else 2)
    of_blocks, of_head = _kernel(weight, activation), _kernel(head, activation)
    made = Formats(weight / 8, head / 8, activation / 8, cache / 8, rate, of_blocks, of_head)
    if machine.kernels is None:
        return made, density
    known: Any = machine.kernels
    eight = "sq" if machine.gpu_name.startswith(INT8_ONLY) else "fp8"
    kv = "fp8" if cache <= 8.25 else "bf16"
    narrow = rate > 0 and kv == "fp8"
    return made._replace(
        constants=known["gemm", _gemm_name(weight, activation, eight, generated)],
        head_constants=known["gemm", _gemm_name(head, activation, eight, generated)], bare_cycles=known["gemm", "bf16"].launch_cycles,
        moe=known["moe_ffn", "fp8" if rate and eight == "fp8" else "bf16"],
        prefill=known["attn_prefill", f"{'fp8' if narrow and eight == 'fp8' else 'bf16'}/{kv}"],
        decode=known["attn_decode", f"bf16/{kv}"], eight_bit_attention=narrow and eight == "fp8",
    ), density  # fmt: skip


def _kernel(weight: float, activation: float) -> Precision:
    """How a product runs: bytes of its operands, whether the 8-bit units work, what is converted."""
    if activation > 8.25:
        return Precision(weight / 8, 2.0, dequantises=weight < 16)
    return Precision(weight / 8, activation / 8, eight_bit=True, quantises=True)


def _gemm_name(weight: float, activation: float, eight: str, generated: bool) -> str:
    if activation <= 8.25:
        return eight
    if weight >= 16 or generated:
        return "bf16"
    return "int8_wo" if weight >= 6.5 else "int4_wo"


def stack_formats(several: list[Formats]) -> Formats:
    """Formats as one with a leading axis, for `vmap`; all of one machine."""
    arrays = [jax.tree.map(lambda leaf: jnp.asarray(leaf, float), each) for each in several]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
