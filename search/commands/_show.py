"""What the command prints: the progress bar, and text or JSON of every answer."""

import json
import math
import sys
from pathlib import Path

import numpy as np


def output(answer: dict, as_json: bool, text) -> None:
    """One JSON document on stdout, or text for a person."""
    print(json.dumps(answer, allow_nan=False) if as_json else text(answer))


class Progress:
    """A live bar on stderr: phase, evaluations per second, best so far."""

    bar = None

    def __enter__(self):
        return self

    def __call__(self, told: dict) -> None:
        if self.bar is None:  # only now: bad input is refused without a bar
            from tqdm import tqdm

            self.bar = tqdm(
                total=None, unit="eval", unit_scale=True, file=sys.stderr, dynamic_ncols=True, mininterval=0.2
            )
        self.bar.set_description(f"{told['phase']} {told['done']}/{told['total']}")
        best = " ".join(f"{name} {value}" for name, value in told["best"].items())
        self.bar.set_postfix_str(f"best {best}", refresh=False)
        self.bar.update(told["evaluations"] - self.bar.n)

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()


def default_directory(request) -> str:
    names = "+".join(Path(n).stem for n in request.workload.split(","))
    return f"explore-{names}-{Path(request.system).stem}"


def explored(summary: dict, directory: str) -> str:
    front, base = summary["front"], summary["baseline"]
    picks = {"most throughput": max(front, key=lambda p: p["throughput_per_s"]), "least energy": min(front, key=lambda p: p["energy_j"]),
             "least EDP": min(front, key=lambda p: p["edp_js"]), f"baseline {base['system']}": base}  # fmt: skip
    lines = [f"{'':28}{'inferences/s':>14}{'mJ/inference':>14}{'latency ms':>12}{'mm2':>8}{'USD':>8}  chiplets"]
    for name, p in picks.items():
        lines.append(
            f"{name:28}{p['throughput_per_s']:14.5g}{p['energy_j'] * 1e3:14.5g}{p['latency_s'] * 1e3:12.5g}"
            f"{p['area_mm2']:8.4g}{p['cost_usd']:8.4g}  {p['system']}"
        )
    lines.append(
        f"throughput {summary['throughput_ratio']:.3g}x and energy efficiency {summary['energy_efficiency_ratio']:.3g}x the "
        f"baseline (whose arrays are {summary['baseline_utilisation']:.1%} busy)"
    )
    lines.append(
        f"{len(front)} points after {summary['evaluations']} evaluations in {summary['seconds']:.1f} s, in {directory}/"
    )
    return "\n".join(lines)


def evaluated(arguments) -> tuple[dict, list[str]]:
    """Metrics of the command `evaluate`, as plain numbers; and paragraphs of the reports asked for."""
    import jax

    import perfmodel as pm
    from perfmodel.schedule import ENERGY_PARTS, GREEDY, fuse_schedule, greedy_schedule, violation_names

    from .._explore import check_possible
    from .._space import Space
    from ._options import options_of, said_once
    from ._report import asked_for, reported
    from ._run import load_workload

    asked_for(arguments)  # bad values are refused before anything is computed
    with said_once():
        workload = load_workload(arguments.workload, _served(options_of(arguments)), arguments.mix)
    system = pm.systems.load(arguments.system)
    system, kernels = _fitted(system, arguments.parameters, arguments.source)
    workload, system, backend = launched(workload, system, arguments.fusion, whole=bool(arguments.schedule))
    check_possible(workload, Space.fixed(system), memory=system.memory.n_tiers == 1)
    if arguments.schedule:
        from ._schedule_file import load_schedule

        schedule, name = load_schedule(arguments.schedule, workload, system), arguments.schedule
    else:
        schedule, name = greedy_schedule(workload, system), GREEDY
    if arguments.fusion and schedule.fusion is not None:
        raise ValueError(
            f"--fusion {arguments.fusion} and the fusion of {arguments.schedule} are two answers; give one"
        )
    if schedule.fusion is None:
        schedule = fuse_schedule(workload, schedule, backend)
    mappings, table = None, None
    if arguments.mapper:
        from perfmodel.cost import map_workload

        mappings = map_workload(workload, system, arguments.mapper, sub_batch=int(schedule.sub_batch))
        placed = mappings.fits[
            np.arange(workload.n_operators), np.asarray(system.kind)[np.asarray(schedule.assignment)]
        ]
        if not np.all(placed):
            which = workload.names[int(np.flatnonzero(~placed)[0])]
            raise ValueError(f"--mapper found no loop nest of {which} that fits its chiplet")
        table = pm.cost_table(workload, system, schedule.sub_batch, mappings=mappings)
    from ._tiers_text import tiers_of

    schedule, memory = tiers_of(workload, system, schedule, table)
    metrics = jax.tree.map(np.asarray, pm.evaluate(workload, system, schedule, table=table, warm=not arguments.cold))
    answer = {f: _plain(getattr(metrics, f)) for f in metrics.__dataclass_fields__ if f != "models"}
    answer.update(
        bottleneck_name=system.resource_names[int(metrics.bottleneck)],
        memory=memory,
        violations=dict(zip(violation_names(system), _plain(metrics.violations), strict=True)),
        busy_s=dict(zip(system.resource_names, _plain(metrics.busy_s), strict=True)),
        energy_parts_j=dict(zip(ENERGY_PARTS, _plain(metrics.energy_parts_j), strict=True)),
        resident=dict(zip(system.chiplet_names, _plain(metrics.resident), strict=True)),
        models={
            n: dict(latency_s=float(metrics.models.latency_s[m]), throughput_per_s=float(metrics.models.throughput_per_s[m]))
            for m, n in enumerate(workload.model_names)
        },
        schedule=name, system=system.name, mix=workload.mix, mapper=arguments.mapper or None, kernels=kernels,
        fusion=arguments.fusion or None, software=system.software.name,
        operators_launched=workload.n_operators, fused_edges=0 if schedule.fusion is None else int(np.sum(np.asarray(schedule.fusion) > 0)),
        assignment=[system.chiplet_names[d] for d in np.asarray(schedule.assignment)],
    )  # fmt: skip
    more, paragraphs = reported(arguments, workload, system, schedule, mappings)
    return answer | more, paragraphs


