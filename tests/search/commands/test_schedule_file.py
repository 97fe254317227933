"""Fusion in schedule files: by the rules of a backend, or edge by edge."""

import json

import numpy as np
import pytest

from perfmodel.workload import fuse
from search.commands import load_schedule


@pytest.fixture
def load(tiny, mcm, tmp_path):
    def loaded(**more):
        path = tmp_path / "schedule.json"
        path.write_text(json.dumps({"assignment": ["c00"] * tiny.n_operators, **more}))
        return load_schedule(str(path), tiny, mcm)

    return loaded


def test_a_backend_or_edges(load, tiny):
    assert load().fusion is None and load(fusion="none").fusion is None
    assert np.array_equal(load(fusion="tensorrt-like").fusion, fuse(tiny, "tensorrt-like").fused)
    chosen = load(fusion=[["conv", "relu"], ["softmax", "values"]]).fusion
    edges = [(tiny.names[s], tiny.names[t]) for s, t in zip(tiny.source, tiny.target, strict=True)]
    assert [e for e, f in zip(edges, chosen, strict=True) if f] == [("conv", "relu"), ("softmax", "values")]


@pytest.mark.parametrize("fusion, said", [
    ("tensorrt", "fusion.*tensorrt.*tensorrt-like"),
    ([["conv", "rleu"]], r"fusion\[0\].*'rleu'.*relu"),
    ([["conv", "relu"], ["relu", "conv"]], r"fusion\[1\] is 'relu' -> 'conv'; allowed: an edge of the workload"),
    ([["stem", "add"]], "fusion: .*'stem' is not convex"),
    ([["stem"]], "fusion"),
    (3, "fusion"),
])  # fmt: skip
def test_what_cannot_be_fused_is_refused(load, fusion, said):
    with pytest.raises(ValueError, match=said) as caught:
        load(fusion=fusion)
    assert "schedule.json" in str(caught.value) and "\n" not in str(caught.value)
