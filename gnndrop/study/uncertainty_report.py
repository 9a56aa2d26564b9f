"""The outcome of a study of uncertainty: scores, verdicts, strata."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from gnndrop.study.report import SCHEMA, Failure, GraphSummary, as_json
from gnndrop.study.statistics import Verdict, judge, pair, paired_test
from gnndrop.study.store import Status
from gnndrop.uncertainty.strata import MINIMUM_NODES

Unit = Literal["points", "nats", ""]
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Task:
    """What an uncertainty may be good for.

    Args:
        label: the head of its column.
        purpose: as a sentence names it.
        higher: whether high is good.
        unit: `points` are hundredths.
    """

    label: str
    purpose: str
    higher: bool
    unit: Unit


TASKS: dict[str, Task] = {
    "accuracy": Task("acc", "accuracy", True, "points"),
    "nll": Task("NLL", "likelihood (NLL)", False, "nats"),
    "brier": Task("Brier", "probabilities (Brier)", False, ""),
    "ece": Task("ECE", "calibration (ECE)", False, "points"),
    "aurc": Task("AURC", "selective prediction (AURC)", False, "points"),
    "e-aurc": Task("E-AURC", "ranking errors last, accuracy aside (E-AURC)", False, "points"),
    "auroc": Task("AUROC", "finding errors (AUROC)", True, "points"),
}
CONFIDENCE = Task("conf", "mean confidence", True, "points")
"""A fact and no task: it is to equal the accuracy."""
RANKING = ("aurc", "e-aurc", "auroc")
MONTE_CARLO = "mc-dropout"
METHODS = {
    "softmax": "softmax",
    "energy": "energy",
    "temperature": "temperature scaling",
    "ensemble": "deep ensemble",
    MONTE_CARLO: "MC dropout",
}


@dataclass(frozen=True)
class Contest:
    """One comparison: a score of MC dropout against a score of another method, in one task.

    Args:
        task: name of the task.
        score: score of MC dropout; empty for a prediction task.
        baseline: the other method.
        baseline_score: its score.
    """

    task: str
    score: str
    baseline: str
    baseline_score: str


# Fixed before any result: nobody's best score is picked on the test nodes. Like is compared with
# like; the mutual information, which only samples have, with what costs nothing.
CONTESTS = (
    *(Contest("accuracy", "", baseline, "") for baseline in ("softmax", "ensemble")),
    *(
        Contest(task, "", baseline, "")
        for task in ("nll", "brier", "ece")
        for baseline in ("softmax", "temperature", "ensemble")
    ),
    *(
        Contest(task, "entropy", baseline, "energy" if baseline == "energy" else "entropy")
        for task in RANKING
        for baseline in ("softmax", "energy", "temperature", "ensemble")
    ),
    *(
        Contest(task, "max-probability", baseline, "max-probability")
        for task in ("aurc", "auroc")
        for baseline in ("softmax", "temperature", "ensemble")
    ),
    Contest("auroc", "mutual-information", "softmax", "entropy"),
)


@dataclass(frozen=True)
class UncertaintyCell:
    """One method with one score in one task, over the runs of an operator.

    Args:
        dataset: name of the dataset.
        model: spec of the model.
        operator: spec of the operator.
        method: `softmax`, `energy`, `temperature`, `ensemble` or `mc-dropout`.
        score: what ranks the nodes; empty for a prediction task.
        task: name of the task, or `confidence`.
        scores: by seed; None where the run failed or the task is not defined (no errors).
        mean: of the scores that there are; None without any.
        std: their sample standard deviation; None below two.
        interval: of the mean, widened for overlapping splits where splits vary; None below two.
        seconds: median duration of a member; None where none finished.
        status: `ok`, `failed` (at least one run did), or `not-applicable`.
    """

    dataset: str
    model: str
    operator: str
    method: str
    score: str
    task: str
    scores: tuple[float | None, ...]
    mean: float | None
    std: float | None
    interval: tuple[float, float] | None
    seconds: float | None
    status: Status


@dataclass(frozen=True)
class UncertaintyVerdict(Verdict):
    """What may be claimed of MC dropout against another method, in one task.

    Its difference and interval are in the task's own direction, MC dropout minus the other;
    `better` means better at the task.

    Args:
        task: name of the task.
        score: what MC dropout ranks nodes by; empty for a prediction task.
        baseline_score: what the baseline, the other method, ranks nodes by.
    """

    task: str
    score: str
    baseline_score: str


@dataclass(frozen=True)
class Group:
    """The scores of a method among the test nodes of one stratum.

    Args:
        dataset: name of the dataset.
        model: spec of the model.
        operator: spec of the operator.
        method: `softmax` or `mc-dropout`.
        by: `homophily`, `degree` or `distance` (to the nearest training node).
        group: name of the group.
        nodes: test nodes in it, mean over runs.
        ranked: whether every run has 30 of them, enough to be compared with other groups.
        accuracy: mean over the runs that have any; None without one, like all that follow.
        confidence: mean confidence.
        ece: ECE of 15 bins of equal width.
        auroc: of finding errors by the entropy.
    """

    dataset: str
    model: str
    operator: str
    method: str
    by: str
    group: str
    nodes: float
    ranked: bool
    accuracy: float | None
    confidence: float | None
    ece: float | None
    auroc: float | None


@dataclass(frozen=True)
class Facts:
    """What else there is to know of an operator on a dataset in a model.

    Args:
        dataset: name of the dataset.
        model: spec of the model.
        operator: spec of the operator.
        sites: what drew at random and what stayed silent, one sentence each.
        temperature: the fitted temperature, mean over runs.
        best_epoch: epoch whose weights were kept, mean over members; None without training.
        referral: for `softmax` and `mc-dropout` the share of test nodes that is kept at the wished
            risk, and the share of errors among them, means over runs.
    """

    dataset: str
    model: str
    operator: str
    sites: tuple[str, ...]
    temperature: float | None
    best_epoch: float | None
    referral: Mapping[str, tuple[float, float | None]]


@dataclass(frozen=True)
class Scored:
    """What the runs of one operator gave, before statistics.

    Args:
        dataset: name of the dataset.
        model: spec of the model.
        operator: spec of the operator.
        splits: index of the split of each run.
        scores: of each run by method, score and task; None where the run failed.
        strata: of each run by method, partition and group.
        seconds: median duration of a member.
        status: `ok`, `failed` or `not-applicable`.
    """

    dataset: str
    model: str
    operator: str
    splits: tuple[int, ...]
    scores: tuple[Mapping[Key, float] | None, ...]
    strata: tuple[Mapping[Key, Mapping[str, float]], ...]
    seconds: float | None
    status: Status

    @property
    def place(self) -> tuple[str, str, str]:
        """Dataset, model and operator."""
        return self.dataset, self.model, self.operator


@dataclass(frozen=True)
class UncertaintyStudy:
    """The outcome of `assess_uncertainty`.

    Args:
        cells: method by method, task by task, in the order asked.
        verdicts: MC dropout against every other method, task by task.
        strata: the scores by groups of nodes.
        facts: sites, temperature and referral of each operator.
        datasets: the graphs.
        unlabelled: nodes without a label by dataset; they are left out of every score.
        failures: the members that failed.
        protocol: how all this was reached: the fields of `UncertaintyConfig` and the bins.
        environment: versions and machine.

    Example:
        >>> study = UncertaintyStudy((), (), (), (), (), {}, (), protocol={}, environment={})
        >>> list(study.to_dict())[:4]
        ['schema', 'environment', 'protocol', 'datasets']
    """

    cells: tuple[UncertaintyCell, ...]
    verdicts: tuple[UncertaintyVerdict, ...]
    strata: tuple[Group, ...]
    facts: tuple[Facts, ...]
    datasets: tuple[GraphSummary, ...]
    unlabelled: Mapping[str, int]
    failures: tuple[Failure, ...]
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types; what is not finite becomes None."""
        fields = asdict(self)
        for graph in fields["datasets"]:
            graph["unlabelled"] = self.unlabelled[graph["name"]]
        order = ("environment", "protocol", "datasets", "cells", "verdicts", "strata", "facts")
        return {
            "schema": SCHEMA,
            **{name: as_json(fields[name]) for name in (*order, "failures")},
        }

    def places(self) -> list[tuple[str, str, str]]:
        """Return every dataset, model and operator that there is, in the order asked."""
        return list(dict.fromkeys((one.dataset, one.model, one.operator) for one in self.cells))

    def at(self, place: tuple[str, str, str]) -> dict[Key, UncertaintyCell]:
        """Return the cells of a dataset, model and operator by method, score and task."""
        return {
            (one.method, one.score, one.task): one
            for one in self.cells
            if (one.dataset, one.model, one.operator) == place
        }

    def verdicts_at(self, place: tuple[str, str, str]) -> list[UncertaintyVerdict]:
        """Return the verdicts of a dataset, model and operator."""
        return [one for one in self.verdicts if (one.dataset, one.model, one.operator) == place]


