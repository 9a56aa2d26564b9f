"""`gnndrop data fetch` brings graphs here, says what is missing, and goes on where it stopped."""

import json

import pytest

from gnndrop.datasets import DATASETS, _files


def test_what_is_here_is_said(gnndrop):
    run = gnndrop("data", "fetch", "karate", "digits:k=3")
    assert (run.code, run.err) == (0, "")
    assert run.out.splitlines() == [
        "karate: 0 files, verified and parsed",
        "digits:k=3: 0 files, verified and parsed",
    ]


def test_a_mirror_will_do(gnndrop, root_with):
    root = root_with("cora")
    run = gnndrop("data", "fetch", "cora", "--data-root", str(root), "--json")
    assert (run.code, run.err) == (0, "")
    (schema, fetched) = json.loads(run.out).values()
    assert schema == 1
    assert fetched == [{"name": "cora", "files": 8, "bytes": DATASETS.make("cora").bytes}]


def test_wrong_names_are_told_before_anything_is_fetched(gnndrop, monkeypatch):
    monkeypatch.setattr(_files, "_download", lambda *_: pytest.fail("tried to download"))
    run = gnndrop("data", "fetch", "cora", "coar")
    assert (run.code, run.out) == (2, "")
    assert "did you mean 'cora'" in run.err


@pytest.mark.parametrize("name", [name for name in DATASETS if not DATASETS.make(name).is_offline])
def test_without_network_each_name_says_why_not_in_a_sentence(gnndrop, name):
    run = gnndrop("data", "fetch", name)
    assert (run.code, run.out) == (4, "")
    (line,) = run.err.splitlines()
    assert line.startswith(f"Error: {name}: ")
    assert "no connection to raw.githubusercontent.com" in line
    assert _files.manifest()[DATASETS.make(name).files[0]].url.rpartition("/")[0] in line


def test_what_came_before_a_failure_is_kept(gnndrop):
    run = gnndrop("data", "fetch", "karate", "cora")
    assert run.code == 4
    assert run.out == "karate: 0 files, verified and parsed\n"


def test_nothing_asked_is_wrong_use(gnndrop):
    assert gnndrop("data", "fetch").code == 2
