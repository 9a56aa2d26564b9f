"""`gnndrop data`: fetch graphs, and look at them."""

from typing import Annotated

import typer

from gnndrop.cli._options import DataRoot, Debug, Json

# Its commands stand in files of their own, or below where they are a few lines.
data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Fetch graphs, and describe them.",
)


@data.command()
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="SPEC...", help="Graphs, as cora or cora:split=geom-gcn.")
    ],
    data_root: DataRoot = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Download the files of graphs, verify and parse them.

    What is here and sound is not downloaded again, so an interrupted fetch is resumed by the same
    command. Afterwards the graphs load without a network, and at once.
    """
    from gnndrop.cli import _render  # the imports that --help can do without
    from gnndrop.datasets import DATASETS, load

    declared = {name: DATASETS.make(name) for name in names}  # wrong use is told before all else
    fetched = []
    for name, declaration in declared.items():
        load(name, data_root)
        files, size = declaration.files, declaration.bytes
        fetched.append({"name": name, "files": len(files), "bytes": size})
        if not json:
            _render.write(f"{name}: {len(files)} files, verified and parsed\n")
    if json:
        _render.write_json({"schema": 1, "fetched": fetched})
