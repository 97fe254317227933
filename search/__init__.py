"""Finds good systems and schedules: relaxation, evolution, Pareto fronts."""

import os
import sys

if os.path.basename(sys.argv[0]) in ("perfmodel", "cli.py"):
    # As a command. XLA logs as errors, page after page, that programs from its cache name tuning flags which are no features of
    # a processor; it reads this before JAX is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from ._evolve import Population as Population
from ._explore import RELAXED_STEP_EVALUATIONS as RELAXED_STEP_EVALUATIONS
from ._explore import Front as Front
from ._explore import Settings as Settings
from ._explore import check_possible as check_possible
from ._explore import explore as explore
from ._explore import explore_baseline as explore_baseline
from ._explore import first_random as first_random
from ._explore import monolithic as monolithic
from ._objectives import OBJECTIVES as OBJECTIVES
from ._pareto import dominates as dominates
from ._pareto import front_of as front_of
from ._pareto import hypervolume as hypervolume
from ._pareto import ranks as ranks
from ._space import Space as Space
from .memory._design import MemoryDesign as MemoryDesign
from .memory._design import design_memory as design_memory
from .memory._model import ExpertRequest as ExpertRequest
from .memory._model import Request as Request
from .memory._prices import MemoryPrices as MemoryPrices
from .memory._prices import memory_prices as memory_prices
