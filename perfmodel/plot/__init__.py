"""Pictures of what came out: a front, a schedule over time, predicted against measured. Matplotlib is imported when drawing."""

from ._gantt import plot_gantt as plot_gantt
from ._pareto import engineering as engineering
from ._pareto import plot_front as plot_front
from ._sensitivity import plot_sensitivities as plot_sensitivities
from ._timeline import CLASS_COLOURS as CLASS_COLOURS
from ._timeline import plot_schedule as plot_schedule
from ._validation import plot_validation as plot_validation
