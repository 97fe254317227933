"""The floors of the house, drawn from the imports: a picture and the list in docs/architecture.md, neither of which can age.

A test holds the list against the sources; run this when it says so.
"""

import ast
import sys
from pathlib import Path

TOP = Path(__file__).parent.parent
PAGE, PICTURE = TOP / "docs" / "architecture.md", TOP / "docs" / "images" / "floors.png"
BEGIN, END = "<!-- floors -->", "<!-- /floors -->"
FLOORS = (
    ("perfmodel.workload", "perfmodel.hardware"),
    ("perfmodel.models",),
    ("perfmodel.cost",),
    ("perfmodel.schedule",),
    ("perfmodel.serving", "perfmodel.training", "perfmodel.report"),
    ("perfmodel.calibration", "perfmodel.experts"),
    ("perfmodel.plot",),
    ("search",),
    ("search.commands",),
)
PACKAGES = tuple(name for floor in FLOORS for name in floor)


def package_of(module: str) -> str | None:
    """The longest of `PACKAGES` that a module belongs to."""
    found = [name for name in PACKAGES if module == name or module.startswith(f"{name}.")]
    return max(found, key=len) if found else None


def arrows(top: Path = TOP) -> dict[str, dict[str, int]]:
    """How many files of each package import from each other package."""
    found: dict[str, dict[str, int]] = {name: {} for name in PACKAGES}
    for path in sorted([*top.glob("perfmodel/**/*.py"), *top.glob("search/**/*.py")]):
        parts = path.relative_to(top).with_suffix("").parts
        here = list(parts[:-1])
        mine = package_of(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        reached = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            base = here[: len(here) - node.level + 1] if node.level else []
            module = [*base, *(node.module or "").split(".")] if node.module else base
            for alias in node.names:
                reached.add(package_of(".".join([*module, alias.name])) or package_of(".".join(module)))
        for target in reached - {mine, None}:
            if mine is not None:
                found[mine][target] = found[mine].get(target, 0) + 1
    return found


def listed(found: dict[str, dict[str, int]]) -> str:
    """The list of the page."""
    lines = []
    for floor in reversed(FLOORS):
        for name in floor:
            below = sorted(found[name].items(), key=lambda item: (-PACKAGES.index(item[0]), item[0]))
            lines.append(f"- `{name}` on {', '.join(f'{target} ({n})' for target, n in below) or 'nothing'}")
    return "\n".join(lines)


def between(page: str) -> str:
    """What stands in the page now."""
    return page.split(BEGIN)[1].split(END)[0].strip()


def draw(found: dict[str, dict[str, int]], path: Path) -> None:
    """Floors from the ground up; an arrow for every package that another one imports, as wide as files do."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(9, 8.5))
    at = {}
    for level, floor in enumerate(FLOORS):
        for i, name in enumerate(floor):
            at[name] = ((i + 1) / (len(floor) + 1) * 9, level)
    for name, targets in found.items():
        for target, n in targets.items():
            (x0, y0), (x1, y1) = at[name], at[target]
            bend = 0.0 if abs(y0 - y1) <= 1 else 0.12 * (1 if x0 >= x1 else -1) * abs(y0 - y1) ** 0.5
            ax.annotate(
                "", (x1, y1 + 0.2), (x0, y0 - 0.2),
                arrowprops=dict(arrowstyle="-|>", color="0.45", lw=0.5 + 0.12 * min(n, 20), connectionstyle=f"arc3,rad={bend}", alpha=0.7),
            )  # fmt: skip
    for name, (x, y) in at.items():
        ax.text(
            x,
            y,
            name,
            ha="center",
            va="center",
            fontsize=10,
            bbox=dict(boxstyle="round,pad=0.4", fc="white", ec="black"),
        )
    ax.set(xlim=(0, 9), ylim=(-0.6, len(FLOORS) - 0.4))
    ax.axis("off")
    fig.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(fig)


def main():
    found = arrows()
    page = PAGE.read_text()
    PAGE.write_text(page.replace(between(page), listed(found)))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    draw(found, PICTURE)
    print(listed(found))


if __name__ == "__main__":
    sys.exit(main())
