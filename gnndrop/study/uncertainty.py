"""`assess_uncertainty`: what Monte-Carlo dropout is worth, against what costs less."""

import hashlib
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gnndrop.attach import attach
from gnndrop.config import TrainConfig
from gnndrop.datasets import Dataset, load
from gnndrop.errors import AttachError, DataError, ParameterError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.registry import parse_spec
from gnndrop.study.graphs import fingerprint, summarize, write_graph
from gnndrop.study.plan import Trial
from gnndrop.study.provenance import environment
from gnndrop.study.report import SCHEMA, Failure, GraphSummary
from gnndrop.study.run import OnResult, run
from gnndrop.study.session import check_device, check_models
from gnndrop.study.store import Result, Status, default_folder, open_store
from gnndrop.study.uncertainty_nodes import NodeTable
from gnndrop.study.uncertainty_plan import UncertaintyConfig, plan_members
from gnndrop.study.uncertainty_report import (
    MONTE_CARLO,
    Facts,
    Scored,
    UncertaintyStudy,
    cells_of,
    groups_of,
    judge_all,
)
from gnndrop.study.uncertainty_scores import BINS, Run
from gnndrop.study.uncertainty_store import Outputs, OutputStore
from gnndrop.study.uncertainty_trial import load_weights, sample_trial
from gnndrop.uncertainty.sampling import random_sites
from gnndrop.uncertainty.strata import Strata, strata

OPERATORS_BY_DEFAULT = ("dropout", "drop-edge")
DATASETS_BY_DEFAULT = ("csbm-homophilous", "csbm-heterophilous")
MODELS_BY_DEFAULT = ("gcn",)
STRATIFIED = ("softmax", MONTE_CARLO)

Place = tuple[str, str, str]


@dataclass(frozen=True, eq=False)
class Assessment:
    """A study of uncertainty and its first runs, node by node.

    Args:
        study: scores, verdicts and strata.
        nodes: the first run of every dataset, model and operator that has one.
    """

    study: UncertaintyStudy
    nodes: tuple[NodeTable, ...]


