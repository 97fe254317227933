"""What is to be computed: operators, graphs, the zoo of models."""

from . import _models as models
from ._dtypes import DTYPES as DTYPES
from ._dtypes import Precision as Precision
from ._dtypes import precision as precision
from ._graph import MIXES as MIXES
from ._graph import GraphBuilder as GraphBuilder
from ._graph import Workload as Workload
from ._graph import merge as merge
from ._net import Net as Net
from ._net import Tensor as Tensor
from ._operators import CLASS_OF as CLASS_OF
from ._operators import CLASSES as CLASSES
from ._operators import KINDS as KINDS
from ._operators import MATRIX_KINDS as MATRIX_KINDS
from ._operators import Operators as Operators
from ._operators import exact_macs as exact_macs
from ._operators import operator_row as operator_row
from .importers import ImportedModelWarning as ImportedModelWarning

__all__ = [
    "CLASSES", "CLASS_OF", "DTYPES", "GraphBuilder", "ImportedModelWarning", "KINDS", "MATRIX_KINDS", "MIXES", "Net",
    "Operators", "Precision", "Tensor", "Workload", "exact_macs", "merge", "models", "operator_row", "precision",
]  # fmt: skip
