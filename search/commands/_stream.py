"""`evaluate --execution kernels|streaming`: models on a fabric that is divided among operators, beside kernel by kernel."""

import numpy as np

from ._options import options_of, said_once


def check(arguments) -> None:
    """Flags that belong together. Raises ValueError in one line."""
    from perfmodel._names import unknown_name
    from perfmodel.schedule.spatial import EXECUTIONS, LAUNCHES

    if arguments.execution and arguments.execution not in EXECUTIONS:
        raise unknown_name("--execution", arguments.execution, EXECUTIONS)
    for flag in ("launch", "sockets", "largest"):
        if getattr(arguments, flag) is not None and not arguments.execution:
            raise ValueError(f"--{flag} says how kernels run; give --execution kernels or streaming")
    if arguments.launch is not None and arguments.launch not in LAUNCHES:
        try:
            arguments.launch = float(arguments.launch) * 1e-6
        except ValueError:
            raise unknown_name("--launch", arguments.launch, [*LAUNCHES, "MICROSECONDS"]) from None
        if not np.isfinite(arguments.launch) or arguments.launch < 0:
            raise ValueError(f"--launch is {arguments.launch * 1e6:g} us; allowed: at least 0")
    if arguments.execution:
        others = [
            f
            for f in ("schedule", "mapper", "fusion", "parameters", "report", "sensitivities", "out")
            if getattr(arguments, f, None)
        ]
        if others:
            raise ValueError(f"--execution chooses kernels by itself; leave out --{others[0]}")


def streamed(arguments) -> tuple[dict, str]:
    """(JSON, text) of one execution of a pass."""
    import perfmodel as pm
    from perfmodel.schedule import spatial

    from ._run import load_workload

    with said_once():
        workload = load_workload(arguments.workload, options_of(arguments), arguments.mix)
    system = pm.systems.load(arguments.system)
    launch = "software" if arguments.launch is None else arguments.launch
    fabric = spatial.fabric(system, sockets=arguments.sockets, launch=launch)
    n = int(fabric.sockets)
    p = spatial.program(workload, n)
    spilled = float(spatial.spilled_share(p, fabric))
    room = float(_held(system))
    if p.stored_bytes > room:
        raise ValueError(
            f"{arguments.workload}: {p.stored_bytes / 1e9:.4g} GB stay on each of {n} sockets; all its tiers hold {room / 1e9:.4g} GB"
        )
    members = spatial.unfused(p)
    if arguments.execution == "streaming":
        largest = spatial.LARGEST if arguments.largest is None else arguments.largest
        members = spatial.best_chain(p, fabric, largest=largest, spilled=spilled).members
    kernels = spatial.groups(p, members)
    run = spatial.execution(kernels, fabric, spilled=spilled)
    passes = float(np.sum(workload.batch))
    time = float(run.time_s)
    answer = {
        "system": system.name, "execution": arguments.execution, "launch": launch if isinstance(launch, str) else "given",
        "launch_s": float(fabric.launch_s), "sockets": n, "latency_s": time, "throughput_per_s": passes / time, "kernels": len(members),
        "operators": int(np.sum(p.own >= 0)), "collectives": int(np.sum(p.own < 0)),
        "parts_s": {"launch": float(run.launch_s), "pipeline": float(run.compute_s), "memory": float(run.memory_s),
                    "links": float(run.link_s)},
        "memory_bytes": float(run.memory_bytes) * n, "memory_share_reached": float(run.bandwidth), "units_used": float(run.units),
        "stored_bytes": p.stored_bytes * n, "share_in_slower_tier": spilled, "feasible": bool(run.fits),
        "groups": [[p.names[row] for row in rows] for rows in members],
    }  # fmt: skip
    return answer, _text(answer)


def _held(system):
    """Bytes of all memory tiers that one chiplet has."""
    memory = system.memory
    share = np.where(np.asarray(memory.share) < 1.0, np.asarray(memory.share), 1.0 / system.n_chiplets)
    return np.sum(np.asarray(memory.capacity_bytes) * share)


def _text(a: dict) -> str:
    parts = a["parts_s"]
    slower = f", {a['share_in_slower_tier']:.1%} of them in the slower tier" if a["share_in_slower_tier"] else ""
    lines = [
        f"{a['system']}, {a['sockets']} sockets, {a['execution']}, launch by {a['launch'] if a['launch'] != 'given' else 'what was given'} "
        f"({a['launch_s'] * 1e6:g} us)",
        f"{'latency':24}{a['latency_s'] * 1e3:.5g} ms, {a['throughput_per_s']:.5g} inferences/s",
        f"{'kernels':24}{a['kernels']} of {a['operators']} operators and {a['collectives']} collectives a socket",
        f"{'sums over kernels':24}launches {parts['launch'] * 1e3:.4g} ms, pipelines {parts['pipeline'] * 1e3:.4g}, memory "
        f"{parts['memory'] * 1e3:.4g}, links {parts['links'] * 1e3:.4g}; of each kernel the longest counts",
        f"{'memory':24}{a['memory_bytes'] / 1e9:.4g} GB moved, {a['memory_share_reached']:.1%} of the bandwidth, "
        f"{a['stored_bytes'] / 1e9:.4g} GB stored{slower}",
        f"{'units':24}{a['units_used']:.1%} in use",
    ]  # fmt: skip
    if a["execution"] == "streaming":
        longest = max(a["groups"], key=len)
        lines.append(f"{'largest kernel':24}{len(longest)} rows: {longest[0]} ... {longest[-1]}")
    return "\n".join(lines)
