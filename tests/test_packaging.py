"""What is installed is what stands in the tree, under the one import name `gnndrop`."""

import fnmatch
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
MAPPED = {package: ROOT / folder for package, folder in SETUPTOOLS["package-dir"].items()}


def folders() -> dict[str, Path]:
    """Return every folder with an `__init__.py` by the name of the package that it must become."""
    return {
        ".".join((package, *path.parent.relative_to(root).parts)): path.parent
        for package, root in MAPPED.items()
        for path in root.rglob("__init__.py")
    }


def test_the_listed_packages_are_the_folders() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders())


def test_every_data_file_is_installed() -> None:
    for package, folder in folders().items():
        patterns = SETUPTOOLS["package-data"].get(package, [])
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns), path


def test_the_distribution_has_one_import_name_and_one_command() -> None:
    distribution = importlib.metadata.distribution("gnndrop")
    assert (distribution.read_text("top_level.txt") or "").split() == ["gnndrop"]
    assert distribution.version == PYPROJECT["project"]["version"]
    (command,) = distribution.entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("gnndrop", "gnndrop.cli:main")


@pytest.mark.parametrize("folder", ["cli", "datasets"])
def test_the_mapped_folders_refuse_their_bare_names(folder: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert f"ImportError: import gnndrop.{folder};" in run.stderr


def test_the_constraints_pin_torch_and_pyg() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    assert {"torch", "torch-geometric"} <= set(pins)


def test_types_and_licence_are_shipped() -> None:
    assert (ROOT / "gnndrop" / "py.typed").is_file()
    assert all((ROOT / name).is_file() for name in PYPROJECT["project"]["license-files"])
