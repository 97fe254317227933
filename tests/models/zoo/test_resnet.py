"""ResNets against torchvision's released checkpoints and their printed multiply-accumulates."""

import pytest

import perfmodel as pm
from perfmodel.workload import KINDS, exact_macs

# torchvision 0.29: parameters of the checkpoints; multiply-accumulates of convolutions and the classifier at 224 pixels
PUBLISHED = {
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet152": (60_192_808, 11_513_626_624),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    w = pm.models.load(name)
    assert (w.parameters, w.macs) == PUBLISHED[name]


def basic_layers(blocks):
    """Multiply-accumulates of a network of basic blocks (table 1 of the paper), convolution by convolution."""
    yield 112 * 112 * 64 * 3 * 49
    channels, side = 64, 56
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            side //= 2 if stage and not block else 1
            yield side * side * width * channels * 9
            yield side * side * width * width * 9
            if channels != width:
                yield side * side * width * channels  # projection shortcut, option B
            channels = width
    yield 512 * 1000


@pytest.mark.parametrize("name, blocks", [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))])
def test_basic_blocks_layer_by_layer(name, blocks):
    w = pm.models.load(name)
    assert [macs for macs in exact_macs(w.operators) if macs] == [*basic_layers(blocks)]
    kinds = [KINDS[k] for k in w.operators.kind]
    convolutions = 1 + 2 * sum(blocks) + 3
    assert kinds.count("conv") == kinds.count("batch_norm") == convolutions
    assert kinds.count("add") == sum(blocks) and kinds.count("relu") == 1 + 2 * sum(blocks)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_twice_the_side_is_four_times_the_convolutions(name):
    small, large = pm.models.load(name), pm.models.load(name, image=448)
    classifier = exact_macs(small.operators)[-1]
    assert large.macs - classifier == 4 * (small.macs - classifier)
    assert large.parameters == small.parameters
