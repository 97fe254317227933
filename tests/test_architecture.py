"""The arrows between the floors of the house: who may import whom, read from the source without running it."""

import ast
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_MODULE = 400
MOST_MODULES = 16  # of a folder
# Folders that are long because what they hold is many.
ONE_FILE_A_THING = {
    "perfmodel/models/zoo": "one file a family of models",
    "search/commands": "one file a command",
    "perfmodel/schedule": "the one evaluator, whose parts are being put together; rooms where they stand still",
}
# What tests may reach into, and why.
NO_LIST = {
    "perfmodel._numerics": "the ground floor stands under all lists",
    "perfmodel.serving._kernel_list": "goes when serving asks the evaluator",
    "perfmodel.serving._kernel_time": "goes when serving asks the evaluator",
    "perfmodel.serving._storage": "goes when serving asks the evaluator",
    "perfmodel.schedule._allocate": "addresses of objects that no workload has at once",
    "perfmodel.schedule._batch": "how often the batched evaluator is traced",
}

# From the ground up. A package imports only itself and what stands on a lower floor; neighbours do not know each other.
FLOORS = [
    {"perfmodel._numerics", "perfmodel._names", "perfmodel._files", "perfmodel._lazy"},
    {"perfmodel._software"},
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


@cache
def import_nodes(source: str) -> list[ast.Import | ast.ImportFrom]:
    """Every import of a source, wherever it stands; read once however many tests ask."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]


@cache
def is_package(module: str) -> bool:
    return ROOT.joinpath(*module.split(".")).is_dir()


@cache
def sources() -> dict[str, str]:
    """Source of every module of the project, by dotted name."""
    found = {}
    for path in sorted([*ROOT.glob("perfmodel/**/*.py"), *ROOT.glob("search/**/*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def imports(module: str, source: str, modules: set[str]) -> set[str]:
    """Modules of the project that `module` imports, anywhere in its source, by absolute name."""
    found = set()
    for node in import_nodes(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            base = node.module or ""
            if node.level:
                here = module.split(".") if is_package(module) else module.split(".")[:-1]
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


def named_imports(module: str, source: str) -> list[tuple[str, str, str]]:
    """(package or module, name in it, name here) of every `from ... import ...` of a module, by absolute name."""
    found = []
    for node in import_nodes(source):
        if isinstance(node, ast.ImportFrom):
            here = module.split(".") if is_package(module) else module.split(".")[:-1]
            above = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [(base, alias.name, alias.asname or alias.name) for alias in node.names]
    return found


def lazy_lists(source: str) -> dict[str, tuple[str, ...]]:
    """Names by module that a list loads only when it is asked for them (`perfmodel._lazy`)."""
    lists = re.search(r"^LISTS = (\{.*?\})( *#.*)?$", source, re.M | re.S)
    return ast.literal_eval(lists.group(1)) if lists else {}


def module_graph(files: dict[str, str]) -> dict[str, set[str]]:
    """Modules that each module imports anything from, looked up through the lists of names in `__init__`."""
    packages = {module for module in files if is_package(module)}
    listed = {p: {here: (base, name) for base, name, here in named_imports(p, files[p])} for p in packages}
    for p in packages:
        listed[p] |= {name: (f"{p}.{module}", name) for module, names in lazy_lists(files[p]).items() for name in names}

    def owner(base: str, name: str, deep: int = 0) -> str | None:
        """The module that defines a name; None: not ours, or a package."""
        if (inner := f"{base}.{name}") in files and inner not in packages:
            return inner
        if base not in packages:
            return base if base in files else None
        return owner(*listed[base][name], deep + 1) if name in listed[base] and deep < 9 else None

    graph = {}
    for module in (m for m in files if m not in packages):
        named = {owner(base, name) for base, name, _ in named_imports(module, files[module])}
        whole = imports(module, files[module], set(files)) & files.keys() - packages
        graph[module] = (named | whole) - {module, None}
    return graph


def reached(graph: dict[str, set[str]], start: Iterable[str]) -> set[str]:
    """Modules that `start` imports, directly or through others."""
    seen, todo = set(), list(start)
    while todo:
        for target in graph.get(todo.pop(), set()) - seen:
            seen.add(target)
            todo.append(target)
    return seen


def circles(files: dict[str, str]) -> list[str]:
    """Every module that reaches itself by its imports, lazy ones, ones for types and ones through a list of names included."""
    graph = module_graph(files)
    wrong = []
    for module in graph:
        seen = reached(graph, [module])
        if module in seen:
            wrong.append(f"{module} imports itself through {', '.join(sorted(graph[module] & seen))}")
    return wrong


def crowded(folders: dict[str, int]) -> list[str]:
    """Folders of more than `MOST_MODULES` modules that have no reason to be."""
    return sorted(f for f, n in folders.items() if n > MOST_MODULES and f not in ONE_FILE_A_THING)


def folder_sizes() -> dict[str, int]:
    """Modules in every folder of the two packages, the list of names not counted."""
    sizes: dict[str, int] = {}
    for path in [*ROOT.glob("perfmodel/**/*.py"), *ROOT.glob("search/**/*.py")]:
        folder = path.parent.relative_to(ROOT).as_posix()
        sizes[folder] = sizes.get(folder, 0) + (path.name != "__init__.py")
    return sizes


def readers() -> dict[str, str]:
    """Source of every test and benchmark, by path; this file plants private imports and is not among them."""
    paths = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
    return {p.relative_to(ROOT).as_posix(): p.read_text() for p in paths if p.resolve() != Path(__file__).resolve()}


def private_uses(source: str) -> set[str]:
    """Private modules and names of the two packages that a file uses: imports, attributes of `pm` and the like, names in strings."""
    found = set()
    roots = {"perfmodel": "perfmodel", "search": "search"}  # what the file calls them
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            roots |= {
                a.asname: a.name for a in node.names if a.asname and a.name.split(".")[0] in ("perfmodel", "search")
            }
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if any(part.startswith("_") for part in node.module.split(".")):
                found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if alias.name.startswith("_")}
        elif isinstance(node, ast.Attribute):
            parts, inner = [node.attr], node.value
            while isinstance(inner, ast.Attribute):
                parts, inner = [inner.attr, *parts], inner.value
            if isinstance(inner, ast.Name) and inner.id in roots:
                found.add(".".join([roots[inner.id], *parts]))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isprintable():
            if all(part.isidentifier() for part in node.value.split(".")):
                found.add(node.value)
    private = re.compile(r"(perfmodel|search)(\.[a-zA-Z]\w*)*\._[a-zA-Z]\w*")  # and nothing of objects: x.y.__name__
    return {match.group() for name in found if (match := private.match(name))}


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


def test_a_circle_through_a_list_is_found():
    planted = {
        **sources(),
        "perfmodel.cost": "from ._one import x as x\nfrom ._columns import CostTable as CostTable",
        "perfmodel.cost._one": "from .nest import x",
        "perfmodel.cost.nest": "from ._two import x as x",
        "perfmodel.cost.nest._two": "from .. import x",
    }
    found = [line.split()[0] for line in circles(planted) if line.split()[0].endswith(("._one", "._two"))]
    assert sorted(found) == ["perfmodel.cost._one", "perfmodel.cost.nest._two"]
    planted["perfmodel.cost"] = 'LISTS = {\n    "_one": ("x",),  # later\n}'
    found = [line.split()[0] for line in circles(planted) if line.split()[0].endswith(("._one", "._two"))]
    assert sorted(found) == ["perfmodel.cost._one", "perfmodel.cost.nest._two"]


def test_folders_are_not_crowded():
    assert crowded(folder_sizes()) == []
    assert set(ONE_FILE_A_THING) == {
        f for f, n in folder_sizes().items() if n > MOST_MODULES
    }  # nothing is excused twice


def test_a_crowded_folder_is_found():
    sizes = folder_sizes()
    assert {"perfmodel/cost", "search/placement/methods/milp"} <= set(sizes)
    assert crowded({**sizes, "perfmodel/cost": MOST_MODULES + 1}) == ["perfmodel/cost"]
    assert crowded({**sizes, "perfmodel/cost": MOST_MODULES}) == []


def test_tests_and_benchmarks_use_the_public_lists():
    found = {name: path for path, source in readers().items() for name in private_uses(source)}
    modules = {
        name: ".".join(name.split(".")[: 1 + next(i for i, p in enumerate(name.split(".")) if p[0] == "_")])
        for name in found
    }
    assert {name: found[name] for name in found if modules[name] not in NO_LIST} == {}
    assert set(NO_LIST) == set(modules.values())  # nothing is excused that nobody does


def test_oracles_know_no_private_module():
    oracles = {path: private_uses(source) for path, source in readers().items() if path.startswith("tests/oracles/")}
    assert len(oracles) > 5 and {path: found for path, found in oracles.items() if found} == {}


@pytest.mark.parametrize("source, found", [
    ("from perfmodel.cost._table import cost_table", "perfmodel.cost._table"),
    ("def f():\n    from perfmodel.calibration import _llm as llm", "perfmodel.calibration._llm"),
    ("import search.placement._bounds", "search.placement._bounds"),
    ("import perfmodel as pm\npm.cost._table.cost_table(w, s)", "perfmodel.cost._table"),
    ("from perfmodel.plot import _COLOURS", "perfmodel.plot._COLOURS"),
    ('monkeypatch.setattr("perfmodel.models.importers._jaxpr._control.MOST_ROWS", 10)', "perfmodel.models.importers._jaxpr"),
])  # fmt: skip
def test_a_private_use_is_found(source, found):
    assert private_uses(source) == {found}


@pytest.mark.parametrize("source", [
    "import perfmodel as pm\nfrom perfmodel.cost import cost_table\nfrom _common import arguments\nx._replace(a=1)\npm.__file__",
    "from search.placement.methods.milp import solve\nfrom perfmodel import models",
])  # fmt: skip
def test_public_uses_are_allowed(source):
    assert private_uses(source) == set()


def stands_on(files: dict[str, str], package: str, below: str) -> bool:
    """Whether modules of `package` import, directly or through others, a module of `below`."""
    graph = module_graph(files)
    return any(m.startswith(f"{below}.") for m in reached(graph, [m for m in graph if m.startswith(f"{package}.")]))


@pytest.mark.parametrize("use", ["perfmodel.serving", "perfmodel.training", "perfmodel.experts"])
@pytest.mark.xfail(strict=True, reason="these have roofs of their own until their numbers come out of `evaluate`")
def test_uses_stand_on_schedule(use):
    assert stands_on(sources(), use, "perfmodel.schedule")


def test_what_stands_on_schedule_is_found():
    files = sources()
    assert stands_on(files, "perfmodel.report", "perfmodel.schedule")
    assert not stands_on(files, "perfmodel.cost", "perfmodel.schedule")
    planted = {**files, "perfmodel.serving._planted": "def f():\n    from ..schedule import evaluate"}
    assert stands_on(planted, "perfmodel.serving", "perfmodel.schedule")


def test_the_page_of_the_house_is_what_the_imports_are():
    """docs/architecture.md lists them; `python benchmarks/floors.py` writes it anew."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import floors
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert floors.between(page) == floors.listed(floors.arrows())
    assert "`perfmodel.schedule` on perfmodel.cost" in page


def test_no_two_test_files_of_one_name():
    """pytest imports them by their names alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
