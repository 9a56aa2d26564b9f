"""`gnndrop report`: a run as a page to read, or as tables."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gnndrop.cli._options import STDOUT, DataRoot, Debug


class Format(StrEnum):
    """What a report is written in."""

    HTML = "html"
    MARKDOWN = "md"
    LATEX = "latex"
    CSV = "csv"


SUFFIXES = {Format.HTML: "html", Format.MARKDOWN: "md", Format.LATEX: "tex", Format.CSV: "csv"}


def report(
    run: Annotated[Path, typer.Argument(help="Run folder of compare --out or bench --out.")],
    format_: Annotated[
        Format, typer.Option("--format", help="A page, or the tables alone.")
    ] = Format.HTML,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write; - is stdout.", show_default="RUN/report.<format>"),
    ] = None,
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Write what a run found: verdicts, tables, figures, failures, provenance.

    The page loads nothing and opens from disk. A run that was interrupted is reported as far as
    it went, and says so. The path of the file is printed.
    """
    from gnndrop.cli import _render  # the imports that --help can do without
    from gnndrop.study.document import render_report, write_report

    if out == STDOUT:
        _render.write(render_report(run, format_.value, root=data_root))
        return
    path = out or run / f"report.{SUFFIXES[format_]}"
    write_report(run, path, format_.value, root=data_root)
    _render.write(f"{path}\n")
