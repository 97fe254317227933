"""Training steps of Megatron-LM on A100s (Korthikanti et al., arXiv 2205.05198, table 5) against `perfmodel train`.

Fits the constants of the framework to the eight steps by least squares of the logarithm, one to three of them, and again
without each model in turn: what is kept (perfmodel/serving/_training.py, `FITTED`) is the set with the least error on
models left out. Beside: bytes of figure 1, utilisation, and steps evaluated per CPU second.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import arguments, cpu_seconds, median, pin_to_one_core, report

# Table 3: model, global batch, microbatch, pipeline stages, parts a stage holds (eight tensor ranks, 2048 tokens); table 5:
# seconds with full recompute, and with sequence parallelism and selective recompute. As Calculon's validation.py (caa4b11,
# Apache-2.0) has them.
ROWS = [
    ("megatron-22b", 4, 4, 1, 1, 1.42, 1.10), ("gpt3-175b", 64, 1, 8, 3, 18.13, 13.75),
    ("turing-530b", 280, 1, 35, 3, 49.05, 37.83), ("megatron-1t", 512, 1, 64, 1, 94.42, 71.49),
]  # fmt: skip
# Figure 1, GiB: parameters and optimizer; activations without recompute, and with both techniques (validation.py of Calculon).
FIGURE_1 = {"megatron-22b": (45.5625, 59.25, 9.5625), "gpt3-175b": (45.5625, 66.84375, 12.3515625),
            "turing-530b": (31.640625, 114.0234375, 23.076171875), "megatron-1t": (32.958984375, 131.25, 26.5625)}  # fmt: skip
CALCULON = {"mape_percent": 3.65, "max_ape_percent": 8.87}  # its efficiencies were tuned to these eight steps
NAMES = ("matrix_slowdown", "stream_slowdown", "overlap")
SETS = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
BOUNDS = ((0.5, 2.0), (0.5, 2.0), (0.0, 1.0))


def main() -> None:
    args = arguments(__doc__.split("\n")[0], points=(4096, "steps evaluated in one call, for the rate"))
    pin_to_one_core()
    import jax
    import numpy as np

    with jax.enable_x64(True):
        predicted = predictor()
        measured = np.array([row[5:] for row in ROWS])
        sets = {"+".join(NAMES[i] for i in chosen) or "none": judged(predicted, measured, chosen) for chosen in SETS}
        from perfmodel.training import FITTED

        shipped = {name: float(getattr(FITTED, name)) for name in NAMES}
        errors = 100 * (predicted(np.array([*shipped.values()])) / measured - 1)
        memory = figure_1()
    rate = steps_per_cpu_second(args.points)
    kept = "+".join(name for name in NAMES if shipped[name] != 1.0)
    result = {
        "rows": [
            {"model": row[0], "recompute": mode, "measured_s": seconds, "error_percent": float(errors[i, j])}
            for i, row in enumerate(ROWS)
            for j, (mode, seconds) in enumerate(zip(("full", "seqsel"), row[5:], strict=True))
        ],
        "mape_percent": float(np.abs(errors).mean()), "max_ape_percent": float(np.abs(errors).max()), "fitted": shipped, "kept": kept,
        "sets": sets, "calculon": CALCULON, "figure_1_gib": memory, **rate,
    }  # fmt: skip
    report("megatron", args, result, table(result))


def predictor():
    """Constants [3] -> seconds [4 models, full and seqsel]."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import perfmodel as pm
    from perfmodel.cost import machine
    from perfmodel.models import decoder
    from perfmodel.training import TrainingConstants, training_shape, training_step

    dgx = machine(pm.systems.load("dgx-a100"))
    shapes = jax.tree.map(lambda *x: jnp.stack(x), *[training_shape(decoder(row[0]).spec) for row in ROWS])
    plans = jnp.asarray([row[1:5] for row in ROWS], float)

    @jax.jit
    def seconds(constants):
        def one(shape, plan, full):
            return training_step(
                shape, dgx, batch=plan[0], sequence=2048.0, microbatch=plan[1], tensor=8.0, pipeline=plan[2], interleave=plan[3],
                recompute="full" if full else "selective", sequence_parallel=not full, constants=TrainingConstants(*constants),
            ).step_s  # fmt: skip

        return jnp.stack(
            [jax.vmap(lambda s, p, full=full: one(s, p, full))(shapes, plans) for full in (True, False)], 1
        )

    return lambda constants: np.asarray(seconds(jnp.asarray(constants)))


def fitted(predicted, measured, rows, chosen):
    """All three constants, those of `chosen` (indices) fitted to `rows` (of models)."""
    import numpy as np
    from scipy.optimize import least_squares

    base = np.ones(3)
    if not chosen:
        return base
    picked = np.array(chosen)

    def whole(x):
        constants = base.copy()
        constants[picked] = x
        return constants

    def off(x):
        return np.log(predicted(whole(x)) / measured)[rows].ravel()

    lower, upper = np.array(BOUNDS)[picked].T
    starts = (np.array([1.05, 1.2, 0.7])[picked], np.array([1.05, 1.2, 0.1])[picked])
    found = min((least_squares(off, x, bounds=(lower, upper), diff_step=1e-4) for x in starts), key=lambda f: f.cost)
    return whole(found.x)


