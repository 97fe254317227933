"""`pm.systems`: systems by catalogue name or from a YAML file, read with validation."""

from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .._files import decode_file
from .._names import unknown_name
from .._numerics import frozen
from .._software import LIBRARY, NONE, software
from . import _silicon_config as silicon
from ._chiplet import DATAFLOWS, stack_chiplets
from ._gpu import gpu_names, stack_gpus
from ._memory import MemoryTiers
from ._package import TOPOLOGIES, mesh, switch
from ._quantity import quantity
from ._system import System
from ._technology import Technology

Amount = float | str
ATTACHMENTS = ("package", "chiplet")  # numbers of a tier are the whole package's, or each chiplet's


class _Type(msgspec.Struct, forbid_unknown_fields=True):
    rows: int
    columns: int
    dataflow: str
    clock: Amount
    lanes: int
    buffer: Amount
    buffer_bandwidth: Amount
    # energies left out: the technology's for operands of this precision, and for a buffer of this size
    precision: str = "int8"
    mac_energy: Amount | None = None
    lane_energy: Amount | None = None
    local_energy: Amount | None = None
    buffer_energy: Amount | None = None
    static_power: Amount | None = None
    launch: Amount = 0.0
    area: Amount | None = None  # of the whole die
    other_area: Amount | None = None  # instead: what is neither MACs nor buffer nor die-to-die interface
    gpu: str | None = None  # of dataflow gpu: whose specification sheet and kernels
    operators: list[str] | None = None  # kinds of operators that it can run; default: all


