"""The public names: complete, sorted, imported at their first use."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import gnndrop
import gnndrop.datasets

HEAVY = ("torch", "torch_geometric", "numpy", "scipy", "sklearn", "numba", "networkx", "rich")


def isort_style(name: str) -> tuple[bool, str]:
    """Constants first, then classes, then functions: how ruff sorts `__all__`."""
    return (not name.isupper(), name)


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.mark.parametrize("module", [gnndrop, gnndrop.datasets])
def test_all_is_sorted_and_resolves(module: object) -> None:
    names = module.__all__
    assert names == sorted(set(names), key=isort_style)
    for name in names:
        assert getattr(module, name) is not None
        assert name in dir(module)


def test_names_come_from_the_module_that_defines_them() -> None:
    for name, home in gnndrop._HOMES.items():
        assert getattr(gnndrop, name) is getattr(importlib.import_module(home), name)


def test_static_tools_see_the_same_names() -> None:
    """The twin under TYPE_CHECKING, the table of homes and `__all__` say the same."""
    tree = ast.parse(Path(gnndrop.__file__).read_text())
    twin = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert twin == gnndrop._HOMES
    assert set(twin) == set(gnndrop.__all__)


def test_a_function_wins_over_the_module_of_its_name() -> None:
    assert (
        python("import gnndrop.attach, gnndrop; print(type(gnndrop.attach).__name__)") == "function"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'gnndrop' has no attribute 'no_such_name'"):
        _ = gnndrop.no_such_name


@pytest.mark.parametrize("module", ["gnndrop", "gnndrop.cli", "gnndrop.config", "gnndrop.registry"])
def test_importing_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])"
    assert python(code) == ""


def test_version_is_that_of_the_distribution() -> None:
    assert gnndrop.__version__ == importlib.metadata.version("gnndrop")