def cells_of(scored: Scored, ratio: float, alpha: float) -> Iterator[UncertaintyCell]:
    """Yield the cells of an operator.

    Args:
        scored: its runs.
        ratio: n_test / n_train of the dataset.
        alpha: the intervals cover 1 - alpha.
    """
    keys = dict.fromkeys(key for run in scored.scores if run for key in run)
    if not keys:
        keys = {(MONTE_CARLO, "", "accuracy"): None}
    for method, score, task in keys:
        scores = _column(scored, (method, score, task))
        known = [value for value in scores if value is not None]
        units = pair((*scored.place, ""), scores, scored.splits, ratio)
        yield UncertaintyCell(
            *scored.place,
            method=method,
            score=score,
            task=task,
            scores=() if scored.status == "not-applicable" else scores,
            mean=statistics.fmean(known) if known else None,
            std=statistics.stdev(known) if len(known) > 1 else None,
            interval=paired_test(units.differences, units.test_train_ratio, alpha=alpha).interval,
            seconds=scored.seconds,
            status=scored.status,
        )


def judge_all(
    scored: Sequence[Scored], ratios: Mapping[str, float], margin: float, alpha: float
) -> tuple[UncertaintyVerdict, ...]:
    """Reach the verdicts of a run, all of them together, see `gnndrop.study.statistics`.

    Args:
        scored: the runs of all operators.
        ratios: n_test / n_train by dataset.
        margin: half-width of the region of equivalence, in the unit of each task.
        alpha: level of the tests and of the intervals (1 - alpha).
    """
    drafts = [
        (one, contest)
        for one in scored
        if one.status != "not-applicable"
        for contest in CONTESTS
        if _takes_place(one, contest)
    ]
    pairings = []
    for one, contest in drafts:
        ours = _column(one, (MONTE_CARLO, contest.score, contest.task))
        theirs = _column(one, (contest.baseline, contest.baseline_score, contest.task))
        # `judge` calls what is above zero better.
        sign = 1 if TASKS[contest.task].higher else -1
        differences = [
            None if mine is None or other is None else sign * (mine - other)
            for mine, other in zip(ours, theirs, strict=True)
        ]
        names = (*one.place, contest.baseline)
        pairings.append(pair(names, differences, one.splits, ratios[one.dataset]))
    verdicts = []
    for (_, contest), found in zip(
        drafts, judge(pairings, margin=margin, alpha=alpha), strict=True
    ):
        verdict = UncertaintyVerdict(**{**asdict(found), **asdict(contest)})
        verdicts.append(verdict if TASKS[contest.task].higher else _turned(verdict))
    return tuple(verdicts)


