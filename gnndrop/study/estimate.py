"""How long a suite will take: its trials are counted, and a few epochs of each kind are timed.

Every operator is trained in every model on every graph for a few epochs on the first split; a first
time is not counted, since kernels are compiled in it. A trial is taken to need all of its epochs:
where training stops early the estimate is too high. Trials are taken to share the jobs evenly. A
model of an assessment of uncertainty counts as a trial; that it is sampled, too, is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import joblib

from gnndrop.config import CompareConfig
from gnndrop.datasets import Dataset
from gnndrop.errors import AttachError, DivergedError, ParameterError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.study.bench import GraphSource, LeftOut, check_any_graph, check_specs
from gnndrop.study.graphs import write_graph
from gnndrop.study.plan import Trial, plan
from gnndrop.study.suite import Suite
from gnndrop.study.trial import train_trial
from gnndrop.study.uncertainty_plan import UncertaintyConfig, plan_members

TIMED_EPOCHS = 20


@dataclass(frozen=True)
class Estimate:
    """What a comparison, or an assessment of uncertainty, will take.

    Args:
        comparison: its name, or that of an assessment.
        trials: number of its trials; of an assessment, of its models.
        seconds: how long they take on the given number of jobs, at most.
        cells: seconds of one trial by dataset, model and operator; 0 where it does not apply.
    """

    comparison: str
    trials: int
    seconds: float
    cells: Mapping[tuple[str, str, str], float]


def estimate_suite(
    suite: Suite,
    *,
    seeds: int | None = None,
    jobs: int | None = None,
    root: str | Path | None = None,
) -> tuple[list[Estimate], list[LeftOut]]:
    """Count the trials of a suite and estimate how long they take; nothing is kept.

    Args:
        suite: the suite.
        seeds: number of seeds of all that is run; by default the suite's own.
        jobs: number of worker processes; by default all cores.
        root: read-only mirror of raw data files.

    Returns:
        An estimate for each comparison and assessment, and the graphs that cannot be had, which
        count nothing.

    Raises:
        UnknownNameError: if an operator, dataset or model is unknown.
        ParameterError: if a spec cannot be read, or `seeds` or `jobs` is below 1.
        DataError: if no graph at all is to be had.

    Example:
        >>> text = '''
        ... title = "Tiny"
        ... description = "Does dropout help an MLP?"
        ... budget = "1 second"
        ... [[comparison]]
        ... name = "mlp"
        ... datasets = ["csbm:nodes=60,classes=2,features=4"]
        ... models = ["mlp"]
        ... operators = ["dropout"]
        ... '''
        >>> estimates, left_out = estimate_suite(Suite("tiny", text, "tiny.toml"), jobs=1)
        >>> estimates[0].trials, left_out
        (20, [])
    """
    if jobs is not None and jobs < 1:
        raise ParameterError(f"jobs must be at least 1, got {jobs}")
    check_specs(suite)
    graphs = GraphSource(root)
    estimates: list[Estimate] = []
    left_out: list[LeftOut] = []
    for settings in suite.settings.parts:
        config = settings.config()
        config = config if seeds is None else replace(config, seeds=seeds)
        here, missing = graphs.find(settings)
        left_out += missing
        estimates.append(_estimate(settings.name, config, here, jobs or joblib.cpu_count()))
    check_any_graph(suite, sum(one.trials for one in estimates), left_out)
    return estimates, left_out


def _estimate(
    name: str, config: CompareConfig | UncertaintyConfig, graphs: Mapping[str, Dataset], jobs: int
) -> Estimate:
    if not graphs:
        return Estimate(name, 0, 0.0, {})
    config = replace(config, datasets=tuple(graphs))
    splits = {spec: len(graph.splits) for spec, graph in graphs.items()}
    trials = (
        plan(config, splits, OPERATORS)
        if isinstance(config, CompareConfig)
        else plan_members(config, splits)
    )
    cells: dict[tuple[str, str, str], float] = {}
    with TemporaryDirectory(prefix="gnndrop-") as folder:
        for place, (spec, graph) in enumerate(graphs.items()):
            file = Path(folder) / f"{place}.pt"
            write_graph(graph, file)
            for trial in trials:
                cell = (spec, trial.model, trial.operator)
                if trial.dataset == spec and cell not in cells:
                    cells[cell] = _time(trial, file)
    seconds = sum(cells[trial.dataset, trial.model, trial.operator] for trial in trials)
    return Estimate(name, len(trials), seconds / jobs, cells)


def _time(trial: Trial, file: Path) -> float:
    """Return how long a trial takes, from two short ones of different length."""
    _, short, long = (
        _train(replace(trial, train=replace(trial.train, epochs=epochs, patience=0)), file)
        for epochs in (1, 1, 1 + TIMED_EPOCHS)
    )
    return short + max(0.0, (long - short) / TIMED_EPOCHS) * (trial.train.epochs - 1)


def _train(trial: Trial, file: Path) -> float:
    try:
        result = train_trial(trial, {trial.dataset: file}, OPERATORS, MODELS)
    except (AttachError, DivergedError):
        return 0.0
    return result.seconds or 0.0
