"""What serving and training see of a system: the figures of one of its equal devices, and the ways between them."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._names import unknown_name
from ..hardware import Gpu, System
from ..hardware import gpu as gpu_named
from ._collectives import CollectiveCost, collective_cost
from ._topology import Mesh, Topology, mesh_of
from .kernels._collective import COLLECTIVES, measured_s
from .kernels._columns import as_gpu
from .kernels._constants import Entry, constants, read_entries
from .kernels._kernel_set import FOUR_BIT_DOUBLES

_8BIT_MAC = 0.5  # energy of an 8-bit multiply-accumulate relative to a 16-bit one (as the kernels' power limit has it)
_DTYPES = ("bf16", "fp8", "fp8_block", "sq", "int8_wo", "int4_wo")
# (family, variant) of every kernel that serving and training may ask for
KERNELS = (
    *(("gemm", kind) for kind in _DTYPES),
    *(("attn_prefill", kind) for kind in ("bf16/bf16", "bf16/fp8", "fp8/fp8")),
    *(("attn_decode", kind) for kind in ("bf16/bf16", "bf16/fp8")),
    *(("moe_ffn", kind) for kind in ("bf16", "fp8", "fp8_block")),
    ("custom_all_reduce", ""),
    *(("nccl", f"nccl_{kind}") for kind in ("all_reduce", "all_gather", "reduce_scatter", "alltoall")),
    *(("elementwise", kind) for kind in ("input_layernorm", "mlp_act", "attn_rope", "add", "emb")),
)  # fmt: skip


class Tiers(NamedTuple):
    """Memory of ONE device, `T` tiers, the fastest first; of a tier that all devices share, a device has its part.

    `copy_bytes_per_s`: into the tier before and back (of the first: its own bandwidth).  `ops_per_s`: processing in memory.
    """

    capacity_bytes: Float[Array, "T"]
    bytes_per_s: Float[Array, "T"]
    write_bytes_per_s: Float[Array, "T"]
    copy_bytes_per_s: Float[Array, "T"]
    latency_s: Float[Array, "T"]
    j_per_byte: Float[Array, "T"]
    ops_per_s: Float[Array, "T"]


class Machine(eqx.Module):
    """A system of `devices` equal devices as serving and training see it; every leaf may be traced and differentiated.

    - `gpu`: the device as GPU kernels need it, with `kernels`, (family, variant) -> fitted constants; None: no GPU.
    - `peak_ops_per_s [3]`: matrix operations at 16, 8 and 4 bits, 2 a multiply-accumulate.  `lane_ops_per_s`: vector operations.
    - `buffer_bytes, buffer_bytes_per_s`: on chip.  `launch_s`: of a kernel, where the kernels' constants do not hold it.
    - `tiers`: memory of one device.
    - `link_bytes_per_s` each way and `hop_s` between neighbours in the package; `outside_bytes_per_s`, `outside_s` between
      packages (0: no way).  `mesh`: what collectives meet where the package is one; None: a switch.
    - `mac_j` (16 bits), `lane_op_j`, `buffer_j_per_byte`, `link_j_per_byte`; `static_w` of one device with its memory.
    - `name, gpu_name` ("": no GPU), `tier_names, attached` (tiers that a device reads by itself, not over a host), `devices` (static).
    """

    gpu: Gpu | None
    kernels: dict[tuple[str, str], Any] | None
    peak_ops_per_s: Float[Array, "3"]
    lane_ops_per_s: Float[Array, ""]
    buffer_bytes: Float[Array, ""]
    buffer_bytes_per_s: Float[Array, ""]
    launch_s: Float[Array, ""]
    tiers: Tiers
    link_bytes_per_s: Float[Array, ""]
    hop_s: Float[Array, ""]
    outside_bytes_per_s: Float[Array, ""]
    outside_s: Float[Array, ""]
    mac_j: Float[Array, ""]
    lane_op_j: Float[Array, ""]
    buffer_j_per_byte: Float[Array, ""]
    link_j_per_byte: Float[Array, ""]
    static_w: Float[Array, ""]
    name: str = eqx.field(static=True)
    gpu_name: str = eqx.field(static=True)
    tier_names: tuple[str, ...] = eqx.field(static=True)
    attached: tuple[bool, ...] = eqx.field(static=True)
    memory: int = eqx.field(static=True)
    devices: int = eqx.field(static=True)
    mesh: Mesh | None = None

    def tier(self, name: str) -> int:
        """Index of a tier by name. Raises ValueError for an unknown one."""
        if name not in self.tier_names:
            raise unknown_name(f"{self.name}: tier", name, self.tier_names)
        return self.tier_names.index(name)

    @property
    def topology(self) -> Topology:
        """The ways between its devices."""
        return Topology(
            float(self.devices), self.link_bytes_per_s, self.hop_s, self.outside_bytes_per_s, self.outside_s, self.launch_s,
            mesh=self.mesh,
        )  # fmt: skip

    def collective(self, kind: str, message_bytes, ranks, *, step=1.0, low_latency: bool = True) -> CollectiveCost:
        """Seconds and bytes of a collective, as `collective_cost` has it, between `ranks` devices `step` apart in the order of devices,
        which fill packages.

        Inside a package of GPUs the fitted kernels: NCCL, and for an all-reduce the libraries' one-shot kernel if that is faster and
        `low_latency`. Elementwise; `ranks` may be traced. Raises ValueError for an unknown kind.
        """
        measured = None
        if self.gpu is not None and self.kernels is not None and kind in COLLECTIVES:
            measured = partial(measured_s, self.kernels, self.gpu, low_latency=low_latency)
        return collective_cost(kind, message_bytes, ranks, self.topology, step=step, inside_s=measured)

    def collective_s(self, kind: str, message_bytes, ranks, *, step=1.0, low_latency: bool = True):
        """Seconds of `collective`; 0 for one rank."""
        return self.collective(kind, message_bytes, ranks, step=step, low_latency=low_latency).seconds

    def send_s(self, message_bytes, ranks=2.0, *, step=1.0):
        """Seconds to hand `message_bytes` to the next of `ranks` devices in a chain, `step` apart: over the slowest way there is."""
        return self.collective("send", message_bytes, ranks, step=step).seconds

    def one_bandwidth(self) -> "Machine":
        """The same machine, its GPU kernels on the bandwidth of its memory tier: whoever changes that changes their time."""
        if self.gpu is None:
            return self
        return eqx.tree_at(lambda m: m.gpu.dram_bytes_per_s, self, self.tiers.bytes_per_s[self.memory])


def _traced(x) -> bool:
    return isinstance(x, Tracer)


def machine(system: System, *, parameters: str | Path | None = None, source: str | None = None) -> Machine:
    """The machine that a system is; where its chiplets differ, all count as the slowest, which a sharded model waits for.

    **Arguments:** `parameters`: a file of `perfmodel calibrate gpu-kernels`, for GPUs; None: the shipped constants.
    `source`: the library of that file to take (None: per kernel the first that the file has of this GPU).

    Raises ValueError in one line for a file or source that cannot be used. Differentiable in every leaf of the system.
    """
    chips, memory, package = (
        jax.tree.map(jnp.asarray, part) for part in (system.chiplets, system.memory, system.package)
    )
    n = system.n_chiplets
    macs_per_s = chips.rows * chips.columns * chips.clock_hz
    peak = 2.0 * jnp.min(macs_per_s)
    device, kernels = None, None
    rates = jnp.ones(3) * peak * jnp.asarray([1.0, 1.0, 1.0])
    name = _gpu_name(system)
    inner = jnp.minimum(package.link_bytes_per_s, package.port_bytes_per_s)
    link, hop = (inner, package.hop_s) if n > 1 else (jnp.zeros(()), jnp.zeros(()))
    if name and system.gpus is not None:
        kind = int(system.kind[0])
        sheet = jax.tree.map(lambda x: jnp.asarray(x)[kind], system.gpus)
        device = as_gpu(sheet, chips.pick(0), memory)
        link = link if n > 1 else device.link_bytes_per_s
        device = eqx.tree_at(lambda g: g.link_bytes_per_s, device, link)
        narrow = device.peak_8bit_ops_per_s * (2.0 if name.startswith(FOUR_BIT_DOUBLES) else 1.0)
        rates = jnp.stack([device.peak_16bit_ops_per_s, device.peak_8bit_ops_per_s, narrow])
        kernels = _kernels(name, parameters, source)
    elif parameters is not None:
        raise ValueError(f"{parameters}: constants of GPU kernels; system {system.name} has no GPU")
    part = 1.0 / n
    tiers = Tiers(
        memory.capacity_bytes * part, memory.bytes_per_s * part, memory.write_bytes_per_s * part, memory.copy_bytes_per_s * part,
        memory.latency_s, memory.j_per_byte, memory.ops_per_s * part,
    )  # fmt: skip
    return Machine(
        gpu=device, kernels=kernels, peak_ops_per_s=rates, lane_ops_per_s=jnp.min(chips.lanes * chips.clock_hz),
        buffer_bytes=jnp.min(chips.buffer_bytes), buffer_bytes_per_s=jnp.min(chips.buffer_bytes_per_s),
        launch_s=jnp.max(chips.launch_s), tiers=tiers, link_bytes_per_s=link, hop_s=hop,
        outside_bytes_per_s=package.outside_bytes_per_s, outside_s=package.outside_s, mac_j=jnp.max(chips.mac_j),
        lane_op_j=jnp.max(chips.lane_op_j), buffer_j_per_byte=jnp.max(chips.buffer_j_per_byte),
        link_j_per_byte=package.hop_j_per_byte, static_w=jnp.mean(chips.static_w) + jnp.sum(memory.static_w) * part,
        name=system.name, gpu_name=name if device is not None else "", tier_names=system.memory.names,
        attached=_attached(system), memory=_main_memory(system), devices=n,
        mesh=mesh_of(package.positions) if package.link_names else None,
    )  # fmt: skip


def gpu_kernels_of(
    name: str, parameters: str | Path | None = None, source: str | None = None
) -> dict[tuple[str, str], Any]:
    """Constants of every kernel of a GPU, by (family, variant). Raises ValueError as `machine` does."""
    gpu_named(name)
    return _kernels(name, parameters, source)


def _attached(system: System) -> tuple[bool, ...]:
    """The first tier, all tiers of a single device, and those of which each device has its own."""
    share = system.memory.share
    own = [True] * system.memory.n_tiers if _traced(share) else [float(x) < 1 for x in np.asarray(share)]
    return tuple(system.n_chiplets == 1 or t == 0 or mine for t, mine in enumerate(own))


def _main_memory(system: System) -> int:
    """The first tier of 1 GB or more of a device; where sizes are traced, the first."""
    size = system.memory.capacity_bytes
    large = [] if _traced(size) else [t for t, x in enumerate(np.asarray(size)) if x / system.n_chiplets >= 1e9]
    return large[0] if large else 0


def _gpu_name(system: System) -> str:
    names = {system.gpu_names[int(k)] if system.gpu_names else "" for k in system.kind}
    return names.pop() if len(names) == 1 else ""


def _kernels(name: str, parameters, source) -> dict[tuple[str, str], Any]:
    look_up = constants(parameters)
    mine = [e for e in read_entries(parameters) if e.gpu == name] if parameters is not None else []
    if parameters is not None and not mine:
        has = ", ".join(sorted({e.gpu for e in read_entries(parameters)} - {"any"})) or "none"
        raise ValueError(f"{parameters}: no constants of gpu {name!r}; the file has: {has}")
    known = dict.fromkeys(e.source for e in mine)
    if source is not None and source not in known:
        raise unknown_name(f"{parameters}: source for gpu {name}", source, known)
    return {key: look_up(name, _source(mine, *key, source), *key) for key in KERNELS}


def _source(entries: list[Entry], family: str, variant: str, wanted: str | None) -> str:
    """The library to take a kernel's constants from: the wanted one if it has them, else the first that has."""
    have = [e.source for e in entries if (e.family, e.variant) == (family, variant)]
    return wanted if wanted in have else next(iter(have), "")
