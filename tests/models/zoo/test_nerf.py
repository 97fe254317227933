"""NeRF against the parameter count of the released network and a closed form."""

import pytest

import perfmodel as pm

# weights of figure 7 of the paper's appendix: inputs and outputs of all layers
LAYERS = ((63, 256), *((256, 256),) * 4, (319, 256), *((256, 256),) * 2, (256, 1), (256, 256), (283, 128), (128, 3))


def test_published_parameters():
    """595,844: the count printed by nerf-pytorch and others for one network (1,191,688 for both, 4.8 MB in fp32)."""
    assert pm.models.load("nerf").parameters == 595_844 == sum(i * o + o for i, o in LAYERS)
    assert pm.models.load("nerf", fine=128).parameters == 2 * 595_844


@pytest.mark.parametrize("rays, samples, fine", [(1, 1, 0), (4096, 64, 0), (1024, 64, 128), (3, 5, 7)])
def test_closed_form(rays, samples, fine):
    point = sum(i * o for i, o in LAYERS)
    points = samples + (samples + fine if fine else 0)
    w = pm.models.load("nerf", rays=rays, samples=samples, fine=fine)
    assert w.macs == rays * points * point
    assert w.outside_out_bytes.sum() == rays * (3 + samples + fine)


def test_the_skip_joins_the_encoded_position():
    w = pm.models.load("nerf", rays=1, samples=2)
    row = w.names.index("nerf.layer5")
    feeds = {w.names[s]: b for s, b in zip(w.inputs[row], w.input_bytes[row], strict=True) if s >= 0}
    assert feeds == {"nerf.encode": 2 * 63, "nerf.layer4.relu": 2 * 256}
    row = w.names.index("nerf.view")
    feeds = {w.names[s]: b for s, b in zip(w.inputs[row], w.input_bytes[row], strict=True) if s >= 0}
    assert feeds == {"nerf.feature": 2 * 256, "nerf.encode_view": 2 * 27}


def test_the_fine_network_sees_samples_placed_by_the_coarse_one():
    w = pm.models.load("nerf", rays=2, samples=64, fine=128)
    row = w.names.index("resample")
    assert w.names[w.inputs[row][0]] == "coarse.render" and w.input_bytes[row][0] == 2 * 64
    assert w.operators.out_elements[row] == 2 * 192 * 3
