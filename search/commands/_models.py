"""The commands `models` and `import`: what a model asks for, before and on a named system."""

from dataclasses import asdict

from ._options import model_options, options_of, said_once


def models(arguments) -> tuple[dict, str]:
    """The list of models, or the analysis of one: (JSON, text). Raises ValueError for bad names and options."""
    import perfmodel as pm

    if arguments.name is None:
        if arguments.system is not None or options_of(arguments):
            raise ValueError("--system and options of models go with the name of one")
        return {"models": pm.models.names()}, "\n".join(pm.models.names())
    report = _analysed(arguments.name, options_of(arguments), arguments.system)
    return _told(arguments.name, report), _text(report)


def imported(arguments) -> tuple[dict, str]:
    """The analysis of a model file: (JSON, in which `operators` is their number, text)."""
    import perfmodel as pm
    from perfmodel.models import is_importable

    if not is_importable(arguments.file):
        raise ValueError(
            f"{arguments.file}: nothing to import; allowed: a .onnx or .pt2 file, a config.json or its directory"
        )
    given = options_of(arguments) | ({"bind": _bound(arguments.bind)} if arguments.bind else {})
    # a directory that has a built-in model's name is still a directory
    path = f"./{arguments.file}" if arguments.file in pm.models.names() else arguments.file
    report = _analysed(path, given, arguments.system)
    told = _told(arguments.file, report)
    return told | {"operators": report.workload.n_operators, "rows": told["operators"]}, _text(report)


def _analysed(name: str, given: dict, system: str | None):
    import perfmodel as pm
    from perfmodel.report import workload_report

    with said_once():
        workload = pm.models.load(name, **model_options([name], given)[0])
    return workload_report(workload, None if system is None else pm.systems.load(system))


def _bound(text: str) -> dict[str, int]:
    sizes = {}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if not (name and equals and value.isdigit()):
            raise ValueError(f"--bind has {item!r}; allowed: NAME=SIZE, separated by commas")
        if name.strip() in sizes:
            raise ValueError(f"--bind names {name.strip()!r} twice")
        sizes[name.strip()] = int(value)
    return sizes


def _told(name: str, report) -> dict:
    from perfmodel.report import operator_bytes
    from perfmodel.workload import KINDS, exact_macs

    w = report.workload
    op, macs, moved = w.operators, exact_macs(w.operators), operator_bytes(w)
    rows = [
        dict(name=w.names[i], kind=KINDS[op.kind[i]], macs=macs[i], lane_ops=float(op.lane_ops[i]), parameters=int(op.parameters[i]),
             output_elements=int(op.out_elements[i]), bytes=float(moved[i]), inputs=[w.names[j] for j in w.inputs[i] if j >= 0])
        for i in range(w.n_operators)
    ]  # fmt: skip
    by_bits = {what: {f"{bits:g}": n for bits, n in found.items()} for what, found in report.bytes_by_bits.items()}
    answer = dict(
        name=name, operators=rows, macs=report.macs, parameters=report.parameters, weight_bytes=report.weight_bytes,
        peak_activation_bytes=report.peak_activation_bytes, peak_activation_at=report.peak_at,
        kv_bytes_per_token=sum(report.kv_bytes_per_token.values()), kv_cache_bytes=report.kv_cache_bytes,
        state_bytes=float(w.state_bytes.sum()),
        intensity_ops_per_byte=report.intensity, best_intensity_ops_per_byte=report.best_intensity,
        moved_bytes=report.moved_bytes, least_bytes=report.least_bytes, bytes_by_bits=by_bits,
        classes=[asdict(share) for share in report.classes], fusion={name: asdict(f) for name, f in report.fused.items()},
    )  # fmt: skip
    seen = report.on
    if seen is not None:
        for row, bound, on, time in zip(rows, seen.bound, seen.on, seen.time_s.tolist(), strict=True):
            row.update(bound=bound, runs_on=on, time_s=time)
        answer["system"] = dict(
            name=seen.system, balance_ops_per_byte=seen.balance, time_s=float(seen.time_s.sum()), needed_bytes=seen.needed_bytes,
            capacity_bytes=seen.capacity_bytes, unsupported=seen.unsupported,
        )  # fmt: skip
    return answer


def _text(report) -> str:
    from perfmodel.report import operators_table, workload_text

    return f"{operators_table(report)}\n\n{workload_text(report)}"
