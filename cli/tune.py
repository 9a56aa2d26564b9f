"""`gnndrop tune`: every operator tuned with equal effort, judged on fresh seeds."""

from typing import Annotated

import typer

from gnndrop.cli._exit import SOME_FAILED, resumable
from gnndrop.cli._options import (
    DataRoot,
    Debug,
    Device,
    Epochs,
    Jobs,
    Json,
    Margin,
    RatelessOperators,
    RunFolder,
    Specs,
    only,
    spec_option,
)
from gnndrop.config import CompareConfig, TrainConfig

DATASET_BY_DEFAULT, MODEL_BY_DEFAULT = "csbm-homophilous", "gcn"


def tune(
    dataset: Annotated[Specs, spec_option("dataset", "A graph.", DATASET_BY_DEFAULT)] = None,
    model: Annotated[
        Specs, spec_option("model", "A model; width and depth are searched.", MODEL_BY_DEFAULT)
    ] = None,
    operator: RatelessOperators = None,
    trials: Annotated[int, typer.Option(help="Trials of each search.")] = 20,
    selection_seeds: Annotated[
        int, typer.Option(help="Trainings of a trial; their mean validation score counts.")
    ] = 2,
    seeds: Annotated[int, typer.Option(help="Fresh seeds for what was found.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the searches.")] = 0,
    epochs: Epochs = TrainConfig.epochs,
    margin: Margin = CompareConfig.margin,
    jobs: Jobs = None,
    device: Device = CompareConfig.device,
    out: RunFolder = None,
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
    asked_dataset = only("tune", "--dataset", dataset, DATASET_BY_DEFAULT)
    asked_model = only("tune", "--model", model, MODEL_BY_DEFAULT)
    with resumable("trainings") as command:
        from gnndrop.cli import _render
        from gnndrop.study import tune as study

        with _render.progress("trainings") as on_result:
            found = study.tune(
                asked_dataset,
                asked_model,
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
    if json:
        _render.write_json(found.to_dict())
    else:
        _render.write(f"{found}\n")
    if found.comparison.failures:
        raise typer.Exit(SOME_FAILED)
