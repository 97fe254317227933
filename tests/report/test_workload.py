"""The analysis of a model: hand counts on a small one, totals on real ones, and what a system makes of it."""

import equinox as eqx
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.models import Net
from perfmodel.report import operator_bytes, operators_table, workload_report, workload_text

SYSTEM = """
name: small
technology: 12nm
types:
  os: {dataflow: os, rows: 8, columns: 8, clock: 1 GHz, lanes: 8, buffer: 64 KiB, buffer_bandwidth: 64 GB/s, static_power: 0,
       operators: [%s]}
chiplets: [{name: a, type: os, position: [0, 0]}]
memory: [{name: dram, capacity: 1 MB, bandwidth: 1 GB/s, latency: 0, energy: 10 pJ/B}]
"""


@pytest.fixture(scope="module")
def tiny():
    net = Net("tiny", dtype="bf16", weight_dtype="int8")
    x = net.linear("fc", net.input(100, 40), 30)
    x = net.vector("act", "gelu", x)
    net.linear("out", x, 50)
    return net.build()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "small.yaml"
    path.write_text(SYSTEM % "gemm, relu")
    return pm.systems.load(str(path))


def test_hand_count(tiny):
    report = workload_report(tiny)
    # fc reads 100x40 bf16 and 40x30 int8, writes 100x30 bf16, and so on
    each = [8000 + 1200 + 6000, 6000 + 6000, 6000 + 1500 + 10000]
    assert operator_bytes(tiny).tolist() == each and report.moved_bytes == sum(each)
    assert report.macs == 100 * 30 * 40 + 100 * 50 * 30 and report.parameters == 2700 == report.weight_bytes
    assert report.least_bytes == 2700 + 8000 + 10000
    operations = 2 * report.macs + 2 * 3000
    assert report.intensity == operations / sum(each) and report.best_intensity == operations / report.least_bytes
    assert report.bytes_by_bits == {"weights": {8.0: 2700.0}, "activations": {16.0: 22000.0}}
    assert (
        report.peak_activation_bytes == 12000 and report.peak_at == "act"
    )  # both of gelu's; the output goes to memory
    assert [(c.name, c.operators, c.macs, c.bytes) for c in report.classes] == [
        ("GEMM", 2, report.macs, each[0] + each[2]), ("activation, elementwise", 1, 0, each[1])]  # fmt: skip
    assert report.kv_bytes_per_token == {} and report.on is None


def test_classes_add_up():
    w = pm.merge([pm.models.load("resnet50"), pm.models.load("gpt2", seq_len=16)])
    report = workload_report(w)
    for amount, total in (("macs", w.macs), ("operators", w.n_operators), ("bytes", report.moved_bytes)):
        assert sum(getattr(c, amount) for c in report.classes) == total
    assert sum(report.bytes_by_bits["weights"].values()) == w.weight_bytes


def test_on_a_system(tiny, small):
    seen = workload_report(tiny, small).on
    # 120,000 MACs on 64 PEs take at least 1.9 us; 15,200 bytes at 1 GB/s 15.2 us
    assert seen.bound[0] == "memory" and seen.time_s[0] == pytest.approx(15.2e-6)
    assert seen.balance == pytest.approx(2 * 64e9 / 1e9) and seen.on == ["os"] * 3
    assert seen.unsupported == {"gelu": ["act"]}
    assert seen.needed_bytes == 2700 + 12000 and seen.capacity_bytes == 1e6


def test_more_bandwidth_is_never_slower(tiny, small):
    from dataclasses import replace

    faster = replace(small, memory=replace(small.memory, bytes_per_s=np.asarray([64e9])))
    slow, fast = (workload_report(tiny, s).on for s in (small, faster))
    assert (fast.time_s <= slow.time_s).all() and fast.bound == ["buffer", "compute", "buffer"]


