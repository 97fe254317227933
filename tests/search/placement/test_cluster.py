"""Clusters from files, and problems from a workload and machines: times, transfers and memory against sums done by hand."""

from dataclasses import replace

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.schedule import fuse_schedule
from perfmodel.workload import GraphBuilder, fuse, operator_row
from search.placement import Infeasible, clusters, from_workload, load_cluster, timeline
from search.placement.methods import heft, m_etf

SMALL = """
name: pair
devices:
- {name: a100, system: a100-80gb}
- {name: l40s, system: l40s, count: 2}
links:
  default: {bandwidth: 10 GB/s, latency: 5 us}
  pairs:
  - {between: [a100, l40s-1], bandwidth: 20 GB/s, latency: 1 us}
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    path = tmp_path_factory.mktemp("clusters") / "pair.yaml"
    path.write_text(SMALL)
    return load_cluster(path)


def graph(**more):
    """conv -> batch_norm -> {relu -> add, add}: bf16, 64 channels of 56 x 56."""
    net, size = GraphBuilder("block"), dict(k=64, p=56, q=56, bits=16)
    conv = net.add("conv", operator_row("conv", c=64, r=3, s=3, **size), outside_bytes=2 * 64 * 58 * 58)
    norm = net.add("norm", operator_row("batch_norm", **size), [conv])
    relu = net.add("relu", operator_row("relu", **size), [norm])
    net.add("add", operator_row("add", in_elements=2 * 64 * 56 * 56, **size), [relu, norm])
    return net.build()


@pytest.fixture(scope="module")
def block(pair):
    return from_workload(graph(), pair)


def test_links_by_hand(pair):
    assert pair.device_names == ("a100", "l40s-0", "l40s-1")
    np.testing.assert_allclose(pair.bytes_per_s[0], [np.inf, 10e9, 20e9])
    np.testing.assert_allclose(pair.latency_s, [[0, 5e-6, 1e-6], [5e-6, 0, 5e-6], [1e-6, 5e-6, 0]])
    assert [s.name for s in pair.systems] == ["a100-80gb", "l40s", "l40s"]


@pytest.mark.parametrize("name, devices", [("a100-l40s", 4), ("mixed-4", 4)])
def test_catalogue(name, devices):
    cluster = load_cluster(name)
    assert clusters() == ["a100-l40s", "mixed-4"]
    assert cluster.n_devices == devices and cluster.name == name and len(cluster.about) > 100
    assert (cluster.bytes_per_s == cluster.bytes_per_s.T).all() and len(np.unique(cluster.bytes_per_s)) == 3
    assert len({s.name for s in cluster.systems}) >= 2


@pytest.mark.parametrize("change, said", [
    (("system: l40s", "system: l40"), "devices[1].system: system is 'l40': did you mean l40s"),
    (("system: l40s", "system: mcm-2x2"), "devices[1].system is 'mcm-2x2' with 4 chiplets; allowed: systems of one chiplet"),
    (("count: 2", "count: 0"), "devices[1].count is 0; allowed: 1 to 1024"),
    (("count: 2", "count: 5000"), "devices[1].count is 5000; allowed"),
    (("name: l40s", "name: a100"), "devices[1].name is 'a100'; already taken"),
    (("name: l40s, system: l40s, count: 2", "name: a100, system: l40s, count: 1"), "devices[1].name is 'a100'; already taken"),
    (("10 GB/s", "10 GB"), "links.default.bandwidth is '10 GB'; allowed"),
    (("10 GB/s", "0"), "links.default.bandwidth is 0.0; allowed"),
    (("5 us", "-5 us"), "links.default.latency is '-5 us'; allowed"),
    (("default: {bandwidth: 10 GB/s, latency: 5 us}", ""), "links: a100 and l40s-0 are not connected; add a pair, or a default"),
    (("[a100, l40s-1]", "[a100, l40s-2]"), "links.pairs[0].between[1] is 'l40s-2': did you mean"),
    (("[a100, l40s-1]", "[a100, a100]"), "links.pairs[0].between is 'a100' and itself"),
    (("count: 2", "cuont: 2"), "unknown field cuont"),
])  # fmt: skip
def test_bad_clusters_are_one_clear_line(tmp_path, change, said):
    path = tmp_path / "pair.yaml"
    path.write_text(SMALL.replace(*change))
    with pytest.raises(ValueError) as error:
        load_cluster(path)
    assert said in str(error.value) and str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_unknown_cluster():
    with pytest.raises(ValueError, match="cluster is 'mixed': did you mean mixed-4"):
        load_cluster("mixed")


def test_problem_by_hand(pair):
    workload = graph()
    p = from_workload(workload, pair, congestion=True)
    tensor = 2 * 64 * 56 * 56
    assert p.names == ("conv", "norm", "relu", "add") and p.congestion and p.device_names == pair.device_names
    np.testing.assert_allclose(p.transfer[0, 0, 1:], [5e-6 + tensor / 10e9, 1e-6 + tensor / 20e9])
    assert (p.transfer[:, np.arange(3), np.arange(3)] == 0).all()
    table = [pm.cost_table(workload, s) for s in pair.systems]
    np.testing.assert_allclose(p.times, np.concatenate([np.asarray(t.exec_s) for t in table], axis=1))
    np.testing.assert_array_equal(p.memory_bytes, [2 * 64 * 64 * 9, workload.operators.parameters[1] * 2, 0, 0])
    # at its fullest (the addition), the pass holds what the norm and the ReLU left: two tensors
    np.testing.assert_allclose(p.capacity_bytes, np.asarray([80e9, 48e9, 48e9]) - workload.live_bytes.max())
    assert workload.live_bytes.max() == 2 * tensor
    assert (p.group == -1).all()


def test_several_inferences_at_once(pair, block):
    one, four = block, from_workload(graph(), pair, sub_batch=4)
    np.testing.assert_allclose(four.transfer[0, 0, 1] - 5e-6, 4 * (one.transfer[0, 0, 1] - 5e-6))
    assert (four.times > one.times).all() and (four.times < 4 * one.times).all()
    np.testing.assert_array_equal(four.memory_bytes, one.memory_bytes)
    with pytest.raises(ValueError, match="sub_batch is 0; allowed: at least 1"):
        from_workload(graph(), pair, sub_batch=0)


BACKENDS = ("none", "xla-like", "tensorrt-like", "dataflow")


def same_as_the_evaluator(workload, backend):
    """All on one GPU: the placement's tasks take as long as the chiplet is busy."""
    system = pm.systems.load("a100-80gb")
    p = from_workload(workload, system, fusion=backend)
    schedule = fuse_schedule(workload, pm.Schedule.on_chiplet(workload, 0), backend)
    busy = float(pm.evaluate(workload, system, schedule).busy_s[0])
    assert p.times.sum() == pytest.approx(busy, rel=1e-5)
    assert p.n_tasks == fuse(workload, backend).n_groups


