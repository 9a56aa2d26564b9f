"""`run_suite`: what a suite holds, one after the other, and what it says together.

A folder of results holds

    suite.toml                  the suite as it was run
    study.json                  what was run, where, and what the comparisons say together
    <comparison>/config.json    the run folder of that comparison: `gnndrop.study.store`
    <comparison>/trials/
    <comparison>/result.json    its outcome, what `gnndrop compare --json` prints
    <assessment>/               as for a comparison; its `result.json` is what `gnndrop uncertainty
                                --json` prints
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch_geometric.transforms import ToUndirected

from gnndrop.config import CompareConfig
from gnndrop.datasets import DATASETS, Dataset, load
from gnndrop.errors import DataError, GnndropError, ParameterError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.study.factors import Contrast, FactorEffect, factor_effects
from gnndrop.study.files import write_text
from gnndrop.study.plan import plan
from gnndrop.study.protocol import compare
from gnndrop.study.provenance import environment
from gnndrop.study.published import Reproduction, reproduce
from gnndrop.study.report import SCHEMA, Comparison
from gnndrop.study.suite import ComparisonSettings, Suite, UncertaintySettings
from gnndrop.study.uncertainty import assess_uncertainty
from gnndrop.study.uncertainty_report import UncertaintyStudy

# Called with the name of a comparison or assessment, its number of finished trials, of all trials,
# and the last result: None in the first call of each.
OnSuiteResult = Callable[[str, int, int, object], object]


@dataclass(frozen=True)
class LeftOut:
    """A graph that could not be had.

    Args:
        comparison: name of the comparison or assessment that lacks it.
        dataset: its spec.
        reason: why, in one sentence.
    """

    comparison: str
    dataset: str
    reason: str


@dataclass(frozen=True)
class SuiteResult:
    """The outcome of a suite.

    Args:
        suite: the suite.
        seeds: the number of seeds that overrode the suite's own; None where none did.
        comparisons: the outcomes by name; a comparison without any graph has none.
        assessments: those of the assessments of uncertainty, likewise.
        published: every published number beside ours.
        factors: what changed factors did to the gains of operators.
        left_out: graphs that could not be had.
        environment: versions and machine.
        seconds: how long it took, this time: what was found finished took none.
        command: the command line.
    """

    suite: Suite
    seeds: int | None
    comparisons: Mapping[str, Comparison]
    assessments: Mapping[str, UncertaintyStudy]
    published: tuple[Reproduction, ...]
    factors: tuple[FactorEffect, ...]
    left_out: tuple[LeftOut, ...]
    environment: Mapping[str, Any]
    seconds: float
    command: str | None

    @property
    def failures(self) -> int:
        """Number of trials that failed."""
        compared = sum(len(one.failures) for one in self.comparisons.values())
        return compared + sum(len(one.failures) for one in self.assessments.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types, the own documents of what was run too."""
        return {
            **self.study(),
            "results": {name: one.to_dict() for name, one in self.comparisons.items()},
            "assessments": {name: one.to_dict() for name, one in self.assessments.items()},
        }

    def study(self) -> dict[str, Any]:
        """Return what `study.json` holds."""
        return {
            **_header(self.suite, self.seeds, self.command),
            "finished": True,
            "published": [asdict(one) for one in self.published],
            "factors": [asdict(one) for one in self.factors],
            "left_out": [asdict(one) for one in self.left_out],
            "environment": dict(self.environment),
            "seconds": round(self.seconds, 1),
        }