def groups_of(scored: Scored) -> Iterator[Group]:
    """Yield the strata of an operator, their scores averaged over its runs."""
    if not scored.strata:
        return
    keys = dict.fromkeys(key for run in scored.strata for key in run)
    for method, by, group in keys:
        runs = [run[method, by, group] for run in scored.strata if (method, by, group) in run]
        sizes = [run["nodes"] for run in runs]
        if not any(sizes):
            continue
        yield Group(
            *scored.place,
            method=method,
            by=by,
            group=group,
            nodes=statistics.fmean(sizes),
            ranked=len(runs) == len(scored.strata) and min(sizes) >= MINIMUM_NODES,
            accuracy=_mean(runs, "accuracy"),
            confidence=_mean(runs, "confidence"),
            ece=_mean(runs, "ece"),
            auroc=_mean(runs, "auroc"),
        )


def _mean(runs: Sequence[Mapping[str, float]], name: str) -> float | None:
    known = [run[name] for run in runs if math.isfinite(run.get(name, math.nan))]
    return statistics.fmean(known) if known else None


def _takes_place(scored: Scored, contest: Contest) -> bool:
    """Tell whether any run has scores of both sides of a contest."""
    known = {key for run in scored.scores if run for key in run}
    ours = (MONTE_CARLO, contest.score, contest.task)
    return {ours, (contest.baseline, contest.baseline_score, contest.task)} <= known


def _column(scored: Scored, key: Key) -> tuple[float | None, ...]:
    """Return a score by run; None where it is not there or not finite."""
    values = [math.nan if run is None else run.get(key, math.nan) for run in scored.scores]
    return tuple(value if math.isfinite(value) else None for value in values)


def _turned(verdict: UncertaintyVerdict) -> UncertaintyVerdict:
    """Return a verdict of a task where low is good with the signs of its own scores."""
    difference, interval = verdict.difference, verdict.interval
    return replace(
        verdict,
        difference=None if difference is None else -difference,
        interval=None if interval is None else (-interval[1], -interval[0]),
    )
