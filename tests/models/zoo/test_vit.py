"""Vision transformers against torchvision and timm, and a closed form."""

import pytest

import perfmodel as pm
from perfmodel.workload import KINDS

SIZES = {"vit-b": (768, 12, 12), "vit-l": (1024, 24, 16)}  # width, blocks, heads (table 1 of the paper)


# torchvision 0.29 vit_b_16, vit_l_16: parameters; its FlopCounterMode counts 17.564 and 61.555 G (as it prints as GFLOPS)
@pytest.mark.parametrize("name, parameters, macs", [
    ("vit-b", 86_567_656, 17_563_828_224), ("vit-l", 304_326_632, 61_554_712_576),
])  # fmt: skip
def test_published_figures(name, parameters, macs):
    w = pm.models.load(name)
    assert (w.parameters, w.macs) == (parameters, macs)


def test_positions_follow_the_picture():
    assert pm.models.load("vit-b", image=384).parameters == 86_859_496  # timm 1.0.31, vit_base_patch16_384
    assert pm.models.load("vit-b", image=384).macs == 55_484_350_464  # torch's FlopCounterMode on it


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("image", [32, 224, 448])
def test_closed_form(name, image):
    d, blocks, heads = SIZES[name]
    patches = (image // 16) ** 2
    n = patches + 1
    w = pm.models.load(name, image=image)
    # patches; a block: 4 d^2 + 8 d^2 a token, scores and values; the head on one token
    assert w.macs == patches * 768 * d + blocks * (12 * n * d * d + 2 * n * n * d) + 1000 * d
    assert w.parameters == 768 * d + d + (n + 1) * d + blocks * (12 * d * d + 13 * d) + 2 * d + 1000 * (d + 1)
    scores = [i for i, label in enumerate(w.names) if label.endswith("attn.scores")]
    assert [int(w.operators.groups[i]) for i in scores] == [heads] * blocks


def test_graph():
    w = pm.models.load("vit-b")
    kinds = [KINDS[k] for k in w.operators.kind]
    assert {k: kinds.count(k) for k in set(kinds)} == {
        "conv": 1, "gemm": 12 * 4 + 1, "attention_gemm": 24, "softmax": 12, "layer_norm": 25, "gelu": 12, "add": 25,
    }  # fmt: skip
    # the head reads one token of 197
    assert w.input_bytes[-1].sum() == 768
    # each residual is read by the norm and by the addition after it
    readers = [w.names[i] for i in w.target[w.source == w.names.index("block0.add1")]]
    assert readers == ["block0.norm2", "block0.add2"]
