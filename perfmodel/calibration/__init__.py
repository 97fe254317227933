"""Checks of the model against other tools and measurements, and fits of its parameters to them."""

from .._lazy import listed
from ._comparison import Comparison as Comparison
from ._comparison import figures as figures
from ._comparison import relative_errors as relative_errors
from ._fit import fit as fit
from ._table_file import JSON as JSON
from ._table_file import Column as Column
from ._table_file import Optional as Optional
from ._table_file import read_table as read_table
from ._validate import KINDS as KINDS
from ._validate import compare as compare
from ._validate import left_out as left_out
from ._validate import validate as validate
from .gpu_kernels import calibrate as calibrate

LISTS = {  # of kinds of reference, which are loaded when they are asked for
    "_eyeriss": ("TYPICAL_ZEROS", "run_length_ratio"),
    "_timeloop": ("parse_mapping",),
}


def __getattr__(name: str):
    return listed(__name__, LISTS, name)
