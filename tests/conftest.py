"""What every test shares: a compilation cache that outlives the session, float64 on request, the usual workloads."""

import gc
import os
import platform
import tempfile
from pathlib import Path

import jax
import pytest
from hypothesis import settings

import perfmodel as pm
from perfmodel.workload import GraphBuilder, operator_row


def _cache_folder() -> str:
    """`.jax_cache` of the repository, one folder a kind of machine; a temporary one where that cannot be written."""
    wanted = Path(__file__).parents[1] / ".jax_cache" / f"{platform.machine()}-{jax.__version__}"
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        (wanted / f".probe-{os.getpid()}").touch()
        (wanted / f".probe-{os.getpid()}").unlink()
    except OSError:
        return tempfile.mkdtemp(prefix="perfmodel-jax-cache-")
    return str(wanted)


jax.config.update("jax_compilation_cache_dir", _cache_folder())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

settings.register_profile("perfmodel", deadline=None, max_examples=40)  # no deadline: a first call compiles
settings.load_profile("perfmodel")


MOST_MAPPINGS = 40_000  # Linux allows a process 65,530


@pytest.fixture(autouse=True, scope="module")
def few_mappings():
    """Every compiled program is some memory mappings, and a process that runs out of them is aborted: let go of old programs."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """Float64 for one test: central differences need it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def resnet50():
    return pm.models.load("resnet50")


@pytest.fixture(scope="session")
def gpt2():
    return pm.models.load("gpt2")


@pytest.fixture(scope="session")
def both(gpt2, resnet50):
    return pm.merge([gpt2, resnet50])


@pytest.fixture(scope="session")
def mcm():
    return pm.systems.load("mcm-2x2")


@pytest.fixture(scope="session")
def tiny():
    """Nine operators: a residual block, then one attention head pair. Small enough for brute force."""
    graph = GraphBuilder("tiny")
    size = dict(k=16, p=8, q=8)
    stem = graph.add("stem", operator_row("conv", c=3, r=3, s=3, **size), outside_bytes=3 * 10 * 10)
    conv = graph.add("conv", operator_row("conv", c=16, r=3, s=3, **size), [stem])
    relu = graph.add("relu", operator_row("relu", **size), [conv])
    add = graph.add("add", operator_row("add", in_elements=2 * 16 * 64, **size), [relu, stem])
    qkv = graph.add("qkv", operator_row("gemm", k=48, c=16, p=64), [add])
    scores = graph.add("scores", operator_row("attention_gemm", groups=4, k=64, c=4, p=64), [(qkv, 2.0 * 64 * 16)])
    softmax = graph.add("softmax", operator_row("softmax", groups=4, k=64, p=64), [scores])
    values = graph.add("values", operator_row("attention_gemm", groups=4, k=4, c=64, p=64), [softmax, (qkv, 64.0 * 16)])
    graph.add("out", operator_row("gemm", k=10, c=16, p=64), [values])
    return graph.build()


@pytest.fixture(scope="session")
def tiny_table(tiny, mcm):
    return pm.cost_table(tiny, mcm)
