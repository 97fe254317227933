"""What every use is compared with: a plain `evaluate` of what the machine's software launches, everything on one device."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.workload import lower


@pytest.fixture(autouse=True)
def both_in_float64(x64):
    """Agreement to 1e-6 is asked of the models, not of single precision."""


@pytest.fixture
def latency():
    """Seconds of a pass of a workload on the first device of a system, by `evaluate`."""

    def seconds(workload, system) -> float:
        launched = lower(workload, system.software)
        return float(pm.evaluate(launched, system, pm.Schedule.on_chiplet(launched, 0)).latency_s)

    return seconds


@pytest.fixture
def loaded():
    """A decoder's graph in a phase, as `serve` means it: the head on each sequence's last token, the cache left in memory."""

    def workload(name: str, phase: str, batch: int, context: int, **formats):
        more = {"lm_head": True, "all_logits": False, "kv_cache": True} if name.startswith("gpt2") else {}
        tokens = {"seq_len": context} if phase == "prefill" else {"context": context}
        return pm.models.load(name, phase=phase, batch=batch, **tokens, **({"dtype": "bf16"} | more | formats))

    return workload


@pytest.fixture
def agree():
    def check(use, plain) -> None:
        np.testing.assert_allclose(use, plain, rtol=1e-6)

    return check
