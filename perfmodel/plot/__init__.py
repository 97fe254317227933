"""Pictures of what came out: a Pareto front, a schedule over time. Matplotlib is imported when one is drawn."""

from ._pareto import plot_front as plot_front
from ._timeline import plot_schedule as plot_schedule
