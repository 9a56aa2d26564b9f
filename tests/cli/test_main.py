"""Errors become exit codes and one sentence; the help is there at once."""

import importlib.metadata
import subprocess
import sys

import pytest

from gnndrop.errors import DataError, UnknownNameError

ERRORS = [
    (UnknownNameError("unknown operator 'x', choose from none"), 2),
    (DataError("the file must be there"), 4),
    (ZeroDivisionError("division by zero"), 1),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_an_error_is_one_sentence_and_its_exit_code(gnndrop, monkeypatch, error, code):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("gnndrop.study.protocol.compare", fail)
    run = gnndrop("compare")
    assert (run.code, run.out) == (code, "")
    assert run.err.startswith("Error: ")
    assert str(error) in run.err
    assert run.err.count("\n") == 1
    assert ("this is a bug" in run.err) == (code == 1)

    debug = gnndrop("compare", "--debug")
    assert (debug.code, debug.out) == (code, "")
    assert debug.err.startswith("Traceback")
    assert str(error) in debug.err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["compare", "--nonsense"], ["list"], ["list", "nonsense"]]
)
def test_a_command_line_that_cannot_be_read_is_wrong_use(gnndrop, arguments):
    run = gnndrop(*arguments)
    assert (run.code, run.out) == (2, "")
    assert "Error: " in run.err
    assert "Traceback" not in run.err


@pytest.mark.parametrize(
    ("command", "option"),
    [("compare", "--out"), ("sweep", "--out"), ("tune", "--out"), ("uncertainty", "--out-dir")],
)
def test_a_run_is_not_kept_in_stdout(gnndrop, monkeypatch, tmp_path, command, option):
    monkeypatch.chdir(tmp_path)
    run = gnndrop(command, option, "-")
    assert (run.code, run.out) == (2, "")
    message = f"Error: {option} must be a folder, got '-', which stands for stdout; give another\n"
    assert run.err == message
    assert list(tmp_path.iterdir()) == []


def test_version(gnndrop):
    assert gnndrop("--version") == (0, f"{importlib.metadata.version('gnndrop')}\n", "")


@pytest.mark.parametrize("command", ["", "compare", "list", "check", "env"])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys; from gnndrop.cli import app\n"
        f"try: app({[*command.split(), '--help']!r}, prog_name='gnndrop')\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: gnndrop" in run.stdout
    assert set(run.stderr.split()).isdisjoint({"torch", "numpy", "scipy", "joblib", "rich"})
