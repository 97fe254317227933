"""What computes: chiplets, memory, package, technology; systems by name or file."""

from . import _config as systems
from . import _energy_table as energies
from ._chiplet import DATAFLOWS as DATAFLOWS
from ._chiplet import Chiplets as Chiplets
from ._chiplet import stack_chiplets as stack_chiplets
from ._gemmini import gemmini as gemmini
from ._gpu import Gpu as Gpu
from ._gpu import gpu as gpu
from ._gpu import gpu_names as gpu_names
from ._gpu import stack_gpus as stack_gpus
from ._hierarchy import ARRAY_DIMS as ARRAY_DIMS
from ._hierarchy import DIRECTIONS as DIRECTIONS
from ._hierarchy import LEVELS as LEVELS
from ._hierarchy import OPERANDS as OPERANDS
from ._hierarchy import Hierarchy as Hierarchy
from ._hierarchy import Memory as Memory
from ._hierarchy import Port as Port
from ._hierarchy import hierarchy as hierarchy
from ._hierarchy import stack_hierarchies as stack_hierarchies
from ._memory import MemoryTiers as MemoryTiers
from ._package import Package as Package
from ._package import mesh as mesh
from ._package import switch as switch
from ._quantity import quantity as quantity
from ._system import System as System
from ._technology import NODES as NODES
from ._technology import PACKAGINGS as PACKAGINGS
from ._technology import RETICLE_MM2 as RETICLE_MM2
from ._technology import TECHNOLOGIES as TECHNOLOGIES
from ._technology import YIELD_MODELS as YIELD_MODELS
from ._technology import Packaging as Packaging
from ._technology import Technology as Technology
from ._technology import packaging as packaging
from ._technology import technology as technology

__all__ = [
    "ARRAY_DIMS", "DATAFLOWS", "DIRECTIONS", "LEVELS", "NODES", "OPERANDS", "PACKAGINGS", "RETICLE_MM2", "TECHNOLOGIES",
    "YIELD_MODELS", "Chiplets", "Gpu", "Hierarchy", "Memory", "MemoryTiers", "Package", "Packaging", "Port", "System", "Technology",
    "energies", "gemmini", "gpu", "gpu_names", "hierarchy", "mesh", "packaging", "quantity", "stack_chiplets", "stack_gpus",
    "stack_hierarchies", "switch", "systems", "technology",
]  # fmt: skip
