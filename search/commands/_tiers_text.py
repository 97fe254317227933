"""Memory tiers in what the command prints: those of a system, and what lives where in an evaluation."""

from dataclasses import replace


def tiers_of(workload, system, schedule, table=None):
    """The schedule with its memory tiers allocated (where there are several and it does not say), and what to tell of memory."""
    import numpy as np

    from perfmodel.schedule import allocate, device_bytes, least_devices

    names, capacity = system.memory.names, np.asarray(system.memory.capacity_bytes, np.float64)
    stored = workload.stored_bytes
    told = dict(
        stored_bytes=stored, capacity_bytes=float(capacity.sum()), over_bytes=max(stored - float(capacity.sum()), 0.0),
        device_bytes=device_bytes(system), devices_needed=least_devices(stored, system), tiers=None,
    )  # fmt: skip
    if len(names) == 1 or schedule.tiers is not None:
        return schedule, told
    found = allocate(workload, system, schedule, table=table)
    tiers = {}
    for t, name in enumerate(names):
        here = found.tier == t
        tiers[name] = dict(
            {f"{kind}_bytes": float(found.size_bytes[here & (np.asarray(found.kind) == kind)].sum()) for kind in set(found.kind)},
            used_bytes=float(found.used_bytes[t]), over_bytes=float(found.over_bytes[t]), spilled_bytes=float(found.spilled_bytes[t]),
            traffic_bytes=float(found.traffic_bytes[here].sum()),
        )  # fmt: skip
    return replace(schedule, tiers=found.shares), told | {"tiers": tiers}


def memory_lines(told: dict) -> list[str]:
    """What an evaluation says of memory, for a person. Results that share addresses are told one by one, so they may add up to more
    than is in use."""
    lines = []
    for name, tier in (told["tiers"] or {}).items():
        held = ", ".join(
            f"{key.removesuffix('_bytes')} {_size(value)}"
            for key, value in sorted(tier.items(), reverse=True)
            if value and key not in ("used_bytes", "over_bytes", "spilled_bytes", "traffic_bytes")
        )
        spilled = f", {_size(tier['spilled_bytes'])} found no room" if tier["spilled_bytes"] else ""
        used, moved = _size(tier["used_bytes"]), _size(tier["traffic_bytes"])
        lines.append(f"  {'tier ' + name:18}{used} in use: {held or 'nothing'}{spilled}; {moved} moved a round")
    if told["over_bytes"]:
        lines.append(
            f"DOES NOT FIT: {_size(told['stored_bytes'])} of weights, caches and states, {_size(told['capacity_bytes'])} of memory: "
            f"{_size(told['over_bytes'])} too much; at least {told['devices_needed']} devices of "
            f"{_size(told['device_bytes'])} would hold it"
        )
    return lines


def tier_figures(memory, tier: int) -> dict:
    """Everything that a system file says of a tier, and how it is attached."""
    numbers = [f for f in memory.__dataclass_fields__ if f not in ("names", "own")]
    return {f: float(getattr(memory, f)[tier]) for f in numbers} | {
        "attachment": "chiplet" if memory.is_own(tier) else "package"
    }


def tier_lines(tiers: list[dict]) -> list[str]:
    """The tiers of a system as a table: amounts are of the whole package."""
    fields = (
        ("capacity", "capacity_bytes", _size), ("read", "bytes_per_s", _rate), ("write", "write_bytes_per_s", _rate),
        ("copy", "copy_bytes_per_s", _rate), ("latency", "latency_s", lambda v: f"{v * 1e9:.4g} ns"),
        ("energy", "j_per_byte", lambda v: f"{v / 8e-12:.3g} pJ/bit"), ("static", "static_w", lambda v: f"{v:.3g} W"),
        ("price", "usd", lambda v: f"{v:.4g} USD"), ("attached to", "attachment", str),
    )  # fmt: skip
    lines = ["memory      " + "".join(f"{head:>14}" for head, *_ in fields)]
    for i, tier in enumerate(tiers):
        cells = ["-" if name == "copy_bytes_per_s" and i == 0 else show(tier[name]) for _, name, show in fields]
        lines.append(f"  {tier['name']:10}" + "".join(f"{cell:>14}" for cell in cells))
    notes = ["amounts are of the whole package"]
    if any(t["attachment"] == "chiplet" for t in tiers):
        notes.append("attached to chiplet: each chiplet has its part and no other")
    if len(tiers) > 1:
        notes.append("copy: to and from the tier above")
    if any(t["ops_per_s"] for t in tiers):
        notes.append(
            "; ".join(f"{t['name']} computes {t['ops_per_s']:.4g} operations/s" for t in tiers if t["ops_per_s"])
        )
    return [*lines, f"  ({'; '.join(notes)})"]


def _size(nbytes: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= 0.9995 * scale:
            return f"{nbytes / scale:.4g} {unit}"
    return f"{nbytes:.0f} B"


def _rate(bytes_per_s: float) -> str:
    return f"{_size(bytes_per_s)}/s"
