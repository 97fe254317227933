"""Mamba against the checkpoints' counts, closed forms, and what a recurrent state is asked for."""

import pytest

import perfmodel as pm
from perfmodel.workload import KINDS

# state-spaces/mamba-*-hf, MambaForCausalLM of transformers 5.23.0 (the head is the token table)
PARAMETERS = {"mamba-130m": 129_135_360, "mamba-2.8b": 2_768_345_600}
SHAPES = {"mamba-130m": (768, 24), "mamba-2.8b": (2560, 64)}


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("phase", ["prefill", "decode", "train"])
def test_parameters(name, phase):
    assert pm.models.load(name, phase=phase, seq_len=4).parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("batch, n", [(1, 1), (3, 50)])
def test_closed_forms(name, batch, n):
    d, layers = SHAPES[name]
    inner, rank = 2 * d, d // 16
    w = pm.models.load(name, seq_len=n, batch=batch)
    layer = d * 2 * inner + 4 * inner + inner * (rank + 32) + rank * inner + inner * d
    assert w.macs == batch * (n * layers * layer + d * 50280)
    scans = [i for i, k in enumerate(w.operators.kind) if KINDS[k] == "scan"]
    assert len(scans) == layers
    assert w.operators.lane_ops[scans].tolist() == [batch * n * inner * (7 * 16 + 3)] * layers


def test_decode_moves_the_state_whatever_the_context():
    near, far = (pm.models.load("mamba-2.8b", phase="decode", context=n, batch=3) for n in (1, 100_000))
    assert near.macs == far.macs and near.kv_cache_bytes == far.kv_cache_bytes == 0
    state = 3 * 64 * 5120 * (16 + 3) * 2  # of each channel 16 numbers and the convolution's last three inputs
    assert near.outside_in_bytes[1:].sum() == far.outside_in_bytes[1:].sum() == state
    assert far.outside_out_bytes[:-1].sum() == state
    half = pm.models.load("mamba-2.8b", phase="decode", batch=3, kv_dtype="int8")
    assert half.outside_in_bytes[1:].sum() == state / 2


def test_prefill_starts_from_nothing_and_leaves_a_state():
    w = pm.models.load("mamba-130m", seq_len=9)
    assert w.outside_in_bytes[1:].sum() == 0 and w.outside_out_bytes[:-1].sum() == 24 * 1536 * 19 * 2
    w = pm.models.load("mamba-130m", seq_len=9, phase="train")
    forward = [i for i, n in enumerate(w.names) if n.endswith((".scan", ".in_proj"))]
    assert w.outside_out_bytes[forward].sum() == 0
