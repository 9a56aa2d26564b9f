"""`gnndrop tune`: its output and its exit codes."""

import json
import shlex

import pytest

SMALL = ("--epochs", "2", "--seeds", "2", "--jobs", "1", "-d", "csbm:nodes=60,classes=2,features=4")
QUICK = ("tune", *SMALL, "-o", "dropout", "--trials", "2", "--selection-seeds", "1")


def test_text_and_json(gnndrop, tmp_path):
    arguments = (*QUICK, "--out", str(tmp_path))
    run = gnndrop(*arguments)
    assert (run.code, run.err) == (0, "")
    assert run.out.splitlines()[0].split() == ["operator", "test", "validation", "found"]
    assert "2 trials for each, 1 seeds a trial" in run.out
    again = gnndrop(*arguments, "--json")
    assert (again.code, again.err) == (0, "")
    document = json.loads(again.out)
    promised = ("schema", "environment", "protocol", "datasets", "cells", "verdicts", "failures")
    assert {*promised, "tuned", "space", "note"} <= set(document)
    assert [one["operator"] for one in document["tuned"]] == ["none", "dropout"]
    assert document["tuned"][1]["spec"] in run.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "trials must be at least 1"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["-o", "drop-egde"], "did you mean 'drop-edge'?"),
        (["-o", "dropout:p=0.5"], "leave p out"),
        (["-m", "gcn:num_layers=3"], "leave num_layers out"),
        (["-m", "gnc"], "did you mean 'gcn'?"),
        (["-d", "csbm-homophilus"], "did you mean 'csbm-homophilous'?"),
        (["--jobs", "0"], "jobs must be at least 1"),
        (["-d", "karate", "-d", "cora"], "tune must be given one --dataset, got 2"),
        (["-m", "gcn", "-m", "mlp"], "tune must be given one --model, got 2"),
    ],
)
def test_wrong_use_is_told_before_anything_runs(gnndrop, tmp_path, arguments, message):
    run = gnndrop("tune", *arguments, "--out", str(tmp_path / "run"))
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert "Traceback" not in run.err
    assert not list(tmp_path.rglob("trials/*"))


def test_without_optuna_it_is_wrong_use(gnndrop, monkeypatch):
    monkeypatch.setattr("gnndrop.study.tune.find_spec", lambda name: None)
    run = gnndrop(*QUICK)
    assert (run.code, run.out) == (2, "")
    assert "pip install 'gnndrop[tune]'" in run.err


def test_an_interrupted_search_tells_how_to_resume(gnndrop, monkeypatch, tmp_path):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("gnndrop.study.trial.fit", interrupt)
    arguments = (*QUICK, "--out", str(tmp_path))
    run = gnndrop(*arguments)
    assert (run.code, run.out) == (130, "")
    assert shlex.split(run.err.splitlines()[-1]) == ["gnndrop", *arguments]
