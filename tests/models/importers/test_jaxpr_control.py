"""Loops and branches of JAX functions: work is counted as often as it is done."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

import perfmodel as pm
from perfmodel.models import ImportedModelWarning
from perfmodel.workload import KINDS

I32 = jnp.int32


def S(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def kinds(w):
    return [KINDS[k] for k in w.operators.kind]


def check_bytes(w):
    entering = w.input_bytes.sum(axis=1) + w.outside_in_bytes
    np.testing.assert_allclose(entering, w.operators.in_elements * w.operators.in_bits / 8, rtol=1e-12)


def chain(x, weights):
    return lax.scan(lambda c, weight: (c @ weight, None), x, weights)[0]


def test_a_scan_of_twelve_products_is_twelve_products():
    x, weights = S(8, 64), S(12, 64, 64)
    w = pm.import_jax(chain, x, weights, parameters=1)
    assert w.macs == 12 * 8 * 64 * 64 and w.parameters == 12 * 64 * 64
    assert kinds(w) == ["gemm"] * 12 and w.operators.parameters.tolist() == [64 * 64] * 12
    assert w.source.tolist() == list(range(11))  # one after the other
    assert w.names[3] == "scan[3].dot"
    once = jax.jit(chain).lower(x, weights).compile().cost_analysis()["flops"]
    assert once < 2 * 8 * 64 * 64 * 2  # XLA counts the body once


@pytest.mark.parametrize("length", [4096, 5000, 10**7])
def test_a_long_scan_is_folded_with_the_same_macs(length):
    def f(x, weights):
        return lax.scan(lambda c, weight: (jnp.tanh(c @ weight), c.sum()), x, weights)

    with pytest.warns(ImportedModelWarning, match=f"f: scan: {length} passes of about"):
        w = pm.import_jax(f, S(8, 16), S(length, 16, 16), parameters=1, name="f")
    assert w.macs == length * 8 * 16 * 16 and w.parameters == length * 16 * 16
    assert sorted(kinds(w)) == ["gemm", "reduce", "tanh"] and w.operators.groups.max() == length
    assert w.operators.out_elements[kinds(w).index("tanh")] == length * 8 * 16


def test_folded_and_unrolled_count_the_same():
    """LSTMs of 9, 10 (unrolled) and 1000 steps (folded): sums over all rows grow by the same with every step; shared weights are
    stored once."""
    p = {"x": S(16, 128), "h": S(32, 128), "b": S(128)}
    unrolled, longer = (pm.import_jax(lstm, p, S(steps, 4, 16), parameters=0) for steps in (9, 10))
    with pytest.warns(ImportedModelWarning, match="too many to unroll"):
        folded = pm.import_jax(lstm, p, S(1000, 4, 16), parameters=0)
    assert unrolled.macs == 9 * 4 * (16 + 32) * 128 and folded.macs == 1000 * 4 * (16 + 32) * 128
    assert unrolled.parameters == folded.parameters == (16 + 32 + 1) * 128
    assert folded.n_operators * 9 == unrolled.n_operators
    # the first carried state is a constant: nothing to read in the first pass; else elements read agree
    for amount in ("out_elements", "lane_ops", "in_elements"):
        first, second, last = (getattr(w.operators, amount).sum() for w in (unrolled, longer, folded))
        assert last == first + 991 * (second - first)
    check_bytes(unrolled)


def lstm(p, xs):
    def cell(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x @ p["x"] + h @ p["h"] + p["b"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    start = jnp.zeros((xs.shape[1], p["h"].shape[0]))
    return lax.scan(cell, (start, start), xs)[1]


def test_stacked_lstms_are_chained_step_by_step():
    """The second layer's step t reads what the first made in step t, not all of it."""
    p = {"x": S(16, 128), "h": S(32, 128), "b": S(128)}, {"x": S(32, 128), "h": S(32, 128), "b": S(128)}
    w = pm.import_jax(lambda p, xs: lstm(p[1], lstm(p[0], xs)), p, S(9, 4, 16), parameters=0, name="two")
    assert w.macs == 9 * 4 * (16 + 32 + 32 + 32) * 128
    assert "copy" not in kinds(w) and (w.inputs >= 0).sum(axis=1).max() == 2
    check_bytes(w)


