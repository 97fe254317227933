"""LLaVA: the tower's pictures join the text, and the parts add up."""

import pytest

import perfmodel as pm


def tower_macs(pictures: int, layers: int = 23) -> int:
    d, tokens = 1024, 577
    return pictures * (576 * 3 * 14 * 14 * d + layers * (12 * tokens * d * d + 2 * tokens * tokens * d))


def llama_macs(new: int, past: int = 0) -> int:
    d = 4096
    return 32 * new * (4 * d * d + 3 * d * 11008 + 2 * d * (new + past)) + d * 32064


@pytest.mark.parametrize("phase", ["prefill", "decode", "train"])
def test_parameters(phase):
    """llava-hf/llava-1.5-7b-hf: tower 303,507,456 + projector 20,979,712 + Llama 6,738,939,904 (transformers 5.23.0)."""
    w = pm.models.load("llava-1.5-7b", phase=phase, seq_len=2)
    assert w.parameters == 303_507_456 + 20_979_712 + 6_738_939_904 == 7_063_427_072


@pytest.mark.parametrize("images", [1, 2])
def test_macs(images):
    w = pm.models.load("llava-1.5-7b", seq_len=40, images=images)
    projector = images * 576 * (1024 * 4096 + 4096 * 4096)
    assert w.macs == tower_macs(images) + projector + llama_macs(40 + images * 576)
    assert w.kv_tokens.tolist() == [40 + images * 576]


def test_decode_leaves_the_tower_alone():
    w = pm.models.load("llava-1.5-7b", phase="decode", context=616, batch=2)
    assert w.macs == 2 * llama_macs(1, 616) and not any(n.startswith("vision") for n in w.names)
    assert w.operators.weight_elements.sum() < 6_738_939_904


def test_pictures_and_text_meet_in_the_first_block():
    w = pm.models.load("llava-1.5-7b", seq_len=40)
    reads = {
        w.names[s]: b for s, t, b in zip(w.source, w.target, w.edge_bytes, strict=True) if w.names[t] == "layer0.norm_1"
    }
    assert reads == {"projector.fc2": 576 * 4096 * 2, "embed": 40 * 4096 * 2}
    # the class token is left behind, the tower's last layer is not run
    assert "vision.layer22.add_2" in w.names and "vision.layer23.ln_1" not in w.names
    edge = {
        w.names[t]: b
        for s, t, b in zip(w.source, w.target, w.edge_bytes, strict=True)
        if w.names[s] == "vision.layer22.add_2"
    }
    assert edge == {"projector.fc1": 576 * 1024 * 2}
