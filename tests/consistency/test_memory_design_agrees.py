"""One point of memory design, a system's own tiers, against `evaluate` on that system."""

import jax.numpy as jnp
import pytest

import perfmodel as pm
import search
from search.memory import compute_of, own_tiers, prepared, request_s


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="memory design has passes, tiles and tiers of its own (search/memory/_model.py)",
)
def test_a_request_on_the_systems_own_tiers(latency, loaded, agree):
    system = pm.systems.load("sn40l")
    point = prepared(search.Request("gpt2", prompt=128, new_tokens=2))
    found = request_s(jnp.asarray(own_tiers(system)), point, compute_of(system))
    plain = latency(loaded("gpt2", "prefill", 1, 128), system) + 2 * latency(loaded("gpt2", "decode", 1, 129), system)
    agree(float(found), plain)