def test_backward_scans_and_their_outputs():
    def f(x, weights):
        last, all_ = lax.scan(lambda c, weight: (c @ weight, c), x, weights, reverse=True)
        return last + all_[0] + all_[-1]  # all_[-1] is x: the loop runs backwards

    w = pm.import_jax(f, S(8, 8), S(5, 8, 8), parameters=1)
    assert w.macs == 5 * 8**3 and w.parameters == 5 * 64
    assert kinds(w) == ["gemm"] * 5 + ["add"] * 2
    assert w.outside_in_bytes[-1] == 8 * 8 * 4  # x


def test_nested_scans():
    def f(x, weights):
        return lax.scan(lambda c, of: (chain(c, of), None), x, weights)[0]

    assert pm.import_jax(f, S(4, 8), S(3, 5, 8, 8), parameters=1).macs == 15 * 4 * 64
    with pytest.warns(ImportedModelWarning):
        w = pm.import_jax(f, S(4, 8), S(200, 100, 8, 8), parameters=1)
    assert w.macs == 20_000 * 4 * 64 and w.parameters == 20_000 * 64
    with pytest.warns(ImportedModelWarning):
        w = pm.import_jax(f, S(4, 8), S(5000, 6000, 8, 8), parameters=1)
    assert w.macs == 5000 * 6000 * 4 * 64 and w.parameters == 5000 * 6000 * 64 and w.n_operators == 1


def test_what_only_the_next_pass_needs_is_kept():
    """A folded loop with two carries: the first is needed for the second only."""

    def f(x, weight):
        return lax.fori_loop(0, 5000, lambda i, c: (c[0] @ weight, c[1] + c[0]), (x, x))[1]

    with pytest.warns(ImportedModelWarning):
        w = pm.import_jax(f, S(8, 8), S(8, 8), parameters=1)
    assert w.macs == 5000 * 8**3


def gpt(p, tokens, heads=12):
    """GPT-2 as a scan over stacked layers."""
    batch, length = tokens.shape

    def norm(x, scale, shift):
        return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * scale + shift

    def block(x, layer):
        h = norm(x, *layer["ln_1"])
        q, k, v = jnp.split(h @ layer["qkv"][0] + layer["qkv"][1], 3, axis=-1)
        q, k, v = (t.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3) for t in (q, k, v))
        mask = jnp.tril(jnp.ones((length, length), bool))
        weights = jax.nn.softmax(jnp.where(mask, q @ k.swapaxes(-1, -2) / 8, -1e9))
        h = (weights @ v).transpose(0, 2, 1, 3).reshape(batch, length, -1)
        x = x + (h @ layer["out"][0] + layer["out"][1])
        h = jax.nn.gelu(norm(x, *layer["ln_2"]) @ layer["up"][0] + layer["up"][1])
        return x + (h @ layer["down"][0] + layer["down"][1]), None

    x = p["tokens"][tokens] + p["positions"][:length]
    return norm(lax.scan(block, x, p["layers"])[0], *p["ln_f"])


def gpt_parameters(layers=12, d=768):
    def dense(depth, width):
        return S(layers, depth, width), S(layers, width)

    norm = S(layers, d), S(layers, d)
    stacked = {
        "ln_1": norm, "qkv": dense(d, 3 * d), "out": dense(d, d), "ln_2": norm, "up": dense(d, 4 * d), "down": dense(4 * d, d),
    }  # fmt: skip
    return {"tokens": S(50257, d), "positions": S(1024, d), "layers": stacked, "ln_f": (S(d), S(d))}


def test_a_transformer_as_a_scan_over_layers_is_the_zoos():
    zoo = pm.models.load("gpt2")
    w = pm.import_jax(gpt, gpt_parameters(), S(1, 1024, dtype=I32), parameters=0, dtype="int8")
    assert w.macs == zoo.macs == 106_300_440_576
    assert w.parameters == zoo.parameters == 124_439_808
    of_zoo, of_jax = kinds(zoo), kinds(w)
    for kind in ("gemm", "attention_gemm", "softmax", "layer_norm", "gelu"):
        assert of_jax.count(kind) == of_zoo.count(kind), kind
    # beside the zoo's rows: positions added, scores scaled and masked
    assert of_jax.count("add") == of_zoo.count("add") + 1 and of_jax.count("elementwise") == 24
    check_bytes(w)
    for field in ("groups", "k", "c", "p"):  # the products are the same rows in the same order
        of = [getattr(x.operators, field)[x.operators.is_matrix > 0].tolist() for x in (zoo, w)]
        assert of[0] == of[1]


