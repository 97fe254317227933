"""The Monarch fragment against the operational intensities of the SN40L paper; FlashFFTConv against its cost model."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.workload import KINDS

# Table I of arXiv 2405.07518: nothing fused, Gemm0 to Transpose fused, all fused; operations a byte
PAPER = (39.5, 102.6, 410.4)


def intensities(w):
    """Operations a byte of memory traffic when nothing, Gemm0 + Mul + Transpose, and everything is one kernel."""
    op = w.operators
    kinds = [KINDS[k] for k in op.kind]
    work = 2 * w.macs + op.lane_ops[kinds.index("mul")]  # a transposition computes nothing
    weights = (op.weight_elements * op.weight_bits / 8).sum()
    made = op.out_elements * op.out_bits / 8
    ends = w.outside_in_bytes.sum() + weights + made[-1]
    between = made[:-1]
    return [work / (ends + 2 * kept) for kept in (between.sum(), between[2], 0.0)]


def test_operational_intensity_of_the_fragment():
    w = pm.models.load("monarch")
    assert [KINDS[k] for k in w.operators.kind] == ["gemm", "mul", "copy", "gemm"]
    got = intensities(w)
    np.testing.assert_allclose(got, (40.8, 102.0, 405.3), atol=0.06)
    np.testing.assert_allclose(got, PAPER, rtol=0.035)
    assert got[2] / got[1] == pytest.approx(PAPER[2] / PAPER[1], rel=0.01)  # 4.0
    balance = 300e12 / 2e12  # the paper's A100
    assert [i > balance for i in got] == [False, False, True]


def test_fragment_by_hand():
    w = pm.models.load("monarch", batch=3, rows=2, depth=5, columns=7, width=11, dtype="fp16")
    assert w.macs == 3 * (2 * 5 * 7 + 7 * 2 * 11)
    assert w.parameters == 5 * 7 + 2 * 7 + 2 * 11
    assert w.edge_bytes.tolist() == [3 * 2 * 7 * 2] * 3


@pytest.mark.parametrize("order, factors", [(2, (1024, 1024)), (3, (128, 128, 64)), (4, (32, 32, 32, 32))])
def test_convolution_of_a_million(order, factors):
    """The cost model of FlashFFTConv: 16 N N_i operations a factor, there and back, for each channel."""
    n, channels = 2**20, 768
    w = pm.models.load("flashfftconv", order=order)
    assert np.prod(factors) == n
    assert 2 * w.macs == channels * sum(16 * n * factor for factor in factors)
    kinds = [KINDS[k] for k in w.operators.kind]
    assert kinds.count("gemm") == 2 * order and kinds.count("mul") == 2 * (order - 1) + 1
    row = w.names.index("filter")
    assert w.operators.parameters[row] == 2 * n * channels
    assert w.operators.lane_ops[row] == 6 * n * channels  # a complex product: four multiplies, two adds


def test_convolution_by_hand():
    w = pm.models.load("flashfftconv", batch=2, channels=3, seq_len=16, order=2)
    assert w.macs == 2 * 3 * 2 * 2 * 4 * 16 * 4  # samples, channels, there and back, two factors of 4: 4 n N_i
    # DFT matrices of 4 x 4, twiddles of 16 there and back, filters of 3 x 16; complex
    assert w.parameters == 2 * (4 * 16 + 2 * 16 + 3 * 16)
    assert w.outside_in_bytes.sum() == w.outside_out_bytes.sum() == 2 * 3 * 16 * 2


def test_causal_and_packed():
    plain, causal, packed = (
        pm.models.load("flashfftconv", seq_len=4096, **{o: True} if o else {}) for o in ("", "causal", "packed")
    )
    both = pm.models.load("flashfftconv", seq_len=4096, causal=True, packed=True)
    assert plain.macs == 768 * 8 * 4096 * 48
    assert causal.macs == 768 * 8 * 8192 * (32 + 16 + 16)
    assert packed.macs == 768 * 8 * 2048 * (16 + 16 + 8)
    assert both.macs == plain.macs and both.n_operators == plain.n_operators + 2
    assert both.outside_in_bytes.sum() == causal.outside_in_bytes.sum() == plain.outside_in_bytes.sum()
