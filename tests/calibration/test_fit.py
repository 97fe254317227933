"""Fitting positive parameters: recovery, uncertainty, priors, refusals."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfmodel.calibration import fit
from perfmodel.cost import GemmParameters, gemm_s
from perfmodel.hardware import gpu


class Line(eqx.Module):
    """t = offset + slope * x."""

    offset: float = 1.0
    slope: float = 1.0


def line(parameters, row):
    return parameters.offset + parameters.slope * row["x"]


X = np.geomspace(0.1, 100, 41)


def measured(noise, seed=0):
    return (2.0 + 0.3 * X) * np.exp(noise * np.random.default_rng(seed).normal(size=X.size))


def test_recovers_known_parameters(x64):
    found = fit(line, {"x": X}, measured(0.0), Line(), prior_sd=10.0, steps=800)
    assert float(found.parameters.offset) == pytest.approx(2.0, rel=0.01)
    assert float(found.parameters.slope) == pytest.approx(0.3, rel=0.01)
    assert found.error < 0.005 < found.start_error


def test_uncertainty_covers_the_truth(x64):
    inside = []
    for seed in range(12):
        found = fit(line, {"x": X}, measured(0.1, seed), Line(), prior_sd=10.0)
        for name, truth in (("offset", 2.0), ("slope", 0.3)):
            off = np.log(float(getattr(found.parameters, name)) / truth)
            inside.append(abs(off) < 2 * float(getattr(found.log_sd, name)))
    assert np.mean(inside) > 0.75
    assert 0.01 < float(found.log_sd.slope) < 0.1  # about 0.1 / sqrt(20)


def test_prior_holds_what_the_data_do_not_say(x64):
    found = fit(lambda p, row: p.slope * row["x"], {"x": X}, 0.3 * X, Line(offset=7.0), prior_sd=0.5)
    assert float(found.parameters.offset) == pytest.approx(7.0)
    assert float(found.log_sd.offset) == pytest.approx(0.5)


def test_zero_prior_width_fixes_a_parameter(x64):
    found = fit(line, {"x": X}, measured(0.0), Line(offset=2.0), prior_sd=Line(offset=0.0, slope=3.0))
    assert float(found.parameters.offset) == pytest.approx(2.0, rel=1e-12)
    assert float(found.parameters.slope) == pytest.approx(0.3, rel=0.02)
    assert float(found.log_sd.offset) == 0.0


def test_several_starts_are_never_worse(x64):
    one = fit(line, {"x": X}, measured(0.05), Line(), prior_sd=5.0, steps=60)
    many = fit(line, {"x": X}, measured(0.05), Line(), prior_sd=5.0, steps=60, starts=5, spread=1.0)
    assert many.error <= one.error * 1.01


def test_outliers_do_not_pull(x64):
    values = measured(0.0)
    values[::10] *= 5
    found = fit(line, {"x": X}, values, Line(), prior_sd=10.0, steps=800)
    assert float(found.parameters.slope) == pytest.approx(0.3, rel=0.03)


def test_gemm_constants_from_synthetic_measurements(x64):
    machine = gpu("A100-SXM-80GB")
    truth = eqx.tree_at(
        lambda p: (p.tensor_efficiency, p.dram_efficiency, p.launch_cycles), GemmParameters(), (0.7, 0.6, 6000.0)
    )
    m, n, k = np.meshgrid([1.0, 16, 256, 4096], [1024.0, 4096, 12288], [1024.0, 8192], indexing="ij")
    rows = {"m": m.ravel(), "n": n.ravel(), "k": k.ravel()}
    predict = partial(_gemm, machine)
    seconds = np.asarray(jax.vmap(predict, (None, 0))(truth, jax.tree.map(jnp.asarray, rows)))
    found = fit(predict, rows, seconds, GemmParameters(), prior_sd=0.5)
    assert found.error < 0.02 and found.start_error > 0.1
    assert float(found.parameters.dram_efficiency) == pytest.approx(0.6, rel=0.05)
    assert float(found.parameters.tensor_efficiency) == pytest.approx(0.7, rel=0.1)


def _gemm(machine, parameters, row):
    return gemm_s(parameters, machine, row["m"], row["n"], row["k"])


def test_no_rows_and_impossible_times_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        fit(line, {"x": np.array([])}, np.array([]), Line())
    with pytest.raises(ValueError, match="row 0"):
        fit(lambda p, row: p.slope * 0 - 1 + 0 * row["x"], {"x": X}, X, Line())
