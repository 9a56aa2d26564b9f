"""Sweeps: the gain of every operator over `none`, along one axis and over the rate.

An axis is the rate itself, the depth of the model, or an option of the `csbm` graphs: homophily,
feature signal, degree. On a `csbm` axis everything else is fixed, and seed k draws graph, split and
initial weights k: pairs are independent, and what is found holds for the kind of graph, not for
one. On other axes seeds and splits are those of `compare`.
"""

import csv
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.errors import ParameterError
from gnndrop.registry import did_you_mean, format_spec, parse_spec
from gnndrop.study.plan import Trial
from gnndrop.study.report import SCHEMA, Comparison, Failure
from gnndrop.study.run import OnResult
from gnndrop.study.session import Session, at_rates, open_session
from gnndrop.study.statistics import Decision, Pairing, Verdict, judge
from gnndrop.study.words import MARKS, align, points, signed_points

# Every axis with the values it takes where none are given.
AXES: Mapping[str, tuple[float, ...]] = {
    "rate": (0.1, 0.3, 0.5, 0.7),
    "homophily": (0.1, 0.3, 0.5, 0.7, 0.9),
    "signal": (0.5, 1.0, 2.0, 4.0),
    "degree": (2.0, 4.0, 8.0, 16.0),
    "depth": (2, 4, 8, 16),
}
OF_THE_GRAPH = ("homophily", "signal", "degree")
OPERATORS_BY_DEFAULT = ("dropout", "drop-node", "drop-edge", "drop-message")
GRAPH_BY_DEFAULT = "csbm:nodes=500"
CLAIM = "dropping harms under homophily and helps under heterophily"

Answer = Literal["supported", "contradicted", "undecided"]
Place = tuple[str, str, str]  # dataset, model and operator, as they were asked for

CSV_COLUMNS = (
    *("dataset", "model", "operator", "value", "rate", "metric", "trials", "mean", "std"),
    *("status", "difference", "low", "high", "p_adjusted", "pairs", "verdict"),
)


@dataclass(frozen=True)
class Point:
    """One operator at one value of the axis and one rate; scores in units of the metric.

    Args:
        dataset: spec of the graph as it was asked for, without the axis.
        model: spec of the model, without the axis.
        operator: spec of the operator, without its rate.
        value: the value of the axis; None for `none` in a sweep over the rate.
        rate: the rate; None for `none`.
        metric: the metric.
        scores: test scores by seed, paired between operators; None where a trial failed.
        mean: their mean.
        std: their sample standard deviation.
        status: `ok`, `failed` or `not-applicable`.
        difference: mean gain over `none` at the same value; None for `none`, like all that follow.
        interval: its confidence interval, not adjusted.
        p_adjusted: two-sided p of no gain after Holm over all points of the sweep.
        pairs: number of pairs.
        verdict: the decision.
    """

    dataset: str
    model: str
    operator: str
    value: float | None
    rate: float | None
    metric: str
    scores: tuple[float | None, ...]
    mean: float | None
    std: float | None
    status: str
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_adjusted: float | None = None
    pairs: int | None = None
    verdict: Decision | None = None