@pytest.mark.parametrize("backend", BACKENDS)
def test_fused_groups_take_what_the_evaluator_says(backend, tiny):
    same_as_the_evaluator(tiny, backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", ["resnet50", "gpt2"])
def test_fused_groups_of_models(model, backend, request):
    same_as_the_evaluator(request.getfixturevalue(model), backend)


def test_fusion_makes_tasks_fewer_and_faster(pair, block):
    plain, fused = block, from_workload(graph(), pair, fusion="tensorrt-like")
    assert fused.n_tasks < plain.n_tasks and (fused.times.sum(axis=0) < plain.times.sum(axis=0)).all()
    assert fused.memory_bytes.sum() == plain.memory_bytes.sum()
    with pytest.raises(ValueError, match="fusion backend"):
        from_workload(graph(), pair, fusion="tensorrt")


@pytest.mark.slow
def test_shared_weights_stand_together_and_the_kv_cache_is_memory(pair):
    decode = pm.models.load("gpt2", lm_head=True, phase="decode", context=1000)
    p = from_workload(decode, pair)
    together = np.flatnonzero(p.group >= 0)
    assert [p.names[i] for i in together] == ["embed", "lm_head"] and len(set(p.group[together])) == 1
    placement, order, _ = heft(p)
    assert len(set(placement[together])) == 1 and timeline(p, placement, order).makespan > 0
    assert p.memory_bytes.sum() == pytest.approx(decode.weight_bytes + decode.kv_cache_bytes, rel=1e-6)
    attention = p.memory_bytes[np.asarray(decode.operators.is_attention)]
    assert attention.sum() == pytest.approx(decode.kv_cache_bytes, rel=1e-6)


def test_chiplets_of_a_package(mcm, tiny):
    p = from_workload(tiny, mcm)
    assert p.device_names == mcm.chiplet_names
    # hops of 35 ns, links of 100 GB/s; memory divided evenly
    hops = np.asarray(mcm.package.hops)
    np.testing.assert_allclose(p.transfer[0], np.where(hops > 0, hops * 35e-9 + tiny.edge_bytes[0] / 100e9, 0.0))
    share = float(mcm.memory.capacity_bytes[0]) / 4
    np.testing.assert_allclose(p.capacity_bytes, np.floor(share - np.ceil(tiny.live_bytes.max())))
    # the weights of a chiplet come from memory while it computes, at a quarter of its bandwidth
    exec_s = np.asarray(pm.cost_table(tiny, mcm).exec_s)
    table = pm.cost_table(tiny, mcm)
    stream = (
        np.asarray(table.weight_bytes * table.weight_refetch)
        + (tiny.outside_in_bytes + tiny.outside_out_bytes)[:, None]
    )
    np.testing.assert_allclose(p.times, np.maximum(exec_s, stream / (float(mcm.memory.bytes_per_s[0]) / 4)), rtol=1e-6)


def test_what_a_chiplet_cannot_run(tiny, mcm):
    only_matrices = ("conv", "gemm", "attention_gemm")
    some = replace(mcm, runs=((), only_matrices, ()))
    p = from_workload(tiny, some)
    os_ = np.asarray(some.kind) == some.type_names.index("os")
    assert os_.any() and (np.isinf(p.times[p.names.index("softmax")]) == os_).all()
    assert np.isfinite(p.times[p.names.index("conv")]).all()
    placement, _, _ = m_etf(p)
    assert np.isfinite(p.times[np.arange(p.n_tasks), placement]).all()


def test_a_model_too_large_for_a_machine(pair):
    net = GraphBuilder("large")
    first = net.add("first", operator_row("gemm", k=200_000, c=200_000, bits=16))
    net.add("second", operator_row("gemm", k=200_000, c=200_000, bits=16), [first])
    with pytest.raises(
        Infeasible, match=r"^large on pair: task first takes 8\d{10} bytes, \d+ more than any device .* holds \(79\d+\)"
    ):
        m_etf(from_workload(net.build(), pair))


def test_several_models(pair, block):
    p = from_workload(pm.merge([graph(), graph()]), pair)
    assert p.n_tasks == 8 and p.name == "block+block#2 on pair" and p.names[4] == "block#2/conv"
    np.testing.assert_allclose(p.times, np.concatenate([block.times, block.times]), rtol=1e-6)
    # both may be at their fullest at once
    room = np.asarray([80e9, 48e9, 48e9])
    np.testing.assert_allclose(room - p.capacity_bytes, 2 * (room - block.capacity_bytes))
