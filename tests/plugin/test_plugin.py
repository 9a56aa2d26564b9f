"""A third party's package, installed as its users would: listed, checked, trained; or named."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "package"
COMMAND = "from gnndrop.cli import main; main()"
CHECKS = """
import gnndrop, torch
from gnndrop import testing
from gnndrop.operators import OPERATORS

testing.SAMPLES = 300
checks = testing.check_operator("drop-source:p=0.3")
print(len(checks), all(check.passed for check in checks))
print(OPERATORS.broken["drop-broken"])
print(OPERATORS.broken["dropout"])
print(gnndrop.Dropout is OPERATORS["dropout"])
try:
    OPERATORS.make("drop-broken")
except gnndrop.GnndropError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a folder of its own, without a network."""
    if not all(map(importlib.util.find_spec, ("pip", "setuptools"))):
        pytest.skip("needs pip and setuptools, which build and install the package")
    copy = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "package")
    target: Path = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
    subprocess.run([*pip, str(target), str(copy)], check=True, capture_output=True)
    return target


def run(site: Path, tmp_path: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    places = {"PYTHONPATH": str(site), "GNNDROP_CACHE": str(tmp_path)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **places},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def test_it_is_listed_and_the_broken_one_is_named(site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, COMMAND, "list", "operators", "--json")
    assert done.returncode == 0, done.stderr
    entries = {entry["name"]: entry for entry in json.loads(done.stdout)["operators"]}
    assert {"dropout", "drop-source"} <= set(entries)
    assert "drop-broken" not in entries
    ours = entries["drop-source"]
    assert (ours["site"], ours["axes"], ours["source"]) == ("features", ["node"], "an example.")
    assert ours["options"] == {"p": 0.5, "share": "layer", "rescale": "inverse"}
    broken, taken = sorted(done.stderr.splitlines())
    assert broken.startswith(
        "The plug-in of operator 'drop-broken' is broken: ModuleNotFoundError: "
    )
    assert taken.startswith("The plug-in of operator 'dropout' is broken: ")


def test_it_keeps_the_contract_and_the_broken_one_says_why(site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, CHECKS)
    assert done.returncode == 0, done.stderr
    outcome, reason, taken, is_ours, error = done.stdout.splitlines()
    clauses, passed = outcome.split()
    assert int(clauses) > 15
    assert passed == "True"
    assert "'dropout'" in taken
    assert is_ours == "True"
    assert reason == "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"
    assert error.startswith(f"unknown operator 'drop-broken' (its plug-in is broken: {reason})")


def test_it_trains_in_a_comparison(site: Path, tmp_path: Path) -> None:
    graph = "csbm:nodes=60,classes=2,homophily=0.8"
    options = ["-d", graph, "-m", "gcn", "-o", "drop-source:p=0.2", "--seeds", "2"]
    done = run(
        site, tmp_path, COMMAND, "compare", *options, "--epochs", "3", "--jobs", "1", "--json"
    )
    assert done.returncode == 0, done.stderr
    none, ours = json.loads(done.stdout)["cells"]
    assert (none["operator"], ours["operator"]) == ("none", "drop-source:p=0.2")
    assert ours["status"] == none["status"]
    assert len(ours["scores"]) == 2
