"""`gnndrop sweep`: the gain of operators along an axis and over the rate."""

from enum import StrEnum
from pathlib import Path
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
    spec_option,
)
from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.errors import ParameterError


class Axis(StrEnum):
    """What a sweep goes over."""

    RATE = "rate"
    HOMOPHILY = "homophily"
    SIGNAL = "signal"
    DEGREE = "degree"
    DEPTH = "depth"


def sweep(
    over: Annotated[
        Axis, typer.Option(help="homophily, signal and degree are of csbm graphs.")
    ] = Axis.RATE,
    values: Annotated[
        str,
        typer.Option(
            metavar="X,X,...",
            help="Values of the axis.",
            show_default="rates 0.1 to 0.7, homophily 0.1 to 0.9, signal 0.5 to 4, degree and "
            "depth 2 to 16",
        ),
    ] = "",
    rates: Annotated[
        str,
        typer.Option(
            metavar="P,P,...",
            help="Drop rates; in a sweep over the rate, the same as --values.",
            show_default="0.1,0.3,0.5,0.7",
        ),
    ] = "",
    dataset: Annotated[
        Specs, spec_option("dataset", "A graph; repeatable.", "csbm:nodes=500")
    ] = None,
    model: Annotated[Specs, spec_option("model", "A model; repeatable.", "gcn")] = None,
    operator: RatelessOperators = None,
    seeds: Annotated[
        int, typer.Option(help="Pairs at every point; on a csbm axis each has its own graph.")
    ] = 8,
    epochs: Epochs = TrainConfig.epochs,
    margin: Margin = CompareConfig.margin,
    jobs: Jobs = None,
    device: Device = CompareConfig.device,
    out: RunFolder = None,
    data_root: DataRoot = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the points as CSV.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw curves and, where there is an axis beside the rate, phase maps: .png, .svg, "
            ".pdf.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Sweep the rate, or a property of the graph, and show what each operator gains over none.

    With --over homophily the answer to the textbook claim comes with it: does dropping harm under
    homophily and help under heterophily? When a run is interrupted, the same command resumes it.
    """
    if json and csv:
        raise ParameterError("--json and --csv exclude each other, got both; give one")
    with resumable("trials") as command:
        from gnndrop.cli import _plot_file, _plot_sweep, _render
        from gnndrop.study import sweep as study

        if plot is not None:
            _plot_file.check_place(plot)
        if over is Axis.RATE and values and rates:
            raise ParameterError(
                "--values and --rates are the same in a sweep over the rate; give one"
            )
        asked_rates = study.read_numbers(rates, "rates")
        asked_values = study.read_numbers(values, "values")
        with _render.progress("trials") as on_result:
            found = study.sweep(
                over.value,
                operator or study.OPERATORS_BY_DEFAULT,
                dataset or (study.GRAPH_BY_DEFAULT,),
                model or ("gcn",),
                values=asked_values or asked_rates if over is Axis.RATE else asked_values,
                rates=() if over is Axis.RATE else asked_rates,
                seeds=seeds,
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
    elif csv:
        _render.write(found.to_csv())
    else:
        _render.write(f"{found}\n")
    if plot is not None:
        _plot_sweep.draw(plot, found)  # last: whatever happens to the file, the result is told
    if found.failures:
        raise typer.Exit(SOME_FAILED)
