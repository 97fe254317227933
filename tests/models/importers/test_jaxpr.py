"""JAX functions as workloads: MACs, parameters and bytes counted by hand, by NumPy, and by XLA where it counts right."""

import string
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

import perfmodel as pm
from perfmodel.models import ImportedModelWarning
from perfmodel.workload import KINDS, exact_macs

F32, BF16, I32 = jnp.float32, jnp.bfloat16, jnp.int32


def S(*shape, dtype=F32):
    return jax.ShapeDtypeStruct(shape, dtype)


def kinds(w):
    return [KINDS[k] for k in w.operators.kind]


def row(w, i=0):
    """One row as a dictionary."""
    return {name: getattr(w.operators, name)[i].item() for name in type(w.operators).__dataclass_fields__}


def xla_macs(fn, *args):
    """Half the FLOPs that XLA counts before it compiles (right where there is no loop)."""
    return jax.jit(fn).lower(*args).cost_analysis()["flops"] / 2


def check_bytes(w):
    """What a row reads is what its edges carry and what comes from outside."""
    entering = w.input_bytes.sum(axis=1) + w.outside_in_bytes
    np.testing.assert_allclose(entering, w.operators.in_elements * w.operators.in_bits / 8, rtol=1e-12)


def mlp(parameters, x):
    for weight, bias in parameters[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = parameters[-1]
    return jax.nn.softmax(x @ weight + bias)


MLP = [(S(16, 32), S(32)), (S(32, 10), S(10))]


def test_mlp():
    w = pm.import_jax(mlp, MLP, S(4, 16), parameters=0)
    assert kinds(w) == ["gemm", "relu", "gemm", "softmax"]
    assert w.macs == 4 * 16 * 32 + 4 * 32 * 10
    assert w.parameters == 16 * 32 + 32 + 32 * 10 + 10
    assert w.model_names == ("mlp",)
    first = row(w)
    assert (first["p"], first["k"], first["c"]) == (4, 32, 16)
    assert first["weight_elements"] == first["parameters"] == 16 * 32 + 32  # the bias is added by the product
    assert w.outside_in_bytes.tolist() == [4 * 16 * 4, 0, 0, 0] and w.outside_out_bytes.tolist() == [0, 0, 0, 160]
    assert w.source.tolist() == [0, 1, 2] and w.target.tolist() == [1, 2, 3]
    check_bytes(w)


def test_gradient_of_an_mlp_has_the_closed_form():
    """Forward, a gradient of every weight, and one of every activation but the input's."""
    loss = jax.grad(lambda p, x: jnp.log(mlp(p, x)).sum())
    w = pm.import_jax(loss, MLP, S(4, 16), parameters=0, name="loss")
    first, second = 4 * 16 * 32, 4 * 32 * 10
    assert w.macs == 2 * first + 3 * second
    assert w.parameters == pm.import_jax(mlp, MLP, S(4, 16), parameters=0).parameters
    check_bytes(w)


def test_equinox_modules_are_parameters():
    model = eqx.nn.MLP(8, 4, 16, 2, key=jax.random.key(0))
    one = pm.import_jax(model, S(8))
    assert one.macs == 8 * 16 + 16 * 16 + 16 * 4 and one.parameters == one.macs + 16 + 16 + 4
    assert one.model_names == ("MLP",)
    many = pm.import_jax(jax.vmap(model), S(33, 8))  # captured
    as_argument = pm.import_jax(lambda m, x: jax.vmap(m)(x), model, S(33, 8))
    assert many.macs == as_argument.macs == 33 * one.macs
    assert many.parameters == as_argument.parameters == one.parameters
    assert set(kinds(many)) == {"gemm", "relu"}


def test_which_arguments_are_parameters():
    def f(a, b):
        return a["x"] @ b["w"]

    args = {"x": S(8, 8)}, {"w": S(8, 8)}
    assert pm.import_jax(f, *args).parameters == 0 and kinds(pm.import_jax(f, *args)) == ["attention_gemm"]
    for chosen in (1, -1, (1,), lambda path, leaf: path == "[1]['w']"):
        w = pm.import_jax(f, *args, parameters=chosen)
        assert w.parameters == 64 and kinds(w) == ["gemm"]
    assert pm.import_jax(f, *args, parameters=(0, 1)).parameters == 128
    assert pm.import_jax(f, a=args[0], b=args[1], parameters=lambda path, leaf: path == "b['w']").parameters == 64


def test_attention():
    """2 sequences of 16, 4 heads of 8: two products a head; the softmax is one row; grouped heads share keys and values."""
    heads = [S(2, 16, 4, 8, dtype=BF16)] * 3
    w = pm.import_jax(lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True), *heads, name="attention")
    assert w.macs == 2 * (2 * 4) * 16 * 16 * 8 and w.parameters == 0
    assert kinds(w).count("attention_gemm") == 2 and kinds(w).count("softmax") == 1
    assert row(w)["groups"] == 8 and row(w)["in_elements"] == 2 * 2 * 16 * 4 * 8
    check_bytes(w)
    shared = [heads[0], S(2, 16, 2, 8, dtype=BF16), S(2, 16, 2, 8, dtype=BF16)]
    w = pm.import_jax(jax.nn.dot_product_attention, *shared)
    assert w.macs == 2 * (2 * 4) * 16 * 16 * 8
    assert row(w)["groups"] == 4 and row(w)["p"] == 2 * 16  # keys and values are read once for two heads


