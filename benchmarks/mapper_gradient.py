"""Gradient descent through relaxed loop bounds against evolution of whole ones, on the same machine at the same effort.

Descent: for random orders of loops, how the logarithm of each bound is shared out among the levels is a softmax that Adam improves
through the loop-nest model itself (memories that overflow are penalised); then bounds are rounded to divisors, inner to outer, and
what does not fit is dropped. A step counts as three evaluations, and all operands are cut at the same loops. Evolution:
`map_operators`.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import arguments, median, report
from mapper import UNROLL, zigzag_rows

LAYERS = (
    "opt125m_qkv_prefill128",
    "opt125m_ffn1_prefill128",
    "gemm_512x512x512",
    "conv3x3_64_56",
    "conv3x3_128_28",
    "conv3x3_256_14",
)
LEVELS = 3
_STEPS, _STARTS = 60, 512


def descend(problem, machine, space, seed: int):
    """(best EDP of a nest with whole bounds, evaluations)."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from perfmodel.cost import OURS, LoopNest, loopnest_cost

    rng = np.random.default_rng(seed)
    dims = np.flatnonzero(space.bounds > 1)
    slots = np.asarray([(d, level) for level in range(LEVELS) for d in dims])
    # in each level the loops stand in a random order; the levels of all operands are cut alike, as far as their chains go
    order = np.stack(
        [
            np.concatenate([level * len(dims) + rng.permutation(len(dims)) for level in range(LEVELS)])
            for _ in range(_STARTS)
        ],
        -1,
    )
    last = np.asarray(machine.held).sum(axis=1) - 1
    dim, level = slots[order, 0], slots[order, 1]
    levels = np.minimum(level[None], last[:, None, None])
    which = np.searchsorted(dims, dim)
    logs = np.log(space.bounds[dims])
    problem = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), problem)
    column = [jnp.asarray(x)[..., None] for x in (space.spatial_dim, space.spatial_factor, space.spatial_level)]
    room = jnp.asarray(np.minimum(machine.capacity_bits, 1e30), jnp.float32)

    def nest_of(factor):
        return LoopNest(jnp.asarray(dim, jnp.int8), factor, jnp.asarray(levels, jnp.int8), *column)

    def bounds(logits):
        share = jax.nn.softmax(logits, axis=1)  # [dims, levels, starts]
        return jnp.exp(share[which, level, jnp.arange(_STARTS)] * logs[which])

    def loss(logits):
        cost = loopnest_cost(problem, nest_of(bounds(logits)), machine, OURS)
        over = jnp.sum(jax.nn.relu(jnp.log(jnp.maximum(cost.used_bits, 1.0) / room[:, None])), axis=0)
        return jnp.sum(jnp.log(cost.cycles) + jnp.log(cost.total_j) + 3.0 * over)

    optimizer = optax.adam(0.2)

    @jax.jit
    def run(logits):
        def step(state, _):
            logits, moments = state
            updates, moments = optimizer.update(jax.grad(loss)(logits), moments)
            return (optax.apply_updates(logits, updates), moments), None

        (logits, _), _ = jax.lax.scan(step, (logits, optimizer.init(logits)), None, _STEPS)
        return bounds(logits)

    relaxed = np.asarray(run(jnp.asarray(rng.normal(size=(len(dims), LEVELS, _STARTS)), jnp.float32)))
    whole = np.ones_like(relaxed)
    for b in range(_STARTS):
        left = {d: int(space.bounds[d]) for d in dims}
        for i in range(len(relaxed)):
            d, outermost = dim[i, b], not np.any(dim[i + 1 :, b] == dim[i, b])
            divisors = np.asarray([n for n in range(1, left[d] + 1) if left[d] % n == 0])
            whole[i, b] = left[d] if outermost else divisors[np.argmin(np.abs(np.log(divisors / relaxed[i, b])))]
            left[d] //= int(whole[i, b])
    cost = jax.jit(lambda f: loopnest_cost(problem, nest_of(f), machine, OURS))(jnp.asarray(whole))
    edp = np.where(np.asarray(cost.fits), np.asarray(cost.cycles) * np.asarray(cost.total_j), np.inf)
    return float(edp.min()), _STARTS * (3 * _STEPS + 1)


def main() -> None:
    args = arguments(__doc__, seeds=(3, "seeds"))
    import jax
    import numpy as np

    from perfmodel.calibration import zigzag as z
    from perfmodel.cost import map_operators
    from perfmodel.cost.nest import spaces

    rows, machines = zigzag_rows()
    table = []
    for name in ("tpu_like", "eyeriss_like"):
        machine = z.machine(name, machines[name])
        for i in np.flatnonzero((rows["hardware"] == name) & np.isin(rows["layer"], LAYERS)):
            problem = z.stacked([z.row_problem(rows, i)])
            space = spaces(problem.sizes[:, 0], machine, UNROLL[name])
            ratios, seconds, budget = [], [[], []], 0
            for seed in range(args.seeds):
                start = time.process_time()
                found = [descend(problem, jax.tree.map(np.asarray, machine), s, seed) for s in space]
                seconds[0].append(time.process_time() - start)
                best, budget = min(edp for edp, _ in found), sum(n for _, n in found)
                start = time.process_time()
                generations = max(1, budget // (256 * len(space)))
                evolved = map_operators(problem, machine, UNROLL[name], "edp", generations=generations, seed=seed)
                seconds[1].append(time.process_time() - start)
                ratios.append(best / float(evolved.cycles[0] * evolved.energy_j[0]))
            table.append({
                "machine": name, "layer": str(rows["layer"][i]), "evaluations": budget, "edp_descent_over_evolution": median(ratios),
                "descent_cpu_s": median(seconds[0]), "evolution_cpu_s": median(seconds[1]),
            })  # fmt: skip
    lines = [
        f"{'machine':14}{'layer':28}{'evaluations':>12}{'EDP descent/evolution':>23}{'CPU s':>8}{'CPU s':>8}   (with compilation)"
    ]
    lines += [f"{r['machine']:14}{r['layer']:28}{r['evaluations']:12,}{r['edp_descent_over_evolution']:23.3f}"
              f"{r['descent_cpu_s']:8.2f}{r['evolution_cpu_s']:8.2f}" for r in table]  # fmt: skip
    ratio = median([r["edp_descent_over_evolution"] for r in table])
    lines.append(f"median over layers: descent's EDP is {ratio:.3f} times evolution's")
    report("mapper_gradient", args, {"layers": table, "median_edp_descent_over_evolution": ratio}, lines)


if __name__ == "__main__":
    main()
