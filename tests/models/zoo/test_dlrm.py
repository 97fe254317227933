"""DLRM against the tables of both data sets and a closed form."""

import pytest

import perfmodel as pm
from perfmodel.workload import KINDS

# layers of MLPerf's reference (bottom 13-512-256-128, top 479-1024-1024-512-256-1) and of the Kaggle script; sums of table entries
CONFIGS = {
    "dlrm": (
        ((13, 512), (512, 256), (256, 128)),
        ((479, 1024), (1024, 1024), (1024, 512), (512, 256), (256, 1)),
        187_767_399,
    ),
    "dlrm-kaggle": (((13, 512), (512, 256), (256, 64), (64, 16)), ((367, 512), (512, 256), (256, 1)), 33_762_577),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batch", [1, 7])
def test_closed_form(name, batch):
    bottom, top, entries = CONFIGS[name]
    width = bottom[-1][1]
    w = pm.models.load(name, batch=batch)
    mlps = [*bottom, *top]
    assert w.macs == batch * (sum(i * o for i, o in mlps) + 27 * 27 * width)
    assert w.parameters == entries * width + sum(i * o + o for i, o in mlps)


def test_published_parameters():
    """The paper, section 5: the Kaggle model has "approximately 540 M parameters". MLPerf: tables of 187,767,399 x 128 elements, just
    under 100 GB in fp32 ("the model is about 96 GB")."""
    assert round(pm.models.load("dlrm-kaggle").parameters / 1e6) == 541
    tables = 33_762_577 * 16
    assert tables == 540_201_232 and round(tables / 1e6) == 540
    assert 95 < pm.models.load("dlrm", dtype="fp32").weight_bytes / 1e9 < 97


def test_tables_are_read_by_entries_not_whole():
    w = pm.models.load("dlrm", batch=4, looked_up=3, dtype="fp16", weight_dtype="fp32")
    tables = [i for i, k in enumerate(w.operators.kind) if KINDS[k] == "embedding"]
    assert len(tables) == 26
    assert {w.outside_in_bytes[i] for i in tables} == {4 * 3 * 128 * 4}
    assert {w.operators.weight_elements[i] for i in tables} == {0}
    assert {w.operators.out_elements[i] for i in tables} == {4 * 128}


def test_interaction():
    w = pm.models.load("dlrm", batch=5)
    row = w.names.index("interact")
    sizes = {name: int(getattr(w.operators, name)[row]) for name in ("groups", "p", "k", "c")}
    assert sizes == {"groups": 5, "p": 27, "k": 27, "c": 128}
    assert w.operators.in_elements[row] == 5 * 27 * 128  # both operands are the same vectors
    first = w.names.index("top0")
    feeds = {w.names[s]: b for s, b in zip(w.inputs[first], w.input_bytes[first], strict=True) if s >= 0}
    assert feeds == {"bottom2.relu": 5 * 128, "pairs": 5 * 351}
