"""Some jaxlib releases silently return wrong numbers on CPU at odd batch sizes (jax-ml/jax#39103): fail loudly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

CASES = {
    "sum": (jnp.sum, lambda y: y.sum(1)),
    "max": (jnp.max, lambda y: y.max(1)),
    "sumsq": (lambda y: jnp.sum(y**2), lambda y: (y**2).sum(1)),
}


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize("batch", [32769, 33000, 40001])
@pytest.mark.parametrize("name", CASES)
def test_small_matvec_then_reduce_is_right(batch, name, outputs):
    reduce, reduce_rows = CASES[name]
    rng = np.random.default_rng(0)
    a, x = rng.random((outputs, 3), "f4"), rng.random((batch, 3), "f4")
    got = jax.jit(jax.vmap(lambda v: reduce(jnp.asarray(a) @ v)))(x)
    np.testing.assert_allclose(got, reduce_rows(x.astype("f8") @ a.astype("f8").T), rtol=1e-4)
