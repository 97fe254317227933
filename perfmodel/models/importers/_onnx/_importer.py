"""ONNX files as workloads."""

import warnings
from pathlib import Path

import numpy as np

from ....workload._dtypes import precision
from ....workload._graph import GraphBuilder, Workload
from .. import ImportedModelWarning
from ._bind import Binding
from ._control import CONTROL
from ._emit import Emitter
from ._file import Tensors, read_model
from ._fuse import simplified
from ._plan import Scope
from ._trace import Tracer
from ._value import NUMPY, Value
from .rows import ROWS, default_row


def import_onnx(path: str | Path, *, batch: int | None = None, bind: dict[str, int] | None = None, dtype: str | None = None,
                weight_dtype: str | None = None, name: str | None = None) -> Workload:  # fmt: skip
    """The model in an ONNX file as a workload. Weights need not be there: shapes suffice.

    **Arguments:**
    - `batch`: size of the batch: dimensions named like one (`batch`, `batch_size`, `N`, ...), else the open first axis.
    - `bind`: sizes of symbolic dimensions by name (`{"sequence": 128}`), of unnamed ones by place (`{"input_ids[1]": 128}`),
      trip counts of loops by the name of the node. What stays open is 1, with an `ImportedModelWarning` that names it.
    - `dtype`, `weight_dtype`: precision of floats and quantised numbers instead of the file's (`perfmodel.workload.DTYPES`).
    - `name`: of the model; default: the file's.

    Rows are the operators that run when the model runs. What depends on constants alone is done when it is loaded. Free
    (a view) are reshaping, slicing, splitting, concatenating, casting and dequantising, since the reader takes what was
    written, and transposing where only matrix products read it; other transpositions move the tensor (`copy`).
    Patterns that exporters leave behind (GELU, SiLU, layer and RMS norm, bias after a product) become one row.
    Unknown operators count as data movement (`copy`), with a warning that names them. How parameters are counted:
    module `_emit`. Causal attention counts in full, as files write it.

    Raises ValueError in one line naming the file, and the node or tensor, for anything that cannot be read: damaged files,
    missing shapes, tensors without elements, cycles, names bound that are not there; and where `onnx` is not installed.
    """
    file = str(path)
    activation = None if dtype is None else precision(dtype)
    weight = activation if weight_dtype is None else precision(weight_dtype, "weight_dtype")
    if activation is not None and activation.density != 1:
        raise ValueError(f"dtype is {dtype!r}; only weights may be sparse (weight_dtype)")
    model = read_model(path)
    graph, tensors = model.graph, Tensors(path)
    binding = Binding(file, bind, batch)
    tracer = Tracer(file, model, tensors, binding, CONTROL)
    scope = Scope(None)
    stored = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in stored]  # older files list initialisers as inputs too
    binding.inputs(inputs)
    for value in inputs:
        if value.name in scope.values:
            raise ValueError(f"{file}: input {value.name!r} stands twice")
        shape, elem = binding.input(value)
        scope.values[value.name] = Value(value.name, shape, elem)
        if shape == (0,):
            scope.values[value.name] = Value(value.name, shape, elem, True, np.zeros(0, NUMPY.get(elem)))
    if not graph.output:
        raise ValueError(f"{file}: the graph has no outputs, so nothing has to be computed")
    try:
        outputs = tracer.run_graph(graph, scope)
    except ValueError as error:
        left = f"; dimensions set to 1 as they are not bound: {_listed(list(binding.open))}" if binding.open else ""
        raise ValueError(f"{error}{left}") from None
    binding.finish()
    for value in outputs:
        if not value.size:
            raise ValueError(f"{file}: output {value.name!r} has no elements: shape {value.shape}")
    first = next((shape[0] for shape in (scope.values[v.name].shape for v in inputs) if shape), 1)
    builder = GraphBuilder(name or Path(path).stem or "model", first)
    emitter = Emitter(builder, activation, weight)
    try:
        ops, emitter.free = simplified(tracer.ops, outputs)
        emitter.run(ops, ROWS, default_row)
        emitter.finish(outputs)
        if not builder.rows:
            raise ValueError("nothing is computed when it runs: all outputs are constants")
        made = builder.build()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{file}: {error}") from None
    _warn(file, binding, tracer)
    return made


def _warn(file: str, binding: Binding, tracer: Tracer) -> None:
    """What was assumed, one warning a matter."""
    said = []
    if binding.open:
        names = list(binding.open)
        example = ", ".join(f"{name!r}: 1" for name in names[:3])
        said.append(f"dimensions that are not bound are set to 1: {_listed(names)} (bind={{{example}}})")
    if tracer.unknown:
        said.append(f"unknown operators count as data movement: {_listed(list(tracer.unknown))}")
    said += list(tracer.notes)[:20]
    for text in said:
        warnings.warn(f"{file}: {text}", ImportedModelWarning, stacklevel=4)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
