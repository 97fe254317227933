"""Complete timelines per second of the placement evaluator, beside a list scheduler in plain Python, at 500 operators on 4 devices.

(a) one shared order and an order per candidate (of nodes, as `search` holds them), as `makespans` runs them on all cores: wall and
    CPU seconds, host copies included;
(b) one program on one core, variants in turns: device pairs by selects or by gathers, an order per candidate at two widths, and
    the plain vmap of one candidate's walk.
Every variant is checked against `timeline` in float64 at an odd batch.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
import jax
import jax.numpy as jnp
import numpy as np
from _common import arguments, median, report
from placement import layered

from search.placement import compiled, jax_makespan, jax_makespans, nodes_of, timeline
from search.placement.methods.search import ranked_orders, span_of

TASKS, DEVICES, ODD = 500, 4, 1001
BARS = {"shared order": 200_000, "own order": 20_000}


def candidates(problem, batch: int, seed: int):
    rng = np.random.default_rng(seed)
    placements = rng.integers(0, DEVICES, (batch, problem.n_tasks)).astype(np.int8)
    few = ranked_orders(problem, placements[:64], 0.3, rng)
    return placements, few[np.arange(batch) % len(few)]


def timed(call, repeat: int) -> tuple[float, float]:
    """Median wall and CPU seconds of a call that has been warmed up."""
    wall, cpu = [], []
    for _ in range(repeat):
        began = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    return median(wall), median(cpu)


def variants(c, placements, orders):
    """(name, batch, call) of programs on one core: each its own jit, traced under its own settings."""
    a, flags = c.arrays, dict(congestion=False, worst_case=False)
    owner = np.asarray(a.owner)
    place = {n: jnp.asarray(placements[:n].T[owner]) for n in (256, 1024)}
    own = {n: jnp.asarray(np.stack([nodes_of(c, o) for o in orders[:n]], axis=1)) for n in (256, 1024)}
    shared = own[256][:, 0]
    for name, batch, many, selects, order in (
        ("shared order, selects", 1024, True, 99, shared), ("shared order, gathers", 1024, True, 0, shared),
        ("own order, 256 wide", 256, False, 99, own[256]), ("own order, 1024 wide", 1024, False, 99, own[1024]),
    ):  # fmt: skip
        program = jax.jit(partial(jax_makespan, shared=many, select_devices=selects, **flags))
        jax.block_until_ready(program(a, place[batch], order))
        yield name, batch, partial(program, a, place[batch], order)
    one = partial(jax_makespan, shared=True, **flags)
    plain = jax.jit(jax.vmap(one, in_axes=(None, 0, None)))
    yield "shared order, plain vmap", 256, partial(plain, a, place[256].T, shared)


def main() -> None:
    args = arguments(str(__doc__).splitlines()[0], batch=(16_384, "candidates a call"), repeat=(5, "timings of each"))
    problem = layered(TASKS, DEVICES)
    c = compiled(problem, np.float32)
    placements, orders = candidates(problem, args.batch, 0)
    nodes = np.stack([nodes_of(c, o) for o in orders[:64]])[np.arange(args.batch) % 64]

    began = time.process_time()
    jax_makespans(c, placements[:1024], orders[0])
    jax_makespans(c, placements[:256], nodes[:256])
    compile_cpu_s = time.process_time() - began
    wrong = {}
    for name, order in (("shared order", orders[0]), ("own order", orders[:ODD])):
        found = jax_makespans(c, placements[:ODD], order)
        true = [
            timeline(problem, p, order if order.ndim == 1 else order[i]).makespan
            for i, p in enumerate(placements[:ODD])
        ]
        wrong[name] = float(np.max(np.abs(found / np.asarray(true) - 1)))

    rows = {}
    for name, order in (("shared order", orders[0]), ("own order", nodes)):
        wall, cpu = timed(lambda order=order: jax_makespans(c, placements, order), args.repeat)
        rows[name] = {
            "per_s": args.batch / wall,
            "per_cpu_s": args.batch / cpu,
            "bar_per_s": BARS[name],
            "max_rel_error": wrong[name],
        }
    span, some = (
        span_of(problem),
        [(p.tolist(), o.tolist()) for p, o in zip(placements[:200], orders[:200], strict=True)],
    )
    wall, cpu = timed(lambda: [span(*x) for x in some], args.repeat)
    rows["plain Python"] = {"per_s": len(some) / wall, "per_cpu_s": len(some) / cpu}

    made, seconds = list(variants(c, placements, orders)), {}
    for _, _, call in made:
        jax.block_until_ready(call())
    for _ in range(args.repeat):  # in turns
        for name, batch, call in made:
            seconds.setdefault(name, []).append(timed(call, 8)[1] / batch)
    programs = {name: 1.0 / median(x) for name, x in seconds.items()}

    python = rows["plain Python"]["per_s"]
    load = os.getloadavg()[0]
    lines = [f"{TASKS} operators on {DEVICES} devices, {len(problem.source)} edges; {c.n_nodes} nodes walked; load {load:.1f}",
             f"{'':26}{'timelines/s':>14}{'per CPU s':>12}{'bar':>10}{'x Python':>10}{'max error':>11}"]  # fmt: skip
    for name, r in rows.items():
        bar, error = (
            (f"{r['bar_per_s']:,}" if "bar_per_s" in r else ""),
            (f"{r['max_rel_error']:.0e}" if "max_rel_error" in r else ""),
        )
        lines.append(
            f"{name:26}{r['per_s']:>14,.0f}{r['per_cpu_s']:>12,.0f}{bar:>10}{r['per_s'] / python:>10.0f}{error:>11}"
        )
    lines += ["", f"{'one program':26}{'':>14}{'per CPU s':>12}"]
    lines += [f"{name:26}{'':>14}{rate:>12,.0f}" for name, rate in programs.items()]
    lines.append(f"compilation of both programs: {compile_cpu_s:.1f} CPU s")
    result = {"tasks": TASKS, "devices": DEVICES, "edges": len(problem.source), "nodes": c.n_nodes, "batch": args.batch, "rates": rows,
              "program_per_cpu_s": programs, "compile_cpu_s": compile_cpu_s}  # fmt: skip
    report("placement_speed", args, result, lines)


if __name__ == "__main__":
    main()
