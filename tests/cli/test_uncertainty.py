"""`gnndrop uncertainty`: its output, its files, its exit codes, and what an interruption leaves."""

import contextlib
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gnndrop.models import GCN

GNNDROP = str(Path(sys.executable).with_name("gnndrop"))
GRAPH = "csbm:nodes=60,classes=2,features=4"
BASE = ("uncertainty", "-d", GRAPH, "--samples", "4", "--epochs", "2", "--members", "2")
QUICK = (*BASE, "--jobs", "1", "--seeds", "6", "-o", "dropout")


def test_text_holds_the_table_the_verdicts_the_sites_and_the_protocol(gnndrop):
    run = gnndrop(*QUICK)
    assert (run.code, run.err) == (0, "")
    assert "\x1b" not in run.out
    rows = [line.strip() for line in run.out.splitlines()]
    for method in ("softmax", "energy", "temperature", "ensemble", "MC dropout"):
        assert any(row.startswith(f"{method} ") for row in rows), method
    assert any(row.startswith("- For calibration (ECE) MC dropout (") for row in rows)
    assert any(
        row.startswith("- For finding errors (AUROC) MC dropout by its mutual") for row in rows
    )
    assert any(row.startswith("- Random sites: dropout:p=0.5 at ") for row in rows)
    assert any(row.startswith("distance to train") for row in rows)
    assert "ECE: 15 bins of equal width" in run.out
    assert "Holm over all 30 at 0.05" in run.out
    assert all(line == line.rstrip() for line in run.out.splitlines())


def test_several_operators_make_one_table_for_each_graph(gnndrop):
    run = gnndrop(*BASE, "--seeds", "1", "--jobs", "1", "-o", "dropout", "-o", "drop-edge")
    assert run.code == 0
    table = run.out.partition("Verdict")[0].splitlines()
    assert [line.strip() for line in table if line.startswith(" drop")] == ["dropout", "drop-edge"]
    assert run.out.count("Verdict: MC dropout with ") == 2


def test_json_is_one_document_with_the_promised_fields(gnndrop):
    run = gnndrop(*QUICK, "--json")
    assert (run.code, run.err) == (0, "")
    document = json.loads(run.out)
    promised = ("schema", "environment", "protocol", "datasets", "cells", "verdicts", "strata")
    assert list(document) == [*promised, "facts", "failures"]
    assert (document["schema"], document["protocol"]["bins"]) == (1, 15)
    cells = {(one["method"], one["score"], one["task"]): one for one in document["cells"]}
    ece = cells["mc-dropout", "", "ece"]
    assert len(ece["scores"]) == 6
    assert ece["mean"] == pytest.approx(sum(ece["scores"]) / 6)
    verdict = next(
        one for one in document["verdicts"] if (one["task"], one["baseline"]) == ("ece", "softmax")
    )
    assert verdict["difference"] == pytest.approx(ece["mean"] - cells["softmax", "", "ece"]["mean"])
    assert {"by", "group", "nodes", "ranked", "ece"} <= set(document["strata"][0])


def test_nodes_are_written_whole(gnndrop, tmp_path):
    out = tmp_path / "nodes.csv"
    out.write_text("before")
    assert gnndrop(*QUICK, "--out", str(out)).code == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["node"]) for row in rows] == list(range(60))
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    for row in rows:
        probs = [float(row["probability_0"]), float(row["probability_1"])]
        assert sum(probs) == pytest.approx(1)
        assert int(row["prediction"]) == probs.index(max(probs))
        assert float(row["confidence"]) == max(probs)
        assert float(row["mutual_information"]) == pytest.approx(
            float(row["entropy"]) - float(row["expected_entropy"]), abs=1e-9
        )
    assert [path.name for path in tmp_path.glob("*.csv*")] == ["nodes.csv"]