def assess_uncertainty(
    operators: Sequence[str] | None = None,
    datasets: Sequence[str | Dataset] | None = None,
    models: Sequence[str] | None = None,
    seeds: int = 10,
    *,
    samples: int = 100,
    members: int = 5,
    risk: float = 0.1,
    margin: float = 0.01,
    alpha: float = 0.05,
    train: TrainConfig = TrainConfig(),  # noqa: B008 - frozen
    checkpoint: str | Path | None = None,
    jobs: int | None = None,
    device: str = "cpu",
    out: str | Path | None = None,
    root: str | Path | None = None,
    command: str | None = None,
    on_result: OnResult | None = None,
) -> Assessment:
    r"""Learn what Monte-Carlo dropout is good for: train, sample, and compare task by task.

    Of every dataset, model, operator and seed `members` models are trained with the operator
    attached, on the same split from other initial weights. The first is the model of the seed: its
    softmax, its energy and its softmax at a temperature fitted on validation are compared with its
    Monte-Carlo mean $\bar p = \frac1T \sum_t p_t$, and so is the ensemble of all. Scores on
    labelled test nodes: accuracy, NLL, Brier, ECE (15 bins of equal width), AURC, E-AURC, and the
    AUROC of finding errors. Differences are paired by seed; `gnndrop.study.statistics` has the
    tests. Trials run in parallel, one thread each, and finished ones are kept: the same call
    continues after an interruption.

    Gal and Ghahramani, "Dropout as a Bayesian approximation" (ICML 2016); Lakshminarayanan et al.,
    "Simple and scalable predictive uncertainty estimation using deep ensembles" (NeurIPS 2017).

    Args:
        operators: specs; by default `dropout` and `drop-edge`.
        datasets: specs, or datasets of your own; by default the two csbm graphs.
        models: specs; by default `gcn`.
        seeds: number of seeds; seed k uses split k mod n.
        samples: Monte-Carlo samples of each model, at least 2.
        members: models of an ensemble; 1 leaves the ensemble out.
        risk: share of errors wished for among the predictions that nobody looks at.
        margin: half-width of the region of equivalence, in the unit of each task.
        alpha: level of the tests and of the intervals (1 - alpha).
        train: the training protocol.
        checkpoint: a file of `torch.save(model.state_dict(), file)` whose weights are taken instead
            of training; then one dataset, one model, one seed on the first split, no ensemble.
        jobs: number of worker processes; by default all cores, on other devices than the CPU 1.
        device: where to train and sample, as torch names it.
        out: run folder; it keeps every trial. By default a folder in the user's cache, removed at a
            good end.
        root: read-only mirror of raw data files.
        command: the command line, kept in the run folder.
        on_result: called as `on_result(done, total, result)`, at the start with None.

    Returns:
        The outcome; failed trials are in it, and do not raise.

    Raises:
        UnknownNameError: if an operator, dataset or model is unknown.
        ParameterError: if a setting is out of its range, an operator leaves nothing random, the
            checkpoint does not fit, or `out` belongs to another study.
        DataError: if a dataset or the checkpoint cannot be had, or a result not be written.

    Example:
        >>> assessment = assess_uncertainty(
        ...     ["dropout"], ["csbm:nodes=60,classes=2,features=4"], seeds=1, samples=5, members=1,
        ...     train=TrainConfig(epochs=2), jobs=1,
        ... )
        >>> sorted({cell.method for cell in assessment.study.cells})
        ['energy', 'mc-dropout', 'softmax', 'temperature']
    """
    if jobs is not None and jobs < 1:
        raise ParameterError(f"jobs must be at least 1, got {jobs}")
    asked = DATASETS_BY_DEFAULT if datasets is None else tuple(datasets)
    weights = Path(checkpoint) if checkpoint is not None else None
    config = UncertaintyConfig(
        operators=OPERATORS_BY_DEFAULT if operators is None else tuple(operators),
        datasets=tuple(item if isinstance(item, str) else item.name for item in asked),
        models=MODELS_BY_DEFAULT if models is None else tuple(models),
        seeds=seeds,
        samples=samples,
        members=members,
        risk=risk,
        margin=margin,
        alpha=alpha,
        train=train,
        device=device,
        checkpoint=None if weights is None else _sha256(weights),
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
    check_models(config.models, list(graphs.values()))
    summaries = {name: summarize(graph) for name, graph in graphs.items()}
    sites = _look_for_sites(config, graphs, weights)
    trials = plan_members(config, {name: one.splits for name, one in summaries.items()})
    here = environment()
    identity: dict[str, Any] = {
        "schema": SCHEMA,
        "gnndrop": here["gnndrop"],
        # What is judged afterwards may change from one call to the next.
        "study": {
            "uncertainty": {
                name: value
                for name, value in asdict(config).items()
                if name not in ("risk", "margin", "alpha")
            }
        },
        "data": {name: fingerprint(graph) for name, graph in graphs.items()},
    }
    folder = Path(out) if out is not None else default_folder(identity)
    opened = open_store(folder, identity, {"environment": here, "command": command})
    store = OutputStore(opened.folder)
    with tempfile.TemporaryDirectory(prefix="gnndrop-", ignore_cleanup_errors=True) as shared:
        files = {name: Path(shared) / f"{place}.pt" for place, name in enumerate(graphs)}
        for name, graph in graphs.items():
            write_graph(graph, files[name])
        execute = partial(
            sample_trial,
            files=files,
            operators=OPERATORS,
            models=MODELS,
            store=store,
            samples=samples,
            checkpoint=weights,
        )
        if jobs is None and torch.device(device).type != "cpu":
            jobs = 1
        results = run(trials, execute, store, jobs=jobs, on_result=on_result)
    assessment = _assess(config, graphs, summaries, trials, results, store, sites, here)
    if out is None:
        store.remove()
    return assessment


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f"a checkpoint must be a file that can be read, got {error.strerror} at {path}"
        ) from error


def _look_for_sites(
    config: UncertaintyConfig, graphs: Mapping[str, Dataset], weights: Path | None
) -> dict[Place, tuple[str, ...]]:
    """Sample untrained models once: what is random, and whether anything is, shows at once.

    A model without a place for an operator is left to its trials.

    Raises:
        ParameterError: if nothing is random, or the checkpoint does not fit.
        DataError: if the checkpoint cannot be read.
    """
    sites: dict[Place, tuple[str, ...]] = {}
    with torch.random.fork_rng(devices=[]):
        for name, graph in graphs.items():
            shape = {"in_channels": graph.data.num_features, "out_channels": graph.num_classes}
            for spec in config.models:
                model = MODELS.make(spec, **shape)
                if weights is not None:
                    load_weights(model, weights)
                for operator in config.operators:
                    try:
                        with attach(model, OPERATORS.make(operator)):
                            found = random_sites(model, graph.data)
                    except AttachError:
                        sites[name, spec, operator] = ()
                        continue
                    sites[name, spec, operator] = tuple(
                        f"{site}, {site.calls} draws a pass" if site.calls else str(site)
                        for site in found
                    )
    return sites


