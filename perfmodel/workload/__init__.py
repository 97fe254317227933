"""What is to be computed: operators, graphs, what becomes of them (fusion, training, shards)."""

from ._dtypes import DTYPES as DTYPES
from ._dtypes import Precision as Precision
from ._dtypes import precision as precision
from ._fill import fill_up as fill_up
from ._fill import round_size as round_size
from ._fusion import Coarse as Coarse
from ._fusion import Fusion as Fusion
from ._fusion import Intensity as Intensity
from ._fusion import coarsen as coarsen
from ._fusion import fuse as fuse
from ._fusion import fusion_of as fusion_of
from ._fusion import intensity as intensity
from ._fusion_rules import BACKENDS as BACKENDS
from ._graph import MIXES as MIXES
from ._graph import GraphBuilder as GraphBuilder
from ._graph import Workload as Workload
from ._graph import merge as merge
from ._operators import CLASS_OF as CLASS_OF
from ._operators import CLASSES as CLASSES
from ._operators import KINDS as KINDS
from ._operators import MATRIX_KINDS as MATRIX_KINDS
from ._operators import Operators as Operators
from ._operators import exact_macs as exact_macs
from ._operators import operator_row as operator_row
from ._training import training_step as training_step
