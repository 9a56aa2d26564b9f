"""`compare`: the protocol of a comparison, from names to verdicts."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.datasets import Dataset
from gnndrop.operators import OPERATORS
from gnndrop.study.plan import attempts
from gnndrop.study.report import Comparison
from gnndrop.study.run import OnResult
from gnndrop.study.session import open_session

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
    for operator in config.operators:
        attempts(operator, config.rates, OPERATORS)  # what is wrong shall not leave a folder
    with open_session(
        {"config": asdict(config)},
        config.operators,
        asked,
        config.models,
        jobs=jobs,
        device=device,
        out=out,
        root=root,
        command=command,
    ) as session:
        return session.compare(config, list(session.graphs.values()), on_result=on_result)
