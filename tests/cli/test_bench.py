"""`gnndrop bench`: suites by name and by file."""

import importlib
import importlib.abc
import json
import shlex
import sys

import pytest

from gnndrop.errors import DivergedError

TEXT = """
title = "Tiny"
description = "Does dropout help?"
budget = "1 second"
notes = ["A note."]
[[comparison]]
name = "plain"
note = "as it is"
datasets = ["csbm:nodes=60,classes=2,features=4"]
models = ["mlp"]
operators = ["dropout"]
seeds = 6
train = {epochs = 2}
[[comparison]]
name = "deep"
against = "plain"
datasets = ["csbm:nodes=60,classes=2,features=4", "cora"]
models = ["mlp:num_layers=3"]
operators = ["dropout"]
seeds = 6
train = {epochs = 2}
[[published]]
comparison = "plain"
dataset = "csbm:nodes=60,classes=2,features=4"
model = "mlp"
operator = "dropout"
value = 10.0
spread = 1.0
margin = 1.0
source = "https://example.org, table 1"
differs = "in everything"
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tiny.toml"
    file.write_text(TEXT)
    return str(file)


def test_text_holds_the_tables_the_published_the_factors_and_what_was_left_out(gnndrop, path):
    run = gnndrop("bench", path, "--jobs", "1")
    assert run.code == 0
    assert run.err == "plain: 12 trials\ndeep: 12 trials\n"
    assert "plain: as it is\n" in run.out
    assert run.out.count("Verdicts:") == 2
    (published,) = (line for line in run.out.splitlines() if "10.00 ± 1.00" in line)
    assert published.endswith("differs")
    assert "- https://example.org, table 1\n" in run.out
    assert "- plain: in everything\n" in run.out
    assert "deep     plain" in run.out
    assert "- cora in deep: " in run.out
    assert "- A note.\n" in run.out
    assert "--seeds" not in run.out


def test_json_is_one_document_and_out_keeps_it(gnndrop, path, tmp_path):
    run = gnndrop("bench", path, "--jobs", "1", "--seeds", "2", "--json", "--out", "kept")
    assert run.code == 0
    document = json.loads(run.out)
    results = document.pop("results")
    assert document.pop("assessments") == {}
    study = json.loads((tmp_path / "kept" / "study.json").read_text())
    assert study.pop("assessments") == []
    assert document == study
    assert document["command"].startswith("gnndrop bench ")
    assert results["plain"] == json.loads((tmp_path / "kept" / "plain" / "result.json").read_text())
    again = gnndrop("bench", path, "--jobs", "1", "--seeds", "2", "--out", "kept")
    assert "4 of them found finished" in again.err
    assert "With --seeds 2, in the place of the suite's own number" in again.out
    refused = gnndrop("bench", path, "--jobs", "1", "--seeds", "3", "--out", "kept")
    assert refused.code == 2
    assert "choose another folder" in refused.err
    assert "got --seeds 3 for kept, which was run with --seeds 2" in refused.err


def test_a_dry_run_counts_and_runs_nothing(gnndrop, path, tmp_path):
    run = gnndrop("bench", path, "--dry-run", "--jobs", "1", "--out", "kept")
    assert (run.code, run.err) == (0, "")
    rows = [line.split() for line in run.out.splitlines() if line]
    assert [row[:2] for row in rows[1:4]] == [["plain", "12"], ["deep", "12"], ["all", "24"]]
    assert "An estimate" in run.out
    assert "- cora in deep: " in run.out
    assert not (tmp_path / "kept").exists()
    document = json.loads(gnndrop("bench", path, "--dry-run", "--jobs", "1", "--json").out)
    assert [one["trials"] for one in document["comparisons"]] == [12, 12]


def test_list_names_the_built_in_suites(gnndrop):
    run = gnndrop("bench", "--list")
    assert (run.code, run.err) == (0, "")
    entries = {
        entry["name"]: entry for entry in json.loads(gnndrop("bench", "--list", "--json").out)
    }
    assert {"quick", "homophily", "depth", "published", "contradiction"} <= set(entries)
    for name, entry in entries.items():
        assert name in run.out
        assert entry["title"]
        assert "2 cores" in entry["budget"]


def test_copy_writes_a_suite_to_edit_and_never_over_a_file(gnndrop, path, tmp_path):
    run = gnndrop("bench", "--copy", "quick")
    assert (run.code, run.out) == (0, "")
    assert "gnndrop bench quick.toml" in run.err
    text = (tmp_path / "quick.toml").read_text()
    assert "[[comparison]]" in text
    (tmp_path / "quick.toml").write_text("mine")
    run = gnndrop("bench", "--copy", "quick")
    assert run.code == 2
    assert (tmp_path / "quick.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "bench needs one of a suite, --list and --copy NAME"),
        (["quick", "--list"], "bench needs one of"),
        (["quik"], "did you mean 'quick'?"),
        (["--copy", "quik"], "did you mean 'quick'?"),
        (["quick", "--out", "-"], "--out must be a folder, got '-', which stands for stdout"),
        (["zzz"], "a suite must be a built-in name or the path of a .toml file, got 'zzz'"),
        (["nowhere.toml"], "a suite must be a text file"),
        (["quick", "--jobs", "0"], "jobs must be at least 1"),
        (["quick", "--dry-run", "--jobs", "0"], "jobs must be at least 1"),
        (["quick", "--seeds", "0"], "seeds must be at least 1"),
        (["quick", "--dry-run", "--seeds", "0"], "seeds must be at least 1"),
    ],
)
def test_wrong_use_is_told(gnndrop, path, arguments, message):
    run = gnndrop("bench", *arguments)
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert "Traceback" not in run.err


def test_a_typo_in_a_suite_names_the_line(gnndrop, tmp_path):
    file = tmp_path / "typo.toml"
    file.write_text(TEXT.replace('["dropout"]', '["dropout", "drop-egde"]', 1))
    run = gnndrop("bench", str(file))
    assert run.code == 2
    assert f"{file}, line 11: unknown operator 'drop-egde', did you mean 'drop-edge'?" in run.err


def test_without_any_graph_the_exit_code_says_data(gnndrop, tmp_path):
    file = tmp_path / "far.toml"
    file.write_text(TEXT.replace("csbm:nodes=60,classes=2,features=4", "citeseer"))
    run = gnndrop("bench", str(file), "--data-root", str(tmp_path / "nowhere"))
    assert (run.code, run.out) == (4, "")
    dry = gnndrop("bench", str(file), "--data-root", str(tmp_path / "nowhere"), "--dry-run")
    assert dry == run


def test_failed_trials_make_the_exit_code(gnndrop, monkeypatch, path):
    from gnndrop.study import trial

    def fail(*arguments, **options):
        raise DivergedError("the loss must be finite, got nan")

    monkeypatch.setattr(trial, "fit", fail)
    run = gnndrop("bench", path, "--jobs", "1", "--seeds", "2")
    assert run.code == 3
    assert "the loss must be finite, got nan" in run.out


def test_an_interruption_tells_how_to_resume(gnndrop, monkeypatch, path):
    from gnndrop.study import trial

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(trial, "fit", interrupt)
    run = gnndrop("bench", path, "--jobs", "1", "--out", "kept")
    assert run.code == 130
    assert run.err.splitlines()[-1].strip() == f"gnndrop bench {path} --jobs 1 --out kept"


ASSESSMENT = """
[[uncertainty]]
name = "worth"
note = "what it is worth"
datasets = ["csbm:nodes=60,classes=2,features=4"]
models = ["mlp"]
operators = ["dropout"]
seeds = 2
samples = 3
members = 2
train = {epochs = 2}
"""


def test_an_assessment_stands_beside_the_comparisons(gnndrop, path, tmp_path):
    (tmp_path / "tiny.toml").write_text(TEXT + ASSESSMENT)
    run = gnndrop("bench", path, "--jobs", "1", "--out", "kept")
    assert run.code == 0
    assert run.err == "plain: 12 trials\ndeep: 12 trials\nworth: 4 trials\n"
    assert "\nworth: what it is worth\n====" in run.out
    after = run.out[run.out.index("worth: what it is worth") :]
    assert "ensemble" in after
    assert "Verdict" in after
    document = json.loads(gnndrop("bench", path, "--jobs", "1", "--out", "kept", "--json").out)
    assert list(document["results"]) == ["plain", "deep"]
    kept = json.loads((tmp_path / "kept" / "worth" / "result.json").read_text())
    assert document["assessments"] == {"worth": kept}
    page = gnndrop("report", "kept", "--out", "page.html")
    assert page.code == 0
    assert "not shown: kept/worth/result.json" in (tmp_path / "page.html").read_text()


def test_a_suite_of_assessments_alone(gnndrop, path, tmp_path):
    (tmp_path / "tiny.toml").write_text(TEXT[: TEXT.index("[[comparison]]")] + ASSESSMENT)
    dry = json.loads(gnndrop("bench", path, "--dry-run", "--jobs", "1", "--json").out)
    assert (dry["comparisons"], dry["assessments"][0]["trials"]) == ([], 4)
    text = gnndrop("bench", path, "--dry-run", "--jobs", "1").out
    assert "the time to sample them is left out" in text
    assert gnndrop("bench", path, "--jobs", "1", "--out", "kept").code == 0
    page = gnndrop("report", "kept")
    assert (page.code, page.out) == (2, "")
    assert "read kept/worth/result.json" in page.err
    assert "gnndrop uncertainty --plot" in page.err
    assert "Traceback" not in page.err


def test_failed_models_make_the_exit_code(gnndrop, monkeypatch, path, tmp_path):
    from gnndrop.study import uncertainty_trial

    def fail(*arguments, **options):
        raise DivergedError("the loss must be finite, got nan")

    monkeypatch.setattr(uncertainty_trial, "fit", fail)
    (tmp_path / "tiny.toml").write_text(TEXT[: TEXT.index("[[comparison]]")] + ASSESSMENT)
    run = gnndrop("bench", path, "--jobs", "1")
    assert run.code == 3
    assert "the loss must be finite, got nan" in run.out


@pytest.mark.parametrize(
    "command",
    [
        ("sweep", "--rates", "0.5", "--out"),
        ("tune", "--trials", "1", "--selection-seeds", "1", "--out"),
        ("uncertainty", "--samples", "2", "--members", "1", "--out-dir"),
    ],
)
def test_the_run_of_another_command_is_no_report(gnndrop, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    small = ("-d", "csbm:nodes=60,classes=2,features=4", "-m", "mlp", "--epochs", "2")
    asked = (*command, "kept", *small, "-o", "dropout", "--seeds", "2", "--jobs", "1")
    first = gnndrop(*asked)
    assert first.code == 0
    run = gnndrop("report", "kept")
    assert (run.code, run.out) == (2, "")
    assert f"needs a run of compare or bench, got one of gnndrop {asked[0]} in kept" in run.err
    assert run.err.count("\n") == 1
    # The message holds the command that shows it: nothing runs again.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").glob("trials/*")}
    again = gnndrop(*shlex.split(run.err.partition(" run this again: gnndrop ")[2]))
    assert again == first
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "kept").glob("trials/*")} != {}


def test_comparisons_without_graphs_are_said_to_lack_them(gnndrop, path, tmp_path):
    comparison = TEXT[: TEXT.index("[[published]]")].replace(
        "csbm:nodes=60,classes=2,features=4", "citeseer"
    )
    (tmp_path / "tiny.toml").write_text(comparison + ASSESSMENT)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    options = ("--jobs", "1", "--out", "kept", "--data-root", str(mirror))
    assert gnndrop("bench", path, *options).code == 0
    page = gnndrop("report", "kept")
    assert (page.code, page.out) == (2, "")
    start = (
        "Error: a report needs a comparison with a finished trial, got none in kept: plain, cite"
    )
    assert page.err.startswith(start)
    assert "0 of 0" not in page.err
    assert "; read kept/worth/result.json" in page.err
    assert page.err.count("\n") == 1


def test_a_suite_that_has_just_begun_has_no_report(gnndrop, monkeypatch, path):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("gnndrop.study.trial.fit", interrupt)
    assert gnndrop("bench", path, "--jobs", "1", "--out", "kept").code == 130
    page = gnndrop("report", "kept")
    assert page.code == 2
    assert "got none in kept: plain: no trial is finished; run its command again" in page.err


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (("bench", "quick"), "gnndrop.study.bench"),
        (("compare",), "gnndrop.study.protocol"),
        (("sweep",), "gnndrop.study.sweep"),
        (("tune",), "gnndrop.study.tune"),
        (("uncertainty",), "gnndrop.study.uncertainty"),
    ],
)
def test_an_interruption_of_the_imports_tells_how_to_resume(gnndrop, monkeypatch, command, module):
    class Interrupted(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == module:
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, module, raising=False)
    package, name = module.rsplit(".", 1)
    monkeypatch.delattr(importlib.import_module(package), name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    run = gnndrop(*command)
    assert (run.code, run.out) == (130, "")
    assert run.err.splitlines()[-1].strip() == " ".join(("gnndrop", *command))
