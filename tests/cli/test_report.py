"""`gnndrop report`: from a run that the command line made to files of every format."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

SMALL = (
    *("compare", "-d", "csbm:nodes=60,classes=2,features=4", "-m", "mlp", "-o", "dropout"),
    *("--epochs", "2", "--jobs", "1"),
)


@pytest.fixture
def run(gnndrop, tmp_path):
    """The folder of a run of six seeds, and what `compare` printed of it."""
    folder = tmp_path / "run"
    finished = gnndrop(*SMALL, "--seeds", "6", "--out", str(folder), "--json")
    assert finished.code == 0
    return folder, json.loads(finished.out)


def test_every_format(gnndrop, run, tmp_path):
    folder, printed = run
    first = {}
    for name, suffix in (("html", "html"), ("md", "md"), ("latex", "tex"), ("csv", "csv")):
        finished = gnndrop("report", str(folder), "--format", name)
        path = folder / f"report.{suffix}"
        assert (finished.code, finished.out, finished.err) == (0, f"{path}\n", "")
        first[name] = path.read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(first["csv"])))
    assert [float(row["mean"]) for row in rows] == [cell["mean"] for cell in printed["cells"]]
    assert [row["verdict"] for row in rows[1:]] == [one["verdict"] for one in printed["verdicts"]]
    assert all(f"{100 * cell['mean']:.1f} ±" in first["html"] for cell in printed["cells"])
    other = tmp_path / "other.html"
    assert gnndrop("report", str(folder), "--out", str(other)).out == f"{other}\n"
    assert other.read_text(encoding="utf-8") == first["html"]
    # A report in the run folder disturbs neither the run nor the next report.
    assert gnndrop(*SMALL, "--seeds", "6", "--out", str(folder), "--json").code == 0
    gnndrop("report", str(folder))
    assert (folder / "report.html").read_text(encoding="utf-8") == first["html"]


def test_a_dash_is_stdout(gnndrop, run, tmp_path, monkeypatch):
    folder, _ = run
    monkeypatch.chdir(tmp_path)
    for name, suffix in (("html", "html"), ("md", "md"), ("latex", "tex"), ("csv", "csv")):
        gnndrop("report", str(folder), "--format", name)
        printed = gnndrop("report", str(folder), "--format", name, "--out", "-")
        assert (printed.code, printed.err) == (0, "")
        with (folder / f"report.{suffix}").open(encoding="utf-8", newline="") as file:
            assert printed.out == file.read()
    assert not (tmp_path / "-").exists()


def test_an_unfinished_run(gnndrop, run):
    folder, _ = run
    for path in sorted((folder / "trials").iterdir())[:5]:
        path.unlink()
    assert gnndrop("report", str(folder)).code == 0
    assert "Unfinished: 7 of 12 trials." in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (None, ("--format", "pdf"), "'html', 'md', 'latex', 'csv'"),
        (None, ("--out", "{folder}/config.json/page.html"), "the report must be writable"),
        (None, ("--out", "{folder}"), "the report must be writable"),
        ({"schema": 7}, (), "must have the schema 1, got 7"),
        ({"config": {}}, (), "must be as gnndrop wrote them"),
        ({"data": {"csbm:nodes=60,classes=2,features=4": "?"}}, (), "must read the data that its"),
    ],
)
def test_wrong_use(gnndrop, run, change, arguments, message):
    folder, _ = run
    if change:
        config = json.loads((folder / "config.json").read_text())
        config.pop("graphs", None)
        (folder / "config.json").write_text(json.dumps({**config, **change}))
    given = [argument.format(folder=folder) for argument in arguments]
    finished = gnndrop("report", str(folder), *given)
    assert (finished.code, finished.out) == (2, "")
    assert message in " ".join(finished.err.split())
    assert "Traceback" not in finished.err
    assert not list(folder.glob("report.*"))


def test_a_folder_that_is_no_run(gnndrop, tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        finished = gnndrop("report", str(folder))
        assert finished.code == 2
        assert finished.err.startswith("Error: a report needs a folder that holds a run, got ")
        assert finished.err.count("\n") == 1


def test_an_empty_run(gnndrop, run):
    folder, _ = run
    for path in (folder / "trials").iterdir():
        path.unlink()
    finished = gnndrop("report", str(folder))
    assert finished.code == 2
    assert "needs a trial that is finished, got 0 of 12" in finished.err


def test_help_needs_no_torch():
    code = (
        "import sys; from gnndrop.cli import main; sys.argv = ['gnndrop', 'report', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'jinja2', 'scipy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "COLUMNS": "80"}
    command = [sys.executable, "-c", code]
    end = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert end.stdout.endswith("[]\n")
    assert "--format" in end.stdout
