"""Placement instances from files: the JSON of the released Moirai instances."""

import json
import math
import re
from pathlib import Path

import msgspec
import numpy as np

from perfmodel._files import decode_file

from ._problem import NO_GROUP, Problem

_LARGEST = 1e30  # of a number in a file: sums of ten thousand stay finite even in float32
_MOST_NUMBERS = 200_000_000  # edges x devices x devices: 1.6 GB


class _Task(msgspec.Struct, forbid_unknown_fields=True):
    id: int | str
    time: list[float | None]
    memory_bytes: float = 0.0
    group: int | str | None = None
    name: str | None = None


class _Edge(msgspec.Struct, forbid_unknown_fields=True):
    src: int
    dst: int
    comm: list[list[float | None]] | None = None


class _File(msgspec.Struct):
    devices: int
    device_memory_bytes: list[float]
    tasks: list[_Task]
    edges: list[_Edge]
    name: str | None = None


def load_instance(path: str | Path, *, comm_scale: float = 1.0, congestion: bool = False) -> Problem:
    """The placement problem in a JSON (or YAML) file.

    `devices`: how many. `device_memory_bytes[k]`. `tasks`: `id`, `time[k]` on device k, `memory_bytes`, optionally `group` (tasks
    of the same group stand on one device). `edges`: `src`, `dst` are positions in `tasks`; `comm[k1][k2]` is the time from device
    k1 to k2; null or missing: precedence alone, nothing is moved. Every pair of devices needs a finite time: an entry that is
    null or infinite says that two devices are not connected, and is refused.

    **Arguments:** `comm_scale`: every transfer takes so many times as long; `congestion`: see `Problem`.

    Raises ValueError in one line naming file, task or edge, value and what is allowed.
    """
    file = _read(path)
    d, n = file.devices, len(file.tasks)
    if d < 1:
        raise ValueError(f"{path}: devices is {d}; allowed: at least 1")
    if len(file.device_memory_bytes) != d:
        raise ValueError(
            f"{path}: device_memory_bytes has {len(file.device_memory_bytes)} entries; needed: {d}, one a device"
        )
    if n == 0:
        raise ValueError(f"{path}: tasks is empty; at least one is needed")
    if len(file.edges) * d * d > _MOST_NUMBERS:
        raise ValueError(
            f"{path}: {len(file.edges)} edges between {d} devices are {len(file.edges) * d * d} transfer times; "
            f"allowed: at most {_MOST_NUMBERS}"
        )
    capacity = [_number(v, f"{path}: device_memory_bytes[{k}]") for k, v in enumerate(file.device_memory_bytes)]
    times, memory, group, names = _tasks(path, file.tasks, d)
    source, target, transfer, moves = _edges(path, file.edges, names, d)
    try:
        problem = Problem(
            times=times, memory_bytes=memory, capacity_bytes=np.asarray(capacity), source=source, target=target,
            transfer=transfer, moves=moves, group=group, names=names, device_names=tuple(f"device {k}" for k in range(d)),
            name=file.name or Path(path).stem, congestion=congestion,
        )  # fmt: skip
    except ValueError as error:  # a cycle
        raise ValueError(f"{path}: {error}") from None
    return problem if comm_scale == 1 else problem.scaled(comm_scale)


def _read(path: str | Path) -> _File:
    """The declared structure. JSON is read as such: faster, and YAML takes its `1e-05` for a word."""
    try:
        plain = json.loads(Path(path).read_bytes(), object_pairs_hook=_distinct)
    except (OSError, ValueError, RecursionError):
        return decode_file(path, _File)  # YAML, or what is wrong in one line
    try:
        return msgspec.convert(plain, _File)
    except msgspec.ValidationError as error:
        said, _, where = str(error).replace("`", "").partition(" - at $")
        value = plain
        for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", where):
            value = value[name or int(index)]
        got = f"; got {value!r}" if isinstance(value, str | int | float | bool) or value is None else ""
        raise ValueError(f"{path}: {said} - at ${where}{got}") from None


def _distinct(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _number(value: float | None, where: str) -> float:
    if value is None or not (math.isfinite(value) and 0 <= value <= _LARGEST):
        got = "missing (null)" if value is None else f"{value:g}"
        raise ValueError(f"{where} is {got}; allowed: a number from 0 to {_LARGEST:g}")
    return value


def _tasks(path, tasks: list[_Task], d: int):
    seen, groups = {}, {}
    for i, task in enumerate(tasks):
        if str(task.id) in seen:
            raise ValueError(f"{path}: tasks[{i}]: id is {task.id!r}; already the id of tasks[{seen[str(task.id)]}]")
        seen[str(task.id)] = i
        where = f"{path}: task {task.id}"
        if len(task.time) != d:
            raise ValueError(f"{where}: time has {len(task.time)} entries; needed: {d}, one a device")
        for k, value in enumerate(task.time):
            _number(value, f"{where}: time[{k}]")
        _number(task.memory_bytes, f"{where}: memory_bytes")
        if task.group is not None:
            groups.setdefault(task.group, len(groups))
    return (
        np.asarray([t.time for t in tasks], np.float64).reshape(len(tasks), d),
        np.asarray([t.memory_bytes for t in tasks], np.float64),
        np.asarray([NO_GROUP if t.group is None else groups[t.group] for t in tasks], np.int64),
        tuple(seen),
    )


def _edges(path, edges: list[_Edge], names: tuple[str, ...], d: int):
    n, seen = len(names), {}
    transfer, moves = np.zeros((len(edges), d, d)), np.zeros(len(edges), bool)
    for i, edge in enumerate(edges):
        for end in ("src", "dst"):
            at = getattr(edge, end)
            if not 0 <= at < n:
                raise ValueError(f"{path}: edges[{i}].{end} is {at}; allowed: 0 to {n - 1}, a position in tasks")
        where = f"{path}: edges[{i}] ({names[edge.src]} -> {names[edge.dst]})"
        if edge.src == edge.dst:
            raise ValueError(f"{where}: src and dst are both {edge.src}; a task cannot wait for itself")
        first = seen.setdefault((edge.src, edge.dst), i)
        if first != i:
            raise ValueError(
                f"{where}: src {edge.src}, dst {edge.dst} repeats edges[{first}]; allowed: one edge a pair"
            )
        if edge.comm is None:
            continue
        if len(edge.comm) != d or any(len(row) != d for row in edge.comm):
            shape = f"{len(edge.comm)} rows of {', '.join(map(str, sorted({len(r) for r in edge.comm})))}"
            raise ValueError(f"{where}: comm has {shape}; needed: {d} rows of {d}")
        for a, row in enumerate(edge.comm):
            for b, value in enumerate(row):
                if a != b and (value is None or value == math.inf):
                    raise ValueError(f"{where}: comm[{a}][{b}] is {'null' if value is None else 'infinite'}: devices {a} and {b} "
                                     f"are not connected; allowed: a number from 0 to {_LARGEST:g} (comm: null for an edge "
                                     "that moves nothing)")  # fmt: skip
                _number(value, f"{where}: comm[{a}][{b}]")
            if row[a]:
                raise ValueError(f"{where}: comm[{a}][{a}] is {row[a]:g}; allowed: 0, nothing moves within a device")
        transfer[i], moves[i] = edge.comm, True
    return np.asarray([e.src for e in edges], np.int64), np.asarray([e.dst for e in edges], np.int64), transfer, moves
