"""Listings say what the registries hold."""

import json

import pytest

from gnndrop.datasets import DATASETS
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS

REGISTRIES = {"operators": OPERATORS, "datasets": DATASETS, "models": MODELS}


def options(kind, name):
    """Return the options that a spec may set: a model's output size is the dataset's."""
    every = REGISTRIES[kind].options(name)
    return {option: default for option, default in every.items() if option != "out_channels"}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_entry_is_listed(gnndrop, kind):
    run = gnndrop("list", kind, "--json")
    assert (run.code, run.err) == (0, "")
    (schema, entries) = json.loads(run.out).values()
    assert schema == 1
    assert [entry["name"] for entry in entries] == list(REGISTRIES[kind])
    for entry in entries:
        assert entry["summary"]
        assert entry["options"] == options(kind, entry["name"])


@pytest.mark.parametrize("kind", REGISTRIES)
def test_the_text_names_every_entry_and_option_within_80_columns(gnndrop, monkeypatch, kind):
    monkeypatch.setenv("COLUMNS", "80")
    run = gnndrop("list", kind)
    assert (run.code, run.err) == (0, "")
    assert max(map(len, run.out.splitlines())) <= 80
    for name in REGISTRIES[kind]:
        assert any(line.split(" ")[0] == name for line in run.out.splitlines())
        assert all(option in run.out for option in options(kind, name))


def test_datasets_say_what_they_are(gnndrop):
    entries = json.loads(gnndrop("list", "datasets", "--json").out)["datasets"]
    cora = next(entry for entry in entries if entry["name"] == "cora")
    assert (cora["nodes"], cora["features"], cora["classes"]) == (2708, 1433, 7)
    assert (cora["homophily"], cora["splits"], cora["bytes"]) == (0.81, 1, 572_444)
    assert not cora["is_offline"]
    assert not cora["is_here"]
    assert cora["files"]


def test_a_broken_plug_in_is_told_on_stderr(gnndrop, monkeypatch):
    monkeypatch.setitem(OPERATORS.broken, "mine", "ImportError: no module named mine")
    run = gnndrop("list", "operators")
    assert run.code == 0
    assert "'mine' is broken: ImportError: no module named mine" in run.err


def row(out, name):
    """Return the cells of a graph in the table."""
    return next(line for line in out.splitlines() if line.split(" ")[0] == name).split()


def test_the_table_says_what_there_is_to_know(gnndrop):
    out = gnndrop("list", "datasets").out
    assert out.split("\n")[0].split() == [
        *("name", "nodes", "edges", "features", "classes", "homophily", "splits", "files"),
    ]
    assert row(out, "cora") == ["cora", "2708", "10556", "1433", "7", "0.81", "1", "0.6", "MB"]
    assert row(out, "questions")[-2:] == ["?", "MB"]
    assert row(out, "karate")[-1] == "none"
    assert row(out, "csbm")[2] == "random"
    assert row(out, "wikics")[5] == "?"


@pytest.mark.parametrize("place", ["GNNDROP_DATA", "GNNDROP_CACHE"])
def test_what_is_here_is_marked(gnndrop, monkeypatch, tmp_path, place):
    *most, last = DATASETS.make("cora").files
    for file in most:
        (tmp_path / "place" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "place" / file).touch()
    monkeypatch.setenv(place, str(tmp_path / "place"))
    assert row(gnndrop("list", "datasets").out, "cora")[-2:] == ["0.6", "MB"]
    (tmp_path / "place" / last).touch()
    assert row(gnndrop("list", "datasets").out, "cora")[-1] == "here"
    assert row(gnndrop("list", "datasets").out, "texas")[-1] == "MB"
