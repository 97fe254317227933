"""The cost table: by hand, gradients, jit and vmap, properties."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.cost import operator_cost, with_sub_batch
from perfmodel.hardware import DATAFLOWS
from perfmodel.workload import operator_row, stack_operators

COSTS = (
    "compute_s", "transfer_s", "fill_s", "onchip_j", "weight_bytes", "input_refetch", "weight_refetch", "working_bytes",
)  # fmt: skip


def costs(table) -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(table, name)) for name in (*COSTS, "exec_s")}


def assert_same(one, other, rtol=1e-6):
    for name, value in costs(one).items():
        np.testing.assert_allclose(value, costs(other)[name], rtol=rtol, err_msg=name)


def with_chiplets(system, **fields):
    names = tuple(fields)
    old = system.chiplets
    new = [jnp.broadcast_to(jnp.asarray(fields[n]), np.shape(getattr(old, n))) for n in names]
    return eqx.tree_at(lambda s: [getattr(s.chiplets, n) for n in names], system, new)


def test_conv1_of_resnet_by_hand(resnet50, mcm):
    table, i = pm.cost_table(resnet50, mcm), resnet50.names.index("conv1")
    ws, os = costs(table)["compute_s"][i, 0], costs(table)["compute_s"][i, 3]
    assert ws == pytest.approx(49 * 112 * 112 / 500e6) and os == pytest.approx(2 * 2 * 64 * 147 / 500e6)
    got = {name: value[i, 0] for name, value in costs(table).items()}
    moved = 12544 * 42 + 64 * 147 + 802816  # see test_dataflow
    # padding is never read: 7 rows of 224 pixels a row of results; local stores as in test_dataflow
    macs = 802816 * 147
    local = 64 * 147 + macs / 112 + 12544 * 42 + 3 * 49 * 12544 + 802816 * 386
    assert got["transfer_s"] == pytest.approx(moved / 2.048e12)
    assert got["fill_s"] == pytest.approx(128 / 500e6)
    assert got["exec_s"] == pytest.approx((49 * 112 * 112 + 128) / 500e6)  # the array is never starved
    joules = macs * 0.56e-12 + local * 0.9408e-12 + moved * 10.4216e-12
    assert got["onchip_j"] == pytest.approx(joules, rel=1e-6)
    assert got["weight_bytes"] == 64 * 147
    assert got["input_refetch"] == got["weight_refetch"] == 1


def test_relu_of_resnet_by_hand(resnet50, mcm):
    table, i = pm.cost_table(resnet50, mcm), resnet50.names.index("relu1")
    got = {name: value[i, 0] for name, value in costs(table).items()}
    assert got["compute_s"] == got["exec_s"] == pytest.approx(802816 / 256 / 500e6) and got["fill_s"] == 0
    assert got["onchip_j"] == pytest.approx(802816 * 0.56e-12 + 2 * 802816 * 10.4216e-12)


def test_slow_buffer_bounds_and_launch_adds(tiny, mcm):
    slow = costs(pm.cost_table(tiny, with_chiplets(mcm, buffer_bytes_per_s=1e9, launch_s=1e-6)))
    plain = costs(pm.cost_table(tiny, mcm))
    np.testing.assert_allclose(slow["transfer_s"], plain["transfer_s"] * 2048, rtol=1e-6)
    np.testing.assert_allclose(slow["fill_s"], plain["fill_s"] + 1e-6, rtol=1e-5)
    np.testing.assert_allclose(slow["exec_s"], np.maximum(slow["compute_s"], slow["transfer_s"]) + slow["fill_s"])


def test_shapes_and_columns(tiny, tiny_table, mcm):
    by_type = pm.cost_table(tiny, mcm, by_type=True)
    assert tiny_table.exec_s.shape == (9, 4) and tiny_table.column is None
    assert by_type.exec_s.shape == (9, 3) and by_type.column.tolist() == [0, 0, 0, 1]
    for name, value in costs(tiny_table).items():
        np.testing.assert_array_equal(costs(by_type)[name][:, by_type.column], value)


def test_table_is_elementwise(tiny, tiny_table, mcm):
    """Each entry is `operator_cost` of one operator on one chiplet: the walk costs a candidate's own hardware so."""
    entry = jax.jit(operator_cost)
    for row in range(tiny.n_operators):
        for d in (0, 3):
            op = jax.tree.map(lambda x, row=row: x[row], tiny.operators)
            chip = jax.tree.map(lambda x, d=d: x[d], mcm.chiplets)
            for name, value in costs(entry(op, chip)).items():
                np.testing.assert_allclose(value, costs(tiny_table)[name][row, d], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name, options", [("resnet50", {}), ("gpt2", {"seq_len": 64})])
@pytest.mark.parametrize("passes", [1, 3])
def test_sub_batch_is_a_larger_batch(name, options, passes, mcm):
    one, many = pm.models.load(name, **options), pm.models.load(name, batch=passes, **options)
    assert_same(pm.cost_table(one, mcm, passes), pm.cost_table(many, mcm))
    scaled = with_sub_batch(one.operators, passes)
    np.testing.assert_allclose(scaled.macs, many.operators.macs, rtol=1e-6)
    np.testing.assert_array_equal(scaled.weight_elements, one.operators.weight_elements)


# Odd sizes and a small buffer, so that ceilings and refetches matter; away from the kinks of min and max.
BASE = dict(
    rows=6.3, columns=10.7, clock_hz=7e8, lanes=33.0, buffer_bytes=3000.0, buffer_bytes_per_s=4e9, launch_s=1e-7,
    mac_j=0.5e-12, lane_op_j=0.4e-12, local_j_per_byte=0.9e-12, buffer_j_per_byte=9e-12,
)  # fmt: skip


def smooth_costs(tiny, mcm):
    """Logarithms of total time, energy and fetches as functions of relative changes to each field of all chiplets."""

    def function(change):
        system = with_chiplets(mcm, **{name: value * (1 + change[i]) for i, (name, value) in enumerate(BASE.items())})
        table = pm.cost_table(tiny, system, 1.7, smooth=True)
        fetched = table.input_refetch * tiny.operators.in_elements[:, None] + table.weight_refetch * table.weight_bytes
        return jnp.log(jnp.stack([table.exec_s.sum(), table.onchip_j.sum(), fetched.sum(), table.working_bytes.sum()]))

    return function


def test_gradients_against_central_differences(tiny, mcm, x64):
    function = jax.jit(smooth_costs(tiny, mcm))
    zero = jnp.zeros(len(BASE))
    slopes = np.asarray(jax.jit(jax.jacrev(smooth_costs(tiny, mcm)))(zero))
    assert slopes.dtype == np.float64 and np.isfinite(slopes).all()
    step = 1e-6
    for i, name in enumerate(BASE):
        central = (function(zero.at[i].set(step)) - function(zero.at[i].set(-step))) / (2 * step)
        np.testing.assert_allclose(slopes[:, i], central, rtol=1e-6, atol=1e-8, err_msg=name)
    time, energy, fetched, _ = ({name: row[i] for i, name in enumerate(BASE)} for row in slopes)
    assert time["clock_hz"] < 0 and time["buffer_bytes_per_s"] < 0 and time["launch_s"] > 0
    assert fetched["buffer_bytes"] < 0
    # energy is made of exactly these parts, so their relative slopes are shares
    shares = [energy[name] for name in ("mac_j", "lane_op_j", "local_j_per_byte", "buffer_j_per_byte")]
    assert min(shares) > 0 and sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("smooth", [pytest.param(False, marks=pytest.mark.slow), True])
def test_jit_is_eager(tiny, mcm, smooth):
    system = with_chiplets(mcm, **BASE)
    compiled = pm.cost_table(tiny, system, 3, smooth=smooth)
    with jax.disable_jit():
        eager = pm.cost_table(tiny, system, 3, smooth=smooth)
    assert_same(compiled, eager)
    nested = eqx.filter_jit(lambda s, b: pm.cost_table(tiny, s, b, smooth=smooth))(system, 3)
    assert_same(compiled, nested)


@pytest.mark.parametrize("batch", [7, 33])
def test_vmap_is_a_loop(tiny, mcm, batch):
    rng = np.random.default_rng(batch)
    fields = dict(
        rows=rng.integers(1, 100, batch), columns=rng.integers(1, 100, batch), clock_hz=rng.uniform(1e8, 2e9, batch),
        buffer_bytes=rng.uniform(500, 1e5, batch), buffer_bytes_per_s=rng.uniform(1e9, 1e12, batch),
    )  # fmt: skip
    fields = {name: value.astype(np.float32) for name, value in fields.items()}
    sub_batch = rng.integers(1, 9, batch).astype(np.float32)

    def one(changes, b):
        return pm.cost_table(tiny, with_chiplets(mcm, **changes), b)

    many = jax.jit(jax.vmap(one))(fields, sub_batch)
    for i in range(batch):
        alone = one({name: value[i] for name, value in fields.items()}, sub_batch[i])
        assert_same(jax.tree.map(lambda x, i=i: x[i], many), alone)


def test_a_system_closed_over_by_jit_costs_the_same(mcm):
    rows = [operator_row("gemm", k=k, c=k, p=8) for k in (21, 42, 49, 77, 84)]
    graph = pm.workload.GraphBuilder("sevens")
    for row in rows:
        graph.add("gemm", row)
    workload, system = graph.build(), with_chiplets(mcm, rows=7.0, columns=7.0, dataflow=0)
    system = jax.tree.map(np.asarray, system)
    closed = jax.jit(lambda sub_batch: pm.cost_table(workload, system, sub_batch))(1.0)
    assert_same(pm.cost_table(workload, system, 1.0), closed)


def test_no_retrace_for_other_numbers(tiny, mcm):
    traces = 0

    @eqx.filter_jit
    def table(system, sub_batch):
        nonlocal traces
        traces += 1
        return pm.cost_table(tiny, system, sub_batch).exec_s

    for clock in (1e8, 2e8, 3e8):
        table(with_chiplets(mcm, clock_hz=clock), jnp.float32(clock / 1e8))
    assert traces == 1


OPERATORS = st.one_of(
    st.fixed_dictionaries({
        "kind": st.just("conv"), "batch": st.integers(1, 3), "k": st.integers(1, 200), "c": st.integers(1, 200),
        "p": st.integers(1, 40), "q": st.integers(1, 40), "r": st.integers(1, 5), "s": st.integers(1, 5),
        "stride": st.integers(1, 2),
    }),
    st.fixed_dictionaries({
        "kind": st.sampled_from(["gemm", "attention_gemm"]), "groups": st.integers(1, 8), "k": st.integers(1, 500),
        "c": st.integers(1, 500), "p": st.integers(1, 500),
    }),
    st.fixed_dictionaries({"kind": st.sampled_from(["relu", "softmax", "layer_norm"]), "k": st.integers(1, 5000)}),
)  # fmt: skip
CHIPS = st.fixed_dictionaries({
    "rows": st.integers(1, 128), "columns": st.integers(1, 128), "dataflow": st.integers(0, len(DATAFLOWS) - 1),
    "clock_hz": st.floats(1e7, 3e9), "lanes": st.integers(1, 512), "buffer_bytes": st.floats(1e3, 1e7),
    "buffer_bytes_per_s": st.floats(1e8, 1e13),
})  # fmt: skip
entry = jax.jit(operator_cost, static_argnames="smooth")


def cost_of(op, chip, smooth=False):
    row = jax.tree.map(lambda x: jnp.asarray(x[0]), stack_operators([operator_row(**op)]))
    base = jax.tree.map(lambda x: x[0], pm.systems.load("mcm-2x2").chiplets)
    names = tuple(chip)
    new = [np.int32(chip[n]) if n == "dataflow" else np.float32(chip[n]) for n in names]
    return row, costs(entry(row, eqx.tree_at(lambda c: [getattr(c, n) for n in names], base, new), smooth=smooth))


@given(OPERATORS, CHIPS, st.booleans())
def test_every_cost_is_finite_and_not_negative(op, chip, smooth):
    row, got = cost_of(op, chip, smooth)
    assert all(np.isfinite(v) and v >= 0 for v in got.values()), got
    assert got["compute_s"] > 0 and got["onchip_j"] > 0
    # never faster than all PEs (lanes) at work all the time
    peak = chip["rows"] * chip["columns"] * chip["clock_hz"]
    assert float(row.macs) <= got["compute_s"] * peak * (1 + 1e-4)
    if not row.is_matrix:
        assert float(row.lane_ops) <= got["compute_s"] * chip["lanes"] * chip["clock_hz"] * (1 + 1e-4)


@given(OPERATORS, CHIPS, st.sampled_from(["clock_hz", "buffer_bytes_per_s", "lanes"]), st.floats(1, 8), st.booleans())
def test_faster_parts_never_take_longer(op, chip, field, times, smooth):
    _, slow = cost_of(op, chip, smooth)
    _, fast = cost_of(op, {**chip, field: chip[field] * times}, smooth)
    assert fast["exec_s"] <= slow["exec_s"] * (1 + 1e-5)
    assert fast["onchip_j"] == pytest.approx(slow["onchip_j"], rel=1e-5)


@given(OPERATORS, CHIPS, st.floats(1, 8), st.booleans())
def test_more_buffer_never_costs_more(op, chip, times, smooth):
    _, small = cost_of(op, chip, smooth)
    row, large = cost_of(op, {**chip, "buffer_bytes": chip["buffer_bytes"] * times}, smooth)
    # row-stationary arrays fill their buffer with sums, so that what is on the chip depends on its size
    for name in ("exec_s", "onchip_j", "working_bytes")[2 * (DATAFLOWS[chip["dataflow"]] == "rs") :]:
        assert large[name] == pytest.approx(small[name], rel=1e-6)
    # the mapper may change sides (fewer weight fetches for more input fetches), but what it moves in all never grows
    inputs = float(row.in_elements / row.groups)
    weights = float(row.k * row.c * row.r * row.s)
    moved = [t["input_refetch"] * inputs + t["weight_refetch"] * weights for t in (small, large)]
    assert moved[1] <= moved[0] * (1 + 1e-5)
