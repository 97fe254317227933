"""The loop-nest model against a walk through the nest, hand-worked numbers, finite differences and its own properties."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.loop_walk import moved_words

from perfmodel import cost as costs
from perfmodel.cost import OURS, TIMELOOP, ZIGZAG, LoopNest, Problem, loop_nest
from perfmodel.hardware import DIRECTIONS, Memory, Port, gemmini, hierarchy, stack_hierarchies

READ_DOWN, WRITE_UP, READ_UP, WRITE_DOWN = range(4)
SLOTS, UNROLLED = 8, 4
PLAIN = OURS._replace(rounding="none")
# one program a machine and convention: operation by operation the tests took minutes
loopnest_cost, counts = eqx.filter_jit(costs.loopnest_cost), eqx.filter_jit(costs.counts)


def small_machine(port_bits=64, serve_sums=(), idle_ports=0, idle_memories=0):
    """Registers for weights and sums, a buffer for inputs and outputs, DRAM for everything; some that nothing uses besides."""

    def memory(name, bits, read_j, write_j, serves, operands, width):
        route = {(t, way): "port" for t in operands for way in DIRECTIONS}
        idle = {f"idle {i}": Port(1, 1, 1) for i in range(idle_ports)} if name == "weights" else {}
        return Memory(name, bits, read_j, write_j, serves, idle | {"port": Port(width, width, 8)}, route)

    memories = [
        *(memory(f"idle {i}", 1, 1.0, 1.0, (), "", 8) for i in range(idle_memories)),
        memory("weights", 64, 1e-13, 1e-13, (), "W", 8),
        memory("sums", 64, 2e-13, 3e-13, serve_sums, "O", 16),
        memory("buffer", 8 * 4096, 5e-12, 6e-12, ("x", "y"), "IO", port_bits),
        memory("dram", 1e15, 7e-10, 8e-10, ("x", "y"), "WIO", port_bits),
    ]
    chains = {"W": ["weights", "dram"], "I": ["buffer", "dram"], "O": ["sums", "buffer", "dram"]}
    return hierarchy({"x": 4, "y": 4}, 1e-12, memories, chains)


def problem(sizes: dict, stride=1, bits=(8, 8, 16, 8)):
    size = np.asarray([sizes.get(d, 1) for d in "GNKCPQRS"], float)
    rows, columns = ((sizes.get(a, 1) - 1) * stride + sizes.get(b, 1) for a, b in ("PR", "QS"))
    return Problem(
        size, np.asarray(float(stride)), np.asarray([rows, columns], float), *(np.asarray(float(b)) for b in bits)
    )


def sizes_of(temporal, spatial):
    sizes = dict.fromkeys("GNKCPQRS", 1)
    for d, f, _ in [*temporal, *spatial]:
        sizes[d] *= f
    return sizes


def random_nest(rng):
    """Loops in random order with levels that never fall outwards, up to three levels a chain."""
    temporal, level = [], np.zeros(3, int)
    for _ in range(rng.integers(3, 7)):
        level = np.minimum(level + rng.integers(0, 2, 3), [1, 1, 2])
        temporal.append((str(rng.choice(list("KCPQRSN"))), int(rng.integers(1, 4)), tuple(int(x) for x in level)))
    spatial = [("K", 2, (1, 0, 1)), ("C", int(rng.integers(1, 3)), (1, 0, 1))]
    return temporal, spatial


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("halo", ["none", "consecutive"])
def test_words_are_those_of_a_walk(x64, seed, halo):
    temporal, spatial = random_nest(np.random.default_rng(seed))
    sizes = sizes_of(temporal, spatial)
    nest = loop_nest(temporal, spatial, SLOTS, UNROLLED)
    found = counts(problem(sizes), nest, small_machine(), PLAIN._replace(halo=halo))
    slide = halo == "consecutive"
    for t, operand in enumerate("WI"):
        walked, tile = moved_words(operand, 1, temporal, spatial, keep_overlap=slide and operand == "I")
        assert float(found.tile[t, 0]) == pytest.approx(tile)
        mine = found.amount[t, 0, WRITE_DOWN] * found.times[t, 0, WRITE_DOWN]
        assert float(mine) == pytest.approx(walked, rel=1e-9)
    for level in (0, 1):  # sums that leave, and those that come back: all visits but the first of each output
        walked, tile = moved_words("O", level + 1, temporal, spatial)
        assert float(found.tile[2, level]) == pytest.approx(tile)
        up = found.total[2, level, READ_UP]
        assert float(up) == pytest.approx(walked * float(found.units[2, level]), rel=1e-9)


@pytest.mark.parametrize("stride, taps", [(1, 3), (2, 3), (2, 5), (3, 3)])
@pytest.mark.parametrize("order", ["PR", "RP", "PKR", "KP"])
def test_sliding_window_keeps_what_it_overlaps(x64, stride, taps, order):
    bound = {"P": 4, "R": taps, "K": 2}
    temporal = [("Q", 3, (0, 0, 0)), ("S", 3, (0, 0, 0)), *((d, bound[d], (1, 1, 1)) for d in order)]
    sizes = sizes_of(temporal, [])
    nest = loop_nest(temporal, [], SLOTS, UNROLLED)
    found = counts(problem(sizes, stride), nest, small_machine(), PLAIN)
    walked, _ = moved_words("I", 1, temporal, [], stride, keep_overlap=True)
    assert float(found.total[1, 0, WRITE_DOWN]) == pytest.approx(walked)


def test_hand_worked_gemm(x64):
    """M 8, N 4, K' 4 on 2 x 2: weights stay while the rows of the input pass, sums wait in the buffer between two blocks."""
    # inside a weight tile: 8 pixels; outside: 2 blocks of C, then 2 of K
    temporal = [("P", 8, (0, 0, 1)), ("C", 2, (1, 0, 1)), ("K", 2, (1, 0, 2))]
    spatial = [("K", 2, (1, 0, 1)), ("C", 2, (1, 0, 1))]
    nest = loop_nest(temporal, spatial, SLOTS, UNROLLED)
    size = {"P": 8, "K": 4, "C": 4}
    found = counts(problem(size), nest, small_machine(), PLAIN)
    assert float(found.cycles) == 32 and float(found.macs) == 128
    assert float(found.total[0, 0, WRITE_DOWN]) == 16  # each of 16 weights is loaded once
    assert float(found.total[0, 0, READ_DOWN]) == 16  # and read once: the multiplier keeps it for all pixels
    assert float(found.total[1, 0, READ_DOWN]) == 64  # 32 cycles, 2 channels each, for both columns
    assert float(found.total[1, 1, READ_DOWN]) == 32  # the input comes once
    # 32 cycles x 4 PEs make sums; the 2 x 2 blocks of C and of space meet in the buffer: 2 filters x 8 pixels x 2 x 2 visits
    assert float(found.total[2, 0, READ_UP]) == 128
    assert float(found.total[2, 1, READ_DOWN]) == 64 - 32  # second block of C reads what the first left
    assert float(found.total[2, 2, WRITE_UP]) == 32


