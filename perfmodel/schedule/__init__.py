"""What a whole schedule costs: steady state, timeline, metrics."""

from ._batch import KERNELS as KERNELS
from ._batch import evaluate_many as evaluate_many
from ._chain import ChainHardware as ChainHardware
from ._chain import ChainOperators as ChainOperators
from ._chain import chain_many as chain_many
from ._chain import chain_many_recomputed as chain_many_recomputed
from ._chain import chain_period_and_energy as chain_period_and_energy
from ._chain import chain_recomputed as chain_recomputed
from ._chain import chain_table as chain_table
from ._evaluate import evaluate as evaluate
from ._evaluate import evaluate_one as evaluate_one
from ._greedy import GREEDY as GREEDY
from ._greedy import greedy_schedule as greedy_schedule
from ._metrics import ENERGY_PARTS as ENERGY_PARTS
from ._metrics import VIOLATIONS as VIOLATIONS
from ._metrics import Metrics as Metrics
from ._metrics import ModelMetrics as ModelMetrics
from ._schedule import Schedule as Schedule
from ._schedule import fuse_schedule as fuse_schedule
from ._steady_state import CONTENTION_EXPONENT as CONTENTION_EXPONENT
from ._steady_state import contended_s as contended_s
from ._timeline import Timeline as Timeline
from ._timeline import timeline as timeline
