"""Cost tables of GPUs: kernel models called by hand, gradients, jit and vmap, the command with fitted constants."""

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import evaluate

import perfmodel as pm
from perfmodel.cost import (
    DecodeParameters,
    ElementwiseParameters,
    GemmParameters,
    MoeParameters,
    PrefillParameters,
    elementwise_s,
    gemm_s,
    map_workload,
)
from perfmodel.cost.kernels import Entry, GpuKernels, as_gpu, constants, gpu_kernels, kernel_s, onchip_j, write_entries
from perfmodel.hardware import DATAFLOWS, gpu
from perfmodel.schedule import Schedule, evaluate_many
from perfmodel.workload import NONE, GraphBuilder, operator_row, stack_operators
from search import cli

NAME = "A100-SXM-80GB"
A100 = gpu(NAME)
# those of the model's own defaults, whatever is shipped: different for each kernel, so that a mix-up shows
KERNELS = GpuKernels(GemmParameters(launch_cycles=jnp.asarray([3200.0, 5000.0, 6000.0, 7000.0])),
                     ElementwiseParameters(launch_cycles=jnp.asarray([1e3, 2e3, 3e3, 4e3, 5e3])),
                     DecodeParameters(launch_cycles=jnp.asarray([8e3, 9e3])),
                     PrefillParameters(launch_cycles=jnp.asarray([10e3, 11e3, 12e3])),
                     MoeParameters(routing_cycles=jnp.asarray([20e3, 21e3])), 1.0, 1.0, ("",))  # fmt: skip
VECTOR = ["layer_norm", "softmax", "embedding", "add", "gelu"]


def row(kind, **sizes):
    return jax.tree.map(lambda x: jnp.asarray(x[0]), stack_operators([operator_row(kind, **sizes)]))


def vector_constants(kind) -> ElementwiseParameters:
    return ElementwiseParameters(launch_cycles=1e3 * (1 + VECTOR.index(kind)))


def stretched(kernels: GpuKernels) -> GpuKernels:
    """Every constant with the axis of its variants, as the table has them."""

    def along(part, n):
        return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, float), (n,)), part)

    parts = [along(getattr(kernels, name), n) for name, n in
             (("gemm", 4), ("elementwise", 5), ("decode", 2), ("prefill", 3), ("moe", 2))]  # fmt: skip
    return GpuKernels(*parts, jnp.asarray(1.0), jnp.asarray(1.0), ("",))


run = jax.jit(lambda op, machine: kernel_s(op, machine, stretched(KERNELS)))


def seconds(op, machine=A100) -> float:
    return float(run(op, machine))


def test_a_gemm_by_the_kernel_function():
    size = dict(k=3072, c=768, p=1000)
    assert seconds(row("gemm", bits=16, **size)) == pytest.approx(
        float(gemm_s(GemmParameters(), A100, 1000, 3072, 768))
    )
    eight = gemm_s(GemmParameters(launch_cycles=5000.0), A100, 1000, 3072, 768, kind="sq")
    assert seconds(row("gemm", bits=8, **size)) == pytest.approx(float(eight))


def test_vector_rows_by_the_kernel_function():
    by_row = {"layer_norm": "layernorm", "softmax": "softmax", "embedding": "embedding"}
    for kind, kernel in by_row.items():
        hand = elementwise_s(vector_constants(kind), A100, 3 * 500, 768, kind=kernel)
        assert seconds(row(kind, batch=3, k=768, p=500)) == pytest.approx(float(hand)), kind
    elements = 64 * 56 * 56
    hand = elementwise_s(vector_constants("add"), A100, elements / 1024, 1024, kind="add")
    assert seconds(row("add", k=64, p=56, q=56, in_elements=2 * elements)) == pytest.approx(float(hand))
    for kind in ("gelu", "relu", "batch_norm"):
        hand = elementwise_s(vector_constants("gelu"), A100, elements / 1024, 1024, kind="gelu")
        assert seconds(row(kind, k=64, p=56, q=56)) == pytest.approx(float(hand)), kind
    # pooling reads four elements for each that it writes
    hand = elementwise_s(vector_constants("gelu"), A100, elements / 1024, 2.5 * 1024, kind="gelu")
    pooled = row("max_pool", k=64, p=56, q=56, r=2, s=2, stride=2, in_elements=4 * elements)
    assert seconds(pooled) == pytest.approx(float(hand))


@pytest.mark.parametrize("heads", [1, 7, 12, 108])
def test_a_batched_gemm_is_a_grouped_one_with_equal_groups(heads):
    """Another account of the same: every group has `p` rows of its own."""
    m, n, k = 512, 512, 64
    hand = gemm_s(GemmParameters(), A100, 1, n, k, loads=jnp.full(heads, float(m)), footprint_bytes=heads * n * k * 2.0)
    for bits in (8, 16):  # libraries run attention in 16 bits either way
        got = seconds(row("attention_gemm", groups=heads, k=n, c=k, p=m, bits=bits))
        assert got == pytest.approx(float(hand), rel=1e-4)


