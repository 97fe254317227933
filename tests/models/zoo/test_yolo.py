"""YOLOv5 against what Ultralytics prints: parameters before and after `fuse()`, and GFLOPs at 640 pixels."""

import pytest

import perfmodel as pm
from perfmodel.workload import KINDS

# parameters in training, parameters after fuse(), GFLOPs (README of ultralytics/yolov5, releases 6.0 to 7.0)
PUBLISHED = {
    "yolov5n": (1_872_157, 1_867_405, 4.5),
    "yolov5s": (7_235_389, 7_225_885, 16.5),
    "yolov5m": (21_190_557, 21_172_173, 49.0),
    "yolov5l": (46_563_709, 46_533_693, 109.1),
    "yolov5x": (86_749_405, 86_705_005, 205.7),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    training, fused, gflops = PUBLISHED[name]
    w, folded = pm.models.load(name), pm.models.load(name, fold_norms=True)
    assert (w.parameters, folded.parameters) == (training, fused)
    assert w.macs == folded.macs
    # its counter takes one operation an output element of a convolution for the bias, then doubles everything
    biases = sum(
        int(o) for o, k in zip(folded.operators.out_elements, folded.operators.kind, strict=True) if KINDS[k] == "conv"
    )
    assert round(2 * (w.macs + biases) / 1e9, 1) == gflops


def test_graph_of_x():
    w = pm.models.load("yolov5x")
    kinds = [KINDS[k] for k in w.operators.kind]
    blocks = 4 + 8 + 12 + 4 + 4 * 4  # 3, 6, 9, 3 and four times 3 bottlenecks, times 1.33
    convolutions = (
        1 + 4 + 3 * 8 + 2 * blocks + 2 + 2 + 2
    )  # stem, strides, CSP ends, bottlenecks, SPPF, laterals, neck strides
    assert kinds.count("batch_norm") == kinds.count("silu") == convolutions
    assert kinds.count("conv") == convolutions + 3
    assert kinds.count("add") == 4 + 8 + 12 + 4  # the neck has no shortcuts
    assert kinds.count("max_pool") == 3 and kinds.count("resize") == 2 and kinds.count("sigmoid") == 3
    assert w.outside_out_bytes[-1] == 25_200 * 85  # boxes of 80 x 80, 40 x 40 and 20 x 20 cells, three anchors each
    assert kinds.count("batch_norm") * 1 == len([k for k in kinds if k == "silu"])
    folded = [KINDS[k] for k in pm.models.load("yolov5x", fold_norms=True).operators.kind]
    assert "batch_norm" not in folded and len(folded) == len(kinds) - convolutions


def test_twice_the_side_is_four_times_the_work():
    assert pm.models.load("yolov5s", image=1280).macs == 4 * pm.models.load("yolov5s").macs


def test_classes_change_the_heads_only():
    coco, one = pm.models.load("yolov5s"), pm.models.load("yolov5s", classes=1)
    assert coco.parameters - one.parameters == 3 * 79 * (128 + 256 + 512 + 3)
