"""The event-driven simulation: checked by numbers worked out by hand, then used to judge `evaluate`."""

import equinox as eqx
import numpy as np
import pytest
from oracles.event_simulation import Costs, simulate_latency, simulate_throughput

import perfmodel as pm
from perfmodel.workload import GraphBuilder, operator_row

US, MS = 1e-6, 1e-3


def small_system(name="mcm-2x2", buffer=1e6):
    """1 GB/s everywhere (1000 bytes take 1 us), 1 us a hop, 10 us memory latency."""
    s = pm.systems.load(name)
    return eqx.tree_at(
        lambda s: (
            s.package.link_bytes_per_s, s.package.port_bytes_per_s, s.package.hop_s,
            s.memory.bytes_per_s, s.memory.latency_s, s.chiplets.buffer_bytes,
        ),
        s,
        (1e9, 1e9, 1 * US, np.array([1e9]), np.array([10 * US]), np.broadcast_to(buffer, s.n_chiplets).astype(float)),
    )  # fmt: skip


def chain(n=2, outside=0.0):
    """n operators in a row, 1000 bytes from each to the next, 1000 bytes out."""
    graph = GraphBuilder("chain")
    for i in range(n):
        row = operator_row("elementwise", k=1000, p=1)
        graph.add(f"op{i}", row, [i - 1] if i else [], outside_bytes=0.0 if i else outside)
    return graph.build()


def costs(exec_ms, weights=0.0, refetch=1.0):
    column = np.asarray(exec_ms, float)[:, None] * np.ones(9) * MS
    weight = np.broadcast_to(np.asarray(weights, float), len(column))[:, None] * np.ones(9)
    return Costs(column, np.full(column.shape, refetch), np.ones_like(column), weight, np.zeros_like(column))


def latency(workload, system, where, cost, **options):
    return simulate_latency(workload, system, np.asarray(where), cost, **options)


def close(value, wanted):
    assert value == pytest.approx(wanted, rel=1e-9)


OUT = 11 * US  # 1000 bytes to memory: 1 us + 10 us latency


def test_two_operators_on_one_chiplet():
    out = latency(chain(), small_system(), [0, 0], costs([1, 2]))
    close(out.time_s, 3 * MS + OUT)
    assert out.peak_bytes.tolist() == [1000, 0, 0, 0]
    close(out.busy[0] * out.time_s, 3 * MS)


@pytest.mark.parametrize("tiles", [1, 8])
def test_a_transfer_takes_bytes_over_bandwidth_and_hops(tiles):
    out = latency(chain(), small_system(), [0, 3], costs([1, 2]), tiles=tiles, least_tile_bytes=100.0)
    close(out.time_s, 3 * MS + 1 * US + 2 * US + OUT)  # two hops across the diagonal
    assert out.peak_bytes.tolist() == [1000, 0, 0, 1000]
    assert out.moved_bytes["network"] == 1000


def test_a_result_that_does_not_fit_is_spilled():
    out = latency(chain(), small_system(buffer=999), [0, 0], costs([1, 2], refetch=3.0))
    close(out.time_s, 3 * MS + OUT + 13 * US + OUT)  # written once, read three times (3 us + latency)
    assert out.moved_bytes["write_spill"] == 1000 and out.moved_bytes["read_input"] == 3000


def test_an_input_that_does_not_fit_goes_through_memory():
    out = latency(chain(), small_system(buffer=[1e6, 1e6, 1e6, 999]), [0, 3], costs([1, 2]))
    close(out.time_s, 3 * MS + OUT + OUT + OUT)
    assert out.moved_bytes["write_late"] == 1000 and out.moved_bytes["network"] == 0
    assert out.peak_bytes.tolist() == [1000, 0, 0, 0]


def test_weights_are_prefetched_one_operator_ahead():
    """First load from the start, second when the first operator starts; the third takes longer than the second."""
    system = small_system(buffer=1e6)  # too little for 2 MB of weights
    out = latency(chain(3), system, [0, 0, 0], costs([1, 1, 1], weights=[5000, 5000, 2e6]))
    assert not out.resident.any()
    first = 15 * US
    second = first + 1 * MS
    third = second + 2 * MS + 10 * US  # its load began when the second started
    close(out.time_s, third + 1 * MS + OUT)


def test_resident_weights_are_not_loaded():
    out = latency(chain(), small_system(buffer=8e3), [0, 0], costs([1, 2], weights=3000))
    assert out.resident.tolist() == [True, False, False, False]
    close(out.time_s, 3 * MS + OUT)
    assert out.peak_bytes[0] == 7000


def two_readers_from_outside():
    graph = GraphBuilder("pair")
    for i in range(2):
        graph.add(f"op{i}", operator_row("elementwise", k=1000, p=1), [], outside_bytes=131072.0)
    return graph.build()


def test_two_reads_share_the_memory_tile_by_tile():
    out = latency(two_readers_from_outside(), small_system(), [0, 1], costs([1, 1]), tiles=8)
    close(out.time_s, 262.144 * US + 10 * US + 1 * MS + OUT)  # the later one has waited for all bytes of both
    close(out.busy[-1] * out.time_s, (262.144 + 2) * US)


def test_memory_behind_links():
    """Chiplet 1 of mcm-3x3 reaches memory over chiplet 0: one hop there, one hop back."""
    system = small_system("mcm-3x3")
    out = latency(chain(1, outside=5000.0), system, [1], costs([1]))
    close(out.time_s, (5 + 10 + 1) * US + 1 * MS + (1 + 1 + 10) * US)
    names = dict(zip(system.resource_names, out.busy * out.time_s, strict=True))
    close(names["link c00->c10"], 5 * US)
    close(names["link c10->c00"], 1 * US)
    close(names["port out c00"], 5 * US)
    close(names["port in c10"], 5 * US)


