"""The command `validate`: checks the model against a file of references, and leaves a picture and a JSON file."""

import json
import os
import sys
from pathlib import Path


def validated(kind: str, path: str, parameters: str | None, out: str | None) -> tuple[dict, str]:
    """(figures of `perfmodel.calibration.validate`, directory that holds KIND.png and KIND.json).

    Nothing is written before every row is compared. Raises ValueError as `compare` does, and if the directory cannot be
    written to.
    """
    from perfmodel.calibration import compare, figures, left_out
    from perfmodel.plot import plot_validation

    comparisons = compare(kind, path, parameters)
    answer = figures(comparisons)
    unknown = left_out(kind, path)
    if unknown:
        nothing = dict.fromkeys(("mape_percent", "median_ape_percent", "p90_ape_percent", "spearman"))
        answer["not_compared"] = {what: {"rows": n, "exact": 0} | nothing for what, n in unknown.items()}
        print(f"not compared: {', '.join(f'{n} rows of {what}' for what, n in unknown.items())}", file=sys.stderr)
    folder = Path(out or f"validate-{kind}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / f".{kind}.png.part"
        plot_validation(picture, comparisons, f"{kind}: model against {Path(path).name}")
        os.replace(picture, folder / f"{kind}.png")
        partial = folder / f".{kind}.json.part"
        partial.write_text(json.dumps(answer, indent=1, allow_nan=False) + "\n")
        os.replace(partial, folder / f"{kind}.json")
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written: {error.strerror or error}") from None
    print(f"{kind}.png and {kind}.json in {folder}/", file=sys.stderr)
    return answer, str(folder)


def validated_text(answer: dict) -> str:
    """One row a quantity and group."""
    width = max(len(group) for groups in answer.values() for group in groups) + 2
    first = max(len("quantity"), *(len(quantity) for quantity in answer)) + 2
    lines = [
        f"{'quantity':{first}}{'group':{width}}{'rows':>7}{'exact':>7}{'MAPE %':>10}{'median %':>10}{'p90 %':>10}{'Spearman':>10}"
    ]
    for quantity, groups in answer.items():
        for i, (group, f) in enumerate(groups.items()):
            numbers = [f[name] for name in ("mape_percent", "median_ape_percent", "p90_ape_percent", "spearman")]
            cells = "".join(f"{'-' if x is None else f'{x:.4g}':>10}" for x in numbers)
            lines.append(f"{'' if i else quantity:{first}}{group:{width}}{f['rows']:7,}{f['exact']:7,}{cells}")
    return "\n".join(lines)