def test_a_kind_that_does_not_exist(tiny, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(SYSTEM % "gemm, gelo")
    with pytest.raises(ValueError, match="small: types.os.operators is 'gelo': did you mean gelu"):
        workload_report(tiny, pm.systems.load(str(path)))


def test_a_gpu_is_bound_by_its_roofs_or_overhead():
    seen = workload_report(pm.models.load("gpt2", seq_len=1024, batch=8, dtype="bf16"), pm.systems.load("a100-80gb")).on
    assert set(seen.bound) <= {"compute", "memory", "overhead"} and "compute" in seen.bound and "memory" in seen.bound


def test_text(tiny, small):
    report = workload_report(tiny, small)
    said = workload_text(report)
    assert "tiny: 3 operators, 270,000 MACs, 2,700 parameters" in said
    assert "UNSUPPORTED: no chiplet of small runs gelu (act)" in said and "bound by memory" in said
    table = operators_table(workload_report(pm.models.load("gpt2", seq_len=16)))
    assert "h*.mlp.gelu" in table and len(table.splitlines()) < 20  # twelve blocks are one
    assert not [line for line in said.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("name, options", [("mamba-130m", {"phase": "decode", "batch": 8}), ("gpt2", {"phase": "train", "seq_len": 8}),
                                           ("dlrm-kaggle", {}), ("llama-2-7b", {"seq_len": 16})])  # fmt: skip
def test_nothing_fused_is_every_operator_through_memory(name, options):
    report = workload_report(pm.models.load(name, **options))
    assert report.fused["none"].bytes == pytest.approx(report.moved_bytes, rel=1e-5)  # precision differs at a few edges
    assert report.fused["none"].intensity == pytest.approx(report.intensity, rel=1e-5)


def test_states_and_caches_need_memory():
    """Adam keeps an fp32 copy and two moments of every 16-bit parameter: 12 bytes. Mamba keeps 16 + 3 numbers a channel and layer."""
    a100 = pm.systems.load("a100-80gb")
    train = pm.models.load("llama-2-7b", phase="train", seq_len=16)
    assert train.state_bytes.tolist() == [12.0 * train.parameters] and train.stored_bytes == 14.0 * train.parameters
    assert workload_report(train, a100).on.needed_bytes > 80e9
    mamba = pm.models.load("mamba-130m", phase="decode", batch=3)
    assert mamba.state_bytes.tolist() == [3 * 24 * 1536 * (16 + 3) * 2.0]
    wide = pm.models.load("llama-2-7b", phase="decode", batch=256, context=4000)
    assert not bool(pm.evaluate(wide, a100, pm.Schedule.on_chiplet(wide, 0)).feasible)
    both = pm.merge([mamba, train])
    assert both.state_bytes.tolist() == [mamba.state_bytes[0], train.state_bytes[0]]


def test_what_a_catalogue_chip_cannot_run():
    seen = workload_report(pm.models.load("gpt2", seq_len=8), pm.systems.load("gemmini")).on
    assert set(seen.unsupported) == {"embedding", "layer_norm", "softmax", "gelu"}


def test_rows_alike_but_for_parameters_are_not_one_line():
    table = operators_table(workload_report(pm.models.load("dlrm-kaggle")))
    assert len([line for line in table.splitlines() if " embedding " in line]) > 5


def test_the_tier_that_holds_it_all_sets_the_balance(tiny):
    system = pm.systems.load("tpu-v4i")
    peak = 2 * 128 * 512 * 1.05e9
    seen = workload_report(tiny, system).on
    assert seen.tier == "cmem" and seen.balance == pytest.approx(peak / 2000e9) and seen.devices == 1
    small = eqx.tree_at(lambda s: s.memory.capacity_bytes, system, np.asarray([1e3, 2e3]))
    seen = workload_report(tiny, small).on
    assert seen.tier == "hbm" and seen.balance == pytest.approx(peak / 614e9)
    assert seen.devices == -(-seen.needed_bytes // 3e3) > 1
    assert f"at least {seen.devices} devices would hold it" in workload_text(workload_report(tiny, small))
