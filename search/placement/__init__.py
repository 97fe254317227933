"""Placement of operators on unlike devices: one problem, one timeline, every published method and a search of our own."""

from ._bounds import lower_bound as lower_bound
from ._build import from_workload as from_workload
from ._cluster import Cluster as Cluster
from ._cluster import clusters as clusters
from ._cluster import load_cluster as load_cluster
from ._evaluate import Timeline as Timeline
from ._evaluate import timeline as timeline
from ._file import load_instance as load_instance
from ._methods import METHODS as METHODS
from ._methods import place as place
from ._problem import NO_GROUP as NO_GROUP
from ._problem import Infeasible as Infeasible
from ._problem import Problem as Problem
from ._result import Placed as Placed
from .methods._robust import replace_after_loss as replace_after_loss
from .methods._robust import robust as robust
