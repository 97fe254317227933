"""Served and trained language models: the model's answers beside theirs."""

from ._llm import REQUEST_S as REQUEST_S
from ._llm import compare as compare
from ._llm import left_out as left_out
from ._llm import predictions as predictions
from ._rows import QUANTITIES as QUANTITIES
from ._rows import Row as Row
from ._rows import read_rows as read_rows