def _served(options: dict) -> dict:
    """Options as `serve` takes them: of a prefill whose new tokens are not said, the context is the prompt."""
    if options.get("phase") == "prefill" and "context" in options and "seq_len" not in options:
        return {k: v for k, v in options.items() if k != "context"} | {"seq_len": options["context"]}
    return options


def launched(workload, system, fusion: str, *, whole: bool = False):
    """(workload as software launches it, system with that software, backend that fuses what is left). `fusion`: software, a backend, or ""
    for what the system's software does. `whole`: a schedule of every operator is given, so none is joined unless that is asked for.

    Raises ValueError for an unknown name."""
    from dataclasses import replace

    from perfmodel._names import unknown_name
    from perfmodel.workload import BACKENDS, NONE, SOFTWARE, lower

    if fusion and fusion not in SOFTWARE and fusion not in BACKENDS:
        raise unknown_name("--fusion", fusion, [*SOFTWARE, *(b for b in BACKENDS if b not in SOFTWARE)])
    if fusion in SOFTWARE and fusion != NONE.name:
        system = replace(system, software=SOFTWARE[fusion])
    elif (
        fusion or whole
    ):  # every operator by itself, or by rules; kernels are those of the machine's software all the same
        return workload, system, fusion or NONE.fusion
    return lower(workload, system.software), system, system.software.fusion


def _fitted(system, parameters: str | None, source: str | None):
    """The system with the fitted constants of a parameter file, and what was taken; None without a file."""
    if parameters is None:
        if source is not None:
            raise ValueError(f"--source {source} chooses among the libraries of a parameter file; give --parameters")
        return system, None
    from dataclasses import replace

    from perfmodel.cost.kernels._kernel_set import gpu_kernels

    if system.gpus is None:
        raise ValueError(f"{system.name}: no chiplet type has dataflow gpu; --parameters needs one that has")
    kernels = gpu_kernels(system.gpu_names, parameters, source)
    taken = {gpu: library for gpu, library in zip(system.gpu_names, kernels.sources, strict=True) if gpu}
    return replace(system, kernels=kernels), {"parameters": parameters, "sources": taken}


def metrics_text(a: dict) -> str:
    lines = [f"schedule            {a['schedule']} on {a['system']}, {a['mix']}"]
    if a["fused_edges"]:
        lines.append(f"{'fusion':20}{a['fusion'] or 'of the schedule'}: {a['fused_edges']} edges inside groups")
    if a["kernels"]:
        taken = ", ".join(f"{gpu} as {library} runs it" for gpu, library in a["kernels"]["sources"].items())
        lines.append(f"{'kernels':20}fitted in {a['kernels']['parameters']}: {taken}")
    for name, value, unit in (
        ("throughput", a["throughput_per_s"], "inferences/s"), ("latency", a["latency_s"] * 1e3, "ms"),
        ("energy", a["energy_j"] * 1e3, "mJ/inference"), ("EDP", a["edp_js"], "J s"), ("power", a["power_w"], "W"),
        ("area", a["area_mm2"], "mm2"), ("cost", a["cost_usd"], "USD"), ("utilisation", a["utilisation"] * 100, "%"),
    ):  # fmt: skip
        lines.append(f"{name:20}{value:<12.5g}{unit}")
    for name, m in a["models"].items():
        lines.append(
            f"  {name:18}{m['throughput_per_s']:<12.5g}inferences/s, first result after {m['latency_s'] * 1e3:.5g} ms"
        )
    lines.append(
        f"{'bottleneck':20}{a['bottleneck_name']}, busy {a['busy_s'][a['bottleneck_name']] * 1e3:.5g} ms a round"
    )
    for name, value in a["energy_parts_j"].items():
        lines.append(f"  {name:18}{value * 1e3:<12.5g}mJ a round")
    from ._tiers_text import memory_lines

    lines += memory_lines(a["memory"])
    if not a["feasible"]:
        lines.append("INFEASIBLE: " + ", ".join(f"{k} {v:.6g}" for k, v in a["violations"].items() if v > 0))
    return "\n".join(lines)


