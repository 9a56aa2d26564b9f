"""`gnndrop compare`: its output, its exit codes, and what survives an interruption."""

import contextlib
import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gnndrop.errors import DivergedError

GNNDROP = str(Path(sys.executable).with_name("gnndrop"))
SMALL = ("-d", "csbm:nodes=60,classes=2,features=4", "-m", "mlp", "-o", "dropout", "--epochs", "2")
QUICK = ("compare", *SMALL, "--seeds", "6", "--jobs", "1")


def test_text_holds_the_graph_the_scores_the_verdicts_and_the_protocol(gnndrop):
    run = gnndrop(*QUICK)
    assert (run.code, run.err) == (0, "")
    assert "\x1b" not in run.out
    assert "HOMOPHILOUS\n" in run.out
    assert "csbm:nodes=60,classes=2,features=4: nodes 60" in run.out
    for measure in ("edge 0.", "node 0.", "adjusted 0.", "edge-insensitive 0."):
        assert measure in " ".join(run.out.split())
    rows = [line.split() for line in run.out.splitlines()]
    assert [row[0] for row in rows if "±" in row] == ["none", "dropout"]
    (verdict,) = (line for line in run.out.splitlines() if line.startswith("- dropout "))
    assert " mlp on csbm:nodes=60,classes=2,features=4: " in verdict
    assert verdict.endswith("6 pairs, on this split.")
    assert "- 6 seeds, seed k on split k mod n; none, dropout:p=0.5\n" in run.out
    assert "- mlp:hidden_channels=64,num_layers=2," in run.out
    assert "Holm over all 1 at 0.05" in run.out
    assert all(line == line.rstrip() for line in run.out.splitlines())


def test_json_is_one_document_with_the_promised_fields(gnndrop):
    run = gnndrop(*QUICK, "--json")
    assert (run.code, run.err) == (0, "")
    document = json.loads(run.out)
    promised = ("schema", "environment", "protocol", "datasets", "cells", "verdicts", "failures")
    assert list(document) == [*promised]
    assert {"name", "nodes", "edges", "homophily"} <= set(document["datasets"][0])
    none, dropout = document["cells"]
    assert [none["operator"], dropout["operator"]] == ["none", "dropout"]
    assert len(dropout["scores"]) == 6
    assert dropout["mean"] == pytest.approx(sum(dropout["scores"]) / 6)
    assert {"model", "metric", "std", "seconds", "status"} <= set(none)
    (verdict,) = document["verdicts"]
    assert verdict["difference"] == pytest.approx(dropout["mean"] - none["mean"])
    assert (verdict["baseline"], verdict["pairs"]) == ("none", 6)


def test_one_seed_is_valid_json(gnndrop):
    run = gnndrop("compare", *SMALL, "--seeds", "1", "--jobs", "1", "--json")
    assert run.code == 0
    assert json.loads(run.out)["cells"][0]["std"] is None


def test_csv_has_a_row_for_each_cell(gnndrop):
    run = gnndrop(*QUICK, "--csv")
    assert (run.code, run.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(run.out)))
    assert [row["operator"] for row in rows] == ["none", "dropout"]
    assert rows[1]["verdict"]


def test_options_reach_the_protocol(gnndrop):
    given = {
        "--rates": "0.1,0.5",
        "--seeds": "2",
        "--splits": "all",
        "--epochs": "3",
        "--patience": "0",
        "--learning-rate": "0.02",
        "--weight-decay": "0",
        "--margin": "0.02",
        "--jobs": "1",
        "--device": "cpu",
    }
    words = [word for pair in given.items() for word in pair]
    run = gnndrop("compare", *SMALL[:-2], *words, "--json")
    assert run.code == 0
    protocol = json.loads(run.out)["protocol"]
    assert protocol["rates"] == [0.1, 0.5]
    assert (protocol["seeds"], protocol["splits"], protocol["margin"]) == (2, "all", 0.02)
    train = protocol["train"]
    assert (train["epochs"], train["patience"]) == (3, 0)
    assert (train["learning_rate"], train["weight_decay"]) == (0.02, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "drop-egde"], "did you mean 'drop-edge'?"),
        (["-d", "csbm-homophilus"], "did you mean 'csbm-homophilous'?"),
        (["-m", "gnc"], "did you mean 'gcn'?"),
        (["-m", "gcn:out_channels=3"], "out_channels"),
        (["-o", "dropout:p=1.5"], "p must be in [0, 1], got 1.5"),
        (["-o", "dropout:p"], "name:key=value"),
        (["-o", "dropout:rate=0.5"], "unknown option 'rate'"),
        (["-o", "dropout", "-o", "dropout"], "once"),
        (["--rates", "1.5"], "rates must be in [0, 1], got 1.5"),
        (["--rates", "some"], "rates must be numbers"),
        (["--rates", "0.1,"], "rates must be numbers"),
        (["--rates", "0.5", "-o", "dropout:p=0.5"], "leave p out"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--seeds", "many"], "--seeds"),
        (["--splits", "some"], "--splits"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--patience", "-1"], "patience must be at least 0"),
        (["--margin", "0"], "margin must be"),
        (["--learning-rate", "inf"], "learning_rate must be"),
        (["--weight-decay", "nan"], "weight_decay must be"),
        (["--jobs", "0"], "jobs must be at least 1"),
        (["--device", "nonsense"], "device must be"),
        (["--json", "--csv"], "exclude each other"),
    ],
)
def test_wrong_use_is_told_before_anything_runs(gnndrop, tmp_path, arguments, message):
    run = gnndrop("compare", *arguments, "--out", str(tmp_path / "run"))
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert "Traceback" not in run.err
    assert not list(tmp_path.rglob("trials/*"))


