"""Dominance, crowding, hypervolume: against brute force and pymoo."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import search
from search import crowding


def brute_ranks(costs):
    rank, left, level = np.full(len(costs), -1), set(range(len(costs))), 0
    while left:
        front = [i for i in left if not any(np.all(costs[j] <= costs[i]) and np.any(costs[j] < costs[i]) for j in left)]
        for i in front:
            rank[i] = level
        left -= set(front)
        level += 1
    return rank


@given(st.integers(0, 1000), st.integers(2, 3))
def test_ranks_equal_brute_force(seed, m):
    costs = np.random.default_rng(seed).integers(0, 6, (13, m)).astype("f4")
    np.testing.assert_array_equal(search.ranks(jnp.asarray(costs)), brute_ranks(costs))
    front = costs[search.front_of(costs)]
    assert {tuple(p) for p in front} == {tuple(p) for p in costs[brute_ranks(costs) == 0]} and len(front) == len(
        {tuple(p) for p in front}
    )


def test_crowding_by_hand():
    costs = jnp.asarray([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0], [9.0, 9.0]])
    got = np.asarray(crowding(costs, jnp.asarray([0, 0, 0, 1])))
    assert np.isinf(got[[0, 2, 3]]).all()
    np.testing.assert_allclose(got[1], 4 / 9 + 4 / 9, rtol=1e-6)


def test_hypervolume_by_hand_and_pymoo():
    assert search.hypervolume(np.array([[1.0, 3.0], [2.0, 1.0], [5.0, 0.0]]), np.array([4.0, 4.0])) == 3 * 1 + 2 * 2
    assert search.hypervolume(np.array([[5.0, 5.0]]), np.array([4.0, 4.0])) == 0.0
    hv = pytest.importorskip("pymoo.indicators.hv")
    for seed in range(5):
        points = np.random.default_rng(seed).random((23, 2))
        assert search.hypervolume(points, np.array([0.9, 0.8])) == pytest.approx(
            hv.HV(ref_point=np.array([0.9, 0.8]))(points)
        )
    with pytest.raises(ValueError, match="2 objectives"):
        search.hypervolume(np.zeros((3, 3)), np.ones(3))
