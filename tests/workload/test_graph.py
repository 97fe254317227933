"""The graph: what is derived from the edges on the host, against brute force; merging; bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.workload import GraphBuilder, exact_macs, operator_row


def readers_of(w) -> list[list[int]]:
    return [w.target[w.source == row].tolist() for row in range(w.n_operators)]


def check_derived(w) -> None:
    """Everything that `assemble` derives, by walking the edges the slow way."""
    readers = readers_of(w)
    last = [max(r, default=row) for row, r in enumerate(readers)]

    # predecessors: exactly the edges, in their order
    for row in range(w.n_operators):
        edges = [(int(s), float(b)) for s, t, b in zip(w.source, w.target, w.edge_bytes, strict=True) if t == row]
        given_ = [(int(s), float(b)) for s, b in zip(w.inputs[row], w.input_bytes[row], strict=True) if s >= 0]
        assert given_ == edges
        assert (w.input_slot[row] >= 0).tolist() == (w.inputs[row] >= 0).tolist()
        # each tensor is released exactly once, by its last reader
        for source in {s for s, _ in edges}:
            released = w.input_last[row][w.inputs[row] == source].sum()
            assert released == (1 if last[source] == row else 0)

    # registers: a walk never reads a tensor that has been overwritten, nor has more registers than tensors that live
    register = [-1] * w.n_slots
    for row in range(w.n_operators):
        for source, slot in zip(w.inputs[row], w.input_slot[row], strict=True):
            if source >= 0:
                assert register[slot] == source
        before = register[w.slot[row]]
        assert before < 0 or last[before] <= row
        register[w.slot[row]] = row
    assert w.n_slots == max(1 + sum(last[t] > row for t in range(row)) for row in range(w.n_operators))

    # bytes held: every tensor from its producer to its last reader, both included; outputs go straight to memory
    for row in range(w.n_operators):
        held = sum(w.hold_bytes[t] for t in range(row + 1) if readers[t] and last[t] >= row)
        assert w.live_bytes[row] == pytest.approx(held, abs=1e-6)
    made = w.operators.out_elements * w.operators.out_bits / 8
    sink = np.asarray([not r for r in readers])
    np.testing.assert_array_equal(w.outside_out_bytes, np.where(sink, made, 0))
    assert (w.hold_bytes[sink] == 0).all() and (w.hold_bytes <= made).all()


@pytest.mark.parametrize("name", ["tiny", "resnet50", "gpt2", "both"])
def test_derived_fields(name, request):
    check_derived(request.getfixturevalue(name))


@st.composite
def graphs(draw):
    """Random graphs of vectors: any earlier rows as inputs, also the same one twice, also none."""
    graph = GraphBuilder("random")
    for row in range(draw(st.integers(1, 12))):
        made = operator_row("add", k=draw(st.integers(1, 50)), groups=draw(st.sampled_from([1, 1, 4])))
        graph.add(f"row{row}", made, draw(st.lists(st.integers(0, row - 1), max_size=4)) if row else [])
    return graph.build()


@given(graphs())
def test_derived_fields_of_any_graph(workload):
    check_derived(workload)


@given(graphs(), graphs())
def test_derived_fields_of_any_merge(one, two):
    merged = pm.merge([one, two])
    check_derived(merged)
    np.testing.assert_array_equal(merged.live_bytes, np.concatenate([one.live_bytes, two.live_bytes]))
    assert merged.first.tolist() == [row in (0, one.n_operators) for row in range(merged.n_operators)]
    assert (merged.model[merged.source] == merged.model[merged.target]).all()


def test_two_tiles_only_between_neighbours_of_the_same_groups():
    def hold(groups, next_groups, extra_reader=False):
        graph = GraphBuilder("g")
        first = graph.add("a", operator_row("softmax", groups=groups, k=10))
        second = graph.add("b", operator_row("softmax", groups=next_groups, k=10), [first])
        graph.add("c", operator_row("add", k=10), [second, first] if extra_reader else [second])
        return graph.build().hold_bytes[0]

    assert hold(8, 8) == 2 * 10  # two heads of ten bytes
    assert hold(2, 2) == 2 * 10  # two heads are all there is
    assert hold(8, 4) == hold(8, 8, extra_reader=True) == 80


def test_edge_bytes_default_to_the_whole_tensor_as_its_producer_wrote_it():
    graph = GraphBuilder("g")
    a = graph.add("a", operator_row("relu", k=6, bits=8))
    b = graph.add("b", operator_row("relu", k=6, bits=16), [a])
    graph.add("c", operator_row("relu", k=6), [(b, 5.0)])
    assert graph.build().edge_bytes.tolist() == [6.0, 5.0]


def test_merge_equal_work_gives_every_model_the_same_macs_a_round(gpt2, resnet50):
    both = pm.merge([gpt2, resnet50])
    assert both.rate.tolist() == [1.0, 106_300_440_576 / 4_089_184_256]
    assert pm.merge([resnet50, gpt2]).rate.tolist() == both.rate.tolist()[::-1]
    work = [sum(m for m, of in zip(exact_macs(both.operators), both.model, strict=True) if of == i) for i in (0, 1)]
    np.testing.assert_allclose(work * both.rate, max(work))


def test_merge_keeps_everything(gpt2, resnet50):
    both = pm.merge([gpt2, resnet50], mix="equal-inferences")
    n = gpt2.n_operators
    assert both.rate.tolist() == [1, 1] and both.mix == "equal-inferences"
    assert both.model_names == ("gpt2", "resnet50") and both.n_models == 2
    assert both.macs == gpt2.macs + resnet50.macs and both.parameters == gpt2.parameters + resnet50.parameters
    assert both.names[0] == "gpt2/embed" and both.names[n] == "resnet50/conv1"
    edges = np.concatenate([gpt2.source, resnet50.source + n]), np.concatenate([gpt2.target, resnet50.target + n])
    np.testing.assert_array_equal((both.source, both.target), edges)
    for field in ("hold_bytes", "outside_in_bytes", "outside_out_bytes", "live_bytes"):
        np.testing.assert_array_equal(
            getattr(both, field), np.concatenate([getattr(w, field) for w in (gpt2, resnet50)])
        )
    assert both.n_slots == max(gpt2.n_slots, resnet50.n_slots)


def test_merge_of_merges_is_a_merge_of_all(tiny, gpt2):
    flat, nested = pm.merge([tiny, gpt2, tiny]), pm.merge([pm.merge([tiny, gpt2]), tiny])
    assert flat.model_names == nested.model_names == ("tiny", "gpt2", "tiny#2")
    assert flat.names == nested.names
    np.testing.assert_array_equal(flat.rate, nested.rate)
    np.testing.assert_array_equal(flat.model, nested.model)


def test_merge_of_one_is_itself_with_a_prefix(tiny):
    merged = pm.merge([tiny])
    assert merged.rate.tolist() == [1.0] and merged.macs == tiny.macs
    assert merged.names == tuple(f"tiny/{n}" for n in tiny.names)


@pytest.mark.parametrize("call, said", [
    (lambda: pm.merge([]), "at least one workload"),
    (lambda: pm.merge([pm.models.load("gpt2")], mix="fair"), "mix is 'fair'; allowed: equal-work, equal-inferences"),
    (lambda: operator_row("convolution", k=1), "operator kind is 'convolution': did you mean conv"),
    (lambda: operator_row("conv", k=0), "conv operator: k is 0; allowed: an integer from 1"),
    (lambda: operator_row("gemm", k=8, p=-2), "gemm operator: p is -2; allowed"),
    (lambda: operator_row("gemm", k=2.0), "gemm operator: k is 2.0; allowed"),
    (lambda: operator_row("gemm", k=True), "gemm operator: k is True; allowed"),
    (lambda: operator_row("gemm", k=2**31), "gemm operator: k is 2147483648; allowed"),
])  # fmt: skip
def test_bad_input(call, said):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_edge_against_the_order_is_refused():
    graph = GraphBuilder("g")
    graph.add("a", operator_row("relu", k=1), [])
    graph.add("b", operator_row("relu", k=1))
    graph.edges.append((1, 1, 1.0))  # reads itself
    with pytest.raises(ValueError, match="b -> b runs against the order"):
        graph.build()


@pytest.mark.parametrize("source", [5, 2, -1, (5, 1.0), (2, 1.0), (-1, 1.0)])
def test_an_input_that_is_no_earlier_row_is_refused(source):
    graph = GraphBuilder("g")
    for name in "ab":
        graph.add(name, operator_row("relu", k=1))
    row = source[0] if isinstance(source, tuple) else source
    with pytest.raises(ValueError, match=f"g: operator 'c': input is row {row}; allowed: one of the 2 before it"):
        graph.add("c", operator_row("relu", k=1), [source])


def test_a_graph_without_operators_is_refused():
    with pytest.raises(ValueError, match="empty-one: has no operators; at least one is needed"):
        GraphBuilder("empty-one").build()


def test_names_of_rows_stay_distinct_when_a_model_is_merged_with_itself(tiny):
    twice = pm.merge([tiny, tiny])
    assert twice.names == tuple(f"{model}/{n}" for model in ("tiny", "tiny#2") for n in tiny.names)
    for nested in ([twice, tiny], [tiny, twice], [twice, twice]):  # numbers given by an inner merge are taken
        merged = pm.merge(nested)
        assert len(set(merged.model_names)) == merged.n_models
        assert merged.names == tuple(f"{model}/{n}" for model in merged.model_names for n in tiny.names)


def test_counts_beyond_float32_stay_exact():
    graph = GraphBuilder("g")
    graph.add("a", operator_row("gemm", k=65537, c=65537, p=3))  # 3 * (2**16 + 1)**2: odd, above 2**24 and 2**32
    workload = graph.build()
    assert workload.macs == 3 * 65537**2 and workload.parameters == 65537**2


@pytest.mark.parametrize("weights, held", [(False, 2 / 6), (True, 1.0)])
def test_groups_of_weights_are_not_those_of_sequences(weights, held):
    """Six sequences, then six heads with weights of their own: nothing streams from one to the other, as many as they are."""
    graph = GraphBuilder("groups")
    values = graph.add("values", operator_row("attention_gemm", groups=6, k=8, c=9, p=5))
    reader = operator_row("gemm" if weights else "attention_gemm", groups=6, k=4, c=8, p=5)
    graph.add("reader", reader, [values])
    assert graph.build().hold_bytes.tolist() == pytest.approx([6 * 8 * 5 * held, 0.0])
