"""A run of `explore` as a directory: what was asked, what was found, as JSON, labelled netCDF and pictures."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jax
import numpy as np

import perfmodel as pm
from perfmodel import Metrics, System, Workload

from .._explore import Front, Settings, check_possible, explore, explore_baseline, monolithic
from .._objectives import OBJECTIVES, check_objectives
from .._space import Space
from ._options import model_options

POINT_FIELDS = (
    "throughput_per_s", "latency_s", "energy_j", "edp_js", "power_w", "area_mm2", "cost_usd", "utilisation", "period_s",
)  # fmt: skip
_UNITS = {"throughput_per_s": "1/s", "latency_s": "s", "energy_j": "J", "edp_js": "J s", "power_w": "W", "area_mm2": "mm2",
          "cost_usd": "USD", "utilisation": "1", "period_s": "s", "busy_s": "s"}  # fmt: skip
_RUN, _SUMMARY, _FRONT = "run.json", "summary.json", "front.nc"


@dataclass(frozen=True)
class Request:
    """Everything that determines a run."""

    workload: str = "gpt2,resnet50"
    system: str = "mcm-2x2"
    types: str = ""
    objectives: str = "throughput,energy"
    mix: str = "equal-work"
    options: dict = field(default_factory=dict)  # of the models
    seed: int = 0
    starts: int = Settings.starts
    relaxed_steps: int = Settings.relaxed_steps
    population: int = Settings.population
    generations: int = Settings.generations

    def load(self) -> tuple[Workload, Space, tuple[str, ...], System]:
        """(workload, space, objectives, baseline system), all checked. Raises ValueError."""
        workload = load_workload(self.workload, self.options, self.mix)
        system = pm.systems.load(self.system)
        types = [t for t in self.types.split(",") if t] or [t for t in ("os", "ws") if t in system.type_names]
        space = Space.mix(system, types or system.type_names)
        baseline = monolithic(system, "os" if "os" in system.type_names else system.type_names[0])
        check_possible(workload, space)
        return workload, space, check_objectives(o for o in self.objectives.split(",") if o), baseline

    @property
    def settings(self) -> Settings:
        return Settings(self.starts, self.relaxed_steps, self.population, self.generations)


def load_workload(names: str, options: dict | None = None, mix: str = "equal-work") -> Workload:
    """Comma-separated model names or files as one workload; options go to the models that know them."""
    listed = [n for n in names.split(",") if n]
    if not listed:
        raise ValueError(f"workload is {names!r}; allowed: names or files separated by commas")
    chosen = model_options(listed, options or {})
    return pm.merge([pm.models.load(name, **own) for name, own in zip(listed, chosen, strict=True)], mix)


def run(request: Request, directory: str | Path, *, progress=None, resume: bool = False) -> dict:
    """Explore, write the directory, return the summary (the `--json` of the command)."""
    folder = Path(directory)
    if resume:
        request = read_request(folder)
    workload, space, objectives, baseline_system = request.load()
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / _RUN, json.dumps(asdict(request), indent=1))
    if progress is not None:
        progress(dict(phase="compiling", done=0, total=1, evaluations=0, seconds=0.0, best={}))
    front = explore(
        workload, space, objectives, request.seed, settings=request.settings, progress=progress, directory=str(folder),
        resume=resume,
    )  # fmt: skip
    baseline = explore_baseline(workload, baseline_system, objectives, request.seed)
    summary = summarise(request, front, baseline)
    write_front(folder / _FRONT, front, baseline)
    _write(folder / _SUMMARY, json.dumps(summary, indent=1))
    draw(folder, front, baseline)
    return summary


def read_request(folder: Path) -> Request:
    """What a directory was asked to do. Raises ValueError if it is no run."""
    try:
        return Request(**json.loads((folder / _RUN).read_text()))
    except FileNotFoundError:
        raise ValueError(f"{folder / _RUN}: not found; {folder} is not the directory of a run") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / _RUN}: cannot be read: {error}") from None


def point(metrics: Metrics, i: int, system: str, **more) -> dict:
    """One candidate as plain numbers."""
    names = {name: float(np.asarray(getattr(metrics, name))[i]) for name in POINT_FIELDS}
    return {**names, "feasible": bool(np.asarray(metrics.feasible)[i]), "system": system, **more}


def summarise(request: Request, front: Front, baseline: Front) -> dict:
    """The JSON of a run: front, baseline, ratios to it at the best of each objective and at the point of least EDP."""
    base, found = baseline.metrics, front.metrics
    best_base = dict(
        throughput_per_s=float(np.max(base.throughput_per_s)),
        energy_j=float(np.min(base.energy_j)),
    )
    least_edp = front.best("edp_js")
    base_edp = baseline.best("edp_js")
    models = front.workload.model_names

    def by_model(f: Front, i: int) -> dict:
        return {
            name: dict(
                latency_s=float(f.metrics.models.latency_s[i, m]),
                throughput_per_s=float(f.metrics.models.throughput_per_s[i, m]),
            )
            for m, name in enumerate(models)
        }

    return dict(
        front=[
            point(found, i, front.mix(i), models=by_model(front, i), chiplets=_types(front, i))
            for i in range(len(front))
        ],
        baseline={
            **point(base, base_edp, baseline.space.system.name, models=by_model(baseline, base_edp)),
            **best_base,
        },
        throughput_ratio=float(np.max(found.throughput_per_s)) / best_base["throughput_per_s"],
        energy_efficiency_ratio=best_base["energy_j"] / float(np.min(found.energy_j)),
        at_least_edp=dict(
            point=least_edp,
            throughput_ratio=float(found.throughput_per_s[least_edp]) / best_base["throughput_per_s"],
            energy_efficiency_ratio=best_base["energy_j"] / float(found.energy_j[least_edp]),
            edp_ratio=float(base.edp_js[base_edp]) / float(found.edp_js[least_edp]),
        ),
        baseline_utilisation=float(np.max(base.utilisation)),
        objectives=list(front.objectives),
        mix=front.workload.mix,
        evaluations=front.evaluations,
        exact_evaluations=front.exact_evaluations,
        seconds=front.seconds,
        request=asdict(request),
        device=jax.devices()[0].device_kind,
        versions={"perfmodel": pm.__version__, "jax": jax.__version__},
    )


def _types(front: Front, i: int) -> dict:
    system = front.space.system
    return {name: system.type_names[int(k)] for name, k in zip(system.chiplet_names, front.kinds[i], strict=True)}


def write_front(path: Path, front: Front, baseline: Front) -> None:
    """The front as labelled netCDF-3: dimensions point, operator, chiplet, model, resource; units on every variable."""
    from scipy.io import netcdf_file

    system, workload = front.space.system, front.workload
    labels = dict(operator=workload.names, chiplet=system.chiplet_names, model=workload.model_names,
                  resource=system.resource_names, type=system.type_names)  # fmt: skip
    partial = path.with_suffix(".part")
    with netcdf_file(str(partial), "w", version=2) as file:
        file.title = f"Pareto front of {' + '.join(workload.model_names)} on {system.name}"
        file.objectives = ",".join(front.objectives)
        file.createDimension("point", len(front))
        file.createDimension("objective", len(front.objectives))
        file.createDimension("sample", max(len(front.cloud), 1))
        for name, values in labels.items():
            width = max(len(v) for v in values)
            file.createDimension(name, len(values))
            file.createDimension(f"{name}_length", width)
            variable = file.createVariable(f"{name}_name", "c", (name, f"{name}_length"))
            variable[:] = np.asarray([list(v.ljust(width)) for v in values], "S1")
        _variable(file, "assignment", front.assignment, ("point", "operator"), "index of chiplet")
        _variable(file, "chiplet_type", front.kinds, ("point", "chiplet"), "index of type")
        for name in POINT_FIELDS:
            _variable(file, name, np.asarray(getattr(front.metrics, name), np.float64), ("point",), _UNITS[name])
            _variable(
                file, f"baseline_{name}", np.float64(np.asarray(getattr(baseline.metrics, name))[0]), (), _UNITS[name]
            )
        _variable(file, "busy_s", np.asarray(front.metrics.busy_s, np.float64), ("point", "resource"), "s")
        models = front.metrics.models
        _variable(file, "model_latency_s", np.asarray(models.latency_s, np.float64), ("point", "model"), "s")
        _variable(
            file, "model_throughput_per_s", np.asarray(models.throughput_per_s, np.float64), ("point", "model"), "1/s"
        )
        cloud = front.cloud if len(front.cloud) else np.full((1, len(front.objectives)), np.nan)
        _variable(
            file, "cloud_log_cost", cloud.astype(np.float64), ("sample", "objective"), "log of SI unit, minimised"
        )
    os.replace(partial, path)


def _variable(file, name, values, dimensions, units) -> None:
    values = np.asarray(values)
    kind = "i4" if np.issubdtype(values.dtype, np.integer) else "f8"
    variable = file.createVariable(name, kind, dimensions)
    variable[...] = values.astype(kind)
    variable.units = units


def read_front(path: Path) -> dict[str, np.ndarray]:
    """All variables of a front file by name (text as lists of strings)."""
    from scipy.io import netcdf_file

    try:
        with netcdf_file(str(path), "r", mmap=False) as file:
            out = {}
            for name, variable in file.variables.items():
                value = np.array(variable.data)
                text = value.dtype.kind == "S"
                out[name] = np.asarray([b"".join(row).decode().strip() for row in value]) if text else value
            return out
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as netCDF-3: {error}") from None


def redraw(directory: str | Path) -> list[str]:
    """Every picture of a run again, from its files alone. Raises ValueError if the directory is not a finished run."""
    folder = Path(directory)
    request = read_request(folder)
    workload, space, objectives, baseline_system = request.load()
    if not (folder / _FRONT).exists():
        raise ValueError(f"{folder / _FRONT}: not found; the run has not finished")
    data = read_front(folder / _FRONT)
    assignment, kinds = data["assignment"], data["chiplet_type"].astype(np.int32)
    if assignment.shape[1] != workload.n_operators:
        raise ValueError(
            f"{folder / _FRONT}: assignment is of {assignment.shape[1]} operators; the workload has {workload.n_operators}"
        )
    table = pm.cost_table(workload, space.system, by_type=True)
    metrics = pm.evaluate_many(
        workload, space.system, pm.Schedule(assignment.astype(np.int8)), table=table, kinds=kinds
    )
    front = Front(
        workload,
        space,
        objectives,
        assignment,
        kinds,
        jax.tree.map(np.asarray, metrics),
        data["cloud_log_cost"],
        0,
        0,
        0.0,
    )
    return draw(folder, front, explore_baseline(workload, baseline_system, objectives, request.seed))


def draw(folder: Path, front: Front, baseline: Front) -> list[str]:
    """front.png of the first two objectives and schedule.png of the point of least EDP; returns the paths."""
    from perfmodel.plot import plot_front, plot_schedule
    from perfmodel.schedule import timeline

    title = f"{' + '.join(front.workload.model_names)} on {front.space.system.name}, {front.workload.mix}"
    names = (front.objectives * 2)[:2] if len(front.objectives) == 1 else front.objectives[:2]
    units = {**_UNITS, "throughput_per_s": "inferences/s"}
    axes = tuple((_LABELS[n], units[OBJECTIVES[n][0]], OBJECTIVES[n][1]) for n in names)

    def values(metrics):
        return np.stack([np.asarray(getattr(metrics, OBJECTIVES[n][0]), float) for n in names], axis=1)

    signs = np.asarray([-1.0 if OBJECTIVES[n][1] else 1.0 for n in names])
    columns = [front.objectives.index(n) for n in names]
    cloud = front.cloud[np.all(np.isfinite(front.cloud), axis=1)][:, columns]
    base = values(baseline.metrics)[baseline.best("edp_js")]
    paths = [str(folder / "front.png"), str(folder / "schedule.png")]
    plot_front(
        paths[0], points=values(front.metrics), cloud=np.exp(signs * cloud), labels=[front.mix(i) for i in range(len(front))],
        baseline=(baseline.space.system.name, float(base[0]), float(base[1])), axes=axes, title=title,
    )  # fmt: skip
    i = front.best("edp_js")
    system, schedule = front.system(i), front.schedule(i)
    plot_schedule(
        paths[1], front.workload, system, timeline(front.workload, system, schedule),
        title=f"{title}: the point of least EDP ({front.mix(i)})",
    )  # fmt: skip
    return paths


_LABELS = {"throughput": "throughput, all models", "latency": "latency of the slowest model", "energy": "energy per inference",
           "edp": "energy-delay product", "power": "power", "area": "silicon area", "cost": "cost"}  # fmt: skip


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text + "\n")
    os.replace(partial, path)
