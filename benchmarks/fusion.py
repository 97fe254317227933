"""Operator fusion: what each backend's rules save, the Monarch example, how the rules scale, and fusion found by descent.

Every schedule puts all operators on the first chiplet. `mcm-2x2 / 10` is the same package with a tenth of the buffers. Descent: Adam
on the logits of every edge of a small graph through the relaxed evaluator, rounded, against all 2^E fusions.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import arguments, report

SYSTEMS = (("mcm-2x2", 1.0), ("mcm-2x2", 0.1), ("a100-80gb", 1.0))
_DECIDE = 0.2  # weight of the penalty on edges that are neither fused nor not (FADiff, arXiv 2511.22348)
_PAPER = {"none": 39.5, "xla-like": 102.6, "dataflow": 410.4}  # arXiv 2405.07518, table I: shapes not printed


def scaled(name: str, scale: float):
    import equinox as eqx

    import perfmodel as pm

    system = pm.systems.load(name)
    return eqx.tree_at(lambda s: s.chiplets.buffer_bytes, system, system.chiplets.buffer_bytes * scale)


def backends() -> tuple[list[dict], list[str]]:
    import numpy as np

    import perfmodel as pm
    from perfmodel.workload import BACKENDS, coarsen, fuse

    rows = []
    for model in ("gpt2", "resnet50"):
        workload = pm.models.load(model)
        fusions = [fuse(workload, backend) for backend in BACKENDS]
        for name, scale in SYSTEMS:
            system = scaled(name, scale)
            where = np.zeros((len(fusions), workload.n_operators), np.int8)
            fused = np.stack([fusion.fused for fusion in fusions])
            m = pm.evaluate_many(workload, system, pm.Schedule(where, fusion=fused))
            traffic = np.asarray(m.busy_s)[:, -1] * float(system.memory.bytes_per_s[0])
            for i, backend in enumerate(BACKENDS):
                rows.append({
                    "model": model, "system": name, "buffers": scale, "backend": backend, "groups": fusions[i].n_groups,
                    "macs_conserved": sum(coarsen(workload, fusions[i]).macs) == workload.macs,
                    "memory_bytes": float(traffic[i]), "latency_s": float(m.latency_s[i]), "energy_j": float(m.energy_j[i]),
                })  # fmt: skip
    lines = [
        f"{'model':10}{'system':16}{'backend':15}{'groups':>7}{'memory MB':>11}{'latency ms':>12}{'energy mJ':>11}"
    ]
    for r in rows:
        system = r["system"] if r["buffers"] == 1 else f"{r['system']} / {1 / r['buffers']:.0f}"
        lines.append(f"{r['model']:10}{system:16}{r['backend']:15}{r['groups']:7}{r['memory_bytes'] / 1e6:11.1f}"
                     f"{r['latency_s'] * 1e3:12.4f}{r['energy_j'] * 1e3:11.2f}")  # fmt: skip
    return rows, lines


def monarch() -> tuple[list[dict], list[str]]:
    """Gemm0 -> Mul -> Transpose -> Gemm1, batch 256, X [64 x 256], W0 [256 x 512], W1 [64 x 8], bf16."""
    from perfmodel.workload import GraphBuilder, fuse, intensity, operator_row

    graph, size = GraphBuilder("monarch"), dict(bits=16)
    x = operator_row("gemm", k=512, c=256, p=256 * 64, parameters=256 * 512, **size)
    x = graph.add("gemm0", x, [], outside_bytes=2 * 256 * 64 * 256)
    x = graph.add("mul", operator_row("mul", batch=256, k=512, p=64, parameters=64 * 512, **size), [x])
    x = graph.add("transpose", operator_row("copy", batch=256, k=64, p=512, **size), [x])
    graph.add("gemm1", operator_row("gemm", k=8, c=64, p=256 * 512, parameters=512, **size), [x])
    workload, balance = graph.build(), 300e12 / 2e12
    rows = []
    for backend, paper in _PAPER.items():
        found = intensity(workload, fuse(workload, backend))
        verdict = "compute-bound" if found.total > balance else "memory-bound"
        rows.append(
            {
                "backend": backend,
                "kernels": len(found.ops),
                "ops_per_byte": found.total,
                "paper": paper,
                "a100": verdict,
            }
        )
    lines = ["", f"{'Monarch':15}{'kernels':>8}{'ops/byte':>10}{'paper':>8}   A100 (150 ops/byte)"]
    lines += [
        f"{r['backend']:15}{r['kernels']:8}{r['ops_per_byte']:10.1f}{r['paper']:8.1f}   {r['a100']}" for r in rows
    ]
    lines.append(f"fully / partly fused: {rows[2]['ops_per_byte'] / rows[1]['ops_per_byte']:.3f} (paper 4.000)")
    return rows, lines


def growth() -> tuple[list[dict], list[str]]:
    """Seconds of `fuse` and `coarsen` on blocks of ResNet's kind, more and more of them."""
    from perfmodel.workload import GraphBuilder, coarsen, fuse, operator_row

    conv = operator_row("conv", k=64, c=64, p=14, q=14, r=3, s=3)
    norm, relu, add = (operator_row(kind, k=64, p=14, q=14) for kind in ("batch_norm", "relu", "add"))
    rows = []
    for n in (1_000, 10_000, 100_000):
        graph = GraphBuilder("blocks")
        skip = graph.add("stem", conv, [], outside_bytes=64 * 14 * 14)
        while len(graph.rows) < n:
            x = graph.add("conv", conv, [skip])
            x = graph.add("relu", relu, [graph.add("bn", norm, [x])])
            x = graph.add("bn", norm, [graph.add("conv", conv, [x])])
            skip = graph.add("relu", relu, [graph.add("add", add, [x, skip])])
        workload = graph.build()
        for backend in ("tensorrt-like", "dataflow"):
            taken: list[list[float]] = [[], []]
            for _ in range(3):
                start = time.process_time()
                fusion = fuse(workload, backend)
                taken[0].append(time.process_time() - start)
                start = time.process_time()
                coarsen(workload, fusion)
                taken[1].append(time.process_time() - start)
            rows.append({
                "backend": backend, "operators": workload.n_operators, "groups": fusion.n_groups,
                "fuse_cpu_s": min(taken[0]), "coarsen_cpu_s": min(taken[1]),
            })  # fmt: skip
    lines = ["", f"{'rules':15}{'operators':>10}{'groups':>8}{'fuse s':>9}{'coarsen s':>11}{'us/operator':>13}"]
    lines += [f"{r['backend']:15}{r['operators']:10,}{r['groups']:8,}{r['fuse_cpu_s']:9.3f}{r['coarsen_cpu_s']:11.3f}"
              f"{1e6 * (r['fuse_cpu_s'] + r['coarsen_cpu_s']) / r['operators']:13.2f}" for r in rows]  # fmt: skip
    return rows, lines


