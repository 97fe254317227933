"""What `evaluate` says beyond metrics: operators, sensitivities; tables, CSV files and pictures of both."""

import csv
import os
import sys
from pathlib import Path


def asked_for(arguments) -> tuple[int | None, list[str]]:
    """(operators to print, or None for no report; metrics of which sensitivities are wanted).

    Raises ValueError for bad values of `--report`, `--sort`, `--sensitivities` and `--out`."""
    from perfmodel._names import unknown_name
    from perfmodel.cost import OBJECTIVES
    from perfmodel.report import METRICS, ORDERS

    metrics = [name.strip() for name in (arguments.sensitivities or "").split(",") if name.strip()]
    if arguments.report is not None and arguments.report < 1:
        raise ValueError(f"--report is {arguments.report}; allowed: an integer of at least 1")
    for allowed, names, flag in ((ORDERS, [arguments.sort], "--sort"), (METRICS, metrics, "--sensitivities")):
        for name in names:
            if name not in allowed:
                raise unknown_name(flag, name, allowed)
    if arguments.mapper and arguments.mapper not in OBJECTIVES:
        raise unknown_name("--mapper", arguments.mapper, OBJECTIVES)
    if arguments.mapper and metrics:
        raise ValueError(
            "--sensitivities are of the closed forms; leave out --mapper, whose loop nests are fixed numbers"
        )
    if arguments.out and arguments.report is None and not metrics:
        raise ValueError("--out writes what --report and --sensitivities find; give one of them")
    return arguments.report, list(dict.fromkeys(metrics))


def reported(arguments, workload, system, schedule, mappings=None) -> tuple[dict, list[str]]:
    """(JSON keys to add to an evaluation, paragraphs for a person), as `asked_for`."""
    top, metrics = asked_for(arguments)
    if top is None and not metrics:
        return {}, []
    from perfmodel.report import operator_report, operators_text, sensitivities, sensitivities_text

    answer, text, files = {}, [], {}
    if top is not None:
        report = operator_report(workload, system, schedule, mappings)
        answer["operators"] = report.rows()
        nest_of = None if mappings is None else _nest_of(workload, system, schedule, mappings)
        if nest_of is not None:
            for row, told in enumerate(answer["operators"]):
                told["mapping"] = nest_of(row)
        text.append(operators_text(report, top, arguments.sort, nest_of))
        files["operators.csv"] = lambda path: _write_csv(path, answer["operators"])
    if metrics:
        found = sensitivities(workload, system, schedule, metrics)
        answer["sensitivities"] = found.rows()
        text += [sensitivities_text(found, metric) for metric in metrics]
        files["sensitivities.csv"] = lambda path: _write_csv(path, answer["sensitivities"])
        for metric in metrics:
            title = f"{', '.join(workload.model_names)} on {system.name}: what moves {metric}"
            files[f"sensitivity-{metric}.png"] = _picture(found, metric, title)
    if arguments.out:
        _write(arguments.out, files)
    return answer, text


def _nest_of(workload, system, schedule, mappings):
    """Text of the loop nest that row i runs with, empty for vector rows."""
    import jax
    import numpy as np

    from perfmodel.cost import chains, nest_text

    kind, where = np.asarray(system.kind), np.asarray(schedule.assignment)
    matrix = np.asarray(workload.operators.is_matrix) > 0

    def text(row: int) -> str:
        if not matrix[row]:
            return ""
        k = int(kind[where[row]])
        return nest_text(jax.tree.map(lambda x: x[..., row, k], mappings.nest), chains(mappings.dataflows[k]))

    return text


def _picture(found, metric: str, title: str):
    from perfmodel.plot import plot_sensitivities

    every = range(len(found.names))
    return lambda path: plot_sensitivities(
        path, [found.label(p) for p in every], found.column(metric), metric=metric, title=title,
        trend=[found.is_trend(p, metric) for p in every],
    )  # fmt: skip


def _write(out: str, files: dict) -> None:
    """Every file whole or not at all."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in files.items():
            partial = folder / f".part-{name}"
            write(partial)
            os.replace(partial, folder / name)
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written: {error.strerror or error}") from None
    print(f"{', '.join(files)} in {folder}/", file=sys.stderr)


def _write_csv(path: Path, rows: list[dict]) -> None:
    flat = []
    for row in rows:
        parts = row.get("energy_parts_j", {})
        flat.append({k: v for k, v in row.items() if k != "energy_parts_j"} | {f"{k}_j": v for k, v in parts.items()})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
