"""Training steps of language models on many devices: time, memory, plans."""

from ._memory import TrainingMemory as TrainingMemory
from ._memory import layer_activation_bytes as layer_activation_bytes
from ._memory import training_memory as training_memory
from ._plan import TrainingPlan as TrainingPlan
from ._plan import least_devices as least_devices
from ._plan import published_plan as published_plan
from ._plan import train as train
from ._plan import usual_plan as usual_plan
from ._shape import TrainingShape as TrainingShape
from ._shape import training_shape as training_shape
from ._step import FITTED as FITTED
from ._step import TrainingStep as TrainingStep
from ._step import training_step as training_step
from ._time import TrainingConstants as TrainingConstants