def test_heads_that_share_repeated_keys_are_one_product():
    def attend(q, k):
        return jnp.einsum("bqhd,bkhd->bhqk", q, jnp.repeat(k, 4, axis=2))

    w = pm.import_jax(attend, S(2, 16, 8, 32), S(2, 16, 2, 32))
    assert w.macs == 2 * 8 * 16 * 16 * 32
    assert row(w)["groups"] == 2 * 2 and row(w)["p"] == 4 * 16 and row(w)["in_elements"] == 2 * 16 * 32 * (8 + 2)


NHWC = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize("x, weight, options, macs", [
    ((2, 32, 32, 8), (3, 3, 8, 16), dict(window_strides=(1, 1)), 2 * 30 * 30 * 16 * 8 * 9),
    ((2, 32, 32, 8), (3, 3, 8, 16), dict(window_strides=(2, 2)), 2 * 15 * 15 * 16 * 8 * 9),
    ((2, 32, 32, 8), (3, 5, 2, 16), dict(window_strides=(1, 1), feature_group_count=4), 2 * 30 * 28 * 16 * 2 * 15),
    ((2, 32, 32, 8), (3, 3, 1, 8), dict(window_strides=(1, 1), feature_group_count=8), 2 * 30 * 30 * 8 * 9),
    ((2, 32, 32, 8), (3, 3, 8, 16), dict(window_strides=(1, 1), rhs_dilation=(2, 2)), 2 * 28 * 28 * 16 * 8 * 9),
    ((6, 9, 9, 4), (3, 3, 4, 6), dict(window_strides=(1, 1), batch_group_count=3), 2 * 7 * 7 * 6 * 4 * 9),
    # zeros between the inputs, padded so that every pixel meets the whole window
    ((2, 8, 8, 4), (3, 3, 4, 6), dict(window_strides=(1, 1), lhs_dilation=(2, 2), padding=((2, 2), (2, 2))), 2 * 64 * 4 * 6 * 9),
])  # fmt: skip
def test_convolutions(x, weight, options, macs):
    def conv(x, weight):
        return lax.conv_general_dilated(x, weight, **{"padding": "VALID", **options}, dimension_numbers=NHWC)

    w = pm.import_jax(conv, S(*x), S(*weight), parameters=1)
    assert w.macs == macs == xla_macs(conv, S(*x), S(*weight))
    assert w.parameters == np.prod(weight) and w.n_operators == 1
    check_bytes(w)
    made = jax.eval_shape(conv, S(*x), S(*weight)).size
    assert w.operators.out_elements.tolist() == [made]


