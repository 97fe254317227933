"""Chiplets: a struct of arrays, one row a chiplet (or a chiplet type)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

# The code of a dataflow is its place here: append, never reorder. os-flex: output-stationary with any two output dimensions
# unrolled; *-systolic: operands handed on from PE to PE (SCALE-Sim); rs: row-stationary (Eyeriss); gpu: no loop nest of ours but
# the kernels of a library (rows: multiprocessors, columns: 16-bit MACs a cycle of each, buffer: L2 that one of them can use).
DATAFLOWS = ("ws", "os", "os-flex", "os-systolic", "ws-systolic", "is-systolic", "rs", "gpu")


class Chiplets(eqx.Module):
    """`D` chiplets. Energies are per byte moved or per operation, at the level named.

    - `rows, columns`: processing elements.  `dataflow`: index into `DATAFLOWS`.
    - `lanes`: vector lanes, one operation a cycle each.  `launch_s`: overhead of starting an operator.
    - `buffer_bytes, buffer_bytes_per_s`: the on-chip buffer and its bandwidth to the array.
    - `static_w`: power drawn whether busy or not.
    - `other_mm2`: area of the die that is neither MACs nor buffer nor die-to-die interface.
    """

    rows: Float[Array, "D"]
    columns: Float[Array, "D"]
    dataflow: Int[Array, "D"]
    clock_hz: Float[Array, "D"]
    lanes: Float[Array, "D"]
    buffer_bytes: Float[Array, "D"]
    buffer_bytes_per_s: Float[Array, "D"]
    launch_s: Float[Array, "D"]
    mac_j: Float[Array, "D"]
    lane_op_j: Float[Array, "D"]
    local_j_per_byte: Float[Array, "D"]
    buffer_j_per_byte: Float[Array, "D"]
    static_w: Float[Array, "D"]
    other_mm2: Float[Array, "D"]

    @property
    def n_chiplets(self) -> int:
        return self.rows.shape[0]

    @property
    def peak_macs_per_s(self) -> Float[Array, "D"]:
        return self.rows * self.columns * self.clock_hz

    def knowing(self) -> "Chiplets":
        """The same chiplets, which know of themselves what dataflows there are; as they are where that is traced."""
        if isinstance(self.dataflow, Tracer):
            return self
        codes = tuple(int(c) for c in np.unique(np.asarray(self.dataflow)))
        return KnownChiplets(**{name: getattr(self, name) for name in Chiplets.__dataclass_fields__}, present=codes)

    def may_be(self, *codes: int) -> bool:
        """Whether one of the chiplets may have one of these dataflows."""
        return bool(set(codes) & set(self.known or codes))

    @property
    def known(self) -> tuple[int, ...] | None:
        """Codes of the dataflows that there are; None: any."""
        return None

    def pick(self, index) -> "Chiplets":
        """Rows by index (any integer array, also traced): from types to the chiplets of a package."""
        traced = isinstance(index, Tracer)  # which NumPy fields do not take
        return jax.tree.map(lambda field: (jnp.asarray(field) if traced else field)[index], self)


class KnownChiplets(Chiplets):
    """Chiplets of dataflows that a program is made for, so that it works out no others. `present` (static): their codes."""

    present: tuple[int, ...] = eqx.field(static=True, kw_only=True)

    @property
    def known(self) -> tuple[int, ...] | None:
        """Codes of the dataflows that there are."""
        return self.present


def stack_chiplets(rows: list[dict]) -> Chiplets:
    """Dictionaries of SI numbers as one struct of arrays."""
    return Chiplets(
        **{
            name: np.asarray([row[name] for row in rows], np.int32 if name == "dataflow" else np.float64)
            for name in Chiplets.__dataclass_fields__
        }
    )
