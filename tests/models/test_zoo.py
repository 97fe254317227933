"""The zoo against published totals and against layer tables written down independently."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.workload import KINDS, exact_macs

PARAMETERS = {  # torchvision and Hugging Face, counted in the released checkpoints
    "resnet50": 25_557_032, "resnet101": 44_549_160, "resnet152": 60_192_808,
    "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200,
}  # fmt: skip
GPT2 = {"gpt2": (768, 12), "gpt2-medium": (1024, 24), "gpt2-large": (1280, 36), "gpt2-xl": (1600, 48)}  # width, blocks


def kinds(workload) -> list[str]:
    return [KINDS[k] for k in workload.operators.kind]


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameters(name):
    assert pm.models.load(name).parameters == PARAMETERS[name]


@pytest.mark.parametrize("name, macs", [
    ("resnet50", 4_089_184_256), ("gpt2", 106_300_440_576), ("gpt2-medium", 360_777_252_864),
])  # fmt: skip
def test_published_macs(name, macs):
    assert pm.models.load(name).macs == macs


def test_every_name_loads_and_says_what_it_is():
    assert set(PARAMETERS) <= set(pm.models.names())
    for name in PARAMETERS:
        workload = pm.models.load(name)
        assert workload.model_names == (name,) and len(set(workload.names)) == workload.n_operators


def resnet50_layers():
    """(MACs, input side) of all 53 convolutions in execution order; v1.5: the stride sits on the 3x3."""
    yield 112 * 112 * 64 * 3 * 7 * 7
    channels, side = 64, 56
    for blocks, width, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
        for block in range(blocks):
            out = side // stride if block == 0 else side
            yield side * side * width * channels
            yield out * out * width * width * 9
            yield out * out * 4 * width * width
            if block == 0:
                yield out * out * 4 * width * channels
            channels, side = 4 * width, out


def test_resnet50_macs_layer_by_layer(resnet50):
    expected = [*resnet50_layers(), 2048 * 1000]
    got = [macs for macs, kind in zip(exact_macs(resnet50.operators), kinds(resnet50), strict=True) if macs]
    assert got == expected and len(expected) == 54


def test_resnet50_graph(resnet50):
    got = kinds(resnet50)
    # 53 convolutions each with a batch norm; 1 + 16 blocks * 3 ReLUs; 16 residual adds; two pools; the classifier
    counts = {k: got.count(k) for k in set(got)}
    assert counts == {
        "conv": 53, "batch_norm": 53, "relu": 49, "add": 16, "max_pool": 1, "avg_pool": 1, "gemm": 1,
    }  # fmt: skip
    feeds = (resnet50.inputs >= 0).sum(axis=1)
    assert [int(f) for f in feeds] == [2 if k == "add" else 0 if i == 0 else 1 for i, k in enumerate(got)]
    assert resnet50.n_slots == 2  # one residual beside one tensor under way
    assert np.flatnonzero(resnet50.outside_out_bytes).tolist() == [resnet50.n_operators - 1]
    assert resnet50.outside_out_bytes[-1] == 1000 and resnet50.outside_in_bytes[0] == 3 * 224 * 224


@pytest.mark.parametrize("name", GPT2)
@pytest.mark.parametrize("seq_len", [1, 7, 1024])
def test_gpt2_closed_forms(name, seq_len):
    workload = pm.models.load(name, seq_len=seq_len)
    (d, blocks), n = GPT2[name], seq_len
    # a block: qkv 3d^2, projection d^2, two mlp GEMMs 4d^2 each a token; scores and values n*d each a token
    assert workload.macs == blocks * (12 * n * d * d + 2 * n * n * d)
    # biases: 3d + d + 4d + d, two layer norms 4d; tables; final norm
    assert workload.parameters == blocks * (12 * d * d + 13 * d) + (50257 + 1024) * d + 2 * d
    assert workload.n_operators == 2 + 12 * blocks


def test_gpt2_language_model_head_is_tied():
    plain, head = pm.models.load("gpt2", seq_len=8), pm.models.load("gpt2", seq_len=8, lm_head=True)
    assert head.parameters == plain.parameters
    assert head.macs - plain.macs == 8 * 768 * 50257
    assert head.operators.weight_elements[-1] == 768 * 50257


def test_gpt2_scores_are_streamed_head_by_head(gpt2):
    i = gpt2.names.index("h0.attn.scores")
    assert gpt2.hold_bytes[i] == gpt2.hold_bytes[i + 1] == 2 * 1024 * 1024
    assert gpt2.operators.out_elements[i] == 12 * 1024 * 1024


@pytest.mark.parametrize("name", ["resnet50", "gpt2"])
@pytest.mark.parametrize("batch", [3, 8])
def test_batch_multiplies_work_and_activations_not_weights(name, batch):
    one, many = pm.models.load(name), pm.models.load(name, batch=batch)
    assert many.macs == batch * one.macs
    assert many.parameters == one.parameters and many.weight_bytes == one.weight_bytes
    assert many.batch.tolist() == [batch]
    for amount in ("outside_in_bytes", "outside_out_bytes"):
        np.testing.assert_array_equal(getattr(many, amount), batch * getattr(one, amount))
    np.testing.assert_array_equal(many.edge_bytes, batch * one.edge_bytes)
    np.testing.assert_array_equal(many.operators.lane_ops, batch * one.operators.lane_ops)


@pytest.mark.parametrize("dtype, bits", [("int8", 8), ("bf16", 16), ("nvfp4", 4.5)])
@pytest.mark.parametrize("name", ["resnet50", "gpt2"])
def test_bytes_on_edges_are_bytes_of_operators(name, dtype, bits):
    """What an operator reads = what its edges carry + what comes from outside; nobody reads more than was made."""
    w = pm.models.load(name, dtype=dtype)
    op = w.operators
    entering = w.input_bytes.sum(axis=1) + w.outside_in_bytes
    reads = op.in_elements * op.in_bits / 8
    rows = [i for i, kind in enumerate(kinds(w)) if kind != "embedding"]  # an embedding reads two rows a token
    np.testing.assert_array_equal(entering[rows], reads[rows])
    assert (w.edge_bytes <= (op.out_elements * op.out_bits / 8)[w.source]).all()
    assert w.weight_bytes == w.parameters * bits / 8


def test_bytes_on_edges_of_pictures_of_odd_size():
    w = pm.models.load("resnet50", image=230)  # layer2 makes 29 x 29
    reads = w.operators.in_elements * w.operators.in_bits / 8
    np.testing.assert_array_equal(w.input_bytes.sum(axis=1) + w.outside_in_bytes, reads)


@pytest.mark.parametrize("name, options, said", [
    ("resnet5", {}, "model is 'resnet5': did you mean resnet50"),
    ("nothing-like-it", {}, "allowed: alphafold2"),
    ("gpt2", {"seq_len": 1025}, "gpt2: seq_len is 1025; allowed: 1 to 1024"),
    ("gpt2", {"seq_len": 0}, "gpt2: seq_len is 0; allowed: an integer of at least 1"),
    ("gpt2", {"seq_len": 2.5}, "gpt2: seq_len is 2.5; allowed"),
    ("gpt2", {"seqlen": 8}, "gpt2: option is 'seqlen': did you mean seq_len"),
    ("resnet50", {"batch": -1}, "resnet50: batch is -1; allowed"),
    ("resnet50", {"seq_len": 8}, "resnet50: option is 'seq_len'"),
])  # fmt: skip
def test_bad_names_and_options(name, options, said):
    with pytest.raises(ValueError) as error:
        pm.models.load(name, **options)
    assert said in str(error.value) and "\n" not in str(error.value)