def test_whole_waves_stay_whole():
    """7 products of 108 x 4 tiles are exactly 28 waves of 108, however a seventh of 108 is rounded."""
    alone = seconds(row("attention_gemm", groups=7, k=128, c=4096, p=256 * 108, bits=16))
    hand = gemm_s(
        GemmParameters(), A100, 1, 128, 4096, loads=jnp.full(7, 256.0 * 108), footprint_bytes=7 * 128 * 4096 * 2.0
    )
    assert alone == pytest.approx(float(hand), rel=1e-4)


def test_convolutions_are_implicit_gemms():
    size = dict(batch=4, k=256, c=256, p=14, q=14)
    one = gemm_s(GemmParameters(), A100, 4 * 14 * 14, 256, 256)
    assert seconds(row("conv", bits=16, **size)) == pytest.approx(float(one))
    # windows of a small input: all in L2, as in the GEMM of the copies
    three = gemm_s(GemmParameters(), A100, 4 * 14 * 14, 256, 9 * 256)
    assert seconds(row("conv", r=3, s=3, bits=16, **size)) == pytest.approx(float(three), rel=1e-5)
    # of a large one: DRAM gives pixels, not copies, so less than that GEMM and no less than the bare traffic
    large = dict(batch=64, k=64, c=64, p=112, q=112, r=3, s=3)
    copies = float(gemm_s(GemmParameters(), A100, 64 * 112 * 112, 64, 9 * 64))
    got = seconds(row("conv", bits=16, **large))
    assert 64 * 64 * (114 * 114 + 112 * 112) * 2 / 2.039e12 < got < 0.8 * copies
    # 8 bits: also converted once
    copies = float(gemm_s(GemmParameters(launch_cycles=5000.0), A100, 64 * 112 * 112, 64, 9 * 64, kind="sq"))
    assert 64 * 64 * 112 * 112 * 6 / 2.039e12 < seconds(row("conv", bits=8, **large)) < 0.5 * copies


def test_energy_by_hand():
    chip = jax.tree.map(lambda x: x[0], pm.systems.load("a100-80gb").chiplets)
    m, n, k = 256, 128, 64
    moved = (m * k * 1 + k * n * 2) * 2  # one tile across, two down, 16 bits
    local = moved + m * n * k * 4 / 64
    joules = m * n * k * chip.mac_j + local * chip.local_j_per_byte + (moved + m * n * 2) * chip.buffer_j_per_byte
    assert float(onchip_j(row("gemm", p=m, k=n, c=k, bits=16), chip)) == pytest.approx(float(joules), rel=1e-5)
    joules = 5000 * chip.lane_op_j + 2000 * chip.buffer_j_per_byte
    assert float(onchip_j(row("softmax", k=1000), chip)) == pytest.approx(float(joules), rel=1e-5)


@pytest.fixture(scope="module")
def a100():
    """With software that launches every operator and converts to 8 bits in passes of their own, as kernels are measured."""
    return replace(pm.systems.load("a100-80gb"), software=NONE)


def test_the_table_calls_the_shipped_kernels(tiny, a100):
    table = pm.cost_table(tiny, a100)
    machine = as_gpu(A100, jax.tree.map(lambda x: x[0], a100.chiplets), a100.memory)
    gemm = constants()(NAME, "", "gemm", "sq")
    add = constants()(NAME, "", "elementwise", "add")
    qkv, plus = tiny.names.index("qkv"), tiny.names.index("add")
    assert float(table.compute_s[qkv, 0]) == pytest.approx(
        float(gemm_s(gemm, machine, 64, 48, 16, kind="sq")), rel=1e-5
    )
    hand = elementwise_s(add, machine, 1024 / 1024, 1024, kind="add")
    assert float(table.compute_s[plus, 0]) == pytest.approx(float(hand), rel=1e-5)
    assert not np.any(table.transfer_s) and not np.any(table.fill_s)
    np.testing.assert_array_equal(table.exec_s, table.compute_s)


def with_bandwidth(system, bytes_per_s):
    return eqx.tree_at(lambda s: s.memory.bytes_per_s, system, jnp.atleast_1d(bytes_per_s))


@pytest.fixture(scope="module")
def large():
    """Kernels that DRAM bounds, of every sort."""
    graph = GraphBuilder("large")
    size = dict(k=64, p=112, q=112, batch=16)
    conv = graph.add("conv", operator_row("conv", c=64, r=3, s=3, **size), outside_bytes=1e6)
    relu = graph.add("relu", operator_row("relu", **size), [conv])
    wide = graph.add("wide", operator_row("gemm", k=4096, c=4096, p=8), [relu])
    graph.add("softmax", operator_row("softmax", groups=16, k=2048, p=2048, bits=16), [wide])
    return graph.build()


