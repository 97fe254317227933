"""Dividing a price between the tiers of a memory."""

from ._design import MemoryDesign as MemoryDesign
from ._design import design_memory as design_memory
from ._design import gradient as gradient
from ._model import ExpertRequest as ExpertRequest
from ._model import Request as Request
from ._model import compute_of as compute_of
from ._model import mix_s as mix_s
from ._model import own_tiers as own_tiers
from ._model import prepared as prepared
from ._model import request_s as request_s
from ._prices import MemoryPrices as MemoryPrices
from ._prices import memory_prices as memory_prices
