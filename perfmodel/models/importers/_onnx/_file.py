"""The file itself: protobuf to model, tensors to values, attributes to Python."""

import os
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ._value import BITS, FOLDED, NUMPY, STRING, Root, Value, checked

_LARGEST = 2**31 - 1  # bytes of a protobuf message
_INSTALL = "reading ONNX files needs the package onnx: pip install 'perfmodel[onnx]'"


def load_onnx() -> Any:
    """The package `onnx`, imported on first use."""
    try:
        import onnx
    except ImportError as error:
        raise ValueError(f"{_INSTALL} ({error})") from None
    return onnx


def read_model(path: str | Path) -> Any:
    """The ModelProto in a file, without external data. Raises ValueError naming file and problem."""
    onnx, path = load_onnx(), Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a directory; expected an ONNX file")
    try:
        size = path.stat().st_size
        content = path.read_bytes() if 0 < size <= _LARGEST else b""
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if not content:
        raise ValueError(f"{path}: {'is empty' if not size else f'has {size} bytes; allowed: at most {_LARGEST}'}")
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, RecursionError, UnicodeDecodeError, ValueError, MemoryError):
        raise ValueError(f"{path}: is not an ONNX file, or a damaged one (protobuf does not parse)") from None
    if not model.HasField("graph"):
        raise ValueError(f"{path}: is not an ONNX file, or a damaged one (there is no graph in it)")
    return model


class Tensors:
    """Turns TensorProto into values; reads small external data from beside the file where it is there."""

    def __init__(self, path: str | Path):
        self.onnx, self.folder = load_onnx(), Path(path).parent

    def value(self, tensor: Any, name: str) -> Value:
        """A static value, with its elements where they are few and present."""
        try:
            shape = checked(tensor.dims)
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from None
        size, elem = prod(shape), tensor.data_type
        if elem not in BITS or not elem:
            raise ValueError(f"tensor {name!r}: element type is {elem}, which ONNX does not know")
        array = self._array(tensor, shape) if size <= FOLDED else None
        return Value(name, shape, elem, True, array, (Root(name, size, elem, size),))

    def sparse(self, tensor: Any) -> Value:
        """A sparse initialiser: as many stored elements as it has values."""
        dense, stored = checked(tensor.dims), prod(checked(tensor.values.dims))
        name, elem, size = tensor.values.name, tensor.values.data_type, prod(dense)
        if elem not in BITS or not elem or stored > size:
            raise ValueError(f"sparse tensor {name!r}: {stored} values of type {elem} in a shape {dense}")
        return Value(name, dense, elem, True, None, (Root(name, stored, elem, size),))

    def _array(self, tensor: Any, shape: tuple[int, ...]) -> np.ndarray | None:
        try:
            if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
                return self._external(tensor, shape)
            array = self.onnx.numpy_helper.to_array(tensor)
        except Exception:  # damaged contents: the shape is what counts
            return None
        if array.shape != shape:
            return None
        return array.astype(np.float32) if array.dtype.kind not in "biufcOSU" else array

    def _external(self, tensor: Any, shape: tuple[int, ...]) -> np.ndarray | None:
        said = {entry.key: entry.value for entry in tensor.external_data}
        location, dtype = said.get("location", ""), NUMPY.get(tensor.data_type)
        if dtype is None or not location or os.path.isabs(location) or ".." in Path(location).parts:
            return None
        path, length = self.folder / location, prod(shape) * np.dtype(dtype).itemsize
        if not path.is_file():
            return None
        with path.open("rb") as file:
            file.seek(int(said.get("offset") or 0))
            content = file.read(length)
        return np.frombuffer(content, dtype).reshape(shape)


def attributes_of(node: Any, outer: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    """Attributes of a node as Python objects (graphs stay protobuf); references of a function body are looked up in `outer`."""
    made: dict[str, Any] = {}
    kinds = tensors.onnx.AttributeProto
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name in outer:
                made[attribute.name] = outer[attribute.ref_attr_name]
        elif attribute.type == kinds.FLOAT:
            made[attribute.name] = attribute.f
        elif attribute.type == kinds.INT:
            made[attribute.name] = attribute.i
        elif attribute.type == kinds.STRING:
            made[attribute.name] = attribute.s
        elif attribute.type == kinds.INTS:
            made[attribute.name] = list(attribute.ints)
        elif attribute.type == kinds.FLOATS:
            made[attribute.name] = list(attribute.floats)
        elif attribute.type == kinds.STRINGS:
            made[attribute.name] = list(attribute.strings)
        elif attribute.type == kinds.GRAPH:
            made[attribute.name] = attribute.g
        elif attribute.type == kinds.TENSOR:
            made[attribute.name] = tensors.value(attribute.t, attribute.t.name or attribute.name)
        elif attribute.type == kinds.SPARSE_TENSOR:
            made[attribute.name] = tensors.sparse(attribute.sparse_tensor)
    return made


def constant(op_attributes: dict[str, Any], name: str) -> Value:
    """What a node `Constant` makes."""
    for key in ("value", "sparse_value"):
        if key in op_attributes:
            value = op_attributes[key]
            if not isinstance(value, Value):
                raise ValueError(f"attribute {key} is not a tensor")
            root = value.roots[0]
            return Value(
                name, value.shape, value.elem, True, value.array, (Root(name, root.elements, root.elem, root.size),)
            )
    kinds = {
        "value_float": (1, np.float32),
        "value_floats": (1, np.float32),
        "value_int": (7, np.int64),
        "value_ints": (7, np.int64),
    }
    for key, (elem, dtype) in kinds.items():
        if key in op_attributes:
            array = np.asarray(op_attributes[key], dtype)
            return Value(name, array.shape, elem, True, array, (Root(name, array.size, elem, array.size),))
    for key in ("value_string", "value_strings"):
        if key in op_attributes:
            shape = (len(op_attributes[key]),) if key == "value_strings" else ()
            return Value(name, shape, STRING, True, None, (Root(name, prod(shape), STRING, prod(shape)),))
    raise ValueError("a Constant without a value")
