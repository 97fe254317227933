"""Compositions of experts: capacity, nodes and switching worked out by hand, the SN40L paper's figures, latency, gradients."""

import itertools
from dataclasses import fields, replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.cost import formats, machine
from perfmodel.experts import (
    ExpertService,
    Node,
    batch_latency_s,
    cache_hits,
    copy_s,
    default_residency,
    fit_host,
    fit_reference,
    footprint,
    hit_rate,
    model_times,
    modelled_ratios,
    published_rows,
    request_s,
    running_tier,
    zipf_trace,
)
from perfmodel.hardware import MemoryTiers
from perfmodel.models import decoder
from perfmodel.serving import Point, serve

PAPER = Path(__file__).parents[1] / "data" / "sn40l.json"
SYSTEMS = ("sn40l-node", "dgx-a100", "dgx-h100")
GB = 1e9


@pytest.fixture(scope="module")
def nodes():
    return {name: pm.systems.load(name) for name in SYSTEMS}


def plan(system, experts, residency, expert_bytes=13.476831232 * GB, kv_bytes=0.1 * GB):
    return footprint(system.memory, experts=experts, expert_bytes=expert_bytes, router_bytes=expert_bytes, kv_bytes=kv_bytes,
                     residency=residency, tier=running_tier(system.memory))  # fmt: skip


@pytest.mark.parametrize(
    "expert_bytes, in_hbm, host, ddr", [(13.476831232 * GB, 46, 148, 979), (14 * GB, 44, 142, 942)]
)
def test_counts_by_hand(nodes, expert_bytes, in_hbm, host, ddr):
    for name in SYSTEMS[1:]:  # 640 GB less a router and 0.1 GB; 2 TB of host
        small, large = (plan(nodes[name], n, "hbm", expert_bytes) for n in (in_hbm, in_hbm + 1))
        assert (int(small.in_hbm), int(small.nodes), bool(small.fits)) == (in_hbm, 1, True)
        assert (int(large.nodes), bool(large.fits), int(large.request_nodes)) == (2, False, 1)
        assert float(large.missing_bytes) == pytest.approx(expert_bytes)
        assert int(plan(nodes[name], 850, "hbm", expert_bytes).nodes) == 19
        anywhere = plan(nodes[name], 150, "any", expert_bytes)
        assert (int(anywhere.capacity), int(anywhere.on_node)) == (host, host + in_hbm - 1)
        assert (int(anywhere.homeless), int(anywhere.frames)) == (150 - host, in_hbm - 1)
        each = host + in_hbm  # of a node without router, which has room for one more in HBM and keeps a frame free
        many = [int(plan(nodes[name], host + in_hbm - 1 + n * each, "any", expert_bytes).nodes) for n in (0, 1, 4)]
        assert many == [1, 2, 5]
        crowded = plan(nodes[name], host + in_hbm + each, "any", expert_bytes)
        assert int(crowded.nodes) == 3 and int(crowded.homeless) == 0 and int(crowded.frames) == 3 * in_hbm + 2
        full = plan(nodes[name], host + in_hbm - 1 + each, "any", expert_bytes)
        assert int(full.homeless) == 2 * in_hbm - 1 and int(full.frames) == 2 * in_hbm + 1 - 2
    node = plan(nodes["sn40l-node"], 850, "any", expert_bytes)  # 12 TiB of DDR
    assert (int(node.capacity), int(node.nodes), bool(node.fits)) == (ddr, 1, True)
    assert int(plan(nodes["sn40l-node"], ddr + 100, "any", expert_bytes).nodes) == 2


def test_switching_is_the_ratio_of_the_links(nodes):
    node, a100, h100 = (float(plan(nodes[name], 150, "any").switch_s) for name in SYSTEMS)
    assert node == pytest.approx(13.476831232e9 / 1e12, rel=1e-4)
    assert a100 / node == pytest.approx(1000 / 32, rel=1e-3) and h100 / node == pytest.approx(1000 / 64, rel=1e-3)


def test_residency_of_the_catalogue(nodes):
    assert [default_residency(nodes[name].memory) for name in SYSTEMS] == ["any", "hbm", "hbm"]
    assert running_tier(pm.systems.load("tpu-v4i").memory) == pm.systems.load("tpu-v4i").memory.names.index("hbm")


def test_no_slower_tier():
    alone = plan(pm.systems.load("a100-80gb"), 9, "any")
    assert (int(alone.in_hbm), int(alone.capacity), float(alone.switch_s)) == (4, 4, 0.0)
    assert int(alone.nodes) == 2  # 4 beside the router, 5 where there is none


