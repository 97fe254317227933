"""Memory tiers for a mix of language models and experts: the front of latency against budget, marginal values, and random search.

    python benchmarks/memory_design.py [--picture docs/images/memory_design.png]

Compute and technology of an SN40L node. Gradient descent against 60,000 random divisions of the same budgets.
"""

import time
from pathlib import Path

from _common import arguments, report

SYSTEM = "sn40l-node"


def mix():
    from search import ExpertRequest, Request

    return [Request("llama-2-7b", prompt=2048, new_tokens=128, batch=8, weight=1.0),
            ExpertRequest("llama-2-7b", experts=850, popularity=0.8, prompt=512, new_tokens=128, weight=4.0)]  # fmt: skip


def random_search(system, costs, budgets, n: int = 60_000):
    """Least exact latency of each budget over random shares, and CPU seconds of the evaluations."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from search.memory import compute_of, mix_s, prepared

    points, compute, rng = [prepared(r) for r in mix()], compute_of(system), np.random.default_rng(0)
    latency = jax.jit(jax.vmap(lambda x: mix_s(x, points, compute)))
    shares = np.concatenate([rng.dirichlet(np.full(6, a), n // 3) for a in (0.3, 0.6, 1.0)])
    latency(jnp.ones((1000, 6)))
    began = time.process_time()
    best = [min(float(np.min(latency(jnp.asarray(part * budget / costs)))) for part in np.split(shares, len(shares) // 1000))
            for budget in budgets]  # fmt: skip
    return best, time.process_time() - began


def main() -> None:
    args = arguments(
        "Memory tiers by gradient descent", picture=("docs/images/memory_design.png", "where to draw, '' for nowhere")
    )
    import numpy as np

    import perfmodel as pm
    from search import design_memory, memory_prices
    from search.commands import memory_text, plot_memory

    system, requests = pm.systems.load(SYSTEM), mix()
    began = time.process_time()
    design = design_memory(system, requests)
    seconds = time.process_time() - began
    power = design_memory(system, requests, budget_w=design.own_power_w, front=(0.5, 1.0, 2.0))
    few = [0, len(design.front_budget) // 2, -1]
    found, random_s = random_search(system, memory_prices(system).usd(), design.front_budget[few])
    if args.picture:
        Path(args.picture).parent.mkdir(parents=True, exist_ok=True)
        plot_memory(
            args.picture, design, title=f"memory of {SYSTEM}: Llama-2-7B, batch 8, and 850 experts of it (Zipf 0.8)"
        )

    def plain(d):
        return {
            name: value if isinstance(value, float | int | str) else np.asarray(value).tolist()
            for name, value in d._asdict().items()
        }

    prices = memory_prices(system)
    result = dict(
        system=SYSTEM, mix=[r._asdict() for r in requests], usd=plain(design), power=plain(power), cpu_s=seconds,
        prices={name: value.tolist() for name, value in prices._asdict().items()},
        random=dict(budget=design.front_budget[few].tolist(), descent_s=design.front_latency_s[few].tolist(), random_s=found,
                    divisions=60_000, cpu_s=random_s),
    )  # fmt: skip
    lines = [
        memory_text(design, requests, SYSTEM),
        "",
        "with the same power instead of the same price:",
        memory_text(power, requests, SYSTEM),
        "",
    ]
    lines += [f"{'budget, USD':>14}{'descent, ms':>14}{'best of 60,000 random':>24}"]
    lines += [
        f"{b:14,.0f}{d * 1e3:14.4g}{r * 1e3:24.4g}"
        for b, d, r in zip(design.front_budget[few], design.front_latency_s[few], found, strict=True)
    ]
    lines.append(
        f"CPU seconds: descent {seconds:.1f} with compilation ({design.evaluations:,} evaluations), random {random_s:.1f} for three budgets"
    )
    report("memory_design", args, result, lines)


if __name__ == "__main__":
    main()