def test_first_read_conventions(x64):
    # the register holds one sum: each of 4 outputs passes through it 3 times
    temporal = [("K", 4, (0, 0, 1)), ("C", 3, (1, 1, 1))]
    nest = loop_nest(temporal, [], SLOTS, UNROLLED)
    size = problem({"K": 4, "C": 3})

    def outputs(first_sum):
        found = counts(size, nest, small_machine(), PLAIN._replace(first_sum=first_sum))
        return [float(found.total[2, level, way]) for level, way in ((1, READ_DOWN), (0, WRITE_DOWN))]

    assert outputs("counted") == [12, 12]
    assert outputs("elided") == [8, 8]
    assert outputs("filled") == [8, 12]


def test_port_moves_whole_accesses(x64):
    """3 bytes cross a 64-bit port in steps of 8 bits: 3/8 of an access a time, 5 times, rounded down to whole accesses."""
    nest = loop_nest([("K", 3, (0, 0, 0)), ("C", 5, (1, 1, 1))], [], SLOTS, UNROLLED)
    cost = loopnest_cost(problem({"K": 3, "C": 5}), nest, small_machine(), OURS)
    assert float(cost.accesses[0, 1, READ_DOWN]) == 1  # 15 / 8, rounded down
    exact = loopnest_cost(problem({"K": 3, "C": 5}), nest, small_machine(), PLAIN)
    assert float(exact.accesses[0, 1, READ_DOWN]) == 15 / 8


def test_overfull_memory_does_not_fit(x64):
    size = problem({"K": 9})
    fits = [loopnest_cost(size, loop_nest([("K", 9, (level, 1, 1))], [], SLOTS, UNROLLED), small_machine(), OURS).fits
            for level in (0, 1)]  # fmt: skip
    assert [bool(f) for f in fits] == [False, True]  # 9 words of 8 bits in a register file of 64 bits


