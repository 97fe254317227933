"""A grid of points in one call: each is the point alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.cost import formats, machine, stack_formats
from perfmodel.models import decoder
from perfmodel.serving import Point, serve, sweep

OF = machine(pm.systems.load("dgx-h100"))
KINDS = [formats(OF, *each)[0] for each in (("bf16", None), ("bf16", "int4"), ("fp8", None))]
GRID = dict(
    parallel=np.asarray([[1.0, 1, 1, 1], [4, 2, 1, 1], [2, 1, 1, 4]]),
    batch=np.asarray([1.0, 5, 16]),
    context=np.asarray([128.0, 1000, 4096, 9000]),
)


def test_every_point_is_the_point_alone():
    model = decoder("llama-3-8b")
    found = sweep(OF, model, formats=stack_formats(KINDS), figures=("tpot_s", "fits", "mbu"), **GRID)
    assert {name: x.shape for name, x in found.items()} == dict.fromkeys(("tpot_s", "fits", "mbu"), (3, 3, 3, 4))
    alone = jax.jit(lambda formed, at: serve(OF, model, formed, at, phase="decode"))
    for f, p, b, c in ((0, 0, 0, 0), (1, 1, 2, 3), (2, 2, 1, 2), (0, 2, 2, 1)):
        degrees = dict(zip(("tensor", "pipeline", "expert", "data"), GRID["parallel"][p], strict=True))
        at = Point(*map(jnp.asarray, map(float, Point())))._replace(
            batch=GRID["batch"][b], context=GRID["context"][c], **degrees
        )
        one = alone(jax.tree.map(lambda x: jnp.asarray(x, float), KINDS[f]), at)
        for name, grid in found.items():
            np.testing.assert_allclose(float(grid[f, p, b, c]), float(getattr(one, name)), rtol=1e-5)


def test_bad_sweeps_are_one_line():
    with pytest.raises(ValueError, match="figure is 'speed'"):
        sweep(OF, decoder("gpt2"), formats=stack_formats(KINDS), figures=("speed",), **GRID)
    with pytest.raises(ValueError, match="rows of 4"):
        sweep(OF, decoder("gpt2"), formats=stack_formats(KINDS), **(GRID | {"parallel": np.ones(3)}))
