"""Fusion as part of a schedule: by hand, against the NumPy twin, gradients, what it can and cannot make worse."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import evaluate
from oracles.numpy_evaluate import evaluate_numpy

import perfmodel as pm
from perfmodel.schedule import evaluate_one, fuse_schedule
from perfmodel.workload import BACKENDS, GraphBuilder, fuse, operator_row

COSTS = ("exec_s", "onchip_j", "input_refetch", "weight_refetch", "working_bytes", "launch_s", "moving_s")
FIELDS = ("throughput_per_s", "latency_s", "energy_j", "busy_s", "period_s")
DRAM = 64e9


def with_buffers(system, nbytes=None, scale=1.0, launch_s=0.0):
    n = system.n_chiplets
    size = np.full(n, float(nbytes)) if nbytes else np.asarray(system.chiplets.buffer_bytes) * scale
    return eqx.tree_at(lambda s: (s.chiplets.buffer_bytes, s.chiplets.launch_s), system, (size, np.full(n, launch_s)))


def memory_bytes(metrics, system):
    return np.asarray(metrics.busy_s)[..., -1] * float(system.memory.bytes_per_s[0])


def chain(*kinds, p=1024, k=64, c=64):
    graph, before = GraphBuilder("chain"), []
    for i, kind in enumerate(kinds):
        row = operator_row("gemm", k=k, c=c, p=p) if kind == "gemm" else operator_row(kind, k=k, p=p)
        before = [graph.add(f"{kind}{i}", row, before, 0.0 if before else float(p * c))]
    return graph.build()


@eqx.filter_jit
def _run(workload, system, schedule, table):
    return pm.evaluate(workload, system, schedule, table=table)


def run(workload, system, schedule, table=None):
    """Compiled once for a workload, whatever the buffers."""
    return _run(workload, system, schedule, pm.cost_table(workload, system) if table is None else table)


def evaluated(workload, system, fusion, table=None):
    """All on the first chiplet."""
    none = np.zeros(len(workload.source), bool)
    fusion = none if fusion is None else np.asarray(fusion, float)
    return run(workload, system, pm.Schedule(np.zeros(workload.n_operators, np.int32), fusion=fusion * 1.0), table)


def test_an_epilogue_by_hand(mcm, x64):
    """GEMM 1024 x 64 x 64 and ReLU, 64 KiB between them, in a buffer with room for 30,000 bytes beside the streaming tile.
    Two blocks of 64 rows are 8 KiB: fused, the tensor is neither written nor read and the ReLU is not launched; and beside the
    tile there is room for the 4 KiB of weights to stay, which otherwise come from memory before the input does."""
    workload = chain("gemm", "relu")
    tile = float(np.max(pm.cost_table(workload, mcm).working_bytes))
    system = with_buffers(mcm, tile + 30_000, launch_s=1e-6)
    plain, fused = evaluated(workload, system, None), evaluated(workload, system, np.ones(1, bool))
    np.testing.assert_allclose(memory_bytes(plain, system) - memory_bytes(fused, system), 2 * 65536 + 4096)
    np.testing.assert_allclose(
        plain.latency_s - fused.latency_s, (2 * 65536 + 4096) / DRAM + 2 * 200e-9 + 1e-6, rtol=1e-9
    )
    np.testing.assert_allclose(plain.busy_s[0] - fused.busy_s[0], 1e-6, rtol=1e-9)
    # half fused is half way
    half = evaluated(workload, system, np.asarray([0.5]))
    np.testing.assert_allclose(memory_bytes(half, system), memory_bytes(fused, system) + 65536 + 4096)
    # the tile must fit: 8192 bytes do, one byte less does not
    for room, saved in ((8192, 2 * 65536), (8191, 0)):
        small = with_buffers(mcm, tile + room)
        got = memory_bytes(evaluated(workload, small, None), small) - memory_bytes(
            evaluated(workload, small, np.ones(1)), small
        )
        np.testing.assert_allclose(got, saved, atol=1e-6)


def test_weights_that_all_tiles_need_are_kept_by_hand(mcm, x64):
    """GEMM 4096 x 64 -> 256, then 256 -> 64: 1 MiB between them, 32 KiB of it at a time, and 16 KiB of weights each, which stay
    for every tile: the stream fits in 64 KiB and not in less."""
    graph = GraphBuilder("two")
    first = graph.add("up", operator_row("gemm", k=256, c=64, p=4096), [], 4096.0 * 64)
    graph.add("down", operator_row("gemm", k=64, c=256, p=4096), [first])
    workload = graph.build()
    tile = float(np.max(pm.cost_table(workload, mcm).working_bytes))
    got = {}
    for room in (65536, 65535):
        system = with_buffers(mcm, tile + room)
        table = pm.cost_table(workload, system)
        saved = [memory_bytes(evaluated(workload, system, f, table=table), system) for f in (None, np.ones(1, bool))]
        got[room] = saved[0] - saved[1]
        refetch = float(table.input_refetch[1, 0])
    # a write, a read as often as the second needs it; its input no longer from memory, its weights are read once
    assert got[65535] == 0 and got[65536] >= (1 + refetch) * 2**20
    graph = GraphBuilder("norm")  # no weights, no array: the tile alone
    first = graph.add("norm", operator_row("layer_norm", k=256, p=4096), [], 4096.0 * 256)
    graph.add("norm2", operator_row("layer_norm", k=256, p=4096), [first])
    workload = graph.build()
    tile = float(np.max(pm.cost_table(workload, mcm).working_bytes))
    for room, saved in ((32768, 2 * 2**20), (32767, 0)):
        system = with_buffers(mcm, tile + room)
        plain, fused = (memory_bytes(evaluated(workload, system, f), system) for f in (None, np.ones(1, bool)))
        np.testing.assert_allclose(plain - fused, saved, atol=1e-6)


def test_windows_of_pixels_by_hand(mcm, x64):
    """A 3 x 3 convolution needs 3 + 1 rows of the 32 of its input, 16 channels x 32 pixels each: 2 KiB of 16."""
    graph, size = GraphBuilder("conv"), dict(k=16, p=32, q=32)
    first = graph.add("relu", operator_row("relu", **size), [], 16.0 * 32 * 32)
    graph.add("conv", operator_row("conv", c=16, r=3, s=3, **size), [first])
    workload = graph.build()
    tile, weights = float(np.max(pm.cost_table(workload, mcm).working_bytes)), 16 * 16 * 9
    for room, saved in ((2048 + weights, 2 * 2**14), (2047 + weights, 0)):
        system = with_buffers(mcm, tile + room)
        plain, fused = (memory_bytes(evaluated(workload, system, f), system) for f in (None, np.ones(1, bool)))
        assert (plain - fused >= saved) if saved else plain == fused


def test_a_stream_is_cut_where_it_does_not_fit(mcm, x64):
    """Tiles of a chain are all held until its end: in room for two of 8 KiB the third of four goes to memory, then it goes on."""
    workload = chain("relu", "relu", "relu", "relu", "relu")
    tile = float(np.max(pm.cost_table(workload, mcm).working_bytes))
    for tiles, in_memory in ((4, 0), (2, 1), (1, 2), (0.9, 4)):
        system = with_buffers(mcm, tile + tiles * 8192)
        m = evaluated(workload, system, np.ones(4, bool))
        np.testing.assert_allclose(memory_bytes(m, system), 2 * 65536 * (1 + in_memory))


def test_a_gpu_spares_what_its_kernels_do_not_move(x64):
    """Convolution, batch norm, ReLU: the convolution's own write is the last one, so both others take no time at all. Before a
    reader outside, an addition still reads its other operand: a third of what it moves."""
    system = pm.systems.load("a100-80gb")
    graph, size = GraphBuilder("block"), dict(k=256, p=56, q=56)
    skip = graph.add("skip", operator_row("relu", **size), [], 256.0 * 56 * 56)
    conv = graph.add("conv", operator_row("conv", c=64, **size), [], 64.0 * 56 * 56)
    norm = graph.add("bn", operator_row("batch_norm", **size), [conv])
    add = graph.add("add", operator_row("add", in_elements=2 * 256 * 56 * 56, **size), [norm, skip])
    graph.add("relu", operator_row("relu", **size), [add])
    workload = graph.build()
    table = pm.cost_table(workload, system)
    fused = np.asarray(
        [(s, t) in {(1, 2), (2, 3), (3, 4)} for s, t in zip(workload.source, workload.target, strict=True)]
    )
    plain, got = evaluated(workload, system, None, table=table), evaluated(workload, system, fused, table=table)
    exec_s, moving_s = np.asarray(table.exec_s)[:, 0], np.asarray(table.moving_s)[:, 0]
    np.testing.assert_allclose(plain.busy_s[0], exec_s.sum(), rtol=1e-12)
    # an addition moves 3 operands; it keeps the skip connection's
    np.testing.assert_allclose(got.busy_s[0], exec_s[0] + exec_s[1] + moving_s[3] / 3, rtol=1e-9)
    np.testing.assert_allclose(
        np.asarray(table.launch_s + table.moving_s)[[0, 2, 3, 4], 0], exec_s[[0, 2, 3, 4]], rtol=1e-12
    )
    assert moving_s[1] == 0 and 0 < float(table.launch_s[1, 0]) < exec_s[1]


def costs_of(table):
    return {name: np.asarray(getattr(table, name), np.float64) for name in COSTS}


@pytest.mark.parametrize(
    "name, scale",
    [
        ("gpt2", 0.3),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("gpt2", 0.05), ("resnet50", 0.05), ("resnet50", 1.0))
        ),
    ],
)
def test_a_batch_of_odd_size_equals_the_numpy_twin(name, scale, mcm, request):
    workload, rng = request.getfixturevalue(name), np.random.default_rng(1)
    system = with_buffers(mcm, scale=scale, launch_s=1e-6)
    assignment = np.sort(rng.integers(0, 4, (17, workload.n_operators)), axis=1).astype(np.int8)
    assignment[:4], assignment[4:6] = 0, rng.integers(0, 4, (2, workload.n_operators))
    fusion = rng.random((17, len(workload.source))) < rng.random((17, 1))
    fusion[:4] = [fuse(workload, backend).fused for backend in BACKENDS]
    table = pm.cost_table(workload, system, 2)
    schedules = pm.Schedule(assignment, sub_batch=np.float32(2), fusion=fusion)
    got = pm.evaluate_many(workload, system, schedules, table=table)
    want = evaluate_numpy(workload, system, assignment, costs_of(table), 2.0, fusion=fusion)
    for field in FIELDS:
        np.testing.assert_allclose(getattr(got, field), want[field], rtol=1e-5, err_msg=field)
    plain = pm.evaluate_many(workload, system, pm.Schedule(assignment, sub_batch=np.float32(2)), table=table)
    assert np.median(got.energy_j / plain.energy_j) <= 1.0


def test_a_gpu_equals_the_numpy_twin(resnet50):
    system, rng = pm.systems.load("a100-80gb"), np.random.default_rng(2)
    assignment = np.zeros((9, resnet50.n_operators), np.int8)
    fusion = rng.random((9, len(resnet50.source))) < 0.7
    fusion[:4] = [fuse(resnet50, backend).fused for backend in BACKENDS]
    table = pm.cost_table(resnet50, system)
    got = pm.evaluate_many(resnet50, system, pm.Schedule(assignment, fusion=fusion), table=table)
    want = evaluate_numpy(resnet50, system, assignment, costs_of(table), fusion=fusion)
    for field in ("throughput_per_s", "energy_j", "busy_s", "period_s"):  # a GPU's kernels wait for memory themselves
        np.testing.assert_allclose(getattr(got, field), want[field], rtol=1e-5, err_msg=field)
    assert got.busy_s[2, 0] < 0.7 * got.busy_s[0, 0]  # conv + batch norm + activation


def same(a, b, rtol=2e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x, float), np.asarray(y, float), rtol=rtol, atol=1e-30)


_PAIR = """
name: pair
technology: 12nm
types:
  ws: {dataflow: ws, rows: 64, columns: 64, clock: 500 MHz, lanes: 256, buffer: 10 MB, buffer_bandwidth: 2.048 TB/s,
       mac_energy: 0.56 pJ, lane_energy: 0.56 pJ, local_energy: 0.94 pJ/B, buffer_energy: 10.4 pJ/B, static_power: 200 mW}