def test_gemmini_register_accumulator_and_scratchpad_energies(x64):
    """One weight, one multiply: 0.5608 pJ + register, accumulator and scratchpad accesses + a block of DRAM a tensor."""
    nest = loop_nest([], [], SLOTS, UNROLLED)
    cost = loopnest_cost(problem({}), nest, gemmini(1, 256, 1024), TIMELOOP)
    byte = lambda kib: 0.487437 + 0.0251256 * kib  # noqa: E731
    sums = 4 * byte(1.0) * 2  # update and fill
    pads = byte(1.0) * 4  # weight in and out, input in and out
    expected = 0.5608 + 2 * byte(1 / 1024) + sums + pads + 3 * 6400
    assert float(cost.total_j) * 1e12 == pytest.approx(expected, rel=1e-9)


def _batch(rng, n):
    nests = [loop_nest(*random_nest(rng), SLOTS, UNROLLED) for _ in range(n)]
    return nests, jax.tree.map(lambda *x: np.stack(x, axis=-1), *nests)


@pytest.mark.parametrize("how", [OURS, ZIGZAG, TIMELOOP], ids=["ours", "zigzag", "timeloop"])
def test_many_at_once_equal_one_at_a_time(x64, how):
    nests, many = _batch(np.random.default_rng(5), 7)
    machine, size = small_machine(), problem({"K": 8, "C": 4})
    together, apart = (
        loopnest_cost(size, many, machine, how),
        [loopnest_cost(size, nest, machine, how) for nest in nests],
    )
    if how == OURS:  # jit equals eager
        apart[0] = costs.loopnest_cost(size, nests[0], machine, how)
    for field in together._fields:
        expected = np.stack([np.asarray(getattr(one, field)) for one in apart], axis=-1)
        np.testing.assert_allclose(np.asarray(getattr(together, field)), expected, rtol=1e-12, err_msg=field)


@eqx.filter_jit
def _loss(nest: LoopNest, machine, factor, width):
    nest = eqx.tree_at(lambda n: n.factor, nest, factor)
    machine = eqx.tree_at(
        lambda m: (m.bits_per_cycle, m.read_j), machine, (machine.bits_per_cycle * width[0], machine.read_j * width[1])
    )
    cost = loopnest_cost(problem({"K": 8, "C": 6, "P": 4, "R": 3}), nest, machine, PLAIN)
    return jnp.log(cost.cycles) + jnp.log(cost.total_j)


_slopes = eqx.filter_jit(jax.grad(_loss, (2, 3)))