def judged(predicted, measured, chosen) -> dict:
    """Errors of a set of fitted constants, and of each model when it is left out of the fit."""
    import numpy as np

    every = np.arange(len(ROWS))
    constants = fitted(predicted, measured, every, chosen)
    errors = 100 * (predicted(constants) / measured - 1)
    out = np.stack([
        100 * (predicted(fitted(predicted, measured, np.delete(every, i), chosen)) / measured - 1)[i] for i in every
    ])  # fmt: skip
    return {
        "fitted": dict(zip(NAMES, constants.tolist(), strict=True)),
        "mape_percent": float(np.abs(errors).mean()), "max_ape_percent": float(np.abs(errors).max()),
        "left_out_mape_percent": float(np.abs(out).mean()), "left_out_max_ape_percent": float(np.abs(out).max()),
        "left_out_error_percent": {row[0]: out[i].tolist() for i, row in enumerate(ROWS)},
    }  # fmt: skip


def figure_1() -> dict:
    """Ours and the paper's GiB: matrices of the blocks with 18 bytes each parameter; activations of the blocks, 1F1B's
    first stage."""
    from perfmodel.models import decoder
    from perfmodel.training import layer_activation_bytes, training_shape

    made = {}
    for name, _, microbatch, stages, parts, *_ in ROWS:
        shape = training_shape(decoder(name).spec)
        layers = float(shape.layers)
        flight = layers * (1 + (stages - 1) / (stages * parts)) if parts > 1 else layers
        tokens = microbatch * 2048.0
        kept = [
            float(layer_activation_bytes(shape, tokens, 2048.0, 8.0, **how)) * flight / 2**30
            for how in ({}, {"recompute": "selective", "sequence_parallel": True})
        ]
        ours = [18 * float(shape.block_parameters(8.0)) * layers / stages / 2**30, *kept]
        made[name] = {"ours": ours, "paper": list(FIGURE_1[name])}
    return made


def steps_per_cpu_second(points: int) -> dict:
    """Steps of one model over batch, microbatch and degrees, in one vmapped call on one core."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import perfmodel as pm
    from perfmodel.cost import machine
    from perfmodel.models import decoder
    from perfmodel.training import training_shape, training_step

    dgx, shape = machine(pm.systems.load("dgx-a100")), training_shape(decoder("gpt3-175b").spec)
    random = np.random.default_rng(0)
    plans = jnp.asarray(2.0 ** random.integers(0, 4, (points, 4)), jnp.float32)

    @jax.jit
    def swept(plans):
        def one(p):
            step = training_step(
                shape,
                dgx,
                batch=512.0,
                sequence=2048.0,
                microbatch=p[0],
                tensor=p[1],
                pipeline=p[2],
                data=p[3],
                recompute="selective",
            )
            return step.step_s, step.needed_bytes, step.energy_j

        return jax.vmap(one)(plans)

    jax.block_until_ready(swept(plans))
    return {"steps_per_cpu_s": points / median(cpu_seconds(lambda: swept(plans), 5))}


def table(r: dict) -> list[str]:
    lines = [f"{'step':24}{'measured s':>12}{'error %':>10}"]
    lines += [
        f"{x['model'] + ' ' + x['recompute']:24}{x['measured_s']:12.2f}{x['error_percent']:10.2f}" for x in r["rows"]
    ]
    values = ", ".join(
        f"{name} {value:.4g}{' (fitted)' if name in r['kept'] else ''}" for name, value in r["fitted"].items()
    )
    lines += [f"mean {r['mape_percent']:.2f} %, largest {r['max_ape_percent']:.2f} % with {values}", ""]
    lines.append(f"{'fitted':42}{'mean %':>8}{'max %':>8}{'left out: mean %':>18}{'max %':>8}  values")
    for name, s in r["sets"].items():
        shown = ", ".join(f"{v:.3f}" for v in s["fitted"].values())
        lines.append(f"{name:42}{s['mape_percent']:8.2f}{s['max_ape_percent']:8.2f}{s['left_out_mape_percent']:18.2f}"
                     f"{s['left_out_max_ape_percent']:8.2f}  {shown}")  # fmt: skip
    lines.append(
        f"Calculon, tuned to these steps: mean {CALCULON['mape_percent']} %, max {CALCULON['max_ape_percent']} %"
    )
    for name, m in r["figure_1_gib"].items():
        pairs = ", ".join(f"{a:.2f} ({b:.2f})" for a, b in zip(m["ours"], m["paper"], strict=True))
        lines.append(f"{name:24}GiB, ours (figure 1): {pairs}")
    lines.append(f"{r['steps_per_cpu_s']:,.0f} steps per CPU second in one vmapped call")
    return lines


if __name__ == "__main__":
    main()
