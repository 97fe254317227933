"""What every benchmark shares: CPU seconds, device and versions, one table on stdout, one JSON in results/."""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


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
    """Print the table or the JSON, and keep the JSON with its command, versions and device."""
    import jax
    import jaxlib

    document = {
        **result,
        "command": " ".join(["python", _script(), *[a for a in sys.argv[1:] if a != "--json"]]),
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "jaxlib": jaxlib.__version__},
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
        print(f"written to {path}")


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