def run_suite(
    suite: Suite,
    *,
    seeds: int | None = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    root: str | Path | None = None,
    command: str | None = None,
    on_result: OnSuiteResult | None = None,
) -> SuiteResult:
    """Run all that a suite holds; a graph that cannot be had leaves the rest to run.

    Comparisons come first, then assessments of uncertainty. Each is one family of tests: Holm's
    adjustment does not reach over several. Finished trials are kept: the same call continues after
    an interruption.

    Args:
        suite: what to run.
        seeds: number of seeds of all that is run; by default the suite's own.
        out: folder of the results, see above; by default nothing is kept but what is interrupted.
        jobs: number of worker processes; by default all cores.
        root: read-only mirror of raw data files, see `gnndrop.datasets.load`.
        command: the command line, kept in the folder.
        on_result: called as `on_result(name, done, total, result)`.

    Returns:
        The outcome; failed trials are in it, and do not raise.

    Raises:
        UnknownNameError: if an operator, dataset or model is unknown; the message names the line.
        ParameterError: if a spec cannot be read, a setting is out of its range, or `out` belongs to
            another study.
        DataError: if no graph at all is to be had, or a result cannot be written.

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
        ... seeds = 2
        ... train = {epochs = 2}
        ... '''
        >>> result = run_suite(Suite("tiny", text, "tiny.toml"), jobs=1)
        >>> [cell.operator for cell in result.comparisons["mlp"].cells]
        ['none', 'dropout']
    """
    started = time.perf_counter()
    check_specs(suite)
    if seeds is not None and seeds < 1:
        raise ParameterError(f"seeds must be at least 1, got {seeds}")
    folder = None if out is None else Path(out)
    if folder is not None:
        _open(folder, suite, seeds, command)
    graphs = GraphSource(root)
    comparisons: dict[str, Comparison] = {}
    assessments: dict[str, UncertaintyStudy] = {}
    left_out: list[LeftOut] = []
    for settings in suite.settings.parts:
        found, missing = graphs.find(settings)
        left_out += missing
        if not found:
            continue
        place = folder / settings.name if folder else None
        options = {"jobs": jobs, "out": place, "command": command}
        outcome = _run(settings, list(found.values()), seeds, on_result, **options)
        if isinstance(outcome, Comparison):
            comparisons[settings.name] = outcome
        else:
            assessments[settings.name] = outcome
        if place:
            write_text(place / "result.json", _dump(outcome.to_dict()))
    check_any_graph(suite, len(comparisons) + len(assessments), left_out)
    result = SuiteResult(
        suite=suite,
        seeds=seeds,
        comparisons=comparisons,
        assessments=assessments,
        published=_published(suite, comparisons),
        factors=_factors(suite, comparisons),
        left_out=tuple(left_out),
        environment=environment(),
        seconds=time.perf_counter() - started,
        command=command,
    )
    if folder is not None:
        write_text(folder / "study.json", _dump(result.study()))
    return result


class GraphSource:
    """Graphs by their specs, each loaded once.

    Args:
        root: read-only mirror of raw data files.
    """

    def __init__(self, root: str | Path | None) -> None:
        self.root = root
        self._found: dict[str, Dataset | str] = {}

    def load(self, spec: str, undirected: bool = False) -> Dataset | str:
        """Return a graph, or why it cannot be had.

        Args:
            spec: its spec.
            undirected: give every edge its reverse; the graph keeps its name.
        """
        if spec not in self._found:
            try:
                self._found[spec] = load(spec, self.root)
            except DataError as error:
                self._found[spec] = str(error)
        found = self._found[spec]
        return _symmetrize(found) if undirected and isinstance(found, Dataset) else found

    def find(
        self, settings: ComparisonSettings | UncertaintySettings
    ) -> tuple[dict[str, Dataset], list[LeftOut]]:
        """Return the graphs of a comparison or assessment by their specs, and what is missing."""
        undirected = isinstance(settings, ComparisonSettings) and settings.undirected
        found = {spec: self.load(spec, undirected) for spec in settings.datasets}
        return (
            {spec: graph for spec, graph in found.items() if isinstance(graph, Dataset)},
            [
                LeftOut(settings.name, spec, reason)
                for spec, reason in found.items()
                if isinstance(reason, str)
            ],
        )


def check_any_graph(suite: Suite, found: int, left_out: Sequence[LeftOut]) -> None:
    """Make sure that something of a suite can be run.

    Args:
        suite: the suite.
        found: number of comparisons and assessments that have a graph.
        left_out: graphs that cannot be had.

    Raises:
        DataError: if there are none.
    """
    if not found:
        raise DataError(f"no graph of {suite.source} is to be had: {left_out[0].reason}")


def check_specs(suite: Suite) -> None:
    """Check every name and option of a suite before anything runs.

    Raises:
        GnndropError: of the kind that the first wrong spec raises; its message names the line.
    """

    def check_model(spec: str) -> None:
        MODELS.make(spec, in_channels=1, out_channels=2)

    checks: dict[str, Callable[[str], object]] = {
        "datasets": DATASETS.make,
        "models": check_model,
        "operators": OPERATORS.make,
    }
    with torch.random.fork_rng(devices=[]):
        for kind in ("comparison", "uncertainty"):
            for number, settings in enumerate(getattr(suite.settings, kind)):
                for key, check in checks.items():
                    for spec in getattr(settings, key):
                        try:
                            check(spec)
                            if key == "operators" and kind == "comparison":
                                _check_rates(settings, spec)
                        except GnndropError as error:
                            place = (kind, number, key)
                            raise type(error)(str(suite.error(place, str(error), spec))) from error


def _check_rates(settings: ComparisonSettings, operator: str) -> None:
    """Plan a trial, which tells whether an operator may be given the comparison's rates."""
    config = replace(settings.config(), operators=(operator,), seeds=1)
    plan(config, dict.fromkeys(config.datasets, 1), OPERATORS)