def test_training_a_transformer_is_three_times_the_forward_pass():
    p, tokens = gpt_parameters(layers=3), S(2, 64, dtype=I32)
    forward = pm.import_jax(gpt, p, tokens, parameters=0)
    backward = pm.import_jax(jax.grad(lambda p, t: (gpt(p, t) ** 2).sum()), p, tokens, parameters=0, name="loss")
    assert backward.macs == 3 * forward.macs and backward.parameters == forward.parameters


def test_recomputation_adds_a_forward_pass():
    weights = S(6, 16, 16)

    def loss(weights, x, block):
        return (lax.scan(lambda c, weight: (block(c, weight), None), x, weights)[0] ** 2).sum()

    def block(c, weight):
        return jnp.sin(c @ weight)

    one = 8 * 16 * 16
    plain = pm.import_jax(jax.grad(lambda p, x: loss(p, x, block)), weights, S(8, 16), parameters=0, name="plain")
    again = pm.import_jax(
        jax.grad(lambda p, x: loss(p, x, jax.checkpoint(block))), weights, S(8, 16), parameters=0, name="again"
    )
    assert plain.macs == (6 + 6 + 5) * one  # the input needs no gradient
    # every block's product is done again, for the derivative of its sine
    assert again.macs == plain.macs + 6 * one
    assert plain.parameters == again.parameters == 6 * 16 * 16


def wait(x, weight):
    return lax.while_loop(lambda c: c.sum() < 3, lambda c: c @ weight, x)


ARGS = S(8, 8), S(8, 8)


def test_while_with_a_hint():
    for trips in (5, {"while": 5}, {"while0": 5}, [5], {"while": 7, "while0": 5}):
        assert pm.import_jax(wait, *ARGS, parameters=1, trips=trips).macs == 5 * 8**3
    with pytest.raises(ValueError, match="wait: has no operators"):
        pm.import_jax(wait, *ARGS, parameters=1, trips=0)


def test_while_without_a_hint_is_taken_once():
    with pytest.warns(ImportedModelWarning, match="wait: while0: how often it runs is not known: taken once"):
        assert pm.import_jax(wait, *ARGS, parameters=1).macs == 8**3


def test_hints_in_order_of_appearance():
    def two(x, weight):
        return wait(wait(x, weight), weight @ weight)

    assert pm.import_jax(two, *ARGS, parameters=1, trips=[2, 3]).macs == (2 + 3 + 1) * 8**3


@pytest.mark.parametrize("lower, upper", [(0, 10), (3, 10), (5, 5), (7, 2)])
def test_fori_loops_tell_how_often_they_run(lower, upper):
    def static(x, weight):
        return lax.fori_loop(lower, upper, lambda i, c: c @ weight, x + 1)

    def traced(x, weight):  # bounds that are arrays make a while loop
        return jax.jit(lambda a, b: lax.fori_loop(a, b, lambda i, c: c @ weight, x + 1))(lower, upper)

    for f in (static, traced):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert pm.import_jax(f, *ARGS, parameters=1, name="f").macs == max(0, upper - lower) * 8**3


def test_other_counters_are_followed():
    def doubling(x, weight):
        return lax.while_loop(
            lambda c: (c[0] < 100) & (c[1] > -5), lambda c: (2 * c[0] + 1, c[1] - 1, c[2] @ weight), (1, 0, x)
        )

    assert pm.import_jax(doubling, *ARGS, parameters=1).macs == 5 * 8**3  # 1, 3, 7, 15, 31; the second counter ends it

    def endless(x, weight):
        return lax.while_loop(lambda c: c[0] >= 0, lambda c: (c[0] * 1, c[1] @ weight), (1, x))

    with pytest.warns(ImportedModelWarning, match="not known"):
        assert pm.import_jax(endless, *ARGS, parameters=1).macs == 8**3


@given(st.integers(-5, 40), st.integers(-5, 40), st.integers(1, 7), st.booleans())
def test_closed_form_of_a_counter(start, bound, step, inclusive):
    def f(x, weight):
        def go(c):
            return c[0] <= bound if inclusive else c[0] < bound

        return lax.while_loop(go, lambda c: (c[0] + step, c[1] @ weight), (start, x + 1))[1]

    passes = len(range(start, bound + inclusive, step))
    assert pm.import_jax(f, *ARGS, parameters=1).macs == passes * 8**3


