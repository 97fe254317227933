"""The rule of every operator that has one."""

from .._value import Rule
from ._attention import ATTENTION
from ._elementwise import ELEMENTWISE
from ._matrix import MATRIX
from ._move import MOVES
from ._transform import TRANSFORMS

SHAPES: dict[str, Rule] = {**MOVES, **ELEMENTWISE, **MATRIX, **TRANSFORMS, **ATTENTION}
