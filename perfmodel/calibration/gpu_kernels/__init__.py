"""Kernels of GPU libraries: the model's answers beside theirs."""

from ._gpu_kernels import calibrate as calibrate
from ._gpu_kernels import compare as compare
from ._gpu_kernels import entry as entry
from ._gpu_kernels import fit_group as fit_group
from ._gpu_kernels import fit_shared as fit_shared
from ._gpu_kernels import mape_percent as mape_percent
from ._rows import QUANTITIES as QUANTITIES
from ._rows import Group as Group
from ._rows import predicted_s as predicted_s
from ._rows import read_groups as read_groups
