"""`compare`: the protocol of a comparison, from names to verdicts."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.datasets import Dataset, load
from gnndrop.errors import ParameterError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.registry import parse_spec
from gnndrop.study.graphs import fingerprint, summarize, write_graph
from gnndrop.study.plan import plan
from gnndrop.study.provenance import environment
from gnndrop.study.report import SCHEMA, Comparison, as_json, summarize_results
from gnndrop.study.run import OnResult, run
from gnndrop.study.store import default_folder, open_store
from gnndrop.study.trial import train_trial

OPERATORS_BY_DEFAULT = (
    "none",
    "dropout",
    "drop-feature",
    "drop-node",
    "drop-edge",
    "drop-message",
)
DATASETS_BY_DEFAULT = ("csbm-homophilous", "csbm-heterophilous")
MODELS_BY_DEFAULT = ("gcn", "mlp")


def compare(
    operators: Sequence[str] | None = None,
    datasets: Sequence[str | Dataset] | None = None,
    models: Sequence[str] | None = None,
    seeds: int = 10,
    *,
    splits: str = "default",
    rates: Sequence[float] = (),
    margin: float = 0.01,
    alpha: float = 0.05,
    train: TrainConfig = TrainConfig(),  # noqa: B008 - frozen
    jobs: int | None = None,
    device: str = "cpu",
    out: str | Path | None = None,
    root: str | Path | None = None,
    command: str | None = None,
    on_result: OnResult | None = None,
) -> Comparison:
    """Learn which dropout helps which graph: train, pair, test, and say what may be claimed.

    Every operator is trained in every model on every dataset, from the same initial weights on the
    same splits, and tested against `none`: `gnndrop.study.statistics` has the maths and the papers.
    Trials run in parallel, one thread each; scores do not depend on `jobs`. Finished trials are
    kept: the same call continues after an interruption, even a kill, and repeats nothing.

    Args:
        operators: specs; by default the six built-in ones. `none` is put first where it is missing.
        datasets: specs, or datasets of your own; by default the two csbm graphs.
        models: specs; by default `gcn` and `mlp`.
        seeds: number of seeds; seed k uses split k mod n.
        splits: `default`, or `all`: every seed on every split.
        rates: rates to choose from on validation for every operator and seed; `none` gets as many
            restarts. Empty: every operator runs at its own rate.
        margin: half-width of the equivalence region, in units of the metric (0.01: one point).
        alpha: level of the tests and of the intervals (1 - alpha).
        train: the training protocol.
        jobs: number of worker processes; by default all cores, on other devices than the CPU 1.
        device: where to train, as torch names it.
        out: run folder; it keeps every trial. By default a folder in the user's cache
            (`GNNDROP_CACHE`), removed when the comparison is complete.
        root: read-only mirror of raw data files, see `gnndrop.datasets.load`.
        command: the command line, kept in the run folder.
        on_result: called as `on_result(done, total, result)`, at the start with None.

    Returns:
        The outcome; failed trials are in it, and do not raise.

    Raises:
        UnknownNameError: if an operator, dataset or model is unknown.
        ParameterError: if a setting is out of its range, a spec cannot be read, the device cannot
            be used, or `out` belongs to another comparison.
        DataError: if a dataset is missing, corrupt or cannot be fetched, or a result not written.

    Example:
        >>> graph = "csbm:nodes=60,classes=2,features=4"
        >>> comparison = compare(
        ...     ["dropout"], [graph], ["mlp"], seeds=2, train=TrainConfig(epochs=2), jobs=1
        ... )
        >>> [(cell.operator, len(cell.scores)) for cell in comparison.cells]
        [('none', 2), ('dropout', 2)]
        >>> comparison.verdicts[0].verdict
        'undecided'
    """
    asked = DATASETS_BY_DEFAULT if datasets is None else tuple(datasets)
    config = CompareConfig(
        operators=OPERATORS_BY_DEFAULT if operators is None else tuple(operators),
        datasets=tuple(item if isinstance(item, str) else item.name for item in asked),
        models=MODELS_BY_DEFAULT if models is None else tuple(models),
        seeds=seeds,
        splits=splits,
        rates=tuple(rates),
        margin=margin,
        alpha=alpha,
        train=train,
        device=device,
    )
    # Whatever is wrong shall be found here, before the first trial.
    for operator in config.operators:
        OPERATORS.make(operator)
    check_device(device)
    for model in config.models:
        _ = MODELS[parse_spec(model)[0]]  # a wrong name shall not wait for the data
    graphs = {
        name: load(item, root) if isinstance(item, str) else item
        for name, item in zip(config.datasets, asked, strict=True)
    }
    check_models(config.models, graphs.values())
    summaries = [summarize(dataset) for dataset in graphs.values()]
    counts = {summary.name: summary.splits for summary in summaries}
    trials = plan(config, counts, OPERATORS)
    here = environment()
    identity: dict[str, Any] = {
        "schema": SCHEMA,
        "gnndrop": here["gnndrop"],
        "config": asdict(config),
        "data": {name: fingerprint(dataset) for name, dataset in graphs.items()},
    }
    folder = Path(out) if out is not None else default_folder(identity)
    told = as_json([asdict(summary) for summary in summaries])
    provenance = {"environment": here, "command": command, "graphs": told}
    store = open_store(folder, identity, provenance)
    with tempfile.TemporaryDirectory(prefix="gnndrop-", ignore_cleanup_errors=True) as shared:
        files = {name: Path(shared) / f"{place}.pt" for place, name in enumerate(graphs)}
        for name, dataset in graphs.items():
            write_graph(dataset, files[name])
        execute = partial(train_trial, files=files, operators=OPERATORS, models=MODELS)
        if jobs is None and torch.device(device).type != "cpu":
            jobs = 1
        results = run(trials, execute, store, jobs=jobs, on_result=on_result)
    if out is None:
        store.remove()
    return summarize_results(config, summaries, trials, results, here)


def check_models(models: Sequence[str], graphs: Iterable[Dataset]) -> None:
    """Build every model once for every shape of data; torch's generator is left alone.

    Example:
        >>> check_models(["gcn:num_layers=3"], [load("karate")])
    """
    shapes = {(dataset.data.num_features, dataset.num_classes) for dataset in graphs}
    with torch.random.fork_rng(devices=[]):
        for model in models:
            for features, classes in sorted(shapes):
                MODELS.make(model, in_channels=features, out_channels=classes)


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use, in one sentence.

    Example:
        >>> check_device("cpu")
    """
    try:
        torch.zeros((), device=device).item()
    except Exception as error:  # each backend raises its own
        raise ParameterError(
            f"device must be one that torch can use here, got {device!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error
