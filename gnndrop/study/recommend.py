"""A recommendation within a time budget: which operator and rate to use, and how sure that is.

Half of the budget goes to successive halving (Jamieson and Talwalkar, AISTATS 2016): all candidates
are trained on some seeds, the better third on validation goes on to more, until two are left. The
other half goes to these two and `none` on fresh seeds, as many as fit, which decide by the paired
test of `compare`. How many fit is estimated from the time that trainings have taken, never from
scores: the test stays valid.
"""

import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import joblib

from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.datasets import Dataset
from gnndrop.errors import ParameterError
from gnndrop.operators import OPERATORS
from gnndrop.study.plan import Trial, plan
from gnndrop.study.report import SCHEMA, Comparison, GraphSummary, summarize_results
from gnndrop.study.session import Session, at_rates, open_session, selection_trial
from gnndrop.study.statistics import MINIMUM_PAIRS, Verdict
from gnndrop.study.store import Result
from gnndrop.study.words import points, signed_points

OPERATORS_BY_DEFAULT = ("dropout", "drop-feature", "drop-node", "drop-edge", "drop-message")
RATES_BY_DEFAULT = (0.1, 0.3, 0.5, 0.7)
FINALISTS = 2
HALVING = 3  # one candidate of so many goes on
SEARCH_SHARE = 0.5  # of the budget
RESERVE = 0.97  # of the budget is planned with, the rest is for what estimates miss
SEEDS_AT_MOST = 100  # of a rung, and of the final

OnTime = Callable[[float, float], object]  # seconds gone, seconds of the budget


@dataclass(frozen=True)
class Candidate:
    """An operator at a rate, as far as the search took it.

    Args:
        spec: spec of the operator.
        validation: mean validation score; None without any.
        seeds: number of its trainings.
        error: why it dropped out, where a training failed or the model has no place for it.
    """

    spec: str
    validation: float | None
    seeds: int
    error: str = ""


