"""Fusion by rules: groups worked out by hand, the Monarch example of SN40L, convexity, conservation, what backends allow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.models import Net
from perfmodel.workload import (
    ALL,
    BACKENDS,
    KINDS,
    GraphBuilder,
    coarsen,
    fuse,
    fusion_of,
    intensity,
    needs,
    operator_row,
    rules_by_kind,
)

FUSING = [name for name in BACKENDS if name != "none"]


def by_name(workload, fusion):
    return [[workload.names[r] for r in fusion.members(g)] for g in range(fusion.n_groups)]


def bottleneck():
    """A residual block: two branches that meet in an addition."""
    net = Net("block", dtype="int8")
    x = net.vector("relu0", "relu", net.input(1, 64, 56, 56))
    y = net.vector("relu1", "relu", net.norm("bn1", "batch_norm", net.conv("conv1", x, 64, 3)))
    y = net.norm("bn2", "batch_norm", net.conv("conv2", y, 256, 1))
    skip = net.norm("bn3", "batch_norm", net.conv("conv3", x, 256, 1))
    net.linear("fc", net.global_pool("pool", net.vector("relu2", "relu", net.vector("add", "add", y, skip))), 10)
    return net.build()


def gated(norm="rms_norm"):
    net = Net("mlp", dtype="bf16")
    x = net.norm("norm", norm, net.input(128, 512))
    gate = net.vector("silu", "silu", net.linear("gate", x, 1024))
    h = net.vector("mul", "mul", gate, net.linear("up", x, 1024))
    net.linear("down", h, 512)
    return net.build()


def monarch(p=64, c=256, k=512, n=8, batch=256, scale=True):
    """Gemm0 -> Mul -> Transpose -> Gemm1 of papers.md D.2: X [p x c] W0 [c x k], * S [p x k], transposed, W1 [p x n]; bf16."""
    graph, size = GraphBuilder("monarch"), dict(bits=16)
    first = operator_row("gemm", k=k, c=c, p=batch * p, parameters=c * k, **size)
    x = graph.add("gemm0", first, [], outside_bytes=2 * batch * p * c)
    scaling = dict(parameters=p * k) if scale else dict(lane_ops=0)
    x = graph.add("mul", operator_row("mul", batch=batch, k=k, p=p, **scaling, **size), [x])
    x = graph.add("transpose", operator_row("copy", batch=batch, k=p, p=k, **size), [x])
    graph.add("gemm1", operator_row("gemm", k=n, c=p, p=batch * k, parameters=p * n, **size), [x])
    return graph.build()


def test_monarch_intensities_and_verdicts_on_an_a100():
    """papers.md D.2: 39.8 / 100.0 / 410.3 operations a byte (Table I of arXiv 2405.07518 prints 39.5 / 102.6 / 410.4 for shapes
    that it does not); the A100's balance is 300 TFLOPS / 2 TB/s."""
    workload = monarch()
    found = [intensity(workload, fuse(workload, backend)) for backend in ("none", "xla-like", "dataflow")]
    assert [len(i.ops) for i in found] == [4, 2, 1]
    np.testing.assert_allclose([i.total for i in found], [39.8, 100.0, 410.3], atol=0.05)
    balance = 300e12 / 2e12
    assert [i.total < balance for i in found] == [True, True, False]
    x, w0, s, m, w1, out = (2 * n for n in (256 * 64 * 256, 256 * 512, 64 * 512, 256 * 64 * 512, 64 * 8, 256 * 512 * 8))
    assert found[2].bytes.sum() == x + w0 + s + w1 + out  # F
    assert found[1].bytes.sum() == x + w0 + s + w1 + out + 2 * m
    assert found[0].bytes.sum() == x + w0 + s + w1 + out + 6 * m
    assert found[0].ops.sum() == 2 * workload.macs + m / 2  # a transposition computes nothing
    # the paper's 410.4 / 102.6 = 4.000
    np.testing.assert_allclose(found[2].total / found[1].total, 4.0, rtol=0.03)


def test_the_zoos_monarch_is_the_same_example():
    zoo, here = pm.models.load("monarch", batch=256, rows=64, depth=256, columns=512, width=8), monarch()
    for backend in BACKENDS:
        a, b = (intensity(w, fuse(w, backend)) for w in (zoo, here))
        np.testing.assert_array_equal(a.ops, b.ops)
        np.testing.assert_array_equal(a.bytes, b.bytes)


