"""Equal layers as one with a count: amounts of the whole are sums times the count, and the graph still fits together."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.workload import GraphBuilder, exact_macs, fold, operator_row, training_step

MODELS = {
    "gpt2": (dict(seq_len=64), 14, {1, 12}),  # embedding, 12 rows of a block, final norm
    "llama-2-7b": (dict(phase="decode"), 21, {1, 32}),
    "deepseek-v3": (dict(phase="decode", batch=33), 61, {1, 3, 58}),  # dense layers, then experts
    "mamba-130m": (dict(seq_len=64), 15, {1, 24}),
    "resnet50": ({}, 94, {1, 2, 3, 5}),  # blocks of a stage but the first
}


def chain(layers: int, *, tap: int | None = None) -> GraphBuilder:
    """A table, layers of two products and a sum around them, and a head; `tap`: a layer that the head reads too."""
    graph, size = GraphBuilder("chain"), dict(p=8, bits=8)
    x = graph.add("table", operator_row("embedding", k=16, **size), outside_bytes=7.0)
    left = []
    for layer in range(layers):
        up = graph.add(f"l{layer}.up", operator_row("gemm", k=64, c=16, **size), [x])
        down = graph.add(f"l{layer}.down", operator_row("gemm", k=16, c=64, **size), [up], 3.0, 5.0)
        x = graph.add(f"l{layer}.add", operator_row("add", k=16, in_elements=256, **size), [down, x])
        left.append(x)
    graph.add("head", operator_row("gemm", k=100, c=16, **size), [x] if tap is None else [x, left[tap]])
    return graph


def counts(w) -> np.ndarray:
    return np.ones(w.n_operators) if w.count is None else w.count


def assert_same_totals(short, whole):
    n = counts(short)
    assert short.macs == whole.macs and short.parameters == whole.parameters
    assert short.weight_bytes == pytest.approx(whole.weight_bytes, rel=1e-14)
    assert short.stored_bytes == pytest.approx(whole.stored_bytes, rel=1e-14)
    for name in ("lane_ops", "in_elements", "out_elements", "weight_elements"):
        assert (n * getattr(short.operators, name)).sum() == getattr(whole.operators, name).sum(), name
    for name in ("outside_in_bytes", "outside_out_bytes", "hold_bytes", "live_bytes"):
        np.testing.assert_allclose(
            (n * getattr(short, name)).sum(), getattr(whole, name).sum(), rtol=1e-12, err_msg=name
        )
    assert (n @ short.input_bytes).sum() == whole.input_bytes.sum()
    assert (n[short.target] * short.edge_bytes).sum() == whole.edge_bytes.sum()
    assert n.sum() == whole.n_operators and short.live_bytes.max() == whole.live_bytes.max()


def assert_walks(w):
    """Every row finds its inputs in the slots that they were left in."""
    held = {}
    for row in range(w.n_operators):
        for source, slot in zip(w.inputs[row], w.input_slot[row], strict=True):
            assert source < 0 or held[int(slot)] == source
        held[int(w.slot[row])] = row
    assert len(held) <= w.n_slots


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ends", [0, 1])
def test_totals(name, ends):
    options, rows, kinds = MODELS[name]
    whole = pm.models.load(name, **options)
    short = fold(whole, ends=ends)
    assert_same_totals(short, whole)
    assert_walks(short)
    if not ends:
        assert short.n_operators == rows and set(short.count.tolist()) == kinds
    assert set(short.names) <= set(whole.names) and short.model_names == whole.model_names


def test_by_hand():
    whole = chain(5).build()
    short = fold(whole)
    assert short.names == ("table", "l0.up", "l0.down", "l0.add", "head")
    assert short.count.tolist() == [1, 5, 5, 5, 1]
    assert list(zip(short.source.tolist(), short.target.tolist(), strict=True)) == [
        (0, 1),
        (1, 2),
        (2, 3),
        (0, 3),
        (3, 4),
    ]
    assert short.outside_out_bytes.tolist() == [0, 0, 5, 0, 800]
    assert short.macs == 5 * 2 * 8 * 16 * 64 + 8 * 16 * 100
    apart = fold(whole, ends=1)
    assert apart.names[4:7] == ("l1.up", "l1.down", "l1.add") and apart.names[7] == "l4.up"
    assert apart.count.tolist() == [1] * 4 + [3] * 3 + [1] * 4


def test_neighbours_of_a_layer_that_stays_apart_are_like_those_inside():
    """What fusion looks at: the kinds at both ends of every edge, as often as in the whole."""
    whole = pm.models.load("gpt2", seq_len=8, phase="decode", context=9)
    short = fold(whole, ends=1)

    def pairs(w):
        found = {}
        for s, t in zip(w.source, w.target, strict=True):
            kinds = int(w.operators.kind[s]), int(w.operators.kind[t])
            found[kinds] = found.get(kinds, 0) + counts(w)[t]
        return found

    assert pairs(short) == pairs(whole)
    assert pairs(fold(whole)) != pairs(whole)  # the embedding stands where blocks do


def test_what_reads_an_inner_layer_finds_it():
    """A layer that is read from behind is the last of its chain."""
    for tap in range(5):
        whole = chain(5, tap=tap).build()
        short = fold(whole)
        assert_same_totals(short, whole)
        reads = [int(s) for s, t in zip(short.source, short.target, strict=True) if t == short.n_operators - 1]
        adds = [i for i, name in enumerate(short.names) if name.endswith(".add")]
        assert [sum(counts(short)[i] for i in adds if i <= row) for row in reads] == [5, tap + 1]


def test_nothing_to_fold():
    one = chain(1).build()
    assert fold(one) is one
    three = chain(3).build()
    assert fold(three, ends=1) is three and fold(three).n_operators == 5
    trained = training_step(chain(5).build())
    assert exact_macs(fold(trained).operators) == exact_macs(trained.operators)


def test_again_and_merged():
    whole = chain(6).build()
    short = fold(whole)
    again = fold(short)
    assert again.count.tolist() == short.count.tolist() and again.names == short.names
    both, long = pm.merge([short, whole]), pm.merge([whole, whole])
    assert both.macs == 2 * whole.macs and both.count.tolist() == short.count.tolist() + [1] * whole.n_operators
    np.testing.assert_allclose(both.rate, long.rate)
    assert_same_totals(fold(long), long)


def test_bad_input():
    with pytest.raises(ValueError, match="ends is -1; allowed"):
        fold(chain(3).build(), ends=-1)
    with pytest.raises(ValueError, match="chain: is folded"):
        training_step(fold(chain(3).build()))


def test_one_chiplet_does_not_tell_layers_apart(mcm):
    """Energy and throughput are sums; latency may differ where the end of a layer and the start of the next queue for memory."""
    whole = pm.models.load("gpt2", seq_len=64)
    short = fold(whole)
    one, other = (pm.evaluate(w, mcm, pm.Schedule.on_chiplet(w, 0)) for w in (short, whole))
    np.testing.assert_allclose(one.energy_j, other.energy_j, rtol=1e-5)
    np.testing.assert_allclose(one.throughput_per_s, other.throughput_per_s, rtol=1e-5)
    np.testing.assert_allclose(one.latency_s, other.latency_s, rtol=5e-3)