@dataclass(frozen=True)
class Recommendation:
    """The outcome of `recommend`.

    Args:
        dataset: name of the dataset.
        model: spec of the model.
        choice: spec to use: a candidate that was shown to be better than `none`, else `none`.
        verdict: of the choice, or of the best candidate where the choice is `none`; None where
            nothing was tested.
        candidates: all, best first.
        comparison: the finalists against `none` on fresh seeds; None where nothing was tested.
        budget: seconds that were given.
        seconds: seconds that were used.
        interrupted: whether it was ended by the user.

    Example:
        >>> nothing = Recommendation("cora", "gcn", "none", None, (), None, 60.0, 2.0, True)
        >>> str(nothing)
        'use none: nothing was tested yet (interrupted).'
    """

    dataset: str
    model: str
    choice: str
    verdict: Verdict | None
    candidates: tuple[Candidate, ...]
    comparison: Comparison | None
    budget: float
    seconds: float
    interrupted: bool

    def __str__(self) -> str:
        ending = " (interrupted)" if self.interrupted else ""
        if self.verdict is None or self.verdict.difference is None:
            if self.candidates and all(one.error for one in self.candidates):
                return f"use none: nothing was tested, every candidate failed{ending}."
            best = next((one.spec for one in self.candidates if one.validation is not None), None)
            hint = f"; best on validation is {best}" if best else ""
            return f"use none: nothing was tested yet{hint}{ending}."
        difference = self.verdict.difference
        found = points(difference) if self.choice != "none" else signed_points(difference)
        found += " points"
        if self.verdict.interval is not None:
            found += f" [{', '.join(map(points, self.verdict.interval))}]"
        scope = ", on this split" if self.verdict.test == "paired-t" else ""
        found += f", {self.verdict.pairs} pairs{scope}"
        if self.choice != "none":
            return f"use {self.choice} (better than none by {found}){ending}."
        return (
            f"use none: nothing was shown to be better (best candidate {self.verdict.operator}: "
            f"{found}, {self.verdict.verdict}){ending}."
        )

    def details(self) -> str:
        """Return what the recommendation rests on: the candidates, the verdicts, the time."""
        lines = []
        for one in self.candidates:
            if one.error:
                lines.append(f"- {one.spec}: {one.error}")
            elif one.validation is not None:
                lines.append(f"- {one.spec}: {100 * one.validation:.1f} ({one.seeds})")
        if lines:
            lines = ["Candidates, mean validation score in points (trainings):", *lines]
        if self.comparison is not None:
            sentences = self.comparison.sentences()
            lines += ["", "Finalists on fresh seeds:", *(f"- {text}" for text in sentences)]
        lines += ["", f"{self.seconds:.0f} s of {self.budget:.0f} s used."]
        return "\n".join(lines).lstrip()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types."""
        comparison = None if self.comparison is None else self.comparison.to_dict()
        return {"schema": SCHEMA, "sentence": str(self), **asdict(self), "comparison": comparison}


def read_duration(text: str) -> float:
    """Read a duration, `90s`, `5m`, `1h30m`, in seconds.

    Raises:
        ParameterError: if it cannot be read, or is not above 0.

    Example:
        >>> read_duration("1h30m"), read_duration("90s")
        (5400.0, 90.0)
    """
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?", text.strip())
    parts = match.groups() if match else ()
    seconds = sum(
        float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=bool(parts))
    )
    if seconds <= 0:
        raise ParameterError(
            f"a budget must be a duration above 0, as 90s, 5m or 1h30m, got {text!r}"
        )
    return seconds


def recommend(
    dataset: str | Dataset,
    model: str = "gcn",
    budget: float = 300.0,
    *,
    operators: Sequence[str] = OPERATORS_BY_DEFAULT,
    rates: Sequence[float] = RATES_BY_DEFAULT,
    margin: float = 0.01,
    alpha: float = 0.05,
    train: TrainConfig = TrainConfig(),  # noqa: B008 - frozen
    jobs: int | None = None,
    device: str = "cpu",
    root: str | Path | None = None,
    spent: float = 0.0,
    on_time: OnTime | None = None,
) -> Recommendation:
    """Find the operator and rate to use on a graph, within a time budget.

    Args:
        dataset: spec, or a dataset of your own.
        model: spec of the model.
        budget: seconds that everything may take; kept within 10 % unless one training takes longer
            than that. It ends earlier where more seeds would be more than 100.
        operators: specs of the candidates, without p.
        rates: their rates.
        margin: half-width of the equivalence region, in units of the metric (0.01: one point).
        alpha: level of the tests and of the intervals (1 - alpha).
        train: the training protocol.
        jobs: number of worker processes; by default all cores.
        device: where to train, as torch names it.
        root: read-only mirror of raw files, see `gnndrop.datasets.load`.
        spent: seconds of the budget that are gone already.
        on_time: called with the seconds gone and the budget after each training.

    Returns:
        The recommendation; after an interruption (KeyboardInterrupt) what there is.

    Raises:
        UnknownNameError: if an operator, dataset or model is unknown.
        ParameterError: if a setting is out of its range, or the budget too small for a search and
            six pairs.
        DataError: if the dataset cannot be had.

    Example:
        >>> found = recommend(
        ...     "csbm:nodes=60,classes=2,features=4", "mlp", 10.0, operators=["dropout"],
        ...     rates=[0.5], train=TrainConfig(epochs=2), jobs=1,
        ... )
        >>> found.verdict.pairs >= 6
        True
    """
    start = time.monotonic() - spent
    if not 0 < budget < math.inf:
        raise ParameterError(f"budget must be finite and above 0 seconds, got {budget}")
    candidates = tuple(spec for name in operators for spec, _ in at_rates(name, rates))
    config = CompareConfig(
        operators=candidates,
        datasets=(dataset if isinstance(dataset, str) else dataset.name,),
        models=(model,),
        margin=margin,
        alpha=alpha,
        train=train,
        device=device,
    )
    with (
        tempfile.TemporaryDirectory(prefix="gnndrop-", ignore_cleanup_errors=True) as folder,
        open_session(
            {"study": {"recommend": asdict(config)}},
            config.operators,
            (dataset,),
            config.models,
            jobs=jobs,
            device=device,
            out=folder,
            root=root,
        ) as session,
    ):
        race = _Race(session, config, candidates, start, budget, on_time)
        interrupted = False
        try:
            race.decide(race.search())
        except KeyboardInterrupt:
            interrupted = True
        return race.outcome(interrupted)


class _OutOfTimeError(Exception):
    """The budget is used up; what is finished is in the store."""


@dataclass
class _Race:
    """The state of a recommendation; every training is in the session's store.

    Args:
        session: what trains.
        config: the comparison of all candidates, of which the final takes a few.
        candidates: their specs.
        start: when it began, on the monotonic clock.
        budget: seconds.
        on_time: called after each training.
        searched: the trials of the search, by spec.
        final: the comparison of the finalists; None before.
        overhead: time gone for each second that trainings report, of all workers together.
    """

    session: Session
    config: CompareConfig
    candidates: tuple[str, ...]
    start: float
    budget: float
    on_time: OnTime | None
    searched: dict[str, list[Trial]] = field(default_factory=dict)
    final: CompareConfig | None = None
    overhead: float = 1.0

    @property
    def graph(self) -> GraphSummary:
        (graph,) = self.session.graphs.values()
        return graph

    @property
    def jobs(self) -> int:
        return self.session.jobs or int(joblib.cpu_count())

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def search(self) -> tuple[str, ...]:
        """Halve the candidates on validation; return the finalists."""
        # The first training of a worker also loads and compiles; the second one tells the time.
        for _ in range(2):
            self.train(("none",), seeds=self.jobs)
        self.check_budget()
        left = self.candidates
        end = SEARCH_SHARE * self.budget
        while True:
            rungs = max(1, math.ceil(math.log(len(left) / FINALISTS, HALVING)))
            self.train(left, self.seeds_within(left, (end - self.elapsed()) / rungs))
            ranked = [one.spec for one in self.ranking() if one.spec in left and not one.error]
            left = tuple(ranked[: max(FINALISTS, len(left) // HALVING)])
            if len(left) <= FINALISTS or self.elapsed() >= end:
                return left[:FINALISTS]

    def decide(self, finalists: tuple[str, ...]) -> None:
        """Train the finalists and `none` on fresh seeds, as many as fit."""
        if not finalists:
            return
        seeds = self.seeds_within(
            ("none", *finalists), RESERVE * self.budget - self.elapsed(), MINIMUM_PAIRS
        )
        self.final = replace(self.config, operators=("none", *finalists), seeds=seeds)
        self.run(self.planned(self.final))

    def check_budget(self) -> None:
        """Refuse a budget that leaves no time for one training of each candidate and six pairs.

        Raises:
            ParameterError: if it does.
        """
        trainings = len(self.candidates) + (1 + FINALISTS) * MINIMUM_PAIRS
        need = self.elapsed() + trainings * self.cost("none") / self.jobs
        if need > self.budget:
            raise ParameterError(
                f"the budget must allow a search and {MINIMUM_PAIRS} pairs, about {need:.0f} s on "
                f"this graph, got {self.budget:.0f} s; give more time, or fewer operators and rates"
            )

    def train(self, specs: Sequence[str], seeds: int) -> None:
        """Train so many more seeds of every spec on the search's side."""
        trials = []
        for _ in range(seeds):
            for spec in specs:
                own = self.searched.setdefault(spec, [])
                (model,) = self.config.models
                trial = selection_trial(
                    self.graph, model, spec, spec, len(own), self.config.train, self.config.device
                )
                own.append(trial)
                trials.append(trial)
        began = time.monotonic()
        results = self.run(trials)
        seconds = sum(result.seconds or 0.0 for result in results.values())
        if seconds > 0:
            self.overhead = (time.monotonic() - began) * min(self.jobs, len(trials)) / seconds

    def run(self, trials: Sequence[Trial]) -> dict[str, Result]:
        """Train until the budget is used up; return what is finished."""
        try:
            return self.session.run(trials, self.watch)
        except _OutOfTimeError:
            return self.session.store.results(trials)

    def watch(self, done: int, total: int, result: Result | None) -> None:
        """Tell the time after each training, and end the run when it is over."""
        if self.on_time is not None:
            self.on_time(self.elapsed(), self.budget)
        if result is not None and done < total and self.elapsed() > self.budget:
            raise _OutOfTimeError

    def cost(self, spec: str) -> float:
        """Return the seconds that a training takes a worker; a new one is taken for `none`."""
        found = self.session.store.results(self.searched.get(spec, [])).values()
        known = [result.seconds for result in found if result.seconds is not None]
        if known:
            return self.overhead * statistics.median(known)
        return 0.0 if spec == "none" else self.cost("none")

    def seeds_within(self, specs: Sequence[str], seconds: float, least: int = 1) -> int:
        """Return how many seeds of all the specs fit into the time."""
        cost = sum(map(self.cost, specs)) / self.jobs
        fitting = int(seconds / cost) if cost > 0 else least
        return min(max(fitting, least), SEEDS_AT_MOST)

    def ranking(self) -> list[Candidate]:
        """Return all candidates, best on validation first; those that failed last."""
        return sorted(map(self.candidate, self.candidates), key=_rank)

    def candidate(self, spec: str) -> Candidate:
        """Return how far the search took a candidate."""
        found = self.session.store.results(self.searched.get(spec, [])).values()
        scores = [result.validation for result in found if result.validation is not None]
        return Candidate(
            spec=spec,
            validation=statistics.fmean(scores) if scores else None,
            seeds=len(scores),
            error=next((result.error for result in found if result.status != "ok"), ""),
        )

    def planned(self, config: CompareConfig) -> list[Trial]:
        return plan(config, {self.graph.name: self.graph.splits}, OPERATORS)

    def outcome(self, interrupted: bool) -> Recommendation:
        """Return the recommendation from what is in the store."""
        comparison = self.compared()
        verdicts = [
            verdict
            for verdict in (comparison.verdicts if comparison else ())
            if verdict.difference is not None
        ]
        better = [verdict for verdict in verdicts if verdict.verdict == "better"]
        best = max(better or verdicts, key=_gain, default=None)
        return Recommendation(
            dataset=self.graph.name,
            model=self.config.models[0],
            choice=best.operator if best and better else "none",
            verdict=best,
            candidates=tuple(self.ranking()),
            comparison=comparison,
            budget=self.budget,
            seconds=self.elapsed(),
            interrupted=interrupted,
        )

    def compared(self) -> Comparison | None:
        """Return the comparison on the fresh seeds that are complete, from the first on."""
        if self.final is None:
            return None
        trials = self.planned(self.final)
        results = self.session.store.results(trials)
        open_seeds = [trial.seed for trial in trials if trial.key not in results]
        seeds = min(open_seeds, default=self.final.seeds)
        if seeds == 0:
            return None
        config = replace(self.final, seeds=seeds)
        return summarize_results(
            config, [self.graph], self.planned(config), results, self.session.environment
        )


def _rank(candidate: Candidate) -> tuple[bool, float]:
    return bool(candidate.error), -(candidate.validation or 0.0)


def _gain(verdict: Verdict) -> float:
    return verdict.difference or 0.0
