"""BERT against the released checkpoints and a closed form."""

import pytest

import perfmodel as pm

SHAPES = {"bert-base": (768, 12, 12), "bert-large": (1024, 16, 24)}  # width, heads, layers
PARAMETERS = {
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
}  # bert-*-uncased with pooler, as transformers counts them


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seq_len, batch", [(512, 1), (7, 3), (1, 2)])
def test_closed_forms(name, seq_len, batch):
    (d, _, layers), n = SHAPES[name], seq_len
    w = pm.models.load(name, seq_len=n, batch=batch)
    assert w.parameters == PARAMETERS[name]
    assert w.macs == batch * (layers * (12 * n * d * d + 2 * n * n * d) + d * d)
    assert w.n_operators == 2 + 14 * layers + 2  # Q, K and V are three GEMMs; the pooler and its tanh


def test_published_operations():
    """Google's MobileBERT paper (arXiv 2004.02984, table 4) gives BERT-base 22.5e9 operations at 128 tokens: 2 a MAC."""
    assert 2 * pm.models.load("bert-base", seq_len=128).macs == pytest.approx(22.5e9, rel=0.01)


def test_heads():
    none, mlm = (pm.models.load("bert-base", head=head) for head in ("none", "mlm"))
    assert mlm.parameters == 109_514_298  # BertForMaskedLM of transformers
    assert none.parameters == 109_482_240 - 768 * 769
    assert mlm.macs - none.macs == 512 * 768 * (768 + 30522)
    assert pm.models.load("bert-base", phase="train", head="mlm").macs == 3 * mlm.macs


@pytest.mark.parametrize("options, said", [
    ({"seq_len": 513}, "bert-base: seq_len is 513; allowed: 1 to 512 (learned positions)"),
    ({"phase": "decode"}, "bert-base: phase is 'decode'; allowed: prefill, train"),
    ({"head": "poole"}, "bert-base: head is 'poole': did you mean pooler"),
])  # fmt: skip
def test_bad_options(options, said):
    with pytest.raises(ValueError) as error:
        pm.models.load("bert-base", **options)
    assert said in str(error.value) and "\n" not in str(error.value)
