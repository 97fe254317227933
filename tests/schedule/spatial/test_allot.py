import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.spatial_brute_force import best_slowest

from perfmodel.schedule.spatial import allot, water_fill

works = st.lists(st.floats(0.05, 20.0), min_size=1, max_size=4)


@given(works, st.integers(1, 9))
@pytest.mark.slow
def test_whole_units_equal_enumeration(work, units):
    work = np.asarray(work, np.float32)
    got = np.asarray(allot(jnp.asarray(work), float(units)))
    if units < len(work):
        assert np.all(got == 0)
        return
    assert got.sum() <= units and np.all(got >= 1) and np.all(got == np.round(got))
    assert np.max(work / got) == pytest.approx(best_slowest(work, units), rel=2e-6)


def test_by_hand():
    # two of 262.144, one of 32.768 and of 40.96 on 16 units: 7, 1, 7, 1 and 40.96; a seventh more or less is worse
    work = jnp.asarray([262.144, 32.768, 262.144, 40.96])
    assert np.asarray(allot(work, 16.0)).tolist() == [7, 1, 7, 1]
    # 598.016 / 16 is more than the 32.768 of a stage that has one unit: the others share 15
    assert float(water_fill(work, 16.0)) == pytest.approx((598.016 - 32.768) / 15)
    # a stage that cannot use a whole unit takes one all the same: (16 - 1) units for the others
    assert float(water_fill(jnp.asarray([30.0, 45.0, 1.0]), 16.0)) == pytest.approx(75.0 / 15)


def test_stages_without_work_get_none_and_too_many_stages_nothing():
    assert np.asarray(allot(jnp.asarray([0.0, 3.0, 0.0]), 5.0)).tolist() == [0, 5, 0]
    assert np.asarray(allot(jnp.asarray([1.0, 1.0, 1.0]), 2.0)).tolist() == [0, 0, 0]
    assert float(water_fill(jnp.zeros(3), 2.0)) == 0.0


@given(works, st.integers(4, 40))
def test_divisible_optimum_bounds_the_whole_one(work, units):
    work = jnp.asarray(np.asarray(work, np.float32))
    least = float(water_fill(work, float(units)))
    shares = np.asarray(allot(work, float(units), smooth=True))
    assert shares.sum() == pytest.approx(units, rel=1e-5)
    whole = float(jnp.max(work / allot(work, float(units))))
    assert least * (1 - 1e-6) <= whole <= 2 * least * (1 + 1e-6)


def test_gradient_of_the_divisible_optimum(x64):
    work, units = jnp.asarray([30.0, 45.0, 1.0, 0.0]), 16.0
    of_work, of_units = jax.grad(water_fill, (0, 1))(work, units)
    for i in range(4):
        step = np.zeros(4)
        step[i] = 1e-5
        if i != 3:  # a stage begins to exist: a corner
            wanted = (water_fill(work + step, units) - water_fill(work - step, units)) / 2e-5
            assert float(of_work[i]) == pytest.approx(float(wanted), rel=1e-6, abs=1e-9)
    wanted = (water_fill(work, units + 1e-5) - water_fill(work, units - 1e-5)) / 2e-5
    assert float(of_units) == pytest.approx(float(wanted), rel=1e-6)
    assert np.all(np.isfinite(jax.grad(lambda w: water_fill(w, units))(jnp.zeros(4))))


def test_jit_and_vmap(key):
    work = jax.random.uniform(key, (7, 5))
    one = np.stack([np.asarray(allot(w, 23.0)) for w in work])
    assert np.array_equal(np.asarray(jax.jit(jax.vmap(lambda w: allot(w, 23.0)))(work)), one)
