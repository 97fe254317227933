"""A system: chiplets + memory + package + technology."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._names import unknown_name
from .._software import NONE, Software
from ._chiplet import Chiplets
from ._gpu import Gpu
from ._memory import MemoryTiers
from ._package import Package
from ._technology import Technology


class System(eqx.Module):
    """What computes a workload. `D` chiplets, each of one of `K` types.

    - `chiplets`: the `D` chiplets as they are, free to be changed or differentiated one by one.
    - `types`: the `K` chiplet types that the system file declares; `kind[d]` the type of chiplet d.
    - `gpus`: what the specification sheets say of the types that are GPUs, leaves `[K]` (of other types: any GPU's); None where no
      type is one. What chiplets and memory say too (peak, clock, L2, DRAM) is taken from there.  `gpu_names[k]`: "" for others.
    - `kernels`: constants of its GPUs' kernels fitted to measurements (`cost.gpu_kernels`); None: those shipped.
    - `ways`: what collectives between its devices meet (`cost`); None: not asked for.
    - `runs[k]`: kinds of operators that type k can run, empty: all; () where no type says.
    - `software`: what runs on it, as the machine's file states; whoever evaluates a language model there lowers it to that.
    - `name, chiplet_names, type_names, gpu_names, runs, software`: static.
    """

    chiplets: Chiplets
    memory: MemoryTiers
    package: Package
    technology: Technology
    types: Chiplets
    kind: Int[Array, "D"]
    name: str = eqx.field(static=True)
    chiplet_names: tuple[str, ...] = eqx.field(static=True)
    type_names: tuple[str, ...] = eqx.field(static=True)
    gpus: Gpu | None = None
    kernels: Any = None
    ways: Any = None
    gpu_names: tuple[str, ...] = eqx.field(static=True, default=())
    runs: tuple[tuple[str, ...], ...] = eqx.field(static=True, default=())
    software: Software = eqx.field(static=True, default=NONE)

    @property
    def n_chiplets(self) -> int:
        return self.package.hops.shape[-1]

    @property
    def resource_names(self) -> tuple[str, ...]:
        """Names of everything that can be the bottleneck, in the order of `Metrics.busy_s`."""
        chiplets = [f"chiplet {name}" for name in self.chiplet_names]
        ports = [f"port {way} {name}" for way in ("out", "in") for name in self.chiplet_names]
        links = [f"link {name}" for name in self.package.link_names]
        return tuple(chiplets + links + ports + [f"memory {name}" for name in self.memory.names])

    def with_types(self, names) -> "System":
        """The same package with a chiplet of the named type at each position. ValueError for an unknown type."""
        for name in names:
            if name not in self.type_names:
                raise unknown_name(f"{self.name}: chiplet type", name, self.type_names)
        if len(names) != self.n_chiplets:
            raise ValueError(f"{self.name}: {len(names)} types for {self.n_chiplets} chiplets; one each is needed")
        return self.with_kinds([self.type_names.index(name) for name in names])

    def with_kinds(self, kind) -> "System":
        """The same package with a chiplet of type `kind[d]` at each position; `kind` may be traced.

        A float `kind` of shape `D x K` is relaxed: each chiplet is a mixture of types (its dataflow code that of the largest
        share: costs must come from a table by type)."""
        kind = jnp.asarray(kind)
        if jnp.issubdtype(kind.dtype, jnp.integer):
            return eqx.tree_at(lambda s: (s.chiplets, s.kind), self, (self.types.pick(kind), kind))

        def mixed(field):
            field = jnp.asarray(field)
            return (
                field[jnp.argmax(kind, axis=1)]
                if jnp.issubdtype(field.dtype, jnp.integer)
                else kind @ field.astype(kind.dtype)
            )

        return eqx.tree_at(lambda s: (s.chiplets, s.kind), self, (jax.tree.map(mixed, self.types), kind))
