"""`gnndrop recommend`: which operator and rate to use on a graph, within a time budget."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from gnndrop.cli._exit import INTERRUPTED
from gnndrop.cli._options import (
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
    Specs,
    SplitCol,
    only,
    read_graphs,
    spec_option,
)
from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.errors import ParameterError

if TYPE_CHECKING:
    from gnndrop.datasets import Dataset


def recommend(
    dataset: Annotated[Specs, spec_option("dataset", "A graph.", False)] = None,
    graph: Graph = None,
    nodes: Nodes = None,
    label_col: LabelCol = None,
    split_col: SplitCol = None,
    directed: Directed = False,
    model: Annotated[Specs, spec_option("model", "A model.", "gcn")] = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="What it may take: 90s, 5m, 1h30m.")
    ] = "5m",
    operator: Annotated[
        Specs,
        spec_option("operator", "A candidate without its rate; repeatable.", "five built-in ones"),
    ] = None,
    rates: Annotated[
        str,
        typer.Option(
            metavar="P,P,...", help="Rates of the candidates.", show_default="0.1,0.3,0.5,0.7"
        ),
    ] = "",
    epochs: Epochs = TrainConfig.epochs,
    margin: Margin = CompareConfig.margin,
    jobs: Jobs = None,
    device: Device = CompareConfig.device,
    data_root: DataRoot = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which operator and rate to use on a graph, how sure that is, and when to use none.

    Half of the budget finds two candidates on validation, the other half tests them against none
    on fresh seeds. Ctrl-C ends it early, with what there is.
    """
    began = time.monotonic()
    from gnndrop.cli import _render  # the imports that --help can do without
    from gnndrop.study import recommend as study
    from gnndrop.study.sweep import read_numbers

    asked_model = only("recommend", "--model", model, "gcn")
    seconds = study.read_duration(budget)
    asked_rates = read_numbers(rates, "rates") or study.RATES_BY_DEFAULT
    try:
        own = read_graphs(graph, nodes, label_col, split_col, directed)
        asked: list[str | Dataset] = [*(dataset or ()), *own]
        if len(asked) != 1:
            raise ParameterError(
                f"a recommendation is for one graph, got {len(asked)}; give one --dataset or "
                "one --graph"
            )
        with _render.progress("seconds") as on_result:
            found = study.recommend(
                asked[0],
                asked_model,
                seconds,
                spent=time.monotonic() - began,
                operators=operator or study.OPERATORS_BY_DEFAULT,
                rates=asked_rates,
                margin=margin,
                train=TrainConfig(epochs),
                jobs=jobs,
                device=device,
                root=data_root,
                on_time=lambda gone, whole: on_result(int(gone), int(whole), gone),
            )
    except KeyboardInterrupt:
        typer.echo("Interrupted before anything was trained.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if json:
        _render.write_json(found.to_dict())
    else:
        _render.write(f"{found}\n\n{found.details()}\n")
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)
