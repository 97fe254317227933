"""Which memory tiers serve a mix of language models and experts soonest for a budget? Gradient descent on six numbers.

Capacity and bandwidth of SRAM, HBM and DDR are shares of a budget (USD, or W at full bandwidth) over their prices
(`memory_prices`), so that every step of the descent spends exactly the budget: no penalties. The latency is that of
`_memory_model`; its compute is the system's and costs nothing here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from perfmodel.hardware import System

from ._model import Compute, ExpertRequest, Point, Request, compute_of, mix_s, own_tiers, prepared, request_s
from ._prices import GB, TIERS, MemoryPrices, memory_prices

PARAMETERS = tuple(f"{tier}_{what}" for what in ("bytes", "bytes_per_s") for tier in TIERS)
_HOT, _COLD = 0.3, 0.01  # temperature of the maxima, first and last
_RATE = 0.08
_LEAST = 1e-7  # of the budget: nothing is free of all money, so that logarithms stay finite


class MemoryDesign(NamedTuple):
    """What `design_memory` found. `F` budgets of the front, `P` requests, 6 parameters: `PARAMETERS`.

    - `capacity_bytes, bytes_per_s [3]`: of SRAM, HBM, DDR.  `latency_s`: mean of the mix, exact.  `request_s [P]`.
    - `usd`, `power_w`: of the tiers.  `shares [6]`: of the budget.
    - `marginal_s_per_gb, marginal_s_per_gb_per_s [3]`: change of the mean latency with a GB, with a GB/s more (negative: sooner).
    - `marginal_s_per_unit [6]`: with a USD (or W) more spent on each parameter: equal where a design is optimal and the parameter
      is not at its least.
    - `own_latency_s, own_usd, own_power_w`: of the system as it is.  `evaluations`: of the mix, with gradients.
    - `front_budget, front_latency_s [F]`, `front_parameters [F, 6]`: the best of each budget.  `unit`: `usd` or `w`.
    """

    capacity_bytes: Float[np.ndarray, "3"]
    bytes_per_s: Float[np.ndarray, "3"]
    latency_s: float
    request_s: Float[np.ndarray, "P"]
    usd: float
    power_w: float
    shares: Float[np.ndarray, "6"]
    marginal_s_per_gb: Float[np.ndarray, "3"]
    marginal_s_per_gb_per_s: Float[np.ndarray, "3"]
    marginal_s_per_unit: Float[np.ndarray, "6"]
    own_latency_s: float
    own_usd: float
    own_power_w: float
    front_budget: Float[np.ndarray, "F"]
    front_latency_s: Float[np.ndarray, "F"]
    front_parameters: Float[np.ndarray, "F 6"]
    evaluations: int
    unit: str


def design_memory(
    system: System,
    mix: Sequence[Request | ExpertRequest],
    *,
    budget_usd: float | None = None,
    budget_w: float | None = None,
    front: Sequence[float] = tuple(np.geomspace(0.25, 4.0, 9)),
    prices: MemoryPrices | None = None,
    outside_bytes_per_s: float | None = None,
    steps: int = 400,
    starts: int = 6,
    seed: int = 0,
) -> MemoryDesign:
    """The SRAM, HBM and DDR (capacity and bandwidth of the whole package) of least mean latency of `mix` within a budget.

    **Arguments:**
    - `system`: its compute, technology and way out; its own tiers are the first start and the comparison.
    - `budget_usd` or `budget_w`: for memory alone; neither: what the system's own tiers cost in USD.
    - `front`: budgets to solve besides, as multiples of it; all are one vmapped descent.
    - `prices`: default `memory_prices(system)`, whose docstring and `docs/experts.md` state the assumptions and their sources.
    - `steps` of Adam on logarithms of the shares, from `starts` points each, the first at the system's own shares.

    Raises ValueError in one line for an empty mix, budgets that are not positive or two of them, and unknown models.
    """
    if not len(mix):
        raise ValueError("mix is empty; needed: at least one Request or ExpertRequest")
    if budget_usd is not None and budget_w is not None:
        raise ValueError("budget_usd and budget_w are both given; allowed: one of them")
    for name, value in (("steps", steps), ("starts", starts), ("budget_usd", budget_usd), ("budget_w", budget_w)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; allowed: a finite number above 0")
    points = [prepared(request) for request in mix]
    compute = compute_of(system, outside_bytes_per_s)
    prices = memory_prices(system) if prices is None else prices
    own, unit = own_tiers(system), "usd" if budget_w is None else "w"
    costs = prices.usd() if unit == "usd" else prices.w()
    budget = budget_usd or budget_w or float(own @ costs)
    budgets = budget * np.append(np.asarray(front, np.float64), 1.0)
    if not np.all(np.isfinite(budgets) & (budgets > 0)):
        raise ValueError(f"front is {list(front)}; allowed: finite numbers above 0")
    logits = _starts(own * costs / float(own @ costs), starts, seed)
    exact = jax.jit(lambda x: mix_s(x, points, compute))
    found = _descend(points, compute, costs, budgets, logits, steps)
    best = np.stack([min(ends, key=lambda x: float(exact(x))) for ends in found])
    # what a smaller budget buys is there for a larger one too: the front never rises
    order = np.argsort(budgets, kind="stable")
    for before, after in zip(order[:-1], order[1:], strict=True):
        grown = best[before] * budgets[after] / budgets[before]
        if exact(grown) < exact(best[after]):
            best[after] = grown
    least = np.asarray([float(exact(x)) for x in best])
    x = best[-1]
    slope = np.asarray(jax.jit(lambda x: gradient(x, points, compute))(x), np.float64)
    return MemoryDesign(
        capacity_bytes=x[:3], bytes_per_s=x[3:], latency_s=float(least[-1]),
        request_s=np.asarray(jax.jit(lambda x: jnp.stack([request_s(x, p, compute) for p in points]))(x)), usd=float(x @ prices.usd()),
        power_w=float(x @ prices.w()), shares=x * costs / budgets[-1], marginal_s_per_gb=slope[:3] * GB,
        marginal_s_per_gb_per_s=slope[3:] * GB, marginal_s_per_unit=slope / costs, own_latency_s=float(exact(own)),
        own_usd=float(own @ prices.usd()), own_power_w=float(own @ prices.w()), front_budget=np.sort(budgets[:-1]),
        front_latency_s=least[:-1][np.argsort(budgets[:-1])], front_parameters=best[:-1][np.argsort(budgets[:-1])],
        evaluations=len(budgets) * starts * steps, unit=unit,
    )  # fmt: skip


def gradient(x, points: Sequence[Point], compute: Compute, temperature: float = _COLD):
    """d mean latency / d each of the six parameters, of the model with smooth maxima."""
    return jax.grad(lambda at: mix_s(at, points, compute, temperature, True))(jnp.asarray(x, jnp.result_type(float)))


def _starts(shares, starts: int, seed: int):
    """Logits of shares `[S, 6]`: the system's own, then random ones."""
    rng = np.random.default_rng(seed)
    own = np.log(np.maximum(shares, 1e-4))
    return np.stack([own, *rng.normal(0.0, 2.0, (starts - 1, 6))]) if starts > 1 else own[None]


def _descend(points, compute: Compute, costs, budgets, logits, steps: int):
    """Parameters `[F, 2 S, 6]`: every start at every budget, and where it went."""
    costs, budgets, logits = (jnp.asarray(v, jnp.result_type(float)) for v in (costs, budgets, logits))
    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, steps, 0.02))

    def tiers(logit, budget):
        return (_LEAST + (1.0 - 6 * _LEAST) * jax.nn.softmax(logit)) * budget / costs

    def loss(logit, budget, temperature):
        return jnp.log(mix_s(tiers(logit, budget), points, compute, temperature, True))

    def one(logit, budget):
        def step(carry, temperature):
            at, state = carry
            moved, state = optimizer.update(jax.grad(loss)(at, budget, temperature), state)
            return (optax.apply_updates(at, moved), state), None

        (last, _), _ = jax.lax.scan(step, (logit, optimizer.init(logit)), jnp.geomspace(_HOT, _COLD, steps))
        return jnp.stack([tiers(logit, budget), tiers(last, budget)])

    found = jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))(logits, budgets)
    return np.asarray(found, np.float64).reshape(len(budgets), -1, 6)