def test_expert_that_fits_nowhere(nodes):
    lost = plan(nodes["dgx-a100"], 3, "hbm", 700 * GB)
    assert not bool(lost.fits) and not bool(lost.runs) and int(lost.in_hbm) == 0
    assert float(lost.missing_bytes) == pytest.approx(2 * 700 * GB + 0.1 * GB - 640 * GB)
    assert int(lost.nodes) == 5  # four times 700 GB over 640 GB


def test_a_tier_between_is_streamed_through(nodes):
    memory = nodes["sn40l-node"].memory
    leaves = {}
    for f in fields(memory):  # one tier more, like the last
        value = getattr(memory, f.name)
        leaves[f.name] = (*value, value[-1]) if isinstance(value, tuple) else np.append(value, value[-1])
    leaves |= dict(names=(*memory.names, "disk"), copy_bytes_per_s=np.asarray([1.44e13, 1e12, 0.5e12]))
    three = MemoryTiers(**leaves)
    assert float(copy_s(three, 1e12)) == pytest.approx(2.0, rel=1e-4)


def test_request_by_hand():
    parts = dict(router_s=1.0, expert_s=3.0, switch_s=2.0, batch=4.0)
    assert float(request_s(**parts, hit_rate=0.25)) == 1 + 4 * (0.75 * 2 + 3)
    # the first copy is waited for, three more are hidden; each slows its neighbour by 0.5
    assert float(request_s(**parts, hit_rate=0.0, overlap=True, landing_s=0.5)) == 1 + 2 + 3 * 3.5 + 3
    assert float(request_s(**parts, hit_rate=1.0, overlap=True)) == float(request_s(**parts, hit_rate=1.0)) == 13


@pytest.mark.parametrize("overlap", [False, True])
def test_mean_latency_is_that_of_a_simulated_trace(overlap):
    frames, batch = 20, 5
    trace = zipf_trace(100, 0.8, 50_000)
    hits = cache_hits(trace, frames, "lru")[25_000:]
    parts = dict(router_s=0.5, expert_s=1.0, overlap=overlap)
    simulated = batch_latency_s(hits, batch, copy_s=2.0, shared_s=0.1, **parts).mean()
    got = request_s(**parts, switch_s=2.0, landing_s=0.1, batch=batch, hit_rate=float(np.mean(hits)))
    assert float(got) == pytest.approx(simulated, rel=2e-3)


@pytest.mark.slow
def test_latency_jumps_where_hbm_is_full(nodes):
    service = ExpertService(
        nodes["dgx-a100"], "llama-2-7b", 1, residency="any", router_s=0.07, prefill_s=0.03, decode_s=0.002
    )
    curve = service.curve([1, 46, 47, 60, 120, 150])
    latency = np.asarray(curve["request_s"])
    assert latency[0] == latency[1] and latency[2] > latency[1] + 0.42  # a copy of 421 ms
    assert np.all(np.diff(latency) >= 0) and np.ptp(latency[2:]) < 1e-6
    by_zipf = np.asarray(replace(service, popularity=0.8, experts=1).curve([46, 47, 60, 120, 150])["request_s"])
    assert np.all(np.diff(by_zipf) > 0) and by_zipf[-1] < latency[-1]


def test_hit_rates_of_a_service(nodes):
    for popularity in (None, 0.0, 1.0):
        service = ExpertService(
            nodes["sn40l-node"], "llama-2-7b", 150, popularity=popularity, router_s=1, prefill_s=1, decode_s=1
        )
        lru, belady, static = (service.rate(policy) for policy in ("lru", "belady", "static"))
        assert 0 <= lru <= static + 1e-6 and static <= belady + 0.02 <= 1.02


def test_gradients_and_batches(x64, nodes):
    memory = jax.tree.map(jnp.asarray, nodes["sn40l-node"].memory)

    def latency(scale, experts, popularity):
        here = eqx.tree_at(lambda m: (m.capacity_bytes, m.copy_bytes_per_s), memory,
                           (memory.capacity_bytes, memory.copy_bytes_per_s * scale))  # fmt: skip
        where = footprint(
            here, experts=experts, expert_bytes=13.5e9, router_bytes=13.5e9, kv_bytes=1e9, residency="any"
        )
        rate = hit_rate(where, experts, popularity=popularity, most=200)
        return request_s(
            router_s=0.07,
            expert_s=0.04,
            switch_s=where.switch_s,
            batch=8.0,
            hit_rate=rate,
            overlap=True,
            landing_s=0.001,
        )

    for argument, at in ((0, 0.3), (2, 0.8)):
        given = [0.3, 150.0, 0.8]

        def along(x, argument=argument, given=given):
            return latency(*(x if i == argument else v for i, v in enumerate(given)))

        value = jax.jit(along)
        central = (float(value(at + 1e-5)) - float(value(at - 1e-5))) / 2e-5
        assert float(jax.jit(jax.grad(along))(at)) == pytest.approx(central, rel=1e-5)
    counts = jnp.asarray([10.0, 38.0, 39.0, 60.0, 199.0])
    compiled = jax.jit(latency)
    loop = jnp.stack([compiled(1.0, n, 0.8) for n in counts])
    np.testing.assert_allclose(jax.vmap(lambda n: latency(1.0, n, 0.8))(counts), loop, rtol=1e-12)
    np.testing.assert_allclose(latency(1.0, counts[3], 0.8), loop[3], rtol=1e-12)


