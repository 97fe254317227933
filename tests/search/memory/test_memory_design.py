"""Memory tiers by gradient descent: latency against a plain re-implementation, gradients, a grid of divisions, properties."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import memory_design as oracle

import perfmodel as pm
import search
from search import ExpertRequest, Request, cli
from search.memory import compute_of, gradient, memory_prices, mix_s, own_tiers, prepared, request_s

LANGUAGE = Request("gpt2", prompt=256, new_tokens=32, batch=2)
EXPERTS = ExpertRequest("gpt2", experts=60, popularity=0.8, prompt=64, new_tokens=16, batch=3, weight=2.0)


@pytest.fixture(scope="module")
def system():
    return pm.systems.load("sn40l")


@pytest.fixture(scope="module")
def compute(system):
    return compute_of(system)


@pytest.fixture(scope="module")
def points():
    return [prepared(LANGUAGE), prepared(EXPERTS)]


@pytest.fixture(scope="module")
def exact(points, compute):
    return jax.jit(lambda x: mix_s(x, points, compute))


def some_tiers(n, seed=0):
    """Six parameters each, from too little of everything to more than enough; every tier is faster than the next."""
    rng = np.random.default_rng(seed)
    return np.stack([np.exp(rng.uniform(np.log(low), np.log(high), n)) for low, high in (
        (1e6, 1e9), (1e9, 3e10), (1e11, 3e11), (1e13, 4e14), (3e11, 4e12), (3e10, 2e11))], axis=1)  # fmt: skip


def test_latency_is_that_of_the_plain_walk(compute, points, x64):
    ours = jax.jit(lambda x: jnp.stack([request_s(x, point, compute) for point in points]))
    machine = dict(
        macs_per_s=compute.macs_per_s,
        unit=compute.unit,
        outside_bytes_per_s=compute.outside_bytes_per_s,
        most=compute.most,
    )
    for x in some_tiers(6):
        want = [oracle.request_s(x, point.request, **machine) for point in points]
        np.testing.assert_allclose(ours(x), want, rtol=1e-6)


def test_smooth_is_above_exact_and_close(compute, points, exact, x64):
    smooth = jax.jit(lambda x: mix_s(x, points, compute, 0.02, True))
    for x in some_tiers(5, 1):
        assert float(exact(x)) * (1 - 1e-9) <= float(smooth(x)) <= float(exact(x)) * (3 * 2) ** 0.02


def test_gradient_is_central_differences(compute, points, x64):
    smooth = jax.jit(lambda x: mix_s(x, points, compute, 0.2, True))
    sloped = jax.jit(lambda x: gradient(x, points, compute, 0.2))
    for x in some_tiers(4, 2):
        slope = np.asarray(sloped(x))
        for i in range(6):
            step = np.zeros(6)
            step[i] = 1e-6 * x[i]
            up, down = (float(smooth(x + sign * step)) for sign in (1, -1))
            assert slope[i] * x[i] == pytest.approx((up - down) / 2e-6, rel=2e-4, abs=1e-9 * up / 1e-6)


def test_more_memory_is_never_slower_nor_is_more_bandwidth(exact, x64):
    for x in some_tiers(6, 3):
        before = float(exact(x))
        for i in range(6):
            more = x * np.where(np.arange(6) == i, 1.3, 1.0)
            assert float(exact(more)) <= before * (1 + 1e-9)


def test_jit_and_vmap_agree(compute, points, exact):
    x = jnp.asarray(some_tiers(5, 4))
    loop = [float(exact(row)) for row in x]
    assert loop[0] == pytest.approx(float(mix_s(x[0], points, compute)), rel=1e-4)  # not compiled
    np.testing.assert_allclose(jax.jit(jax.vmap(exact))(x), loop, rtol=1e-4)


@pytest.fixture(scope="module")
def design(system):
    return search.design_memory(
        system, [LANGUAGE, EXPERTS], budget_usd=150.0, front=(0.3, 1.0, 3.0), steps=300, starts=4
    )


def test_no_division_of_the_budget_is_better(system, exact, design):
    costs = memory_prices(system).usd()
    grid = np.concatenate([oracle.divisions(6, 14), oracle.divisions(6, 40)[::101]]) * 150.0 / costs
    latency = np.asarray(jax.jit(jax.vmap(exact))(jnp.asarray(grid)))
    assert len(grid) > 5000 and design.latency_s <= latency.min() * 1.0005
    assert design.latency_s > 0.7 * latency.min()  # a grid so fine is near


def test_budget_is_spent_and_shared_out_evenly(design):
    assert design.usd == pytest.approx(150.0, rel=1e-5) and np.sum(design.shares) == pytest.approx(1.0, rel=1e-5)


def test_no_money_is_better_spent_elsewhere(design, system, exact, x64):
    costs = memory_prices(system).usd()
    best = float(exact(design.shares * 150.0 / costs))
    for give, take in itertools.permutations(range(6), 2):
        coin = min(0.01, 0.5 * design.shares[give])
        moved = design.shares + coin * (np.eye(6)[take] - np.eye(6)[give])
        assert float(exact(moved * 150.0 / costs)) > best * (1 - 2e-3)


def test_marginal_values_predict(design, compute, points, x64):
    x = np.concatenate([design.capacity_bytes, design.bytes_per_s])
    compiled = jax.jit(lambda y: mix_s(y, points, compute, 0.01, True))
    smooth = [float(compiled(y)) for y in (x, x + np.eye(6)[1] * 1e6)]
    assert smooth[1] - smooth[0] == pytest.approx(design.marginal_s_per_gb[1] * 1e-3, rel=0.05)


def test_front_falls_and_holds_the_design(design):
    assert np.all(np.diff(design.front_latency_s) < 0)
    assert design.front_latency_s[1] == pytest.approx(design.latency_s, rel=0.01)
    assert design.latency_s < design.own_latency_s or design.own_usd > 150.0


@pytest.mark.slow
def test_budget_of_power(system):
    design = search.design_memory(system, [LANGUAGE], budget_w=100.0, front=(1.0,), steps=60, starts=2)
    assert design.unit == "w" and design.power_w == pytest.approx(100.0, rel=1e-5)


def test_prices_by_hand(system):
    prices = memory_prices(system)
    # 64 GiB at 9 USD/GB; a stack of 16 GB at 819 GB/s costs Gemini's 320 USD
    assert prices.usd_per_byte[1] * 16e9 + prices.usd_per_bytes_per_s[1] * 819e9 == pytest.approx(320.0)
    assert prices.w_per_bytes_per_s[1] == pytest.approx(4e-12 * 8)
    assert np.all(np.diff(prices.usd_per_byte) < 0) and np.all(prices.w() > 0)


def test_own_tiers(system):
    own = own_tiers(system)
    assert own[1] == 64 * 2**30 and own[4] == 1.8e12 and own[5] == 200e9 and own[0] == 520 * 2**20


@pytest.mark.parametrize("change, said", [
    (dict(mix=[]), "mix is empty"), (dict(budget_usd=-1.0), "budget_usd is -1.0"), (dict(budget_usd=1.0, budget_w=1.0), "both"),
    (dict(mix=[Request("gpt2", batch=0)]), "batch is 0"), (dict(mix=[ExpertRequest("gpt2", 0)]), "experts is 0"),
    (dict(mix=[Request("gpt9")]), "gpt9"), (dict(front=(0.0,)), "front is"),
])  # fmt: skip
def test_bad_input(system, change, said):
    given = dict(mix=[LANGUAGE]) | change
    with pytest.raises(ValueError, match=said):
        search.design_memory(system, given.pop("mix"), **given)


COMMAND = ["memory-design", "--system", "sn40l", "--steps", "20", "--starts", "2", "--budget-usd", "150"]


@pytest.mark.slow
def test_command(tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        cli.main([*COMMAND, "--request", "gpt2,prompt=64,batch=2", "--experts", "gpt2,experts=9", "--out", str(out)])
        == 0
    )
    assert "mean latency" in capsys.readouterr().out and {p.name for p in out.iterdir()} == {
        "memory.json",
        "memory.png",
    }


@pytest.mark.parametrize("bad, said", [
    (["--request", "gpt2,prompts=3"], "prompts"), (["--experts", "gpt2"], "experts is missing"), ([], "nothing to serve"),
    (["--request", "gpt2,batch=x"], "batch is 'x'"), (["--request", "gpt2,batch=0"], "batch is 0"),
])  # fmt: skip
def test_command_refuses(capsys, bad, said):
    assert cli.main([*COMMAND, *bad]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