def test_cond():
    def f(x, weight, of):
        return lax.cond(of, lambda x: (x @ weight) @ weight, lambda x: x @ weight, x)

    assert pm.import_jax(lambda x, w: f(x, w, jnp.asarray(False)), *ARGS, parameters=1).macs == 8**3
    assert pm.import_jax(lambda x, w: f(x, w, jnp.asarray(3) > 2), *ARGS, parameters=1).macs == 2 * 8**3
    with pytest.warns(ImportedModelWarning, match="which of 2 branches runs is not known: the costlier is taken"):
        assert pm.import_jax(f, *ARGS, S(dtype=bool), parameters=1).macs == 2 * 8**3


def test_switch_inside_a_scan_over_known_indices():
    def f(x, weight):
        branches = [lambda c: c, lambda c: c @ weight, lambda c: (c @ weight) @ weight]
        return lax.fori_loop(0, 3, lambda i, c: lax.switch(i, branches, c), x)

    # the counter of a loop of known length starts at a known number
    assert pm.import_jax(f, *ARGS, parameters=1).macs == 3 * 8**3


def test_calls_are_seen_through():
    @jax.custom_vjp
    def product(x, weight):
        return x @ weight

    product.defvjp(lambda x, weight: (x @ weight, (x, weight)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))

    @jax.custom_jvp
    def squared(x):
        return x * x

    squared.defjvp(lambda x, t: (squared(*x), 2 * x[0] * t[0]))
    for f in (
        product,
        jax.jit(product),
        jax.checkpoint(product),
        jax.named_call(product, name="p"),
        lambda x, w: squared(product(x, w)),
    ):
        w = pm.import_jax(f, *ARGS, parameters=1, name="f")
        assert w.macs == 8**3 and w.parameters == 64
    w = pm.import_jax(jax.grad(lambda w, x: product(x, w).sum()), *ARGS, parameters=0, name="f")
    assert w.macs == 8**3  # neither the product nor the input's gradient is needed


def test_scopes_are_in_the_names():
    def f(x, weight):
        with jax.named_scope("encoder"):
            return jax.jit(lambda x: jnp.einsum("ab,bc->ac", x, weight))(x)

    assert pm.import_jax(f, *ARGS, parameters=1).names == ("encoder.dot",)


def test_pallas_kernels_run_once_a_grid_point():
    from jax.experimental import pallas as pl

    def product(x, y, out):
        out[...] = x[...] @ y[...]

    def call(kernel, x, y):
        specs = [pl.BlockSpec((16, 64), lambda i, j: (i, 0)), pl.BlockSpec((64, 16), lambda i, j: (0, j))]
        out = pl.BlockSpec((16, 16), lambda i, j: (i, j))
        return pl.pallas_call(kernel, out_shape=S(64, 48), grid=(4, 3), in_specs=specs, out_specs=out)(x, y)

    w = pm.import_jax(lambda x, y: call(product, x, y), S(64, 64), S(64, 48))
    assert w.macs == 64 * 64 * 48 and w.operators.in_elements.tolist() == [64 * 64 + 64 * 48]

    def doubled(x, y, out):
        out[...] = 2 * x[:, :16]

    with pytest.warns(ImportedModelWarning, match="a Pallas kernel is modelled as data movement"):
        assert kinds(pm.import_jax(lambda x, y: call(doubled, x, y), S(64, 64), S(64, 48))) == ["copy"]


def test_callbacks_move_data():
    def f(x):
        return jax.pure_callback(np.sort, S(64), x)

    with pytest.warns(ImportedModelWarning, match="primitive 'pure_callback' is not known"):
        assert kinds(pm.import_jax(f, S(64))) == ["copy"]


def test_a_device_of_several():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    f = jax.shard_map(lambda x, w: lax.psum(x @ w, "d"), mesh=mesh, in_specs=(P(None, "d"), P("d")), out_specs=P())
    with pytest.warns(ImportedModelWarning) as said:
        assert pm.import_jax(f, *ARGS, parameters=1, name="f").macs == 8**3
    assert any("one device's share" in str(w.message) for w in said)


def test_a_sum_over_a_mapped_axis_is_a_reduction():
    centred = jax.vmap(lambda x: x - lax.pmean(x, "rows"), axis_name="rows")
    assert kinds(pm.import_jax(centred, S(8, 64), name="f")) == ["reduce", "elementwise", "add"]


def test_a_deep_program_takes_linear_time():
    """Rows and steps of 2,000 layers written out: a graph of thousands of rows, not of millions of edges."""

    def f(x, weights):
        for weight in weights:
            x = jnp.tanh(x @ weight)
        return x

    w = pm.import_jax(f, S(8, 16), [S(16, 16)] * 2000, parameters=1)
    assert w.n_operators == 4000 and w.macs == 2000 * 8 * 16 * 16
