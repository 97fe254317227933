"""The arrows between the floors of the house: who may import whom, read from the source without running it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_MODULE = 400

# From the ground up. A package imports only itself and what stands on a lower floor; neighbours do not know each other.
FLOORS = [
    {"perfmodel._numerics", "perfmodel._names", "perfmodel._files", "perfmodel._lazy"},
    {"perfmodel.workload", "perfmodel.hardware"},
    {"perfmodel.models"},
    {"perfmodel.cost"},
    {"perfmodel.schedule"},
    {"perfmodel.serving", "perfmodel.training", "perfmodel.report"},
    {"perfmodel.calibration", "perfmodel.experts"},
    {"perfmodel.plot"},
    {"perfmodel"},  # the list of public names
    {"search"},
    {"search.cli", "search.commands"},
]
# Floors that do not know one that stands below them: workloads come in from above.
STRANGERS = {("perfmodel.cost", "perfmodel.models"), ("perfmodel.schedule", "perfmodel.models")}
FLOOR_OF = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}


def package_of(module: str) -> str | None:
    """The longest package or module in FLOORS that `module` belongs to; None: not ours, or ours without a floor."""
    if module == "perfmodel":
        return module
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in FLOOR_OF and name != "perfmodel":
            return name
    return None


def sources() -> dict[str, str]:
    """Source of every module of the project, by dotted name."""
    found = {}
    for path in sorted([*ROOT.glob("perfmodel/**/*.py"), *ROOT.glob("search/**/*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def imports(module: str, source: str, modules: set[str]) -> set[str]:
    """Modules of the project that `module` imports, anywhere in its source, by absolute name."""
    is_package = ROOT.joinpath(*module.split(".")).is_dir()
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*here[: len(here) - node.level + 1], *([node.module] if node.module else [])])
            # `from package import name` imports a module where there is one of that name, else a name of the package
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in modules else base for a in node.names}
    return {name for name in found if name.split(".")[0] in ("perfmodel", "search")}


def violations(files: dict[str, str]) -> list[str]:
    """Every import that does not go down, as one line each."""
    wrong = []
    for module, source in files.items():
        here = package_of(module)
        if here is None:
            wrong.append(f"{module} stands on no floor")
            continue
        for target in sorted(imports(module, source, set(files))):
            there = package_of(target)
            if there is None:
                wrong.append(f"{module} imports {target}, which stands on no floor")
            elif there != here and FLOOR_OF[there] >= FLOOR_OF[here]:
                if {here, there} != {"search.cli", "search.commands"}:  # one floor of two parts
                    wrong.append(f"{module} imports {target}: not downwards")
            elif (here, there) in STRANGERS:
                wrong.append(f"{module} imports {target}: not known here")
    return wrong


def circles(files: dict[str, str]) -> list[str]:
    """Every module that reaches itself by its imports, as one line each (the lists of names in `__init__` do not count)."""
    graph = {
        module: {t for t in imports(module, source, set(files)) if not ROOT.joinpath(*t.split(".")).is_dir()} - {module}
        for module, source in files.items()
        if not ROOT.joinpath(*module.split(".")).is_dir()
    }
    wrong = []
    for module in graph:
        seen, todo = set(), [module]
        while todo:
            for target in graph.get(todo.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        if module in seen:
            wrong.append(f"{module} imports itself through {', '.join(sorted(graph[module] & seen))}")
    return wrong


def test_imports_only_go_down():
    assert violations(sources()) == []


def test_there_is_something_to_check():
    files = sources()
    assert {"perfmodel.workload._graph", "perfmodel.schedule._evaluate", "search"} <= set(files)
    found = imports("perfmodel.cost._columns", files["perfmodel.cost._columns"], set(files))
    assert {"perfmodel.hardware", "perfmodel.workload", "perfmodel.cost._dataflow"} <= found


def test_perfmodel_never_imports_search():
    files = sources()
    found = {m: imports(m, text, set(files)) for m, text in files.items() if m.split(".")[0] == "perfmodel"}
    assert [m for m, targets in found.items() if any(t.split(".")[0] == "search" for t in targets)] == []


@pytest.mark.parametrize("module, line, caught", [
    ("perfmodel.cost._planted", "from ..schedule import Schedule", "perfmodel.schedule"),
    ("perfmodel.cost._planted", "def f():\n    from ..schedule._evaluate import evaluate", "perfmodel.schedule._evaluate"),
    ("perfmodel.cost._planted", "from ..models import load", "perfmodel.models"),
    ("perfmodel.schedule._planted", "from ..models.zoo import BUILDERS", "perfmodel.models.zoo"),
    ("perfmodel.workload._planted", "from ..models import load", "perfmodel.models"),
    ("perfmodel.serving._planted", "from ..training import train", "perfmodel.training"),
    ("perfmodel.workload._planted", "from ..hardware import Chiplets", "perfmodel.hardware"),
    ("perfmodel.hardware._planted", "import perfmodel.workload", "perfmodel.workload"),
    ("perfmodel.models.zoo._planted", "from ... import cost", "perfmodel.cost"),
    ("perfmodel.schedule._planted", "from perfmodel import evaluate", "perfmodel"),
    ("perfmodel.schedule._planted", "import search", "search"),
    ("perfmodel._numerics", "from .workload import KINDS", "perfmodel.workload"),
    ("perfmodel", "from search import explore", "search"),
    ("search._planted", "from .cli import main", "search.cli"),
    ("search._planted", "from .commands import _run", "search.commands._run"),
])  # fmt: skip
def test_checker_catches_a_planted_violation(module, line, caught):
    planted = {**sources(), "search.cli": "", module: line}
    assert [v for v in violations(planted) if v.startswith(f"{module} imports {caught}:")]


@pytest.mark.parametrize("module, line", [
    ("perfmodel.cost._planted", "from ..hardware import System\nfrom .._numerics import fits\nfrom ._tiling import x"),
    ("perfmodel.models.zoo._planted", "from ...workload import merge\nfrom ..._names import unknown_name"),
    ("search.cli", "import perfmodel as pm\nfrom . import explore\nimport numpy"),
])  # fmt: skip
def test_checker_allows_downward_imports(module, line):
    assert violations({**sources(), module: line}) == []


def test_checker_wants_a_floor_for_every_module():
    assert violations({**sources(), "perfmodel._new": ""}) == ["perfmodel._new stands on no floor"]


def test_modules_are_short():
    assert {m: n for m, text in sources().items() if (n := len(text.splitlines())) > LONGEST_MODULE} == {}


def test_no_circles():
    assert circles(sources()) == []


def test_a_circle_is_found():
    planted = {
        **sources(),
        "perfmodel.cost._one": "from ._two import x",
        "perfmodel.cost._two": "def f():\n    from ._three import y",
        "perfmodel.cost._three": "from . import _one",
    }
    found = [line.split()[0] for line in circles(planted) if "cost._" in line]
    assert found == ["perfmodel.cost._one", "perfmodel.cost._two", "perfmodel.cost._three"]