@dataclass(frozen=True)
class Claim:
    """How one operator bears on the claim that dropping harms homophilous graphs and helps others.

    Of every seed the gain is averaged over the values of a half and the rates, then tested; Holm
    goes over all the claims' tests of the sweep.

    Args:
        dataset: spec of the graph, without the axis.
        model: spec of the model.
        operator: spec of the operator, without its rate.
        homophilous: gain in the half where adjusted homophily is at least 0.3, measured on the
            graph of seed 0; None if it is empty.
        heterophilous: gain in the other half.
        answer: `supported` (worse there, better here), `contradicted` (better there or worse here),
            else `undecided`.
        values: the values of the homophilous half.
    """

    dataset: str
    model: str
    operator: str
    homophilous: Verdict | None
    heterophilous: Verdict | None
    answer: Answer
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """The outcome of `sweep`.

    Args:
        over: the axis.
        values: its values.
        rates: the rates; those of the axis in a sweep over the rate.
        points: one for each dataset, model, operator, value and rate, `none` first.
        claims: one for each operator in a sweep over homophily, else empty.
        homophilous: the values of a sweep over homophily that belong to the homophilous half of a
            graph; where graphs differ, each claim has its own.
        failures: the trials that failed.
        protocol: the fields of `CompareConfig`; its specs name the points.
        environment: versions and machine.

    Example:
        >>> Sweep("rate", (0.5,), (0.5,), (), (), (), (), {}, {}).to_dict()["over"]
        'rate'
    """

    over: str
    values: tuple[float, ...]
    rates: tuple[float, ...]
    points: tuple[Point, ...]
    claims: tuple[Claim, ...]
    homophilous: tuple[float, ...]
    failures: tuple[Failure, ...]
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types."""
        fields = asdict(self)
        order = ("over", "values", "rates", "homophilous", "environment", "protocol")
        names = (*order, "points", "claims", "failures")
        return {"schema": SCHEMA, **{name: fields[name] for name in names}}

    def to_csv(self) -> str:
        """Return a table with one line for each point; what does not exist is empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for point in self.points:
            low, high = point.interval or (None, None)
            trials = sum(score is not None for score in point.scores)
            writer.writerow({**asdict(point), "low": low, "high": high, "trials": trials})
        return text.getvalue()

    def sentences(self) -> list[str]:
        """Return one sentence for each claim."""
        return [self._sentence(claim) for claim in self.claims]

    def __str__(self) -> str:
        places = dict.fromkeys((point.dataset, point.model) for point in self.points)
        tables = [
            f"{model} on {dataset}, over {self.over}\n{self._table(dataset, model)}"
            for dataset, model in places
        ]
        legend = (
            "none: mean score in points. Others: gain over none in points ± half the "
            f"{100 * (1 - self.protocol['alpha']):g} % interval; ▲ better, ▼ worse, = equivalent, "
            "? undecided."
        )
        failed = [
            f"{one.operator} in {one.model} on {one.dataset}, seed {one.seed}: {one.error}"
            for one in self.failures
        ]
        parts = [*tables, legend, *self.sentences()]
        return "\n\n".join([*parts, *(["Failed trials:", "\n".join(failed)] if failed else [])])

    def _table(self, dataset: str, model: str) -> str:
        """Return a line for each operator and rate, a column for each value."""
        cells: dict[str, dict[float | None, str]] = {}
        for point in self.points:
            if (point.dataset, point.model) == (dataset, model):
                shown = point.rate is not None and self.over != "rate"
                name = f"{point.operator} p={point.rate:g}" if shown else point.operator
                cells.setdefault(name, {})[point.value] = _cell_text(point)
        lines = [["", *(f"{value:g}" for value in self.values)]]
        for name, texts in cells.items():
            # In a sweep over the rate `none` is one point, which stands for every rate.
            lines.append([name, *(texts.get(value, texts.get(None, "")) for value in self.values)])
        return align(lines)

    def _sentence(self, claim: Claim) -> str:
        halves = (
            ("homophily", claim.homophilous, claim.values),
            (
                "heterophily",
                claim.heterophilous,
                tuple(value for value in self.values if value not in claim.values),
            ),
        )
        found = [
            f"under {name} ({_numbers(values)}) {_gain(verdict)}"
            for name, verdict, values in halves
            if verdict is not None
        ]
        return (
            f"{claim.operator} in {claim.model} on {claim.dataset}: that {CLAIM} is {claim.answer} "
            f"({'; '.join(found)}; means over the rates {_numbers(self.rates)})."
        )


