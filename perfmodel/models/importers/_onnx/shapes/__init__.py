"""Shapes and element types of what operators of ONNX make, one module a family."""

from ._attention import ATTENTION as ATTENTION
from ._attention import AttentionSizes as AttentionSizes
from ._attention import attention_sizes as attention_sizes
from ._attention import projected as projected
from ._elementwise import reduced_axes as reduced_axes
from ._matrix import GATES as GATES
from ._matrix import Equation as Equation
from ._matrix import conv_operands as conv_operands
from ._matrix import conv_window as conv_window
from ._matrix import matmul_operands as matmul_operands
from ._matrix import matmul_shapes as matmul_shapes
from ._matrix import pool_window as pool_window
from ._matrix import recurrent_sizes as recurrent_sizes
from ._move import ends_of as ends_of
from ._move import slices as slices
from ._table import SHAPES as SHAPES
