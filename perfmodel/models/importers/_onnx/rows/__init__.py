"""Rows of a workload from operators of ONNX, one module a family."""

from ._lanes import VIEWS as VIEWS
from ._lanes import default_row as default_row
from ._lanes import is_operand as is_operand
from ._table import ROWS as ROWS
