"""Sharding: the published schemes row by row, bytes of their collectives, sums over ranks, what cannot be cut, uneven division."""

from collections import Counter

import numpy as np
import pytest
from compiled import cost_table

import perfmodel as pm
from perfmodel.cost import collective_row_s
from perfmodel.models.zoo import Experts, Transformer, language_model
from perfmodel.workload import (
    COLLECTIVE_KINDS,
    KINDS,
    GraphBuilder,
    Ranks,
    collective_row,
    operator_row,
    replicated,
    shard,
    stages,
    training_step,
)

SPEC = Transformer(vocabulary=1000, width=512, layers=3, heads=8, kv_heads=4, hidden=1536, rotary=64, tied=False)
MIXED = SPEC._replace(experts=Experts(count=8, chosen=2, hidden=256))


def model(spec=SPEC, **options):
    return language_model("small", spec, dtype="bf16", **{"seq_len": 48, "batch": 2, **options})


def collectives(w) -> list[str]:
    return [n for n, k in zip(w.names, w.operators.kind, strict=True) if KINDS[k] in COLLECTIVE_KINDS]


def counted(w) -> Counter:
    return Counter(KINDS[k] for k in w.operators.kind if KINDS[k] in COLLECTIVE_KINDS)


def row(w, name: str):
    i = w.names.index(name)
    return {field: np.asarray(getattr(w.operators, field))[i].item() for field in w.operators.__dataclass_fields__}


def all_of(w, ranks: Ranks):
    return [shard(w, ranks, rank) for rank in range(ranks.count)]


def message(w, name: str) -> float:
    return float(np.asarray(w.operators.message_bytes)[w.names.index(name)])


def test_one_device_is_the_workload_itself():
    w = model()
    assert shard(w, Ranks()) is w and stages(w, Ranks()) == (w,) and replicated(w, Ranks()) == ()
    assert shard(w, Ranks(sequence=True)) is w


def test_megatron_adds_up_twice_a_layer():
    w, four = model(), shard(model(), Ranks(tensor=4))
    assert counted(four) == {"all_reduce": 1 + 2 * 3, "all_gather": 1}
    assert collectives(four) == ["embed.all_reduce", *(f"layer{i}.{x}.all_reduce" for i in range(3) for x in ("attn.proj", "mlp.down")),
                                 "lm_head.all_gather"]  # fmt: skip
    assert message(four, "layer1.mlp.down.all_reduce") == 2 * 48 * 512 * 2  # batch x tokens x width in bf16
    assert message(four, "lm_head.all_gather") == 2 * 1000 * 2  # of each sequence's last token
    # columns of the first products, rows of the second ones; a head of keys with its queries on each rank
    columns = [row(four, x)["k"] for x in ("layer0.attn.q", "layer0.attn.k", "layer0.mlp.gate", "lm_head")]
    assert columns == [128, 64, 384, 250]
    assert [row(four, f"layer0.{x}")["c"] for x in ("attn.proj", "mlp.down")] == [128, 384]
    assert (row(four, "layer0.attn.scores")["groups"], row(w, "layer0.attn.scores")["groups"]) == (2, 8)
    assert row(four, "embed")["parameters"] == 250 * 512
    assert {n.split(".")[-1] for n in replicated(w, Ranks(tensor=4))} == {
        "norm_1",
        "norm_2",
        "add_1",
        "add_2",
        "norm_f",
    }


def test_sequence_parallelism_scatters_and_gathers_instead():
    w = shard(model(), Ranks(tensor=4, sequence=True))
    assert counted(w) == {"reduce_scatter": 1 + 2 * 3, "all_gather": 2 * 3 + 1 + 1}
    assert message(w, "layer1.mlp.down.reduce_scatter") == message(w, "layer1.norm_1.all_gather") == 2 * 48 * 512 * 2
    assert row(w, "layer1.norm_1")["p"] == row(w, "layer1.add_1")["p"] == 2 * 48 // 4
    # a token a sequence: fewer rows than ranks are added up everywhere
    few = shard(model(seq_len=1, batch=1, phase="decode", context=8), Ranks(tensor=4, sequence=True))
    assert counted(few) == {"all_reduce": 7, "all_gather": 1}


