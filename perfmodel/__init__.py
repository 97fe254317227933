"""How fast, how efficient and how expensive is a set of models on a package of chiplets under a schedule?

`evaluate(workload, system, schedule) -> Metrics` is a pure JAX function; everything else prepares one of its three inputs,
searches over them (package `search`), or shows what came out.
"""

from . import models as models
from .cost import CostTable as CostTable
from .cost import cost_table as cost_table
from .hardware import System as System
from .hardware import systems as systems
from .models import import_file as import_file
from .models import import_huggingface as import_huggingface
from .models import import_jax as import_jax
from .models import import_onnx as import_onnx
from .models import import_torch as import_torch
from .schedule import Metrics as Metrics
from .schedule import Schedule as Schedule
from .schedule import evaluate as evaluate
from .schedule import evaluate_many as evaluate_many
from .workload import Workload as Workload
from .workload import merge as merge

__version__ = "0.1.0"
