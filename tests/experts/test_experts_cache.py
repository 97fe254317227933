"""Caches of experts: simulators against the obvious ones and exhaustive search, formulas against simulations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import expert_cache as oracle

from perfmodel.experts import (
    batch_latency_s,
    cache_hits,
    load_trace,
    lru_hit_rate,
    static_hit_rate,
    steady_hit_rate,
    turns_hit_rate,
    zipf,
    zipf_trace,
)

TRACES = st.lists(st.integers(0, 5), min_size=1, max_size=14)


def test_by_hand():
    # 0 1 2 0: with two frames LRU has dropped 0 by the end; Belady drops 1, which nobody wants again
    trace = np.asarray([0, 1, 2, 0])
    assert cache_hits(trace, 2, "lru").tolist() == [False, False, False, False]
    assert cache_hits(trace, 2, "belady").tolist() == [False, False, False, True]
    # 0 is the most frequent and stays; 1 and 2 share the other frame
    assert cache_hits(trace, 2, "static").tolist() == [True, False, False, True]
    assert cache_hits(np.asarray([3, 1, 1, 2, 1]), 2, "static", hot=[3, 1, 2]).tolist() == [
        True,
        False,
        True,
        False,
        False,
    ]


@given(TRACES, st.integers(1, 6))
def test_lru_is_that_of_a_list(trace, frames):
    assert cache_hits(np.asarray(trace), frames, "lru").tolist() == oracle.lru(trace, frames)


@given(TRACES, st.integers(1, 4))
def test_belady_is_optimal(trace, frames):
    hits = cache_hits(np.asarray(trace), frames, "belady")
    assert hits.sum() == oracle.most_hits(trace, frames)
    assert hits.sum() >= cache_hits(np.asarray(trace), frames, "lru").sum()


@given(TRACES, st.integers(1, 6))
def test_more_frames_never_hit_less(trace, frames):
    for policy in ("lru", "belady"):
        assert (
            cache_hits(np.asarray(trace), frames + 1, policy).sum()
            >= cache_hits(np.asarray(trace), frames, policy).sum()
        )


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.booleans(), st.floats(0.1, 5.0), st.floats(0.1, 5.0))
def test_batches_take_as_long_as_step_by_step(hits, overlap, copy_s, expert_s):
    parts = dict(router_s=0.7, copy_s=copy_s, expert_s=expert_s)
    got = batch_latency_s(np.asarray(hits), len(hits), overlap=overlap, shared_s=0.3, **parts)
    want = oracle.batch_timeline([not h for h in hits], landing_s=0.3, overlap=overlap, **parts)
    np.testing.assert_allclose(got, [want], rtol=1e-12)


def test_che_is_the_root_and_close_to_the_simulation():
    for experts, exponent, frames in ((150, 0.0, 39), (150, 0.8, 39), (150, 1.2, 46), (850, 1.0, 39)):
        p = zipf(experts, exponent)
        got = float(lru_hit_rate(p, frames))
        assert got == pytest.approx(oracle.che(np.asarray(p, float), frames), rel=2e-5)
        trace = zipf_trace(experts, exponent, 40_000)
        assert got == pytest.approx(steady_hit_rate(trace, frames, "lru"), abs=0.012)
        static = float(static_hit_rate(p, frames))
        assert static == pytest.approx(steady_hit_rate(trace, frames, "static", hot=np.arange(experts)), abs=0.012)
        assert got <= static + 1e-5 or exponent == 0.0
    assert float(lru_hit_rate(zipf(10, 1.0), 10)) == 1.0 and float(lru_hit_rate(zipf(10, 1.0), 0)) == 0.0


@pytest.mark.parametrize("policy", ["lru", "belady", "static"])
def test_in_turn_is_the_simulation(policy):
    for experts, frames in ((7, 3), (12, 11), (5, 5), (9, 1)):
        trace = np.arange(experts * 400) % experts
        got = steady_hit_rate(trace, frames, policy, hot=np.arange(experts))
        assert float(turns_hit_rate(experts, frames, policy)) == pytest.approx(got, abs=0.006)


@pytest.mark.slow
def test_gradients_of_hit_rates(x64):
    p = zipf(40, jnp.asarray(0.9))
    for rate in (lru_hit_rate, static_hit_rate):
        slope = float(jax.grad(lambda m, rate=rate: rate(p, m))(12.3))
        central = float(rate(p, 12.3 + 1e-4) - rate(p, 12.3 - 1e-4)) / 2e-4
        assert slope == pytest.approx(central, rel=1e-5) and slope > 0
    slope = float(jax.grad(lambda a: lru_hit_rate(zipf(40, a), 12.3))(0.9))
    central = float(lru_hit_rate(zipf(40, 0.9 + 1e-5), 12.3) - lru_hit_rate(zipf(40, 0.9 - 1e-5), 12.3)) / 2e-5
    assert slope == pytest.approx(central, rel=1e-5)


def test_gradients_are_finite_at_the_ends():
    for frames in (0.0, 1e-3, 40.0, 50.0):
        assert np.isfinite(jax.grad(lambda m: lru_hit_rate(zipf(40, 0.9), m))(frames))


def test_jit_and_vmap_agree():
    p, frames = zipf(150, 0.8), jnp.asarray([3.0, 39.0, 46.5])
    loop = jnp.stack([lru_hit_rate(p, m) for m in frames])
    np.testing.assert_allclose(jax.vmap(lambda m: lru_hit_rate(p, m))(frames), loop, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lru_hit_rate)(p, frames[1]), loop[1], rtol=1e-5)


def test_fewer_experts_than_places():
    np.testing.assert_allclose(zipf(9, 0.7, 5)[:5], zipf(5, 0.7), rtol=1e-6)
    assert float(lru_hit_rate(zipf(200, 0.7, 50), 20)) == pytest.approx(
        float(lru_hit_rate(zipf(50, 0.7), 20)), rel=1e-5
    )


def test_traces_of_files(tmp_path):
    (tmp_path / "a.txt").write_text("# experts\n0\n2 # hot\n\n1\n")
    (tmp_path / "b.json").write_text("[0, 2, 1]")
    assert load_trace(tmp_path / "a.txt", 3).tolist() == load_trace(tmp_path / "b.json", 3).tolist() == [0, 2, 1]


@pytest.mark.parametrize("text, said", [
    ("0\n3\n", "line 2: expert is '3'; allowed: an integer from 0 to 2"), ("0\nx\n", "line 2: expert is 'x'"), ("", "no requests"),
    ("[0, true]", r"\[1\]: expert is True"), ("[0,", "not valid JSON at line 1"), ("-1", "line 1: expert is '-1'"),
])  # fmt: skip
def test_bad_traces(tmp_path, text, said):
    (tmp_path / "t").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_trace(tmp_path / "t", 3)


def test_bad_policies():
    with pytest.raises(ValueError, match="cache is 'fifo'.*allowed: belady, lru, static"):
        cache_hits(np.zeros(2, int), 1, "fifo")
    with pytest.raises(ValueError, match="frames is 0"):
        cache_hits(np.zeros(2, int), 0, "lru")
