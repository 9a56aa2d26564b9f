"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

# Declared so that every command takes it; `gnndrop.cli.main` acts on it.
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

Jobs = Annotated[
    int | None,
    typer.Option(help="Trials at a time, one thread each.", show_default="all cores"),
]
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder with raw files; never written to.", show_default="GNNDROP_DATA, if set"
    ),
]