def test_times_are_those_of_the_serving_model(nodes):
    one, two = (model_times(nodes["sn40l-node"], "llama-2-7b", prompt=128, new_tokens=n) for n in (20, 200))
    # weights of one socket at least, at 1.8 TB/s
    assert float(one.decode_s) > 13.2e9 / 8 / 1.8e12
    assert float(one.prefill_s) == float(two.prefill_s) and float(two.decode_s) > float(one.decode_s)
    assert float(one.request_s(1.0)) == float(one.prefill_s)
    node = machine(nodes["sn40l-node"])
    direct = serve(node, decoder("llama-2-7b"), formats(node)[0], Point(context=128 + 9.5, tensor=8.0), phase="decode")
    assert float(one.decode_s) == pytest.approx(float(direct.tpot_s), rel=1e-6)
    added = model_times(nodes["sn40l-node"], "llama-2-7b", prompt=128, new_tokens=20, before_s=0.01, step_s=0.001)
    assert float(added.request_s(20.0) - one.request_s(20.0)) == pytest.approx(0.01 + 20 * 0.001, rel=1e-3)


@pytest.fixture(scope="module")
def table(nodes):
    """Rows of Table V, and nodes with the times of the serving model."""
    rows, made = published_rows(PAPER), {}
    for name, system in nodes.items():
        times = {
            (b, n): model_times(system, "llama-2-7b", batch=b, prompt=128, new_tokens=n)
            for b, n in itertools.product((1, 8), (20, 200))
        }
        service = ExpertService(system, "llama-2-7b", 150, residency="any")
        made[name] = Node({p: float(t.prefill_s) for p, t in times.items()}, {p: float(t.decode_s) for p, t in times.items()},
                          float(service.plan.switch_s), 1 - service.rate("lru"))  # fmt: skip
    return rows, made


@pytest.mark.slow
def test_table_v_after_fits_of_three_constants(table):
    rows, made = table
    overall = np.asarray([row.overall for row in rows])
    assert len(rows) == 12 and overall.sum() == 8
    by_row = fit_reference(rows, made)
    assert len(by_row.constants) == 3 and np.max(np.abs(by_row.error)) < 0.035
    # the constants that the table itself hangs together with: 68 ms, 67 ms for 20 tokens, 430 ms for 200
    router, prefill, decode = by_row.constants.values()
    assert (router, prefill + 19 * decode, prefill + 199 * decode) == pytest.approx((68e-3, 67e-3, 430e-3), rel=0.1)
    host = fit_host(rows, made, 1)
    assert len(host.constants) == 3 and np.max(np.abs(host.error)) < 0.05


def test_without_a_fit_switching_decides_the_order(table):
    rows, made = table
    for row, ratio in zip(rows, modelled_ratios(rows, made, 1), strict=True):
        assert ratio > 1, row
    a100, h100 = modelled_ratios(rows, made, 1).reshape(-1, 2).T
    assert np.all(a100 > h100)


@pytest.mark.parametrize("change, said", [
    (dict(experts=0), "experts is 0"), (dict(batch=0), "batch is 0"), (dict(residency="ram"), "residency is 'ram'"),
    (dict(cache="fifo"), "cache is 'fifo'"), (dict(copy_bytes_per_s=-1.0), "copy_bytes_per_s is -1.0"),
    (dict(expert_model="resnet50"), "resnet50"), (dict(expert_model="llama-9"), "llama-9"),
])  # fmt: skip
def test_bad_values(nodes, change, said):
    with pytest.raises(ValueError, match=said):
        ExpertService(nodes["sn40l-node"], **(dict(expert_model="llama-2-7b", experts=3) | change))


def test_belady_by_popularity_has_no_formula(nodes):
    where = plan(nodes["sn40l-node"], 150, "any")
    with pytest.raises(ValueError, match="simulate"):
        hit_rate(where, 150, policy="belady", popularity=1.0)
