"""What holds for every graph of the zoo's vision, science and recommendation models: connected, conserving, linear in the batch."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.workload import KINDS

SMALL = {  # options that keep a graph of thousands of rows small; its shape stays
    "alphafold2": {
        "seq_len": 16,
        "msa": 8,
        "extra_msa": 12,
        "templates": 2,
        "blocks": 2,
        "extra_blocks": 1,
        "recycles": 1,
    },
    "flashfftconv": {"seq_len": 4096},
    "nerf": {"rays": 7, "fine": 128},
}
NAMES = (
    "alphafold2", "dlrm", "dlrm-kaggle", "flashfftconv", "googlenet", "inception-v4", "mobilenet-v2", "monarch", "nerf", "resnet18",
    "resnet34", "resnet152", "stable-diffusion-unet", "swin-t", "swin-b", "unet", "vit-b", "yolov5n", "yolov5x",
)  # fmt: skip
OUTPUTS = {  # rows that nobody reads; one for every other model
    "alphafold2": {
        "pass1.structure.side_chains.atoms", "pass1.head.masked_msa", "pass1.head.distogram.symmetric", "pass1.head.resolved",
        "pass1.head.lddt.2",
    },
}  # fmt: skip


def load(name, **more):
    return pm.models.load(name, **SMALL.get(name, {}) | more)


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return request.param, load(request.param)


def test_connected(model):
    name, w = model
    assert len(set(w.names)) == w.n_operators
    unread = {w.names[i] for i in set(range(w.n_operators)) - set(w.source.tolist())}
    assert unread == OUTPUTS.get(name, {w.names[-1]})
    fed_by_rows = (w.inputs >= 0).any(axis=1)
    assert (fed_by_rows | (w.outside_in_bytes > 0)).all()  # no row works on nothing
    # every row leads to an output: walk back from them
    reaches = np.isin(np.arange(w.n_operators), [w.names.index(out) for out in unread])
    for row in reversed(range(w.n_operators)):
        if reaches[row]:
            reaches[w.inputs[row][w.inputs[row] >= 0]] = True
    assert reaches.all()


def test_rows_read_what_their_edges_carry(model):
    _, w = model
    op = w.operators
    np.testing.assert_allclose(
        w.input_bytes.sum(axis=1) + w.outside_in_bytes, op.in_elements * op.in_bits / 8, rtol=1e-12
    )
    assert (w.edge_bytes <= (op.out_elements * op.out_bits / 8)[w.source]).all()


def test_an_odd_batch_multiplies_work_and_activations_not_weights(model):
    name, one = model
    own = pm.models.options(name)["batch"]
    three = load(name, batch=3 * own)
    assert three.macs == 3 * one.macs and three.parameters == one.parameters
    assert three.names == one.names and three.batch.tolist() == [3 * own]
    for amount in ("outside_in_bytes", "outside_out_bytes", "edge_bytes"):
        np.testing.assert_array_equal(getattr(three, amount), 3 * getattr(one, amount))
    np.testing.assert_array_equal(three.operators.lane_ops, 3 * one.operators.lane_ops)
    np.testing.assert_array_equal(three.operators.weight_elements, one.operators.weight_elements)


def test_precisions_of_operands(model):
    name, _ = model
    wide, narrow = load(name, dtype="bf16"), load(name, dtype="bf16", weight_dtype="int4")
    assert narrow.weight_bytes == narrow.parameters / 2 and wide.weight_bytes == 2 * wide.parameters
    embedded = np.asarray([KINDS[k] == "embedding" for k in wide.operators.kind])  # tables are read in their own format
    np.testing.assert_array_equal(narrow.outside_in_bytes[~embedded], wide.outside_in_bytes[~embedded])
    np.testing.assert_array_equal(4 * narrow.outside_in_bytes[embedded], wide.outside_in_bytes[embedded])
    np.testing.assert_array_equal(narrow.edge_bytes, wide.edge_bytes)


@pytest.mark.parametrize("name", ["vit-b", "resnet18", "mobilenet-v2"])
def test_sparse_weights_shorten_contractions(name):
    dense, sparse = pm.models.load(name), pm.models.load(name, weight_dtype="int8-sparse50")
    kinds = [KINDS[k] for k in dense.operators.kind]
    for row, kind in enumerate(kinds):
        depth = int(dense.operators.c[row])
        kept = depth if kind not in ("conv", "gemm") else max(1, round(depth / 2))
        assert int(sparse.operators.c[row]) == kept


@pytest.mark.parametrize("name, options, said", [
    ("vit-b", {"image": 225}, "vit-b: image is 225; allowed: a multiple of 16"),
    ("yolov5x", {"image": 600}, "yolov5x: image is 600; allowed: a multiple of 32"),
    ("stable-diffusion-unet", {"image": 500}, "stable-diffusion-unet: image is 500; allowed: a multiple of 64"),
    ("swin-t", {"image": 3}, "swin-t: image is 3; allowed: at least 4"),
    ("inception-v4", {"image": 74}, "inception-v4: image is 74; allowed: at least 75"),
    ("unet", {"image": 100}, "unet: image is 100: "),
    ("unet", {"padding": "sam"}, "unet: padding is 'sam': did you mean same"),
    ("flashfftconv", {"seq_len": 1000}, "flashfftconv: seq_len is 1000; allowed: a power of two of at least 8"),
    ("flashfftconv", {"seq_len": 4}, "flashfftconv: seq_len is 4; allowed: a power of two of at least 8"),
    ("flashfftconv", {"seq_len": 8, "packed": True}, "flashfftconv: seq_len is 8; allowed: a power of two of at least 16"),
    ("alphafold2", {"templates": -1}, "alphafold2: templates is -1; allowed: an integer of at least 0"),
    ("swin-t", {"weight_dtype": "int9"}, "weight_dtype is 'int9'"),
])  # fmt: skip
def test_bad_options(name, options, said):
    with pytest.raises(ValueError) as error:
        pm.models.load(name, **options)
    assert said in str(error.value) and "\n" not in str(error.value)
