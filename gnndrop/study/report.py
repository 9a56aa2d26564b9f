"""The outcome of a comparison: cells, verdicts and failures, as text, JSON and CSV; torch-free."""

import csv
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gnndrop.config import CompareConfig
from gnndrop.study.plan import Trial
from gnndrop.study.statistics import Decision, Pairing, Verdict, judge, pair
from gnndrop.study.store import Result, Status
from gnndrop.study.words import align, points, verdict_sentence

SCHEMA = 1
CellStatus = Status | Literal["unfinished"]

CSV_COLUMNS = (
    *("dataset", "model", "operator", "metric", "trials", "mean", "std", "seconds", "status"),
    *("baseline", "verdict", "difference", "low", "high", "p_value", "p_adjusted"),
    *("equivalence_p", "equivalence_p_adjusted", "wilcoxon_p", "test", "pairs", "missing"),
)


@dataclass(frozen=True)
class GraphSummary:
    """What a report says of a dataset.

    Args:
        name: its name.
        nodes: number of nodes.
        edges: number of columns of `edge_index` (an undirected edge has two).
        homophily: its measures by name.
        homophilous: the group it belongs to.
        metric: its published metric.
        splits: number of splits.
        test_train_ratio: n_test / n_train, mean over splits.
        note: what a reader of results must know: direction, how the splits were made.
    """

    name: str
    nodes: int
    edges: int
    homophily: Mapping[str, float]
    homophilous: bool
    metric: str
    splits: int
    test_train_ratio: float
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """The scores of one operator in one model on one dataset.

    Args:
        dataset: name of the dataset.
        model: spec of the model.
        operator: spec of the operator.
        metric: the metric.
        scores: test scores in the order of the runs (seeds; with `splits="all"` seed by seed, each
            on every split), paired between operators; None where a trial failed or has not run.
        mean: mean of the scores that there are; None without any.
        std: their sample standard deviation; None below two.
        seconds: median duration of a trial, restarts included.
        rates: the rates chosen on validation, run by run; empty where none were tried.
        status: `ok`, `failed` (at least one trial did), `not-applicable`, or `unfinished` (of a run
            that was interrupted: at least one trial has not run).
    """

    dataset: str
    model: str
    operator: str
    metric: str
    scores: tuple[float | None, ...]
    mean: float | None
    std: float | None
    seconds: float | None
    rates: tuple[float | None, ...]
    status: CellStatus


@dataclass(frozen=True)
class Failure:
    """A trial that failed.

    Args:
        dataset: name of the dataset.
        model: spec of the model.
        operator: spec of the operator, at the rate that failed.
        seed: number of the seed.
        split: index of the split.
        error: why, in one sentence.
    """

    dataset: str
    model: str
    operator: str
    seed: int
    split: int
    error: str


@dataclass(frozen=True)
class Comparison:
    """The outcome of `gnndrop.compare`.

    Args:
        cells: one for each dataset, model and operator, in the order asked, the baseline first.
        verdicts: one for each cell but the baseline's and those that are not applicable.
        datasets: the graphs.
        failures: the trials that failed.
        protocol: how scores and verdicts were reached: the fields of `CompareConfig`.
        environment: versions and machine.

    Example:
        >>> nothing = Comparison((), (), (), (), protocol={}, environment={})
        >>> nothing.to_dict()["schema"]
        1
    """

    cells: tuple[Cell, ...]
    verdicts: tuple[Verdict, ...]
    datasets: tuple[GraphSummary, ...]
    failures: tuple[Failure, ...]
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def homophilous(self) -> tuple[str, ...]:
        """Names of the homophilous datasets."""
        return tuple(graph.name for graph in self.datasets if graph.homophilous)

    @property
    def heterophilous(self) -> tuple[str, ...]:
        """Names of the heterophilous datasets."""
        return tuple(graph.name for graph in self.datasets if not graph.homophilous)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types; what is not finite becomes None."""
        fields = asdict(self)
        order = ("environment", "protocol", "datasets", "cells", "verdicts", "failures")
        return {"schema": SCHEMA, **{name: as_json(fields[name]) for name in order}}

    def to_csv(self) -> str:
        """Return a table with one line for each cell and its verdict; empty where there is none."""
        text = io.StringIO()
        writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for cell, verdict in self.rows():
            row: dict[str, Any] = asdict(verdict) if verdict else {}
            low, high = (verdict and verdict.interval) or (None, None)
            scored = sum(score is not None for score in cell.scores)
            writer.writerow({**row, "low": low, "high": high, **asdict(cell), "trials": scored})
        return text.getvalue()

    def rows(self) -> Iterator[tuple[Cell, Verdict | None]]:
        """Yield every cell with its verdict, None where it has none."""
        verdicts = {(item.dataset, item.model, item.operator): item for item in self.verdicts}
        for cell in self.cells:
            yield cell, verdicts.get((cell.dataset, cell.model, cell.operator))

    def sentences(self) -> list[str]:
        """Return one sentence for each verdict."""
        return [verdict_sentence(verdict, self.protocol["margin"]) for verdict in self.verdicts]

    def __str__(self) -> str:
        groups = (("homophilous", self.homophilous), ("heterophilous", self.heterophilous))
        tables = [
            f"{name} ({group})\n{self._table(name)}" for group, names in groups for name in names
        ]
        return "\n\n".join([*tables, "\n".join(self.sentences())]).strip()

    def _table(self, dataset: str) -> str:
        """Return one dataset's cells: a line for each operator, a column for each model."""
        shown = {
            (cell.operator, cell.model): _score(cell) + (_MARKS[verdict.verdict] if verdict else "")
            for cell, verdict in self.rows()
            if cell.dataset == dataset
        }
        operators, models = (list(dict.fromkeys(names)) for names in zip(*shown, strict=True))
        lines = [["", *models]]
        lines += [[name, *(shown[name, model] for model in models)] for name in operators]
        return align(lines)