@pytest.mark.slow
def test_more_dram_bandwidth_never_takes_longer(large, a100):
    rates = np.geomspace(1e11, 1e14, 13)
    table = jax.vmap(lambda rate: pm.cost_table(large, with_bandwidth(a100, rate)).exec_s)(jnp.asarray(rates))
    assert (np.diff(table, axis=0) <= 0).all() and (table[0] > 2 * table[-1]).all() and (np.asarray(table) > 0).all()
    # vmap = loop at this odd size
    alone = [pm.cost_table(large, with_bandwidth(a100, rate)).exec_s for rate in rates[::6]]
    np.testing.assert_allclose(table[::6], np.stack(alone), rtol=1e-5)


def test_gradients_against_central_differences(large, a100, x64):
    def total(scale):
        system = with_bandwidth(a100, a100.memory.bytes_per_s[0] * scale[0])
        system = eqx.tree_at(lambda s: s.chiplets.clock_hz, system, system.chiplets.clock_hz * scale[1])
        return jnp.sum(pm.cost_table(large, system).exec_s) * 1e3

    at, h = jnp.ones(2), 1e-5
    slope, f = jax.jit(jax.grad(total))(at), jax.jit(total)
    for i in range(2):
        step = jnp.zeros(2).at[i].set(h)
        assert float(slope[i]) == pytest.approx(float(f(at + step) - f(at - step)) / (2 * h), rel=1e-5), i
    assert (slope < 0).all()


@pytest.mark.parametrize("model, system, least_s, most_s", [
    pytest.param("gpt2", "a100-80gb", 1e-3, 1e-2, marks=pytest.mark.slow),
    pytest.param("gpt2", "h100-80gb", 0.5e-3, 6e-3, marks=pytest.mark.slow), ("resnet50", "a100-80gb", 0.3e-3, 5e-3),
])  # fmt: skip
def test_whole_models_take_milliseconds(model, system, least_s, most_s):
    workload, system = pm.models.load(model), pm.systems.load(system)
    schedule = Schedule.on_chiplet(workload, 0)
    metrics = evaluate(workload, system, schedule)
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(metrics)) and bool(metrics.feasible)
    assert least_s < float(metrics.latency_s) < most_s
    assert float(metrics.period_s) == pytest.approx(float(jnp.sum(pm.cost_table(workload, system).exec_s)), rel=1e-3)
    assert float(system.chiplets.static_w[0]) < float(metrics.power_w) < float(system.gpus.tdp_w[0])
    assert 0 < float(metrics.utilisation) < 0.5


@pytest.fixture(scope="module")
def pair(a100, mcm):
    """A GPU and an output-stationary array side by side."""
    types = jax.tree.map(lambda x, y: np.concatenate([x, y[mcm.type_names.index("os")][None]]), a100.types, mcm.types)
    kind = np.asarray([1, 0, 1, 0], np.int32)
    gpus = jax.tree.map(lambda x: np.concatenate([x, x]), a100.gpus)
    return replace(
        mcm, types=types, kind=kind, chiplets=types.pick(kind), type_names=("gpu", "os"), gpus=gpus, gpu_names=(NAME, ""),
        memory=a100.memory,
    )  # fmt: skip


@pytest.mark.slow
def test_columns_of_other_chiplets_are_untouched(tiny, pair, mcm):
    table, by_type = pm.cost_table(tiny, pair), pm.cost_table(tiny, pair, by_type=True)
    arrays = pm.cost_table(tiny, mcm.with_types(["os"] * 4))
    for name in ("compute_s", "transfer_s", "fill_s", "onchip_j", "working_bytes"):
        got = np.asarray(getattr(table, name))
        np.testing.assert_array_equal(got[:, [0, 2]], np.asarray(getattr(arrays, name))[:, :2], err_msg=name)
        np.testing.assert_allclose(got, np.asarray(getattr(by_type, name))[:, pair.kind], rtol=1e-6, err_msg=name)
    assert (np.asarray(table.compute_s)[:, 1] != np.asarray(table.compute_s)[:, 0]).all()


@pytest.mark.slow
def test_kinds_may_be_searched(tiny, pair):
    kinds = jnp.asarray([[0, 0, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1]])
    assignment = jnp.asarray(np.resize(np.arange(4, dtype=np.int8), (3, len(tiny.names))))
    table = pm.cost_table(tiny, pair, by_type=True)
    many = evaluate_many(tiny, pair, Schedule(assignment), kinds=kinds, table=table)
    for b in range(3):
        one = evaluate(tiny, pair.with_kinds(kinds[b]), Schedule(np.asarray(assignment[b])))
        assert float(many.latency_s[b]) == pytest.approx(float(one.latency_s), rel=1e-4)
        assert float(many.energy_j[b]) == pytest.approx(float(one.energy_j), rel=1e-4)