@pytest.mark.parametrize("spatial, window, numbers", [
    ((50,), (5,), ("NCH", "OIH", "NCH")),
    ((50,), (5,), ("NHC", "HIO", "NHC")),
    ((9, 10, 11), (2, 3, 4), ("NCDHW", "OIDHW", "NCDHW")),
    ((9, 10), (3, 4), ("CNHW", "IOHW", "NHWC")),
])  # fmt: skip
def test_convolutions_of_any_order_of_axes(spatial, window, numbers):
    sizes = dict(zip("DHW"[-len(spatial) :] if len(spatial) > 1 else "H", spatial, strict=True))
    taps = dict(zip(sizes, window, strict=True))
    x = S(*(dict(N=3, C=4, **sizes)[axis] for axis in numbers[0]))
    weight = S(*(dict(I=4, O=5, **taps)[axis] for axis in numbers[1]))
    strides = (1,) * len(spatial)
    w = pm.import_jax(
        lambda x, weight: lax.conv_general_dilated(x, weight, strides, "VALID", dimension_numbers=numbers),
        x, weight, parameters=1, name="conv",
    )  # fmt: skip
    out = np.prod([s - t + 1 for s, t in zip(spatial, window, strict=True)])
    assert w.macs == 3 * out * 5 * 4 * np.prod(window)
    assert row(w)["batch"] == 3 and row(w)["k"] == 5 and row(w)["c"] == 4


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_a_convolution_do_the_same_work(stride):
    """Gradients of input and filter: the same products, in another order (zeros between the pixels skipped)."""
    x, weight = S(2, 32, 32, 8), S(3, 3, 8, 16)

    def loss(weight, x):
        y = lax.conv_general_dilated(x, weight, (stride, stride), "SAME", dimension_numbers=NHWC)
        return (y**2).sum()

    forward = 2 * (32 // stride) ** 2 * 9 * 8 * 16
    both = pm.import_jax(jax.grad(loss, argnums=(0, 1)), weight, x, parameters=0, name="loss")
    assert pm.import_jax(loss, weight, x, parameters=0).macs == forward
    if stride == 1:  # no zeros between
        assert both.macs == 3 * forward
    else:
        assert both.macs == 3 * forward
        assert "gemm" in kinds(both)  # every pixel meets the window once
    assert both.parameters == 3 * 3 * 8 * 16


def test_bias_of_a_convolution_belongs_to_it():
    def f(x, weight, bias):
        y = lax.conv_general_dilated(x, weight, (2, 2), "SAME", dimension_numbers=NHWC)
        return jax.nn.silu(y + bias)

    w = pm.import_jax(f, S(2, 32, 32, 8), S(3, 3, 8, 16), S(16), parameters=(1, 2))
    assert kinds(w) == ["conv", "silu"] and w.parameters == 3 * 3 * 8 * 16 + 16
    assert row(w)["stride"] == 2 and (row(w)["p"], row(w)["q"]) == (16, 16)


@pytest.mark.parametrize("dtype, accumulate, bits", [(jnp.int8, I32, (8, 8, 32)), (BF16, BF16, (16, 16, 16)), (F32, F32, (32, 32, 32)),
                                                     (jnp.float8_e4m3fn, F32, (8, 8, 32)), (jnp.int4, I32, (4, 4, 32))])  # fmt: skip
def test_precision_of_operands(dtype, accumulate, bits):
    def f(x, weight):
        return lax.dot_general(x, weight, (((1,), (0,)), ((), ())), preferred_element_type=accumulate)

    w = pm.import_jax(f, S(8, 16, dtype=dtype), S(16, 32, dtype=dtype), parameters=1)
    got = row(w)
    assert (got["in_bits"], got["weight_bits"], got["out_bits"]) == bits
    assert w.weight_bytes == 16 * 32 * bits[1] / 8


def test_weights_of_eight_bits_that_are_converted_stay_of_eight_bits():
    w = pm.import_jax(
        lambda x, weight: x @ weight.T.astype(BF16), S(8, 16, dtype=BF16), S(32, 16, dtype=jnp.int8), parameters=1
    )
    assert kinds(w) == ["gemm"] and w.weight_bytes == 16 * 32 and row(w)["in_bits"] == 16


def test_a_result_is_written_in_the_format_it_is_converted_to():
    def f(x, weight):
        return jnp.tanh(jnp.dot(x, weight, preferred_element_type=F32).astype(BF16))

    w = pm.import_jax(f, S(8, 16, dtype=BF16), S(16, 32, dtype=BF16), parameters=1)
    assert w.operators.out_bits.tolist() == [16, 16] and w.operators.in_bits.tolist() == [16, 16]


def test_dtype_option_overrides_floating_point():
    w = pm.import_jax(mlp, MLP, S(4, 16), parameters=0, dtype="nvfp4")
    assert set(w.operators.out_bits.tolist()) == {4.5} and w.weight_bytes == w.parameters * 4.5 / 8


def test_views_cost_nothing_and_transposed_operands_neither():
    def f(x, weight):
        y = jnp.moveaxis(x.reshape(4, 2, 8), 0, 1).reshape(2, 32)[:, ::2]
        return jnp.concatenate([y, y], axis=1) @ weight.T[None].squeeze(0)

    w = pm.import_jax(f, S(8, 8), S(16, 32), parameters=1)
    assert kinds(w) == ["gemm"] and w.macs == 2 * 32 * 16


def test_a_transposition_that_meets_another_order_is_a_copy():
    w = pm.import_jax(lambda x, weight: (x @ weight).T + x @ weight, S(8, 8), S(8, 8), parameters=1)
    assert sorted(kinds(w)) == ["add", "copy", "gemm", "gemm"]


def test_functions_of_one_array_are_one_row():
    def layer_norm(x, scale, shift):
        centred = x - x.mean(-1, keepdims=True)
        return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + shift

    def by_variance(x, scale, shift):
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + shift

    x, p = S(8, 64), S(64)
    for f, args, kind, parameters in [
        (layer_norm, (x, p, p), "layer_norm", 128), (by_variance, (x, p, p), "layer_norm", 128),
        (lambda x, scale: x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5) * scale, (x, p), "rms_norm", 64),
        (jax.nn.gelu, (x,), "gelu", 0), (lambda x: jax.nn.gelu(x, approximate=False), (x,), "gelu", 0), (jax.nn.silu, (x,), "silu", 0),
        (lambda x: x * (1 / (1 + jnp.exp(-x))), (x,), None, 0), (jax.nn.softmax, (x,), "softmax", 0),
        (jax.nn.log_softmax, (x,), "softmax", 0),
        (jax.nn.relu, (x,), "relu", 0), (jnp.tanh, (x,), "tanh", 0), (jax.nn.sigmoid, (x,), "sigmoid", 0),
        (lambda x: (e := jnp.exp(x - x.max(-1, keepdims=True))) / e.sum(-1, keepdims=True), (x,), "softmax", 0),
    ]:  # fmt: skip
        w = pm.import_jax(f, *args, parameters=range(1, len(args)), name="f")
        assert w.parameters == parameters and w.macs == 0
        assert kind is None and w.n_operators > 1 or kinds(w) == [kind]


