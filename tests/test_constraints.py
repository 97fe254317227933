"""The versions behind benchmarks/results: complete, allowed by pyproject.toml, and compared with what is installed."""

import importlib.util
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LINES = [line for line in (ROOT / "benchmarks" / "constraints.txt").read_text().splitlines() if line[0] != "#"]


def common():
    spec = importlib.util.spec_from_file_location("_common", ROOT / "benchmarks" / "_common.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_direct_dependency_is_pinned_to_a_version_that_is_allowed():
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in LINES)}
    assert len(pinned) == len(LINES)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["onnx"], *extras["results"], *extras["test"]]:
        wanted = Requirement(text)
        if wanted.name != "perfmodel":
            assert pinned[canonicalize_name(wanted.name)] in wanted.specifier, text


def test_what_is_installed_otherwise_is_told():
    here = metadata.version("numpy")
    text = f"# numpy==1\n\nnumpy=={here}\nPyYAML==1.0\nno-such-package==2.0\n"
    yaml = metadata.version("pyyaml")
    assert common().unlike(text) == [f"PyYAML {yaml}, not 1.0", "no-such-package missing, not 2.0"]
