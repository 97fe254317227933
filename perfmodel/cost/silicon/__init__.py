"""Area, yield and price."""

from ._area import Price as Price
from ._area import chiplet_area_mm2 as chiplet_area_mm2
from ._area import die_areas_mm2 as die_areas_mm2
from ._area import package_usd as package_usd
from ._area import phy_area_mm2 as phy_area_mm2
from ._area import system_area_mm2 as system_area_mm2
from ._area import system_price as system_price
from ._area import system_usd as system_usd
from ._yield import die_usd as die_usd
from ._yield import die_yield as die_yield
from ._yield import dies_per_wafer as dies_per_wafer
from ._yield import known_good_die_usd as known_good_die_usd
