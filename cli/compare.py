"""`gnndrop compare`: which operator helps which graph."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gnndrop.cli._options import (
    DataRoot,
    Debug,
    Device,
    Directed,
    Graph,
    Jobs,
    Json,
    LabelCol,
    Nodes,
    SplitCol,
    read_graphs,
)
from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.errors import ParameterError

SOME_FAILED, INTERRUPTED = 3, 130


class Splits(StrEnum):
    """How seeds meet a dataset's splits."""

    DEFAULT = "default"
    ALL = "all"


def compare(
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="SPEC",
            help="A graph; repeatable.",
            show_default="two csbm graphs",
        ),
    ] = None,
    graph: Graph = None,
    nodes: Nodes = None,
    label_col: LabelCol = None,
    split_col: SplitCol = None,
    directed: Directed = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", metavar="SPEC", help="A model; repeatable.", show_default="gcn, mlp"
        ),
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option(
            "--operator",
            "-o",
            metavar="SPEC",
            help="An operator, as drop-edge:p=0.3; repeatable.",
            show_default="the six built-in ones",
        ),
    ] = None,
    rates: Annotated[
        str,
        typer.Option(
            metavar="P,P,...",
            help="Choose each operator's rate from these, on validation; none gets as many tries.",
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = CompareConfig.seeds,
    splits: Annotated[
        Splits, typer.Option(help="One split for each seed in turn, or every seed on all splits.")
    ] = Splits.DEFAULT,
    epochs: Annotated[int, typer.Option(help="Training steps at most.")] = TrainConfig.epochs,
    patience: Annotated[
        int, typer.Option(help="Stop after so many without a better validation score; 0: never.")
    ] = TrainConfig.patience,
    learning_rate: Annotated[float, typer.Option(help="Adam's.")] = TrainConfig.learning_rate,
    weight_decay: Annotated[float, typer.Option(help="Adam's.")] = TrainConfig.weight_decay,
    margin: Annotated[
        float, typer.Option(help="Differences below it are equivalent; 0.01 is one point.")
    ] = CompareConfig.margin,
    jobs: Jobs = None,
    device: Device = CompareConfig.device,
    out: Annotated[
        Path | None,
        typer.Option(help="Keep the run in this folder; the same command resumes it."),
    ] = None,
    data_root: DataRoot = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the cells as CSV.")] = False,
    debug: Debug = False,
) -> None:
    """Compare operators on graphs, with verdicts.

    Every operator is tested against `none`. Without options: six operators in two models on two
    generated graphs, a homophilous and a heterophilous one, which need no data. When a run is
    interrupted, the same command resumes it.
    """
    if json and csv:
        raise ParameterError("--json and --csv exclude each other, got both; give one")
    from gnndrop.cli import _render  # the imports that --help can do without
    from gnndrop.study.protocol import compare as run

    command = shlex.join(["gnndrop", *sys.argv[1:]])
    try:
        own = read_graphs(graph, nodes, label_col, split_col, directed)
        with _render.progress("trials") as on_result:
            comparison = run(
                operator or None,
                [*(dataset or ()), *own] or None,
                model or None,
                seeds,
                splits=splits.value,
                rates=_rates(rates),
                margin=margin,
                train=TrainConfig(epochs, patience, learning_rate, weight_decay),
                jobs=jobs,
                device=device,
                out=out,
                root=data_root,
                command=command,
                on_result=on_result,
            )
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted; finished trials are kept, and this resumes the run:\n  {command}",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    if json:
        _render.write_json(comparison.to_dict())
    elif csv:
        _render.write(comparison.to_csv())
    else:
        _render.write_comparison(comparison)
    if comparison.failures:
        raise typer.Exit(SOME_FAILED)


def _rates(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError:
        raise ParameterError(
            f"rates must be numbers in [0, 1] with commas between, got {text!r}"
        ) from None
