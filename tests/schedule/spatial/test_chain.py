from itertools import combinations

import jax
import numpy as np
import pytest
from small_fabric import make_fabric

from perfmodel.schedule.spatial import (
    best_chain,
    execution,
    fabric,
    group_cost,
    groups,
    program,
    segment_s,
    segments,
    soft_chain_s,
    unfused,
)

FABRICS = [
    make_fabric(),
    make_fabric(sram_bytes=6e4),
    make_fabric(launch_s=2e-7, memory_bytes_per_s=1e9),
    make_fabric(units=5.0),
]


@jax.jit
def _first_s(group, f):
    return group_cost(group, f).time_s


def cuts(n: int):
    """All partitions of a chain into segments."""
    for k in range(n):
        for inner in combinations(range(1, n), k):
            edges = [0, *inner, n]
            yield [list(range(a, b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


@pytest.mark.parametrize("which", range(len(FABRICS)))
@pytest.mark.parametrize("name", ["chain", "graph"])
def test_equals_brute_force(request, name, which):
    p, f = request.getfixturevalue(name), FABRICS[which]
    alone = {}
    for i in range(p.n_rows):
        for j in range(i + 1, p.n_rows + 1):
            rest = [[row] for row in range(p.n_rows) if not i <= row < j]
            kernels = groups(p, [list(range(i, j)), *rest])
            alone[i, j] = float(_first_s(jax.tree.map(lambda x: x[0], kernels), f))
    every = [sum(alone[rows[0], rows[-1] + 1] for rows in members) for members in cuts(p.n_rows)]
    found = best_chain(p, f)
    assert found.time_s == pytest.approx(min(every), rel=1e-5)
    assert float(execution(groups(p, found.members), f).time_s) == pytest.approx(min(every), rel=1e-5)


def test_the_best_depends_on_the_machine(chain):
    assert len({best_chain(chain, f).cuts for f in FABRICS}) > 1


@pytest.mark.slow
def test_segments_equal_groups(llama_block, node):
    p, f = program(llama_block, 4), fabric(node, sockets=4)
    found = segments(p, f, 12)
    seconds = np.asarray(segment_s(found, f)[0])
    starts = [0, 3, 11, p.n_rows - 5]
    for i in starts:
        for w in (1, 2, 5):
            rest = [[r] for r in range(p.n_rows) if not i <= r < i + w]
            g = groups(p, [list(range(i, i + w)), *rest])
            one = group_cost(jax.tree.map(lambda x: x[0], g), f)
            assert seconds[i, w - 1] == pytest.approx(float(one.time_s), rel=1e-5)
            assert float(found.group.read_bytes[i, w - 1]) == pytest.approx(float(g.read_bytes[0]))
            assert found.group.sram_bytes[i, w - 1] == pytest.approx(np.asarray(g.sram_bytes[0]))
    assert np.isinf(seconds[p.n_rows - 1, 1])


@pytest.mark.parametrize("sockets", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_more_of_anything_is_never_slower(llama_block, node, sockets):
    p = program(llama_block, sockets)

    def time(**leaves):
        f = fabric(node, sockets=sockets)
        for name, by in leaves.items():
            f = f.__class__(**{k: v * by if k == name else v for k, v in vars(f).items()})
        return best_chain(p, f, largest=16).time_s

    base = time()
    for name, by in (
        ("sram_bytes", 4.0),
        ("units", 2.0),
        ("memory_bytes_per_s", 2.0),
        ("link_bytes_per_s", 2.0),
        ("launch_s", 0.01),
    ):
        assert time(**{name: by}) <= base * (1 + 1e-6), name
    less = [time(sram_bytes=x) for x in (1e-3, 1e-2, 0.1)]
    assert less[0] >= less[1] * (1 - 1e-6) >= less[2] * (1 - 2e-6) >= base * (1 - 3e-6) and less[0] > base


@pytest.mark.slow
def test_fusion_never_moves_more(llama_block, node):
    for sockets in (1, 4):
        p, f = program(llama_block, sockets), fabric(node, sockets=sockets)
        alone = execution(groups(p, unfused(p)), f)
        fused = execution(groups(p, best_chain(p, f).members), f)
        assert float(fused.memory_bytes) < float(alone.memory_bytes)
        assert float(fused.time_s) < float(alone.time_s)


def test_kernels_are_no_larger_than_asked(llama_block, node):
    p, f = program(llama_block), fabric(node, sockets=1)
    assert max(b - a for a, b in best_chain(p, f, largest=3).cuts) <= 3
    assert best_chain(p, f, largest=1).time_s == pytest.approx(
        float(execution(groups(p, unfused(p)), f).time_s), rel=1e-5
    )


def test_soft_value_and_gradient(chain, x64):
    f = make_fabric(stage_s=1e-7)
    found, best = segments(chain, f, 4), best_chain(chain, f)
    cold = float(soft_chain_s(found, f, temperature=1e-4))
    assert cold == pytest.approx(best.time_s, rel=1e-3) and cold <= best.time_s * (1 + 1e-9)

    def time(launch):
        return soft_chain_s(found, f.__class__(**{**vars(f), "launch_s": launch})) * 1e6

    got, step = jax.grad(time)(f.launch_s), 1e-11
    wanted = (time(f.launch_s + step) - time(f.launch_s - step)) / (2 * step)
    assert float(got) == pytest.approx(float(wanted), rel=1e-5)
    assert 1e6 <= float(got) <= 4e6  # one to four kernels


@pytest.mark.parametrize("largest", [0, -1, True, 2.5])
def test_bad_sizes(chain, largest):
    with pytest.raises(ValueError, match="largest is .*; allowed: an integer of at least 1"):
        best_chain(chain, make_fabric(), largest=largest)
