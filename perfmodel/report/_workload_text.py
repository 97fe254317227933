"""The analysis of a model as text for a person."""

import re

import numpy as np

from ..workload import KINDS
from ._workload import BOUNDS, SystemView, WorkloadReport, operator_bytes

_NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])|(?<=[a-z])\d+(?=[./]|$)")


def workload_text(report: WorkloadReport) -> str:
    """What a model asks for, by class of operators, and what a system makes of it."""
    w = report.workload
    lines = [
        f"{', '.join(w.model_names)}: {w.n_operators:,} operators, {report.macs:,} MACs, {report.parameters:,} parameters"
    ]

    def line(name: str, text: str) -> None:
        lines.append(f"{name:22}{text}")

    stored, made = report.bytes_by_bits["weights"], report.bytes_by_bits["activations"]
    line("weights", f"{_size(report.weight_bytes)}{_precisions(stored)}")
    peak = f"{_size(report.peak_activation_bytes)} live at most (at {report.peak_at})"
    line("activations", f"{peak}, of {_size(sum(made.values()))} produced{_precisions(made)}")
    for model, nbytes in report.kv_bytes_per_token.items():
        m = w.model_names.index(model)
        of = f" ({model})" if w.n_models > 1 else ""
        tokens = float(w.kv_tokens[m])
        line(
            "KV cache",
            f"{_binary(nbytes)} a token{of}, {_size(nbytes * tokens)} for {tokens:,.0f} tokens after this pass",
        )
    if w.state_bytes.sum():
        line("states", f"{_size(float(w.state_bytes.sum()))} kept from pass to pass (recurrent, or an optimizer's)")
    line("arithmetic intensity", f"{report.intensity:.4g} operations a byte if every operator goes through memory "
         f"({_size(report.moved_bytes)}), {report.best_intensity:.4g} if none does ({_size(report.least_bytes)})")  # fmt: skip
    timed = report.on is not None
    lines += [
        "",
        f"{'class':26}{'operators':>10}{'MACs':>8}{'lane ops':>10}{'bytes':>8}{'ops/byte':>10}{'time' if timed else '':>8}",
    ]
    total = max(report.macs, 1), max(sum(c.lane_ops for c in report.classes), 1), max(report.moved_bytes, 1)
    time = sum(c.time_s or 0.0 for c in report.classes)
    for c in report.classes:
        intensity = (2 * c.macs + c.lane_ops) / max(c.bytes, 1)
        share = f"{c.time_s / time:8.1%}" if timed and c.time_s is not None and time > 0 else ""
        lines.append(f"{c.name:26}{c.operators:10,}{c.macs / total[0]:8.1%}{c.lane_ops / total[1]:10.1%}{c.bytes / total[2]:8.1%}"
                     f"{intensity:10.4g}{share}")  # fmt: skip
    lines += ["", f"{'fused as':26}{'groups':>10}{'bytes':>12}{'ops/byte':>10}  if every group goes through memory"]
    for name, f in report.fused.items():
        lines.append(f"{name:26}{f.groups:10,}{_size(f.bytes):>12}{f.intensity:10.4g}")
    if report.on is not None:
        lines += ["", *_system_lines(report, report.on)]
    return "\n".join(lines)


def _system_lines(report: WorkloadReport, seen: SystemView) -> list[str]:
    total = float(seen.time_s.sum())
    lines = [
        f"on {seen.system} (every operator alone on the type of chiplet that runs it fastest, nothing fused or kept): "
        f"{total * 1e3:.4g} ms",
        f"{'balance':22}{seen.balance:.4g} operations a byte: what does less for each byte it moves is bound by memory",
    ]
    bound = np.asarray(seen.bound)
    for name in BOUNDS:
        mine = bound == name
        if mine.any():
            share = seen.time_s[mine].sum() / max(total, 1e-300)
            lines.append(f"bound by {name:13}{mine.sum():6,} operators, {share:6.1%} of the time")
    fits = f"fits, taken to lie in {seen.tier}"
    if seen.needed_bytes > seen.capacity_bytes:
        more = _size(seen.needed_bytes - seen.capacity_bytes)
        fits = f"DOES NOT FIT: {more} too much, at least {seen.devices} devices would hold it"
    lines.append(
        f"{'memory':22}{_size(seen.needed_bytes)} of weights, caches, states and live activations; "
        f"{_size(seen.capacity_bytes)} there: {fits}"
    )
    for kind, names in seen.unsupported.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"UNSUPPORTED: no chiplet of {seen.system} runs {kind} ({shown})")
    return lines


def operators_table(report: WorkloadReport) -> str:
    """Operators of a model in execution order; rows alike but for numbers in their names are one line."""
    w, op = report.workload, report.workload.operators
    moved = operator_bytes(w)
    sizes = np.stack(
        [np.asarray(getattr(op, n)) for n in ("kind", "groups", "batch", "k", "c", "p", "q", "r", "s")], axis=1
    )
    found: dict[tuple, list[int]] = {}
    bounds = report.on.bound if report.on is not None else None
    for i, name in enumerate(w.names):
        key = (_NUMBER.sub("*", name), *sizes[i].tolist(), float(op.in_bits[i]), float(op.weight_bits[i]),
               float(op.parameters[i]), float(moved[i]), None if bounds is None else bounds[i])  # fmt: skip
        found.setdefault(key, []).append(i)
    names = {key: key[0] if len(rows) > 1 else w.names[rows[0]] for key, rows in found.items()}
    wide = min(max(len(n) for n in names.values()) + 2, 60)
    head = f"{'operator':{wide}}{'times':>6}  {'kind':16}{'size':34}{'MACs':>16}{'parameters':>14}{'bytes':>11}"
    lines = [head + ("  bound" if bounds is not None else "")]
    for key, rows in found.items():
        i = rows[0]
        size = " ".join(
            f"{n}{v}" for n, v in zip(("g", "n", "k", "c", "p", "q", "r", "s"), key[2:10], strict=True) if v > 1
        )
        macs = int(op.is_matrix[i]) * int(np.prod([int(v) for v in key[2:10]], dtype=object))
        more = "" if bounds is None else f"  {bounds[i]}"
        lines.append(f"{names[key]:{wide}}{len(rows):6,}  {KINDS[key[1]]:16}{size:34}{macs:16,}{int(op.parameters[i]):14,}"
                     f"{_size(moved[i]):>11}{more}")  # fmt: skip
    return "\n".join([*lines, "amounts are of one of each; size: groups, batch (n), k, c, p, q, r, s where above 1"])


def _precisions(by_bits: dict[float, float]) -> str:
    if not by_bits:
        return ""
    if len(by_bits) == 1:
        return f", {next(iter(by_bits)):g} bits"
    return " (" + ", ".join(f"{_size(n)} at {bits:g} bits" for bits, n in by_bits.items()) + ")"


def _size(nbytes: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= 0.9995 * scale:
            return f"{nbytes / scale:.2f} {unit}"
    return f"{nbytes:.0f} B"


def _binary(nbytes: float) -> str:
    return f"{nbytes / 1024:g} KiB" if nbytes >= 1024 else f"{nbytes:g} B"