class _Position(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    type: str
    position: tuple[int, int]
    memory: bool = True


class _Package(msgspec.Struct, forbid_unknown_fields=True):
    link: Amount | None = None  # of one chiplet alone: not needed
    port: Amount | None = None
    hop_latency: Amount | None = None
    hop_energy: Amount | None = None  # default: the link kind's
    link_kind: str | None = None
    packaging: str = "organic"
    phy_area: Amount | None = None  # per bandwidth; default: the link kind's, or 0
    io_dies: int = 0
    io_die_area: Amount = 0.0
    topology: str = TOPOLOGIES[0]
    outside: Amount | None = None  # bandwidth of each chiplet to other packages; default: none
    outside_latency: Amount = 0.0


class _Tier(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    capacity: Amount
    bandwidth: Amount
    latency: Amount
    energy: Amount | None = None  # default: the kind's
    static_power: Amount = 0.0
    price: Amount | None = None  # default: the kind's, or 0
    kind: str | None = None
    write_bandwidth: Amount | None = None  # default: bandwidth
    copy_bandwidth: Amount | None = None  # to and from the tier before; default: what both give
    attachment: str = ATTACHMENTS[0]
    compute: Amount = 0.0  # operations per second inside the memory


class _File(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    technology: str | silicon.TechnologyChoice
    types: dict[str, _Type]
    chiplets: list[_Position]
    memory: list[_Tier]
    package: _Package | None = None
    software: str | None = None  # default: library where all chiplets are GPUs, else none
    about: str = ""


def names() -> list[str]:
    """Names of all systems in the catalogue."""
    catalog = resources.files("perfmodel.hardware") / "catalog"
    return sorted(entry.name.removesuffix(".yaml") for entry in catalog.iterdir() if entry.name.endswith(".yaml"))


def load(name: str) -> System:
    """A system by catalogue name, or by the path of a YAML file.

    Raises ValueError in one line naming file, field, value and what is allowed.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        if name not in names():
            raise unknown_name("system", name, names())
        path = _catalog_file(name)
    return _system(str(name), decode_file(path, _File))


def about(name: str) -> str:
    """The free text that a system file carries about its sources and assumptions."""
    if name not in names():
        raise unknown_name("system", name, names())
    return decode_file(_catalog_file(name), _File).about.strip()


def _catalog_file(name: str) -> Path:
    return Path(str(resources.files("perfmodel.hardware") / "catalog" / f"{name}.yaml"))


def _system(where: str, file: _File) -> System:
    if not file.types:
        raise ValueError(f"{where}: types is empty; at least one chiplet type is needed")
    process = silicon.read_technology(where, file.technology, file.package)
    types = stack_chiplets([_chiplet_type(f"{where}: types.{name}", t, process) for name, t in file.types.items()])
    type_names = tuple(file.types)
    if not file.chiplets:
        raise ValueError(f"{where}: chiplets is empty; at least one is needed")
    for i, chiplet in enumerate(file.chiplets):
        if chiplet.type not in type_names:
            raise unknown_name(f"{where}: chiplets[{i}].type", chiplet.type, type_names)
        for other in file.chiplets[:i]:
            if other.name == chiplet.name or other.position == chiplet.position:
                what = "name" if other.name == chiplet.name else "position"
                raise ValueError(f"{where}: chiplets[{i}].{what} is {getattr(chiplet, what)!r}; already taken")
    attached = [i for i, c in enumerate(file.chiplets) if c.memory]
    if not attached:
        raise ValueError(f"{where}: no chiplet has memory: true; at least one must reach memory")
    if len(file.chiplets) > 1 and file.package is None:
        raise ValueError(f"{where}: package is missing; {len(file.chiplets)} chiplets need a network")
    if not file.memory:
        raise ValueError(f"{where}: memory is empty; at least one tier is needed")
    link = _network(where, file.package, len(file.chiplets), process)
    kind = np.asarray([type_names.index(c.type) for c in file.chiplets], np.int32)
    names = tuple(c.name for c in file.chiplets)
    at = f"{where}: package"
    network = dict(
        link_bytes_per_s=quantity(link.link, "bytes_per_s", f"{at}.link"),
        port_bytes_per_s=quantity(link.port, "bytes_per_s", f"{at}.port"),
        hop_s=quantity(link.hop_latency, "s", f"{at}.hop_latency", zero=True),
        hop_j_per_byte=quantity(link.hop_energy, "j_per_byte", f"{at}.hop_energy", zero=True),
    )
    network["outside_bytes_per_s"] = (
        0.0 if link.outside is None else quantity(link.outside, "bytes_per_s", f"{at}.outside")
    )
    network["outside_s"] = quantity(link.outside_latency, "s", f"{at}.outside_latency", zero=True)
    try:
        package = _connected(at, link.topology, [c.position for c in file.chiplets], attached, names, network)
    except ValueError as error:  # a hole in the mesh
        raise ValueError(f"{where}: {error}") from None
    gpus = [t.gpu or "" for t in file.types.values()]
    some_gpu = next(filter(None, gpus), None)
    usual = LIBRARY.name if all(gpus) else NONE.name
    made = System(
        chiplets=types.pick(kind),
        memory=_tiers(where, file.memory, len(file.chiplets)),
        package=package,
        technology=process,
        types=types,
        kind=kind,
        name=file.name,
        chiplet_names=names,
        type_names=type_names,
        gpus=None if some_gpu is None else stack_gpus([name or some_gpu for name in gpus]),
        gpu_names=() if some_gpu is None else tuple(gpus),
        runs=() if all(t.operators is None for t in file.types.values())
        else tuple(tuple(t.operators or ()) for t in file.types.values()),
        software=software(file.software or usual, f"{where}: software"),
    )  # fmt: skip
    return frozen(made)


def _connected(where: str, topology: str, positions, attached, names, network: dict):
    if topology not in TOPOLOGIES:
        raise unknown_name(f"{where}.topology", topology, TOPOLOGIES)
    if topology == "mesh":
        return mesh(positions, attached, names, **network)
    if len(attached) < len(positions):
        raise ValueError("package: topology switch needs memory: true at every chiplet")
    return switch(positions, **{name: value for name, value in network.items() if name != "link_bytes_per_s"})


def _network(where: str, package: _Package | None, n_chiplets: int, process: Technology) -> _Package:
    """The package with everything that a network needs; of one chiplet alone, anything: it is never used."""
    if n_chiplets == 1:
        alone = dict(link=1e9, port=1e9, hop_latency=0.0, hop_energy=0.0, topology="mesh")
        return msgspec.structs.replace(package or _Package(), **alone)
    assert package is not None
    energy = package.hop_energy
    if energy is None and package.link_kind is not None:
        energy = silicon.link_j_per_byte(package.link_kind, process)
    full = msgspec.structs.replace(package, hop_energy=energy)
    if full.topology == "switch" and full.link is None:
        full = msgspec.structs.replace(full, link=full.port)
    for field in ("link", "port", "hop_latency", "hop_energy"):
        if getattr(full, field) is None:
            or_kind = " (or a link_kind)" if field == "hop_energy" else ""
            raise ValueError(f"{where}: package.{field} is missing{or_kind}; {n_chiplets} chiplets need a network")
    return full


def _chiplet_type(where: str, t: _Type, process: Technology) -> dict:
    if t.dataflow not in DATAFLOWS:
        raise unknown_name(f"{where}.dataflow", t.dataflow, DATAFLOWS)
    if t.gpu is not None and t.gpu not in gpu_names():
        raise unknown_name(f"{where}.gpu", t.gpu, gpu_names())
    if (t.gpu is None) == (t.dataflow == "gpu"):
        needed = "of dataflow gpu alone" if t.gpu else f"needed with dataflow gpu: one of {', '.join(gpu_names())}"
        raise ValueError(f"{where}.gpu is {t.gpu!r} and dataflow {t.dataflow!r}; {needed}")
    for field in ("rows", "columns", "lanes"):
        if getattr(t, field) < 1:
            raise ValueError(f"{where}.{field} is {getattr(t, field)}; allowed: an integer of at least 1")
    default = silicon.chiplet_defaults(where, t, process)
    return dict(
        rows=t.rows,
        columns=t.columns,
        dataflow=DATAFLOWS.index(t.dataflow),
        clock_hz=quantity(t.clock, "hz", f"{where}.clock"),
        lanes=t.lanes,
        buffer_bytes=quantity(t.buffer, "bytes", f"{where}.buffer"),
        buffer_bytes_per_s=quantity(t.buffer_bandwidth, "bytes_per_s", f"{where}.buffer_bandwidth"),
        launch_s=quantity(t.launch, "s", f"{where}.launch", zero=True),
        mac_j=quantity(default.mac_energy, "j", f"{where}.mac_energy", zero=True),
        lane_op_j=quantity(default.lane_energy, "j", f"{where}.lane_energy", zero=True),
        local_j_per_byte=quantity(default.local_energy, "j_per_byte", f"{where}.local_energy", zero=True),
        buffer_j_per_byte=quantity(default.buffer_energy, "j_per_byte", f"{where}.buffer_energy", zero=True),
        static_w=quantity(default.static_power, "w", f"{where}.static_power", zero=True),
        other_mm2=quantity(default.other_area, "mm2", f"{where}.other_area", zero=True),
    )


def _tiers(where: str, tiers: list[_Tier], chiplets: int) -> MemoryTiers:
    tiers = [silicon.memory_defaults(f"{where}: memory[{i}]", t) for i, t in enumerate(tiers)]
    for i, t in enumerate(tiers):
        if t.attachment not in ATTACHMENTS:
            raise unknown_name(f"{where}: memory[{i}].attachment", t.attachment, ATTACHMENTS)
        if t.name in [other.name for other in tiers[:i]]:
            raise ValueError(f"{where}: memory[{i}].name is {t.name!r}; already taken")
    if tiers[0].copy_bandwidth is not None:
        raise ValueError(
            f"{where}: memory[0].copy_bandwidth is {tiers[0].copy_bandwidth!r}; allowed: none, as nothing is before it"
        )
    for i, t in enumerate(tiers[1:], 1):
        at = f"{where}: memory[{i}].copy_bandwidth"
        if t.copy_bandwidth is not None and quantity(t.copy_bandwidth, "bytes_per_s", at, zero=True) == 0:
            raise ValueError(
                f"{at} is {t.copy_bandwidth!r}, so nothing reaches {t.name}; allowed: above 0, e.g. 64 GB/s"
            )
    times = np.asarray([chiplets if t.attachment == "chiplet" else 1 for t in tiers], np.float64)

    def column(field: str, dimension: str, zero: bool = False, default: Any = None):
        at = [f"{where}: memory[{i}].{field}" for i in range(len(tiers))]
        said = [getattr(t, field) for t in tiers]
        return np.asarray([
            default[i] if said[i] is None else quantity(said[i], dimension, at[i], zero=zero) * times[i]
            for i in range(len(tiers))
        ], np.float64)  # fmt: skip

    read = column("bandwidth", "bytes_per_s")
    write = column("write_bandwidth", "bytes_per_s", default=read)
    copied = [read[0], *(min(read[i], write[i - 1]) for i in range(1, len(tiers)))]
    return MemoryTiers(
        capacity_bytes=column("capacity", "bytes"),
        bytes_per_s=read,
        latency_s=column("latency", "s", zero=True) / times,
        j_per_byte=column("energy", "j_per_byte", zero=True) / times,
        static_w=column("static_power", "w", zero=True),
        usd=column("price", "usd", zero=True),
        write_bytes_per_s=write,
        copy_bytes_per_s=column("copy_bandwidth", "bytes_per_s", default=copied),
        share=1.0 / times,
        ops_per_s=column("compute", "ops_per_s", zero=True),
        names=tuple(t.name for t in tiers),
        own=tuple(t.attachment == "chiplet" for t in tiers),
    )