def test_where_an_intermediate_is_one_and_a_half_times_the_rest_full_fusion_is_worth_four():
    """With F bytes of inputs, weights and output, and m of an intermediate: (F + 2 m) / F = 4 where m = 1.5 F. Here
    X [12 x 3], W0 [3 x 12], W1 [12 x 1]: F = 3 * 12 * 2 + 12 + 12 = 96 and m = 144 elements."""
    workload = monarch(p=12, c=3, k=12, n=1, batch=1, scale=False)
    none, partly, fully = (intensity(workload, fuse(workload, b)) for b in ("none", "xla-like", "dataflow"))
    assert fully.bytes.sum() == 2 * 96 and partly.bytes.sum() == 2 * (96 + 2 * 144)
    assert fully.total / partly.total == 4.0
    assert fully.total / none.total == 10.0  # F + 6 m


def test_a_residual_block_by_hand():
    workload = bottleneck()
    for backend in ("xla-like", "tensorrt-like"):
        assert by_name(workload, fuse(workload, backend)) == [
            ["relu0"], ["conv1", "bn1", "relu1"], ["conv3", "bn3"], ["conv2", "bn2", "add", "relu2"], ["pool"], ["fc"],
        ]  # fmt: skip
    assert len(by_name(workload, fuse(workload, "dataflow"))) == 1
    assert fuse(workload, "none").n_groups == 12 and not fuse(workload, "none").fused.any()
    rules = dict(
        zip(zip(workload.source, workload.target, strict=True), fuse(workload, "tensorrt-like").rule, strict=True)
    )
    assert rules[1, 2] == "convolution epilogue" and rules[2, 3] == "elementwise chain" and rules[0, 1] == ""


def test_a_gated_mlp_by_hand():
    workload = gated()
    assert by_name(workload, fuse(workload, "tensorrt-like")) == [["norm"], ["up"], ["gate", "silu", "mul"], ["down"]]
    whole = fuse(workload, "dataflow")
    assert by_name(workload, whole) == [["norm", "gate", "silu", "up", "mul", "down"]]
    assert set(whole.rule) == {"normalisation + matmul", "matmul epilogue", "elementwise chain", "gated MLP"}


def test_attention_is_streamed_by_those_who_know_it(gpt2):
    names = by_name(gpt2, fuse(gpt2, "tensorrt-like"))
    assert ["h0.attn.scores", "h0.attn.softmax", "h0.attn.values"] in names
    assert ["h0.attn.scores"] in by_name(gpt2, fuse(gpt2, "xla-like"))
    flow = fuse(gpt2, "dataflow")
    # keys and values are needed whole before the first score: attention never streams from the row that makes them
    assert flow.group[gpt2.names.index("h0.attn.qkv")] < flow.group[gpt2.names.index("h0.attn.scores")]
    assert ["embed", "h0.ln_1", "h0.attn.qkv"] in by_name(gpt2, flow)


def test_queries_stream_into_attention_keys_do_not():
    net = Net("heads", dtype="bf16")
    x = net.norm("norm", "rms_norm", net.input(64, 512))
    q = net.vector("rope_q", "rope", net.linear("q", x, 512))
    k = net.linear("k", x, 512)
    scores = net.product("scores", q, k, groups=8, p=64, k=64, c=64)
    net.vector("softmax", "softmax", scores, groups=8)
    workload = net.build()
    fusion = fuse(workload, "dataflow")
    group = dict(zip(workload.names, fusion.group, strict=True))
    # q and k come from one group, so the scores cannot join it: they would wait for all of k
    assert group["q"] == group["k"] == group["rope_q"] != group["scores"] == group["softmax"]
    kinds = dict(zip(zip(workload.source, workload.target, strict=True), needs(workload), strict=True))
    rows = {name: i for i, name in enumerate(workload.names)}
    assert kinds[rows["rope_q"], rows["scores"]] != ALL and kinds[rows["k"], rows["scores"]] == ALL


def test_what_needs_all_of_a_tensor_is_not_fused():
    workload = gated("rms_norm")
    net = Net("gn", dtype="int8")
    x = net.norm("gn", "group_norm", net.conv("conv1", net.input(1, 32, 16, 16), 32, 3))
    net.conv("conv2", x, 32, 3)
    workload = net.build()
    assert by_name(workload, fuse(workload, "dataflow")) == [["conv1"], ["gn", "conv2"]]


