"""What computes: chiplets, memory, package, technology; systems by name or file."""

from . import _config as systems
from ._chiplet import DATAFLOWS as DATAFLOWS
from ._chiplet import Chiplets as Chiplets
from ._chiplet import stack_chiplets as stack_chiplets
from ._memory import MemoryTiers as MemoryTiers
from ._package import Package as Package
from ._package import mesh as mesh
from ._system import System as System
from ._technology import TECHNOLOGIES as TECHNOLOGIES
from ._technology import Technology as Technology
from ._technology import technology as technology

__all__ = [
    "DATAFLOWS", "TECHNOLOGIES", "Chiplets", "MemoryTiers", "Package", "System", "Technology",
    "mesh", "stack_chiplets", "systems", "technology",
]  # fmt: skip
