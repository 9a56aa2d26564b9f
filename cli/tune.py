"""`gnndrop tune`: every operator tuned with equal effort, judged on fresh seeds."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from gnndrop.cli._options import DataRoot, Debug, Device, Jobs, Json
from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.errors import ParameterError

SOME_FAILED, INTERRUPTED = 3, 130
DATASET_BY_DEFAULT, MODEL_BY_DEFAULT = "csbm-homophilous", "gcn"


def tune(
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset", "-d", metavar="SPEC", help="A graph.", show_default=DATASET_BY_DEFAULT
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="SPEC",
            help="A model; width and depth are searched.",
            show_default=MODEL_BY_DEFAULT,
        ),
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option(
            "--operator",
            "-o",
            metavar="SPEC",
            help="An operator without its rate; repeatable.",
            show_default="dropout, drop-node, drop-edge, drop-message",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials of each search.")] = 20,
    selection_seeds: Annotated[
        int, typer.Option(help="Trainings of a trial; their mean validation score counts.")
    ] = 2,
    seeds: Annotated[int, typer.Option(help="Fresh seeds for what was found.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the searches.")] = 0,
    epochs: Annotated[int, typer.Option(help="Training steps at most.")] = TrainConfig.epochs,
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
    debug: Debug = False,
) -> None:
    """Tune operators and none with equal effort.

    Learning rate, weight decay, width and depth are searched for each, and the rate where there is
    one: the same space, the same number of trials, on validation alone. What was found is trained
    on fresh seeds and tested against the tuned none. Needs Optuna: pip install 'gnndrop[tune]'.
    When a run is interrupted, the same command resumes it.
    """
    # Lists, since of an option that is no list the last one given would win without a word.
    for option, given in (("--dataset", dataset), ("--model", model)):
        if given and len(given) > 1:
            raise ParameterError(
                f"tune must be given one {option}, got {len(given)}; run it once for each"
            )
    command = shlex.join(["gnndrop", *sys.argv[1:]])
    try:  # what --help can do without, here: it takes seconds in which a key may be pressed
        from gnndrop.cli import _render
        from gnndrop.study import tune as study

        with _render.progress("trainings") as on_result:
            found = study.tune(
                dataset[0] if dataset else DATASET_BY_DEFAULT,
                model[0] if model else MODEL_BY_DEFAULT,
                operator or study.OPERATORS_BY_DEFAULT,
                trials=trials,
                selection_seeds=selection_seeds,
                seeds=seeds,
                seed=seed,
                margin=margin,
                train=TrainConfig(epochs),
                jobs=jobs,
                device=device,
                out=out,
                root=data_root,
                command=command,
                on_result=on_result,
            )
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted; finished trainings are kept, and this resumes the run:\n  {command}",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    if json:
        _render.write_json(found.to_dict())
    else:
        _render.write(f"{found}\n")
    if found.comparison.failures:
        raise typer.Exit(SOME_FAILED)
