"""Finds good systems and schedules: relaxation, evolution, Pareto fronts."""

import os
import sys

if os.path.basename(sys.argv[0]) in ("perfmodel", "cli.py"):
    # As a command. XLA logs as errors, page after page, that programs from its cache name tuning flags which are no features of
    # a processor; it reads this before JAX is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from perfmodel._lazy import listed

from ._evolve import Population as Population
from ._evolve import offspring as offspring
from ._evolve import random_population as random_population
from ._evolve import select as select
from ._explore import RELAXED_STEP_EVALUATIONS as RELAXED_STEP_EVALUATIONS
from ._explore import Front as Front
from ._explore import Settings as Settings
from ._explore import check_possible as check_possible
from ._explore import explore as explore
from ._explore import explore_baseline as explore_baseline
from ._explore import first_random as first_random
from ._explore import monolithic as monolithic
from ._objectives import OBJECTIVES as OBJECTIVES
from ._objectives import costs as costs
from ._pareto import crowding as crowding
from ._pareto import dominates as dominates
from ._pareto import front_of as front_of
from ._pareto import hypervolume as hypervolume
from ._pareto import ranks as ranks
from ._space import Space as Space
from .memory import ExpertRequest as ExpertRequest
from .memory import MemoryDesign as MemoryDesign
from .memory import MemoryPrices as MemoryPrices
from .memory import Request as Request
from .memory import design_memory as design_memory
from .memory import memory_prices as memory_prices

LISTS = {"_partition": ("order_of", "relaxed_orders", "reordered", "search_partition")}  # loaded when it is asked for


def __getattr__(name: str):
    return listed(__name__, LISTS, name)
