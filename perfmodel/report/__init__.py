"""What came out, in numbers and words: time and energy by operator, and which hardware parameter is worth changing."""

from ._operators import ENERGY as ENERGY
from ._operators import OperatorReport as OperatorReport
from ._operators import operator_report as operator_report
from ._sensitivity import METRICS as METRICS
from ._sensitivity import STEPPING as STEPPING
from ._sensitivity import Sensitivities as Sensitivities
from ._sensitivity import parameters as parameters
from ._sensitivity import scaled as scaled
from ._sensitivity import sensitivities as sensitivities
from ._text import ORDERS as ORDERS
from ._text import operators_text as operators_text
from ._text import sensitivities_text as sensitivities_text
from ._workload import BOUNDS as BOUNDS
from ._workload import ClassShare as ClassShare
from ._workload import FusedShare as FusedShare
from ._workload import SystemView as SystemView
from ._workload import WorkloadReport as WorkloadReport
from ._workload import operator_bytes as operator_bytes
from ._workload import workload_report as workload_report
from ._workload_text import operators_table as operators_table
from ._workload_text import workload_text as workload_text