def test_a_gate_is_not_an_activation_of_what_it_gates():
    """Squeeze and excitation: x times a sigmoid of something else."""

    def gate(x, weight):
        return x * jax.nn.sigmoid(x.mean(axis=(1, 2)) @ weight)[:, None, None, :]

    w = pm.import_jax(gate, S(2, 8, 8, 16), S(16, 16), parameters=1)
    assert "silu" not in kinds(w) and kinds(w).count("mul") == 1 and kinds(w).count("sigmoid") == 1


def test_other_operators():
    def several(x, table, tokens):
        looked = table[tokens]
        return (
            looked, jnp.sort(x), lax.top_k(x, 4)[0], jnp.cumsum(x), jnp.argmax(x, -1), jnp.fft.fft(x[0]),
            lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID"), jnp.pad(x, 1), x[tokens[0] % 16],
        )  # fmt: skip

    w = pm.import_jax(several, S(16, 16), S(100, 32), S(2, 8, dtype=I32), parameters=1)
    by_kind = dict(zip(kinds(w), range(w.n_operators), strict=True))
    assert set(by_kind) == {"embedding", "top_k", "scan", "reduce", "fft", "max_pool", "copy", "gather"}
    embedding = row(w, by_kind["embedding"])
    assert embedding["parameters"] == 3200 and embedding["weight_elements"] == 0
    assert w.outside_in_bytes[by_kind["embedding"]] == (16 * 32 + 16) * 4  # entries and tokens
    assert row(w, kinds(w).index("top_k"))["lane_ops"] == 256 * 4  # 16 sorted by binary comparisons
    assert row(w, by_kind["fft"])["lane_ops"] == 5 * 16 * 4 or row(w, by_kind["fft"])["lane_ops"] == 5 * 16 * 4 / 2
    assert row(w, by_kind["max_pool"])["lane_ops"] == 8 * 8 * 4
    assert w.operators.out_elements[by_kind["copy"]] == 18 * 18