def test_a_data_folder_that_does_not_exist(gnndrop, tmp_path):
    run = gnndrop("compare", "-d", "cora", "--data-root", str(tmp_path / "nowhere"))
    assert (run.code, run.out) == (4, "")
    assert "csbm-homophilous" in run.err  # a way on


def test_another_configuration_is_refused_in_a_run_folder(gnndrop, tmp_path):
    out = ("--out", str(tmp_path))
    assert gnndrop(*QUICK, *out).code == 0
    run = gnndrop(*QUICK, *out, "--seeds", "7")
    assert run.code == 2
    assert "seeds" in run.err


def test_failed_trials_are_listed_and_the_rest_is_shown(gnndrop, monkeypatch):
    from gnndrop.study import trial

    fit = trial.fit

    def fail_now_and_then(model, data, *arguments, **options):
        if model.training and any(type(part).__name__ == "Dropout" for part in model.modules()):
            raise DivergedError("the loss must be finite, got nan")
        return fit(model, data, *arguments, **options)

    monkeypatch.setattr(trial, "fit", fail_now_and_then)
    run = gnndrop(*QUICK)
    assert run.code == 3
    assert "- dropout in mlp on csbm:nodes=60" in run.out
    assert "seeds 0, 1, 2, 3, 4, 5: the loss must be finite, got nan" in run.out
    assert "none" in run.out


@pytest.fixture
def environment(tmp_path):
    return {**os.environ, "GNNDROP_CACHE": str(tmp_path / "cache")}


def finished(folder: Path) -> dict[str, int]:
    """Return the finished trials in a run folder and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("trials/*.json")}


def interrupt(process: subprocess.Popen, number: int, out: Path) -> int:
    """Signal a process and its workers once two trials are finished; return its exit code."""
    while len(finished(out)) < 2 and process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    os.killpg(process.pid, number)
    return process.wait(60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_resumes_and_ends_as_an_unbroken_one(
    gnndrop, environment, tmp_path, number
):
    out, err = tmp_path / "run", tmp_path / "err"
    # More and longer trials than elsewhere: there must be time to interrupt.
    options = ("compare", *SMALL[:-1], "100", "--seeds", "20", "--json")
    kept = (*options, "--out", str(out))
    with err.open("w") as file:
        process = subprocess.Popen(
            [GNNDROP, *kept, "--jobs", "2"],
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        code = interrupt(process, number, out)
    before = finished(out)
    assert 2 <= len(before) < 40
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 130
        assert "Traceback" not in err.read_text()
        resuming = shlex.split(err.read_text().splitlines()[-1])
        assert resuming == ["gnndrop", *kept, "--jobs", "2"]

    resumed = gnndrop(*kept, "--jobs", "1")
    assert resumed.code == 0
    assert before.items() <= finished(out).items()
    unbroken = gnndrop(*options, "--jobs", "1")
    scores = [
        [cell["scores"] for cell in json.loads(run.out)["cells"]] for run in (resumed, unbroken)
    ]
    assert scores[0] == scores[1]


def test_a_reader_that_goes_is_no_error(environment):
    process = subprocess.Popen(
        [GNNDROP, *QUICK], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_output_that_cannot_be_written_is_told(form):
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [GNNDROP, "env", *form], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert run.returncode == 2
    assert run.stderr.startswith("Error: the output must be writable, got: ")