chiplets:
  - {name: c0, type: ws, position: [0, 0]}
  - {name: c1, type: ws, position: [1, 0]}
package: {link: 100 GB/s, port: 100 GB/s, hop_latency: 35 ns, hop_energy: 2.04 pJ/bit}
memory:
  - {name: dram, capacity: 16 GB, bandwidth: 64 GB/s, latency: 200 ns, energy: 14.8 pJ/bit, static_power: 300 mW, price: 4 USD}
"""


@pytest.fixture(scope="module")
def small(tiny, tmp_path_factory):
    """Two chiplets with room for 6,000 bytes of activations beside the streaming tile."""
    path = tmp_path_factory.mktemp("pair") / "pair.yaml"
    path.write_text(_PAIR)
    system = pm.systems.load(str(path))
    return with_buffers(system, float(np.max(pm.cost_table(tiny, system).working_bytes)) + 6_000, launch_s=2e-8)


@pytest.fixture(scope="module")
def seven(tiny, small):
    """(assignments, fusions, table, batched metrics) of seven candidates."""
    rng, table = np.random.default_rng(3), pm.cost_table(tiny, small)
    assignment = np.sort(rng.integers(0, 2, (7, 9)), axis=1).astype(np.int32)
    fusion = rng.random((7, 10)) < 0.7
    batch = pm.evaluate_many(tiny, small, pm.Schedule(assignment.astype(np.int8), fusion=fusion), table=table)
    return assignment, fusion, table, batch


def test_jit_vmap_loop_and_eager_agree(tiny, small, seven):
    assignment, fusion, table, batch = seven
    mapped = jax.jit(jax.vmap(lambda a, f: pm.evaluate(tiny, small, pm.Schedule(a, fusion=f), table=table)))
    same(batch, mapped(jnp.asarray(assignment), jnp.asarray(fusion, jnp.float32)))  # relaxed at its corners
    one = pm.Schedule(assignment[3], fusion=fusion[3])
    for i in (0, 6, 3):
        one = pm.Schedule(assignment[i], fusion=fusion[i])
        same(run(tiny, small, one, table), jax.tree.map(lambda x, i=i: x[i], batch))
    same(run(tiny, small, one, table), pm.evaluate(tiny, small, one, table=table))


@pytest.mark.slow
def test_one_hot_placements_orders_and_costs_made_inside_agree(tiny, small, seven):
    assignment, fusion, table, batch = seven
    mapped = jax.jit(jax.vmap(lambda a, f: pm.evaluate(tiny, small, pm.Schedule(a, fusion=f), table=table)))
    same(batch, mapped(jnp.asarray(np.eye(2, dtype=np.float32)[assignment]), jnp.asarray(fusion, jnp.float32)), 1e-5)
    one = pm.Schedule(assignment[6], fusion=fusion[6], order=np.arange(9, dtype=np.int32))
    same(run(tiny, small, one, table), jax.tree.map(lambda x: x[6], batch))
    own = eqx.tree_at(lambda s: s.chiplets, small, jax.tree.map(lambda x: np.stack([x] * 7), small.chiplets))
    made = pm.evaluate_many(tiny, own, pm.Schedule(assignment.astype(np.int8), fusion=fusion), recompute=True)
    same(batch, made, 1e-5)


@pytest.mark.slow
def test_no_edge_fused_is_no_fusion(both, mcm):
    """The same numbers to the bit, and as long as nothing is fused, nothing of it is in the program."""
    system = with_buffers(mcm, scale=0.1, launch_s=1e-6)
    table = pm.cost_table(both, system)
    assignment = np.random.default_rng(4).integers(0, 4, (3, both.n_operators)).astype(np.int8)
    plain = pm.evaluate_many(both, system, pm.Schedule(assignment), table=table)
    none = pm.evaluate_many(
        both, system, pm.Schedule(assignment, fusion=np.zeros((3, len(both.source)), bool)), table=table
    )
    same(plain, none, 1e-6)
    assert len(jax.tree.leaves(pm.Schedule(assignment))) == 2


def test_fusion_stops_between_chiplets_and_windows(tiny, small):
    table, every = pm.cost_table(tiny, small), np.ones(10, bool)
    apart = pm.Schedule((np.arange(9) % 3 == 2).astype(np.int32))
    edges = list(zip(tiny.source, tiny.target, strict=True))
    within = np.asarray([apart.assignment[s] == apart.assignment[t] for s, t in edges])
    assert within.any() and not within.all()
    same(*(run(tiny, small, replace(apart, fusion=f), table) for f in (every, within)))
    window = np.asarray([0, 0, 0, 1, 1, 1, 1, 1, 1], np.int32)
    cut = pm.Schedule(np.zeros(9, np.int32), window=window, n_windows=2)
    inside = np.asarray([window[s] == window[t] for s, t in edges])
    same(*(run(tiny, small, replace(cut, fusion=f), table) for f in (every, inside)))
    none, some = (run(tiny, small, replace(cut, fusion=f), table) for f in (None, inside))
    assert float(some.energy_j) < float(none.energy_j)


@pytest.mark.parametrize("smooth, relaxed", [
    (True, False), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((False, False), (False, True), (True, True))),
])  # fmt: skip
def test_gradient_of_relaxed_fusion(tiny, small, smooth, relaxed, x64):
    """Through memory, energy and latency, also where a whole tensor does not fit by far."""
    rng, table = np.random.default_rng(5), pm.cost_table(tiny, small)
    placed = jax.nn.softmax(jnp.asarray(rng.normal(size=(9, 2)) + 3.0 * np.eye(2)[0]))
    sigma, away = jnp.asarray(rng.uniform(0.1, 0.9, 10)), jnp.asarray(rng.normal(size=10))

    where = placed if relaxed else jnp.zeros(9, jnp.int32)

    @jax.jit
    @jax.value_and_grad
    def found(s):
        m = evaluate(tiny, small, pm.Schedule(where, fusion=s), table=table, smooth=smooth, temperature=0.3)
        return jnp.log(m.period_s) + jnp.log(m.energy_j) + jnp.log(m.latency_s)

    (_, slope), h = found(sigma), 1e-6
    change = found(sigma + h * away)[0] - found(sigma - h * away)[0]
    np.testing.assert_allclose(jnp.sum(slope * away), change / (2 * h), rtol=1e-5)
    assert np.all(np.isfinite(slope)) and np.abs(slope).max() > 1e-4
    assert all(np.all(np.isfinite(found(jnp.full(10, end))[1])) for end in (0.0, 1.0))


def random_graph(rng):
    graph, n = GraphBuilder("random"), int(rng.integers(3, 9))
    for row in range(n):
        kind = str(rng.choice(["gemm", "relu", "add", "layer_norm", "conv", "softmax", "mul"]))
        inputs = sorted(set(rng.integers(max(0, row - 3), row, rng.integers(1, 4)).tolist())) if row else []
        if kind == "gemm":
            sizes = dict(k=64, c=64, p=256)
        elif kind == "conv":
            sizes = dict(k=64, c=64, p=16, q=16, r=3, s=3)
        else:
            sizes = dict(k=64, p=256, in_elements=64 * 256 * max(len(inputs), 1))
        graph.add(f"{kind}{row}", operator_row(kind, **sizes), inputs, 0.0 if inputs else 64.0 * 256)
    return graph.build()


@pytest.mark.slow
@pytest.mark.parametrize("on_gpu", [False, True])
def test_more_fusion_is_never_worse_unless_it_pushes_a_tensor_out(on_gpu):
    """Memory traffic, latency and energy, edge after edge. What a stream holds (tiles of the whole chain, weights that every
    tile needs) may be more than a tensor that was in memory before, and may push another one out: the only way to lose."""
    rng, better, lost = np.random.default_rng(7), 0, 0
    for _ in range(8):
        workload = random_graph(rng)
        system = pm.systems.load("a100-80gb") if on_gpu else pm.systems.load("monolithic-os")
        n, base = len(workload.source), np.zeros(workload.n_operators, np.int32)
        recorded = eqx.filter_jit(
            lambda s, f, t, w=workload, a=base: evaluate_one(
                w, s, pm.Schedule(a, fusion=f), t, False, 0.05, record=True
            )
        )
        for _ in range(1 if on_gpu else 8):
            if not on_gpu:
                system = with_buffers(system, 20_000 + 10 ** rng.uniform(3.3, 5.3), launch_s=1e-7)
            table, fusion, last = pm.cost_table(workload, system), np.zeros(n), None
            for edge in rng.permutation(n)[:6]:
                m, seen, _ = recorded(system, jnp.asarray(fusion), table)
                assert seen is not None
                now = np.asarray([memory_bytes(m, system), m.latency_s, m.energy_j]), np.asarray(seen.held)
                if last is not None:
                    worse = np.any(now[0] > last[0] * (1 + 1e-6))
                    assert not worse or np.any(now[1] < last[1])
                    better, lost = better + np.any(now[0] < last[0] * (1 - 1e-6)), lost + worse
                last, fusion = now, fusion.copy()
                fusion[edge] = 1.0
    assert better > 15 and lost < better / 5


def test_a_stream_may_push_another_tensor_out(mcm, x64):
    """A (64 KiB, in memory) and B (16 KiB) are live together. Fused, A's stream takes 8 KiB and B no longer fits."""
    graph = GraphBuilder("pair")
    a = graph.add("a", operator_row("relu", k=64, p=1024), [], 65536.0)
    b = graph.add("b", operator_row("relu", k=64, p=256), [], 16384.0)
    late = graph.add("c", operator_row("relu", k=64, p=1024), [a])
    graph.add("d", operator_row("add", k=64, p=256, in_elements=64 * 256 + 65536), [b, late])
    workload = graph.build()
    system = with_buffers(mcm, float(np.max(pm.cost_table(workload, mcm).working_bytes)) + 20_000)
    fused = np.asarray([s == 0 for s in workload.source])
    plain, got = evaluated(workload, system, None), evaluated(workload, system, fused)
    # A's write and read go, B's come
    np.testing.assert_allclose(memory_bytes(plain, system) - memory_bytes(got, system), 2 * 65536 - 2 * 16384)


