"""Collectives: bytes by the published formulas, seconds by hand, rings on meshes, packages, the cost table, gradients, batches."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import cost_table

import perfmodel as pm
from perfmodel.cost import Topology, collective_cost, collective_row_s, machine, mesh_of, topology
from perfmodel.workload import COLLECTIVE_KINDS, GraphBuilder, collective_row

GB = 1e9
# a switch of eight devices, 100 GB/s a port, 1 us a hop; adapters of 10 GB/s and 5 us
SWITCH = Topology(8.0, 100 * GB, 1e-6, 10 * GB, 5e-6)
LINE = eqx.tree_at(lambda t: t.devices, SWITCH, 1e9)
MIB = 2.0**20


def mesh(width: int, height: int, *, link=100 * GB, hop_s=1e-6) -> Topology:
    positions = tuple((x, y) for y in range(height) for x in range(width))
    return Topology(float(width * height), link, hop_s, mesh=mesh_of(positions))


@pytest.mark.parametrize("kind, hops, share", [
    ("all_gather", 1, 7 / 8), ("reduce_scatter", 1, 7 / 8), ("all_to_all", 1, 7 / 8), ("all_reduce", 2, 2 * 7 / 8),
])  # fmt: skip
def test_large_messages_around_a_switch(kind, hops, share):
    """Everyone to everyone at once: (n-1)/n of the tensor through a port, twice that to add up."""
    cost = collective_cost(kind, 800 * MIB, 8.0, SWITCH)
    assert float(cost.link_bytes) == pytest.approx(share * 800 * MIB)
    assert float(cost.seconds) == pytest.approx(hops * 1e-6 + share * 800 * MIB / (100 * GB))
    assert float(cost.hop_bytes) == float(cost.link_bytes) and float(cost.adapter_bytes) == 0


def test_a_small_tensor_is_added_up_everywhere_at_once():
    cost = collective_cost("all_reduce", 1000.0, 8.0, SWITCH)
    assert float(cost.seconds) == pytest.approx(1e-6 + 7000 / (100 * GB))


def test_a_switch_that_adds_up_moves_n_plus_one_nths():
    able = eqx.tree_at(lambda t: t.reduces, SWITCH, 1.0)
    cost = collective_cost("all_reduce", 800 * MIB, 8.0, able)
    assert float(cost.link_bytes) == pytest.approx(9 / 8 * 800 * MIB)
    assert float(cost.seconds) == pytest.approx(1e-6 + 9 / 8 * 800 * MIB / (100 * GB))


@pytest.mark.parametrize("width, height", [(2, 2), (4, 2), (3, 4), (4, 3)])
def test_a_mesh_with_an_even_side_has_a_ring_of_neighbours(width, height):
    n, m = width * height, 64 * MIB
    cost = collective_cost("all_reduce", m, float(n), mesh(width, height))
    assert float(cost.link_bytes) == pytest.approx(2 * (n - 1) / n * m)
    assert float(cost.seconds) == pytest.approx(2 * (n - 1) * 1e-6 + 2 * (n - 1) / n * m / (100 * GB))
    assert float(cost.hop_bytes) == pytest.approx(float(cost.link_bytes))  # every step is one link


def test_rings_on_a_line_and_on_odd_sides():
    line = mesh_of(tuple((x, 0) for x in range(4)))
    # back from the end over three links that no other step takes in that direction
    assert (float(line.ring_load[0, 3]), float(line.ring_hops[0, 3]), float(line.ring_way[0, 3])) == (1, 3, 1.5)
    odd = mesh_of(tuple((x, y) for y in range(3) for x in range(3)))
    assert odd.ring_load[0, 8] <= 2 and odd.ring_hops[0, 8] <= 4
    assert odd.ring_hops[0, 3] >= 1  # four of nine


def test_exchange_on_a_line_meets_at_the_middle():
    """Four in a row: of 16 messages 4 cross the middle each way."""
    four = mesh(4, 1)
    assert float(four.mesh.pair_load[0, 3]) == 4 and float(four.mesh.pair_hops[0, 3]) == 3
    cost = collective_cost("all_to_all", 4 * MIB, 4.0, four)
    assert float(cost.seconds) == pytest.approx(3e-6 + 4 * MIB / (100 * GB))
    assert float(cost.link_bytes) == pytest.approx(3 * MIB)


def test_groups_apart_share_the_links():
    """Ranks 0, 2 and 1, 3 of a row of four: each pair two links long, both in the middle link at once."""
    four = mesh(4, 1).mesh
    assert (float(four.ring_load[1, 1]), float(four.ring_hops[1, 1])) == (2, 2)


def test_tree_where_a_mesh_is_long_and_the_tensor_small():
    row = mesh(8, 1)
    cost = collective_cost("all_reduce", 8.0, 8.0, row)
    assert float(cost.seconds) == pytest.approx(2 * 7e-6, rel=1e-3)  # there and back; the ring would wait 14 times


def test_hierarchy_over_nodes_by_hand():
    """16 ranks in two packages, small enough that steps decide: scattered inside, added up across, gathered inside."""
    m = 1.0 * MIB
    inside = 1e-6 + 7 / 8 * m / (100 * GB)
    across = 2 * (5e-6 + 0.5 * m / 8 / (10 * GB))
    cost = collective_cost("all_reduce", m, 16.0, SWITCH)
    assert float(cost.seconds) == pytest.approx(2 * inside + across)
    assert float(cost.adapter_bytes) == pytest.approx(2 * 0.5 * m / 8)
    assert float(cost.link_bytes) == pytest.approx(2 * 7 / 8 * m)


def test_large_tensors_over_nodes_use_every_members_adapter():
    m = 1e10
    for kind, times in (("all_reduce", 2), ("all_gather", 1), ("reduce_scatter", 1)):
        cost = collective_cost(kind, m, 16.0, SWITCH)
        flat, across = times * 15 / 16 * m / (8 * 10 * GB), times * 0.5 * m / (8 * 10 * GB)
        hierarchical = across + times * 7 / 8 * m / (100 * GB)
        assert float(cost.seconds) == pytest.approx(min(flat, hierarchical), rel=1e-2)
        assert float(cost.seconds) >= across


def test_exchange_over_nodes():
    """Of four ranks, two a package: half of what each has crosses its adapter, a quarter the port, both at once."""
    two = eqx.tree_at(lambda t: t.devices, SWITCH, 2.0)
    cost = collective_cost("all_to_all", 4 * MIB, 4.0, two)
    assert float(cost.adapter_bytes) == 2 * MIB and float(cost.link_bytes) == pytest.approx(MIB)
    assert float(cost.seconds) == pytest.approx(5e-6 + 2 * MIB / (10 * GB))


def test_replicas_apart_meet_over_adapters():
    """Two replicas of four tensor ranks are in one package, eight are in four: two ranks in each."""
    assert float(collective_cost("all_reduce", MIB, 2.0, SWITCH, step=4.0).adapter_bytes) == 0
    cost = collective_cost("all_gather", 1e10, 8.0, SWITCH, step=4.0)
    assert float(cost.adapter_bytes) == pytest.approx(3 / 4 * 1e10 / 2, rel=0.2)
    # a package a replica: nothing inside
    assert float(collective_cost("all_reduce", MIB, 4.0, SWITCH, step=8.0).link_bytes) == 0


def test_send_takes_the_slowest_way_of_the_chain():
    assert float(collective_cost("send", MIB, 4.0, SWITCH).seconds) == pytest.approx(1e-6 + MIB / (100 * GB))
    far = collective_cost("send", MIB, 4.0, SWITCH, step=4.0)
    assert float(far.seconds) == pytest.approx(5e-6 + MIB / (10 * GB)) and float(far.adapter_bytes) == MIB


def test_one_rank_costs_nothing_and_names_are_checked():
    for kind in COLLECTIVE_KINDS:
        assert all(float(x) == 0 for x in jax.tree.leaves(collective_cost(kind, MIB, 1.0, SWITCH)))
    with pytest.raises(ValueError, match="collective.*'gossip'.*all_gather"):
        collective_cost("gossip", MIB, 2.0, SWITCH)
    with pytest.raises(ValueError, match="collective is 'gemm'"):
        collective_row("gemm", 8, 2)
    with pytest.raises(ValueError, match="ranks is 0; allowed: an integer of at least 1"):
        collective_row("send", 8, 0)


@pytest.mark.parametrize("kind", COLLECTIVE_KINDS)
@pytest.mark.parametrize("ranks, step", [(2.0, 1.0), (8.0, 1.0), (16.0, 1.0), (4.0, 8.0), (5.0, 3.0)])
def test_faster_ways_are_never_slower(kind, ranks, step):
    def seconds(ways):
        return float(collective_cost(kind, 3e6, ranks, ways, step=step).seconds)

    base = seconds(SWITCH)
    for leaf in (lambda t: t.link_bytes_per_s, lambda t: t.outside_bytes_per_s):
        assert seconds(eqx.tree_at(leaf, SWITCH, 2 * leaf(SWITCH))) <= base
    for leaf in (lambda t: t.hop_s, lambda t: t.outside_s):
        assert seconds(eqx.tree_at(leaf, SWITCH, leaf(SWITCH) / 2)) <= base
    assert float(collective_cost(kind, 6e6, ranks, SWITCH, step=step).seconds) >= base


@pytest.mark.parametrize("kind", COLLECTIVE_KINDS)
def test_gradients_and_batches(kind, x64):
    def seconds(x, ranks=16.0):
        ways = Topology(8.0, x[0] * GB, x[1] * 1e-6, x[2] * GB, x[3] * 1e-6, mesh=None)
        return collective_cost(kind, x[4] * MIB, ranks, ways).seconds

    x = jnp.asarray([100.0, 1.0, 10.0, 5.0, 3.0])
    by_hand = [(seconds(x.at[i].mul(1 + 1e-6)) - seconds(x.at[i].mul(1 - 1e-6))) / (2e-6 * x[i]) for i in range(5)]
    np.testing.assert_allclose(jax.jit(jax.grad(seconds))(x), by_hand, rtol=1e-5, atol=1e-16)
    ranks = jnp.asarray([1.0, 2.0, 3.0, 8.0, 9.0, 16.0, 64.0])
    together = jax.jit(jax.vmap(seconds, (None, 0)))(x, ranks)
    np.testing.assert_allclose(together, [seconds(x, n) for n in ranks], rtol=1e-12)


def test_no_way_out_gives_no_nan(x64):
    """A package without a way out stands for as many devices as there are ranks; its gradient is finite."""

    def seconds(outside):
        return collective_cost("all_reduce", MIB, 16.0, Topology(8.0, 100 * GB, 1e-6, outside)).seconds

    assert float(seconds(0.0)) == pytest.approx(2e-6 + 2 * 15 / 16 * MIB / (100 * GB))
    assert np.isfinite(float(jax.grad(seconds)(0.0)))


def two_a_package(outside: float) -> pm.System:
    """Two chips a package around a switch of 400 GB/s ports, `outside` bytes/s between packages."""
    base = pm.systems.load("sn40l-node")
    leaves = lambda s: (s.package.port_bytes_per_s, s.package.link_bytes_per_s, s.package.outside_bytes_per_s,  # noqa: E731
                        s.package.outside_s)  # fmt: skip
    return eqx.tree_at(leaves, base, tuple(map(np.float64, (400 * GB, 400 * GB, outside, 5e-6))))


def test_experts_over_packages_pay_for_the_links():
    """4,096 tokens a chip, 8 copies of 4,096 bytes each, half of them for the other package of two: 67.1 MB out and as much back, 67.1 ms
    a way at 1 GB/s, 48 layers: 6.44 s; nothing less than 16.73 MB each way (a token that has any expert there goes once)."""
    chip = replace(machine(two_a_package(1 * GB)), devices=2)
    way = float(chip.collective_s("all_to_all", 4096 * 8 * 2048 * 2.0, 4.0))
    assert 48 * 2 * way == pytest.approx(6.442, rel=1e-3)
    assert 48 * 2 * way > 1.606
    slower = eqx.tree_at(lambda m: m.outside_bytes_per_s, chip, jnp.asarray(1e3))
    assert float(slower.collective_s("all_to_all", 4096 * 8 * 2048 * 2.0, 4.0)) > 1e5 * way


@pytest.mark.parametrize("replicas, measured", [(16, 0.263), (64, 0.276)])
def test_gradients_of_two_dgx_are_added_up_over_all_adapters(replicas, measured):
    """4 B of each of the 6,738,415,616 parameters; two DGX A100 with eight adapters were measured at 192 GB/s of bus bandwidth (stated by
    NCCL's maintainers, nccl issue 812); the adapters' nominal 8 x 25 GB/s is a bound."""
    m = 4.0 * 6738415616
    found = float(machine(pm.systems.load("dgx-a100")).collective_s("all_reduce", m, float(replicas)))
    assert found == pytest.approx(measured, rel=0.05) and found >= m / 200e9
    assert 2 * (1 - 1 / replicas) * m / 192e9 == pytest.approx(measured, rel=2e-3)


def collectives(ranks: int):
    graph = GraphBuilder("collectives")
    for kind in COLLECTIVE_KINDS:
        graph.add(kind, collective_row(kind, 2**20, ranks, bits=16), outside_bytes=2.0**21)
    return graph.build()


def test_rows_of_the_cost_table():
    system, w = pm.systems.load("sn40l-node"), collectives(8)
    ways, table = topology(system), cost_table(collectives(8), system)
    for row, kind in enumerate(COLLECTIVE_KINDS):
        cost = collective_cost(kind, 2.0**21, 8.0, ways)
        np.testing.assert_allclose(table.exec_s[row], float(cost.seconds), rtol=1e-5)
        lanes = float(w.operators.lane_ops[row]) * float(system.chiplets.lane_op_j[0])
        joules = float(cost.hop_bytes) * float(system.package.hop_j_per_byte) + lanes
        np.testing.assert_allclose(table.onchip_j[row], joules, rtol=1e-5)
    assert np.all(np.asarray(cost_table(collectives(1), system).exec_s) == 0)
    np.testing.assert_allclose(
        collective_row_s(w.operators, system), cost_table(w, system, by_type=True).exec_s, rtol=1e-5
    )


def test_rows_on_gpus_are_the_fitted_kernels():
    system, w = pm.systems.load("dgx-h100"), collectives(8)
    table, of = cost_table(w, system), machine(system)
    for row, kind in enumerate(COLLECTIVE_KINDS[:4]):
        np.testing.assert_allclose(table.exec_s[row], float(of.collective_s(kind, 2.0**21, 8.0)), rtol=1e-5)


def test_a_table_without_collectives_is_as_before(tiny, mcm):
    assert np.all(np.asarray(collective_row_s(tiny.operators, mcm)) == 0)


def test_a_bigger_pass_moves_more(mcm):
    w = collectives(4)
    once, thrice = (np.asarray(cost_table(w, mcm, n).exec_s) for n in (1, 3))
    assert np.all(thrice > once) and np.all(thrice < 3 * once)
