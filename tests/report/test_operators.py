"""Where time and energy go by operator: sums to the evaluator's totals, figures by hand, bounds."""

import equinox as eqx
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.report import ENERGY, operator_report, operators_text
from perfmodel.schedule import ENERGY_PARTS
from perfmodel.workload import GraphBuilder, operator_row


def report_of(workload, system, schedule):
    return operator_report(workload, system, schedule)


def round_energy(report):
    return {part: float(np.sum(report.energy_j[part] * report.rate)) for part in ENERGY}


def check_sums(report):
    parts = dict(zip(ENERGY_PARTS, np.asarray(report.metrics.energy_parts_j, float), strict=True))
    mine = round_energy(report)
    assert mine["mac"] + mine["lane"] + mine["local"] + mine["buffer"] == pytest.approx(
        parts["on_chip"] + parts["buffer_off_chip"], rel=2e-5, abs=0
    )
    for part in ("network", "memory", "static"):
        assert mine[part] == pytest.approx(parts[part], rel=2e-5, abs=0)
    assert np.sum(report.total_j * report.rate) == pytest.approx(sum(parts.values()), rel=2e-5, abs=0)


def test_energy_adds_up_to_that_of_a_round(tiny, pair, spread):
    check_sums(report_of(tiny, pair, spread))


@pytest.mark.slow
def test_energy_adds_up_where_memory_is_far(tiny):
    """In mcm-3x3 the middle column reaches memory over links."""
    far = pm.Schedule(np.asarray([0, 1, 4, 4, 7, 2, 8, 3, 1], np.int32))
    report = report_of(tiny, pm.systems.load("mcm-3x3"), far)
    check_sums(report)
    assert (
        np.sum(report.energy_j["network"]) > np.sum(report.network_bytes) * 2.04 * 8e-12
    )  # more than the transfers alone


@pytest.mark.slow
def test_energy_adds_up_with_windows_order_and_two_models(tiny, pair):
    both = pm.merge([tiny, tiny])
    n = both.n_operators
    rng = np.random.default_rng(3)
    window = np.concatenate([np.sort(rng.integers(0, 2, 9)), np.sort(rng.integers(0, 2, 9))]).astype(np.int32)
    schedule = pm.Schedule(
        rng.integers(0, 2, n).astype(np.int32), np.float32(3.0), np.arange(n, dtype=np.int32), window, 2
    )
    report = report_of(both, pair, schedule)
    check_sums(report)
    assert np.sum(report.latency_s * report.rate) == pytest.approx(float(np.sum(report.metrics.busy_s[:2])), rel=1e-5)


@pytest.mark.slow
def test_a_reordered_schedule_reports_in_the_order_of_the_workload(pair):
    graph, size = GraphBuilder("two arms"), dict(k=32, c=16, r=1, s=1, q=8)
    stem = graph.add("stem", operator_row("conv", p=8, **size), outside_bytes=1024)
    arms = [graph.add(name, operator_row("conv", p=p, **size), [stem]) for name, p in (("left", 8), ("right", 16))]
    graph.add("sum", operator_row("add", k=32, p=8, q=8), arms)
    plain, workload = pm.Schedule(np.zeros(4, np.int32)), graph.build()
    first = report_of(workload, pair, plain)
    second = report_of(workload, pair, pm.Schedule(plain.assignment, order=np.asarray([0, 2, 1, 3], np.int32)))
    assert first.start_s[1] < first.start_s[2] and second.start_s[1] > second.start_s[2]
    assert first.latency_s[2] > first.latency_s[1]
    for field in ("latency_s", "memory_bytes", "network_bytes", "rate", "utilisation", "total_j"):
        np.testing.assert_allclose(getattr(second, field), getattr(first, field), rtol=1e-5, atol=1e-12, err_msg=field)


def test_one_gemm_by_hand(pair):
    """64 x 64 weights stay in a 64 x 64 array; 1,000 rows pass: 1,000 cycles at 500 MHz, fill and drain 128."""
    graph = GraphBuilder("one")
    graph.add("gemm", operator_row("gemm", k=64, c=64, p=1000), outside_bytes=64_000)
    report = report_of(graph.build(), pair, pm.Schedule(np.asarray([0], np.int32)))
    assert report.compute_s[0] == pytest.approx(2e-6) and report.launch_s[0] == pytest.approx(0.256e-6)
    assert report.latency_s[0] == pytest.approx(2.256e-6, rel=1e-6)
    assert report.utilisation[0] == pytest.approx(1000 / 1128, rel=1e-6)  # 4,096,000 MACs in 1,128 cycles of 4,096
    # the weights fit the buffer and stay: 64,000 B in and 64,000 B out through 64 GB/s, and its latency
    assert report.memory_bytes[0, 0] == 128_000
    assert report.memory_s[0, 0] == pytest.approx(2.2e-6, rel=1e-6) and report.bound == ["memory dram"]
    assert report.energy_j["mac"][0] == pytest.approx(4_096_000 * 0.56e-12, rel=1e-6, abs=0)
    assert report.energy_j["memory"][0] == pytest.approx(128_000 * 14.8 * 8e-12, rel=1e-6, abs=0)
    assert report.energy_j["network"][0] == 0 and report.network_bytes[0] == 0


