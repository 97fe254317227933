"""Sizes that an exported PyTorch program leaves open: bound by the caller, else those of the example it was exported with."""

import ast
from collections.abc import Iterable
from math import ceil, floor

from ...._names import unknown_name
from ._read import Expression, SymInt

_MOST_AXES, _LARGEST, _LONGEST = 16, 2**31 - 1, 2000
_CALLS = {
    "Integer": lambda a: a, "Add": lambda *a: sum(a), "Max": max, "Min": min, "FloorDiv": lambda a, b: a // b,
    "CleanDiv": lambda a, b: a // b, "IntTrueDiv": lambda a, b: a / b, "CeilDiv": lambda a, b: -(-a // b), "Mod": lambda a, b: a % b,
    "PythonMod": lambda a, b: a % b, "ModularIndexing": lambda a, b, c: a // b % c, "floor": floor, "ceiling": ceil, "CeilToInt": ceil,
    "FloorToInt": floor, "TruncToInt": int, "ToFloat": float, "Rational": lambda a, b: a / b,
}  # fmt: skip


class Symbols:
    """Values of the symbols. `where`: of each symbol an axis that has its size."""

    def __init__(
        self, file: str, inputs: Iterable[tuple[str, list[SymInt]]], bind: dict[str, int] | None, batch: int | None
    ):
        self.file, self.where, self.values = file, {}, {}
        places: dict[str, str | None] = {}
        hints: dict[str, int] = {}
        first = None
        for name, sizes in inputs:
            for axis, size in enumerate(sizes):
                symbol = _symbol(size.as_expr) if size.as_expr else None
                places[f"{name}[{axis}]"] = symbol
                if axis == 0 and first is None:
                    first = name, size, symbol
                if symbol and size.as_expr and size.as_expr.hint and size.as_expr.hint.as_int:
                    hints.setdefault(symbol, size.as_expr.hint.as_int)
                if symbol:
                    self.where.setdefault(symbol, f"{name}[{axis}]")
        for name, size in (bind or {}).items():
            symbol = places.get(name) or (name if name in self.where else None)
            if symbol is None:
                raise unknown_name(f"{file}: bind", name, [*self.where, *(p for p, s in places.items() if s)])
            self._set(symbol, size)
        if batch is not None:
            self._batch(first, batch)
        self.free = [symbol for symbol in self.where if symbol not in self.values]
        for symbol in self.free:
            self.values[symbol] = max(1, hints.get(symbol, 1))

    def _set(self, symbol: str, size: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _LARGEST:
            raise ValueError(f"{self.file}: {symbol} is bound to {size!r}; allowed: an integer from 1 to {_LARGEST}")
        if self.values.setdefault(symbol, size) != size:
            raise ValueError(f"{self.file}: {symbol} is bound to {self.values[symbol]} and to {size}")

    def _batch(self, first: tuple | None, batch: int) -> None:
        if first is None:
            raise ValueError(f"{self.file}: batch is {batch}, but no input has an axis")
        name, size, symbol = first
        if symbol:
            self._set(symbol, batch)
        elif size.as_int != batch:
            raise ValueError(
                f"{self.file}: batch is {batch}, but the first axis of {name} was exported as {size.as_int}"
            )

    def shape(self, name: str, sizes: list[SymInt]) -> tuple[int, ...]:
        """Raises ValueError for sizes that are negative, too large, or cannot be told."""
        if len(sizes) > _MOST_AXES:
            raise ValueError(f"{self.file}: tensor {name!r} has {len(sizes)} axes; allowed: at most {_MOST_AXES}")
        return tuple(self._size(name, size) for size in sizes)

    def _size(self, name: str, size: SymInt) -> int:
        value = size.as_int
        if size.as_expr:
            value = self._value(size.as_expr)
        if value is None or not 0 <= value <= _LARGEST:
            said = size.as_expr.expr_str[:100] if size.as_expr else size.as_int
            raise ValueError(f"{self.file}: tensor {name!r} has the size {said!r}; allowed: 0 to {_LARGEST}")
        return value

    def _value(self, expression: Expression) -> int | None:
        """The size with the symbols bound; where it hangs on others (data), that of the example."""
        hint = expression.hint.as_int if expression.hint else None
        if len(expression.expr_str) > _LONGEST:
            return hint
        try:
            value = self._evaluated(ast.parse(expression.expr_str, mode="eval").body)
            return int(value) if abs(value) < 2**62 else None
        except (SyntaxError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError, MemoryError):
            return hint

    def _evaluated(self, node: ast.AST) -> float:
        """`2*s0 + 1` of older versions, or `Add(Mul(Integer(2), Symbol('s0', ...)), Integer(1))`."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return _bounded(node.value)
        if isinstance(node, ast.Name):
            return self.values[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self._evaluated(node.operand)
        if isinstance(node, ast.BinOp):
            a, b = self._evaluated(node.left), self._evaluated(node.right)
            name = type(node.op).__name__
            return _bounded(
                {"Add": a + b, "Sub": a - b, "Mult": a * b}[name]
                if name in ("Add", "Sub", "Mult")
                else _divided(name, a, b)
            )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called = node.func.id
            if called == "Symbol":
                return self.values[ast.literal_eval(node.args[0])]
            values = [self._evaluated(arg) for arg in node.args]
            if called == "Mul":
                made = 1
                for value in values:
                    made = _bounded(made * value)
                return made
            return _bounded(_divided("Pow", *values) if called == "Pow" else _CALLS[called](*values))
        raise ValueError("not an expression of sizes")


def _symbol(expression: Expression) -> str | None:
    """The name where the expression is one symbol."""
    text = expression.expr_str.strip()
    if text.startswith("Symbol(") and text.count("(") == 1:
        text = text[len("Symbol(") :].split(",")[0].rstrip(")").strip("'\" ")
    return text if text.isidentifier() else None


def _divided(name: str, a: float, b: float) -> float:
    if name == "Pow":
        if abs(b) > 64 or abs(a) > 2**31:
            raise ValueError("too large")
        return a**b
    return {"FloorDiv": lambda: a // b, "Div": lambda: a / b, "Mod": lambda: a % b}[name]()


def _bounded(value: float) -> float:
    if abs(value) > 2**62:
        raise ValueError("too large")
    return value