def _assess(
    config: UncertaintyConfig,
    graphs: Mapping[str, Dataset],
    summaries: Mapping[str, GraphSummary],
    trials: Sequence[Trial],
    results: Mapping[str, Result],
    store: OutputStore,
    sites: Mapping[Place, tuple[str, ...]],
    here: Mapping[str, Any],
) -> Assessment:
    """Score what the members said, place by place: one place's arrays are held at a time."""
    by_place: dict[Place, dict[int, list[Trial]]] = {}
    for trial in trials:
        runs = by_place.setdefault((trial.dataset, trial.model, trial.operator), {})
        runs.setdefault(trial.seed, []).append(trial)
    scored: list[Scored] = []
    facts: list[Facts] = []
    tables: list[NodeTable] = []
    groups: dict[tuple[str, int], dict[str, Strata]] = {}
    for place, members in by_place.items():
        graph = graphs[place[0]]
        said = [_run(graph, one, results, store) for one in members.values()]
        splits = tuple(one[0].split for one in members.values())
        found = [
            (seed, one, split)
            for seed, one, split in zip(members, said, splits, strict=True)
            if one is not None
        ]
        for split in {split for _, _, split in found}:
            if (place[0], split) not in groups:
                groups[place[0], split] = strata(graph.data, graph.splits[split][0])
        ended = [results[trial.key] for one in members.values() for trial in one]
        scored.append(
            Scored(
                *place,
                splits=splits,
                scores=tuple(None if one is None else one.scores() for one in said),
                strata=tuple(
                    one.by_stratum(groups[place[0], split], STRATIFIED) for _, one, split in found
                ),
                seconds=_median([result.seconds for result in ended]),
                status=_status(ended),
            )
        )
        facts.append(_facts(place, [one for _, one, _ in found], ended, sites[place], config.risk))
        tables += [
            NodeTable(*place, seed, graph.splits[split], one, graph.data.edge_index)
            for seed, one, split in found[:1]
        ]
    ratios = {name: one.test_train_ratio for name, one in summaries.items()}
    return Assessment(
        study=UncertaintyStudy(
            cells=tuple(
                cell for one in scored for cell in cells_of(one, ratios[one.dataset], config.alpha)
            ),
            verdicts=judge_all(scored, ratios, config.margin, config.alpha),
            strata=tuple(group for one in scored for group in groups_of(one)),
            facts=tuple(facts),
            datasets=tuple(summaries.values()),
            unlabelled={name: int((graph.data.y < 0).sum()) for name, graph in graphs.items()},
            failures=tuple(
                Failure(trial.dataset, trial.model, trial.spec, trial.seed, trial.split, one.error)
                for trial in trials
                if (one := results[trial.key]).status == "failed"
            ),
            protocol={**asdict(config), "bins": BINS, "binning": "width"},
            environment=here,
        ),
        nodes=tuple(tables),
    )


def _run(
    graph: Dataset, members: Sequence[Trial], results: Mapping[str, Result], store: OutputStore
) -> Run | None:
    """Return what the members of a seed said; None if one of them failed."""
    outputs: list[Outputs] = []
    for trial in members:
        kept = store.outputs(trial) if results[trial.key].status == "ok" else None
        if kept is None:
            return None
        outputs.append(kept)
    y = graph.data.y
    _, validation, test = graph.splits[members[0].split]
    return Run(
        logits=torch.from_numpy(np.stack([one["logits"] for one in outputs])).double(),
        sampled=outputs[0],
        y=y,
        validation=validation & (y >= 0),
        test=test & (y >= 0),
    )


def _facts(
    place: Place,
    runs: Sequence[Run],
    ended: Sequence[Result],
    sites: tuple[str, ...],
    risk: float,
) -> Facts:
    referral: dict[str, tuple[float, float | None]] = {}
    for method in STRATIFIED if runs else ():
        kept, errors = zip(*(one.referred(method, risk) for one in runs), strict=True)
        known = [value for value in errors if value == value]  # nan where nothing is kept
        referral[method] = statistics.fmean(kept), statistics.fmean(known) if known else None
    epochs = [result.best_epoch for result in ended if result.best_epoch is not None]
    return Facts(
        *place,
        sites=sites,
        temperature=statistics.fmean(one.temperature for one in runs) if runs else None,
        best_epoch=statistics.fmean(epochs) if epochs else None,
        referral=referral,
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _status(results: Sequence[Result]) -> Status:
    statuses = {result.status for result in results}
    return statuses.pop() if len(statuses) == 1 else "failed"
