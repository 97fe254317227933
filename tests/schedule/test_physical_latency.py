"""A pass is never faster than its busiest resource: transfers that run at the same time share memory, links and ports."""

import equinox as eqx
import numpy as np
import pytest
from oracles.event_simulation import Costs, simulate_latency
from random_cases import assignment, graph, package

import perfmodel as pm
from perfmodel.workload import GraphBuilder, operator_row


def products(n):
    """`n` independent products of 33.5 MB of weights each, for one row."""
    made = GraphBuilder("products")
    for i in range(n):
        made.add(f"product{i}", operator_row("gemm", k=8192, c=4096, p=1), [], outside_bytes=4096.0)
    return made.build()


def test_four_loads_share_one_memory(mcm):
    """Four times 33.5 MB at 8 GB/s take 16.8 ms, on however many chiplets they are needed."""
    rate = np.asarray([8e9])
    stationary = mcm.with_types(["ws"] * 4)  # whose arrays take less than their weights
    slow = eqx.tree_at(lambda s: (s.memory.bytes_per_s, s.memory.write_bytes_per_s), stationary, (rate, rate))
    four = products(4)
    m = pm.evaluate(four, slow, pm.Schedule(np.arange(4, dtype=np.int32)))
    loads = 4 * 8192 * 4096 / 8e9
    np.testing.assert_allclose(loads, 16.777e-3, rtol=1e-4)
    assert loads < float(m.latency_s) < 1.02 * loads
    one = pm.evaluate(products(1), slow, pm.Schedule(np.zeros(1, np.int32)))
    assert loads / 4 < float(one.latency_s) < 1.03 * loads / 4


def test_two_results_out_of_one_port(mcm, x64):
    """Two results of 1 MB are sent at once: the second arrives when the port has sent both."""
    made = GraphBuilder("fan")
    size = dict(k=1024, p=32, q=32)
    source = made.add("source", operator_row("relu", **size), [], outside_bytes=1.0)
    for i in range(2):
        made.add(f"reader{i}", operator_row("relu", **size), [source])
    two = made.build()
    narrow = eqx.tree_at(
        lambda s: (s.package.port_bytes_per_s, s.package.link_bytes_per_s), mcm, (np.float64(1e9), np.float64(1e12))
    )
    apart = pm.evaluate(two, narrow, pm.Schedule(np.asarray([0, 1, 2], np.int32)))
    alone = pm.evaluate(two, narrow, pm.Schedule(np.asarray([0, 1, 0], np.int32)))
    np.testing.assert_allclose(float(apart.latency_s) - float(alone.latency_s), 2**20 / 1e9, rtol=0.05)


@pytest.mark.parametrize("seed", range(12))
def test_never_below_the_busiest_resource(mcm, seed):
    rng = np.random.default_rng(seed)
    workload, system = graph(rng), package(rng, mcm)
    many = np.stack([assignment(rng, workload.n_operators, 4) for _ in range(5)])
    for where in many:
        for warm in (True, False):
            m = pm.evaluate(workload, system, pm.Schedule(where), warm=warm)
            assert float(m.latency_s) >= float(np.max(m.busy_s)) * (1 - 1e-5)


def test_cold_weights_take_their_time(resnet50, mcm):
    """What stays in buffers has to come there once: a cold pass is later by no more than those bytes take, and by some of them."""
    roomy = eqx.tree_at(lambda s: s.chiplets.buffer_bytes, mcm, mcm.chiplets.buffer_bytes * 100)
    schedule = pm.Schedule.on_chiplet(resnet50, 0)
    warm, cold = (pm.evaluate(resnet50, roomy, schedule, warm=w) for w in (True, False))
    assert float(warm.resident[0]) == 1
    late = float(cold.latency_s) - float(warm.latency_s)
    assert 0 < late <= resnet50.weight_bytes / float(mcm.memory.bytes_per_s[0]) + resnet50.n_operators * 2e-6
    assert float(warm.throughput_per_s) == float(cold.throughput_per_s)


@pytest.mark.parametrize("seed", range(3))
def test_close_to_the_event_simulation(mcm, seed):
    """In the median over schedules of branching graphs; the worst are in benchmarks/results/latency_accuracy.json."""
    rng, errors = np.random.default_rng(100 + seed), []
    for _ in range(5):
        workload, system = graph(rng), package(rng, mcm)
        table = pm.cost_table(workload, system)
        if float(np.max(table.working_bytes)) > float(np.min(system.chiplets.buffer_bytes)):
            continue
        where = assignment(rng, workload.n_operators, 4)
        simulated = simulate_latency(workload, system, where, Costs.of(table)).time_s
        errors.append(
            abs(float(pm.evaluate(workload, system, pm.Schedule(where), table=table).latency_s) / simulated - 1)
        )
    assert np.median(errors) < 0.1
