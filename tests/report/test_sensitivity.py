"""Elasticities against central differences of the same model, laws of scaling, the words and the picture."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.plot import plot_sensitivities
from perfmodel.report import METRICS, STEPPING, parameters, scaled, sensitivities, sensitivities_text

ALL = tuple(METRICS)


@pytest.fixture(scope="module")
def found(tiny, pair, spread):
    with jax.enable_x64(True):
        return sensitivities(tiny, pair, spread, ALL)


@pytest.mark.slow
def test_every_slope_against_central_differences(tiny, pair, spread, found, x64):
    which, step = parameters(pair), 1e-5

    def logs(log_scale, smooth):
        got = pm.evaluate(tiny, scaled(pair, which, log_scale), spread, smooth=smooth)
        return jnp.log(jnp.stack([getattr(got, METRICS[m]) for m in ALL]))

    run = eqx.filter_jit(logs)
    assert [p.name for p in which] == found.names and found.smooth.sum() == 2 * len(STEPPING)
    for p in range(len(which)):
        away = step * (np.arange(len(which)) == p)
        central = (run(away, bool(found.smooth[p])) - run(-away, bool(found.smooth[p]))) / (2 * step)
        np.testing.assert_allclose(found.elasticity[p], central, rtol=1e-4, atol=1e-7, err_msg=found.names[p])


def of(found, metric, words):
    return sum(found.column(metric)[p] for p, name in enumerate(found.names) if any(name.endswith(w) for w in words))


def test_energies_and_static_power_make_up_all_of_the_energy(found):
    """Energy is linear in them together: by Euler their elasticities add up to 1."""
    words = (
        "MAC energy",
        "lane energy",
        "local store energy",
        "buffer energy",
        "dram energy",
        "hop energy",
        "static power",
    )
    assert of(found, "energy", words) == pytest.approx(1.0, rel=1e-6)
    assert of(found, "power", words) == pytest.approx(1.0, rel=1e-6)


def test_everything_twice_as_fast_halves_all_times(found):
    """Rates up, latencies down: by Euler the elasticities of time, rates less latencies, add up to -1."""
    rates, latencies = ("clock", "bandwidth"), ("latency", "launch overhead")
    for metric, expected in (("latency", -1.0), ("throughput", 1.0)):
        assert of(found, metric, rates) - of(found, metric, latencies) == pytest.approx(expected, rel=1e-6)


def test_area_and_price_by_hand(found, pair):
    assert of(found, "area", ("layout factor",)) == pytest.approx(1.0, rel=1e-9)
    macs = 4096 * 57.9e-6 / (4096 * 57.9e-6 + 80e6 * 0.0964e-6)
    assert of(found, "area", ("MAC area",)) == pytest.approx(macs, rel=1e-9)
    assert of(found, "area", ("array rows",)) == pytest.approx(macs, rel=1e-9)
    usd = float(np.sum(pair.memory.usd)) / found.base[ALL.index("cost")]
    assert of(found, "cost", ("dram price",)) == pytest.approx(usd, rel=1e-6)
    assert 0 < of(found, "cost", ("bonding loss",)) < 0.1


def test_signs(found):
    assert np.all(found.column("latency")[[n.endswith(("clock", "bandwidth")) for n in found.names]] <= 1e-12)
    priced = ("price", "density", "loss", "MAC area", "per bit", "layout factor", "buffer size")
    assert np.all(found.column("cost")[[n.endswith(priced) for n in found.names]] > 0)
    edp, energy, latency = (found.column(m) for m in ("edp", "energy", "latency"))
    exact = ~found.smooth
    np.testing.assert_allclose(edp[exact], (energy + latency)[exact], atol=1e-9)


def test_parameters_are_those_of_types_in_use(mcm):
    names = [p.name for p in parameters(mcm)]
    assert len(names) == len(set(names)) and "os-flex clock" not in names
    assert {"ws clock", "os clock", "dram bandwidth", "link bandwidth", "wafer price"} <= set(names)
    with jax.enable_x64(True):
        which = parameters(mcm)
        scale = np.log(2.0) * np.asarray([p.name == "ws clock" for p in which])
        got = scaled(mcm, which, scale)
    np.testing.assert_allclose(got.chiplets.clock_hz, np.asarray(mcm.chiplets.clock_hz) * [2, 2, 2, 1])


def test_bandwidths_that_are_one_number_change_together():
    """CMEM writes slower than it reads; HBM's reading, writing and copying are one number."""
    system = pm.systems.load("tpu-v4i")
    which = parameters(system)
    names = [p.name for p in which if "bandwidth" in p.name and p.name.split()[0] in ("cmem", "hbm")]
    assert names == ["cmem bandwidth", "cmem write bandwidth", "hbm bandwidth"]
    with jax.enable_x64(True):
        got = scaled(system, which, np.log(2.0) * np.asarray([p.name == "hbm bandwidth" for p in which])).memory
    for field in ("bytes_per_s", "write_bytes_per_s", "copy_bytes_per_s"):
        np.testing.assert_allclose(getattr(got, field), getattr(system.memory, field) * np.array([1.0, 2.0]))


