"""XY routing and memory attachment: by hand on 2x2 and 3x3, and against a walk on any filled mesh."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.hardware import mesh


def make(positions, attached=None):
    names = [f"c{x}{y}" for x, y in positions]
    attached = range(len(positions)) if attached is None else attached
    return mesh(
        positions,
        list(attached),
        names,
        link_bytes_per_s=1e11,
        port_bytes_per_s=2e11,
        hop_s=35e-9,
        hop_j_per_byte=1e-12,
    )


def way(package, a, b) -> list[str]:
    return [package.link_names[k] for k in np.flatnonzero(package.route[:, a, b])]


def test_2x2_by_hand(mcm):
    package = mcm.package  # c00 c10 / c01 c11
    assert set(package.link_names) == {
        "c00->c10", "c10->c00", "c01->c11", "c11->c01", "c00->c01", "c01->c00", "c10->c11", "c11->c10",
    }  # fmt: skip
    np.testing.assert_array_equal(package.hops, [[0, 1, 1, 2], [1, 0, 2, 1], [1, 2, 0, 1], [2, 1, 1, 0]])
    assert set(way(package, 0, 3)) == {"c00->c10", "c10->c11"}  # x first, then y
    assert set(way(package, 3, 0)) == {"c11->c01", "c01->c00"}  # another way back
    assert way(package, 1, 1) == []
    assert (
        package.direct and not package.memory_route.any() and not package.memory_hops.any() and not package.serves.any()
    )


def test_3x3_by_hand():
    system = pm.systems.load("mcm-3x3")
    package = system.package
    at = {name: i for i, name in enumerate(system.chiplet_names)}
    assert len(package.link_names) == 24  # 12 neighbours, both ways
    assert set(way(package, at["c00"], at["c22"])) == {"c00->c10", "c10->c20", "c20->c21", "c21->c22"}
    assert set(way(package, at["c21"], at["c02"])) == {"c21->c11", "c11->c01", "c01->c02"}
    assert package.hops[at["c02"], at["c20"]] == 4
    # the middle column has no interface and goes to its left neighbour, the first of two equally near
    assert not package.direct
    np.testing.assert_array_equal(package.memory_hops, [name[1] == "1" for name in system.chiplet_names])
    for row in "012":
        middle, left = at[f"c1{row}"], at[f"c0{row}"]
        assert package.serves[left, middle] == 1 and package.serves[:, middle].sum() == 1
        assert [package.link_names[k] for k in np.flatnonzero(package.memory_route[:, middle])] == [f"c0{row}->c1{row}"]
        assert [package.link_names[k] for k in np.flatnonzero(package.memory_back[:, middle])] == [f"c1{row}->c0{row}"]
    assert package.serves.sum() == 3


def test_one_chiplet_has_no_links():
    package = pm.systems.load("monolithic-os").package
    assert package.link_names == () and package.route.shape == (0, 1, 1) and package.direct


@st.composite
def meshes(draw):
    """A filled rectangle in any order, at any offset, with any chiplets attached."""
    width, height = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    x0, y0 = draw(st.integers(-2, 2)), draw(st.integers(-2, 2))
    positions = draw(st.permutations([(x0 + x, y0 + y) for x in range(width) for y in range(height)]))
    attached = draw(st.lists(st.sampled_from(range(len(positions))), min_size=1, unique=True))
    return positions, sorted(attached)


@given(meshes())
def test_any_filled_mesh_against_a_walk(drawn):
    positions, attached = drawn
    package, n = make(positions, attached), len(positions)
    link = {name: k for k, name in enumerate(package.link_names)}

    def steps(a, b):
        """Walk from a to b, x first: the links passed."""
        (x, y), (u, v) = positions[a], positions[b]
        path = [(x, y)]
        path += [(i, y) for i in (range(x + 1, u + 1) if u > x else range(x - 1, u - 1, -1))]
        path += [(u, j) for j in (range(y + 1, v + 1) if v > y else range(y - 1, v - 1, -1))]
        names = [f"c{i}{j}" for i, j in path]
        return [link[f"{p}->{q}"] for p, q in zip(names[:-1], names[1:], strict=True)]

    for a in range(n):
        for b in range(n):
            walked = steps(a, b)
            assert sorted(walked) == np.flatnonzero(package.route[:, a, b]).tolist()
            manhattan = abs(positions[a][0] - positions[b][0]) + abs(positions[a][1] - positions[b][1])
            assert package.hops[a, b] == len(walked) == manhattan
    np.testing.assert_array_equal(package.hops, package.hops.T)
    for d in range(n):
        nearest = min(attached, key=lambda m, d=d: package.hops[d, m])
        assert package.memory_hops[d] == package.hops[d, nearest]
        np.testing.assert_array_equal(package.memory_route[:, d], package.route[:, nearest, d])
        np.testing.assert_array_equal(package.memory_back[:, d], package.route[:, d, nearest])
        expected = np.zeros(n)
        expected[nearest] = nearest != d
        np.testing.assert_array_equal(package.serves[:, d], expected)
    assert package.direct == (len(attached) == n)


def test_a_hole_in_the_mesh_is_refused():
    with pytest.raises(ValueError, match=r"route from c00 to c11 passes position \(1, 0\), where no chiplet stands"):
        make([(0, 0), (0, 1), (1, 1)])