def _run(
    settings: ComparisonSettings | UncertaintySettings,
    datasets: list[Dataset],
    seeds: int | None,
    on_result: OnSuiteResult | None,
    **options: Any,
) -> Comparison | UncertaintyStudy:
    """Run a comparison or an assessment; `options` are those of `compare` that no suite sets."""
    config = settings.config()
    report = on_result or (lambda name, done, total, result: None)
    shared: dict[str, Any] = {
        "seeds": config.seeds if seeds is None else seeds,
        "margin": config.margin,
        "alpha": config.alpha,
        "train": config.train,
        "on_result": partial(report, settings.name),
        **options,
    }
    asked = (config.operators, datasets, config.models)
    if isinstance(config, CompareConfig):
        return compare(*asked, splits=config.splits, rates=config.rates, **shared)
    assessed = assess_uncertainty(
        *asked, samples=config.samples, members=config.members, risk=config.risk, **shared
    )
    return assessed.study


def _symmetrize(dataset: Dataset) -> Dataset:
    data = ToUndirected(reduce="mean")(dataset.data.clone())
    note = "; ".join(filter(None, (dataset.note, "every edge given its reverse by the suite")))
    return replace(dataset, data=data, note=note)


def _published(suite: Suite, comparisons: Mapping[str, Comparison]) -> tuple[Reproduction, ...]:
    cells = {
        (name, cell.dataset, cell.model, cell.operator): cell
        for name, comparison in comparisons.items()
        for cell in comparison.cells
    }
    return tuple(
        reproduce(row, cells.get((row.comparison, row.dataset, row.model, row.operator)))
        for row in suite.settings.published
    )


def _factors(suite: Suite, comparisons: Mapping[str, Comparison]) -> tuple[FactorEffect, ...]:
    return tuple(
        factor_effects(
            [
                Contrast(one.name, one.against, comparisons[one.name], comparisons[one.against])
                for one in suite.settings.comparison
                if one.against in comparisons and one.name in comparisons
            ]
        )
    )


def _open(folder: Path, suite: Suite, seeds: int | None, command: str | None) -> None:
    """Make the folder, or refuse one that holds another study."""
    path = folder / "study.json"
    header = _header(suite, seeds, command)
    try:
        there = json.loads(path.read_bytes()) if path.exists() else None
        if there is None:
            _check_new(folder, suite)
            folder.mkdir(parents=True, exist_ok=True)
    except ParameterError:  # a ValueError, too
        raise
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"the folder of a suite must be one that gnndrop wrote, or new, got {path}: {error}; "
            "choose another with out (--out)"
        ) from error
    # What is said of the suite may change; what it runs may not.
    told = there if isinstance(there, dict) else {}
    if there is not None and told.get("settings") != header["settings"]:
        raise ParameterError(
            f"a folder must be resumed with its own suite, got {suite.name!r} for {folder}, which "
            f"holds {told.get('suite', 'something else')!r} as it was run there; "
            "choose another folder"
        )
    if there is not None and told.get("seeds") != seeds:
        raise ParameterError(
            f"a folder must be resumed with its own number of seeds, got {_seeds(seeds)} for "
            f"{folder}, which was run with {_seeds(told.get('seeds'))}; give the same or choose "
            "another folder"
        )
    write_text(folder / "suite.toml", suite.text)
    started = {**header, "finished": False, "published": [], "factors": [], "left_out": []}
    unfinished = {**started, "environment": environment(), "seconds": None}
    if there is None or not there.get("finished"):
        write_text(path, _dump(unfinished))


def _seeds(seeds: int | None) -> str:
    return "the suite's own" if seeds is None else f"--seeds {seeds}"


def _check_new(folder: Path, suite: Suite) -> None:
    """Refuse a folder without a study in which something else would be overwritten or mixed in."""
    if (folder / "config.json").exists():
        raise ParameterError(
            f"the folder of a suite must not hold another run, got config.json in {folder}; "
            "choose another folder"
        )
    text = folder / "suite.toml"
    if text.exists() and text.read_text(encoding="utf-8") != suite.text:
        raise ParameterError(
            f"a suite.toml must not be overwritten, got another one in {folder} and no study.json; "
            "choose another folder"
        )


def _header(suite: Suite, seeds: int | None, command: str | None) -> dict[str, Any]:
    settings = suite.settings
    return {
        "schema": SCHEMA,
        "suite": suite.name,
        "title": settings.title,
        "description": settings.description,
        "budget": settings.budget,
        "notes": list(settings.notes),
        "seeds": seeds,
        "comparisons": [one.name for one in settings.comparison],
        "assessments": [one.name for one in settings.uncertainty],
        # As JSON gives it back: lists in the place of tuples.
        "settings": [one.model_dump(mode="json") for one in settings.parts],
        "command": command,
    }


def _dump(document: object) -> str:
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