def test_blocks_side_by_side_add_up_once():
    w = shard(model(SPEC._replace(parallel=1)), Ranks(tensor=2))
    assert counted(w) == {"all_reduce": 1 + 3, "all_gather": 1}


@pytest.mark.parametrize("ranks", [
    Ranks(tensor=4), Ranks(tensor=4, sequence=True), Ranks(tensor=3), Ranks(tensor=8), Ranks(tensor=6), Ranks(tensor=11),
    Ranks(pipeline=3), Ranks(pipeline=2, tensor=2), Ranks(data=2), Ranks(context=4), Ranks(context=5, tensor=2),
    Ranks(tensor=2, context=2, data=2, pipeline=3),
])  # fmt: skip
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_work_over_the_ranks_adds_up(ranks, phase):
    if phase == "decode" and ranks.context > 1:
        pytest.skip("one token has no parts")
    w = model(phase=phase) if phase == "prefill" else model(phase=phase, seq_len=1, context=40)
    parts, alike = all_of(w, ranks), set(replicated(w, ranks))
    keys = 3 * 2 * (2 * 48 if phase == "prefill" else 2) * 512 * 256  # multiply-accumulates of all K and V projections
    copies = max(
        min(ranks.tensor, 8) / 4 - 1, 0
    )  # four heads of keys, eight of queries: more ranks have one several times, or none
    assert sum(p.macs for p in parts) == w.macs + keys * copies
    # weights: those of rows that are named are everywhere, the others are somewhere once (of each replica and context rank)
    named = sum(
        int(n)
        for n, name in zip(w.operators.parameters, w.names, strict=True)
        if name in alike and ".attn." not in name
    )
    more = 3 * 2 * 512 * 256 * copies + named * (ranks.tensor - 1)
    assert sum(p.parameters for p in parts) == pytest.approx((w.parameters + more) * ranks.data * ranks.context, abs=1)
    assert sum(p.kv_cache_bytes for p in parts) == pytest.approx(w.kv_cache_bytes * (1 + copies))
    most = shard(w, ranks)
    assert most.macs >= max(p.macs for p in parts) or most.weight_bytes >= max(p.weight_bytes for p in parts)
    assert all(np.all(p.source < p.target) for p in parts)


@pytest.mark.parametrize(
    "name, tensor", [("gpt2", 5), ("bert-base", 4), ("resnet50", 4), ("mamba-130m", 2), ("swin-t", 3), ("dlrm", 2)]
)
def test_any_graph_adds_up_but_for_what_is_named(name, tensor):
    w = pm.models.load(name, seq_len=32) if name in ("gpt2", "bert-base", "mamba-130m") else pm.models.load(name)
    ranks = Ranks(tensor=tensor)
    parts, alike = all_of(w, ranks), set(replicated(w, ranks))
    named = sum(int(m) for m, n in zip(w.operators.macs, w.names, strict=True) if n in alike)
    assert sum(p.macs for p in parts) == w.macs + (tensor - 1) * named
    stored = sum(int(m) for m, n in zip(w.operators.parameters, w.names, strict=True) if n in alike)
    assert sum(p.parameters for p in parts) == pytest.approx(w.parameters + (tensor - 1) * stored, abs=len(w.names))
    assert shard(w, ranks, 0).macs == max(p.macs for p in parts)


def test_pairs_of_convolutions():
    """conv -> relu -> conv: columns, then rows, and one all-reduce, of channels x pixels."""
    g, size = GraphBuilder("pair"), dict(p=8, q=8)
    a = g.add("a", operator_row("conv", k=32, c=16, r=3, s=3, **size), outside_bytes=1600.0)
    r = g.add("r", operator_row("relu", k=32, **size), [a])
    b = g.add("b", operator_row("conv", k=16, c=32, r=3, s=3, **size), [r])
    g.add("n", operator_row("layer_norm", k=16, **size), [b])
    w = shard(g.build(), Ranks(tensor=4))
    assert collectives(w) == ["b.all_reduce"] and message(w, "b.all_reduce") == 16 * 64
    assert (row(w, "a")["k"], row(w, "r")["k"], row(w, "b")["c"]) == (8, 8, 8)
    assert replicated(g.build(), Ranks(tensor=4)) == ("n",)


