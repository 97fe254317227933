"""The allocator: addresses by hand, no two live objects overlap, who is spilled first, chiplets with memory of their own."""

from dataclasses import replace

import equinox as eqx
import numpy as np
import pytest
from compiled import evaluate
from hypothesis import given
from hypothesis import strategies as st
from tier_systems import FAST, SLOW, load

import perfmodel as pm
from perfmodel.schedule import CLASSES, allocate
from perfmodel.schedule._allocate import _Objects, _Space
from perfmodel.workload import GraphBuilder, operator_row


def chain(sizes=(4096, 8192, 2048)):
    """Additions over ever other sizes: `sizes[0]` bytes come in, the last go out; a GEMM's weights at the end."""
    g = GraphBuilder("chain")
    row = g.add("in", operator_row("relu", k=sizes[0], in_elements=sizes[0]), outside_bytes=float(sizes[0]))
    for i, size in enumerate(sizes[1:]):
        row = g.add(f"step{i}", operator_row("relu", k=size, in_elements=sizes[i]), [row])
    g.add("gemm", operator_row("gemm", k=64, c=64, p=sizes[-1] // 64), [row])
    return g.build()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    system = load(tmp_path_factory.mktemp("allocate"))
    return eqx.tree_at(lambda s: s.chiplets.buffer_bytes, system, np.asarray([1.0]))


def overlaps(a):
    """Pairs of objects of one tier that are live together and share an address."""
    found = []
    for i in range(len(a.row)):
        for j in range(i):
            together = a.model[i] != a.model[j] or (a.begin[i] <= a.end[j] and a.begin[j] <= a.end[i])
            same = a.tier[i] == a.tier[j] and a.memory[i] == a.memory[j]
            apart = (
                a.offset_bytes[i] + a.size_bytes[i] <= a.offset_bytes[j]
                or a.offset_bytes[j] + a.size_bytes[j] <= a.offset_bytes[i]
            )
            if together and same and not apart:
                found.append((i, j))
    return found


def where(a):
    return {(name, kind): (int(t), int(o)) for name, kind, t, o in zip(a.names, a.kind, a.tier, a.offset_bytes, strict=True)
            if kind == "weights"} | {(name, int(b)): (int(t), int(o)) for name, kind, b, t, o in
            zip(a.names, a.kind, a.end, a.tier, a.offset_bytes, strict=True) if kind == "activations"}  # fmt: skip


def test_addresses_by_hand(bare):
    """4096 B of weights at 0 for good; results 4096 -> 8192 -> 2048 bytes, each beside the next; inputs and outputs too.

    By traffic: step0's result (8192 written and read), then the first (4096), then the third (2048); 10,000 B of the fast tier."""
    work = chain()
    a = allocate(work, bare, pm.Schedule.on_chiplet(work, 0))
    assert not overlaps(a) and a.fits
    found = where(a)
    assert found["gemm", "weights"] == (0, 0)
    assert found["step0", 2] == (1, 0)  # 4096 + 8192 > 10,000: it would move the most, but does not fit beside weights
    assert found["in", 1] == (0, 4096)  # 4096 to 8192
    assert found["step1", 3] == (0, 4096)  # 2048, when `in` is dead: the same address
    assert a.spilled_bytes.tolist()[0] >= 8192 and a.over_bytes.tolist() == [0, 0]
    assert a.used_bytes[0] <= 10_000
    # what a schedule with these shares asks of the tiers is what the allocator gave
    m = evaluate(work, bare, replace(pm.Schedule.on_chiplet(work, 0), tiers=a.shares))
    assert float(m.violations[0]) == 0
    moved = [float(a.traffic_bytes[a.tier == t].sum()) for t in (0, 1)]
    rates = np.asarray(m.busy_s)[-2:]
    assert rates[1] == pytest.approx(moved[1] / 10e9, rel=1e-5)
    assert moved[0] / 100e9 <= rates[0] <= moved[0] / 50e9


def test_priorities_decide_who_is_spilled(bare):
    work = chain()
    schedule = pm.Schedule.on_chiplet(work, 0)
    activations = allocate(work, bare, schedule, priority=("activations", "caches", "weights"))
    assert where(activations)["step0", 2] == (0, 0) and where(activations)["gemm", "weights"][0] == 1
    alike = allocate(work, bare, schedule, priority=())
    most = int(np.argmax(alike.traffic_bytes))
    assert (alike.tier[most], alike.offset_bytes[most]) == (0, 0)
    density = allocate(work, bare, schedule, priority=(), by="density")
    assert not overlaps(density)
    for wrong, said in ((dict(priority=("tensors",)), "priority is 'tensors'"), (dict(by="size"), "by is 'size'")):
        with pytest.raises(ValueError, match=said):
            allocate(work, bare, schedule, **wrong)
    with pytest.raises(ValueError, match="hard schedule"):
        allocate(work, bare, pm.Schedule.relaxed(np.ones((work.n_operators, 1), np.float32)))


def test_the_smallest_traffic_leaves_first(bare):
    """Three resident-for-good weights, room for two: the one that moves the fewest bytes goes, whatever the order of rows."""
    g = GraphBuilder("w")
    row = None
    for i, k in enumerate((32, 64, 48)):
        row = g.add(
            f"g{i}",
            operator_row("gemm", k=k, c=64, p=4),
            [] if row is None else [(row, 256.0)],
            outside_bytes=0 if row else 256,
        )
    work = g.build()
    system = eqx.tree_at(lambda s: s.memory.capacity_bytes, bare, np.array([64.0 * (64 + 48), 1e9]))
    a = allocate(work, system, pm.Schedule.on_chiplet(work, 0))
    tiers = {n: int(t) for n, k, t in zip(a.names, a.kind, a.tier, strict=True) if k == "weights"}
    assert tiers == {"g0": 1, "g1": 0, "g2": 0}


def test_over_capacity_is_told_in_bytes(bare):
    work = chain()
    system = eqx.tree_at(lambda s: s.memory.capacity_bytes, bare, np.array([4000.0, 9000.0]))
    a = allocate(work, system, pm.Schedule.on_chiplet(work, 0))
    assert not a.fits and a.over_bytes[0] == 0
    assert a.over_bytes[1] == a.used_bytes[1] - 9000 and not overlaps(a)


def test_every_chiplet_has_its_own(tmp_path):
    own = load(tmp_path, chiplets=2, tiers=(FAST | {"attachment": "chiplet"}, SLOW))
    own = eqx.tree_at(lambda s: s.chiplets.buffer_bytes, own, np.asarray([1.0, 1.0]))
    both = pm.merge([chain(), chain()])
    n = both.n_operators // 2
    a = allocate(both, own, pm.Schedule(np.repeat([0, 1], n).astype(np.int32)))
    assert set(a.memory[a.tier == 0]) == {0, 1} and set(a.memory[a.tier == 1]) <= {-1}
    assert not overlaps(a) and a.used_bytes[0] <= 10_000
    first = {n: (t, o) for (n, _), (t, o) in where(a).items() if n.startswith("chain/")}
    second = {n.replace("#2", ""): (t, o) for (n, _), (t, o) in where(a).items() if n.startswith("chain#2/")}
    assert {k: v for k, v in first.items() if v[0] == 0} == {k: v for k, v in second.items() if v[0] == 0}
    # on one chiplet they are live together, whenever
    assert not overlaps(allocate(both, own, pm.Schedule.on_chiplet(both, 0)))


def test_caches_come_after_weights():
    system = pm.systems.load("tpu-v4i")
    work = pm.models.load("gpt2", phase="decode", context=512, batch=8, dtype="bf16")
    a = allocate(work, system, pm.Schedule.on_chiplet(work, 0))
    kind, size = np.asarray(a.kind), a.size_bytes
    assert size[kind == "weights"].sum() == pytest.approx(work.weight_bytes, abs=len(size))
    assert size[kind == "caches"].sum() == pytest.approx(work.kv_cache_bytes, rel=1e-5)
    assert (a.tier[kind == "caches"] == 1).any() and not overlaps(a)
    assert a.used_bytes[0] <= 128e6 and a.fits
    assert list(CLASSES) == ["weights", "caches", "activations"]


@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.integers(0, 20), st.integers(0, 8), st.integers(0, 1)), min_size=1, max_size=40
    )
)
def test_no_two_live_objects_overlap(objects):
    size, begin, length, model = (np.asarray(x, np.int64) for x in zip(*objects, strict=True))
    n, end = len(size), begin + length
    space = _Space(_Objects([""] * n, [""] * n, size, size, size, begin, end, model, size.astype(float)))
    at = np.zeros(n, np.int64)
    for i in range(n):
        at[i] = space.lowest(i)
        space.put(i, at[i])
    for i in range(n):
        for j in range(i):
            if model[i] != model[j] or (begin[i] <= end[j] and begin[j] <= end[i]):
                assert at[i] + size[i] <= at[j] or at[j] + size[j] <= at[i]
    # never more than everything side by side, never less than what is live at a time
    live = (
        max(sum(s for s, b, e in zip(size, begin, end, strict=True) if b <= t <= e) for t in range(30))
        if len(set(model)) == 1
        else 0
    )
    assert live <= space.top <= size.sum()
