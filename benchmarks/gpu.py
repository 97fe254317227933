"""Schedules per second wherever a GPU is (or on the CPU, to check the script): both kernel forms, batches from 1e4 to 1e8.

Installs nothing and needs no attention: `python benchmarks/gpu.py`. (a) the chain cost, 64 operators x 4 chiplets, as a scan over
operators, as one fused (unrolled) program, and as a gather; (b) the full evaluator as scan and fused. Every form is checked
against float64 NumPy at odd batch sizes. Rates stand beside what the device could do: memory traffic of the assignments alone
(64 bytes a schedule) and the arithmetic of the chain. Batches beyond --chunk run in chunks. Without the packages that perfmodel
needs, part (a) alone runs. Goal for (a) on an H200-class GPU: 1e9 schedules a second.
"""

import sys
import time
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parent.parent / "tests"),
    str(Path(__file__).parent.parent),
]
import jax
import jax.numpy as jnp
import numpy as np
from _common import arguments, median, report

OPERATORS, CHIPLETS = 64, 4
BYTES_PER_SCHEDULE = OPERATORS + 8  # int8 assignments in, period and energy out
OPERATIONS_PER_SCHEDULE = OPERATORS * (CHIPLETS * 6 + 4)  # selects, compares and adds of a step


def chain():
    """The chain functions, from the package or, where its dependencies are missing, from their file."""
    try:
        from perfmodel.schedule import ChainHardware, ChainOperators, chain_many, chain_table
    except ImportError:
        import importlib.util
        import types

        if "jaxtyping" not in sys.modules:  # annotations only

            class Any:
                def __class_getitem__(cls, item):
                    return cls

            sys.modules["jaxtyping"] = types.SimpleNamespace(Array=Any, Float=Any, Int=Any)  # type: ignore[assignment]
        path = Path(__file__).parent.parent / "perfmodel" / "schedule" / "_chain.py"
        spec = importlib.util.spec_from_file_location("_chain", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        ChainHardware, ChainOperators, chain_many, chain_table = (
            getattr(module, n) for n in ("ChainHardware", "ChainOperators", "chain_many", "chain_table")
        )
    return ChainHardware, ChainOperators, chain_many, chain_table


def chain_numpy(assignment, table):
    """The chain in float64 NumPy, candidates first."""
    every, n = np.arange(len(assignment)), len(assignment)
    busy, joules, previous = np.zeros((n, CHIPLETS)), np.zeros(n), assignment[:, 0]
    for row in range(OPERATORS):
        where = assignment[:, row]
        cost, moved = table[row, where], where != previous
        busy[every, where] += np.where(moved, cost[:, 2], cost[:, 0])
        joules += np.where(moved, cost[:, 3], cost[:, 1])
        previous = where
    return busy.max(axis=1), joules


def rate(call, count, repeat=5):
    """Schedules per second of wall time (the device is ours), after a warm-up; and the first call's seconds."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - start
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - start)
    return count / median(taken), first


def bandwidth() -> float:
    """Bytes per second of y = 2 x + 1 on 1 GiB (64 MiB on a CPU)."""
    n = (1 << 28) if jax.default_backend() != "cpu" else (1 << 24)
    x = jnp.ones(n, jnp.float32)
    f = jax.jit(lambda x: 2 * x + 1)
    return rate(lambda: f(x), 8 * n)[0]


def arithmetic() -> float:
    """Float32 operations per second of long chains of multiply-adds in registers."""
    x = jnp.ones(1 << 22, jnp.float32)

    @jax.jit
    def f(x):
        for _ in range(256):
            x = x * 0.999 + 0.001
        return x

    return rate(lambda: f(x), 512 * x.size)[0]


def full_rows(batches, chunk):
    """Part (b): the full evaluator on 64 operators with residual edges."""
    try:
        import schedules_per_second as full

        import perfmodel as pm
    except ImportError as error:
        return [], f"full evaluator skipped: {error}"
    workload, system = full.residual_workload(), pm.systems.load("mcm-2x2")
    table = pm.cost_table(workload, system)
    rng, rows = np.random.default_rng(1), []
    odd = jnp.asarray(rng.integers(0, 4, (4001, workload.n_operators)), jnp.int8)
    want = full.evaluate_numpy(workload, system, np.asarray(odd), full.float64_costs(table))
    for kernel in pm.schedule.KERNELS:
        error = full.full_error(pm.evaluate_many(workload, system, pm.Schedule(odd), table=table, kernel=kernel), want)
        for batch in batches:
            part = min(batch, chunk)
            a = jnp.asarray(rng.integers(0, 4, (part, workload.n_operators)), jnp.int8)

            def call(a=a, part=part, batch=batch, kernel=kernel):
                out = None
                for _ in range(max(batch // part, 1)):
                    out = pm.evaluate_many(
                        workload, system, pm.Schedule(a), table=table, kernel=kernel, chunk=part
                    ).period_s
                return out

            per_s, first = rate(call, max(batch // part, 1) * part, 3)
            rows.append(
                dict(part="full", kernel=kernel, batch=batch, per_s=per_s, first_call_s=first, max_rel_error=error)
            )
    return rows, ""


def main():
    args = arguments(__doc__.splitlines()[0], largest=(100_000_000, "largest batch of the chain"), chunk=(1 << 22, "schedules a call"),
                     full_largest=(1_000_000, "largest batch of the full evaluator"))  # fmt: skip
    version = tuple(int(x) for x in jax.__version__.split(".")[:2])
    if not (
        jax.__version__ == "0.9.0.1"
        or version == (0, 9)
        and jax.__version__ not in ("0.9.1", "0.9.2")
        or version >= (0, 11)
    ):
        raise SystemExit(f"jax {jax.__version__} computes wrong numbers; needed: 0.9.0.1 or at least 0.11")
    ChainHardware, ChainOperators, chain_many, chain_table = chain()
    rng = np.random.default_rng(0)
    draw = lambda low, high, n: np.exp(rng.uniform(np.log(low), np.log(high), n)).astype("f4")  # noqa: E731
    op = ChainOperators(draw(1e6, 1e9, OPERATORS), draw(1e5, 1e7, OPERATORS), draw(1e4, 1e6, OPERATORS))
    hardware = ChainHardware(*(draw(a, 4 * a, CHIPLETS) for a in (1e12, 1e11, 5e-13, 1e-11, 1e11, 1e-11)))
    table = chain_table(ChainOperators(*map(jnp.asarray, op)), ChainHardware(*map(jnp.asarray, hardware)))
    rows = []
    errors = {}
    for kernel in ("scan", "fused", "gather"):
        worst = 0.0
        for odd in (4001, 32769, 40001):
            a = rng.integers(0, CHIPLETS, (OPERATORS, odd)).astype(np.int8)
            for got, want in zip(
                chain_many(jnp.asarray(a), table, kernel=kernel),
                chain_numpy(a.T.astype(int), np.asarray(table, float)),
                strict=True,
            ):
                worst = max(worst, float(np.max(np.abs(np.asarray(got, float) / want - 1))))
        errors[kernel] = worst
    batch = 10_000
    while batch <= args.largest:
        part = min(batch, args.chunk)
        a = jax.random.randint(jax.random.key(batch), (OPERATORS, part), 0, CHIPLETS, jnp.int8)
        times = max(batch // part, 1)
        for kernel in ("scan", "fused", "gather"):
            per_s, first = rate(
                lambda a=a, k=kernel, t=times: [chain_many(a, table, kernel=k) for _ in range(t)], times * part
            )
            rows.append(
                dict(
                    part="chain",
                    kernel=kernel,
                    batch=batch,
                    per_s=per_s,
                    first_call_s=first,
                    max_rel_error=errors[kernel],
                )
            )
        batch *= 10
    full_batches = [b for b in (10_000, 100_000, 1_000_000, 10_000_000) if b <= args.full_largest]
    full, note = full_rows(full_batches, args.chunk)
    rows += full
    limits = dict(bytes_per_s=bandwidth(), operations_per_s=arithmetic())
    limits["schedules_per_s_by_bandwidth"] = limits["bytes_per_s"] / BYTES_PER_SCHEDULE
    limits["schedules_per_s_by_arithmetic"] = limits["operations_per_s"] / OPERATIONS_PER_SCHEDULE
    best = {
        part: max((r for r in rows if r["part"] == part), key=lambda r: r["per_s"], default=None)
        for part in ("chain", "full")
    }
    lines = [f"{'part':8}{'kernel':10}{'batch':>12}{'schedules/s':>16}{'first call s':>14}{'error':>10}"]
    lines += [
        f"{r['part']:8}{r['kernel']:10}{r['batch']:12,}{r['per_s']:16,.0f}{r['first_call_s']:14.2f}{r['max_rel_error']:10.1e}"
        for r in rows
    ]
    lines.append(f"limits of the chain on this device: {limits['schedules_per_s_by_bandwidth']:.3g}/s by bandwidth, "
                 f"{limits['schedules_per_s_by_arithmetic']:.3g}/s by arithmetic")  # fmt: skip
    lines += [f"fastest {part}: {r['kernel']}" for part, r in best.items() if r] + ([note] if note else [])
    report("gpu" if jax.default_backend() != "cpu" else "gpu_script_on_cpu", args,
           {"backend": jax.default_backend(), "rows": rows, "limits": limits, "note": note,
            "fastest": {p: r["kernel"] for p, r in best.items() if r}}, lines)  # fmt: skip


if __name__ == "__main__":
    main()
