"""A small fabric, a small chain and a small graph, on which everything can be worked out or tried."""

import pytest
from small_fabric import make_fabric

import perfmodel as pm
from perfmodel.schedule.spatial import program
from perfmodel.workload import GraphBuilder, operator_row


@pytest.fixture
def small():
    return make_fabric()


@pytest.fixture(scope="session")
def chain():
    """gemm 256 x 64 -> 128, gelu, gemm -> 64, softmax, 256 rows of int8."""
    graph = GraphBuilder("chain")
    x = graph.add("up", operator_row("gemm", k=128, c=64, p=256), outside_bytes=256.0 * 64)
    x = graph.add("gelu", operator_row("gelu", k=128, p=256), [x])
    x = graph.add("down", operator_row("gemm", k=64, c=128, p=256), [x])
    graph.add("out", operator_row("softmax", k=64, p=256), [x])
    return program(graph.build())


@pytest.fixture(scope="session")
def graph():
    """Two branches that meet: six rows, of which neighbours in the stored order are on different branches."""
    made = GraphBuilder("graph")
    size = dict(k=64, c=64, p=512)
    a = made.add("a", operator_row("gemm", **size), outside_bytes=512.0 * 64)
    b = made.add("b", operator_row("gemm", **size), outside_bytes=512.0 * 64)
    a2 = made.add("a2", operator_row("relu", k=64, p=512), [a])
    b2 = made.add("b2", operator_row("relu", k=64, p=512), [b])
    a3 = made.add("a3", operator_row("gemm", **size), [a2])
    made.add("meet", operator_row("add", k=64, p=512, in_elements=2 * 64 * 512), [a3, b2])
    return program(made.build())


@pytest.fixture(scope="session")
def llama_block():
    """Two blocks of a llama-like decoder in prefill: 512 tokens, 8 heads."""
    from perfmodel.models.zoo import Transformer, language_model

    spec = Transformer(vocabulary=1000, width=512, layers=2, heads=8, hidden=1024, rotary=64)
    return language_model("two-blocks", spec, dtype="bf16", seq_len=512)


@pytest.fixture(scope="session")
def node():
    return pm.systems.load("sn40l-node")
