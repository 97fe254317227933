"""The command `calibrate`: fits the constants of GPU kernels to a user's measurements."""

import sys
from collections.abc import Iterable

_SHOWN_SD = 0.35  # parameters that the data hardly narrow down (prior 0.4) are not shown in the table


def calibrated(kind: str, path: str, out: str) -> dict:
    """What `perfmodel.calibration.calibrate` returns. Raises ValueError for an unknown kind or a bad file."""
    from perfmodel._names import unknown_name
    from perfmodel.calibration import calibrate

    if kind != "gpu-kernels":
        raise unknown_name("kind", kind, ["gpu-kernels"])
    return calibrate(path, out, progress=_progress)


def _progress(groups: Iterable, total: int) -> Iterable:
    from tqdm import tqdm

    return tqdm(groups, total=total, desc="fitting", unit="group", file=sys.stderr, disable=not sys.stderr.isatty())


def calibrated_text(answer: dict) -> str:
    """Errors before and after of every group, and the parameters that the data determined, with their uncertainty."""
    groups = answer["groups"]
    width = max(len(label) for label in groups) + 2
    lines = [f"{'group':{width}}{'rows':>7}{'MAPE before %':>15}{'after %':>9}  parameters (+- one standard deviation)"]
    for label, group in groups.items():
        fitted = [
            f"{name} {value:.3g} +- {100 * group['log_sd'][name]:.0f} %"
            for name, value in group["values"].items()
            if 0 < group["log_sd"][name] < _SHOWN_SD
        ]
        head = (
            f"{label:{width}}{group['rows']:7,}{group['mape_before_percent']:15.2f}{group['mape_after_percent']:9.2f}  "
        )
        lines.append(head + (fitted[0] if fitted else ""))
        lines += [" " * len(head) + text for text in fitted[1:]]
    lines.append(f"parameters written to {answer['parameters']}")
    return "\n".join(lines)
