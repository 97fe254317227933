"""How fast, how efficient and how expensive is a set of models on a package of chiplets under a schedule?

`evaluate(workload, system, schedule) -> Metrics` is a pure JAX function; everything else prepares one of its three inputs,
searches over them (package `search`), or shows what came out.
"""

from .cost import CostTable as CostTable
from .cost import cost_table as cost_table
from .hardware import System as System
from .hardware import systems as systems
from .schedule import Metrics as Metrics
from .schedule import Schedule as Schedule
from .schedule import evaluate as evaluate
from .schedule import evaluate_many as evaluate_many
from .workload import Workload as Workload
from .workload import merge as merge
from .workload import models as models
from .workload.importers import import_file as import_file
from .workload.importers import import_huggingface as import_huggingface
from .workload.importers import import_jax as import_jax
from .workload.importers import import_onnx as import_onnx
from .workload.importers import import_torch as import_torch

__version__ = "0.1.0"
