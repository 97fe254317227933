"""Schedules per CPU second: the chain cost and the full evaluator that `explore` calls, beside vectorised NumPy twins.

(a) chain: 64 operators x 4 chiplets, through a table and with hardware per candidate.
(b) full: `evaluate_many` on 64 operators with residual edges, two models, a table by type and a chiplet mix per candidate, and
    with hardware per candidate; then the default scenario (GPT-2 + ResNet-50, 320 operators).
Every variant is checked against float64 NumPy at an odd batch size; variants are timed in turns; one core.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]
from _common import arguments, cpu_seconds, median, pin_to_one_core, report

pin_to_one_core()  # before JAX starts its threads

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from oracles.numpy_evaluate import evaluate_numpy  # noqa: E402

import perfmodel as pm  # noqa: E402
from perfmodel.schedule import ChainHardware, ChainOperators, chain_many, chain_many_recomputed, chain_table  # noqa: E402
from perfmodel.workload import GraphBuilder, operator_row  # noqa: E402

ODD = 4001
COSTS = ("exec_s", "onchip_j", "input_refetch", "weight_refetch", "working_bytes")


def chain_case(rng):
    """64 operators with log-uniform sizes on four chiplets that differ by up to 4x."""
    op = ChainOperators(
        *(np.exp(rng.uniform(np.log(a), np.log(b), 64)).astype("f4") for a, b in ((1e6, 1e9), (1e5, 1e7), (1e4, 1e6)))
    )
    hardware = ChainHardware(*(np.exp(rng.uniform(np.log(a), np.log(4 * a), 4)).astype("f4")
                               for a in (1e12, 1e11, 5e-13, 1e-11, 1e11, 1e-11)))  # fmt: skip
    return op, hardware


def chain_numpy(assignment, table, dtype):
    """The chain through a table `L x D x 4` (or `B x L x D x 4`), vectorised over candidates `B x L`."""
    n, every = assignment.shape[0], np.arange(assignment.shape[0])
    busy, joules = np.zeros((n, table.shape[-2]), dtype), np.zeros(n, dtype)
    previous = assignment[:, 0]
    for row in range(assignment.shape[1]):
        where = assignment[:, row]
        moved = where != previous
        cost = table[row, where] if table.ndim == 3 else table[every, row, where]
        busy[every, where] += np.where(moved, cost[:, 2], cost[:, 0])
        joules += np.where(moved, cost[:, 3], cost[:, 1])
        previous = where
    return busy.max(axis=1), joules


def chain_table_numpy(op, hw, dtype):
    """The table in NumPy; `hw` fields `D` or `B x D`."""
    macs, touched, handed = (np.asarray(x, dtype) for x in op)
    before = np.concatenate([[0], handed[:-1]]).astype(dtype)
    shape = (..., slice(None), None)
    hw = [np.asarray(x, dtype)[..., None, :] for x in hw]
    stay_s = np.maximum(macs[shape] / hw[0], touched[shape] / hw[1])
    stay_j = macs[shape] * hw[2] + touched[shape] * hw[3]
    return np.stack([stay_s, stay_j, stay_s + before[shape] / hw[4], stay_j + before[shape] * hw[5]], axis=-1)


def residual_workload():
    """Two models of 32 operators with residual edges: 64 operators, 82 edges."""
    loaded = []
    for name, scale in (("left", 1), ("right", 2)):
        g = GraphBuilder(name)
        here, rows = None, []
        for i in range(32):
            size, width = 28 // scale, 64 * scale
            kind = ("conv", "batch_norm", "gemm", "relu")[i % 4] if i % 5 else "add"
            if kind == "conv":
                row = operator_row("conv", k=width, c=width, p=size, q=size, r=3, s=3)
            elif kind == "gemm":
                row = operator_row("gemm", k=width, c=width, p=size * size)
            else:
                row = operator_row(kind, k=width, p=size, q=size)
            inputs = [] if here is None else [here]
            if i >= 4 and (i % 3 == 1 or i in (6, 12)):  # a residual edge from up to 6 rows back
                inputs.append(rows[i - 2 - i % 4])
            here = g.add(f"op{i}", row, inputs, outside_bytes=1e5 if here is None else 0.0)
            rows.append(here)
        loaded.append(g.build())
    return pm.merge(loaded, "equal-work")


def worst(got, want) -> float:
    """Largest relative error over the fields of both."""
    return max(float(np.max(np.abs(np.asarray(g, np.float64) / w - 1))) for g, w in zip(got, want, strict=True))


def full_error(metrics, reference) -> float:
    fields = ("throughput_per_s", "latency_s", "energy_j")
    return worst([getattr(metrics, f) for f in fields], [reference[f] for f in fields])


def float64_costs(table):
    return {name: np.asarray(getattr(table, name), np.float64) for name in COSTS}


def full_cases(workload, batch, small, rng):
    """Timed calls of the full evaluator, their rivals, and the worst error at an odd batch size."""
    system = pm.systems.load("mcm-2x2")
    n = workload.n_operators
    by_type = pm.cost_table(workload, system, by_type=True)
    assignment = jnp.asarray(rng.integers(0, 4, (batch, n)), jnp.int8)
    kinds = jnp.asarray(rng.integers(0, 2, (batch, 4)), jnp.int8)

    def varied(count, seed):  # chiplets of every candidate: types drawn, clock, buffer and lanes scaled
        draw = np.random.default_rng(seed)
        chips = system.types.pick(np.asarray(kinds[:count], np.int32))
        factors = {f: np.exp(draw.uniform(-0.7, 0.7, (count, 4))) for f in ("clock_hz", "buffer_bytes", "lanes")}
        varied = [np.round(getattr(chips, f) * x) for f, x in factors.items()]  # lanes and bytes come whole
        chips = eqx.tree_at(lambda c: [getattr(c, f) for f in factors], chips, varied)
        return eqx.tree_at(
            lambda s: s.chiplets,
            system,
            jax.tree.map(lambda x: jnp.asarray(x, jnp.int32 if x.dtype == np.int32 else jnp.float32), chips),
        )

    own = varied(batch, 1)

    def tables_of(systems, count):  # float64 costs B x L x D of each candidate's own chiplets
        rows = jax.tree.map(lambda x: np.asarray(x)[:, None], workload.operators)
        with jax.enable_x64(True):
            chips = jax.tree.map(
                lambda x: np.asarray(x[:count], np.float64 if x.dtype != jnp.int32 else np.int32)[:, None, :],
                systems.chiplets,
            )
            return float64_costs(pm.cost.operator_cost(rows, chips))

    def numpy_table(count, dtype):
        index = np.asarray(kinds[:count], np.int64)
        costs = {k: np.moveaxis(v[:, index], 1, 0).astype(dtype) for k, v in float64_costs(by_type).items()}
        chosen = eqx.tree_at(lambda s: s.chiplets, system, system.types.pick(index))
        return evaluate_numpy(workload, chosen, np.asarray(assignment[:count]), costs, dtype=dtype)

    def numpy_recompute(count):
        chosen = eqx.tree_at(
            lambda s: s.chiplets, system, jax.tree.map(lambda x: np.asarray(x[:count], np.float64), own.chiplets)
        )
        return evaluate_numpy(workload, chosen, np.asarray(assignment[:count]), tables_of(own, count))

    def table(count=batch):
        return pm.evaluate_many(workload, system, pm.Schedule(assignment[:count]), table=by_type, kinds=kinds[:count])

    def recompute(count=small):
        mine = eqx.tree_at(lambda s: s.chiplets, own, jax.tree.map(lambda x: x[:count], own.chiplets))
        return pm.evaluate_many(workload, mine, pm.Schedule(assignment[:count]), recompute=True)

    odd = min(ODD, small - 1)
    error = max(full_error(table(odd), numpy_table(odd, np.float64)), full_error(recompute(odd), numpy_recompute(odd)))
    return dict(table=(table, batch), recompute=(recompute, small), numpy_table=(lambda: numpy_table(1024, np.float32), 1024),
                numpy_recompute=(lambda: numpy_recompute(1024), 1024)), error  # fmt: skip


def main():
    args = arguments(__doc__.splitlines()[0], batch=(65536, "candidates of the chain"), repeat=(7, "timed rounds"))
    rng = np.random.default_rng(0)
    op, hardware = chain_case(rng)
    batch = args.batch
    assignment = jnp.asarray(rng.integers(0, 4, (64, batch)), jnp.int8)
    scale = np.exp(rng.uniform(-0.7, 0.7, (6, 4, batch))).astype("f4")
    varied = ChainHardware(*(jnp.asarray(h[:, None] * s) for h, s in zip(hardware, scale, strict=True)))
    table = chain_table(ChainOperators(*map(jnp.asarray, op)), ChainHardware(*map(jnp.asarray, hardware)))
    table32 = np.asarray(table)
    chunk = 4096  # hardware per candidate stays in the cache

    def recomputed(count=batch):
        cut = [
            (assignment[:, i : i + chunk], ChainHardware(*(h[:, i : i + chunk] for h in varied)))
            for i in range(0, count, chunk)
        ]
        return [chain_many_recomputed(a, op, h) for a, h in cut]

    few = 2048
    host = np.ascontiguousarray(np.asarray(assignment[:, :few]).T).astype(np.int64)
    host_hw = [np.ascontiguousarray(np.asarray(h)[:, :few].T) for h in varied]
    cases = {
        "table": (lambda: chain_many(assignment, table), batch),
        "recompute": (recomputed, batch),
        "numpy_table": (lambda: chain_numpy(host, table32, np.float32), few),
        "numpy_recompute": (lambda: chain_numpy(host, chain_table_numpy(op, host_hw, np.float32), np.float32), few),
    }
    odd_a = assignment[:, :ODD]
    odd_host = np.asarray(odd_a).T.astype(np.int64)
    want = chain_numpy(odd_host, chain_table_numpy(op, hardware, np.float64), np.float64)
    own = chain_numpy(
        odd_host, chain_table_numpy(op, [np.asarray(h)[:, :ODD].T for h in varied], np.float64), np.float64
    )
    errors = {
        "table": worst(chain_many(odd_a, table), want),
        "recompute": worst(chain_many_recomputed(odd_a, op, ChainHardware(*(h[:, :ODD] for h in varied))), own),
    }
    traces = chain_many._cache_size()
    jax.block_until_ready(chain_many(assignment, table))
    chain_many(assignment, table)
    one_trace = chain_many._cache_size() - traces == 1

    small_full, full_error_64 = full_cases(residual_workload(), 32768, 16384, rng)
    default, default_error = full_cases(
        pm.merge([pm.models.load("gpt2"), pm.models.load("resnet50")]), 16384, 8192, rng
    )
    errors["full_64"], errors["full_default"] = full_error_64, default_error
    groups = {"": cases, "full_": small_full, "default_": default}
    rates: dict[str, list[float]] = {}
    for group in groups.values():
        for call, _ in group.values():
            jax.block_until_ready(call())
    for _ in range(args.repeat):  # in turns, so that a busy moment hits all alike
        for prefix, group in groups.items():
            for name, (call, count) in group.items():
                rates.setdefault(prefix + name, []).append(count / cpu_seconds(call, 1)[0])
    memory = chain_many.lower(assignment, table).compile().memory_analysis()
    peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    workload = residual_workload()
    result = {f"{name}_per_cpu_s": median(values) for name, values in rates.items()}
    result |= {
        "spread": {name: [min(v), max(v)] for name, v in rates.items()},
        "max_rel_error": max(errors.values()),
        "errors": errors,
        "peak_bytes": int(peak),
        "one_trace": one_trace,
        "operators": workload.n_operators,
        "edges": len(workload.source),
        "chain_batch": batch,
    }
    lines = [f"{'schedules per CPU second':34}{'table':>14}{'recompute':>14}{'NumPy table':>14}{'NumPy recomp.':>14}"]
    for prefix, what in (
        ("", "chain, 64 x 4"),
        ("full_", f"full, 64 operators, {len(workload.source)} edges"),
        ("default_", "full, GPT-2 + ResNet-50 (320)"),
    ):
        lines.append(
            f"{what:34}"
            + "".join(
                f"{result[f'{prefix}{n}_per_cpu_s']:14,.0f}"
                for n in ("table", "recompute", "numpy_table", "numpy_recompute")
            )
        )
    lines.append(
        f"largest relative error to float64 NumPy at odd batches {result['max_rel_error']:.2e}; "
        f"peak {peak / 1e6:.1f} MB; one trace: {one_trace}"
    )
    report("schedules_per_second", args, result, lines)


if __name__ == "__main__":
    main()
