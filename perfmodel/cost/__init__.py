"""What one operator costs on one chiplet: dataflow, tiling, energy, silicon, price."""

from ._dataflow import OnChip as OnChip
from ._dataflow import on_chip as on_chip
from ._silicon import chiplet_area_mm2 as chiplet_area_mm2
from ._silicon import die_usd as die_usd
from ._silicon import system_area_mm2 as system_area_mm2
from ._silicon import system_usd as system_usd
from ._table import CostTable as CostTable
from ._table import cost_table as cost_table
from ._table import operator_cost as operator_cost
from ._table import with_sub_batch as with_sub_batch
from ._tiling import Tiling as Tiling
from ._tiling import tiling as tiling
