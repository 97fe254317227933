"""Who makes the rows of which operator."""

from .._emit import RowMaker
from . import _attention, _lanes, _matrix, _recurrent

ROWS: dict[str, RowMaker] = {**_lanes.ROWS, **_matrix.ROWS, **_recurrent.ROWS, **_attention.ROWS}
