"""Swin transformers against torchvision, timm and the paper, and the paper's complexity formula."""

import pytest

import perfmodel as pm
from perfmodel.workload import KINDS

SIZES = {  # width, blocks, heads of the first stage (section 3.3 of the paper)
    "swin-t": (96, (2, 2, 6, 2), 3), "swin-s": (96, (2, 2, 18, 2), 3), "swin-b": (128, (2, 2, 18, 2), 4),
    "swin-l": (192, (2, 2, 18, 2), 6),
}  # fmt: skip
# parameters: torchvision 0.29 (t, s, b), timm 1.0.31 swin_large_patch4_window7_224 (l); multiply-accumulates by torch's
# FlopCounterMode on them; the paper's table 1 in G
PUBLISHED = {
    "swin-t": (28_288_354, 4_490_566_656, 4.5),
    "swin-s": (49_606_258, 8_740_875_264, 8.7),
    "swin-b": (87_768_224, 15_430_946_816, 15.4),
    "swin-l": (196_532_476, 34_475_759_616, 34.5),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    w = pm.models.load(name)
    parameters, macs, paper = PUBLISHED[name]
    assert (w.parameters, w.macs) == (parameters, macs)
    assert round(w.macs / 1e9, 1) == paper


@pytest.mark.parametrize("name", SIZES)
def test_closed_form(name):
    width, depths, _ = SIZES[name]
    macs = 56 * 56 * 48 * width
    for stage, blocks in enumerate(depths):
        side, c = 56 >> stage, width << stage
        if stage:
            macs += side * side * 4 * (c // 2) * c
        # equation 2 of the paper, with windows of M = 7, and the MLP
        macs += blocks * (4 * side**2 * c**2 + 2 * 49 * side**2 * c + 8 * side**2 * c**2)
    assert pm.models.load(name).macs == macs + 8 * width * 1000


# torch's FlopCounterMode on torchvision 0.29: feature maps of 64, 32, 16, 8 and 80, 40, 20, 10 are padded to whole windows
@pytest.mark.parametrize("name, image, macs", [("swin-t", 256, 7_345_441_536), ("swin-s", 320, 18_883_465_728)])
def test_padded_windows(name, image, macs):
    assert pm.models.load(name, image=image).macs == macs


def test_twice_the_side_is_four_times_the_work():
    small, large = pm.models.load("swin-t"), pm.models.load("swin-t", image=448)
    head = 768 * 1000
    assert large.macs - head == 4 * (small.macs - head)
    assert large.parameters == small.parameters


def test_windows_are_independent_products():
    w = pm.models.load("swin-t", batch=2)
    seen = [int(g) for g, n in zip(w.operators.groups, w.names, strict=True) if n.endswith("attn.scores")]
    assert seen == [
        2 * h * (56 // 7 >> stage) ** 2
        for stage, (h, blocks) in enumerate(((3, 2), (6, 2), (12, 6), (24, 2)))
        for _ in range(blocks)
    ]


def test_tables_of_positions_and_masks_belong_to_the_bias():
    w = pm.models.load("swin-t")
    rows = [w.names.index(f"stage{stage}.block{block}.attn.bias") for stage, block in ((0, 0), (0, 1), (3, 1))]
    assert [int(w.operators.parameters[i]) for i in rows] == [169 * 3, 169 * 3, 169 * 24]
    # a shifted block adds its mask too; the last stage is one window and is not shifted
    assert [w.operators.lane_ops[i] / w.operators.out_elements[i] for i in rows] == [1, 2, 1]
    kinds = [KINDS[k] for k in w.operators.kind]
    assert kinds.count("copy") == 2 * 12 + 3
