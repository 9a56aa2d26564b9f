"""`gnndrop compare`: which operator helps which graph."""

from enum import StrEnum
from typing import Annotated

import typer

from gnndrop.cli._exit import SOME_FAILED, resumable
from gnndrop.cli._options import (
    AdamNumber,
    DataRoot,
    Debug,
    Device,
    Directed,
    Epochs,
    Graph,
    Jobs,
    Json,
    LabelCol,
    Margin,
    Nodes,
    Patience,
    RunFolder,
    Specs,
    SplitCol,
    read_graphs,
    spec_option,
)
from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.errors import ParameterError


class Splits(StrEnum):
    """How seeds meet a dataset's splits."""

    DEFAULT = "default"
    ALL = "all"


def compare(
    dataset: Annotated[
        Specs, spec_option("dataset", "A graph; repeatable.", "two csbm graphs")
    ] = None,
    graph: Graph = None,
    nodes: Nodes = None,
    label_col: LabelCol = None,
    split_col: SplitCol = None,
    directed: Directed = False,
    model: Annotated[Specs, spec_option("model", "A model; repeatable.", "gcn, mlp")] = None,
    operator: Annotated[
        Specs,
        spec_option(
            "operator", "An operator, as drop-edge:p=0.3; repeatable.", "the six built-in ones"
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
    epochs: Epochs = TrainConfig.epochs,
    patience: Patience = TrainConfig.patience,
    learning_rate: AdamNumber = TrainConfig.learning_rate,
    weight_decay: AdamNumber = TrainConfig.weight_decay,
    margin: Margin = CompareConfig.margin,
    jobs: Jobs = None,
    device: Device = CompareConfig.device,
    out: RunFolder = None,
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
    with resumable("trials") as command:
        from gnndrop.cli import _render
        from gnndrop.study.protocol import compare as run
        from gnndrop.study.sweep import read_numbers

        own = read_graphs(graph, nodes, label_col, split_col, directed)
        with _render.progress("trials") as on_result:
            comparison = run(
                operator or None,
                [*(dataset or ()), *own] or None,
                model or None,
                seeds,
                splits=splits.value,
                rates=read_numbers(rates, "rates"),
                margin=margin,
                train=TrainConfig(epochs, patience, learning_rate, weight_decay),
                jobs=jobs,
                device=device,
                out=out,
                root=data_root,
                command=command,
                on_result=on_result,
            )
    if json:
        _render.write_json(comparison.to_dict())
    elif csv:
        _render.write(comparison.to_csv())
    else:
        _render.write_comparison(comparison)
    if comparison.failures:
        raise typer.Exit(SOME_FAILED)
