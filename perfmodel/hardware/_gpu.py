"""GPUs as their specification sheets describe them: what a kernel model needs to know before any measurement.

Numbers marked `from memory` are to be checked before relied on; the others were read in a public source (vendor
documentation, released tool configurations: the AIConfigurator, GenZ and LLM-Viewer tables).
"""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from .._names import unknown_name


class Gpu(eqx.Module):
    """One GPU. All leaves are arrays of one shape (a scalar, or `[n]` after `stack_gpus`).

    - `peak_16bit_ops_per_s`, `peak_8bit_ops_per_s`: dense matrix operations, 2 a multiply-accumulate, at `clock_hz`
      (where there are no 8-bit units, the 16-bit peak).
    - `dram_bytes_per_s`, `dram_bytes`: device memory.
    - `l2_bytes`: L2 that one multiprocessor can use: where the cache is two partitions that each keep their own copy
      of far lines (A100, H100), half of the nominal size.  `l2_bytes_per_cycle`: all slices together.
    - `multiprocessors`, `shared_memory_bytes` of each, `clock_hz`: the boost clock behind the peaks.
    - `tensor_copies`: 1 where one instruction streams whole tiles (Hopper's TMA and later) and a tile's pipeline is as
      deep as shared memory allows, else 0 (a few stages of thread-issued copies).
    - `tdp_w`, `energy_scale`: power limit, and energy of an operation at equal clock relative to TSMC 4N/5 nm
      (7 nm: 1/0.7, from '5 against 7 nm: -30 % power').
    - `link_bytes_per_s`: to the other GPUs of the node, each way.  `host_link`: 1 where that is PCIe through the host.
      `switch_reduces`: 1 where the switch adds up (NVLink SHARP).
    """

    peak_16bit_ops_per_s: Float[Array, "..."]
    peak_8bit_ops_per_s: Float[Array, "..."]
    dram_bytes_per_s: Float[Array, "..."]
    dram_bytes: Float[Array, "..."]
    l2_bytes: Float[Array, "..."]
    l2_bytes_per_cycle: Float[Array, "..."]
    multiprocessors: Float[Array, "..."]
    shared_memory_bytes: Float[Array, "..."]
    clock_hz: Float[Array, "..."]
    tensor_copies: Float[Array, "..."]
    tdp_w: Float[Array, "..."]
    energy_scale: Float[Array, "..."]
    link_bytes_per_s: Float[Array, "..."]
    host_link: Float[Array, "..."]
    switch_reduces: Float[Array, "..."]


_7NM = 1 / 0.7

# name: (16-bit T/s, 8-bit T/s, DRAM GB/s, DRAM GB, L2 MB usable, L2 bytes/cycle, SMs, shared KB, GHz, tensor copies,
#        TDP W, energy scale, link GB/s each way, host link, switch reduces)
# From memory everywhere: SM counts, shared memory, clocks (they reproduce the peaks: SMs * operations/cycle * clock),
# L2 bytes/cycle (A100: 5120 from its white paper; the others from microbenchmarks of the slices).
_TABLE = {
    "A100-SXM-40GB": (312, 624, 1555, 40, 21, 5120, 108, 164, 1.41, 0, 400, _7NM, 300, 0, 0),  # memory: from memory
    "A100-SXM-80GB": (312, 624, 2039, 80, 21, 5120, 108, 164, 1.41, 0, 400, _7NM, 300, 0, 0),  # verified
    "H100-SXM-80GB": (989, 1979, 3350, 80, 26, 5120, 132, 228, 1.83, 1, 700, 1, 450, 0, 1),  # verified
    "H200-SXM-141GB": (989, 1979, 4800, 141, 26, 5120, 132, 228, 1.83, 1, 700, 1, 450, 0, 1),  # memory verified
    "B200-SXM": (2250, 4500, 8000, 180, 63, 10240, 148, 228, 1.86, 1, 1000, 1, 900, 0, 1),  # L2 uncertain
    "L40S": (362, 733, 864, 48, 100.66, 2048, 142, 100, 2.49, 0, 350, 1, 32, 1, 0),  # memory verified, rest from memory
    "A40-48GB": (149.7, 299, 696, 48, 6.3, 1536, 84, 100, 1.74, 0, 300, _7NM, 56, 0, 0),  # 8 nm; L2 from memory
    "MI210": (181, 181, 1638, 64, 8.4, 4096, 104, 64, 1.7, 0, 300, _7NM, 32, 1, 0),  # from memory; 104 compute units
}
_UNITS = (1e12, 1e12, 1e9, 1e9, 1e6, 1, 1, 1e3, 1e9, 1, 1, 1, 1e9, 1, 1)


def gpu_names() -> list[str]:
    """Names that `gpu` knows."""
    return sorted(_TABLE)


def gpu(name: str) -> Gpu:
    """The specification sheet of a GPU by name. Raises ValueError for an unknown one."""
    if name not in _TABLE:
        raise unknown_name("gpu", name, _TABLE)
    numbers = [np.float64(value * unit) for value, unit in zip(_TABLE[name], _UNITS, strict=True)]
    return Gpu(*numbers)


def stack_gpus(names: list[str]) -> Gpu:
    """The GPUs of `names` as one `Gpu` with leaves of shape [len(names)] (for `vmap` over measurements)."""
    kinds = {name: gpu(name) for name in set(names)}
    return jax.tree.map(lambda *leaves: np.stack(leaves), *[kinds[name] for name in names])