@pytest.mark.parametrize("where, period", [([0, 0], 3 * MS), ([0, 1], 2 * MS)])
def test_period_of_a_pipeline_is_its_slowest_stage(where, period):
    out = simulate_throughput(chain(), small_system(), np.asarray(where), costs([1, 2]), rounds=20, measure=10)
    close(out.period_s, period)
    close(out.throughput_per_s[0], 1 / period)
    close(max(out.busy), 1.0)


def test_passes_in_flight_limit_the_period():
    """One pass at a time takes its latency every time; two of them overlap."""
    run = dict(rounds=20, measure=10)
    alone = simulate_throughput(chain(), small_system(), np.array([0, 1]), costs([1, 2]), in_flight=1, **run)
    close(alone.period_s, 3 * MS + 2 * US + OUT)
    close(alone.in_flight[0], 1.0)


def test_period_bound_by_memory():
    """4 MB of weights a pass at 1 GB/s, and 1000 bytes out."""
    cost = costs([1, 1], weights=[2e6, 2e6])
    out = simulate_throughput(chain(), small_system(buffer=4e6), np.array([0, 1]), cost, rounds=40, measure=20)
    assert out.resident[:2].all()  # they fit: nothing is loaded
    close(out.period_s, 1 * MS)
    out = simulate_throughput(chain(), small_system(buffer=1e6), np.array([0, 1]), cost, rounds=200, measure=150)
    assert out.period_s == pytest.approx(4.001 * MS, rel=0.02)  # transfers in flight at either end of the window
    assert out.busy[-1] == pytest.approx(1.0, rel=0.01)


def test_buffers_fill_but_never_overflow():
    """Room for three results: later passes are spilled while the slow chiplet works off its queue."""
    system, cost = small_system(buffer=3500), costs([1, 4])
    out = simulate_throughput(chain(), system, np.array([0, 1]), cost, rounds=20, measure=10)
    assert out.peak_bytes.max() == 3000
    close(out.period_s, 4 * MS)
    assert out.moved_bytes["write_spill"] + out.moved_bytes["write_late"] > 0


def test_models_progress_in_proportion():
    """Rates 1 and 5: six passes a round on one chiplet."""
    pair = pm.merge([chain(), chain()])
    pair = eqx.tree_at(lambda w: w.rate, pair, np.array([1.0, 5.0]))
    out = simulate_throughput(pair, small_system(), np.zeros(4, int), costs([5, 5, 1, 1]), rounds=200, measure=50)
    close(out.period_s, 20 * MS)
    ratio = len(out.finish_s[1]) / len(out.finish_s[0])
    assert 4.5 < ratio < 5.5  # the favoured model runs ahead by a constant, of little weight in 200 rounds


def test_fractional_rates_are_refused():
    pair = eqx.tree_at(lambda w: w.rate, chain(), np.array([1.5]))
    with pytest.raises(ValueError, match="rates are .*integers"):
        simulate_throughput(pair, small_system(), np.zeros(2, int), costs([1, 1]))


# ---------------------------------------------------------------------------------------------------- judging the model


@pytest.fixture(scope="module")
def small_mix():
    workload = pm.merge([pm.models.load("gpt2", seq_len=128), pm.models.load("resnet50")], mix="equal-inferences")
    system = pm.systems.load("mcm-2x2")
    table = pm.cost_table(workload, system)
    return workload, system, table, eqx.filter_jit(pm.evaluate)


def random_segments(workload, rng, chiplets):
    """Each model in two to six contiguous segments on random chiplets."""
    where = np.zeros(workload.n_operators, np.int32)
    for m in range(workload.n_models):
        rows = np.flatnonzero(np.asarray(workload.model) == m)
        cuts = np.sort(rng.choice(np.arange(1, len(rows)), rng.integers(1, 6), replace=False))
        for segment in np.split(rows, cuts):
            where[segment] = rng.choice(chiplets)
    return where


@pytest.mark.parametrize("seed, chiplets, segmented", [(0, 4, False), (1, 3, False), (2, 4, True), (3, 3, True)])
def test_evaluate_agrees_with_the_simulation(small_mix, seed, chiplets, segmented):
    workload, system, table, evaluate = small_mix
    rng = np.random.default_rng(seed)
    where = rng.integers(0, chiplets, workload.n_operators).astype(np.int32)
    if segmented:
        where = random_segments(workload, rng, np.arange(chiplets))
    metrics, cost = evaluate(workload, system, pm.Schedule(where), table=table), Costs.of(table)
    simulated = simulate_throughput(workload, system, where, cost)
    assert simulated.resident.tolist() == (np.asarray(metrics.resident) > 0).tolist()
    assert float(metrics.period_s) == pytest.approx(simulated.period_s, rel=0.15)
    moved = 0.0
    for m in range(workload.n_models):
        alone = simulate_latency(workload, system, where, cost, m)
        assert float(metrics.models.latency_s[m]) == pytest.approx(alone.time_s, rel=0.05)
        moved += sum(nbytes for name, nbytes in alone.moved_bytes.items() if name != "network")
    # alone in the package, bytes go where the model says, but for inputs fetched while the operator before still runs
    assert float(metrics.busy_s[-1] * system.memory.bytes_per_s[0]) == pytest.approx(moved, rel=0.05)
