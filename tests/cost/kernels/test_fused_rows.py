"""Rows that are several operators: on GPUs against the kernel functions by hand, on arrays against the rows they are made of."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.cost import (
    constants,
    decode_attention_s,
    elementwise_s,
    gemm_s,
    moe_s,
    prefill_attention_s,
)
from perfmodel.cost.kernels import Precision, as_gpu
from perfmodel.hardware import gpu
from perfmodel.workload import COMPILED, KINDS, LIBRARY, GraphBuilder, lower, operator_row

NAME = "H100-SXM-80GB"


@pytest.fixture(scope="module")
def h100():
    return pm.systems.load("h100-80gb")


@pytest.fixture(scope="module")
def machine(h100):
    return as_gpu(gpu(NAME), jax.tree.map(lambda x: x[0], h100.chiplets), h100.memory)


def table(rows, system):
    graph = GraphBuilder("rows")
    for i, each in enumerate(rows):
        graph.add(f"r{i}", each)
    return np.asarray(pm.cost_table(graph.build(), system).exec_s)[:, 0]


def attention(batch=3, heads=32, kv=8, new=1, keys=500, size=128, value=128, cache_bits=16, bits=16, causal=True):
    queries = batch * heads * new
    return operator_row(
        "attention", batch=batch, groups=kv, p=new, q=heads // kv, k=keys, c=size + value,
        in_elements=queries * size + batch * keys * kv * (size + value),
        out_elements=queries * value, bits=bits, weight_bits=cache_bits, causal=causal, lane_ops=5 * queries * keys, parameters=0,
    )  # fmt: skip


def of(family, variant):
    return constants()(NAME, "", family, variant)


def test_attention_takes_the_kernels_of_its_phase_and_formats(h100, machine, x64):
    decode = decode_attention_s(of("attn_decode", "bf16/bf16"), machine, 3.0, 500.0, 32.0, 8.0, 128.0, footprint=1e6)
    narrow = decode_attention_s(
        of("attn_decode", "bf16/fp8"), machine, 3.0, 500.0, 32.0, 8.0, 128.0, kv_bytes=1.0, footprint=1e6
    )
    shape = (3.0, 400.0, 500.0, 32.0, 8.0, 128.0)
    prefill = prefill_attention_s(of("attn_prefill", "bf16/bf16"), machine, *shape, footprint=1e6)
    eight = prefill_attention_s(
        of("attn_prefill", "fp8/fp8"), machine, *shape, kv_bytes=1.0, eight_bit=True, footprint=1e6
    )
    full = prefill_attention_s(of("attn_prefill", "bf16/bf16"), machine, *shape, causal=False, footprint=1e6)
    rows = [attention(), attention(cache_bits=8), attention(new=400), attention(new=400, cache_bits=8, bits=8),
            attention(new=400, causal=False)]  # fmt: skip
    np.testing.assert_allclose(table(rows, h100), [decode, narrow, prefill, eight, full], rtol=1e-6)
    assert float(full) > float(prefill)


def test_a_band_is_pieces_as_long_as_the_window(h100, machine, x64):
    """1000 queries that see 100 keys each: 10 pieces of 100 queries, with 150 keys in the mean."""
    hand = prefill_attention_s(
        of("attn_prefill", "bf16/bf16"), machine, 30.0, 100.0, 150.0, 32.0, 8.0, 128.0, footprint=1e6
    )
    np.testing.assert_allclose(table([attention(new=1000, keys=100)], h100), hand, rtol=1e-6)


def test_experts_are_the_layer_of_the_kernel_model(h100, machine, x64):
    row = operator_row(
        "experts", p=64, k=14336, c=4096, r=3, bits=16, parameters=8 * 3 * 14336 * 4096, in_elements=1, out_elements=1
    )
    hand = moe_s(of("moe_ffn", "bf16"), machine, 32.0, 4096.0, 14336.0, 8.0, 2.0)
    np.testing.assert_allclose(table([row], h100), hand, rtol=1e-6)


def test_weight_only_and_converted_products(h100, machine, x64):
    size = dict(p=5, k=4096, c=4096)
    four = gemm_s(of("gemm", "int4_wo"), machine, 5.0, 4096.0, 4096.0, kind="int4_wo")
    bare = of("gemm", "fp8")
    from equinox import tree_at

    bare = tree_at(lambda p: p.launch_cycles, bare, jnp.minimum(bare.launch_cycles, of("gemm", "bf16").launch_cycles))
    eight = gemm_s(bare, machine, 5.0, 4096.0, 4096.0, kind=Precision(1.0, 1.0, eight_bit=True))
    rows = [operator_row("gemm", bits=16, weight_bits=4, **size), operator_row("gemm", bits=8, **size)]
    np.testing.assert_allclose(table(rows, h100), [four, eight], rtol=1e-6)
    made = gemm_s(
        of("gemm", "bf16"), machine, 5.0, 4096.0, 4096.0, kind="int4_wo"
    )  # by a compiler: constants of 16 bits
    np.testing.assert_allclose(table(rows[:1], replace(h100, software=COMPILED)), made, rtol=1e-6)


def test_norms_with_the_residual_and_gated_activations(h100, machine, x64):
    norm = operator_row("rms_norm", k=4096, p=7, in_elements=2 * 7 * 4096, out_elements=2 * 7 * 4096, bits=16)
    act = operator_row("silu", k=14336, p=7, in_elements=2 * 7 * 14336, bits=16)
    hands = [
        elementwise_s(
            of("elementwise", "input_layernorm"), machine, 7.0, 2 * 4096.0, kind="gelu"
        ),  # four moved for one
        elementwise_s(of("elementwise", "mlp_act"), machine, 7.0, 2 * 14336.0, kind="gated_activation"),
    ]
    np.testing.assert_allclose(table([norm, act], h100), hands, rtol=1e-6)


def test_gradient_jit_and_vmap(h100, x64):
    """Of a decode pass with respect to memory bandwidth."""
    workload = lower(pm.models.load("gpt2", phase="decode", batch=2, context=64, dtype="bf16"), h100.software)

    def total(scale):
        from equinox import tree_at

        memory = tree_at(lambda s: s.memory.bytes_per_s, h100, jnp.asarray(h100.memory.bytes_per_s) * scale)
        return jnp.sum(pm.cost_table(workload, memory).exec_s)

    run = jax.jit(total)
    assert float(run(1.0)) == pytest.approx(float(total(1.0)), rel=1e-12)
    slope = float(jax.jit(jax.grad(total))(1.0))
    assert slope == pytest.approx((float(run(1 + 1e-6)) - float(run(1 - 1e-6))) / 2e-6, rel=1e-4) and slope < 0
    scales = jnp.asarray([0.5, 1.0, 3.0])
    np.testing.assert_allclose(jax.jit(jax.vmap(total))(scales), [float(run(s)) for s in scales], rtol=1e-12)


@pytest.mark.parametrize("system", ["mcm-2x2", "gemmini"])
def test_on_arrays_attention_is_its_products_and_lanes(system, x64):
    """Cycles add up to those of the rows it is made of, whatever the dataflow."""
    of_library = replace(pm.systems.load(system), software=LIBRARY)
    plain = pm.models.load("gpt2", phase="decode", batch=2, seq_len=5, context=64)
    fused = lower(plain, replace(LIBRARY, qkv=False, residual_norm=False))
    seconds, whole = (np.asarray(pm.cost_table(w, of_library, by_type=True).compute_s) for w in (plain, fused))
    at = [KINDS[k] for k in fused.operators.kind].index("attention")
    names = [plain.names.index(f"h0.attn.{part}") for part in ("scores", "softmax", "values")]
    np.testing.assert_allclose(whole[at], seconds[names].sum(axis=0), rtol=1e-6)


def test_on_arrays_experts_are_their_products(x64):
    of_library = replace(pm.systems.load("mcm-2x2"), software=LIBRARY)
    plain = pm.models.load("mixtral-8x7b", batch=4, seq_len=4)
    fused = lower(plain, LIBRARY)
    seconds, whole = (np.asarray(pm.cost_table(w, of_library, by_type=True).compute_s) for w in (plain, fused))
    at = [KINDS[k] for k in fused.operators.kind].index("experts")
    inside = [i for i, n in enumerate(plain.names) if n.startswith("layer0.mlp.") and n != "layer0.mlp.router"]
    np.testing.assert_allclose(
        whole[at], seconds[inside].sum(axis=0), rtol=2e-3
    )  # gate and up share the last tile of filters


def test_mappings_are_of_single_operators(h100):
    from perfmodel.cost import map_workload

    system = pm.systems.load("gemmini")
    workload = lower(pm.models.load("gpt2", seq_len=4), LIBRARY)
    with pytest.raises(ValueError, match="rows of attention or experts are several"):
        pm.cost_table(workload, system, mappings=map_workload(pm.models.load("gpt2", seq_len=4), system))