def test_nodes_to_stdout_stand_alone(gnndrop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gnndrop(*QUICK, "--out", "nodes.csv", "--out-dir", "run").code == 0
    run = gnndrop(*QUICK, "--out", "-", "--out-dir", "run")
    assert (run.code, run.err) == (0, "")
    with (tmp_path / "nodes.csv").open(newline="") as file:
        assert run.out == file.read()
    assert not (tmp_path / "-").exists()


def test_figures_are_drawn(gnndrop, tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "figures"
    assert gnndrop(*QUICK, "--plot", str(folder)).code == 0
    drawn = sorted(path.name.rpartition("dropout-")[2] for path in folder.iterdir())
    assert drawn == ["graph.png", "homophily.png", "reliability.png", "risk-coverage.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())


def test_a_large_graph_is_drawn_around_its_most_uncertain_node(gnndrop, tmp_path):
    pytest.importorskip("matplotlib")
    large = ("uncertainty", "-d", "csbm:nodes=2100,classes=2,features=4", *QUICK[3:])
    assert gnndrop(*large, "--seeds", "1", "--plot", str(tmp_path / "figures")).code == 0
    assert len(list((tmp_path / "figures").glob("*-graph.png"))) == 1


def test_a_checkpoint_is_one_model_without_an_ensemble(gnndrop, tmp_path):
    path = tmp_path / "weights.pt"
    with torch.random.fork_rng():
        torch.save(GCN(4, 64, out_channels=2).state_dict(), path)
    run = gnndrop(
        "uncertainty", "-d", GRAPH, "-o", "drop-edge", "--checkpoint", str(path), "--jobs", "1"
    )
    assert run.code == 0
    assert "weights of a checkpoint, SHA-256 " in run.out
    assert "ensemble" not in run.out.replace("deep ensemble", "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--samples", "1"], 2, "samples must be at least 2, got 1"),
        (["-o", "none"], 2, "operators must all drop something"),
        (["-o", "dropout:p=0"], 2, "the model must have a random site, got none"),
        (["-o", "drop-egde"], 2, "did you mean 'drop-edge'?"),
        (["-m", "gnc"], 2, "did you mean 'gcn'?"),
        (["-d", "csbm-homophilus"], 2, "did you mean 'csbm-homophilous'?"),
        (["--seeds", "0"], 2, "seeds must be in 1 to"),
        (["--members", "0"], 2, "members must be in 1 to"),
        (["--jobs", "0"], 2, "jobs must be at least 1"),
        (["--risk", "2"], 2, "risk must be a share of errors"),
        (["--margin", "0"], 2, "margin must be"),
        (["--epochs", "0"], 2, "epochs must be at least 1"),
        (["--device", "nonsense"], 2, "device must be"),
        (["--out", "nowhere/nodes.csv"], 2, "--out must be a file in a folder that exists"),
        (["--plot", "-"], 2, "--plot must be a folder, got '-'"),
        (["--json", "--out", "-"], 2, "--json and --out - exclude each other"),
        (["--plot", "pyproject.toml/figures"], 2, "--plot must be a folder"),
        (["--checkpoint", "nowhere.pt"], 4, "a checkpoint must be a file that can be read"),
        (["-d", "cora", "--data-root", "nowhere"], 4, "nowhere"),
    ],
)
def test_wrong_use_is_told_before_anything_runs(gnndrop, tmp_path, arguments, code, message):
    run = gnndrop("uncertainty", *arguments, "--out-dir", str(tmp_path / "run"))
    assert (run.code, run.out) == (code, "")
    assert message in run.err
    assert run.err.count("\n") == 1
    assert not list(tmp_path.rglob("*.npz"))


def test_another_configuration_is_refused_in_a_run_folder(gnndrop, tmp_path):
    out = ("--out-dir", str(tmp_path))
    assert gnndrop(*QUICK, *out).code == 0
    run = gnndrop(*QUICK, *out, "--members", "3")
    assert run.code == 2
    assert "members" in run.err


def test_failed_models_are_listed_and_the_rest_is_shown(gnndrop, monkeypatch):
    from gnndrop.errors import DivergedError
    from gnndrop.study import uncertainty_trial

    def fail(*_, **__):
        raise DivergedError("the loss must be finite, got nan")

    monkeypatch.setattr(uncertainty_trial, "fit", fail)
    run = gnndrop(*QUICK)
    assert run.code == 3
    assert "seeds 0, 1, 2, 3, 4, 5: the loss must be finite, got nan" in run.out


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interruption_while_sampling_leaves_nothing_half_written(gnndrop, tmp_path, jobs):
    out, nodes, err = tmp_path / "run", tmp_path / "nodes.csv", tmp_path / "err"
    # Sampling takes nearly all of the time.
    asked = (*BASE[:3], "--samples", "500", "--epochs", "2", "--members", "1", "--seeds", "40")
    asked = (*asked, "-o", "drop-edge", "--out-dir", str(out), "--out", str(nodes))
    with err.open("w") as file:
        process = subprocess.Popen(
            [GNNDROP, *asked, "--jobs", jobs],
            env={**os.environ, "GNNDROP_CACHE": str(tmp_path / "cache")},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while len(list(out.glob("trials/*.json"))) < 2 and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    text = err.read_text()
    assert "Traceback" not in text
    resuming = next(line for line in text.splitlines() if line.startswith("  gnndrop "))
    assert shlex.split(resuming) == ["gnndrop", *asked, "--jobs", jobs]
    assert not nodes.exists()
    done = {path.stem for path in out.glob("trials/*.json")}
    assert 2 <= len(done) < 40
    assert done <= {path.stem for path in out.glob("outputs/*.npz")}
