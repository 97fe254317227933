"""One program for all that are alike: what compiles, what does not, and that the answers are the same."""

import os
import subprocess
import sys
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_cases import assignment, graph, package

import perfmodel as pm
from perfmodel.schedule import evaluate_one
from perfmodel.workload import fill_up, round_size

_COMPILED = [0]
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: _COMPILED.__setitem__(
        0, _COMPILED[0] + (event == "/jax/core/compile/backend_compile_duration")
    )
)


def programs(call):
    before = _COMPILED[0]
    jax.block_until_ready(jax.tree.leaves(eqx.filter(call(), eqx.is_array)))
    return _COMPILED[0] - before


def renamed(system, i):
    return replace(
        system, name=f"other{i}", chiplet_names=tuple(f"x{i}{d}" for d in range(system.n_chiplets)),
        type_names=tuple(f"t{i}{k}" for k in range(len(system.type_names))),
        memory=replace(system.memory, names=tuple(f"m{i}{t}" for t in range(system.memory.n_tiers))),
        package=replace(system.package, link_names=tuple(f"l{i}{k}" for k in range(len(system.package.link_names)))),
    )  # fmt: skip


def test_names_and_numbers_compile_nothing(tiny, mcm):
    schedule = pm.Schedule(np.arange(tiny.n_operators, dtype=np.int32) % 4)
    want = pm.evaluate(tiny, mcm, schedule)
    pm.cost_table(tiny, mcm)
    other = replace(tiny, names=tuple(f"n{i}" for i in range(tiny.n_operators)), model_names=("another",))
    for i in range(5):
        faster = eqx.tree_at(lambda s: s.chiplets.clock_hz, renamed(mcm, i), mcm.chiplets.clock_hz * (1 + i))
        got = {}
        assert programs(lambda faster=faster, got=got: got.setdefault("m", pm.evaluate(other, faster, schedule))) == 0
        assert programs(lambda faster=faster: pm.cost_table(other, faster)) == 0
        if i == 0:
            for a, b in zip(jax.tree.leaves(got["m"]), jax.tree.leaves(want), strict=True):
                np.testing.assert_array_equal(a, b)


def test_another_model_of_the_same_size_compiles_nothing(mcm):
    rng = np.random.default_rng(0)

    def sizes(w):
        return w.n_operators, len(w.source), w.inputs.shape[1], w.n_slots

    seen = set()
    for _ in range(25):
        workload = graph(rng, 20, 26)
        new = programs(lambda w=workload: pm.evaluate(w, mcm, pm.Schedule.on_chiplet(w, 1)))
        assert new == 0 or sizes(fill_up(workload)) not in seen
        seen.add(sizes(fill_up(workload)))
    assert len(seen) < 10


@pytest.mark.slow
def test_few_programs_for_the_zoo():
    """53 models on three systems: a program for each of 39 round sizes, not for each model."""
    total = 0
    for name in ("mcm-2x2", "a100-80gb", "eyeriss"):
        system = pm.systems.load(name)
        for model in pm.models.names():
            workload = pm.models.load(model)
            total += programs(lambda w=workload, s=system: pm.evaluate(w, s, pm.Schedule.on_chiplet(w, 0)))
    assert total <= 3 * 40 + 8, total  # 39 round sizes, and what asks XLA for its options


@pytest.mark.parametrize("seed", range(4))
def test_filling_up_changes_no_bit(mcm, seed):
    rng = np.random.default_rng(seed)
    workload, system = graph(rng), package(rng, mcm)
    schedule = pm.Schedule(assignment(rng, workload.n_operators, 4), order=np.arange(workload.n_operators), n_windows=1)
    filled = fill_up(replace(workload, count=np.ones(workload.n_operators)))
    more = fill_up(eqx.tree_at(lambda w: w.count, _longer(filled), _longer(filled).count))
    found = []
    for w in (filled, more):
        assignment_ = np.pad(schedule.assignment, (0, w.n_operators - workload.n_operators), mode="edge")
        order = np.arange(w.n_operators)
        longer = pm.Schedule(assignment_, order=order)
        found.append(_one(w, system, longer, pm.cost_table(w, system)))
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    plain = _one(workload, system, schedule, pm.cost_table(workload, system))
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-6)


