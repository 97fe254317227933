"""Gemmini's RTL: the model's answers beside theirs."""

from ._gemmini_rtl import COLUMNS as COLUMNS
from ._gemmini_rtl import GemminiRtl as GemminiRtl
from ._gemmini_rtl import RtlWork as RtlWork
from ._gemmini_rtl import compare as compare
from ._gemmini_rtl import fit as fit
from ._gemmini_rtl import held_out as held_out
from ._gemmini_rtl import read_parameters as read_parameters
from ._gemmini_rtl import rtl_cycles as rtl_cycles
from ._gemmini_rtl import uncertainty as uncertainty
from ._gemmini_rtl import work_of as work_of
