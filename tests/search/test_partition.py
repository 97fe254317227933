"""Partitions of graphs for a streaming fabric: the search against all convex partitions."""

import jax.numpy as jnp
import numpy as np
import pytest
from oracles.spatial_brute_force import is_convex, partitions

from perfmodel.schedule.spatial import Fabric, best_chain, execution, groups, program
from perfmodel.workload import GraphBuilder, operator_row
from search import order_of, relaxed_orders, reordered, search_partition


@pytest.fixture(scope="module")
def branches():
    """Two branches of three rows whose stored order alternates between them; they meet in the end."""
    made, size = GraphBuilder("branches"), dict(k=64, c=64, p=512)
    a = made.add("a", operator_row("gemm", **size), outside_bytes=512.0 * 64)
    b = made.add("b", operator_row("gemm", **size), outside_bytes=512.0 * 64)
    a = made.add("a2", operator_row("relu", k=64, p=512), [a])
    b = made.add("b2", operator_row("relu", k=64, p=512), [b])
    a = made.add("a3", operator_row("softmax", k=64, p=512), [a])
    made.add("meet", operator_row("add", k=64, p=512, in_elements=2 * 64 * 512), [a, b])
    return program(made.build())


def fabric_of(**leaves) -> Fabric:
    values = dict(units=16.0, unit_macs=8.0, unit_lanes=2.0, clock_hz=4e9, sram_bytes=3e4, chunk_bytes=1e3, memory_bytes_per_s=2e9,
                  memory_bytes=1e9, next_bytes_per_s=1e9, link_bytes_per_s=1e9, hop_s=1e-6, sockets=1.0,
                  launch_s=2e-6, stage_s=0.0)  # fmt: skip
    return Fabric(**{name: jnp.asarray(value) for name, value in (values | leaves).items()})


@pytest.mark.parametrize("sram", [3e4, *(pytest.param(x, marks=pytest.mark.slow) for x in (1.6e4, 1e6))])
def test_equals_all_convex_partitions(branches, sram):
    fabric = fabric_of(sram_bytes=sram)
    cost: dict[tuple[int, ...], float] = {}

    def seconds(rows) -> float:
        if tuple(rows) not in cost:
            rest = [[r] for r in range(6) if r not in rows]
            from perfmodel.schedule.spatial import group_cost

            first = groups(branches, [rows, *rest])
            import jax

            cost[tuple(rows)] = float(group_cost(jax.tree.map(lambda x: x[0], first), fabric).time_s)
        return cost[tuple(rows)]

    best = min(sum(seconds(rows) for rows in members) for members in partitions(6) if is_convex(branches, members))
    found = search_partition(branches, fabric, starts=4, population=8, generations=6)
    assert found.time_s == pytest.approx(best, rel=1e-5)
    assert is_convex(branches, found.members)
    assert float(execution(groups(branches, [sorted(m) for m in found.members]), fabric).time_s) == pytest.approx(
        best, rel=1e-5
    )
    assert found.time_s <= best_chain(branches, fabric).time_s * (1 + 1e-6)


def test_another_order_is_better(branches):
    # 16 kB hold a branch's tiles but not both: neighbours in the stored order are strangers
    fabric = fabric_of(sram_bytes=1.6e4)
    assert search_partition(branches, fabric).time_s < 0.99 * best_chain(branches, fabric).time_s


def test_orders(branches):
    order = order_of(branches, -np.arange(6))
    assert order == [1, 3, 0, 2, 4, 5]
    moved = reordered(branches, order)
    assert moved.names == ("b", "b2", "a", "a2", "a3", "meet")
    assert np.all(moved.source < moved.target) and moved.edge_bytes.sum() == branches.edge_bytes.sum()
    with pytest.raises(ValueError, match="no topological order"):
        reordered(branches, [2, 0, 1, 3, 4, 5])


def test_relaxed_orders_keep_branches_together(branches):
    orders = [order_of(branches, keys) for keys in relaxed_orders(branches, 4)]
    strangers = [
        sum((a, b) not in {(0, 2), (2, 4), (1, 3), (4, 5), (3, 5)} for a, b in zip(o, o[1:], strict=False))
        for o in orders
    ]
    assert min(strangers) < 5  # of the stored order: four neighbours out of five share no tensor
    assert len(relaxed_orders(branches, 0)) == 0


@pytest.mark.parametrize("bad", [dict(population=1), dict(starts=-1), dict(generations=-1)])
def test_bad_settings(branches, bad):
    with pytest.raises(ValueError, match="allowed: at least 2, 0 and 0"):
        search_partition(branches, fabric_of(), **bad)
