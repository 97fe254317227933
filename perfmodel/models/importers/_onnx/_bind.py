"""Sizes that a file leaves open: symbolic and unnamed dimensions, bound by the caller or set to 1."""

import ast
import operator
from typing import Any

from ...._names import unknown_name
from ._value import BITS, MOST_AXES

_BATCH = ("batch", "batch_size", "batchsize", "batch_dim", "dim_batch", "bs", "b", "n", "num_batch", "nbatch", "unk__0")
_CALCULATE = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}


class Binding:
    """Sizes by name (`sequence`) or by place (`input_ids[1]`). `open`: what was left open and became 1, in order."""

    def __init__(self, file: str, bind: dict[str, int] | None, batch: int | None):
        self.file, self.batch, self.given = file, batch, dict(bind or {})
        for name, size in [*self.given.items(), *([("batch", batch)] if batch is not None else [])]:
            if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size < 2**31:
                raise ValueError(f"{file}: {name} is bound to {size!r}; allowed: an integer from 1 to 2147483647")
        self.symbols: dict[str, None] = {}
        self.open: dict[str, None] = {}
        self._used: set[str] = set()
        self._unnamed_batch = False

    def inputs(self, values: list[Any]) -> None:
        """Learn the symbolic dimensions of the model's inputs, and which of them is the batch."""
        axes = {value.name: _dims(value.type) for value in values}
        for name, dims in axes.items():
            for i, dim in enumerate(dims or ()):
                if _name(dim):
                    self.symbols[_name(dim)] = None
                elif _is_open(dim):
                    self.symbols[f"{name}[{i}]"] = None
        if self.batch is None:
            return
        found = [name for name in self.symbols if name.lower() in _BATCH]
        first = next(((name, dims[0]) for name, dims in axes.items() if dims), None)
        if not found and first is not None and first[1].dim_param:
            found = [first[1].dim_param]
        unnamed = [f"{name}[0]" for name, dims in axes.items() if dims and f"{name}[0]" in self.symbols]
        for name in [*found, *unnamed]:
            if self.given.setdefault(name, self.batch) != self.batch:
                raise ValueError(
                    f"{self.file}: batch is {self.batch} and {name} is bound to {self.given[name]}; they are one"
                )
        if not found and not unnamed:
            fixed = f"the first axis of input {first[0]!r} is {first[1].dim_value}" if first else "no input has an axis"
            if first is None or first[1].dim_value != self.batch:
                raise ValueError(f"{self.file}: batch is {self.batch}, but {fixed} in the file")

    def input(self, value: Any) -> tuple[tuple[int, ...], int]:
        """Shape and element type of an input of the model. Raises ValueError where it has no shape, or one without elements."""
        kind = value.type
        while kind.HasField("optional_type"):
            kind = kind.optional_type.elem_type
        where = f"{self.file}: input {value.name!r}"
        if kind.HasField("sequence_type") or kind.HasField("map_type"):
            raise ValueError(f"{where} is a sequence or a map; only tensors have sizes to bind")
        dims, tensor = _dims(kind), kind.sparse_tensor_type if kind.HasField("sparse_tensor_type") else kind.tensor_type
        if dims is None:
            shape = []
            while f"{value.name}[{len(shape)}]" in self.given:
                shape.append(self._place(f"{value.name}[{len(shape)}]", None))
            if not shape:
                raise ValueError(f"{where} has no shape in the file; bind its axes: bind={{'{value.name}[0]': 1, ...}}")
        else:
            if len(dims) > MOST_AXES:
                raise ValueError(f"{where} has {len(dims)} axes; allowed: at most {MOST_AXES}")
            shape = [self._dim(dim, f"{value.name}[{i}]") for i, dim in enumerate(dims)]
        if any(size < 1 for size in shape) and list(shape) != [0]:  # an empty list is an option left out
            raise ValueError(f"{where} has the shape {tuple(shape)}; every size must be at least 1")
        if tensor.elem_type not in BITS or not tensor.elem_type:
            raise ValueError(f"{where} has the element type {tensor.elem_type}, which ONNX does not know")
        return tuple(shape), tensor.elem_type

    def declared(self, name: str, kind: Any) -> tuple[tuple[int, ...], int] | None:
        """Shape and element type that the file declares for an intermediate value, None if it does not."""
        dims = _dims(kind)
        if dims is None or len(dims) > MOST_AXES or kind.tensor_type.elem_type not in BITS:
            return None
        return tuple(self._dim(dim, f"{name}[{i}]") for i, dim in enumerate(dims)), kind.tensor_type.elem_type

    def trips(self, name: str) -> int | None:
        """The trip count bound to a loop."""
        self.symbols[name] = None
        self._used.add(name)
        return self.given.get(name)

    def finish(self) -> None:
        """Raise ValueError for a bound name that the file does not have."""
        for name in self.given:
            if name not in self._used and name not in self.symbols:
                error = unknown_name(f"{self.file}: bind", name, self.symbols)
                raise (
                    error
                    if self.symbols
                    else ValueError(f"{self.file}: bind is {name!r}; the file has no open dimension")
                )

    def _dim(self, dim: Any, place: str) -> int:
        if place in self.given or not (_name(dim) or _is_open(dim)):
            return self._place(place, None if _name(dim) or _is_open(dim) else dim.dim_value)
        name = _name(dim) or place
        if name in self.given:
            self._used.add(name)
            return self.given[name]
        self.symbols[name] = None
        size = self._calculated(name) if _name(dim) else None
        if size is None or size < 1:
            self.open[name] = None
            return 1
        return size

    def _place(self, place: str, fixed: int | None) -> int:
        self._used.add(place)
        size = self.given.get(place, fixed)
        if fixed is not None and size != fixed:
            raise ValueError(f"{self.file}: {place} is bound to {size}, but fixed at {fixed} in the file")
        return int(size or 0)

    def _calculated(self, text: str) -> int | None:
        """The size of an expression of bound names (`past + 1`), None where it is none."""

        def walk(node: ast.AST) -> int:
            if isinstance(node, ast.Constant) and isinstance(node.value, int):
                return node.value
            if isinstance(node, ast.Name) and node.id in self.given:
                self._used.add(node.id)
                return self.given[node.id]
            if isinstance(node, ast.BinOp) and type(node.op) in _CALCULATE:
                return _CALCULATE[type(node.op)](walk(node.left), walk(node.right))
            raise KeyError

        try:
            return walk(ast.parse(text, mode="eval").body) if len(text) < 100 else None
        except (SyntaxError, ValueError, KeyError, ArithmeticError, RecursionError, MemoryError):
            return None


def _name(dim: Any) -> str:
    """The name of a symbolic dimension; a question mark is none."""
    return "" if dim.dim_param in ("?", "None", "-1") else dim.dim_param


def _is_open(dim: Any) -> bool:
    """Whether a dimension has no size (some exporters write -1)."""
    return not dim.HasField("dim_value") or dim.dim_value < 0


def _dims(kind: Any) -> Any:
    """Dimensions of a tensor type, None where it has no shape."""
    while kind.HasField("optional_type"):
        kind = kind.optional_type.elem_type
    tensor = kind.sparse_tensor_type if kind.HasField("sparse_tensor_type") else kind.tensor_type
    return tensor.shape.dim if tensor.HasField("shape") else None
