"""ZigZag: the model's answers beside theirs."""

from ._zigzag import COLUMNS as COLUMNS
from ._zigzag import MACHINES_FILE as MACHINES_FILE
from ._zigzag import compare as compare
from ._zigzag import load_machines as load_machines
from ._zigzag import machine as machine
from ._zigzag import row_nest as row_nest
from ._zigzag import row_problem as row_problem
from ._zigzag import stacked as stacked
from ._zigzag import zigzag_cost as zigzag_cost