def test_what_nobody_can_use_in_parts_is_done_by_all():
    """A product straight into a norm: its columns would have to be gathered first."""
    g = GraphBuilder("alone")
    a = g.add("a", operator_row("gemm", k=32, c=16, p=8), outside_bytes=128.0)
    g.add("n", operator_row("layer_norm", k=32, p=8), [a])
    w = g.build()
    assert replicated(w, Ranks(tensor=2)) == ("a", "n") and counted(shard(w, Ranks(tensor=2))) == {}


def test_experts_within_the_tensor_ranks():
    """Dealt out to two groups, each expert cut in two: no exchange, one all-reduce of what the experts leave."""
    w, ranks = model(MIXED), Ranks(tensor=4, expert=2)
    one = shard(w, ranks)
    assert counted(one) == {"all_reduce": 7, "all_gather": 1}
    gate, down = row(one, "layer0.mlp.experts.gate"), row(one, "layer0.mlp.experts.down")
    assert (gate["groups"], gate["k"], down["groups"], down["c"]) == (4, 128, 4, 128)
    routers = 3 * 2 * 48 * 512 * 8
    assert sum(p.macs for p in all_of(w, ranks)) == w.macs + 3 * routers


def test_experts_that_replicas_share_exchange_tokens_twice():
    """Each replica sends its tokens, two copies each, and gets them back."""
    w, ranks = model(MIXED, batch=4), Ranks(expert=4, data=4)
    one = shard(w, ranks)
    assert counted(one) == {"all_to_all": 2 * 3}
    for name in ("dispatch", "experts.down"):
        assert message(one, f"layer0.mlp.{name}.all_to_all") == 48 * 2 * 512 * 2
        assert row(one, f"layer0.mlp.{name}.all_to_all")["ranks"] == 4
    assert row(one, "layer0.mlp.experts.gate")["groups"] == 2
    parts = all_of(w, ranks)
    assert sum(p.macs for p in parts) == w.macs
    experts = sum(int(n) for n, name in zip(w.operators.parameters, w.names, strict=True) if ".experts." in name)
    assert sum(p.parameters for p in parts) == 4 * (w.parameters - experts) + experts
    assert sum(p.kv_cache_bytes for p in parts) == pytest.approx(w.kv_cache_bytes)


def test_context_ranks_gather_keys_and_values():
    w = model()
    last = shard(w, Ranks(context=4))
    assert counted(last) == {"all_gather": 2 * 3}
    # as many bytes into a rank as ring attention sends: (n-1)/n of K and V
    assert (
        message(last, "layer0.attn.k.rope.all_gather")
        == message(last, "layer0.attn.v.all_gather")
        == 2 * 48 * 4 * 64 * 2
    )
    assert (row(last, "layer0.attn.scores")["p"], row(last, "layer0.attn.scores")["k"]) == (12 * 2, 48)
    first = shard(w, Ranks(context=4), 0)
    assert row(first, "lm_head")["is_matrix"] == 0 and row(last, "lm_head")["is_matrix"] == 1


def test_stages_hold_whole_layers_and_send_what_crosses():
    w = model(SPEC._replace(layers=7))
    parts = stages(w, Ranks(pipeline=3))
    assert [len({n.split(".")[0] for n in p.names if n.startswith("layer")}) for p in parts] == [3, 2, 2]
    assert [counted(p)["send"] for p in parts] == [1, 1, 0]
    assert message(parts[0], "layer2.add_2.send") == 2 * 48 * 512 * 2
    assert row(parts[0], "layer2.add_2.send")["ranks"] == 3
    # what is received is read from memory
    assert parts[1].outside_in_bytes.sum() == 2 * (2 * 48 * 512 * 2)  # by the norm and by the residual
    assert sum(p.kv_cache_bytes for p in parts) == pytest.approx(w.kv_cache_bytes)
    # ranks of one stage are together: a stage away is tensor x data ranks away
    far = stages(w, Ranks(pipeline=2, tensor=2, data=2))[0]
    assert row(far, "layer3.add_2.send")["rank_step"] == 4


def test_stages_of_a_graph_without_blocks_are_even():
    parts = stages(pm.models.load("resnet18"), Ranks(pipeline=3))
    macs = [p.macs for p in parts]
    assert sum(macs) == pm.models.load("resnet18").macs and max(macs) < 0.45 * sum(macs)


