"""MobileNet-v2 against torchvision and the paper's table."""

import pytest

import perfmodel as pm
from perfmodel.workload import KINDS, exact_macs

TABLE = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # table 2


def test_published_figures():
    w = pm.models.load("mobilenet-v2")
    assert (
        w.parameters == 3_504_872
    )  # torchvision 0.29 mobilenet_v2, timm 1.0.31 mobilenetv2_100; "3.4 M" in the paper's table 4
    assert w.macs == 300_774_272  # "300 M" multiply-adds in the paper's table 4


def layers():
    yield 112 * 112 * 32 * 27
    channels, side = 32, 112
    for expansion, out, blocks, stride in TABLE:
        for block in range(blocks):
            hidden = expansion * channels
            if expansion > 1:
                yield side * side * channels * hidden
            side //= stride if block == 0 else 1
            yield side * side * hidden * 9  # one filter a channel
            yield side * side * hidden * out
            channels = out
    yield 7 * 7 * 320 * 1280
    yield 1280 * 1000


def test_layer_by_layer():
    w = pm.models.load("mobilenet-v2")
    assert [macs for macs in exact_macs(w.operators) if macs] == [*layers()]


def test_graph():
    w = pm.models.load("mobilenet-v2")
    kinds = [KINDS[k] for k in w.operators.kind]
    assert kinds.count("conv") == kinds.count("batch_norm") == 52 and kinds.count("relu") == 35
    assert kinds.count("add") == 10  # blocks that repeat: 1 + 2 + 3 + 2 + 2
    depthwise = [i for i, name in enumerate(w.names) if name.endswith("depthwise")]
    assert len(depthwise) == 17
    for i in depthwise:
        assert w.operators.k[i] == w.operators.c[i] == 1 and w.operators.r[i] == w.operators.s[i] == 3
        assert w.operators.parameters[i] == 9 * w.operators.groups[i]


@pytest.mark.parametrize("image, macs", [(230, 347_924_624)])
def test_sizes_that_do_not_divide(image, macs):
    assert pm.models.load("mobilenet-v2", image=image).macs == macs  # torchvision 0.29, torch's FlopCounterMode


def test_twice_the_side_is_four_times_the_convolutions():
    small, large = pm.models.load("mobilenet-v2"), pm.models.load("mobilenet-v2", image=448)
    assert large.macs - 1_280_000 == 4 * (small.macs - 1_280_000)
