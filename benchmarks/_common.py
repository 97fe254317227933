"""What every benchmark shares: CPU seconds, device and versions, one table on stdout, one JSON in results/."""

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
CONSTRAINTS = Path(__file__).parent / "constraints.txt"  # with which a result can be had again


def pin_to_one_core() -> None:
    """Rates per CPU second are taken on one core: XLA's thread pool spins while it waits, which counts as CPU time."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def arguments(about: str, **flags) -> argparse.Namespace:
    """`--json` and `--out`, and `flags` as name=(default, help)."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    parser.add_argument("--out", help="where to write the JSON (default: benchmarks/results/NAME.json)")
    for name, (default, text) in flags.items():
        if isinstance(default, bool):
            parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
        else:
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=text)
    return parser.parse_args()


def report(name: str, args, result: dict, lines: list[str]) -> None:
    """Print the table or the JSON, and keep the JSON with its command, versions, constraints and device."""
    import jax
    import jaxlib

    apart = unlike(CONSTRAINTS.read_text())
    document = {
        **result,
        "command": " ".join(["python", _script(), *[a for a in sys.argv[1:] if a != "--json"]]),
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "jaxlib": jaxlib.__version__},
        "constraints": {
            "file": f"benchmarks/{CONSTRAINTS.name}",
            "sha256": hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest(),
        },
        "unlike_constraints": apart,
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "load": round(os.getloadavg()[0], 2),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    path = Path(args.out) if args.out else RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    if args.json:
        print(json.dumps(document))
    else:
        print("\n".join(lines))
        if apart:
            print(f"not the versions of benchmarks/{CONSTRAINTS.name}: {'; '.join(apart)}")
        print(f"written to {path}")


def unlike(constraints: str) -> list[str]:
    """`NAME INSTALLED, not WANTED` of every line `NAME==WANTED` that the environment does not keep."""
    said = []
    for line in constraints.splitlines():
        name, pinned, wanted = line.partition("==")
        if pinned and not line.startswith("#"):
            try:
                installed = metadata.version(name)
            except metadata.PackageNotFoundError:
                installed = "missing"
            if installed != wanted:
                said.append(f"{name} {installed}, not {wanted}")
    return said


def _script() -> str:
    """The running script as seen from the top of the repository."""
    script = Path(sys.argv[0]).resolve()
    return f"benchmarks/{script.relative_to(RESULTS.parent)}" if script.is_relative_to(RESULTS.parent) else script.name


def cpu_seconds(call, repeat: int) -> list[float]:
    """CPU seconds of each of `repeat` calls, blocked; the caller has warmed up."""
    import jax

    taken = []
    for _ in range(repeat):
        start = time.process_time()
        jax.block_until_ready(call())
        taken.append(time.process_time() - start)
    return taken


def median(values) -> float:
    return float(statistics.median(values))


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