def test_bytes_are_told_by_tier(tiny):
    """A quarter of everything in CMEM: read at 2000 and written at 1000 GB/s; HBM at 614."""
    system = pm.systems.load("tpu-v4i")
    row = np.tile(np.asarray([[0.25, 0.75]], np.float32), (tiny.n_operators, 1))
    schedule = pm.Schedule(np.zeros(tiny.n_operators, np.int32), tiers=pm.schedule.TierShares(row, row, row))
    report = report_of(tiny, system, schedule)
    check_sums(report)
    into, out = 3 * 10 * 10, 64 * 10  # the model's input and output: all else stays in the buffer
    np.testing.assert_allclose(report.memory_bytes.sum(axis=1), np.array([0.25, 0.75]) * (into + out), rtol=1e-6)
    busy = np.asarray(report.metrics.busy_s)[-2:]
    np.testing.assert_allclose(busy, [(into / 2e12 + out / 1e12) / 4, (into + out) / 614e9 * 0.75], rtol=1e-5)
    assert report.rows()[0]["memory_bytes hbm"] == pytest.approx(0.75 * into)
    assert "memory cmem" in operators_text(report) and "MB a round" in operators_text(report)


def test_what_bounds_an_operator_follows_the_hardware(tiny, spread, pair):
    def slowed(where, factor):
        return eqx.tree_at(where, pair, where(pair) * factor)

    def bounds(system):
        return set(report_of(tiny, system, spread).bound)

    assert bounds(slowed(lambda s: s.memory.bytes_per_s, 1e-6)) >= {"memory dram"}
    assert bounds(slowed(lambda s: s.package.link_bytes_per_s, 1e-6)) >= {"link"}
    assert bounds(slowed(lambda s: s.chiplets.buffer_bytes_per_s, 1e-6)) == {"buffer"}
    assert bounds(slowed(lambda s: s.chiplets.clock_hz, 1e-6)) <= {"compute", "launch"}
    late = eqx.tree_at(lambda s: s.chiplets.launch_s, pair, np.full(2, 1.0))
    assert bounds(late) == {"launch"}


def test_chiplets_wait_for_data(tiny, pair, spread):
    report = report_of(tiny, pair, spread)
    assert np.all(report.wait_s >= 0) and report.wait_s[1] > 0  # conv waits for stem on another chiplet
    last = np.max(report.start_s + report.latency_s)
    assert last <= float(report.metrics.latency_s) * (1 + 1e-6)
    alone = report_of(tiny, pair, pm.Schedule.on_chiplet(tiny, 0))
    np.testing.assert_allclose(
        np.sum(alone.wait_s + alone.latency_s), np.max(alone.start_s + alone.latency_s), rtol=1e-5
    )


def test_relaxed_schedules_are_refused(tiny, pair):
    with pytest.raises(ValueError, match="hard schedule"):
        operator_report(tiny, pair, pm.Schedule.relaxed(np.full((9, 2), 0.5, np.float32)))


def test_rows_are_plain(tiny, pair, spread):
    rows = report_of(tiny, pair, spread).rows()
    assert [r["name"] for r in rows] == list(tiny.names) and set(rows[0]["energy_parts_j"]) == set(ENERGY)
    assert all(type(v) in (str, float, dict) for row in rows for v in row.values())
    assert rows[0]["energy_j"] == pytest.approx(sum(rows[0]["energy_parts_j"].values()), abs=0)


def test_text(tiny, pair, spread):
    report = report_of(tiny, pair, spread)
    text = operators_text(report, top=3, by="energy", mapping=lambda row: f"for k in 4: {tiny.names[row]}\n  mac")
    first = report.names[int(np.argmax(report.total_j))].split("/")[-1]
    assert first in text.splitlines()[1] and text.splitlines()[2].startswith("    for k in 4:")
    assert "and 6 more operators" in text and "bound by" in text
    with pytest.raises(ValueError, match="by is 'size'"):
        operators_text(report, by="size")
