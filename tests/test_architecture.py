"""Imports point one way, are absolute, and name the module that defines."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

# A room may import from the rooms of the lines above its own, and from itself.
FLOORS = [
    {"errors"},
    {"registry", "config", "compilation", "optimizer"},
    {"datasets"},
    {"masks"},
    {"graph"},
    {"inputs", "prepared"},
    {"kernels"},
    {"attention", "batch_norm", "linear"},
    {"operators", "propagation"},
    {"attach", "metrics", "init"},
    {"models"},
    {"training", "theory", "uncertainty"},
    {"testing"},
    {"study"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    """Return every module by its import name, from the folders that setuptools maps."""
    return {
        ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts)): path
        for package, folder in SETUPTOOLS["package-dir"].items()
        for path in (ROOT / folder).rglob("*.py")
    }


def imports(path: Path) -> list[str]:
    """Return the modules that a file imports, relative imports with their dots."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append("." * node.level + (node.module or ""))
    return found


def test_the_files_are_found() -> None:
    assert {"gnndrop.registry", "gnndrop.cli.compare", "gnndrop.datasets.__init__"} <= set(
        modules()
    )


@pytest.mark.parametrize("name", sorted(set(modules()) - {"gnndrop.__init__"}))
def test_imports_point_one_way(name: str) -> None:
    room = name.split(".")[1]
    for imported in imports(modules()[name]):
        assert not imported.startswith("."), f"{name} imports {imported}, must be absolute"
        top, _, rest = imported.partition(".")
        assert top not in ("cli", "datasets"), f"{name} imports {imported} by its folder's name"
        if top == "gnndrop":
            assert rest, f"{name} must import from the module that defines, not from gnndrop"
            below = rest.split(".")[0]
            assert below == room or LEVEL[below] < LEVEL[room], f"{name} must not import {imported}"


def test_datasets_need_the_registry_and_errors_alone() -> None:
    allowed = ("gnndrop.datasets", "gnndrop.registry", "gnndrop.errors")
    for name, path in modules().items():
        if name.startswith("gnndrop.datasets."):
            ours = [one for one in imports(path) if one.startswith("gnndrop")]
            assert all(one.startswith(allowed) for one in ours), f"{name} imports {ours}"
