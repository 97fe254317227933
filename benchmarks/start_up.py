"""CPU seconds from nothing: importing, first and second evaluation, gradients, what compiles again and what does not, `explore`.

Each question has processes of its own. `first_evaluate_cpu_s` and `explore_*` count from the start of the process, import included;
the default exploration runs twice, without any compiled program and with those that the first run left.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]
from _common import arguments, median, report

TOP = Path(__file__).parent.parent
DEFAULT = ("gpt2,resnet50", "mcm-2x2")


def evaluations(models: str, name: str) -> dict:
    """In this very process, nothing imported so far: what calls take and how many programs they compile."""
    begin = time.process_time()
    import equinox as eqx
    import jax
    import numpy as np

    import perfmodel as pm

    imported = time.process_time()
    compiles = [0]
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiles.__setitem__(
            0, compiles[0] + (event == "/jax/core/compile/backend_compile_duration")
        )
    )

    def timed(call):
        before, start = compiles[0], time.process_time()
        jax.block_until_ready(jax.tree.leaves(eqx.filter(call(), eqx.is_array)))
        return time.process_time() - start, compiles[0] - before

    def load(*names):
        return pm.merge([pm.models.load(n) for n in names]) if len(names) > 1 else pm.models.load(names[0])

    workload, system = load(*models.split(",")), pm.systems.load(name)
    schedule = pm.Schedule.on_chiplet(workload, 0)
    _, programs = timed(lambda: pm.evaluate(workload, system, schedule))
    first = time.process_time()
    second = [timed(lambda: pm.evaluate(workload, system, schedule)) for _ in range(15)]
    found = dict(
        import_cpu_s=imported - begin, first_evaluate_cpu_s=first - begin, first_evaluate_programs=programs,
        second_evaluate_cpu_s=median([s for s, _ in second]),
    )  # fmt: skip
    if (models, name) != DEFAULT:
        return found
    renamed = eqx.tree_at(lambda s: s.memory.bytes_per_s, system, np.asarray(system.memory.bytes_per_s) * 1.5)
    renamed = _renamed(renamed)
    found["rename_cpu_s"], found["rename_compiles"] = timed(lambda: pm.evaluate(workload, renamed, schedule))
    one = load("resnet50")
    timed(lambda: pm.evaluate(one, system, pm.Schedule.on_chiplet(one, 0)))
    alike = _alike(pm, one)
    _, found["same_bucket_compiles"] = timed(lambda: pm.evaluate(alike, system, pm.Schedule.on_chiplet(alike, 1)))

    floats, rest = eqx.partition(
        system, lambda x: eqx.is_array_like(x) and np.issubdtype(np.asarray(x).dtype, np.floating)
    )
    floats = jax.tree.map(lambda x: jax.numpy.asarray(x, float), floats)

    def gradient():
        return jax.value_and_grad(
            lambda s: jax.numpy.log(pm.evaluate(workload, eqx.combine(s, rest), schedule).edp_js)
        )(floats)

    found["first_gradient_cpu_s"], _ = timed(gradient)
    again = [timed(gradient) for _ in range(9)]
    found["gradient_cpu_s"], found["gradient_compiles"] = median([s for s, _ in again]), sum(n for _, n in again)
    return found


def _renamed(system):
    """Other names for everything."""
    from dataclasses import replace

    return replace(
        system, name="another", chiplet_names=tuple(f"x{i}" for i in range(system.n_chiplets)),
        type_names=tuple(f"t{i}" for i in range(len(system.type_names))),
        memory=replace(system.memory, names=tuple(f"m{i}" for i in range(system.memory.n_tiers))),
    )  # fmt: skip


def _alike(pm, workload):
    """Another model whose sizes round to the same."""
    from perfmodel.workload import round_size

    def sizes(w):
        return round_size(w.n_operators), round_size(len(w.source)), w.inputs.shape[1], round_size(w.n_slots, 4)

    for name in pm.models.names():
        other = pm.models.load(name)
        if other.model_names != workload.model_names and sizes(other) == sizes(workload):
            return other
    from perfmodel.workload import GraphBuilder, operator_row

    graph = GraphBuilder("alike")
    for row in range(workload.n_operators):  # the same edges between other operators
        inputs = [int(r) for r in workload.inputs[row] if r >= 0]
        graph.add(
            f"r{row}",
            operator_row("conv", k=48, c=24, p=14, q=14, r=3, s=3),
            inputs,
            outside_bytes=0.0 if inputs else 1e5,
        )
    return graph.build()


def child(*what: str, **environment) -> tuple[dict, float]:
    """What this script says of `what` in a process of its own, and the CPU seconds of that."""
    before = os.times()
    run = subprocess.run(
        [sys.executable, __file__, "--child", *what], capture_output=True, text=True, check=True, cwd=TOP,
        env={**os.environ, "PERFMODEL_NO_CACHE": "1", "PYTHONPATH": str(TOP), **environment},
    )  # fmt: skip
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(run.stdout.splitlines()[-1]), used


def explored() -> dict:
    """CPU seconds of the default exploration, cold and warm."""
    taken = {}
    with tempfile.TemporaryDirectory() as folder:
        for which in ("cold", "warm"):
            environment = {k: v for k, v in os.environ.items() if k != "PERFMODEL_NO_CACHE"}
            environment |= {"XDG_CACHE_HOME": folder, "PYTHONPATH": str(TOP)}
            before = os.times()
            out = os.path.join(folder, which)
            command = [sys.executable, "-m", "search.cli", "explore", "--json", "--out", out]
            subprocess.run(command, check=True, capture_output=True, cwd=TOP, env=environment)
            after = os.times()
            taken[f"explore_{which}_cpu_s"] = (
                after.children_user + after.children_system - before.children_user - before.children_system
            )
    return taken


def main():
    if "--child" in sys.argv:
        print(json.dumps(evaluations(*sys.argv[sys.argv.index("--child") + 1 :][:2])))
        return
    args = arguments(
        __doc__.splitlines()[0],
        repeat=(3, "processes for each figure"),
        no_explore=(False, "leave the default exploration out"),
    )
    runs = [child(*DEFAULT)[0] for _ in range(args.repeat)]
    result = {key: median([run[key] for run in runs]) for key in runs[0]}
    result |= {key: max(run[key] for run in runs) for key in runs[0] if key.endswith(("compiles", "programs"))}
    for label, models, name in (
        ("4_chiplets", "resnet50", "mcm-2x2"),
        ("36_chiplets", "resnet50", "simba"),
        ("gpu", "gpt2", "a100-80gb"),
    ):
        found = [child(models, name)[0] for _ in range(args.repeat)]
        result[f"first_evaluate_{label}_cpu_s"] = median([f["first_evaluate_cpu_s"] for f in found])
    result |= {"explore_cold_cpu_s": None, "explore_warm_cpu_s": None} if args.no_explore else explored()
    lines = [f"{'figure':36}{'now':>12}"]
    lines += [
        f"{key:36}{value:12.4f}" if isinstance(value, float) else f"{key:36}{value!s:>12}"
        for key, value in result.items()
    ]
    report(
        "start_up",
        args,
        {**result, "note": "CPU seconds; evaluations and explore count from the start of a process"},
        lines,
    )


if __name__ == "__main__":
    main()