def test_latents_are_on_every_rank():
    w = pm.models.load("deepseek-v3", phase="decode", context=64)
    four = shard(w, Ranks(tensor=4))
    assert four.kv_cache_bytes == pytest.approx(w.kv_cache_bytes)
    assert row(four, "layer0.attn.scores")["p"] == 128 // 4 and row(four, "layer0.attn.q.absorb")["groups"] == 32
    assert {"layer0.attn.kv_a", "layer0.attn.q_a"} <= set(replicated(w, Ranks(tensor=4)))


@pytest.mark.parametrize("ranks, expected", [
    # Megatron-LM: two all-reduces a layer forward and two backward; of the head's input one, of the table one
    (Ranks(tensor=4), {"all_reduce": 4 * 3 + 2, "all_gather": 1}),
    # with sequence parallelism a gathering and a scattering for each
    (Ranks(tensor=4, sequence=True), {"all_gather": 4 * 3 + 3, "reduce_scatter": 4 * 3 + 2}),
    (Ranks(context=2), {"all_gather": 2 * 3, "reduce_scatter": 2 * 3}),
])  # fmt: skip
def test_a_training_step_of_a_shard(ranks, expected):
    w = model(all_logits=True, cached=False)
    parts, whole = [training_step(p) for p in all_of(w, ranks)], training_step(w)
    assert counted(parts[0]) == expected
    assert sum(p.macs for p in parts) == whole.macs
    assert all(np.all(p.source < p.target) for p in parts)


def test_a_shard_is_evaluated_like_any_workload():
    system, w = pm.systems.load("sn40l-node"), model()
    one, eight = w, shard(w, Ranks(tensor=4))
    table = cost_table(eight, system)
    seconds = np.asarray(collective_row_s(eight.operators, system))[:, 0]
    at = [eight.names.index(n) for n in collectives(eight)]
    np.testing.assert_allclose(np.asarray(table.exec_s)[at, 0], seconds[at], rtol=1e-6)
    assert np.all(np.asarray(seconds)[at] > 0)
    joined = pm.merge([one, eight])
    assert joined.operators.ranks.max() == 4
    assert pm.workload.coarsen(eight, pm.workload.fuse(eight, "xla-like")).macs


def test_additions_of_a_ring():
    assert (
        collective_row("all_reduce", 800, 8)["lane_ops"] == 700 == collective_row("reduce_scatter", 800, 8)["lane_ops"]
    )
    assert (
        collective_row("all_gather", 800, 8)["in_elements"]
        == 100
        == collective_row("reduce_scatter", 800, 8)["out_elements"]
    )
    assert collective_row("all_to_all", 800, 8)["lane_ops"] == 0


@pytest.mark.parametrize("call, says", [
    (lambda: Ranks(tensor=0), "ranks: tensor is 0; allowed: an integer of at least 1"),
    (lambda: Ranks(tensor=4, expert=3), "expert is 3; allowed: divisors of the 4 tensor ranks"),
    (lambda: Ranks(expert=4, data=2), "multiples that divide tensor x data = 2"),
    (lambda: Ranks(sequence=2), "sequence is 2; allowed: True or False"),
    (lambda: Ranks(tensor=2).at(2), "rank is 2; allowed: 0 to 1"),
    (lambda: shard(model(), Ranks(data=3)), "data is 3; allowed: 1 to 2, the sequences of the batch"),
    (lambda: shard(model(), Ranks(tensor=2, expert=2)), "small has no experts: 1"),
    (lambda: shard(model(), Ranks(context=49)), "context is 49; allowed for small: 1 to 48"),
    (lambda: shard(model(), Ranks(pipeline=50)), "pipeline is 50; allowed for small: 1 to"),
    (lambda: shard(pm.merge([model(), model()]), Ranks(tensor=2)), "several models; shard each, then merge"),
    (lambda: shard(pm.models.load("resnet18"), Ranks(context=2)), "a convolution|context"),
    (lambda: shard(training_step(model(cached=False)), Ranks(tensor=2)), "share out the forward pass"),
    (lambda: training_step(stages(model(cached=False), Ranks(pipeline=2))[0]), "a stage of a pipeline"),
])  # fmt: skip
def test_what_cannot_be_is_said(call, says):
    with pytest.raises(ValueError, match=says):
        call()