def small_graph():
    """Ten edges: a residual block, then an MLP; tensors of 16 to 64 KiB, 16 to 36 KiB of weights a layer."""
    from perfmodel.workload import GraphBuilder, operator_row

    graph, size = GraphBuilder("small"), dict(k=64, p=32, q=32)
    conv = operator_row("conv", c=64, r=3, s=3, **size)
    x = graph.add("stem", operator_row("conv", c=3, r=3, s=3, **size), [], outside_bytes=3 * 34 * 34)
    y = graph.add("relu", operator_row("relu", **size), [graph.add("conv1", conv, [x])])
    x = graph.add("add", operator_row("add", in_elements=2 * 64 * 1024, **size), [graph.add("conv2", conv, [y]), x])
    x = graph.add("norm", operator_row("layer_norm", k=64, p=1024), [x])
    up = operator_row("gemm", k=256, c=64, p=1024)
    x = graph.add("gelu", operator_row("gelu", k=256, p=1024), [graph.add("up", up, [x])])
    x = graph.add("down", operator_row("gemm", k=64, c=256, p=1024), [x])
    graph.add("out", operator_row("softmax", k=64, p=1024), [x])
    return graph.build()


def descent(starts: int, steps: int) -> tuple[list[dict], list[str]]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import perfmodel as pm
    from perfmodel.workload import fusion_of

    workload, package = small_graph(), pm.systems.load("monolithic-os")
    n = len(workload.source)
    every = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(bool)
    reserve = float(np.max(pm.cost_table(workload, package).working_bytes))
    optimiser, where = optax.adam(0.2), np.zeros(workload.n_operators, np.int32)

    def allowed(fused) -> bool:
        try:
            fusion_of(workload, fused)
        except ValueError:
            return False
        return True

    convex = np.asarray([allowed(fused) for fused in every])

    @jax.jit
    def descend(logits, system, table):
        def loss(logits, progress):
            sigma = jax.nn.sigmoid(4.0**progress * logits)
            schedule = pm.Schedule(where, fusion=sigma)
            m = pm.evaluate(workload, system, schedule, table=table, smooth=True, temperature=0.1 * 0.1**progress)
            undecided = progress * jnp.sum(sigma * (1 - sigma))  # half a tile may fit where none does
            return jnp.log(m.energy_j) + jnp.log(m.latency_s) + _DECIDE * undecided

        def step(carry, progress):
            logits, state = carry
            updates, state = optimiser.update(jax.vmap(jax.grad(loss), (0, None))(logits, progress), state)
            return (optax.apply_updates(logits, updates), state), None

        return jax.lax.scan(step, (logits, optimiser.init(logits)), jnp.linspace(0.0, 1.0, steps))[0][0]

    rows = []
    for room in (15_000, 30_000, 45_000, 60_000, 80_000, 120_000):
        system = eqx.tree_at(lambda s: s.chiplets.buffer_bytes, package, np.full(1, reserve + room))
        table = pm.cost_table(workload, system)
        placed = np.zeros((len(every), workload.n_operators), np.int8)
        m = pm.evaluate_many(workload, system, pm.Schedule(placed, fusion=every), table=table)
        edp = np.where(convex, np.asarray(m.edp_js), np.inf)
        logits = jnp.asarray(np.random.default_rng(0).normal(size=(starts, n)), jnp.float32)
        start = time.process_time()
        found = np.asarray(descend(logits, system, table)) > 0
        taken = time.process_time() - start
        ends = edp[found @ (1 << np.arange(n))]
        rows.append({
            "room_bytes": room, "edp_none": float(edp[0]), "edp_all": float(edp[-1]), "edp_best": float(edp.min()),
            "edp_descent": float(ends.min()), "median_start": float(np.median(ends)) if np.isfinite(np.median(ends)) else None,
            "starts_at_best": int((ends <= edp.min() * (1 + 1e-5)).sum()), "starts": starts, "cpu_s": taken,
        })  # fmt: skip
    lines = [
        "",
        f"descent over {n} relaxed edges, {starts} starts of {steps} steps, against {int(convex.sum())} convex of {2**n} fusions",
        f"{'room KB':>8}{'EDP none':>12}{'all / none':>12}{'best / none':>13}{'descent / best':>16}{'median / best':>15}"
        f"{'starts at best':>16}",
    ]  # fmt: skip
    for r in rows:
        lines.append(f"{r['room_bytes'] / 1e3:8.0f}{r['edp_none']:12.4g}{r['edp_all'] / r['edp_none']:12.4f}"
                     f"{r['edp_best'] / r['edp_none']:13.4f}{r['edp_descent'] / r['edp_best']:16.5f}"
                     f"{_times(r['median_start'], r['edp_best']):>15}{r['starts_at_best']:13}/{r['starts']}")  # fmt: skip
    worst = max(r["edp_descent"] / r["edp_best"] for r in rows)
    lines.append(f"worst of descent against enumeration: {worst:.5f}")
    return rows, lines


def _times(value: float | None, best: float) -> str:
    return "not convex" if value is None else f"{value / best:.5f}"


def main() -> None:
    args = arguments((__doc__ or "").splitlines()[0], starts=(32, "of the descent"), steps=(100, "of the descent"))
    result, lines = {}, []
    parts = {"backends": backends, "monarch": monarch, "growth": growth}
    for name, part in parts.items():
        result[name], more = part()
        lines += more
    result["descent"], more = descent(args.starts, args.steps)
    report("fusion", args, result, lines + more)


if __name__ == "__main__":
    main()