def systems(arguments) -> dict:
    """The list of systems, or one with its parts."""
    import perfmodel as pm
    from perfmodel.cost import die_areas_mm2, system_area_mm2, system_price
    from perfmodel.hardware import DATAFLOWS

    from ._tiers_text import tier_figures

    if arguments.name is None:
        return {"systems": pm.systems.names()}
    s = pm.systems.load(arguments.name)
    types = {
        name: {
            f: DATAFLOWS[v[i]] if f == "dataflow" else float(v[i])
            for f in s.types.__dataclass_fields__
            for v in [getattr(s.types, f)]
        }
        | ({"gpu": s.gpu_names[i]} if s.gpu_names and s.gpu_names[i] else {})
        for i, name in enumerate(s.type_names)
    }
    p, m = s.package, s.memory
    return dict(
        name=s.name,
        about=pm.systems.about(arguments.name) if arguments.name in pm.systems.names() else "",
        chiplets=[
            dict(name=n, type=s.type_names[k], position=list(xy))
            for n, k, xy in zip(s.chiplet_names, s.kind, p.positions, strict=True)
        ],
        types=types,
        package={f: float(getattr(p, f)) for f in ("link_bytes_per_s", "port_bytes_per_s", "hop_s", "hop_j_per_byte")}
        | {"links": list(p.link_names)},
        memory=[{"name": n} | tier_figures(m, i) for i, n in enumerate(m.names)],
        technology=s.technology.name, area_mm2=float(system_area_mm2(s)), cost_usd=float(sum(system_price(s))),
        silicon=dict(
            packaging=s.technology.packaging.kind, yield_model=s.technology.yield_model,
            die_mm2=dict(zip(s.chiplet_names, map(float, die_areas_mm2(s)), strict=True)),
            io_dies=int(s.technology.packaging.io_dies), io_die_mm2=float(s.technology.packaging.io_die_mm2),
            **{field: float(usd) for field, usd in system_price(s)._asdict().items()},
        ),
    )  # fmt: skip


def systems_text(a: dict) -> str:
    if "systems" in a:
        return "\n".join(a["systems"])
    lines = [a["name"], *(f"  {line}" for line in a["about"].splitlines()), "chiplets"]
    lines += [f"  {c['name']:8}{c['type']:10}at {tuple(c['position'])}" for c in a["chiplets"]]
    for name, t in a["types"].items():
        lines.append(f"type {name}")
        lines += [f"  {field:22}{value if isinstance(value, str) else f'{value:.6g}'}" for field, value in t.items()]
    lines.append("package")
    lines += [f"  {field:22}{value:.6g}" for field, value in a["package"].items() if field != "links"]
    from ._tiers_text import tier_lines

    lines += tier_lines(a["memory"])
    from perfmodel.hardware import RETICLE_MM2

    parts, dies = a["silicon"], a["silicon"]["die_mm2"].values()
    lines.append(f"silicon: {a['technology']}, {parts['packaging']} packaging, {parts['yield_model']} yield")
    some = f"{min(dies):.4g}" if max(dies) - min(dies) < 1e-3 * max(dies) else f"{min(dies):.4g} to {max(dies):.4g}"
    io = f" and {parts['io_dies']} I/O dies of {parts['io_die_mm2']:.4g} mm2" if parts["io_dies"] else ""
    lines.append(f"  {'area':22}{a['area_mm2']:.4g} mm2: {len(dies)} of {some} mm2{io}")
    if max(dies) > RETICLE_MM2:
        lines.append(f"  {'':22}a die is larger than a reticle, {RETICLE_MM2:g} mm2")
    lines.append(f"  {'price':22}{a['cost_usd']:.4g} USD: dies {parts['dies_usd']:.4g}, package {parts['package_usd']:.4g}, "
                 f"memory {parts['memory_usd']:.4g}")  # fmt: skip
    return "\n".join(lines)


def _plain(value):
    """NumPy to plain Python; anything not finite becomes None (JSON has no NaN)."""
    value = np.asarray(value)
    if value.ndim:
        return [_plain(v) for v in value]
    plain = value.item()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
