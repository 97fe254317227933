"""Clusters: unlike devices from the catalogue of systems, and the links between them, by name or from a YAML file."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
from jaxtyping import Float

from perfmodel._files import decode_file
from perfmodel._names import unknown_name
from perfmodel.hardware import System
from perfmodel.hardware import _config as systems
from perfmodel.hardware._quantity import quantity

_MOST_DEVICES = 1024


@dataclass(frozen=True, eq=False)
class Cluster:
    """`D` devices, each a system of one chiplet, and a link between any two.

    `systems`: of each device.  `latency_s, bytes_per_s`: `[D, D]` from device to device (0 and infinite on the diagonal)."""

    name: str
    device_names: tuple[str, ...]
    systems: tuple[System, ...]
    latency_s: Float[np.ndarray, "D D"]
    bytes_per_s: Float[np.ndarray, "D D"]
    about: str = ""

    @property
    def n_devices(self) -> int:
        return len(self.device_names)


class _Device(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    system: str
    count: int = 1


class _Link(msgspec.Struct, forbid_unknown_fields=True):
    bandwidth: float | str
    latency: float | str = 0.0


class _Pair(_Link, forbid_unknown_fields=True, kw_only=True):
    between: tuple[str, str]


class _Links(msgspec.Struct, forbid_unknown_fields=True):
    default: _Link | None = None
    pairs: list[_Pair] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    devices: list[_Device]
    links: _Links = msgspec.field(default_factory=_Links)
    about: str = ""


def clusters() -> list[str]:
    """Names of all clusters in the catalogue."""
    folder = resources.files("search.placement") / "catalog"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_cluster(name: str | Path) -> Cluster:
    """A cluster by catalogue name, or by the path of a YAML file.

    `devices`: `name`, `system` (catalogue name or file, of one chiplet), `count` (1): several are called name-0, name-1, ...
    `links`: `default` and `pairs` with `between` two devices (or two entries of `devices`: every pair of theirs), each with
    `bandwidth` (each way) and `latency`; a later pair takes precedence.

    Raises ValueError in one line naming file, field, value and what is allowed; for two devices without a link too."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        if str(name) not in clusters():
            raise unknown_name("cluster", str(name), clusters())
        path = Path(str(resources.files("search.placement") / "catalog" / f"{name}.yaml"))
    file, where = decode_file(path, _File), str(name)
    members = _members(where, file.devices)
    names = tuple(n for each in members.values() for n in each)
    loaded = {
        entry.name: _single(f"{where}: devices[{i}].system", entry.system) for i, entry in enumerate(file.devices)
    }
    latency, bandwidth = _links(where, file.links, members, names)
    return Cluster(
        file.name, names, tuple(loaded[entry] for entry, each in members.items() for _ in each), latency, bandwidth,
        file.about.strip(),
    )  # fmt: skip


def _members(where: str, devices: list[_Device]) -> dict[str, list[str]]:
    """Device names of each entry."""
    if not devices:
        raise ValueError(f"{where}: devices is empty; at least one is needed")
    members: dict[str, list[str]] = {}
    taken: set[str] = set()
    for i, entry in enumerate(devices):
        if not 1 <= entry.count <= _MOST_DEVICES:
            raise ValueError(f"{where}: devices[{i}].count is {entry.count}; allowed: 1 to {_MOST_DEVICES}")
        mine = [entry.name] if entry.count == 1 else [f"{entry.name}-{k}" for k in range(entry.count)]
        again = taken & {entry.name, *mine}
        if again:
            raise ValueError(f"{where}: devices[{i}].name is {entry.name!r}; already taken ({min(again)})")
        taken |= {entry.name, *mine}
        members[entry.name] = mine
    total = sum(map(len, members.values()))
    if total > _MOST_DEVICES:
        raise ValueError(f"{where}: devices are {total}; allowed: at most {_MOST_DEVICES}")
    return members


def _single(where: str, name: str) -> System:
    try:
        system = systems.load(name)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if system.n_chiplets != 1:
        raise ValueError(f"{where} is {name!r} with {system.n_chiplets} chiplets; allowed: systems of one chiplet")
    return system


def _links(where: str, links: _Links, members: dict[str, list[str]], names: tuple[str, ...]):
    n = len(names)
    latency, bandwidth = np.zeros((n, n)), np.full((n, n), np.nan)

    def lay(link: _Link, at: str, left, right) -> None:
        speed = quantity(link.bandwidth, "bytes_per_s", f"{at}.bandwidth")
        delay = quantity(link.latency, "s", f"{at}.latency", zero=True)
        for a, b in ((a, b) for a in left for b in right):
            for i, j in ((a, b), (b, a)):
                bandwidth[i, j], latency[i, j] = speed, delay

    if links.default is not None:
        lay(links.default, f"{where}: links.default", range(n), range(n))
    for p, pair in enumerate(links.pairs):
        ends = []
        for i, end in enumerate(pair.between):
            if end not in members and end not in names:
                raise unknown_name(f"{where}: links.pairs[{p}].between[{i}]", end, {*members, *names})
            ends.append([names.index(name) for name in members.get(end, [end])])
        if ends[0] == ends[1] and len(ends[0]) == 1:
            raise ValueError(
                f"{where}: links.pairs[{p}].between is {pair.between[0]!r} and itself; allowed: two devices"
            )
        lay(pair, f"{where}: links.pairs[{p}]", *ends)
    np.fill_diagonal(latency, 0.0)
    np.fill_diagonal(bandwidth, np.inf)
    if np.isnan(bandwidth).any():
        a, b = np.argwhere(np.isnan(bandwidth))[0]
        raise ValueError(f"{where}: links: {names[a]} and {names[b]} are not connected; add a pair, or a default")
    return latency, bandwidth
