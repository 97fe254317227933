"""What a whole schedule costs: steady state, timeline, metrics."""

from ._evaluate import evaluate as evaluate
from ._metrics import ENERGY_PARTS as ENERGY_PARTS
from ._metrics import VIOLATIONS as VIOLATIONS
from ._metrics import Metrics as Metrics
from ._metrics import ModelMetrics as ModelMetrics
from ._schedule import Schedule as Schedule
