"""Closed forms against the loop nests of their stated mappings, and those against a walk that counts words."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from oracles.loop_walk import moved_words

import perfmodel as pm
from perfmodel.cost import chiplet_machine, closed_form_nest, counts, loopnest_cost, on_chip, table_conventions
from perfmodel.hardware import DATAFLOWS
from perfmodel.workload import operator_row, stack_operators

FLOWS = ("ws", "os", "os-flex", "os-systolic", "ws-systolic", "is-systolic", "rs")
READ_DOWN, WRITE_UP = 0, 1
MANY = 32  # operators of one example: one compiled program


@pytest.fixture(scope="module")
def mcm():
    return pm.systems.load("mcm-2x2")


def _size(most):
    return st.integers(1, most)


CONV = st.fixed_dictionaries({
    "groups": _size(3), "batch": _size(3), "k": _size(200), "c": _size(200), "p": _size(60), "q": _size(60), "r": _size(5),
    "s": _size(5), "stride": _size(3),
})  # fmt: skip
DEPTHWISE = st.fixed_dictionaries({
    "groups": _size(300), "batch": _size(2), "k": st.just(1), "p": _size(60), "q": _size(60),
    "r": _size(5), "s": _size(5), "stride": _size(3),
})  # fmt: skip
TINY = st.fixed_dictionaries({name: _size(3) for name in ("groups", "batch", "k", "c", "p", "q", "r", "s", "stride")})
GEMM = st.fixed_dictionaries({"k": _size(900), "c": _size(900), "p": _size(900)})
ATTENTION = st.fixed_dictionaries(
    {"groups": _size(12), "batch": _size(3), "k": _size(300), "c": _size(80), "p": _size(300)}
)
OPERATOR = st.one_of(
    *(sizes.map(lambda x: ("conv", x)) for sizes in (CONV, DEPTHWISE, TINY)),
    GEMM.map(lambda x: ("gemm", x)),
    ATTENTION.map(lambda x: ("attention_gemm", x)),
)
EXAMPLE = st.lists(st.tuples(OPERATOR, _size(80), _size(80), st.sampled_from([4, 8, 16])), min_size=1, max_size=MANY)


def given_arrays(example, flow, system):
    """Operators and chiplets of an example, repeated to `MANY`."""
    example = (example * MANY)[:MANY]
    rows = [operator_row(kind, **{**dict(bits=bits, psum_bits=32), **sizes}) for (kind, sizes), _, _, bits in example]
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), system.chiplets)
    shape = [jnp.asarray([float(x[i]) for x in example]) for i in (1, 2)]
    code = jnp.full(MANY, DATAFLOWS.index(flow), jnp.int32)
    return jax.tree.map(jnp.asarray, stack_operators(rows)), eqx.tree_at(
        lambda c: (c.rows, c.columns, c.dataflow), one, (*shape, code)
    )


@eqx.filter_jit
def both(op, chip, system, flow):
    """(closed form, the same figures of the loop nest): cycles, bytes of buffer and local stores, words of each operand."""
    closed = on_chip(op, chip)
    problem, nest = closed_form_nest(op, chip, flow)
    unit = eqx.tree_at(  # a joule a byte in local stores alone
        lambda c: (c.rows, c.columns, c.local_j_per_byte, c.buffer_j_per_byte, c.mac_j),
        chip,
        (80.0, 80.0, 1.0, 0.0, 0.0),
    )
    machine, how = chiplet_machine(flow, unit, system.memory), table_conventions(flow)
    cost, found = loopnest_cost(problem, nest, machine, how), counts(problem, nest, machine, how)
    buffer = [int(i) for i in np.asarray(machine.held).sum(axis=1) - 2]
    local = sum(jnp.sum(cost.energy_j[t, :at], axis=0) for t, at in enumerate(buffer))
    towards = sum(cost.accesses[t, at, READ_DOWN] + cost.accesses[t, at, WRITE_UP] for t, at in enumerate(buffer))
    words = [found.total[t, buffer[t], way] for t, way in ((1, READ_DOWN), (0, READ_DOWN), (2, WRITE_UP))]
    mine = closed.cycles, closed.buffer_bytes, closed.local_bytes, *closed[4:]
    return mine, (cost.compute_cycles, towards, local, *words)


@pytest.mark.parametrize("flow", FLOWS)
@settings(max_examples=8, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(example=EXAMPLE)
def test_a_closed_form_is_the_loop_nest_of_its_mapping(mcm, flow, example):
    with jax.enable_x64(True):
        op, chip = given_arrays(example, flow, mcm)
        mine, nest = both(op, chip, mcm, flow)
        names = ("cycles", "buffer bytes", "local bytes", "inputs", "weights", "outputs")
        for name, a, b in zip(names, mine, nest, strict=True):
            a, b = np.asarray(a), np.asarray(b)
            if flow != "rs" and name != "local bytes":
                np.testing.assert_allclose(a, b, rtol=1e-9, err_msg=f"{flow} {name}")
            elif (
                flow != "rs"
            ):  # of some operators of a few words the real sides of the input are known by their product alone
                words = np.asarray(op.macs)
                np.testing.assert_allclose(a, b, rtol=0.25, err_msg=f"{flow} {name}")
                np.testing.assert_allclose(a[words > 1e4], b[words > 1e4], rtol=1e-9, err_msg=f"{flow} {name}")
            elif name == "cycles":  # its buses, which the nest does not have, may be slower than the multipliers
                assert np.all(a >= b * (1 - 1e-9))
            else:
                # `row_stationary` loads again what adjoining windows share where one pass takes all channels
                if name != "local bytes":
                    np.testing.assert_allclose(a, b, rtol=1e-9, err_msg=f"rs {name}")
                assert np.all(a >= b * (1 - 1e-9)) and np.all(a <= 1.5 * b)


@pytest.mark.parametrize("flow, array, sizes, inputs_of, weights_of", [
    # a unit of each store, and how many hold something else: ws has one input store a column, and every PE its own weights
    ("ws", (2, 3), dict(k=4, c=6, p=3, q=4, r=2, s=3), 3, 6),
    ("ws", (2, 3), dict(k=4, c=3, p=3, q=4, r=3, s=3, stride=2), 3, 6),  # the last row of one window is the first of the next
    ("ws", (4, 4), dict(k=8, c=4, batch=2, p=5), 4, 16),
    ("os", (2, 2), dict(k=3, c=2, p=4, q=6, r=3, s=2), 1, 1),  # one plane of inputs; weights come from the buffer
    ("os", (2, 2), dict(k=3, c=1, p=4, q=2, r=3, s=2, stride=2), 1, 1),  # of a single channel the plane stays for all filters
    ("os", (2, 2), dict(k=5, c=3, p=8), 1, 1),
])  # fmt: skip
def test_words_of_a_walk_through_the_stated_loops(mcm, x64, flow, array, sizes, inputs_of, weights_of):
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), mcm.chiplets)
    chip = eqx.tree_at(
        lambda c: (c.rows, c.columns, c.dataflow), one, (*map(jnp.float64, array), DATAFLOWS.index(flow))
    )
    op = jax.tree.map(lambda x: jnp.asarray(x[0]), stack_operators([operator_row("conv", **sizes)]))
    got, (_, nest) = on_chip(op, chip), closed_form_nest(op, chip, flow)

    def loops(dim, factor, level):
        return [
            ("GNKCPQRS"[d], round(float(f)), tuple(map(int, at))) for d, f, at in zip(dim, factor, level.T, strict=True)
        ]

    walk = loops(nest.dim, nest.factor, nest.level), loops(nest.spatial_dim, nest.spatial_factor, nest.spatial_level)
    stride = sizes.get("stride", 1)
    inputs, _ = moved_words("I", 1, *walk, stride, keep_overlap=True)
    assert float(got.input_reads) == pytest.approx(inputs * inputs_of)
    tile = 1 if flow == "ws" else 0
    weights, _ = moved_words("W", tile, *walk, stride)
    filters = 1 if flow == "ws" else next(f for d, f, _ in walk[1] if d == "K")
    assert float(got.weight_reads) == pytest.approx(weights * weights_of * filters)


@pytest.mark.parametrize("flow", ["ws", "os", "os-flex"])
def test_local_stores_hold_the_tiles_of_resnet50(mcm, resnet50, flow):
    matrix = np.flatnonzero(np.asarray(resnet50.operators.is_matrix))
    op = jax.tree.map(lambda x: jnp.asarray(x)[matrix], resnet50.operators)
    chip = jax.tree.map(lambda x: jnp.asarray(x[0]), mcm.chiplets)
    machine = chiplet_machine(flow, chip, mcm.memory)
    used = eqx.filter_jit(loopnest_cost)(*closed_form_nest(op, chip, flow), machine, table_conventions(flow)).used_bits
    stores = int(np.asarray(machine.held).sum()) - 6  # the buffer holds what `tiling` puts there
    assert stores in (2, 3) and np.all(np.asarray(used)[:stores] <= np.asarray(machine.capacity_bits)[:stores, None])


def test_an_unknown_dataflow_is_told(mcm, resnet50):
    with pytest.raises(ValueError, match="dataflow is 'oss': did you mean os"):
        closed_form_nest(resnet50.operators, mcm.chiplets.pick(0), "oss")
