"""`milp`: the placement problem as a mixed-integer linear program: pairs of tasks, model, solution, schedule."""

from ._milp import milp as milp
from ._model import build as build
from ._pairs import TooLarge as TooLarge
from ._pairs import reachable as reachable
from ._solve import columns_of as columns_of
from ._solve import schedule_of as schedule_of
from ._solve import solve as solve
