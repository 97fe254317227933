"""The command `place`: operators on unlike devices, by any of the published methods; a Gantt picture."""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ._options import options_of, said_once


def placed(arguments) -> tuple[dict, str]:
    """(JSON, text) of a placement. Raises ValueError for bad input, and if nothing fits."""
    from ..placement._methods import METHODS, place

    if arguments.method not in METHODS:
        from perfmodel._names import unknown_name

        raise unknown_name("--method", arguments.method, METHODS)
    for name in ("time_limit", "comm_scale"):
        value = getattr(arguments, name)
        if value is not None and not (np.isfinite(value) and value >= 0):
            raise ValueError(f"--{name.replace('_', '-')} is {value}; allowed: a number of at least 0")
    problem, unit = _problem(arguments)
    with _solvers_on_stderr():
        found = place(problem, arguments.method, seed=arguments.seed, time_limit_s=arguments.time_limit)
    answer = _told(problem, found)
    if arguments.out:
        _write(arguments.out, problem, found, answer, unit)
    return answer, _text(problem, found, answer, unit)


def _problem(arguments):
    """(problem, unit of its times): an instance file, or models on a cluster or package."""
    from dataclasses import replace

    from ..placement._build import from_workload
    from ..placement._cluster import clusters, load_cluster
    from ..placement._file import load_instance

    if (arguments.instance is None) == (arguments.workload is None):
        raise ValueError("give --instance FILE, or --workload NAMES with --cluster NAME or --system NAME")
    if arguments.instance is not None:
        for name in ("cluster", "system", "fusion"):
            if getattr(arguments, name):
                raise ValueError(f"--{name} goes with --workload; the instance holds its own devices and tasks")
        return load_instance(arguments.instance, comm_scale=arguments.comm_scale, congestion=arguments.congestion), ""
    import perfmodel as pm

    from ._run import load_workload

    if bool(arguments.cluster) == bool(arguments.system):
        raise ValueError(f"--workload needs one of --cluster ({', '.join(clusters())}, or a file) and --system")
    with said_once():
        workload = load_workload(arguments.workload, options_of(arguments), "equal-inferences")
    machine = load_cluster(arguments.cluster) if arguments.cluster else pm.systems.load(arguments.system)
    problem = from_workload(workload, machine, fusion=arguments.fusion or None, congestion=arguments.congestion)
    return replace(problem.scaled(arguments.comm_scale), name=problem.name), "s"


@contextmanager
def _solvers_on_stderr():
    """HiGHS prints to file descriptor 1 now and then, which is where the answer goes."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # no such descriptors, in some embeddings
        yield
        return
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _told(problem, found) -> dict:
    from ..placement._evaluate import timeline

    line = timeline(problem, found.placement, found.order)
    position = np.empty(problem.n_tasks, int)
    position[found.order] = np.arange(problem.n_tasks)
    by_start = np.lexsort((position, line.start))
    return dict(
        method=found.method, makespan=found.makespan, lower_bound=found.lower_bound, gap=found.gap, seconds=found.seconds,
        placement=found.placement.tolist(), order=by_start.tolist(), note=found.note, problem=problem.name,
        tasks=problem.n_tasks, devices=list(problem.device_names), congestion=problem.congestion,
        start=line.start.tolist(), finish=line.finish.tolist(), used_bytes=problem.used_bytes(found.placement).tolist(),
        capacity_bytes=problem.capacity_bytes.tolist(),
    )  # fmt: skip


def _write(out: str, problem, found, answer: dict, unit: str) -> None:
    from perfmodel.plot import plot_gantt

    from ..placement._evaluate import timeline

    line = timeline(problem, found.placement, found.order)
    a, b = found.placement[problem.source], found.placement[problem.target]
    moved = np.flatnonzero((a != b) & (line.arrived > line.sent))
    transfers = [(int(a[e]), int(b[e]), float(line.sent[e]), float(line.arrived[e])) for e in moved]
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / ".placement.part.png"
        plot_gantt(
            picture, device_names=problem.device_names, names=problem.names, device=found.placement, start=line.start,
            finish=line.finish, transfers=transfers, lower_bound=found.lower_bound, unit=unit,
            title=f"{problem.name} by {found.method}",
        )  # fmt: skip
        os.replace(picture, folder / "placement.png")
        partial = folder / ".placement.json.part"
        partial.write_text(json.dumps(answer, indent=1, allow_nan=False) + "\n")
        os.replace(partial, folder / "placement.json")
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written: {error.strerror or error}") from None
    print(f"placement.png and placement.json in {folder}/", file=sys.stderr)


def _text(problem, found, answer: dict, unit: str) -> str:
    def amount(value: float) -> str:
        return f"{value * 1e3:.6g} ms" if unit == "s" else f"{value:.6g}"

    lines = [
        f"{problem.name}: {problem.n_tasks} tasks, {len(problem.source)} edges, {problem.n_devices} devices",
        f"{'makespan':16}{amount(found.makespan)} by {found.method} in {found.seconds:.3g} s",
        f"{'lower bound':16}{amount(found.lower_bound)}, {found.gap:.1%} below",
    ]
    busy = np.bincount(
        found.placement, weights=np.subtract(answer["finish"], answer["start"]), minlength=problem.n_devices
    )
    lines.append(f"{'device':16}{'tasks':>8}{'busy':>8}{'memory':>12}{'of':>12}")
    for d, name in enumerate(problem.device_names):
        share = busy[d] / found.makespan if found.makespan > 0 else 0.0
        lines.append(f"{name:16}{int(np.sum(found.placement == d)):8,}{share:8.1%}{answer['used_bytes'][d]:12.4g}"
                     f"{answer['capacity_bytes'][d]:12.4g}")  # fmt: skip
    if found.note:
        lines.append(found.note)
    return "\n".join(lines)