_MARKS: Mapping[Decision, str] = {
    "better": " better",
    "worse": " worse",
    "equivalent": " =",
    "undecided": " ?",
}


def summarize_results(
    config: CompareConfig,
    graphs: Sequence[GraphSummary],
    trials: Sequence[Trial],
    results: Mapping[str, Result],
    environment: Mapping[str, Any],
) -> Comparison:
    """Reach the outcome of a comparison from the results of its trials.

    Of the restarts of a run the one with the best validation score counts, the first of equals.

    Args:
        config: the comparison.
        graphs: its datasets, in the order asked.
        trials: its trials, in the order of the plan.
        results: their results by key; a trial without one has not run, and its pair is missing.
        environment: versions and machine.

    Returns:
        The outcome.
    """
    grouped: dict[tuple[str, str, str], dict[tuple[int, int], list[Result | None]]] = {}
    for trial in trials:
        runs = grouped.setdefault((trial.dataset, trial.model, trial.operator), {})
        runs.setdefault((trial.seed, trial.split), []).append(results.get(trial.key))
    cells: list[Cell] = []
    pairings: list[Pairing] = []
    for graph in graphs:
        for model in config.models:
            baseline = grouped[graph.name, model, config.operators[0]]
            for operator in config.operators:
                runs = grouped[graph.name, model, operator]
                cell = _cell(graph, model, operator, runs)
                cells.append(cell)
                if operator != config.operators[0] and cell.status != "not-applicable":
                    names = (graph.name, model, operator, config.operators[0])
                    differences = [_difference(runs[run], baseline[run]) for run in runs]
                    splits = [split for _, split in runs]
                    pairings.append(pair(names, differences, splits, graph.test_train_ratio))
    return Comparison(
        cells=tuple(cells),
        verdicts=tuple(judge(pairings, margin=config.margin, alpha=config.alpha)),
        datasets=tuple(graphs),
        failures=tuple(
            Failure(trial.dataset, trial.model, trial.spec, trial.seed, trial.split, result.error)
            for trial in trials
            if (result := results.get(trial.key)) and result.status == "failed"
        ),
        protocol=asdict(config),
        environment=environment,
    )


def _best(restarts: Sequence[Result | None]) -> Result | None:
    """Return the restart with the best validation score; None if one of them has no score."""
    scored = [result for result in restarts if result and result.validation is not None]
    if len(scored) < len(restarts):
        return None
    return max(scored, key=lambda result: result.validation or 0.0)


def _test_score(restarts: Sequence[Result | None]) -> float | None:
    best = _best(restarts)
    return best.test if best else None


def _difference(ours: Sequence[Result | None], theirs: Sequence[Result | None]) -> float | None:
    score, baseline = _test_score(ours), _test_score(theirs)
    return None if score is None or baseline is None else score - baseline


def _cell(
    graph: GraphSummary, model: str, operator: str, runs: Mapping[Any, Sequence[Result | None]]
) -> Cell:
    expected = [result for restarts in runs.values() for result in restarts]
    results = [result for result in expected if result]
    scores = tuple(_test_score(restarts) for restarts in runs.values())
    known = [score for score in scores if score is not None]
    seconds = [result.seconds for result in results if result.seconds is not None]
    statuses = {result.status for result in results}
    chosen = [_best(restarts) for restarts in runs.values()]
    rates = tuple(result.trial.rate if result else None for result in chosen)
    return Cell(
        dataset=graph.name,
        model=model,
        operator=operator,
        metric=graph.metric,
        scores=() if statuses == {"not-applicable"} else scores,
        mean=statistics.fmean(known) if known else None,
        std=statistics.stdev(known) if len(known) > 1 else None,
        seconds=statistics.median(seconds) if seconds else None,
        rates=rates if any(rate is not None for rate in rates) else (),
        status=_status(statuses, is_finished=len(results) == len(expected)),
    )


def _status(statuses: set[Status], is_finished: bool) -> CellStatus:
    if statuses == {"not-applicable"}:
        return "not-applicable"  # what has not run would be so, too
    if not is_finished:
        return "unfinished"
    # A trial that does not apply among others that do leaves its run without a score.
    return "ok" if statuses == {"ok"} else "failed"


def _score(cell: Cell) -> str:
    if cell.mean is None:
        return cell.status
    spread = "" if cell.std is None else f" ± {points(cell.std)}"
    return f"{points(cell.mean)}{spread}{' (failed)' if cell.status == 'failed' else ''}"


def as_json(value: Any) -> Any:
    """Return a value as JSON's types; NaN and infinities, which JSON lacks, become None."""
    if isinstance(value, Mapping):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
