"""How much of its 128 MB of CMEM does TPUv4i need? Performance against capacity, beside the published curve.

    python benchmarks/tpu_cmem.py [--batches] [--json] [--out FILE]

Published (Jouppi et al., ISCA 2021, from notes of it): production applications at 0, 16, 72, 112 MB run at 69, 82, 90, 98 % of what they
do with 128 MB. The applications are not public; four public shapes stand in for them, at batch sizes of the papers, not tuned:

- `mlp`: 5 dense layers of 2048, 20 M weights, batch 200: MLP0 of the first TPU paper (Jouppi et al., ISCA 2017, table 1).
- `lstm`: 6 layers of 1024, 50 M weights, one step of batch 64: LSTM0 there (52 M weights, batch 64). Every step reads all weights.
- `bert-large`: 128 tokens, batch 8: what keeps a pass below 10 ms, the limit of a production BERT there [from memory].
- `resnet50`: batch 16, MLPerf's server batch there [from memory].

All bf16. Performance is 1 / latency of a pass: a core runs one program at a time, weights and inputs of an operator are fetched while the
one before runs. Elementwise operators are fused (`xla-like`). The allocator puts what moves most bytes per byte of size first, all classes
alike, as the compiler of such a memory does. The matrix units load the next weights while they work (ISCA 2017), so a fold of the array
costs no loading but the first; everything else of the system is the catalogue's `tpu-v4i`.
"""

import math
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _common import RESULTS, arguments, report

import perfmodel as pm
from perfmodel.models import Net
from perfmodel.schedule import allocate, fuse_schedule

BATCHES = {"mlp": 200, "lstm": 64, "bert-large": 8, "resnet50": 16}
CAPACITY_MB = (0, 16, 72, 112, 128)
PUBLISHED = (0.69, 0.82, 0.90, 0.98, 1.0)


def mlp(batch: int = 200, width: int = 2048, layers: int = 5):
    """MLP0 of ISCA 2017."""
    net = Net("mlp", batch, "bf16")
    x = net.input(batch, width)
    for i in range(layers):
        x = net.vector(f"relu{i}", "relu", net.linear(f"dense{i}", x, width))
    return net.build()


def lstm(batch: int = 64, width: int = 1024, layers: int = 6):
    """One step of stacked LSTM cells: the gates' GEMM on input and state side by side, then 17 operations an element."""
    net = Net("lstm", batch, "bf16")
    x = net.input(batch, width)
    for i in range(layers):
        state, cell = net.input(batch, width), net.input(batch, width)
        gates = net.linear(f"layer{i}.gates", net.concat(x, state), 4 * width, bias=True)
        x = net.vector(f"layer{i}.cell", "gelu", gates, cell, shape=(batch, width), lane_ops=17 * batch * width)
    return net.build()


PROXIES = {
    "mlp": mlp,
    "lstm": lstm,
    "bert-large": lambda batch=8: pm.models.load("bert-large", batch=batch, seq_len=128, dtype="bf16"),
    "resnet50": lambda batch=16: pm.models.load("resnet50", batch=batch, dtype="bf16"),
}


def loaded_ahead(table, system):
    """The table with the fill and drain of one fold an operator instead of every fold's: weights are double-buffered."""
    chips = system.chiplets
    one = (2.0 * chips.rows + chips.columns - 2.0) / chips.clock_hz
    return eqx.tree_at(lambda t: t.fill_s, table, jnp.minimum(table.fill_s, one[None, :]))


@eqx.filter_jit
def evaluated(workload, system, schedule, table):
    return pm.evaluate(workload, system, schedule, table=table)


def curve(workload, base, **rules):
    """Of each capacity: latency, busy times, CMEM in use, traffic of both tiers."""
    table = loaded_ahead(pm.cost_table(workload, base), base)
    schedule = fuse_schedule(workload, pm.Schedule.on_chiplet(workload, 0), "xla-like")
    points = []
    for megabytes in CAPACITY_MB:
        capacity = np.asarray([megabytes * 1e6, base.memory.capacity_bytes[1]])
        system = eqx.tree_at(lambda s: s.memory.capacity_bytes, base, capacity)
        found = allocate(workload, system, schedule, table=table, **rules)
        m = jax.tree.map(np.asarray, evaluated(workload, system, replace(schedule, tiers=found.shares), table))
        assert bool(m.feasible), workload.model_names
        busy = dict(zip(system.resource_names, m.busy_s.tolist(), strict=True))
        points.append(dict(
            cmem_mb=megabytes, latency_s=float(m.latency_s), period_s=float(m.period_s), busy_s=busy, utilisation=float(m.utilisation),
            cmem_used_mb=float(found.used_bytes[0]) / 1e6, energy_j=float(m.energy_j),
            moved_mb=[float(found.traffic_bytes[found.tier == t].sum()) / 1e6 for t in (0, 1)],
        ))  # fmt: skip
    return points


