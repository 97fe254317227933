"""Memory of several tiers in system files: what is left out, chiplets' own, ways to a slower tier, bad values in one line."""

from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

import perfmodel as pm


def tree(*tiers, chiplets: int = 2):
    base = yaml.safe_load((Path(pm.hardware.__file__).parent / "catalog" / "mcm-2x2.yaml").read_text())
    base["chiplets"] = base["chiplets"][:chiplets]
    base["memory"] = [dict(TIER, **changes) for changes in tiers]
    return base


TIER = dict(name="hbm", capacity="8 GB", bandwidth="400 GB/s", latency="100 ns", energy="4 pJ/bit")
DDR = dict(name="ddr", capacity="64 GB", bandwidth="50 GB/s")


def load(folder, *tiers, **more):
    path = folder / "tiers.yaml"
    path.write_text(yaml.safe_dump(tree(*tiers, **more)))
    return pm.systems.load(str(path))


def test_what_is_left_out_by_hand(tmp_path):
    m = load(tmp_path, dict(write_bandwidth="30 GB/s"), DDR).memory
    assert m.bytes_per_s.tolist() == [400e9, 50e9] and m.write_bytes_per_s.tolist() == [30e9, 50e9]
    assert m.copy_bytes_per_s.tolist() == [400e9, 30e9]  # read there, written here
    assert m.own == (False, False) and m.share.tolist() == [1, 1] and not m.is_own(0)
    read, write = m.access_bytes_per_s()
    np.testing.assert_allclose([read, write], [[400e9, 30e9], [30e9, 30e9]])
    assert m.only([1]).names == ("ddr",) and m.only([1]).own == (False,)


def test_a_chiplets_own_tier_by_hand(tmp_path):
    m = load(tmp_path, dict(attachment="chiplet"), DDR | dict(copy_bandwidth="20 GB/s")).memory
    assert m.own == (True, False) and m.share.tolist() == [0.5, 1.0]
    assert m.capacity_bytes.tolist() == [16e9, 64e9] and m.bytes_per_s.tolist() == [800e9, 50e9]
    np.testing.assert_allclose(m.access_bytes_per_s()[0], [800e9, 20e9])
    np.testing.assert_allclose(m.access_bytes_per_s(of_one=True)[0], [400e9, 20e9])


def test_the_narrowest_link_on_the_way_counts_and_has_a_gradient(tmp_path, x64):
    far = DDR | dict(name="flash", bandwidth="10 GB/s", copy_bandwidth="9 GB/s")
    system = load(tmp_path, {}, DDR | dict(copy_bandwidth="3 GB/s"), far)
    np.testing.assert_allclose(system.memory.access_bytes_per_s()[0], [400e9, 3e9, 3e9])

    def flash(copy):
        from equinox import tree_at

        return tree_at(lambda m: m.copy_bytes_per_s, system.memory, copy).access_bytes_per_s()[0][2]

    np.testing.assert_allclose(jax.grad(flash)(np.asarray(system.memory.copy_bytes_per_s)), [0, 1, 0])


@pytest.mark.parametrize("tiers, said", [
    ([dict(bandwidth="-400 GB/s")], "memory[0].bandwidth is '-400 GB/s'; allowed: a finite number above 0"),
    ([dict(write_bandwidth=-1)], "memory[0].write_bandwidth is -1"),
    ([{}, DDR | dict(copy_bandwidth="-3 GB/s")], "memory[1].copy_bandwidth is '-3 GB/s'; allowed"),
    ([{}, DDR | dict(copy_bandwidth=0)], "memory[1].copy_bandwidth is 0.0, so nothing reaches ddr; allowed: above 0"),
    ([dict(copy_bandwidth="1 GB/s"), DDR], "memory[0].copy_bandwidth is '1 GB/s'; allowed: none"),
    ([{}, DDR | dict(attachment="socket")], "memory[1].attachment is 'socket'"),
    ([{}, {}], "memory[1].name is 'hbm'; already taken"),
    ([dict(capacity="0 B")], "memory[0].capacity is '0 B'"),
])  # fmt: skip
def test_bad_tiers_take_one_line(tiers, said, tmp_path):
    with pytest.raises(ValueError) as error:
        load(tmp_path, *tiers)
    assert str(error.value).startswith(f"{tmp_path / 'tiers.yaml'}: ") and "\n" not in str(error.value)
    assert said in str(error.value)