def sweep(
    over: str = "rate",
    operators: Sequence[str] = OPERATORS_BY_DEFAULT,
    datasets: Sequence[str] = (GRAPH_BY_DEFAULT,),
    models: Sequence[str] = ("gcn",),
    *,
    values: Sequence[float] = (),
    rates: Sequence[float] = (),
    seeds: int = 8,
    margin: float = 0.01,
    alpha: float = 0.05,
    train: TrainConfig = TrainConfig(),  # noqa: B008 - frozen
    jobs: int | None = None,
    device: str = "cpu",
    out: str | Path | None = None,
    root: str | Path | None = None,
    command: str | None = None,
    on_result: OnResult | None = None,
) -> Sweep:
    """Measure the gain of operators over `none` along an axis, at several rates.

    Every operator is trained at every rate and every value, with the initial weights, graph and
    split of its `none`, and tested as `compare` does, Holm over all points. Finished trials are
    kept: the same call continues after an interruption.

    Args:
        over: `rate`, `homophily`, `signal`, `degree` (of `csbm` graphs) or `depth` (of the model).
        operators: specs, without p.
        datasets: specs; on an axis of the graph `csbm` with options, but for that axis, `seed` and
            `splits`: every seed draws its own graph.
        models: specs, without `num_layers` in a sweep over depth.
        values: values of the axis, by default those of `AXES`.
        rates: drop rates, by default those of `AXES`; not in a sweep over the rate, where `values`
            are the rates.
        seeds: number of seeds, that is of pairs at every point.
        margin: half-width of the equivalence region, in units of the metric (0.01: one point).
        alpha: level of the tests and of the intervals (1 - alpha).
        train: the training protocol.
        jobs: number of worker processes; by default all cores.
        device: where to train, as torch names it.
        out: run folder; by default one in the user's cache, removed when the sweep is complete.
        root: read-only mirror of raw files, see `gnndrop.datasets.load`.
        command: the command line, kept in the run folder.
        on_result: called as `on_result(done, total, result)`, at the start with None.

    Returns:
        The outcome; failed trials are in it, and do not raise.

    Raises:
        UnknownNameError: if an operator, dataset or model is unknown.
        ParameterError: if the axis is unknown, a setting out of its range or given twice, or `out`
            belongs to another study.
        DataError: if a dataset cannot be had, or a result not written.

    Example:
        >>> found = sweep(
        ...     "homophily", ["drop-edge"], ["csbm:nodes=60,classes=2,features=4"],
        ...     values=[0.1, 0.9], rates=[0.5], seeds=2, train=TrainConfig(epochs=2), jobs=1,
        ... )
        >>> [(point.operator, point.value, point.pairs) for point in found.points[:2]]
        [('none', 0.1, None), ('drop-edge', 0.1, 2)]
    """
    if over not in AXES:
        raise ParameterError(f"unknown axis {over!r}, {did_you_mean(over, list(AXES))}")
    if over == "rate" and rates:
        raise ParameterError(
            f"a sweep over the rate takes its rates as values, got rates {_numbers(rates)}, too; "
            "leave rates out"
        )
    values = tuple(values) or AXES[over]
    rates = values if over == "rate" else tuple(rates) or AXES["rate"]
    if len(set(values)) != len(values):
        raise ParameterError(f"values must be given each once, got {_numbers(values)}")
    drops = {spec: (name, rate) for name in operators for spec, rate in at_rates(name, rates)}
    places = _places(over, values, datasets, models)
    config = CompareConfig(
        operators=tuple(drops),
        datasets=tuple(dict.fromkeys(dataset for dataset, _ in places)),
        models=tuple(dict.fromkeys(model for _, model in places)),
        seeds=seeds,
        margin=margin,
        alpha=alpha,
        train=train,
        device=device,
    )
    draws = over in OF_THE_GRAPH
    with open_session(
        {"study": {"sweep": over, **asdict(config)}},
        config.operators,
        [draw for name in config.datasets for draw in _draws(name, seeds if draws else 0)],
        config.models,
        jobs=jobs,
        device=device,
        out=out,
        root=root,
        command=command,
    ) as session:
        comparison = _compare(session, config, draws, on_result)
    kinds = {graph.name: graph.homophilous for graph in comparison.datasets}
    homophilous = {  # by graph: where this half begins depends on the number of classes
        (data, value)
        for (dataset, _), (data, _, value) in places.items()
        if over == "homophily" and kinds[dataset]
    }
    points = tuple(_points(comparison, places, drops))
    return Sweep(
        over=over,
        values=values,
        rates=rates,
        points=points,
        claims=tuple(_claims(points, values, homophilous, margin, alpha))
        if over == "homophily"
        else (),
        homophilous=tuple(v for v in values if any(v == value for _, value in homophilous)),
        failures=comparison.failures,
        protocol=comparison.protocol,
        environment=comparison.environment,
    )


def read_numbers(text: str, name: str) -> tuple[float, ...]:
    """Read numbers with commas between.

    Args:
        text: as `0.1,0.5`; empty for none.
        name: what they are, for the message.

    Raises:
        ParameterError: if one cannot be read.

    Example:
        >>> read_numbers("0.1,0.5", "rates")
        (0.1, 0.5)
    """
    if not text:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ParameterError(f"{name} must be numbers with commas between, got {text!r}") from None


def _places(
    over: str, values: Sequence[float], datasets: Sequence[str], models: Sequence[str]
) -> dict[tuple[str, str], tuple[str, str, float | None]]:
    """Return what is asked of each pair of dataset and model: their specs without axis, value."""
    if over == "rate":
        return {(data, model): (data, model, None) for data in datasets for model in models}
    if over == "depth":
        return {
            (data, _with(model, "num_layers", _depth(value), ())): (data, model, value)
            for data in datasets
            for model in models
            for value in values
        }
    for data in datasets:
        if parse_spec(data)[0] != "csbm":
            raise ParameterError(
                f"a sweep over {over} needs csbm graphs, as csbm:nodes=500, got {data!r}"
            )
    return {
        (_with(data, over, float(value), ("seed", "splits")), model): (data, model, value)
        for data in datasets
        for value in values
        for model in models
    }


def _with(spec: str, option: str, value: float, reserved: tuple[str, ...]) -> str:
    """Return a spec with one more option; it and the reserved ones are the sweep's to set."""
    name, options = parse_spec(spec)
    for key in (option, *reserved):
        if key in options:
            raise ParameterError(f"the sweep sets {key} itself, got {spec!r}; leave {key} out")
    return format_spec(name, {**options, option: value})


def _depth(value: float) -> int:
    if not float(value).is_integer():
        raise ParameterError(f"values of depth must be whole numbers, got {value:g}")
    return int(value)


