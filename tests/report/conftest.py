"""A system of two chiplets of different types: programs half as large as those of four."""

from pathlib import Path

import numpy as np
import pytest
import yaml

import perfmodel as pm


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """The right column of mcm-2x2: one chiplet of type ws, one of type os."""
    path = Path(pm.hardware.__file__).parent / "catalog" / "mcm-2x2.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["chiplets"] = [c for c in tree["chiplets"] if c["position"][0] == 1]
    mine = tmp_path_factory.mktemp("system") / "pair.yaml"
    mine.write_text(yaml.safe_dump(tree))
    return pm.systems.load(str(mine))


@pytest.fixture(scope="session")
def spread():
    return pm.Schedule(np.asarray([0, 1, 1, 0, 0, 1, 1, 0, 0], np.int32))
