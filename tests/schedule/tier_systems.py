"""Small systems with several memory tiers, written to YAML."""

import yaml

import perfmodel as pm

TYPE = dict(
    dataflow="ws", rows=64, columns=64, clock="500 MHz", lanes=256, buffer="10 MB", buffer_bandwidth="256 GB/s",
    mac_energy="0.56 pJ", static_power="0 W",
)  # fmt: skip
FAST = dict(
    name="fast", capacity="10 kB", bandwidth="100 GB/s", write_bandwidth="50 GB/s", latency="100 ns", energy="1 pJ/bit"
)
SLOW = dict(name="slow", capacity="1 GB", bandwidth="10 GB/s", latency="200 ns", energy="10 pJ/bit")


def load(folder, *, chiplets=1, tiers=(FAST, SLOW), **changes):
    """A system of equal chiplets in a row with these tiers."""
    tree = dict(
        name="tiered", technology="12nm", types={"a": TYPE | changes},
        chiplets=[dict(name=f"c{i}", type="a", position=[i, 0]) for i in range(chiplets)], memory=list(tiers),
        package=dict(link="100 GB/s", port="100 GB/s", hop_latency="35 ns", hop_energy="2 pJ/bit"),
    )  # fmt: skip
    path = folder / "tiered.yaml"
    path.write_text(yaml.safe_dump(tree))
    return pm.systems.load(str(path))
