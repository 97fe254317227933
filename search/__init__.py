"""Finds good systems and schedules: relaxation, evolution, Pareto fronts."""

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
