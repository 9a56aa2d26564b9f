"""The options that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gnndrop.errors import ParameterError

if TYPE_CHECKING:
    from gnndrop.datasets import Dataset

STDOUT = Path("-")
Specs = list[str] | None


def spec_option(name: str, help: str, default: str | bool) -> Any:
    """Return the option for specs of datasets, models or operators; its letter is its first.

    A list even where a command takes one: else the last one given would win without a word.

    Args:
        name: its name.
        help: what a spec names.
        default: what the help shows as the default; False for none.
    """
    return typer.Option(f"--{name}", f"-{name[0]}", metavar="SPEC", help=help, show_default=default)


RatelessOperators = Annotated[
    Specs,
    spec_option(
        "operator",
        "An operator without its rate; repeatable.",
        "dropout, drop-node, drop-edge, drop-message",
    ),
]


def only(command: str, option: str, given: Specs, default: str) -> str:
    """Return the one spec of an option.

    Raises:
        ParameterError: if there are several.
    """
    if given and len(given) > 1:
        raise ParameterError(
            f"{command} must be given one {option}, got {len(given)}; run it once for each"
        )
    return given[0] if given else default


def check_folder(option: typer.CallbackParam, folder: Path | None) -> Path | None:
    """Refuse what means stdout in the place of a file.

    Raises:
        ParameterError: if the folder is `-`.
    """
    if folder == STDOUT:
        raise ParameterError(
            f"{option.opts[0]} must be a folder, got '-', which stands for stdout; give another"
        )
    return folder


# How a model is trained; the defaults are those of `TrainConfig`.
Epochs = Annotated[int, typer.Option(help="Training steps at most.")]
Patience = Annotated[
    int, typer.Option(help="Stop after so many without a better validation score; 0: never.")
]
AdamNumber = Annotated[float, typer.Option(help="Adam's.")]

Margin = Annotated[
    float, typer.Option(help="Differences below it are equivalent; 0.01 is one point.")
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        help="Keep the run in this folder; the same command resumes it.",
        callback=check_folder,
        show_default=False,
    ),
]

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

# A graph of the user's own: a command takes all five and passes them to `read_graphs`.
Graph = Annotated[
    list[Path] | None,
    typer.Option(
        "--graph",
        "-g",
        help="A graph of your own: .pt, .npz, .graphml, .gml, or .csv (its edges); repeatable.",
        show_default=False,
    ),
]
Nodes = Annotated[
    Path | None,
    typer.Option(
        help="CSV file of the nodes of a .csv graph: id, label, and columns of numbers.",
        show_default=False,
    ),
]
LabelCol = Annotated[
    str | None,
    typer.Option(help="Column or attribute with a node's label.", show_default="label"),
]
SplitCol = Annotated[
    str | None,
    typer.Option(
        help="Column or attribute with train, val or test.", show_default="ten random splits"
    ),
]
Directed = Annotated[
    bool, typer.Option("--directed", help="Keep the edges of a .csv or .npz graph one-way.")
]


def read_graphs(
    paths: Sequence[Path] | None,
    nodes: Path | None,
    label_col: str | None,
    split_col: str | None,
    directed: bool,
) -> "list[Dataset]":
    """Read the user's own graphs; the options hold for each of them.

    Raises:
        ParameterError: if there are options and no graph, or for what `read_graph` raises.
        DataError: for what `read_graph` raises.
    """
    if not paths:
        if nodes or label_col or split_col or directed:
            raise ParameterError(
                "--nodes, --label-col, --split-col and --directed belong to --graph, got no --graph"
            )
        return []
    from gnndrop.datasets import read_graph  # what --help can do without

    return [
        read_graph(path, nodes=nodes, label_col=label_col, split_col=split_col, directed=directed)
        for path in paths
    ]
