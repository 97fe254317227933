"""The command `perfmodel`: parse, call, print. Exit codes: 0 done, 2 bad input (one line on stderr), 1 bug."""

import argparse
import sys
from dataclasses import fields
from importlib import import_module

from .commands import _show as show

_JSON = dict(action="store_true", help="machine-readable output on stdout, logs on stderr")


class _Parser(argparse.ArgumentParser):
    def error(self, message):  # one line instead of usage + message
        raise ValueError(f"{message} (see {self.prog} --help)")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        arguments = _parser().parse_args(argv)
        _use_compilation_cache()
        arguments.call(arguments)
    except ValueError as error:
        print(f"perfmodel: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("perfmodel: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    from .commands._options import add_option_flags

    parser = _Parser(prog="perfmodel", description="Performance model and design-space search for chiplet accelerators.",
                     allow_abbrev=False)  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name, call, about):
        made = commands.add_parser(name, help=about, description=about, allow_abbrev=False,
                                   formatter_class=argparse.ArgumentDefaultsHelpFormatter)  # fmt: skip
        made.add_argument("--json", **_JSON)
        made.set_defaults(call=call)
        return made

    made = command(
        "explore", _explore, "search chiplet mixes and schedules; writes a directory with the front and pictures"
    )
    made.add_argument(
        "--workload", default="gpt2,resnet50", metavar="NAMES", help="models or workload files, comma-separated"
    )
    made.add_argument("--system", default="mcm-2x2", metavar="NAME|FILE", help="catalogue name or YAML file")
    made.add_argument(
        "--types", default="", metavar="NAMES", help="chiplet types on offer at every position (default: os,ws)"
    )
    made.add_argument(
        "--objectives",
        default="throughput,energy",
        metavar="NAMES",
        help="throughput, latency, energy, edp, power, area, cost",
    )
    made.add_argument("--mix", default="equal-work", help="equal-work or equal-inferences")
    add_option_flags(made)
    made.add_argument("--out", metavar="DIR", help="where to write (default: explore-WORKLOAD-SYSTEM)")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--resume", metavar="DIR", help="go on with an interrupted run; its own settings hold")
    for name, about in (("starts", "relaxed placements that descend in parallel"), ("relaxed-steps", "their gradient steps"),
                        ("population", "candidates that evolve"), ("generations", "generations they evolve for")):  # fmt: skip
        made.add_argument(f"--{name}", type=int, default=_setting(name), help=about)

    made = command("evaluate", _evaluate, "metrics of one schedule (without --schedule: a stated greedy one)")
    made.add_argument(
        "--workload", required=True, metavar="NAME|FILE", help="models or workload files, comma-separated"
    )
    made.add_argument("--system", required=True, metavar="NAME|FILE")
    add_option_flags(made)
    made.add_argument("--mix", default="equal-work")
    made.add_argument(
        "--schedule", metavar="FILE", help="JSON: {assignment: [chiplet names], order, window, sub_batch}"
    )
    made.add_argument("--mapper", default="", metavar="OBJECTIVE",
                      help="search each operator's loop nest for least latency, energy or edp instead of the closed form of its "
                      "dataflow; --report prints the nests")  # fmt: skip
    made.add_argument("--cold", action="store_true", help="latency loads the weights that stay in buffers, too")
    made.add_argument("--execution", default="", metavar="NAME",
                      help="on a divided fabric (SN40L): kernels, one an operator, or streaming, groups as spatial pipelines")  # fmt: skip
    made.add_argument(
        "--launch", metavar="NAME|US", help="of --execution: software (default), hardware or microseconds a kernel"
    )
    made.add_argument(
        "--sockets", type=int, metavar="N", help="of --execution: that share a model (default: all chiplets)"
    )
    made.add_argument(
        "--largest", type=int, metavar="N", help="of --execution streaming: most operators of a kernel (default: 64)"
    )
    made.add_argument("--fusion", default="", metavar="NAME",
                      help="what is launched together: as library, compiled or streaming software does, or by the rules of none "
                      "(every operator by itself), xla-like, tensorrt-like or dataflow (default: as the system's file says)")  # fmt: skip
    made.add_argument(
        "--parameters", metavar="FILE", help="constants of GPU kernels that `calibrate` fitted, for systems with a GPU"
    )
    made.add_argument(
        "--source",
        metavar="NAME",
        help="library of --parameters to take, where several were fitted (default: the first)",
    )
    made.add_argument("--report", nargs="?", type=int, const=15, metavar="N",
                      help="time, bound and energy by operator; prints the N that matter most (15 if no N is given)")  # fmt: skip
    made.add_argument("--sort", default="latency", help="what matters in a report: latency, energy or memory")
    made.add_argument(
        "--sensitivities", metavar="METRICS",
        help="d log(metric)/d log(p) of every hardware parameter p; throughput, latency, energy, edp, power, area, cost",
    )  # fmt: skip
    made.add_argument("--out", metavar="DIR", help="where to write both: CSV files, and a tornado plot a metric")

    made = command(
        "models",
        _told("_models", "models"),
        "list the models, or show one: operators, work, bytes, caches, and what would bound it",
    )
    made.add_argument("name", nargs="?", metavar="NAME|FILE")
    made.add_argument("--system", metavar="NAME|FILE", help="also say what bounds each operator on it")
    add_option_flags(made)
    made = command(
        "import",
        _told("_models", "imported"),
        "read a model that others wrote (.onnx, .pt2, a directory with config.json) and show what it asks for",
    )
    made.add_argument("file", metavar="FILE|DIR")
    made.add_argument(
        "--bind", metavar="NAME=N,...", help="sizes of symbolic dimensions, for instance batch=8,sequence=128"
    )
    made.add_argument("--system", metavar="NAME|FILE", help="also say what bounds each operator on it")
    add_option_flags(made)
    made = command("systems", _systems, "list the systems, or show the parts of one")
    made.add_argument("name", nargs="?", metavar="NAME|FILE")
    made = command("validate", _validate, "check the model against a file of references; error table, picture, JSON")
    made.add_argument("kind", metavar="KIND", help=f"one of {', '.join(_kinds())}")
    made.add_argument("file", metavar="FILE")
    made.add_argument("--parameters", metavar="FILE", help="calibrated parameters, for kinds that take any")
    made.add_argument("--out", metavar="DIR", help="where to write (default: validate-KIND)")
    made = command("calibrate", _calibrate, "fit the constants of GPU kernels to measurements")
    made.add_argument("kind", metavar="KIND", help="gpu-kernels")
    made.add_argument("file", metavar="FILE")
    made.add_argument("--out", required=True, metavar="PARAMETERS", help="parameter file to write (JSON)")
    made = command(
        "place",
        _told("_place", "placed"),
        "place operators on unlike devices for least latency, by any published method",
    )
    made.add_argument("--instance", metavar="FILE", help="JSON: devices, device_memory_bytes, tasks, edges")
    made.add_argument("--workload", metavar="NAMES", help="instead: models or workload files, comma-separated, ...")
    made.add_argument(
        "--cluster", default="", metavar="NAME|FILE", help="... on unlike devices (a100-l40s, mixed-4, or a file)"
    )
    made.add_argument("--system", default="", metavar="NAME|FILE", help="... or on the chiplets of a package")
    made.add_argument("--fusion", default="", metavar="BACKEND", help="fuse first: xla-like, tensorrt-like or dataflow")
    made.add_argument("--method", default="search", metavar="NAME",
                      help="milp, m-topo, m-etf, m-sct, getf, heft, best-device, placeto or search")  # fmt: skip
    made.add_argument("--time-limit", type=float, metavar="S", help="seconds for milp and search (default: theirs)")
    made.add_argument(
        "--comm-scale", type=float, default=1.0, metavar="X", help="every transfer takes so many times as long"
    )
    made.add_argument("--congestion", action="store_true", help="one transfer out of and into a device at a time")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", metavar="DIR", help="where to write placement.json and placement.png, a Gantt chart")
    add_option_flags(made)
    from .commands._experts import add_expert_flags

    made = command(
        "experts",
        _told("_experts", "experts"),
        "a router and many experts: capacity, switching, nodes, latency",
    )
    add_expert_flags(made)
    from .commands._memory import add_memory_flags

    made = command(
        "memory-design",
        _told("_memory", "memory_designed"),
        "SRAM, HBM and DDR of least latency for a budget, by gradient descent",
    )
    add_memory_flags(made)
    from .commands._train import add_train_flags

    made = command(
        "train", _told("_train", "trained"), "a training step: time, utilisation, memory, what it is spent on"
    )
    add_train_flags(made)
    from .commands._serve import add_serve_flags

    made = command(
        "serve",
        _told("_serve", "served"),
        "a language model in service: latency, throughput, memory, energy, cost at one point of operation",
    )
    add_serve_flags(made)
    made = command("plot", _plot, "redraw every picture of a run")
    made.add_argument("directory", metavar="DIR")
    return parser