def test_base_is_the_exact_evaluation(found, tiny, pair, spread):
    got = pm.evaluate(tiny, pair, spread)
    np.testing.assert_allclose(found.base, [getattr(got, METRICS[m]) for m in ALL], rtol=1e-5)


def test_refusals(tiny, pair, spread, found):
    with pytest.raises(ValueError, match="metric is 'speed'"):
        sensitivities(tiny, pair, spread, ("speed",))
    with pytest.raises(ValueError, match="metric is 'x'"):
        found.column("x")
    with pytest.raises(ValueError, match="mixtures of types"):
        sensitivities(tiny, pair.with_kinds(np.full((4, 3), 1 / 3)), spread)


def test_words(found):
    p = found.names.index("dram price")
    change = 100 * (1.1 ** float(found.column("cost")[p]) - 1)
    assert found.sentence(p, "cost") == f"10 % more dram price gives {change:.2g} % more cost."
    p = found.names.index("ws clock")
    assert "less latency" in found.sentence(p, "latency")
    text = sensitivities_text(found, "latency", top=4)
    assert text.startswith("10 % more ") and "ws clock" in text and "weaker parameters, and" in text
    rows = found.rows()
    assert rows[p]["parameter"] == "ws clock" and rows[p]["value"] == 0.5 and rows[p]["unit"] == "GHz"
    assert not found.is_trend(found.names.index("ws buffer size"), "area")
    assert found.is_trend(found.names.index("ws buffer size"), "latency")


def width(bar) -> float:
    return bar.get_width()


def test_tornado(found, tmp_path):
    every = range(len(found.names))
    trend = [found.is_trend(p, "latency") for p in every]
    fig = plot_sensitivities(tmp_path / "t.png", [found.label(p) for p in every], found.column("latency"), metric="latency",
                             title="tiny", trend=trend, top=5)  # fmt: skip
    assert (tmp_path / "t.png").stat().st_size > 10_000
    ax = fig.axes[0]
    strongest = found.strongest("latency", 5)
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert [label.removesuffix(" ~") for label in labels] == [found.label(p) for p in strongest]
    up = [width(bar) for bar in ax.patches[: len(strongest)]]
    np.testing.assert_allclose(up, 100 * (1.1 ** found.column("latency")[strongest] - 1), rtol=1e-6)
    low, high = ax.get_xlim()
    assert low < min(width(bar) for bar in ax.patches) and high > max(width(bar) for bar in ax.patches)


def test_a_tornado_without_any_influence_says_so(tmp_path):
    fig = plot_sensitivities(tmp_path / "t.png", ["a", "b"], np.zeros(2), metric="area", title="none")
    assert "no parameter" in fig.axes[0].texts[0].get_text()
    with pytest.raises(ValueError, match="sensitivity of area to b is nan"):
        plot_sensitivities(tmp_path / "n.png", ["a", "b"], np.asarray([0.0, np.nan]), metric="area", title="none")
    with pytest.raises(ValueError, match="shape"):
        plot_sensitivities(tmp_path / "n.png", ["a"], np.zeros(2), metric="area", title="none")
