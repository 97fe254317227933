"""The batched evaluator and a grid of a family lower for GPUs: no callback to the host, nothing in 64 bits, no gather by indices that
differ over candidates and operators."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm

BATCH = 4096
PLATFORMS = ("cuda", "rocm")


def text_of(function, *arguments, platform):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def assert_clean(text, *forbidden_shapes):
    assert "callback" not in text
    assert not re.search(r"tensor<[0-9x]*f64>", text)
    for line in text.splitlines():
        if "stablehlo.gather" in line or "stablehlo.dynamic_gather" in line:
            indices = (
                line.split(" : (")[-1].split("->")[0].split(", ")[-1]
            )  # those that are the same for all candidates do no harm
            assert not any(shape in indices for shape in forbidden_shapes), line.strip()[:300]


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("kernel", ["scan", "fused"])
def test_the_batched_evaluator_lowers(tiny, mcm, kernel, platform):
    table = pm.cost_table(tiny, mcm, by_type=True)
    n = tiny.n_operators

    def many(assignment, kinds):
        return pm.evaluate_many(tiny, mcm, pm.Schedule(assignment), table=table, kinds=kinds, kernel=kernel).latency_s

    some = jnp.zeros((BATCH, n), jnp.int8), jnp.zeros((BATCH, 4), jnp.int8)
    text = text_of(many, *some, platform=platform)
    assert_clean(text, f"{BATCH}x{n}x", f"{n}x{BATCH}x")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_grid_of_a_family_lowers(platform):
    at, system = pm.models.family("gpt2", phase="decode", fold=True), pm.systems.load("a100-80gb")
    schedule = pm.Schedule(np.zeros(at(1, 16).n_operators, np.int32))

    def grid(batch, context):
        return jax.vmap(lambda b, c: pm.evaluate(at(b, c), system, schedule).latency_s)(batch, context)

    text = text_of(grid, jnp.ones(BATCH), jnp.full(BATCH, 128.0), platform=platform)
    assert_clean(text, f"{BATCH}x{schedule.assignment.shape[0]}x")
