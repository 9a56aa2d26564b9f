"""`gnndrop uncertainty`: what Monte-Carlo dropout is worth."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gnndrop.cli._exit import SOME_FAILED, resumable
from gnndrop.cli._options import (
    STDOUT,
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
    check_folder,
    read_graphs,
    spec_option,
)
from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.errors import ParameterError

SEEDS, MEMBERS = CompareConfig.seeds, 5


def uncertainty(
    dataset: Annotated[
        Specs, spec_option("dataset", "A graph; repeatable.", "two csbm graphs")
    ] = None,
    graph: Graph = None,
    nodes: Nodes = None,
    label_col: LabelCol = None,
    split_col: SplitCol = None,
    directed: Directed = False,
    model: Annotated[Specs, spec_option("model", "A model; repeatable.", "gcn")] = None,
    operator: Annotated[
        Specs,
        spec_option(
            "operator", "What is random, as drop-edge:p=0.3; repeatable.", "dropout, drop-edge"
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Monte-Carlo samples of each model.")] = 100,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Number of seeds; seed k uses split k mod n.",
            show_default=f"{SEEDS}, of a checkpoint 1",
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(
            help="Models of the deep ensemble; 1: none.",
            show_default=f"{MEMBERS}, of a checkpoint 1",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Weights to take instead of training: torch.save(model.state_dict(), FILE).",
            show_default=False,
        ),
    ] = None,
    risk: Annotated[
        float, typer.Option(help="Share of errors wished for among the nodes nobody looks at.")
    ] = 0.1,
    epochs: Epochs = TrainConfig.epochs,
    patience: Patience = TrainConfig.patience,
    learning_rate: AdamNumber = TrainConfig.learning_rate,
    weight_decay: AdamNumber = TrainConfig.weight_decay,
    selection: Annotated[
        str,
        typer.Option(
            metavar="loss|metric",
            help="Keep the weights of the lowest validation loss, or of the best metric: early "
            "epochs, which are not sure enough.",
        ),
    ] = "loss",
    scale_features: Annotated[
        bool,
        typer.Option(
            "--scale-features/--raw-features",
            help="Scale the rows of bag-of-words features to sum one, or take them as they are.",
        ),
    ] = True,
    margin: Margin = CompareConfig.margin,
    jobs: Jobs = None,
    device: Device = CompareConfig.device,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write every node of the first seed to this CSV file: predictions, measures, "
            "whom a person should look at; - is stdout, in the place of the tables.",
            show_default=False,
        ),
    ] = None,
    out_dir: RunFolder = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw figures of the first seed into this folder.",
            callback=check_folder,
            show_default=False,
        ),
    ] = None,
    data_root: DataRoot = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn what Monte-Carlo dropout is good for, and whether less would do.

    Trains models with an operator, samples them with it on, and compares the mean with the plain
    softmax, its energy, temperature scaling and a deep ensemble: calibration, selective prediction,
    finding errors. When a run is interrupted, the same command resumes it.
    """
    alone = checkpoint is not None
    file = None if out == STDOUT else out
    if out == STDOUT and json:
        raise ParameterError("--json and --out - exclude each other, got both; name a file")
    with resumable("models") as command:
        from gnndrop.cli import _render, _uncertainty_plot, _uncertainty_text
        from gnndrop.study.files import write_text
        from gnndrop.study.uncertainty import assess_uncertainty
        from gnndrop.study.uncertainty_nodes import nodes_csv

        if file is not None:
            _check_file(file)
        if plot is not None:
            _uncertainty_plot.check_folder(plot)
        own = read_graphs(graph, nodes, label_col, split_col, directed)
        with _render.progress("models") as on_result:
            assessment = assess_uncertainty(
                operator or None,
                [*(dataset or ()), *own] or None,
                model or None,
                seeds if seeds is not None else 1 if alone else SEEDS,
                samples=samples,
                members=members if members is not None else 1 if alone else MEMBERS,
                risk=risk,
                margin=margin,
                train=TrainConfig(
                    epochs, patience, learning_rate, weight_decay, scale_features, selection
                ),
                checkpoint=checkpoint,
                jobs=jobs,
                device=device,
                out=out_dir,
                root=data_root,
                command=command,
                on_result=on_result,
            )
        if out == STDOUT:
            _render.write(nodes_csv(assessment.nodes, risk))
        elif json:
            _render.write_json(assessment.study.to_dict())
        else:
            _uncertainty_text.write_study(assessment.study)
        # Last: whatever happens to the files, the result is told.
        if file is not None:
            write_text(file, nodes_csv(assessment.nodes, risk))
        if plot is not None:
            _uncertainty_plot.draw(plot, assessment.nodes)
    if assessment.study.failures:
        raise typer.Exit(SOME_FAILED)


def _check_file(path: Path) -> None:
    """Make sure that a file can be written there, before anything is trained."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ParameterError(
            f"--out must be a file in a folder that exists and can be written to, got {path}; "
            "choose another"
        )
