"""The mapper: exhaustive search on a small space, its space's invariants, tables made of its nests."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.cost import OURS, Problem, loop_nest, loopnest_cost, map_operators, map_workload, nest_text
from perfmodel.cost.nest import SLOTS, children, decoded, prime_factors, random_genomes, spaces
from perfmodel.hardware import gemmini

UNROLL = {0: [("C",)], 1: [("K",)]}


def gemm(rows, filters, depth, columns=1):
    size = np.asarray([1, 1, filters, depth, rows, 1, 1, 1], float)
    bits = (np.full(columns, float(b)) for b in (8, 8, 32, 8))
    return Problem(np.stack([size] * columns, -1), np.ones(columns), np.stack([[rows, 1.0]] * columns, -1), *bits)


@pytest.fixture(scope="module")
def machine():
    return gemmini(4, 32, 256)


def test_prime_factors():
    assert [prime_factors(n) for n in (1, 2, 12, 97, 360)] == [[], [2], [2, 2, 3], [97], [2, 2, 2, 3, 3, 5]]


def test_unrolled_dimension_is_spread_evenly(machine):
    exact, smooth = spaces([1, 1, 9, 44, 5, 1, 1, 1], machine, UNROLL)
    assert exact.bounds.tolist() == [1, 1, 3, 11, 5, 1, 1, 1]  # ceil(9 / 4), ceil(44 / 4)
    assert smooth.bounds.tolist() == [1, 1, 3, 12, 5, 1, 1, 1]  # 12 cuts more finely than 11
    assert exact.spatial_factor[:2].tolist() == [4, 3] and smooth.spatial_factor[0] == pytest.approx(44 / 12)


def test_genomes_keep_the_bounds_through_generations(machine):
    space = spaces([1, 1, 64, 48, 30, 1, 1, 1], machine, UNROLL)[0]
    genome = jax.tree.map(jnp.asarray, random_genomes(space, 33, np.random.default_rng(0)))
    for seed in range(5):
        genome = children(genome, jnp.arange(33.0), jax.random.key(seed))
        for d in range(8):
            bound = jnp.prod(jnp.where(genome.dim == d, genome.factor, 1.0), axis=0)
            np.testing.assert_allclose(bound, space.bounds[d])
    assert 0 < float(genome.share.min()) and float(genome.share.max()) <= 1


def test_decoded_nests_fit_and_nest_properly(machine):
    size = gemm(30, 64, 48)
    space = spaces(size.sizes[:, 0], machine, UNROLL)[0]
    genome = jax.tree.map(jnp.asarray, random_genomes(space, 65, np.random.default_rng(1)))
    column = jax.tree.map(lambda x: jnp.asarray(x)[..., None], space)
    nest = decoded(genome, column, size, machine)
    assert np.all(np.diff(np.asarray(nest.level), axis=1) >= 0)
    assert bool(jnp.all(loopnest_cost(size, nest, machine, OURS).fits))


def _exhaustive(rows, filters, depth, machine, objective):
    """Every order and cut of the prime loops of a tiny GEMM."""
    loops = [(d, p) for d, n in (("P", rows), ("K", -(-filters // 4)), ("C", -(-depth // 4))) for p in prime_factors(n)]
    spatial = [("C", 4, (1, 0, 0)), ("K", 4, (1, 0, 1))]
    nests = []
    for order in set(itertools.permutations(loops)):
        cuts = range(len(order) + 1)
        for w0, w1, i0, o0 in itertools.product(cuts, cuts, cuts, cuts):
            if w1 >= w0:
                level = lambda at, *of: sum(at >= c for c in of)  # noqa: E731
                nests.append(
                    loop_nest(
                        [(d, p, (level(n, w0, w1), level(n, i0), level(n, o0))) for n, (d, p) in enumerate(order)],
                        spatial,
                        SLOTS,
                        6,
                    )
                )
    many = jax.tree.map(lambda *x: np.stack(x, -1), *nests)
    cost = jax.jit(lambda n: loopnest_cost(gemm(rows, filters, depth), n, machine, OURS))(many)
    figure = {"latency": cost.cycles, "energy": cost.total_j}[objective]
    return float(jnp.min(jnp.where(cost.fits, figure, jnp.inf)))


@pytest.mark.parametrize("objective", ["latency", "energy"])
def test_finds_the_exhaustive_optimum_of_a_small_space(machine, objective):
    best = _exhaustive(6, 8, 12, machine, objective)
    found = map_operators(gemm(6, 8, 12), machine, UNROLL, objective, population=128, generations=40)
    assert found.fits.all()
    mine = found.cycles if objective == "latency" else found.energy_j
    assert float(mine[0]) <= best * (1 + 1e-5)


def test_winner_is_worth_what_is_said(machine):
    size = gemm(30, 64, 48, columns=3)
    found = map_operators(size, machine, UNROLL, "edp", population=64, generations=10)
    cost = loopnest_cost(size, found.nest, machine, OURS)
    np.testing.assert_allclose(found.cycles, cost.cycles, rtol=1e-5)
    np.testing.assert_allclose(found.energy_j, cost.total_j, rtol=1e-5)
    assert found.evaluations % (64 * 10) == 0


def test_unknown_objective_is_told(machine):
    with pytest.raises(ValueError, match="objective is 'speed'; allowed: latency, energy, edp"):
        map_operators(gemm(6, 8, 12), machine, UNROLL, "speed")


def test_more_memory_never_costs_energy():
    """Of the same seed and effort: a larger scratchpad at the same energy per access cannot be worse."""
    energies = []
    for entries in (64, 1024):
        made = gemmini(4, 64, entries)
        made = eqx.tree_at(
            lambda m: (m.read_j, m.write_j), made, (gemmini(4, 64, 64).read_j, gemmini(4, 64, 64).write_j)
        )
        energies.append(
            float(map_operators(gemm(36, 64, 64), made, UNROLL, "energy", population=128, generations=40).energy_j[0])
        )
    assert energies[1] <= energies[0] * (1 + 1e-6)


@pytest.fixture(scope="module")
def mapped(tiny, mcm):
    return map_workload(tiny, mcm, "edp", population=64, generations=8)


@pytest.mark.slow
def test_table_of_mapped_nests(tiny, mcm, mapped):
    table, plain = pm.cost_table(tiny, mcm, mappings=mapped, by_type=True), pm.cost_table(tiny, mcm, by_type=True)
    assert mapped.fits.all()
    for name in ("compute_s", "transfer_s", "onchip_j", "input_refetch", "weight_refetch"):
        values = np.asarray(getattr(table, name))
        assert (
            values.shape == np.asarray(getattr(plain, name)).shape
            and np.all(np.isfinite(values))
            and np.all(values >= 0)
        )
    by_chiplet = pm.cost_table(tiny, mcm, mappings=mapped)
    np.testing.assert_allclose(by_chiplet.onchip_j, np.asarray(table.onchip_j)[:, np.asarray(mcm.kind)], rtol=1e-6)
    vector = np.asarray(tiny.operators.is_matrix) == 0
    np.testing.assert_array_equal(np.asarray(table.onchip_j)[vector], np.asarray(plain.onchip_j)[vector])
    macs = np.asarray(tiny.operators.macs)[:, None] / np.asarray(mcm.types.rows * mcm.types.columns)
    assert np.all(np.asarray(table.compute_s) * np.asarray(mcm.types.clock_hz) >= macs * (1 - 1e-5))
    metrics = pm.evaluate(tiny, mcm, pm.Schedule.on_chiplet(tiny, 0), table=table)
    assert np.isfinite(float(metrics.energy_j)) and float(metrics.latency_s) > 0


@pytest.mark.slow
def test_mapped_table_gradient(x64, tiny, mcm, mapped):
    def energy(scale):
        changed = eqx.tree_at(lambda s: s.chiplets.buffer_j_per_byte, mcm, mcm.chiplets.buffer_j_per_byte * scale)
        table = pm.cost_table(tiny, changed, mappings=mapped)
        return jnp.sum(table.onchip_j) * 1e9

    slope = (energy(1 + 1e-4) - energy(1 - 1e-4)) / 2e-4
    assert float(jax.grad(energy)(1.0)) == pytest.approx(float(slope), rel=1e-6)


def test_foreign_mappings_are_refused(tiny, resnet50, mcm, mapped):
    with pytest.raises(ValueError, match="mappings: .* operators on"):
        pm.cost_table(resnet50, mcm, mappings=mapped)
    with pytest.raises(ValueError, match="made for sub_batch 1; the table needs 2"):
        pm.cost_table(tiny, mcm, 2, mappings=mapped)


def test_mappings_of_other_operators_or_dataflows_are_refused(tiny, mcm, mapped):
    changed = eqx.tree_at(lambda w: w.operators.k, tiny, np.asarray(tiny.operators.k) * 2)
    with pytest.raises(ValueError, match="made for other operators"):
        pm.cost_table(changed, mcm, mappings=mapped)
    with pytest.raises(ValueError, match="made for sub_batch 1; the table needs 8"):
        pm.cost_table(tiny, mcm, np.float32(8), mappings=mapped)
    with pytest.raises(ValueError, match="neither smooth nor kernels"):
        pm.cost_table(tiny, mcm, smooth=True, mappings=mapped)
    other = eqx.tree_at(lambda s: s.types.dataflow, mcm, np.asarray([1, 1, 1], np.int32))
    with pytest.raises(ValueError, match="mappings are of dataflows"):
        pm.cost_table(tiny, other, mappings=mapped)


def test_effort_out_of_range_is_told(machine):
    for wrong, said in (({"population": 0}, "population is 0"), ({"generations": 0}, "generations is 0")):
        with pytest.raises(ValueError, match=said):
            map_operators(gemm(6, 8, 12), machine, UNROLL, **wrong)


def test_double_precision_reaches_every_chunk(x64, machine):
    found = map_operators(gemm(6, 8, 12, columns=10), machine, UNROLL, population=16, generations=2)
    assert found.cycles.dtype == np.float64 and found.nest.factor.dtype == np.float64
    assert len(set(found.cycles.tolist())) <= 10


def test_unrolling_beyond_the_array_does_not_fit(machine):
    nest = loop_nest([("P", 6, (1, 0, 0))], [("K", 64, (1, 0, 1))], SLOTS, 6)
    assert not bool(loopnest_cost(gemm(6, 64, 1), nest, machine, OURS).fits.any())


def test_nest_in_words():
    nest = loop_nest([("P", 8, (0, 0, 1)), ("C", 2, (1, 0, 1)), ("K", 2, (1, 1, 2))], [("K", 4, (1, 0, 1))], 8, 6)
    chains = {"W": ["store", "dram"], "I": ["buffer", "dram"], "O": ["sums", "buffer", "dram"]}
    lines = nest_text(nest, chains).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["for", "k", "in", "2", "W", "dram", "I", "dram", "O", "dram"],
        ["for", "c", "in", "2", "W", "dram", "I", "buffer", "O", "buffer"],
        ["for", "p", "in", "8", "W", "store", "I", "buffer", "O", "buffer"],
        ["at", "once:", "k", "4"],
    ]