def _setting(name: str) -> int:
    from ._explore import Settings

    return {f.name: f.default for f in fields(Settings)}[name.replace("-", "_")]  # type: ignore[return-value]


def _kinds() -> list[str]:
    from perfmodel.calibration import KINDS

    return list(KINDS)


def _use_compilation_cache() -> None:
    """Compiled programs are kept in the user's cache directory, so that a second run starts at once."""
    import os
    from pathlib import Path

    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None and not os.environ.get("PERFMODEL_NO_CACHE"):
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        try:
            (home / "perfmodel").mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # a home that cannot be written to: compile every time
        jax.config.update("jax_compilation_cache_dir", str(home / "perfmodel"))
        jax.config.update(
            "jax_persistent_cache_min_compile_time_secs", 0.0
        )  # most programs are small, and there are many


def _explore(arguments) -> None:
    from .commands._options import options_of
    from .commands._run import Request, run

    if arguments.population < 1:
        raise ValueError(f"--population is {arguments.population}; allowed: an integer of at least 1")
    for name in ("starts", "relaxed_steps", "generations", "seed"):
        if getattr(arguments, name) < 0:
            raise ValueError(
                f"--{name.replace('_', '-')} is {getattr(arguments, name)}; allowed: an integer of at least 0"
            )
    if arguments.resume and arguments.out and arguments.resume != arguments.out:
        raise ValueError("--out and --resume name different directories; a resumed run goes on in its own")
    given = {f.name: getattr(arguments, f.name) for f in fields(Request) if f.name != "options"}
    request = Request(**given, options=options_of(arguments))
    directory = arguments.resume or arguments.out or show.default_directory(request)
    with show.Progress() as progress:
        summary = run(request, directory, progress=progress, resume=bool(arguments.resume))
    show.output(summary, arguments.json, lambda s: show.explored(s, directory))


