"""MAESTRO: the model's answers beside theirs."""

from ._dataflows import DATAFLOWS as DATAFLOWS
from ._dataflows import Layer as Layer
from ._dataflows import machine as machine
from ._maestro import COLUMNS as COLUMNS
from ._maestro import HOW as HOW
from ._maestro import compare as compare
from ._maestro import maestro_cost as maestro_cost
