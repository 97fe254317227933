"""Which references the model can be checked against, and the check itself."""

from importlib import import_module
from pathlib import Path

import jax

from .._names import unknown_name
from ._comparison import Comparison, figures

# Kind -> module, or folder of modules, with `compare(path, parameters=None) -> list[Comparison]`, imported when it is asked for.
KINDS: dict[str, str] = {
    "eyeriss": "perfmodel.calibration._eyeriss",
    "gemini-cost": "perfmodel.calibration._gemini_cost",
    "gemmini-rtl": "perfmodel.calibration.gemmini_rtl",
    "gpu-kernels": "perfmodel.calibration.gpu_kernels",
    "llm": "perfmodel.calibration.llm",
    "maestro": "perfmodel.calibration.maestro",
    "scalesim": "perfmodel.calibration._scalesim",
    "timeloop": "perfmodel.calibration._timeloop",
    "zigzag": "perfmodel.calibration.zigzag",
}


def compare(kind: str, path: str | Path, parameters: str | Path | None = None) -> list[Comparison]:
    """The model's answer to every row of a reference file beside the reference, in float64.

    **Arguments:** `kind`: one of `KINDS`.  `path`: the file.  `parameters`: calibrated parameters, for kinds that take any.

    Raises ValueError in one line for an unknown kind or a file that cannot be used, naming column and row.
    """
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    with jax.enable_x64(True):  # exact counts pass 2**24
        return import_module(KINDS[kind]).compare(path, parameters)


def left_out(kind: str, path: str | Path) -> dict[str, int]:
    """Rows of a reference file that `compare` cannot answer, by what it does not know of them; kinds that refuse such files: {}."""
    found = getattr(import_module(KINDS[kind]), "left_out", None)
    return found(path) if found else {}


def validate(
    kind: str, path: str | Path, parameters: str | Path | None = None
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """quantity -> group -> `rows, exact, mape_percent, median_ape_percent, p90_ape_percent, spearman` (see `figures`).

    Raises ValueError as `compare` does.
    """
    return figures(compare(kind, path, parameters))
