"""Small ONNX files, node by node, for the tests of the importer."""

from collections import Counter

import numpy as np
import pytest

from perfmodel.models import import_onnx
from perfmodel.workload import KINDS, Workload

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

node = helper.make_node
F, I8, U8, I64, BOOL = (getattr(TensorProto, t) for t in ("FLOAT", "INT8", "UINT8", "INT64", "BOOL"))


def weight(name, *dims, elem=F):
    """An initialiser of which only the shape is there."""
    return TensorProto(name=name, data_type=elem, dims=dims)


def ints(name, *values):
    return numpy_helper.from_array(np.asarray(values, np.int64), name)


def number(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def value(name, *dims, elem=F):
    return helper.make_tensor_value_info(name, elem, dims)


def load_in(folder, nodes, inputs, outputs, stored=(), *, functions=(), opset=21, sparse=(), **options) -> Workload:
    graph = helper.make_graph(nodes, "g", inputs, [value(o) if isinstance(o, str) else o for o in outputs], stored)
    graph.sparse_initializer.extend(sparse)
    domains = [("", opset), ("com.microsoft", 1), ("own", 1)]
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid(*d) for d in domains], functions=functions)
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return import_onnx(path, **options)


def kinds(w) -> dict:
    return dict(Counter(KINDS[k] for k in w.operators.kind))


def row(w, i) -> dict:
    return {name: getattr(w.operators, name)[i] for name in w.operators.__dataclass_fields__}
