"""GoogLeNet against torchvision and Caffe's model, Inception-v4 against timm and the paper's figures."""

import pytest

import perfmodel as pm
from perfmodel.workload import KINDS


# torchvision 0.29 googlenet without auxiliary classifiers; multiply-accumulates by torch's FlopCounterMode
def test_googlenet_published_figures():
    w = pm.models.load("googlenet")
    assert w.parameters == 6_624_904
    assert w.macs == 1_498_376_192


@pytest.mark.parametrize("image, macs", [(231, 1_561_267_712), (256, 1_956_749_312)])
def test_googlenet_pools_round_up(image, macs):
    assert pm.models.load("googlenet", image=image).macs == macs


def test_googlenet_of_the_paper_has_kernels_of_five():
    """Caffe's bvlc_googlenet: 6,998,552 parameters with a bias a channel, where batch norms have a scale besides."""
    w = pm.models.load("googlenet", kernel=5)
    channels = sum(int(o) for o, name in zip(w.operators.k, w.names, strict=True) if name.endswith(".bn"))
    assert w.parameters - channels == 6_998_552


def test_googlenet_graph():
    w = pm.models.load("googlenet")
    kinds = [KINDS[k] for k in w.operators.kind]
    assert kinds.count("conv") == kinds.count("batch_norm") == kinds.count("relu") == 57
    assert kinds.count("max_pool") == 4 + 9
    # the input of a block is read by its four branches
    block = w.names.index("maxpool3")
    assert [w.names[i] for i in w.target[w.source == block]] == [
        "inception4a.branch1", "inception4a.branch2.0", "inception4a.branch3.0", "inception4a.branch4.pool",
    ]  # fmt: skip
    # a concatenation is free: its reader is fed by four rows
    assert (w.inputs[w.names.index("inception4b.branch1")] >= 0).sum() == 4
    sides = {w.names[i]: int(w.operators.p[i]) for i in range(w.n_operators)}
    assert [sides[f"maxpool{i}"] for i in (1, 2, 3, 4)] == [56, 28, 14, 7]


# timm 1.0.31 inception_v4; the paper's "about 43 M" parameters
def test_inception_v4_published_figures():
    w = pm.models.load("inception-v4")
    assert w.parameters == 42_679_816
    assert w.macs == 12_253_974_624


def test_inception_v4_at_another_size():
    assert pm.models.load("inception-v4", image=330).macs == 13_929_817_600  # timm 1.0.31, torch's FlopCounterMode


def test_inception_v4_graph():
    w = pm.models.load("inception-v4")
    kinds = [KINDS[k] for k in w.operators.kind]
    assert kinds.count("conv") == kinds.count("batch_norm") == kinds.count("relu") == 149
    assert kinds.count("avg_pool") == 4 + 7 + 3 + 1 and kinds.count("max_pool") == 4
    # grids of figure 9: 35 x 35 x 384, 17 x 17 x 1024, 8 x 8 x 1536
    for name, depth, side in (("a0.branch0.0", 384, 35), ("b0.branch0.0", 1024, 17), ("c0.branch0.0", 1536, 8)):
        row = w.names.index(name)
        assert int(w.operators.c[row]) == depth and int(w.operators.p[row]) == int(w.operators.q[row]) == side
    assert (
        pm.models.load("inception-v4", image=75).operators.p[w.names.index("c0.branch0.0")] == 1
    )  # the smallest picture
