"""`run_suite`: the comparisons of a suite one after the other, and what they say together.

A folder of results holds

    suite.toml                  the suite as it was run
    study.json                  what was run, where, and what the comparisons say together
    <comparison>/config.json    the run folder of that comparison: `gnndrop.study.store`
    <comparison>/trials/
    <comparison>/result.json    its outcome, what `gnndrop compare --json` prints
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch_geometric.transforms import ToUndirected

from gnndrop.datasets import DATASETS, Dataset, load
from gnndrop.errors import DataError, GnndropError, ParameterError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.study.factors import Contrast, FactorEffect, factor_effects
from gnndrop.study.files import write_text
from gnndrop.study.protocol import compare
from gnndrop.study.provenance import environment
from gnndrop.study.published import Reproduction, reproduce
from gnndrop.study.report import SCHEMA, Comparison
from gnndrop.study.suite import ComparisonSettings, Suite

# Called with a comparison's name, its number of finished trials, of all trials, and the last
# result: None in the first call of each comparison.
OnSuiteResult = Callable[[str, int, int, object], object]


@dataclass(frozen=True)
class LeftOut:
    """A graph that could not be had.

    Args:
        comparison: name of the comparison that lacks it.
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
    published: tuple[Reproduction, ...]
    factors: tuple[FactorEffect, ...]
    left_out: tuple[LeftOut, ...]
    environment: Mapping[str, Any]
    seconds: float
    command: str | None

    @property
    def failures(self) -> int:
        """Number of trials that failed."""
        return sum(len(comparison.failures) for comparison in self.comparisons.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types, the comparisons' own documents too."""
        documents = {name: one.to_dict() for name, one in self.comparisons.items()}
        return {**self.study(), "results": documents}

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
    """Run every comparison of a suite; a graph that cannot be had leaves the rest to run.

    Each comparison is one family of tests: Holm's adjustment does not reach over several. Finished
    trials are kept: the same call continues after an interruption.

    Args:
        suite: what to run.
        seeds: number of seeds of every comparison; by default the suite's own.
        out: folder of the results, see above; by default nothing is kept but what is interrupted.
        jobs: number of worker processes; by default all cores.
        root: read-only mirror of raw data files, see `gnndrop.datasets.load`.
        command: the command line, kept in the folder.
        on_result: called as `on_result(comparison, done, total, result)`.

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
    left_out: list[LeftOut] = []
    for settings in suite.settings.comparison:
        datasets = []
        for spec in settings.datasets:
            found = graphs.load(spec, settings.undirected)
            if isinstance(found, Dataset):
                datasets.append(found)
            else:
                left_out.append(LeftOut(settings.name, spec, found))
        if datasets:
            place = folder / settings.name if folder else None
            comparison = _compare(settings, datasets, seeds, place, jobs, command, on_result)
            comparisons[settings.name] = comparison
            if place:
                write_text(place / "result.json", _dump(comparison.to_dict()))
    if not comparisons:
        raise DataError(f"no graph of {suite.source} is to be had: {left_out[0].reason}")
    result = SuiteResult(
        suite=suite,
        seeds=seeds,
        comparisons=comparisons,
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
        for number, settings in enumerate(suite.settings.comparison):
            for key, check in checks.items():
                for spec in getattr(settings, key):
                    try:
                        check(spec)
                    except GnndropError as error:
                        place = ("comparison", number, key)
                        raise type(error)(str(suite.error(place, str(error), spec))) from error


def _compare(
    settings: ComparisonSettings,
    datasets: list[Dataset],
    seeds: int | None,
    out: Path | None,
    jobs: int | None,
    command: str | None,
    on_result: OnSuiteResult | None,
) -> Comparison:
    config = settings.config()
    report = on_result or (lambda name, done, total, result: None)
    return compare(
        config.operators,
        datasets,
        config.models,
        config.seeds if seeds is None else seeds,
        splits=config.splits,
        rates=config.rates,
        margin=config.margin,
        alpha=config.alpha,
        train=config.train,
        jobs=jobs,
        out=out,
        command=command,
        on_result=lambda done, total, result: report(settings.name, done, total, result),
    )


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
            folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"the folder of a suite must be one that gnndrop wrote, or new, got {path}: {error}; "
            "choose another with out (--out)"
        ) from error
    # What is said of the suite may change; what it runs may not.
    same = there is None or (
        isinstance(there, dict)
        and (there.get("seeds"), there.get("settings")) == (seeds, header["settings"])
    )
    if not same:
        name = there.get("suite") if isinstance(there, dict) else "something else"
        raise ParameterError(
            f"a folder must be resumed with its own suite and seeds, got {suite.name!r} for "
            f"{folder}, which holds {name!r} as it was run there; choose another folder"
        )
    write_text(folder / "suite.toml", suite.text)
    started = {**header, "finished": False, "published": [], "factors": [], "left_out": []}
    unfinished = {**started, "environment": environment(), "seconds": None}
    if there is None or not there.get("finished"):
        write_text(path, _dump(unfinished))


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
        # As JSON gives it back: lists in the place of tuples.
        "settings": [one.model_dump(mode="json") for one in settings.comparison],
        "command": command,
    }


def _dump(document: object) -> str:
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
