"""Collects the README: its Python blocks run, and its `$ gnndrop` lines too."""

import shlex
import subprocess
import sys
from pathlib import Path

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser


def _run_console(example: Example) -> None:
    """Run the lines of a console block that begin with a prompt, as a user would."""
    for line in example.parsed.splitlines():
        if line.startswith("$ gnndrop "):
            script = Path(sys.executable).with_name("gnndrop")
            command = [str(script), *shlex.split(line)[2:]]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stderr}"


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser("console", _run_console)],
    pattern="README.md",
).pytest()