def relative(points, figure: str = "latency_s") -> list[float]:
    return [points[-1][figure] / p[figure] for p in points]


def geometric_mean(rows) -> list[float]:
    return [math.exp(sum(math.log(v) for v in column) / len(column)) for column in zip(*rows, strict=True)]


def draw(path, rows: dict[str, list[float]], mean: list[float]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    for values in rows.values():
        ax.plot(CAPACITY_MB, values, color="0.6", lw=1, marker=".", ms=5, zorder=1)
    # names where the curves leave the left edge, pushed apart
    last = math.inf
    for name, values in sorted(rows.items(), key=lambda item: -item[1][0]):
        last = min(values[0], last - 0.035)
        ax.annotate(
            name, (0, values[0]), xytext=(-3, last), textcoords="data", ha="right", va="center", color="0.4", fontsize=9
        )
    ax.plot(CAPACITY_MB, mean, "o-", color="#0072B2", lw=2.2, label="geometric mean of the four", zorder=3)
    ax.plot(CAPACITY_MB, PUBLISHED, "s--", color="#D55E00", lw=2, label="published, production applications", zorder=2)
    ax.fill_between(CAPACITY_MB, [p - 0.08 for p in PUBLISHED], [min(p + 0.08, 1.08) for p in PUBLISHED], color="#D55E00", alpha=0.12,
                    lw=0, label="8 points either side")  # fmt: skip
    ax.set(xlabel="CMEM, MB", ylabel="performance relative to 128 MB", xlim=(-24, 132), xticks=CAPACITY_MB,
           ylim=(min(min(v) for v in rows.values()) - 0.05, 1.05), title="TPUv4i against the capacity of its CMEM")  # fmt: skip
    ax.grid(alpha=0.25)
    ax.legend(loc="lower right", frameon=False)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def main() -> None:
    args = arguments((__doc__ or "").splitlines()[0], batches=(False, "also half and twice the batch sizes"))
    base = pm.systems.load("tpu-v4i")
    found = {name: curve(make(), base, priority=(), by="density") for name, make in PROXIES.items()}
    rows = {name: relative(points) for name, points in found.items()}
    mean = geometric_mean(rows.values())
    paper = {
        name: relative(curve(PROXIES[name](), base)) for name in PROXIES
    }  # weights first, by traffic: SN40L's rule
    by_class = geometric_mean(paper.values())
    overlapped = geometric_mean(relative(points, "period_s") for points in found.values())
    batches = {}
    for times in (0.5, 2.0) if args.batches else ():
        made = {name: make(int(times * BATCHES[name])) for name, make in PROXIES.items()}
        batches[f"batch x {times:g}"] = geometric_mean(
            relative(curve(w, base, priority=(), by="density")) for w in made.values()
        )
    lines = [f"{'CMEM MB':28}" + "".join(f"{mb:>8}" for mb in CAPACITY_MB)]
    lines += [f"{name:28}" + "".join(f"{v:8.3f}" for v in values) for name, values in rows.items()]
    lines += [f"{label:28}" + "".join(f"{v:8.3f}" for v in values) for label, values in
              (("geometric mean", mean), ("published", PUBLISHED), ("weights first instead", by_class),
               ("passes overlapped instead", overlapped), *batches.items())]  # fmt: skip
    off = [100 * (a - b) for a, b in zip(mean, PUBLISHED, strict=True)]
    lines.append(f"{'points off':28}" + "".join(f"{v:8.1f}" for v in off))
    result = dict(
        cmem_mb=CAPACITY_MB, published=PUBLISHED, geometric_mean=mean, points_off=off, within_8_points=bool(max(map(abs, off)) <= 8),
        relative=rows, weights_first=dict(geometric_mean=by_class, relative=paper), overlapped_passes=overlapped, other_batches=batches,
        applications=found,
    )  # fmt: skip
    report("tpu_cmem", args, result, lines)
    draw(RESULTS.parents[1] / "docs" / "images" / "tpu_cmem.png" if not args.out else f"{args.out}.png", rows, mean)


if __name__ == "__main__":
    main()
