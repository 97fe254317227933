"""A point of every grid against the same point alone."""

import jax
import jax.numpy as jnp
import numpy as np

import perfmodel as pm
from perfmodel.cost import formats, machine, stack_formats
from perfmodel.models import decoder
from perfmodel.schedule import evaluate_many
from perfmodel.serving import sweep
from perfmodel.workload import lower


def test_a_grid_of_serving(latency, loaded, agree):
    system = pm.systems.load("a100-80gb")
    of = machine(system)
    two = stack_formats([formats(of, kind)[0] for kind in ("bf16", "fp8")])
    grid = sweep(of, decoder("gpt2"), formats=two, parallel=jnp.ones((1, 4)), batch=jnp.asarray([1.0, 2.0, 8.0]),
                 context=jnp.asarray([64.0, 300.0]), figures=("tpot_s",))["tpot_s"]  # fmt: skip
    for f, kind in enumerate(("bf16", "fp8")):
        for b, batch in enumerate((1, 2, 8)):
            for c, context in enumerate((64, 300)):
                plain = latency(loaded("gpt2", "decode", batch, context, dtype=kind), system)
                agree(float(grid[f, 0, b, c]), plain)


def test_a_batch_of_schedules(agree):
    system, workload = (
        pm.systems.load("mcm-2x2"),
        lower(pm.models.load("gpt2", seq_len=64), pm.systems.load("mcm-2x2").software),
    )
    where = np.random.default_rng(0).integers(0, 4, (5, workload.n_operators)).astype(np.int32)
    schedules = jax.vmap(lambda a: pm.Schedule(a, sub_batch=jnp.ones(())))(jnp.asarray(where))
    many = evaluate_many(workload, system, schedules)
    for i, each in enumerate(where):
        agree(float(many.latency_s[i]), float(pm.evaluate(workload, system, pm.Schedule(each)).latency_s))
