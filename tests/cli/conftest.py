"""How the tests run the command line: in this process, or as a user does."""

import sys
from typing import NamedTuple

import pytest

from gnndrop.cli import main


class Finished(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def gnndrop(monkeypatch, capsys, tmp_path):
    """Return a function that runs the command line in this process, with a cache of its own."""
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GNNDROP_DATA", raising=False)

    def run(*arguments: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["gnndrop", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return Finished(end.value.code, *capsys.readouterr())

    return run