def test_what_cannot_be_done_is_refused(tiny, a100, pair):
    with pytest.raises(ValueError, match="dataflow is 'gpu': its kernels are a library's.*the mapper knows: ws"):
        map_workload(tiny, a100, population=8, generations=1)
    with pytest.raises(ValueError, match="a100-80gb: recompute cannot time the kernels of a GPU"):
        evaluate_many(tiny, a100, Schedule(jnp.zeros((1, len(tiny.names)), jnp.int8)), recompute=True)
    with pytest.raises(ValueError, match="chiplets are mixtures of types, some of them GPUs; needed: a table by type"):
        pm.cost_table(tiny, pair.with_kinds(jnp.full((4, 2), 0.5)))
    assert DATAFLOWS[-1] == "gpu"  # codes are places: later dataflows come behind


def fitted(path, *entries) -> str:
    """A parameter file: (gpu, source, family, variant, values) each."""
    write_entries(path, [Entry(*entry) for entry in entries], "a test")
    return str(path)


def test_fitted_constants_are_found(tmp_path):
    path = fitted(tmp_path / "p.json", (NAME, "slow", "elementwise", "add", {"passes": 3.0}),
                  (NAME, "vllm", "gemm", "bf16", {"launch_cycles": 77.0}), (NAME, "trt", "gemm", "fp8", {"launch_cycles": 88.0}),
                  ("L40S", "vllm", "gemm", "bf16", {"launch_cycles": 99.0}))  # fmt: skip
    first = gpu_kernels((NAME, ""), path)
    assert first.sources == ("vllm", "") and np.asarray(first.gemm.launch_cycles)[0, 0] == 77
    assert np.asarray(first.gemm.launch_cycles)[1, 0] != 77 and np.shape(first.elementwise.passes) == (2, 5)
    other = gpu_kernels((NAME,), path, "trt")
    assert np.asarray(other.gemm.launch_cycles)[0, 1] == 88 and np.asarray(other.gemm.launch_cycles)[0, 0] != 77
    slow = gpu_kernels((NAME,), path, "slow").elementwise.passes[0]
    assert slow[3] == 3 and not np.any(slow[[0, 1, 2, 4]] == 3)


SIZES = "name: w\noperators:\n  - {name: a, kind: gemm, k: 64, c: 64, p: 64}\n  - {name: b, kind: add, k: 64, p: 64, inputs: [a, a]}\n"


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PERFMODEL_NO_CACHE", "1")
    (tmp_path / "w.yaml").write_text(SIZES)

    def call(*more, system="a100-80gb"):
        code = cli.main(["evaluate", "--workload", str(tmp_path / "w.yaml"), "--system", system, *more])
        return code, capsys.readouterr()

    return call


@pytest.mark.slow
def test_the_command_takes_fitted_constants(command, tmp_path):
    slow = {"launch_cycles": 1.41e6}
    path = fitted(tmp_path / "p.json", (NAME, "vllm", "gemm", "sq", slow), (NAME, "trt", "gemm", "bf16", slow))
    code, out = command("--json")
    assert code == 0 and json.loads(out.out)["kernels"] is None
    usual = json.loads(out.out)["latency_s"]
    code, out = command("--json", "--parameters", path)
    got = json.loads(out.out)
    assert got["kernels"] == {"parameters": path, "sources": {NAME: "vllm"}}
    assert got["latency_s"] == pytest.approx(usual + 1e-3, rel=0.02)  # one launch of 1.41 million cycles
    code, out = command("--parameters", path, "--source", "trt")
    assert code == 0 and f"fitted in {path}: {NAME} as trt runs it" in out.out


@pytest.mark.parametrize("system, more, said", [
    ("h100-80gb", [], "no constants of gpu 'H100-SXM-80GB'; the file has: A100-SXM-80GB"),
    ("monolithic-os", [], "monolithic-os: no chiplet type has dataflow gpu; --parameters needs one that has"),
    ("a100-80gb", ["--source", "vlm"], "source for gpu A100-SXM-80GB is 'vlm': did you mean vllm? allowed: vllm"),
])  # fmt: skip
def test_the_command_refuses(command, tmp_path, system, more, said):
    path = fitted(tmp_path / "p.json", (NAME, "vllm", "gemm", "sq", {"launch_cycles": 1.0}))
    code, out = command("--parameters", path, *more, system=system)
    assert code == 2 and out.out == "" and len(out.err.splitlines()) == 1 and said in out.err


def test_a_source_without_a_file_is_refused(command):
    code, out = command("--source", "vllm")
    assert code == 2 and "--source vllm chooses among the libraries of a parameter file; give --parameters" in out.err
