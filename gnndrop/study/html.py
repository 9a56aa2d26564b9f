"""A study as one page of HTML that loads nothing: verdicts, tables, figures, provenance."""

import functools
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gnndrop.datasets import DATASETS
from gnndrop.errors import GnndropError, ParameterError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.registry import Registry, split_spec
from gnndrop.study.figures import WIDTH, Axis, Curve, curves, difference_axis
from gnndrop.study.ranks import Ranking, rank_in_model
from gnndrop.study.reading import Run, Study
from gnndrop.study.report import Cell, GraphSummary
from gnndrop.study.statistics import Decision, Verdict
from gnndrop.study.store import flatten
from gnndrop.study.words import MARKS, p_text, points, signed_points, verdict_sentence

# What is claimed first, then what is not.
DECISIONS: Mapping[Decision, str] = {
    "better": "Helps",
    "worse": "Hurts",
    "equivalent": "Equivalent",
    "undecided": "Undecided",
}


@dataclass(frozen=True)
class ModelView:
    """What is drawn of one model on one dataset.

    Args:
        model: its spec.
        verdicts: those with a difference to draw.
        axis: the scale of their differences, the same in all models of the dataset.
        curves: operators over their rate.
        heights: the scale of the curves.
    """

    model: str
    verdicts: tuple[Verdict, ...]
    axis: Axis
    curves: tuple[Curve, ...]
    heights: Axis

    @property
    def is_cut(self) -> bool:
        """Whether an interval leaves the figure."""
        ends = chain.from_iterable(verdict.interval or () for verdict in self.verdicts)
        return not all(self.axis.holds(100 * end) for end in ends)


@dataclass(frozen=True)
class GraphView:
    """What a page shows of one dataset.

    Args:
        graph: the dataset.
        rows: an operator and its cell and verdict in every model.
        models: the models, in the order of the columns.
        views: what is drawn, model by model.
    """

    graph: GraphSummary
    rows: tuple[tuple[str, tuple[tuple[Cell, Verdict | None], ...]], ...]
    models: tuple[str, ...]
    views: tuple[ModelView, ...]


@dataclass(frozen=True)
class RunView:
    """What a page shows of one comparison.

    Args:
        run: the comparison.
        sentences: the verdicts by their decision, as sentences.
        graphs: its datasets, the homophilous ones first.
        rankings: for every model the ranking of its operators, or why there is none.
        failures: reasons of failed trials, each with where it struck and which seeds.
        sources: names of operators, models and datasets with their papers.
    """

    run: Run
    sentences: Mapping[Decision, tuple[str, ...]]
    graphs: tuple[GraphView, ...]
    rankings: tuple[tuple[str, Ranking | str], ...]
    failures: Mapping[tuple[str, str], tuple[int, ...]]
    sources: Mapping[str, str]


def render_html(study: Study) -> str:
    """Write a study as one self-contained page.

    The page loads nothing, runs no script, and whatever names and messages hold is text in it.

    Args:
        study: the study.

    Returns:
        The page, HTML 5.

    Example:
        >>> page = render_html(Study("<b>", (), {}, ""))
        >>> page[:15], "<h1>&lt;b&gt;</h1>" in page
        ('<!doctype html>', True)
    """
    return _environment().get_template("report.html.jinja").render(
        study=study, views=[_view(run) for run in study.runs], decisions=DECISIONS, marks=MARKS,
        width=WIDTH, axis=Axis,
    )  # fmt: skip


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gnndrop.study", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        points=points,
        signed=signed_points,
        p=p_text,
        shorten=_shorten,
        flat=flatten,
        counted=_count,
        sentence=_capitalize,
        known=_known,
    )
    return environment


def _view(run: Run) -> RunView:
    comparison = run.comparison
    margin = comparison.protocol["margin"]
    sentences: dict[Decision, tuple[str, ...]] = {
        decision: tuple(
            verdict_sentence(verdict, margin)
            for verdict in comparison.verdicts
            if verdict.verdict == decision
        )
        for decision in DECISIONS
    }
    failures: dict[tuple[str, str], tuple[int, ...]] = {}
    for one in comparison.failures:
        key = (f"{one.operator} in {one.model} on {one.dataset}", one.error)
        failures[key] = (*failures.get(key, ()), one.seed)
    return RunView(
        run=run,
        sentences=sentences,
        graphs=tuple(
            _graph_view(run, graph)
            for graph in sorted(comparison.datasets, key=lambda graph: not graph.homophilous)
        ),
        rankings=tuple(
            (model, _ranking(run, model))
            for model in dict.fromkeys(cell.model for cell in comparison.cells)
        ),
        failures=failures,
        sources=dict(_sources(run)),
    )


def _graph_view(run: Run, graph: GraphSummary) -> GraphView:
    margin = run.comparison.protocol["margin"]
    found = {
        (cell.operator, cell.model): (cell, verdict)
        for cell, verdict in run.comparison.rows()
        if cell.dataset == graph.name
    }
    models = tuple(dict.fromkeys(model for _, model in found))
    drawn = {
        model: tuple(
            verdict
            for (_, other), (_, verdict) in found.items()
            if other == model and verdict and verdict.difference is not None
        )
        for model in models
    }
    axis = difference_axis(chain(*drawn.values()), margin)
    over_rates = {model: tuple(curves(verdicts)) for model, verdicts in drawn.items()}
    points_of_curves = (
        point.verdict for curve in chain(*over_rates.values()) for point in curve.rates
    )
    heights = difference_axis(points_of_curves, margin, start=190.0, end=16.0)
    return GraphView(
        graph=graph,
        rows=tuple(
            (operator, tuple(found[operator, model] for model in models))
            for operator in dict.fromkeys(operator for operator, _ in found)
        ),
        models=models,
        views=tuple(
            ModelView(model, verdicts, axis, over_rates[model], heights)
            for model, verdicts in drawn.items()
            if verdicts
        ),
    )


def _ranking(run: Run, model: str) -> Ranking | str:
    try:
        return rank_in_model(run.comparison, model)
    except ParameterError as error:
        return str(error)


def _sources(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the papers of what was compared, as far as they are declared."""
    protocol = run.comparison.protocol
    kinds: tuple[tuple[str, Registry[Any]], ...] = (
        ("operators", OPERATORS),
        ("models", MODELS),
        ("datasets", DATASETS),
    )
    for kind, registry in kinds:
        specs = [part for spec in protocol[kind] for part in split_spec(spec)]
        for name in dict.fromkeys(spec.partition(":")[0] for spec in specs):
            source = _source(registry, name)
            if source:
                yield name, source


def _source(registry: Registry[Any], name: str) -> str | None:
    """Return the paragraph of a docstring that begins with `Source:`, else a dataset's citation."""
    try:
        factory = registry[name]
        declared = factory() if registry is DATASETS else factory
    except GnndropError:  # a graph of one's own, a plug-in that is not installed
        return None
    for paragraph in (inspect.getdoc(factory) or "").split("\n\n"):
        if paragraph.startswith("Source: "):
            return " ".join(paragraph.removeprefix("Source: ").split())
    return getattr(declared, "citation", None)


def _shorten(text: str, length: int = 48) -> str:
    """Cut a label that would leave its figure; the table has it whole."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _count(values: Iterable[float]) -> list[tuple[float, int]]:
    return sorted(Counter(values).items())


def _known(score: float | None, signed: bool = False) -> str:
    """Write a number that may be missing, in points."""
    return "—" if score is None else signed_points(score) if signed else points(score)


def _capitalize(text: str) -> str:
    """Begin with a capital; `str.capitalize` would lower the rest."""
    return text[:1].upper() + text[1:]
