"""The command line, installed as `gnndrop.cli`: one command per file.

A command parses its options, makes one call of the library, and renders the answer: the result on
stdout, all else on stderr. Nothing here imports torch before a command runs.

Exit codes: 0 all done, 1 a bug, 2 wrong use, 3 some trials failed, 4 data not to be had,
130 interrupted.
"""

if __name__ != "gnndrop.cli":
    raise ImportError("import gnndrop.cli; is the repository root on sys.path?")

import io
import signal
import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from gnndrop.cli._exit import BUG, NO_DATA, WRONG_USE
from gnndrop.cli.bench import bench
from gnndrop.cli.check import check
from gnndrop.cli.compare import compare
from gnndrop.cli.data import data
from gnndrop.cli.describe import describe
from gnndrop.cli.env import env
from gnndrop.cli.list import list_
from gnndrop.cli.recommend import recommend
from gnndrop.cli.report import report
from gnndrop.cli.sweep import sweep
from gnndrop.cli.tune import tune
from gnndrop.cli.uncertainty import uncertainty
from gnndrop.errors import DataError, GnndropError


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(version("gnndrop"))
        raise typer.Exit


def root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Dropout for graph neural networks: which operator helps which graph."""


# Plain help and plain errors: they start in half the time, and can be copied and searched.
app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, callback=root
)
app.command()(compare)
app.command()(uncertainty)
app.command()(bench)
app.command()(sweep)
app.command()(tune)
app.command()(recommend)
app.command("list")(list_)
app.command()(check)
app.command()(env)
app.command()(report)
data.command()(describe)
app.add_typer(data, name="data")


def main() -> None:
    """Run the command line; an error becomes one sentence on stderr and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where ± cannot be written
    # Ended by a scheduler is interrupted, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(prog_name="gnndrop")
    except Exception as error:
        # From the command line itself: the error may have come before the options were parsed.
        if "--debug" in sys.argv:
            traceback.print_exception(error)
        typer.echo(f"Error: {_sentence(error)}", err=True)
        sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    if isinstance(error, DataError):
        return NO_DATA
    return WRONG_USE if isinstance(error, GnndropError) else BUG


def _sentence(error: Exception) -> str:
    if isinstance(error, GnndropError):
        return str(error)
    return (
        f"this is a bug of gnndrop ({type(error).__name__}: {error}); please report it with what "
        "`gnndrop env` prints and the traceback that `--debug` shows"
    )
