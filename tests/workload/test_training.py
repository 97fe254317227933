"""A step of training from any forward graph: MACs, bytes, what stays live, and small graphs by hand."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.models import Net
from perfmodel.workload import KINDS, GraphBuilder, exact_macs, operator_row, training_step

LEARNT = {  # models whose first weights are fed by tables: nothing to save
    "gpt2": {}, "bert-base": {"seq_len": 64}, "llama-2-7b": {"seq_len": 16}, "deepseek-v3": {"seq_len": 16},
    "mixtral-8x7b": {"seq_len": 64, "imbalance": 1.0}, "mamba-130m": {"seq_len": 16}, "bloom-176b": {"seq_len": 4},
}  # fmt: skip


def row(w, name: str) -> dict:
    i = w.names.index(name)
    amounts = {f: np.asarray(getattr(w.operators, f))[i] for f in w.operators.__dataclass_fields__}
    return amounts | {"kind": KINDS[amounts["kind"]], "read": w.outside_in_bytes[i], "written": w.outside_out_bytes[i]}


def edges(w) -> dict:
    return {(w.names[s], w.names[t]): b for s, t, b in zip(w.source, w.target, w.edge_bytes, strict=True)}


@pytest.mark.parametrize("name", LEARNT)
def test_three_times_the_forward_macs(name):
    forward, step = pm.models.load(name, **LEARNT[name] | {"lm_head": True} if name == "gpt2" else LEARNT[name]), None
    step = training_step(forward)
    assert step.macs == 3 * forward.macs and step.parameters == forward.parameters


@pytest.mark.parametrize("name, image", [("resnet50", 64), ("swin-t", 224), ("unet", 572)])
def test_pictures_need_no_gradient(name, image):
    forward = pm.models.load(name, image=image)
    first = exact_macs(forward.operators)[0]
    assert training_step(forward).macs == 3 * forward.macs - first


@pytest.mark.parametrize(
    "name", ["resnet50", "llama-2-7b", "mixtral-8x7b", "falcon-40b", "mamba-130m", "llava-1.5-7b", "gpt2"]
)
def test_rows_read_what_reaches_them(name):
    """As in forward graphs: edges and memory bring what a row reads, and no edge carries more than was made."""
    w = training_step(pm.models.load(name, **({"image": 64} if name == "resnet50" else {"seq_len": 5})))
    op = w.operators
    rows = [i for i, kind in enumerate(op.kind) if KINDS[kind] != "embedding"]
    entering = w.input_bytes.sum(axis=1) + w.outside_in_bytes
    np.testing.assert_allclose(entering[rows], (op.in_elements * op.in_bits / 8)[rows], rtol=1e-9)
    assert (w.edge_bytes <= (op.out_elements * op.out_bits / 8)[w.source] * (1 + 1e-9)).all()


def small() -> Net:
    net = Net("small", batch=2, dtype="bf16")
    x = net.linear("first", net.input(2, 4, 8), 16, bias=True)
    y = net.vector("gelu", "gelu", x)
    net.vector("add", "add", net.linear("second", y, 16), y)
    return net


def test_a_small_graph_by_hand():
    w = training_step(small().build())
    n = 2 * 4 * 16  # elements of every tensor but the input's 64
    assert w.names == (
        "first", "gelu", "second", "add", "add.loss", "second.dgrad", "second.wgrad", "gelu.grad_sum", "gelu.grad", "first.wgrad",
        "first.update", "second.update",
    )  # fmt: skip
    assert edges(w) == {
        ("first", "gelu"): 2 * n, ("gelu", "second"): 2 * n, ("second", "add"): 2 * n, ("gelu", "add"): 2 * n,
        ("add", "add.loss"): 2 * n,
        ("add.loss", "second.dgrad"): 2 * n,  # through the sum as it is
        ("gelu", "second.wgrad"): 2 * n, ("add.loss", "second.wgrad"): 2 * n,
        ("second.dgrad", "gelu.grad_sum"): 2 * n, ("add.loss", "gelu.grad_sum"): 2 * n,
        ("gelu.grad_sum", "gelu.grad"): 2 * n, ("first", "gelu.grad"): 2 * n,
        ("gelu.grad", "first.wgrad"): 2 * n,
        ("first.wgrad", "first.update"): 4 * (8 * 16 + 16), ("second.wgrad", "second.update"): 4 * 16 * 16,
    }  # fmt: skip
    dgrad, wgrad = row(w, "second.dgrad"), row(w, "second.wgrad")
    assert [dgrad[f] for f in ("kind", "p", "k", "c", "weight_elements", "parameters")] == ["gemm", 8, 16, 16, 256, 0]
    assert [wgrad[f] for f in ("p", "k", "c", "weight_elements", "out_bits")] == [16, 16, 8, 0, 32]
    first = row(w, "first.wgrad")
    assert [first[f] for f in ("p", "k", "c", "lane_ops", "read")] == [8, 16, 8, n, 2 * 64]  # biases; the input again
    assert row(w, "gelu.grad_sum")["lane_ops"] == n and row(w, "gelu.grad")["lane_ops"] == 2 * n
    update = row(w, "first.update")
    # fp32 parameters and two moments in and out, and the parameters as bf16
    assert (update["kind"], update["read"], update["written"]) == ("optimizer", 12 * 144, 14 * 144)
    assert update["lane_ops"] == 12 * 144 and update["in_elements"] == 4 * 144


@pytest.mark.parametrize(
    "optimizer, read, written, ops", [("sgd", 4, 6, 2), ("momentum", 8, 10, 4), ("adam", 12, 14, 12)]
)
def test_optimizers(optimizer, read, written, ops):
    update = row(training_step(small().build(), optimizer), "second.update")
    assert (update["read"], update["written"], update["lane_ops"]) == (256 * read, 256 * written, 256 * ops)


def test_single_precision_weights_are_their_own_master_copy():
    net = Net("x", dtype="fp32")
    net.linear("l", net.input(1, 3, 8), 4)
    assert row(training_step(net.build()), "l.update")["written"] == 12 * 32


def test_a_strided_convolution():
    net = Net("x", dtype="bf16")
    y = net.vector("relu", "relu", net.conv("a", net.input(3, 4, 9, 9), 8, 3, 2, groups=2))
    net.conv("b", y, 6, 3, 2)
    forward = net.build()
    w = training_step(forward)
    macs = dict(zip(w.names, exact_macs(w.operators), strict=True))
    assert macs["b"] == macs["b.dgrad"] == macs["b.wgrad"] == 3 * 6 * 8 * 9 * 9 and macs["a"] == macs["a.wgrad"]
    assert w.macs == 3 * forward.macs - macs["a"]
    dgrad = row(w, "b.dgrad")
    assert dgrad["kind"] == "conv" and dgrad["out_elements"] == 3 * 8 * 25 and dgrad["in_elements"] == 3 * 6 * 9
    wgrad = row(w, "a.wgrad")
    assert [wgrad[f] for f in ("groups", "p", "k", "c", "out_elements")] == [2, 2 * 9, 4, 3 * 25, 8 * 2 * 9]
    assert ("relu", "relu.grad") in edges(w) and ("a", "relu.grad") not in edges(w)  # the sign of the result is enough


def test_attention():
    """Gradients of scores reach queries and keys, that of values the weights and the values."""
    w = training_step(pm.models.load("gpt2", seq_len=10, dtype="bf16"))
    made = edges(w)
    heads, n, d = 12, 10, 768
    a, b = row(w, "h3.attn.values.grad_a"), row(w, "h3.attn.values.grad_b")
    assert [a[f] for f in ("groups", "p", "k", "c")] == [heads, n, n, 64] and [
        b[f] for f in ("groups", "p", "k", "c")
    ] == [heads, n, 64, n]
    assert made["h3.attn.values.grad_a", "h3.attn.softmax.grad"] == 2 * heads * n * n
    assert made["h3.attn.qkv", "h3.attn.values.grad_a"] == 2 * n * d  # the values
    assert made["h3.attn.softmax", "h3.attn.values.grad_b"] == 2 * heads * n * n
    # of the row that makes queries, keys and values: three parts, none of them twice
    into = {s: b for (s, t), b in made.items() if t == "h3.attn.qkv.dgrad"}
    assert into == {
        "h3.attn.scores.grad_a": 2 * n * d,
        "h3.attn.scores.grad_b": 2 * n * d,
        "h3.attn.values.grad_b": 2 * n * d,
    }


def test_shared_weights_are_updated_once():
    w = pm.models.load("gpt2", seq_len=4, lm_head=True, phase="train")
    made = edges(w)
    assert made["lm_head.wgrad", "embed.update"] == 4 * 50257 * 768
    assert made["embed.grad", "embed.update"] == 4 * (50257 + 1024) * 768
    assert "lm_head.update" not in w.names
    assert sum(row(w, n)["lane_ops"] for n in w.names if n.endswith(".update")) == 12 * w.parameters


def test_activations_stay_until_their_gradients_are_done():
    forward = pm.models.load("gpt2", batch=4, seq_len=512, dtype="bf16")
    w = training_step(forward)
    blocks = (
        12 * 4 * 512 * 2 * 768 * (2 + 3 + 1 + 2 + 4 + 4)
    )  # of each block: two norms' inputs and results, qkv, ..., mlp
    at_loss = w.live_bytes[w.names.index("ln_f.loss")]
    assert at_loss > blocks > 5 * forward.live_bytes.max()
    gradients = 4 * w.parameters
    assert w.live_bytes[w.names.index("embed.update")] >= 0.3 * gradients  # the table's


def test_phase_train_is_a_step_of_training():
    a = pm.models.load("llama-2-7b", seq_len=8, phase="train")
    forward = pm.models.load("llama-2-7b", seq_len=8, all_logits=True)
    b = training_step(forward)
    assert a.names == b.names and a.macs == b.macs and a.kv_cache_bytes == 0


def test_rows_that_learn_nothing_have_no_gradient():
    graph = GraphBuilder("x")
    still = graph.add("still", operator_row("relu", k=8, p=4), [], outside_bytes=32)
    graph.add("gemm", operator_row("gemm", k=8, c=8, p=4), [still])
    assert training_step(graph.build()).names == ("still", "gemm", "gemm.loss", "gemm.wgrad", "gemm.update")


def chain(length: int):
    graph = GraphBuilder("chain")
    here = graph.add("l0", operator_row("gemm", k=4, c=4, p=2), [], outside_bytes=8)
    for i in range(1, length):
        here = graph.add(f"l{i}", operator_row("gemm", k=4, c=4, p=2), [here] if i % 7 else [here, max(here - 5, 0)])
    return graph.build()


def test_many_rows():
    length = 10_000  # hopeless if any step were quadratic
    w = training_step(chain(length))
    assert w.macs == 3 * length * 32 - 32 and w.parameters == 16 * length


def test_bad_input():
    with pytest.raises(ValueError, match="optimizer is 'adamw': did you mean adam"):
        training_step(small().build(), "adamw")
    with pytest.raises(ValueError, match="small, small#2: several models; train each, then merge"):
        training_step(pm.merge([small().build(), small().build()]))