def test_largest_limits_groups(resnet50):
    fusion = fuse(resnet50, "dataflow", largest=7)
    sizes = np.diff(fusion.start)
    assert sizes.max() == 7 and sizes.sum() == resnet50.n_operators
    with pytest.raises(ValueError, match="largest is 0; allowed: at least 1"):
        fuse(resnet50, "dataflow", largest=0)


def test_unknown_backends_and_bad_choices_are_refused(tiny):
    with pytest.raises(ValueError, match="fusion backend.*tensorrt"):
        fuse(tiny, "tensorrt")
    with pytest.raises(ValueError, match=r"fused has shape \(3,\); needed: \(10,\)"):
        fusion_of(tiny, np.ones(3, bool))
    edges = list(zip(tiny.source, tiny.target, strict=True))
    chosen = np.asarray([edge == (0, 3) for edge in edges])  # stem -> add, while stem -> conv -> relu -> add
    with pytest.raises(ValueError, match="operator 'stem' is not convex"):
        fusion_of(tiny, chosen)
    assert fusion_of(tiny, np.ones(10, bool)).n_groups == 1


def convex(workload, group):
    """No path leaves a group and comes back, by following every path."""
    n = workload.n_operators
    reach = np.zeros((n, n), bool)  # by a path that has left the group of its start
    inside = np.eye(n, dtype=bool)
    for s, t in sorted(zip(workload.source.tolist(), workload.target.tolist(), strict=True), key=lambda e: e[1]):
        same = group[s] == group[t]
        for start in range(n):
            at_home = inside[start, s] and group[s] == group[start]
            inside[start, t] |= at_home and same
            reach[start, t] |= reach[start, s] or (at_home and not same)
    return not any(reach[a, b] and group[a] == group[b] for a in range(n) for b in range(n))


_SOME = (
    "conv",
    "gemm",
    "attention_gemm",
    "relu",
    "add",
    "mul",
    "softmax",
    "layer_norm",
    "copy",
    "group_norm",
    "batch_norm",
)


@st.composite
def graphs(draw):
    n = draw(st.integers(2, 14))
    graph = GraphBuilder("random")
    for row in range(n):
        kind = draw(st.sampled_from(_SOME))
        inputs = draw(st.sets(st.integers(max(0, row - 5), row - 1), max_size=3)) if row else set()
        size = dict(k=8, c=8, p=8) if kind in ("gemm", "conv", "attention_gemm") else dict(k=8, p=8)
        graph.add(f"{kind}{row}", operator_row(kind, **size), sorted(inputs), 0.0 if inputs else 64.0)
    return graph.build()


@settings(max_examples=60)
@given(graphs())
def test_groups_are_convex_ordered_and_within_the_rules(workload):
    edges = list(zip(workload.source.tolist(), workload.target.tolist(), strict=True))
    for backend in BACKENDS:
        fusion = fuse(workload, backend)
        assert convex(workload, fusion.group)
        assert fusion.start[0] == 0 and fusion.start[-1] == workload.n_operators
        position = np.argsort(fusion.rows)
        assert sorted(fusion.rows) == list(range(workload.n_operators))
        for e, (s, t) in enumerate(edges):
            assert position[s] < position[t] and fusion.group[s] <= fusion.group[t]
            assert fusion.fused[e] == (fusion.group[s] == fusion.group[t]) == (fusion.rule[e] != "")
            if fusion.fused[e]:
                pair = int(workload.operators.kind[s]), int(workload.operators.kind[t])
                assert fusion.rule[e] in [name for name, _ in rules_by_kind(backend)[pair]]
                assert needs(workload)[e] != ALL
        most = BACKENDS[backend].most
        for g in range(fusion.n_groups):
            kinds = [KINDS[workload.operators.kind[r]] for r in fusion.members(g)]
            dense, attention = kinds.count("conv") + kinds.count("gemm"), kinds.count("attention_gemm")
            # one row alone is always a group
            assert len(kinds) == 1 or not most or any(dense <= d and attention <= a for d, a in most)
        again = fusion_of(workload, fusion.fused)
        assert np.array_equal(again.group, fusion.group)