def _evaluate(arguments) -> None:
    from .commands._stream import check, streamed

    check(arguments)
    if arguments.execution:
        answer, text = streamed(arguments)
        return show.output(answer, arguments.json, lambda _: text)
    answer, paragraphs = show.evaluated(arguments)
    show.output(answer, arguments.json, lambda a: "\n\n".join([show.metrics_text(a), *paragraphs]))


def _systems(arguments) -> None:
    show.output(show.systems(arguments), arguments.json, show.systems_text)


def _validate(arguments) -> None:
    from .commands._validate import validated, validated_text

    answer, _ = validated(arguments.kind, arguments.file, arguments.parameters, arguments.out)
    show.output(answer, arguments.json, validated_text)


def _calibrate(arguments) -> None:
    from .commands._calibrate import calibrated, calibrated_text

    show.output(calibrated(arguments.kind, arguments.file, arguments.out), arguments.json, calibrated_text)


def _told(module: str, name: str):
    """The command whose function gives (JSON, text); its module is loaded when it runs."""

    def run(arguments) -> None:
        answer, text = getattr(import_module(f".commands.{module}", __package__), name)(arguments)
        show.output(answer, arguments.json, lambda _: text)

    return run


def _plot(arguments) -> None:
    from .commands._run import redraw

    show.output({"pictures": redraw(arguments.directory)}, arguments.json, lambda out: "\n".join(out["pictures"]))


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
