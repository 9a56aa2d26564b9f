"""How a command ends: its exit codes, and what Ctrl-C leaves."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

BUG, WRONG_USE, SOME_FAILED, NO_DATA, INTERRUPTED = 1, 2, 3, 4, 130


@contextmanager
def resumable(unit: str) -> Iterator[str]:
    """Tell what resumes the run where Ctrl-C ends it.

    The imports that --help can do without belong inside, too: they take seconds in which a key may
    be pressed.

    Args:
        unit: what of the run is kept, as trials.

    Yields:
        The command line, which resumes the run.

    Raises:
        typer.Exit: if it is interrupted.
    """
    command = shlex.join(["gnndrop", *sys.argv[1:]])
    try:
        yield command
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted; finished {unit} are kept, and this resumes the run:\n  {command}",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