def _longer(workload):
    """One row of nothing beyond a round size, so that filling up reaches for the next."""
    n = round_size(workload.n_operators) + 1
    grown = workload
    rows = n - workload.n_operators

    def pad(x):
        x = np.asarray(x)
        return (
            np.concatenate([x, np.repeat(x[-1:], rows, axis=0)]) if x.ndim and x.shape[0] == workload.n_operators else x
        )

    edges = ("source", "target", "edge_bytes", "rate", "batch", "kv_bytes_per_token", "kv_tokens", "state_bytes")
    kept = {name: getattr(workload, name) for name in edges}
    grown = replace(jax.tree.map(pad, workload), **kept)
    last = np.r_[np.zeros(workload.n_operators, bool), np.ones(rows, bool)]
    nothing = {
        name: np.where(last, 0.0, getattr(grown, name))
        for name in ("outside_in_bytes", "outside_out_bytes", "hold_bytes", "live_bytes", "count")
    }
    return replace(
        grown, **nothing, slot=np.where(last, -1, grown.slot), first=grown.first & ~last,
        inputs=np.where(last[:, None], -1, grown.inputs), input_slot=np.where(last[:, None], -1, grown.input_slot),
        input_bytes=np.where(last[:, None], 0.0, grown.input_bytes), input_last=grown.input_last & ~last[:, None],
        source=np.where(grown.source >= workload.n_operators, n, grown.source),
        target=np.where(grown.target >= workload.n_operators, n, grown.target),
    )  # fmt: skip


@jax.jit
def _jitted(workload, system, schedule, table):
    return evaluate_one(workload, system, schedule, table, False, 0.05)[0]


def _one(workload, system, schedule, table):
    from perfmodel.cost import unnamed, unnamed_system

    return _jitted(unnamed(workload), unnamed_system(system), schedule, table)


# ---------------------------------------------------------------------------------------------------------- transformations


@pytest.fixture(scope="module")
def parts(tiny, mcm):
    return tiny, mcm, np.arange(tiny.n_operators, dtype=np.int32) % 4


def one(parts, clock, where=None):
    """Log of energy times latency at other clocks."""
    tiny, mcm, schedule = parts
    system = eqx.tree_at(lambda s: s.chiplets.clock_hz, mcm, clock)
    m = pm.evaluate(tiny, system, pm.Schedule(schedule if where is None else where))
    return jnp.log(m.edp_js)


def many(parts, clock):
    """The same through the batched evaluator, of three schedules."""
    tiny, mcm, schedule = parts
    system = eqx.tree_at(lambda s: s.chiplets.clock_hz, mcm, clock)
    wheres = jnp.stack(
        [jnp.asarray(schedule, jnp.int8), jnp.asarray(schedule[::-1], jnp.int8), jnp.zeros(len(schedule), jnp.int8)]
    )
    return jnp.log(pm.evaluate_many(tiny, system, pm.Schedule(wheres)).edp_js)[0]


@pytest.mark.parametrize("function", [one, pytest.param(many, marks=pytest.mark.slow)])
def test_composes_with_everything(parts, function):
    clock = jnp.asarray(parts[1].chiplets.clock_hz, float)
    plain = function(parts, clock)
    of = lambda c: function(parts, c)  # noqa: E731
    close = lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-5, atol=1e-7)  # noqa: E731
    slope = jax.jit(jax.grad(of))(clock)
    assert np.all(np.isfinite(slope)) and np.any(np.asarray(slope) != 0)
    close(jax.jit(of)(clock), plain)
    close(jax.grad(of)(clock) * clock, slope * clock)
    value, again = jax.value_and_grad(of)(clock)
    close(value, plain)
    close(again * clock, slope * clock)
    close(jax.vmap(of)(jnp.stack([clock, clock, clock]))[1], plain)
    close(jax.lax.scan(lambda c, x: (c, of(x)), 0.0, jnp.stack([clock, clock]))[1][1], plain)
    close(jax.grad(jax.checkpoint(of))(clock) * clock, slope * clock)
    close(eqx.filter_jit(of)(clock), plain)


_SHARDED = """
import jax, jax.numpy as jnp, numpy as np, equinox as eqx
from jax.sharding import Mesh, PartitionSpec as P
import perfmodel as pm
from perfmodel.workload import GraphBuilder, operator_row
g = GraphBuilder("two")
a = g.add("a", operator_row("gemm", k=64, c=64, p=64), [], outside_bytes=4096.0)
g.add("b", operator_row("relu", k=64, p=64), [a])
w, s = g.build(), pm.systems.load("monolithic-os")
def one(c):
    system = eqx.tree_at(lambda s: s.chiplets.clock_hz, s, c)
    return pm.evaluate(w, system, pm.Schedule.on_chiplet(w, 0)).latency_s
assert len(jax.devices()) == 2
clocks = jnp.asarray([[5e8], [1e9]])
mesh = Mesh(np.asarray(jax.devices()), ("d",))
spread = jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=P("d"), out_specs=P("d"))(clocks)
np.testing.assert_allclose(spread, jnp.stack([one(c) for c in clocks]), rtol=1e-6)
"""


@pytest.mark.slow
def test_composes_with_shard_map_sample():
    """Over two simulated devices, which a process has to know of from its start."""
    flags = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", _SHARDED], check=True, env=flags)
