"""U-Net against the sizes in the paper's figure and published parameter counts."""

import pytest

import perfmodel as pm
from perfmodel.workload import KINDS, exact_macs

# (channels in, side and channels out) of all layers of figure 1 of the paper, valid convolutions of 3 x 3, side as printed
DOWN = ((1, 570, 64), (64, 568, 64), (64, 282, 128), (128, 280, 128), (128, 138, 256), (256, 136, 256), (256, 66, 512),
        (512, 64, 512), (512, 30, 1024), (1024, 28, 1024))  # fmt: skip
UP = ((1024, 28, 512, 54, 52), (512, 52, 256, 102, 100), (256, 100, 128, 198, 196), (128, 196, 64, 390, 388))


def test_layers_of_the_figure():
    expected = [side * side * 9 * into * out for into, side, out in DOWN]
    for into, side, out, first, second in UP:
        expected += [side * side * 4 * into * out, first**2 * 9 * into * out, second**2 * 9 * out * out]
    expected.append(388 * 388 * 64 * 2)
    w = pm.models.load("unet")
    assert [macs for macs in exact_macs(w.operators) if macs] == expected
    assert w.outside_out_bytes[-1] == 388 * 388 * 2 and w.outside_in_bytes[0] == 572 * 572


def test_published_parameters():
    one = pm.models.load("unet", classes=1).parameters
    assert one == 31_030_593  # one channel in, one class, biases, no norms: the count that re-implementations print
    assert pm.models.load("unet").parameters == one + 65  # the paper's two classes
    # with a batch norm after each convolution, as widely published: 31,042,369; three channels and two classes 31,043,586
    assert pm.models.load("unet", classes=1, batch_norm=True).parameters == 31_042_369
    assert pm.models.load("unet", channels=3, batch_norm=True).parameters == 31_043_586


def test_skips_are_cropped_and_concatenated_for_nothing():
    w = pm.models.load("unet")
    kinds = [KINDS[k] for k in w.operators.kind]
    assert {k: kinds.count(k) for k in set(kinds)} == {"conv": 19, "gemm": 4, "relu": 18, "max_pool": 4}
    row = w.names.index("up0.conv0")
    feeds = {w.names[s]: b for s, b in zip(w.inputs[row], w.input_bytes[row], strict=True) if s >= 0}
    assert feeds == {"down0.relu1": 64 * 392 * 392, "up0.upconv": 64 * 392 * 392}
    # the skip of the first level is held until the last
    assert w.hold_bytes[w.names.index("down0.relu1")] == 64 * 568 * 568


@pytest.mark.parametrize("image", [64, 256])
def test_twice_the_side_is_four_times_the_work_with_padding(image):
    small, large = (pm.models.load("unet", padding="same", image=side) for side in (image, 2 * image))
    assert large.macs == 4 * small.macs
    assert large.outside_out_bytes[-1] == 2 * (2 * image) ** 2


def test_odd_sizes_with_padding_crop_the_skip():
    w = pm.models.load("unet", padding="same", image=99)  # 99, 49, 24, 12, 6 down; 12, 24, 48, 96 up
    assert w.outside_out_bytes[-1] == 2 * 96 * 96
