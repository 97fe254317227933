import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.spatial_brute_force import moved_bytes, timeline
from small_fabric import make_fabric

from perfmodel.schedule.spatial import execution, group_cost, groups, groups_of, timeline_s, unfused


def at(stacked, i: int):
    return jax.tree.map(lambda x: x[i], stacked)


def test_kernels_by_hand(chain, small):
    # up: 256 * 64 * 128 MACs on 16 units of 8 at 1 GHz 16.384 us (memory 5.7 us); gelu: 65,536 bytes 6.5536 us; softmax 3.2768 us
    cost = jax.vmap(lambda g: group_cost(g, small))(groups(chain, unfused(chain)))
    assert np.asarray(cost.time_s) * 1e6 == pytest.approx([18.384, 8.5536, 18.384, 5.2768], rel=1e-6)
    assert np.asarray(cost.memory_bytes).tolist() == [57344, 65536, 57344, 32768]
    assert np.asarray(cost.compute_s)[1] * 1e6 == pytest.approx(2.048, rel=1e-6)  # 2 ops an element, 32 lanes
    run = execution(groups(chain, unfused(chain)), small)
    assert float(run.time_s) * 1e6 == pytest.approx(50.5984, rel=1e-6)
    assert float(run.launch_s) * 1e6 == pytest.approx(8.0)


def test_a_fused_kernel_by_hand(chain, small):
    # units 7, 1, 7, 1: 37.449, 32.768, 37.449, 40.96 us; tiles of a quarter; the last begins at 26.916 and takes 40.96 us
    cost = group_cost(at(groups(chain, [[0, 1, 2, 3]]), 0), small)
    assert np.asarray(cost.units).tolist() == [7, 1, 7, 1]
    up = 262.144 / 7
    assert float(cost.compute_s) * 1e6 == pytest.approx((2 * up + 32.768) / 4 + 40.96, rel=1e-6)
    assert float(cost.memory_bytes) == 3 * 16384  # input, two weights of 8192 bytes each, output
    assert float(cost.time_s) == pytest.approx(float(cost.compute_s) + 2e-6, rel=1e-6)
    # both weights stay; two buffers of 64 rows of what lies between
    assert float(cost.sram_bytes) == 2 * 8192 + 0.5 * (2 * 32768 + 16384)
    assert int(cost.tile) == 0 and bool(cost.fits)


def test_few_rows_are_bound_by_weights_taken_in(small):
    from perfmodel.schedule.spatial import unit_seconds

    # one row: 2 weights a cycle; three: 6 MACs a cycle; four and more: the 8 there are
    rate = [1e-9 / float(unit_seconds(1.0, 0.0, r, small)) for r in (1.0, 3.0, 4.0, 100.0)]
    assert rate == pytest.approx([2, 6, 8, 8], rel=1e-6)


def test_a_chain_of_like_stages_and_a_tensor_that_must_be_whole():
    inputs = jnp.asarray([[-1], [0], [1]])
    assert float(timeline_s(jnp.ones(3), inputs, jnp.full((3, 1), 0.1), 0.0)) == pytest.approx(1 + 2 / 10)
    assert float(timeline_s(jnp.ones(3), inputs, jnp.ones((3, 1)), 0.0)) == pytest.approx(3.0)
    assert float(timeline_s(jnp.ones(3), inputs, jnp.ones((3, 1)), 0.5)) == pytest.approx(4.5)


def test_timeline_equals_the_slow_one(key):
    random = np.random.default_rng(0)
    for _ in range(20):
        n = int(random.integers(1, 8))
        inputs = np.asarray([[int(random.integers(-1, i)) if i else -1 for _ in range(2)] for i in range(n)])
        busy, grain = random.random(n) * (random.random(n) < 0.8), random.random((n, 2))
        got = timeline_s(jnp.asarray(busy), jnp.asarray(inputs), jnp.asarray(grain), 0.1)
        assert float(got) == pytest.approx(timeline(busy, inputs, grain, 0.1), rel=1e-5, abs=1e-6)


def test_bytes_equal_counting_tensors(graph):
    for members in (
        [[0, 1, 2, 3, 4, 5]],
        [[0, 2], [1, 3], [4, 5]],
        [[0], [1], [2], [3], [4], [5]],
        [[0, 1], [2, 3], [4, 5]],
    ):
        found = groups_of(graph, members)
        for g, rows in enumerate(members):
            assert (found.read_bytes[g], found.write_bytes[g]) == moved_bytes(graph, rows)


def test_what_does_not_fit_is_infinite_and_a_row_alone_reads_again(chain):
    tight = make_fabric(sram_bytes=5e4)
    cost = group_cost(at(groups(chain, [[0, 1, 2, 3]]), 0), tight)
    assert not bool(cost.fits) and np.isinf(float(cost.time_s))
    # 4 kB: weights of 8192 bytes in three blocks (4000 each) take the input of 16,384 three times; 5 blocks of inputs are dearer
    few = group_cost(at(groups(chain, unfused(chain)), 0), make_fabric(sram_bytes=4e3))
    assert bool(few.fits) and float(few.memory_bytes) == 57344 + min(2 * 16384, 4 * 8192)


def test_more_stages_than_units(chain):
    cost = group_cost(at(groups(chain, [[0, 1, 2, 3]]), 0), make_fabric(units=3.0))
    assert not bool(cost.fits) and np.isinf(float(cost.time_s))


def test_spilled_bytes_take_the_slower_tier(chain, small):
    plain, spilled = (
        float(group_cost(at(groups(chain, unfused(chain)), 1), small, spilled=s).memory_s) for s in (0.0, 0.5)
    )
    assert spilled == pytest.approx(plain * (0.5 + 0.5 * 10), rel=1e-6)


@pytest.mark.parametrize("name", ["clock_hz", "memory_bytes_per_s", "launch_s", "stage_s", "units"])
def test_gradient(chain, x64, name):
    smooth = name == "units"  # whole units are held fixed otherwise
    fabric, kernels = make_fabric(stage_s=1e-7), groups(chain, [[0, 1], [2, 3]])

    def time(value):
        changed = eqx.tree_at(lambda f: getattr(f, name), fabric, value)
        return execution(kernels, changed, smooth=smooth).time_s * 1e6

    value = getattr(fabric, name)
    step = 1e-6 * value
    wanted = (time(value + step) - time(value - step)) / (2 * step)
    got = jax.grad(time)(value)
    assert np.isfinite(float(got)) and float(got) == pytest.approx(float(wanted), rel=1e-5, abs=1e-8)
    if name != "memory_bytes_per_s":  # these kernels wait for units
        assert float(got) != 0.0


def test_vmap_over_fabrics_equals_a_loop(graph):
    kernels = groups(graph, [[0, 2], [1, 3], [4, 5]])
    fabrics = [make_fabric(memory_bytes_per_s=b, units=u) for b, u in ((1e9, 7.0), (1e10, 16.0), (3e11, 33.0))]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *fabrics)
    together = jax.vmap(lambda f: execution(kernels, f).time_s)(stacked)
    assert np.asarray(together) == pytest.approx([float(execution(kernels, f).time_s) for f in fabrics], rel=1e-6)


@pytest.mark.parametrize("members, message", [
    ([[0, 1]], "names 2 rows (2 different); needed: each of 4 once"),
    ([[0, 1, 2, 3], [3]], "names 5 rows (4 different); needed: each of 4 once"),
])  # fmt: skip
def test_bad_partitions(chain, members, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        groups_of(chain, members)