def test_a_cache_is_updated_in_place():
    def step(cache, key, query, i):
        cache = lax.dynamic_update_slice(cache, key, (i, 0))
        return query @ cache.T, cache

    w = pm.import_jax(step, S(64, 16), S(1, 16), S(1, 16), S(dtype=I32))
    assert kinds(w) == ["copy", "attention_gemm"] and w.operators.in_elements.tolist() == [16, 16 + 64 * 16]
    assert w.outside_in_bytes.tolist() == [16 * 4, (63 * 16 + 16) * 4]
    assert w.outside_out_bytes.tolist() == [16 * 4, 64 * 4]  # the new key is written, though somebody reads it


def test_experts():
    sizes = S(4, dtype=I32)
    w = pm.import_jax(lax.ragged_dot, S(8, 16), S(4, 16, 32), sizes, parameters=1)
    assert w.macs == 8 * 16 * 32 and w.parameters == 4 * 16 * 32
    assert row(w)["groups"] == 4 and row(w)["p"] == 2
    uneven = pm.import_jax(lax.ragged_dot, S(7, 16), S(4, 16, 32), sizes, parameters=1)
    assert uneven.macs == 7 * 16 * 32 and uneven.operators.weight_elements.tolist() == [4 * 16 * 32]


def test_complex_products_are_four_real_ones():
    z = S(4, 8, dtype=jnp.complex64), S(8, 16, dtype=jnp.complex64)
    assert pm.import_jax(jnp.matmul, *z, parameters=1).macs == 4 * 4 * 8 * 16


def test_parameters_are_stored_once():
    def f(weight, x):
        return ((x @ weight) @ weight.T) @ weight[:, :4]

    w = pm.import_jax(f, S(8, 16), S(4, 8), parameters=0)
    assert w.parameters == 8 * 16 and w.operators.parameters.tolist() == [128, 0, 0]
    assert w.operators.weight_elements.tolist() == [128, 128, 32]
    part = pm.import_jax(lambda weight, x: x @ weight[:4], S(8, 16), S(4, 4), parameters=0)
    assert part.parameters == 128 and part.operators.weight_elements.tolist() == [64]  # stored whole, read in part


def test_what_nobody_needs_is_not_there():
    def f(x, weight):
        unused = x @ weight  # noqa: F841
        return (x + 1) @ weight

    assert kinds(pm.import_jax(f, S(8, 8), S(8, 8), parameters=1)) == ["add", "gemm"]


@st.composite
def einsums(draw):
    """Equations in which every index is in the result or contracted, with at least one contracted."""
    letters = string.ascii_lowercase[: draw(st.integers(2, 6))]
    size = {letter: draw(st.integers(1, 5)) for letter in letters}
    place = {letter: draw(st.sampled_from(["a", "b", "both"])) for letter in letters}
    place[letters[0]] = "contracted"
    sides = {s: [i for i in letters if place[i] in (s, "both", "contracted")] for s in "ab"}
    out = [i for i in letters if place[i] != "contracted"]
    a, b, out = ("".join(draw(st.permutations(axes))) for axes in (sides["a"], sides["b"], out))
    return f"{a},{b}->{out}", [tuple(size[i] for i in axes) for axes in (a, b)], size


@given(einsums(), st.sampled_from([(), 0, 1, (0, 1)]))
def test_einsum_macs_are_the_product_of_all_sizes(einsum, parameters):
    equation, shapes, size = einsum
    w = pm.import_jax(
        lambda a, b: jnp.einsum(equation, a, b), *(S(*shape) for shape in shapes), parameters=parameters, name="f"
    )
    assert w.macs == np.prod(list(size.values()))
    stored = [parameters] if isinstance(parameters, int) else parameters
    assert w.parameters == sum(np.prod(shapes[i], dtype=int) for i in stored)