@pytest.mark.parametrize("seed", range(4))
def test_gradients_in_factors_and_hardware(x64, seed):
    rng = np.random.default_rng(100 + seed)
    temporal = [
        (str(d), 2.3, levels)
        for d, levels in zip(rng.permutation(list("KCPR")), [(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 1, 2)], strict=True)
    ]
    nest, machine = loop_nest(temporal, [("K", 2, (1, 0, 1))], SLOTS, UNROLLED), small_machine()
    factor, width = jnp.asarray(nest.factor), jnp.asarray([1.1, 0.9])
    got = _slopes(nest, machine, factor, width)
    step = 1e-6
    for which, (value, gradient) in enumerate(((factor, got[0]), (width, got[1]))):
        for i in range(len(value)):
            if which == 0 and value[i] == 1:
                continue  # a loop that does not exist: one-sided by nature
            args = [[factor, width], [factor, width]]
            for sign in (0, 1):
                args[sign][which] = value.at[i].add(step if sign else -step)
            slope = (_loss(nest, machine, *args[1]) - _loss(nest, machine, *args[0])) / (2 * step)
            assert float(gradient[i]) == pytest.approx(float(slope), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("how", [OURS, ZIGZAG], ids=["ours", "zigzag"])
def test_more_bandwidth_never_hurts_and_compulsory_traffic_holds(x64, how):
    _, many = _batch(np.random.default_rng(9), 40)
    sizes = np.stack([
        np.prod(np.where(many.dim == d, many.factor, 1), axis=0)
        * np.prod(np.where(many.spatial_dim == d, many.spatial_factor, 1), axis=0)
        for d in range(8)
    ])  # fmt: skip
    g, n, k, c, p, q, r, s = sizes
    full = jnp.full(40, 8.0)
    size = Problem(jnp.asarray(sizes), jnp.ones(40), jnp.stack([p + r - 1, q + s - 1]), full, full, 2 * full, full)
    slow = loopnest_cost(size, many, small_machine(64), how)
    fast = loopnest_cost(size, many, small_machine(128), how)
    assert np.all(np.asarray(fast.cycles) <= np.asarray(slow.cycles) * (1 + 1e-12))
    assert np.all(np.asarray(slow.cycles) >= np.asarray(slow.compute_cycles))
    found = counts(size, many, small_machine(), how)
    whole = [k * c * r * s, n * c * (p + r - 1) * (q + s - 1), n * k * p * q]
    for t, level, way in ((0, 1, READ_DOWN), (1, 1, READ_DOWN), (2, 2, WRITE_UP)):
        assert np.all(np.asarray(found.total[t, level, way]) >= whole[t] * (1 - 1e-9))
    assert np.all(np.asarray(slow.energy_j) >= 0)


def test_a_missing_route_is_told():
    port = {"port": Port(8, 8, 8)}
    buffer = Memory("buffer", 64.0, 1.0, 1.0, ("x",), port, {("W", "read_to_lower"): "port"})
    with pytest.raises(ValueError, match="memory buffer: no route for operand I, read_to_lower"):
        hierarchy({"x": 1}, 1.0, [buffer], {"W": ["buffer"], "I": ["buffer"], "O": ["buffer"]})


def test_a_batch_on_precision_alone(x64):
    nest = loop_nest([("K", 4, (0, 0, 1)), ("C", 3, (1, 1, 1))], [], SLOTS, UNROLLED)
    size = problem({"K": 4, "C": 3})
    many = eqx.tree_at(lambda p: p.weight_bits, size, np.asarray([4.0, 8.0, 16.0]))
    together = loopnest_cost(many, nest, small_machine(), PLAIN).total_j
    apart = [
        loopnest_cost(eqx.tree_at(lambda p: p.weight_bits, size, np.asarray(b)), nest, small_machine(), PLAIN).total_j
        for b in (4.0, 8.0, 16.0)
    ]
    np.testing.assert_allclose(together, np.stack(apart), rtol=1e-12)


@pytest.mark.parametrize("ports, memories", [(17, 4), (40, 11)])
def test_a_machine_gets_the_room_it_needs(x64, ports, memories):
    """Ports and memories that nothing uses, declared before those that are used, change nothing."""
    extra = memories - 4
    large = small_machine(idle_ports=ports - extra - 4, idle_memories=extra)
    assert large.uses.shape[0] == -(-ports // 16) * 16 and large.capacity_bits.shape[0] == -(-memories // 8) * 8
    nest = loop_nest(*random_nest(np.random.default_rng(3)), SLOTS, UNROLLED)
    size = problem({"K": 8, "C": 4})
    plain, roomy = (loopnest_cost(size, nest, machine, OURS) for machine in (small_machine(), large))
    for field in ("accesses", "energy_j", "total_j", "cycles"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(roomy, field))
    assert sorted(x for x in np.asarray(roomy.busy_cycles) if x) == sorted(
        x for x in np.asarray(plain.busy_cycles) if x
    )
    both = stack_hierarchies([small_machine(), large])  # machines of unlike room as one batch
    twice = jax.tree.map(lambda x: np.stack([x, x], axis=-1), nest)
    np.testing.assert_allclose(loopnest_cost(size, twice, both, OURS).total_j, [float(plain.total_j)] * 2, rtol=1e-12)


def test_more_levels_than_the_usual_room(x64):
    """Five memories above each other: what the innermost loops leave passes through all of them unchanged."""
    route = {(t, way): "port" for t in "WIO" for way in DIRECTIONS}
    names = [f"m{i}" for i in range(5)]
    memories = [Memory(n, 1e6, 1.0, 1.0, ("x",), {"port": Port(8, 8, 8)}, route) for n in names]
    machine = hierarchy({"x": 1}, 0.0, memories, dict.fromkeys("WIO", names))
    nest = loop_nest([("P", 3, (0, 0, 0)), ("K", 4, (0, 0, 0))], [], SLOTS, UNROLLED)
    found = counts(problem({"P": 3, "K": 4}), nest, machine, PLAIN)
    # 4 weights, 3 inputs and 12 results cross every border between two memories once
    expected = [[4.0] * 4, [3.0] * 4, [12.0] * 4]
    got = [found.total[t, 1:5, READ_DOWN] for t in (0, 1)] + [found.total[2, 1:5, WRITE_UP]]
    np.testing.assert_allclose(got, expected)


def test_zigzag_rounds_fractions_spread_over_lanes_down(x64):
    """14 x 14 outputs on 4 x 4 lanes: 3.5 each way are 3 in ZigZag's words of one transfer, 12.25 in ours."""
    nest = loop_nest(
        [("P", 4, (1, 1, 1)), ("Q", 4, (1, 1, 1))], [("P", 3.5, (0, 0, 0)), ("Q", 3.5, (0, 0, 0))], SLOTS, UNROLLED
    )
    size = problem({"P": 14, "Q": 14})
    assert float(counts(size, nest, small_machine(), ZIGZAG).amount[1, 0, READ_DOWN]) == 9
    assert float(counts(size, nest, small_machine(), PLAIN).amount[1, 0, READ_DOWN]) == 12.25
