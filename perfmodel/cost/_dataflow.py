"""What one operator does inside one chiplet: array cycles, buffer traffic and local accesses, by dataflow.

All functions are elementwise: operator fields and chiplet fields may be scalars or arrays that broadcast. The loop nest of
every dataflow is fixed (this floor's mapper chooses among few): the table floor and the fast evaluator call the same code.

- `ws` (NVDLA-like): K over rows, C over columns; weights stay in the array while all outputs pass; sums over C are reduced
  in space, sums over R and S in the accumulators beside the array; partial sums go through the buffer once per C tile.
- `os` (ShiDianNao-like): output pixels over rows and columns, sums stay in place; weights are broadcast; neighbouring PEs
  pass inputs on, so that a pixel is read once per filter. The rows of a GEMM fold over both dimensions.
- `os-flex`: output-stationary with any two output dimensions unrolled: pixels x pixels as in `os`, filters x pixels or
  pixels x filters, whichever takes the fewest cycles (then the least buffer traffic).
- `os-systolic`, `ws-systolic`, `is-systolic`: see `_systolic`.  `rs`: see `_row_stationary`.
- `gpu` has no loop nest here: `os-flex` stands in, and `cost_table` puts `kernels`'s seconds and energies in its place.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._numerics import ceil_divide
from ..hardware import DATAFLOWS, Chiplets
from ..workload import Operators
from ._bounds import OnChip as OnChip
from ._systolic import OS as OS_SYSTOLIC
from ._systolic import systolic
from .nest._closed_form import fastest, of_way, output_stationary, weight_stationary
from .nest._row_stationary import row_stationary
from .nest._stated import Layer, count_stated

_OS, _OS_FLEX, _RS, _GPU = (DATAFLOWS.index(name) for name in ("os", "os-flex", "rs", "gpu"))


def on_chip(op: Operators, chip: Chiplets, smooth: bool = False) -> OnChip:
    """Cycles and accesses of operators on chiplets (elementwise). Matrix rows run on the array, others on the lanes."""
    array, matrix = _array(op, chip, smooth), op.is_matrix > 0
    vector_bytes = (
        op.in_elements * op.in_bits / 8 + (op.weight_elements * op.weight_bits + op.out_elements * op.out_bits) / 8
    )
    vector = OnChip(
        cycles=ceil_divide(op.lane_ops, chip.lanes, smooth),
        fill_cycles=0.0,
        buffer_bytes=vector_bytes,
        local_bytes=0.0,
        input_reads=op.in_elements,
        weight_reads=op.weight_elements,
        output_writes=op.out_elements,
    )  # type: ignore[arg-type]
    return OnChip(*(jnp.where(matrix, a, v) for a, v in zip(array, vector, strict=True)))


def _array(op: Operators, chip: Chiplets, smooth: bool) -> OnChip:
    """The matrix operators, in the dataflow of each chiplet. Rarer dataflows are worked out only where a chiplet has one."""
    shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in jax.tree.leaves((op, chip))))
    dtype = jnp.result_type(float)
    codes = jnp if isinstance(chip.dataflow, Tracer) else np
    code = codes.where(chip.dataflow >= _GPU, _OS_FLEX, chip.dataflow)
    # of one shape and type from here on: the program is smaller by a third
    op, chip = (jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, dtype), shape), x) for x in (op, chip))

    def chosen(*flows: tuple[int, OnChip]) -> OnChip:
        """Of the (first code, costs) given, the last whose first code is not above the chiplet's dataflow."""
        (_, best), *others = flows
        for first, flow in others:
            best = OnChip(*(jnp.where(code >= first, a, b) for a, b in zip(flow, best, strict=True)))
        return OnChip(*(jnp.broadcast_to(x, shape).astype(dtype) for x in best))

    layer, filled = Layer.of(op), {"fill_cycles": chip.rows + chip.columns}

    def usual() -> OnChip:
        ws = count_stated(weight_stationary(layer, chip, smooth))._replace(**filled)
        if not chip.may_be(_OS, _OS_FLEX, _GPU):
            return chosen((0, ws))
        ways = count_stated(*output_stationary(layer, chip, smooth))._replace(**filled)
        os, flexible = (OnChip(*(of_way(x, way, ways.cycles) for x in ways)) for way in (0, fastest(ways)))
        return chosen((0, ws), (_OS, os), (_OS_FLEX, flexible))

    def with_rare() -> OnChip:
        found = [(0, usual())]
        if chip.may_be(*range(OS_SYSTOLIC, _RS)):
            found.append((OS_SYSTOLIC, systolic(op, chip, smooth)))
        if chip.may_be(_RS):
            found.append((_RS, row_stationary(op, chip, smooth)))
        return chosen(*found)

    if not chip.may_be(*range(OS_SYSTOLIC, _RS + 1)):
        return usual()
    if not isinstance(code, Tracer):
        return with_rare() if np.any(code >= OS_SYSTOLIC) else usual()
    if chip.known is not None:
        return with_rare()
    return jax.lax.cond(jnp.any(code >= OS_SYSTOLIC), with_rare, usual)
