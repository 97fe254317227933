"""A schedule from a JSON (or YAML) file: `{assignment: [chiplet names], order: [...], window: [...], sub_batch: N, fusion: ...}`."""

import msgspec
import numpy as np

from perfmodel import Schedule, System, Workload
from perfmodel._files import decode_file
from perfmodel._names import unknown_name
from perfmodel.workload import BACKENDS, fuse, fusion_of


class _File(msgspec.Struct, forbid_unknown_fields=True):
    assignment: list[str]
    order: list[int | str] | None = None
    window: list[int] | None = None
    sub_batch: int = 1
    fusion: str | list[tuple[str, str]] | None = None


def load_schedule(path: str, workload: Workload, system: System) -> Schedule:
    """A hard schedule. `assignment` and `window` in the order of the workload's operators; `order`: operators (names or
    numbers) as they execute; `fusion`: a backend by whose rules edges are fused, or those edges, [producer, consumer] each.
    Raises ValueError naming file, field, value and what is allowed."""
    file, n = decode_file(path, _File), workload.n_operators
    for field in ("assignment", "order", "window"):
        value = getattr(file, field)
        if value is not None and len(value) != n:
            raise ValueError(f"{path}: {field} has {len(value)} entries; the workload has {n} operators")
    for i, name in enumerate(file.assignment):
        if name not in system.chiplet_names:
            raise unknown_name(f"{path}: assignment[{i}]", name, system.chiplet_names)
    if file.sub_batch < 1:
        raise ValueError(f"{path}: sub_batch is {file.sub_batch}; allowed: an integer of at least 1")
    order = window = None
    if file.order is not None:
        index = {name: i for i, name in enumerate(workload.names)}
        for i, item in enumerate(file.order):
            if item not in index and not (isinstance(item, int) and 0 <= item < n):
                raise ValueError(
                    f"{path}: order[{i}] is {item!r}; allowed: an operator's name or a number from 0 to {n - 1}"
                )
        order = np.asarray([item if isinstance(item, int) else index[item] for item in file.order], np.int32)
        if not np.array_equal(np.sort(order), np.arange(n)):
            raise ValueError(f"{path}: order names an operator twice; it must name each of the {n} once")
    if file.window is not None:
        for i, number in enumerate(file.window):
            if not 0 <= number < n:
                raise ValueError(f"{path}: window[{i}] is {number}; allowed: 0 to {n - 1}")
        window = np.asarray(file.window, np.int32)
    return Schedule(
        np.asarray([system.chiplet_names.index(name) for name in file.assignment], np.int32),
        sub_batch=np.float32(file.sub_batch), order=order, window=window,
        n_windows=1 if window is None else int(window.max()) + 1, fusion=_fusion(path, file.fusion, workload),
    )  # fmt: skip


def _fusion(path: str, chosen: str | list[tuple[str, str]] | None, workload: Workload) -> np.ndarray | None:
    if chosen is None or isinstance(chosen, str):
        if chosen not in (None, *BACKENDS):
            raise unknown_name(f"{path}: fusion", str(chosen), BACKENDS)
        return None if chosen in (None, "none") else fuse(workload, chosen).fused
    index = {name: i for i, name in enumerate(workload.names)}
    edges: dict[tuple[int, int], list[int]] = {}
    for edge, ends in enumerate(zip(workload.source.tolist(), workload.target.tolist(), strict=True)):
        edges.setdefault(ends, []).append(edge)
    fused = np.zeros(len(workload.source), bool)
    for i, pair in enumerate(chosen):
        for name in pair:
            if name not in index:
                raise unknown_name(f"{path}: fusion[{i}]", name, index)
        ends = (index[pair[0]], index[pair[1]])
        if ends not in edges:
            raise ValueError(f"{path}: fusion[{i}] is {pair[0]!r} -> {pair[1]!r}; allowed: an edge of the workload")
        fused[edges[ends]] = True
    try:
        fusion_of(workload, fused)
    except ValueError as error:
        raise ValueError(f"{path}: fusion: {error}") from None
    return fused