@given(st.integers(2, 9), st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))
def test_vmap_multiplies_macs(n, rows, depth, width):
    def f(x, weight):
        return jnp.tanh(x @ weight) @ x

    one = pm.import_jax(f, S(rows, width), S(width, rows), parameters=1)
    many = pm.import_jax(jax.vmap(f, (0, None)), S(n, rows, width), S(width, rows), parameters=1, name="f")
    assert many.macs == n * one.macs and many.parameters == one.parameters
    apart = pm.import_jax(jax.vmap(f), S(n, rows, width), S(n, width, rows), parameters=1, name="f")
    assert apart.macs == n * one.macs and apart.parameters == n * one.parameters


@pytest.mark.slow  # compiles
def test_costs_of_an_imported_function_are_finite(mcm):
    """Also of the products with constants that gradients begin with."""
    w = pm.import_jax(jax.grad(lambda p, x: mlp(p, x).sum()), MLP[:1], S(4, 16), parameters=0, name="loss")
    table = pm.cost_table(w, mcm)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(table))


def test_row_counts_agree_with_exact_macs():
    w = pm.import_jax(mlp, MLP, S(4, 16), parameters=0)
    assert exact_macs(w.operators) == [2048, 0, 1280, 0]


def test_a_primitive_that_is_not_known_moves_data():
    with pytest.warns(ImportedModelWarning, match="f: primitive 'cholesky' is not known: modelled as data movement"):
        w = pm.import_jax(lambda x: lax.linalg.cholesky(x, symmetrize_input=False), S(16, 16), name="f")
    assert kinds(w) == ["copy", "elementwise"]  # it zeroes one half


def raises(x):
    raise RuntimeError("no such\nlayer")


@pytest.mark.parametrize("call, said", [
    (lambda: pm.import_jax(raises, S(2)), "raises: tracing failed: RuntimeError: no such layer"),
    (lambda: pm.import_jax(jnp.matmul, S(2, 3), S(4, 5)), "matmul: tracing failed: TypeError"),
    (lambda: pm.import_jax(lambda x: x + "a", S(2), name="f"), "f: tracing failed: TypeError"),
    (lambda: pm.import_jax(jnp.matmul, "a", S(2, 2)), "matmul: tracing failed: TypeError"),
    (lambda: pm.import_jax(lambda: 1, name="f"), "f: has no operators"),
    (lambda: pm.import_jax(lambda x: x, S(4), name="f"), "f: has no operators"),
    (lambda: pm.import_jax(3), "fn is 3; allowed: a function"),
    (lambda: pm.import_jax(mlp, MLP, S(0, 16)), "mlp: argument [1] has shape (0, 16); allowed: at least one element"),
    (lambda: pm.import_jax(mlp, MLP, S(4, 16), parameters=2), "parameters names argument 2; allowed: positions 0 to 1"),
    (lambda: pm.import_jax(mlp, MLP, S(4, 16), dtype="bf61"), "dtype is 'bf61': did you mean bf16"),
    (lambda: pm.import_jax(mlp, MLP, S(4, 16), dtype="bf16-sparse50"), "only weights may be sparse"),
    (lambda: pm.import_jax(mlp, MLP, S(4, 16), trips={"while3": 1}), "trips names 'while3'; allowed: while"),
    (lambda: pm.import_jax(mlp, MLP, S(4, 16), trips=[1]), "trips lists 1 loops; the function has 0"),
    (lambda: pm.import_jax(mlp, MLP, S(4, 16), trips={"while": -1}), "trips of while is -1; allowed"),
    (lambda: pm.import_jax(lambda a, b: a.T @ b, S(4, 2**31), S(4, 3), parameters=1, name="f"), None),
])  # fmt: skip
def test_bad_input(call, said):
    if said is None:  # too many rows for one axis: split over two
        assert call().macs == 2**31 * 12
        return
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_error_of_the_function_is_kept():
    with pytest.raises(ValueError) as error:
        pm.import_jax(raises, S(2))
    assert isinstance(error.value.__cause__, RuntimeError)


def test_nothing_is_warned_about_without_need():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pm.import_jax(mlp, MLP, S(4, 16), parameters=0)
