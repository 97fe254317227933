"""`lower`: what becomes of a graph, by hand and by structure; what must not change; traced sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.workload import (
    COMPILED,
    KINDS,
    LIBRARY,
    NONE,
    STREAMING,
    GraphBuilder,
    Operators,
    Software,
    lower,
    operator_row,
)


def kinds(workload) -> list[str]:
    return [KINDS[k] for k in workload.operators.kind]


def row(workload, i: int) -> dict:
    return {name: float(getattr(workload.operators, name)[i]) for name in Operators.__dataclass_fields__}


@pytest.fixture(scope="module")
def llama():
    return pm.models.load("llama-3-8b", phase="decode", batch=2, context=100, kv_dtype="fp8")


def test_a_block_of_llama_by_hand(llama):
    found = lower(llama, LIBRARY)
    block = ["rms_norm", "gemm", "attention", "gemm", "rms_norm", "gemm", "silu", "gemm"]
    assert kinds(found) == ["embedding", *block * 32, "rms_norm", "gemm"]
    qkv, attention, norm, up, act = (row(found, i) for i in (2, 3, 5, 6, 7))
    assert (qkv["p"], qkv["c"], qkv["k"]) == (2, 4096, (32 + 8 + 8) * 128) and qkv["in_elements"] == 2 * 4096
    # 2 sequences, 8 key-value heads of 4 query heads each, one new token and 101 keys; a key and a value of 128
    assert [attention[n] for n in ("batch", "groups", "q", "p", "k", "c")] == [2, 8, 4, 1, 101, 256]
    assert attention["in_elements"] == 2 * (32 * 128 + 101 * 2 * 8 * 128) and attention["out_elements"] == 2 * 32 * 128
    assert attention["weight_bits"] == 8 and attention["out_bits"] == 16 and attention["causal"] == 1
    new, old = 2 * (32 + 16) * 128 * 16, 2 * 100 * 16 * 128 * 8
    assert attention["in_bits"] * attention["in_elements"] == pytest.approx(new + old)
    assert (norm["in_elements"], norm["out_elements"], norm["k"]) == (
        4 * 4096,
        4 * 4096,
        4096,
    )  # four elements moved for one
    assert up["k"] == 2 * 14336 and (act["in_elements"], act["out_elements"]) == (4 * 14336, 2 * 14336)
    bytes_between = dict(
        zip(zip(found.source.tolist(), found.target.tolist(), strict=True), found.edge_bytes, strict=True)
    )
    assert bytes_between[2, 3] == 2 * 48 * 128 * 2 and bytes_between[1, 2] == 2 * 4096 * 2
    assert bytes_between[5, 9] == 2 * 4096 * 2  # the residual, from one norm to the next


@pytest.mark.parametrize("name, options", [
    ("llama-3-8b", {"phase": "decode"}), ("gpt2", {}), ("deepseek-v3", {"phase": "decode", "batch": 3}), ("deepseek-v3", {}),
    ("mixtral-8x7b", {"batch": 2, "seq_len": 9}), ("falcon-40b", {"phase": "decode"}), ("bert-large", {}), ("swin-t", {}),
    ("resnet50", {}), ("gpt2", {"phase": "train", "seq_len": 64}),
])  # fmt: skip
@pytest.mark.parametrize("software", [LIBRARY, COMPILED])
def test_what_must_not_change(name, options, software):
    workload = pm.models.load(name, **options)
    found = lower(workload, software)
    assert found.macs == workload.macs and found.parameters == workload.parameters
    assert found.weight_bytes == workload.weight_bytes and found.kv_cache_bytes == workload.kv_cache_bytes
    for each in ("outside_in_bytes", "outside_out_bytes"):
        assert getattr(found, each).sum() == pytest.approx(getattr(workload, each).sum())
    assert found.operators.lane_ops.sum() == pytest.approx(workload.operators.lane_ops.sum())
    assert found.edge_bytes.sum() <= workload.edge_bytes.sum()
    assert found.model_names == workload.model_names


def test_software_that_joins_nothing_leaves_the_workload(llama):
    for software in (NONE, STREAMING):
        assert lower(llama, software) is llama
    convolutions = pm.models.load("resnet50")
    assert lower(convolutions, LIBRARY) is convolutions


def test_a_second_time_changes_nothing(llama):
    once = lower(llama, LIBRARY)
    again = lower(once, LIBRARY)
    assert again.n_operators == once.n_operators
    np.testing.assert_array_equal(again.edge_bytes, once.edge_bytes)


def test_compiled_software_has_gate_and_up_apart(llama):
    assert lower(llama, COMPILED).n_operators == lower(llama, LIBRARY).n_operators + 32


def test_experts_by_hand():
    """4 sequences of 5 tokens, each to 2 of 8 experts: 5 rows at each."""
    workload = pm.models.load("mixtral-8x7b", batch=4, seq_len=5)
    found = lower(workload, LIBRARY)
    at = kinds(found).index("experts")
    experts = row(found, at)
    assert [experts[n] for n in ("p", "k", "c", "r", "groups")] == [40, 14336, 4096, 3, 1]
    assert experts["parameters"] == 8 * 3 * 14336 * 4096 == experts["weight_elements"]
    assert experts["in_elements"] == 20 * 4096 + 20 * 8 and experts["out_elements"] == 20 * 4096
    assert kinds(found)[at - 1] == "gemm"  # the router


def test_a_result_that_others_read_is_not_swallowed():
    """Softmax that a loss reads too (a backward pass): attention stays as it stands."""
    graph = GraphBuilder("g", batch=1)
    q = graph.add("q", operator_row("gemm", k=64, c=64, p=8))
    scores = graph.add("scores", operator_row("attention_gemm", groups=4, k=8, c=16, p=8), [q])
    soft = graph.add("soft", operator_row("softmax", groups=4, k=8, p=8), [scores])
    values = graph.add("values", operator_row("attention_gemm", groups=4, k=16, c=8, p=8), [soft, q])
    graph.add("proj", operator_row("gemm", k=64, c=64, p=8), [values])
    plain = graph.build()
    assert "attention" in kinds(lower(plain, LIBRARY))
    graph.add("loss", operator_row("reduce", k=1, p=8, in_elements=256), [soft])
    assert "attention" not in kinds(lower(graph.build(), LIBRARY))


@pytest.mark.parametrize("field", ["attention", "qkv", "gate", "gated_activation", "residual_norm", "experts"])
def test_each_part_of_software_by_itself(field):
    workload = pm.models.load("mixtral-8x7b", phase="decode")
    found = lower(workload, Software(**{field: True}))
    changes = field != "qkv"  # which are products that end in the kernel of attention
    assert (found.n_operators < workload.n_operators) == changes and found.macs == workload.macs


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 50))
def test_any_size_keeps_work_and_order(batch, tokens, context):
    workload = pm.models.load("gpt2", phase="decode", batch=batch, seq_len=tokens, context=context, lm_head=True)
    found = lower(workload, LIBRARY)
    assert found.macs == workload.macs and np.all(found.source < found.target)
    at = kinds(found).index("attention")
    assert (
        found.operators.p[at] == tokens
        and found.operators.batch[at] == batch
        and found.operators.k[at] == context + tokens
    )


def test_traced_sizes_are_the_concrete_ones(x64):
    """Kinds and edges known, sizes traced: the same numbers, under jit and vmap, and a slope."""
    workload = pm.models.load("gpt2", phase="decode", batch=2, context=50, lm_head=True)
    found = lower(workload, LIBRARY)

    def scaled(times):
        op = workload.operators
        grown = {n: getattr(op, n) * times for n in ("in_elements", "out_elements", "lane_ops")}
        some = Operators(**{n: getattr(op, n) for n in Operators.__dataclass_fields__} | grown)
        from dataclasses import replace

        return lower(replace(workload, operators=some, edge_bytes=workload.edge_bytes * times), LIBRARY)

    traced = jax.jit(scaled)(1.0)
    for name in Operators.__dataclass_fields__:
        np.testing.assert_allclose(
            getattr(traced.operators, name), getattr(found.operators, name), rtol=1e-12, err_msg=name
        )
    for name in ("edge_bytes", "input_bytes", "hold_bytes", "live_bytes", "outside_in_bytes", "outside_out_bytes"):
        np.testing.assert_allclose(getattr(traced, name), getattr(found, name), rtol=1e-12, atol=1e-6, err_msg=name)
    assert traced.n_slots == found.n_slots and np.array_equal(traced.inputs, found.inputs)
    many = jax.vmap(lambda t: scaled(t).edge_bytes)(jnp.asarray([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(many, np.outer([1, 2, 3], found.edge_bytes))
    slope = jax.grad(lambda t: jnp.sum(scaled(t).edge_bytes))(1.0)
    assert float(slope) == pytest.approx(found.edge_bytes.sum())
