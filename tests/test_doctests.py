"""The examples in the docstrings run, and every public name has one."""

import doctest
import importlib
import inspect
import tomllib
from pathlib import Path

import pytest

import gnndrop
import gnndrop.datasets

ROOT = Path(__file__).parent.parent
FOLDERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]

# By import name and from the folders' own file lists: crawling a package's path does not see the
# folders that setuptools maps into it.
MODULES = sorted(
    ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for package, folder in FOLDERS.items()
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", [*gnndrop.__all__, *gnndrop.datasets.__all__])
def test_every_public_name_has_an_example(name: str) -> None:
    home = gnndrop if name in gnndrop.__all__ else gnndrop.datasets
    value = getattr(home, name)
    if inspect.isclass(value) and issubclass(value, Exception):
        assert inspect.getdoc(value)
    elif callable(value):
        assert ">>>" in (inspect.getdoc(value) or ""), f"{name} has no example"