def test_rules_make_schedules(gpt2, mcm):
    schedule = pm.Schedule.on_chiplet(gpt2, 0)
    assert fuse_schedule(gpt2, schedule, "none").fusion is None
    fused = fuse_schedule(gpt2, schedule, "dataflow")
    assert fused.fusion is not None and fused.fusion.sum() == fuse(gpt2, "dataflow").fused.sum()
    system = with_buffers(mcm, scale=0.1)
    energy = [float(evaluated(gpt2, system, fuse_schedule(gpt2, schedule, b).fusion).energy_j) for b in BACKENDS]
    assert energy[0] > energy[1] > energy[2] >= energy[3] * (1 - 1e-6)
    with pytest.raises(ValueError, match="fusion backend"):
        fuse_schedule(gpt2, schedule, "magic")


@pytest.mark.parametrize("fusion, said", [
    (np.ones(9, bool), r"schedule.fusion has shape \(9,\); needed: \(10,\)"),
    (np.full(10, 1.5), "schedule.fusion contains 1.5; allowed: 0 to 1"),
    (np.full(10, -0.5), "schedule.fusion contains -0.5; allowed: 0 to 1"),
    (np.full(10, np.nan), "schedule.fusion contains nan; allowed: 0 to 1"),
])  # fmt: skip
def test_what_cannot_belong_is_refused(fusion, said, tiny, mcm):
    with pytest.raises(ValueError, match=said):
        pm.evaluate(tiny, mcm, pm.Schedule(np.zeros(9, np.int32), fusion=fusion))
