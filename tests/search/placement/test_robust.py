"""Robust placement by enumeration on small problems, its price, and re-placement after a loss."""

from dataclasses import replace

import numpy as np
import pytest
from oracles.placement_brute_force import orders, placements, small_problem
from oracles.placement_problems import problem

from search.placement import Infeasible, makespan, timeline
from search.placement.methods import Price, price_of_robustness, replace_after_loss, robust, without
from search.placement.methods.search import search


def best_of_all(p) -> float:
    return min(makespan(p, a, b) for a in placements(p) for b in orders(p))


def test_factors_drawn_are_what_was_asked_for():
    p = small_problem(0)
    p = robust(replace(p, congestion=False), samples=4000, spread=0.4, key=3)
    d, off = p.n_devices, ~np.eye(p.n_devices, dtype=bool)
    assert p.factors.shape == (4000, d, d) and (p.factors[:, ~off] == 1).all()
    assert np.array_equal(p.factors, p.factors.swapaxes(1, 2))
    assert np.log(p.factors[:, off]).std() == pytest.approx(0.4, rel=0.05)
    assert np.median(p.factors[:, off]) == pytest.approx(1.0, abs=0.05)
    flat = robust(p, 500, 0.25, distribution="uniform", symmetric=False, worst_case=True)
    assert flat.worst_case and 0.75 <= flat.factors.min() and flat.factors.max() <= 1.25
    assert not np.array_equal(flat.factors, flat.factors.swapaxes(1, 2))
    assert np.array_equal(robust(p, 3, key=1).factors, robust(p, 3, key=1).factors)


def test_bad_uncertainty_is_refused():
    p = small_problem(0)
    with pytest.raises(ValueError, match="distribution is 'normal'; allowed: lognormal, uniform"):
        robust(p, distribution="normal")
    for wrong in (dict(samples=0), dict(spread=-1.0), dict(spread=1.0, distribution="uniform")):
        with pytest.raises(ValueError, match="allowed"):
            robust(p, **wrong)


@pytest.mark.parametrize("worst", [False, True])
def test_robust_search_is_the_optimum_of_enumeration(worst):
    for seed in (0, 2, 4):
        p = robust(small_problem(seed), samples=5, spread=0.6, worst_case=worst, key=seed)
        placement, order, _ = search(p, seed=0, rounds=6)
        assert makespan(p, placement, order) == pytest.approx(best_of_all(p), rel=1e-9)


def test_price_by_hand():
    """Two tasks of 4, then a join of 1: apart saves 4 - 2 = 2 nominally; a link 3 times slower makes staying together better."""
    p = problem([[4.0, 4.0], [4, 4], [1, 1]], [(0, 2, 2.0), (1, 2, 2.0)])
    slow = np.ones((2, 2, 2))
    slow[1] = [[1, 3], [3, 1]]
    uncertain = replace(p, link_factors=slow, worst_case=True)
    price, *_ = price_of_robustness(p, uncertain, rounds=2)
    assert price == Price(7.0, 11.0, 9.0, 9.0)
    assert price.price == pytest.approx(2 / 7) and price.gain == pytest.approx(2 / 11)


def test_expected_never_exceeds_worst_and_more_spread_costs_more():
    p = small_problem(1)
    mean = [best_of_all(robust(p, 6, s, key=0, distribution="uniform")) for s in (0.0, 0.5)]
    worst = [best_of_all(robust(p, 6, s, worst_case=True, key=0, distribution="uniform")) for s in (0.0, 0.5)]
    assert mean[0] == worst[0] == best_of_all(p)
    assert mean[1] <= worst[1] + 1e-9


def line_of(n: int = 60, d: int = 3):
    rng = np.random.default_rng(0)
    edges = [
        (int(i), j, float(rng.uniform(0, 2))) for j in range(1, n) for i in rng.choice(j, min(j, 2), replace=False)
    ]
    return problem(rng.uniform(1, 4, (n, d)), edges, memory=np.ones(n), capacity=np.full(d, 0.6 * n))


@pytest.mark.slow
def test_a_lost_device_is_left_and_the_rest_kept_or_bettered():
    p = line_of()
    placement, order, _ = search(p, seed=0, rounds=1)
    for device in range(p.n_devices):
        found, again, info = replace_after_loss(p, placement, order, device, time_limit_s=0.3)
        assert not (found == device).any() and p.excess_bytes(found) == 0
        assert timeline(p, found, again).makespan <= info["patched"]
        cut = p.without_device(device)  # the same placement, renumbered, in the problem that has one device less
        assert timeline(cut, found - (found > device), again).makespan == pytest.approx(makespan(p, found, again))


def test_a_loss_that_cannot_be_borne_is_refused():
    p = line_of()
    placement, order, _ = search(p, seed=0, rounds=1)
    with pytest.raises(ValueError, match="device is 7; allowed: 0 to 2"):
        replace_after_loss(p, placement, order, 7)
    tight = replace(p, capacity_bytes=np.full(3, 25.0))
    with pytest.raises(Infeasible, match="bytes"):
        replace_after_loss(tight, placement, order, 0)
    times = p.times.copy()
    times[4, 1:] = np.inf
    with pytest.raises(Infeasible, match="task t4 runs on d0 only"):
        without(replace(p, times=times), 0)