@settings(max_examples=60)
@given(graphs(), st.integers(0, 2**31))
def test_a_choice_is_refused_just_where_it_is_not_convex(workload, seed):
    fused = np.random.default_rng(seed).random(len(workload.source)) < 0.4
    group = np.arange(workload.n_operators)
    for _ in range(workload.n_operators):
        for s, t in zip(workload.source[fused], workload.target[fused], strict=True):
            group[s] = group[t] = min(group[s], group[t])
    # groups that wait for each other cannot run either, though each alone is convex
    edges = {
        (group[s], group[t]) for s, t in zip(workload.source, workload.target, strict=True) if group[s] != group[t]
    }
    left = set(group.tolist())
    while free := {g for g in left if not any(t == g and s in left for s, t in edges)}:
        left -= free
    if left:
        with pytest.raises(ValueError, match="is not convex"):
            fusion_of(workload, fused)
    else:
        assert len(set(group.tolist())) == fusion_of(workload, fused).n_groups


_MODELS = (
    "resnet50", "gpt2", "bert-large", "mobilenet-v2", "inception-v4", "swin-t", "unet", "llama-2-7b", "mixtral-8x7b", "dlrm",
)  # fmt: skip


@pytest.mark.parametrize("name", _MODELS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_lost(name, backend):
    workload = pm.models.load(name)
    fusion = fuse(workload, backend)
    coarse, found, unfused = (
        coarsen(workload, fusion),
        intensity(workload, fusion),
        intensity(workload, fuse(workload, "none")),
    )
    assert sum(coarse.macs) == workload.macs and sum(coarse.parameters) == workload.parameters
    assert sum(coarse.weight_bytes) == pytest.approx(workload.weight_bytes, abs=len(coarse.macs))
    assert sorted(row for members in coarse.members for row in members) == list(range(workload.n_operators))
    assert all(len({int(workload.model[r]) for r in members}) == 1 for members in coarse.members)
    assert (coarse.source < coarse.target).all()
    assert len(set(zip(coarse.source.tolist(), coarse.target.tolist(), strict=True))) == len(coarse.source)
    assert found.ops.sum() == pytest.approx(unfused.ops.sum(), rel=1e-12)
    assert found.bytes.sum() <= unfused.bytes.sum() * (1 + 1e-12)
    if backend in FUSING:
        assert fusion.n_groups < workload.n_operators


def test_a_tensor_read_twice_in_a_group_crosses_once(tiny):
    """Rows: stem, conv, relu, add, qkv, scores, softmax, values, out. qkv gives 2/3 to the scores, 1/3 to the values."""
    edges = list(zip(tiny.source.tolist(), tiny.target.tolist(), strict=True))
    fusion = fusion_of(tiny, np.asarray([e in {(5, 6), (6, 7), (1, 2), (2, 3)} for e in edges]))
    coarse = coarsen(tiny, fusion)
    assert coarse.names == ("stem", "conv +2", "qkv", "scores +2", "out")
    got = {(s, t): b for s, t, b in zip(coarse.source, coarse.target, coarse.edge_bytes, strict=True)}
    # stem goes to conv and to add, 1024 bytes each, but enters the group once; qkv's two parts are all of it
    assert got == {(0, 1): 1024, (1, 2): 1024, (2, 3): 64 * 48, (3, 4): 1024}
    assert coarse.macs[1] == 16 * 16 * 64 * 9 and coarse.macs[3] == 2 * 4 * 64 * 64 * 4
    found = intensity(tiny, fusion)
    assert found.read_bytes.tolist() == [300, 1024, 1024, 3072, 1024]
    assert found.written_bytes.tolist() == [1024, 1024, 3072, 1024, 640]
    assert found.weight_bytes.tolist() == [16 * 27, 16 * 16 * 9, 48 * 16, 0, 160]


def test_models_that_share_a_package_stay_apart(gpt2, tiny):
    both = pm.merge([tiny, gpt2])
    coarse = coarsen(both, fuse(both, "dataflow"))
    alone = coarsen(tiny, fuse(tiny, "dataflow")), coarsen(gpt2, fuse(gpt2, "dataflow"))
    assert len(coarse.macs) == len(alone[0].macs) + len(alone[1].macs)
    assert np.bincount(coarse.model).tolist() == [len(a.macs) for a in alone]


def test_counts_beyond_53_bits_stay_exact():
    graph = GraphBuilder("huge")
    row = operator_row(
        "gemm", groups=3, k=2**20 + 1, c=2**20 + 1, p=2**20 + 1, parameters=3, in_elements=1, out_elements=1
    )
    graph.add("relu", operator_row("relu", k=1), [graph.add("gemm", row)])
    workload = graph.build()
    assert coarsen(workload, fuse(workload, "xla-like")).macs == (3 * (2**20 + 1) ** 3,)
