"""What is to be computed: operators, graphs, the zoo of models."""

from . import _models as models
from ._graph import MIXES as MIXES
from ._graph import GraphBuilder as GraphBuilder
from ._graph import Workload as Workload
from ._graph import merge as merge
from ._operators import KINDS as KINDS
from ._operators import MATRIX_KINDS as MATRIX_KINDS
from ._operators import Operators as Operators
from ._operators import exact_macs as exact_macs
from ._operators import operator_row as operator_row

__all__ = [
    "KINDS", "MATRIX_KINDS", "MIXES", "GraphBuilder", "Operators", "Workload", "exact_macs", "merge", "models", "operator_row",
]  # fmt: skip