def _draws(dataset: str, seeds: int) -> list[str]:
    """Return the specs of the graphs that stand for a dataset."""
    return [f"{dataset},seed={seed}" for seed in range(seeds)] or [dataset]


def _compare(
    session: Session, config: CompareConfig, draws: bool, on_result: OnResult | None
) -> Comparison:
    """Carry out the comparison, where `draws` says so every seed on its own graph."""
    if not draws:
        graphs = [session.graphs[name] for name in config.datasets]
        return session.compare(config, graphs, on_result=on_result)

    def own_graph(trial: Trial) -> Trial:
        return replace(trial, dataset=_draws(trial.dataset, config.seeds)[trial.seed])

    graphs = [
        replace(session.graphs[_draws(name, 1)[0]], name=name, splits=1) for name in config.datasets
    ]
    return session.compare(config, graphs, own_graph, on_result)


def _points(
    comparison: Comparison,
    places: Mapping[tuple[str, str], tuple[str, str, float | None]],
    drops: Mapping[str, tuple[str, float]],
) -> Iterator[Point]:
    for cell, verdict in comparison.rows():
        dataset, model, value = places[cell.dataset, cell.model]
        operator, rate = drops.get(cell.operator, (cell.operator, None))
        yield Point(
            dataset=dataset,
            model=model,
            operator=operator,
            value=rate if value is None else value,
            rate=rate,
            metric=cell.metric,
            scores=cell.scores,
            mean=cell.mean,
            std=cell.std,
            status=cell.status,
            difference=verdict.difference if verdict else None,
            interval=verdict.interval if verdict else None,
            p_adjusted=verdict.p_adjusted if verdict else None,
            pairs=verdict.pairs if verdict else None,
            verdict=verdict.verdict if verdict else None,
        )


def _claims(
    points: Sequence[Point],
    values: Sequence[float],
    homophilous: set[tuple[str, float | None]],
    margin: float,
    alpha: float,
) -> list[Claim]:
    """Test the claim for every operator that has a place in its model."""
    baseline = {
        (point.dataset, point.model, point.value): point
        for point in points
        if point.operator == "none"
    }
    halves: dict[tuple[str, str, str, bool], list[list[float | None]]] = {}
    for point in points:
        if point.operator == "none" or point.status == "not-applicable":
            continue
        none = baseline[point.dataset, point.model, point.value]
        gains = [
            None if ours is None or theirs is None else ours - theirs
            for ours, theirs in zip(point.scores, none.scores, strict=True)
        ]
        is_above = (point.dataset, point.value) in homophilous
        half = (point.dataset, point.model, point.operator, is_above)
        halves.setdefault(half, []).append(gains)
    pairings = [_pairing(names[:3], gains) for names, gains in halves.items()]
    verdicts = dict(zip(halves, judge(pairings, margin=margin, alpha=alpha), strict=True))
    claims = []
    for names in dict.fromkeys((dataset, model, name) for dataset, model, name, _ in halves):
        above, below = verdicts.get((*names, True)), verdicts.get((*names, False))
        own = tuple(value for value in values if (names[0], value) in homophilous)
        claims.append(Claim(*names, above, below, _answer(above, below), own))
    return claims


def _pairing(names: Place, gains: Sequence[Sequence[float | None]]) -> Pairing:
    """Average the gains of every seed; a seed that lacks one is missing."""
    seeds = [[gain for gain in of_seed if gain is not None] for of_seed in zip(*gains, strict=True)]
    whole = [statistics.fmean(of_seed) for of_seed in seeds if len(of_seed) == len(gains)]
    return Pairing(*names, "none", tuple(whole), 0.0, missing=len(seeds) - len(whole))


def _answer(homophilous: Verdict | None, heterophilous: Verdict | None) -> Answer:
    above = homophilous.verdict if homophilous else "undecided"
    below = heterophilous.verdict if heterophilous else "undecided"
    if above == "better" or below == "worse":
        return "contradicted"
    return "supported" if (above, below) == ("worse", "better") else "undecided"


def _cell_text(point: Point) -> str:
    if point.mean is None:
        return point.status
    if point.difference is None:
        return f"{100 * point.mean:.1f}" + (" (failed)" if point.status == "failed" else "")
    reach = f" ±{50 * (point.interval[1] - point.interval[0]):.1f}" if point.interval else ""
    return f"{signed_points(point.difference)}{reach} {MARKS[point.verdict or 'undecided']}"


def _gain(verdict: Verdict) -> str:
    if verdict.difference is None or verdict.interval is None:
        return "the gain is unknown"
    low, high = map(points, verdict.interval)
    return (
        f"the gain is {signed_points(verdict.difference)} points [{low}, {high}], "
        f"{verdict.pairs} graphs"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
