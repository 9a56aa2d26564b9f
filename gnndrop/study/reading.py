"""Runs read back: the outcome of a comparison, or of a suite of them, from the files it left.

What is read is what `gnndrop compare --out` and `gnndrop bench --out` write; a run that was
interrupted gives what there is.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from gnndrop.config import CompareConfig
from gnndrop.datasets import load
from gnndrop.errors import GnndropError, ParameterError
from gnndrop.operators import OPERATORS
from gnndrop.study.graphs import fingerprint, summarize
from gnndrop.study.plan import plan
from gnndrop.study.report import SCHEMA, Comparison, GraphSummary, summarize_results
from gnndrop.study.store import Store

Document = TypeVar("Document")


@dataclass(frozen=True)
class Run:
    """A comparison and how much of it is finished.

    Args:
        name: its name in the suite, else its folder's.
        comparison: its outcome; what has not run is `unfinished`, and its pairs are missing.
        finished: number of finished trials.
        planned: number of all trials.
        command: the command line that ran it; empty where there was none.
        note: what the suite says of it.
    """

    name: str
    comparison: Comparison
    finished: int
    planned: int
    command: str = ""
    note: str = ""


@dataclass(frozen=True)
class Study:
    """What a report tells of: one comparison, or those of a suite.

    Args:
        title: its title.
        runs: the comparisons, in the order of the suite.
        environment: versions and machine.
        command: the command line that ran it.
        description: what a suite asks.
        notes: its sources and choices.
        published: published scores with ours beside them (`gnndrop.study.published`).
        factors: what changed factors did to the gains of operators (`gnndrop.study.factors`).
        left_out: what the suite could not run, or has not yet, and why.
        seconds: duration of the suite; None where it is not known.
        is_suite: whether the comparisons belong to a suite.
        is_finished: whether nothing is left to run.

    Example:
        >>> Study("nothing", (), {}, "").is_finished
        True
    """

    title: str
    runs: tuple[Run, ...]
    environment: Mapping[str, Any]
    command: str
    description: str = ""
    notes: tuple[str, ...] = ()
    published: tuple[Mapping[str, Any], ...] = ()
    factors: tuple[Mapping[str, Any], ...] = ()
    left_out: tuple[str, ...] = ()
    seconds: float | None = None
    is_suite: bool = False
    is_finished: bool = True


def read_study(folder: Path, root: Path | None = None) -> Study:
    """Read what a comparison or a suite left in its run folder.

    Args:
        folder: the run folder of `gnndrop compare --out` or of `gnndrop bench --out`.
        root: read-only mirror of raw data files, see `gnndrop.datasets.load`; asked only where the
            run did not keep what there is to say of its graphs.

    Returns:
        The study.

    Raises:
        ParameterError: if the folder holds no run, a run of another schema, nothing that is
            finished, or results of other data than there is here.
        DataError: if a dataset must be read and cannot be.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_study(Path(folder))
        Traceback (most recent call last):
        gnndrop.errors.ParameterError: a report needs a folder that holds a run, got ...
    """
    if (folder / "config.json").is_file():
        _check_kind(folder)
        run = _checked(folder / "config.json", lambda: _read_run(folder, root))
        if not run.finished:
            raise ParameterError(
                f"a report needs a trial that is finished, got 0 of {run.planned} in {folder}; "
                "run its command again, which resumes it"
            )
        return Study(
            title=run.name,
            runs=(run,),
            environment=run.comparison.environment,
            command=run.command,
            is_finished=run.finished == run.planned,
        )
    if (folder / "study.json").is_file():
        return _checked(folder / "study.json", lambda: _read_suite(folder, root))
    raise ParameterError(
        f"a report needs a folder that holds a run, got {folder} without config.json; "
        "give the one that `gnndrop compare --out` or `gnndrop bench --out` wrote"
    )


def _check_kind(folder: Path) -> None:
    """Refuse the run of another command, which keeps a `study` in the place of a comparison."""
    document = _read_document(folder / "config.json")
    study = document.get("study")
    if study is not None and "config" not in document:
        name = next(iter(study), "another study") if isinstance(study, dict) else study
        command = document.get("command")
        again = f"this again: {command}" if command else "its own command again"
        raise ParameterError(
            f"a report needs a run of compare or bench, got one of gnndrop {name} in {folder}; "
            f"to print what it found, run {again}"
        )


def _read_suite(folder: Path, root: Path | None) -> Study:
    told = _read_document(folder / "study.json")
    assessments = told.get("assessments", [])  # older suites had none
    results = [folder / name / "result.json" for name in assessments]
    documents = ", ".join(str(path) for path in results if path.is_file())
    notes = {one["name"]: one["note"] for one in told["settings"]}
    begun = [name for name in told["comparisons"] if (folder / name / "config.json").is_file()]
    runs = [replace(_read_run(folder / name, root), note=notes.get(name, "")) for name in begun]
    left_out = (
        *("{comparison}, {dataset}: {reason}".format(**one) for one in told["left_out"]),
        *(f"{run.name}: no trial is finished" for run in runs if not run.finished),
        *(f"{name}: not begun" for name in told["comparisons"] if name not in begun),
    )
    if not any(run.finished for run in runs):
        reason = left_out[0] if left_out else "it holds assessments of uncertainty alone"
        way = (
            f"read {documents}, or draw figures with `gnndrop uncertainty --plot`"
            if documents
            else "run its command again, which resumes it"
        )
        raise ParameterError(
            f"a report needs a comparison with a finished trial, got none in {folder}: "
            f"{reason}; {way}"
        )
    return Study(
        title=told["title"],
        runs=tuple(run for run in runs if run.finished),
        environment=told["environment"],
        command=told["command"] or "",
        description=told["description"],
        notes=(
            *told["notes"],
            *([f"The assessments of uncertainty are not shown: {documents}"] if documents else ()),
        ),
        published=tuple(told["published"]),
        factors=tuple(told["factors"]),
        left_out=left_out,
        seconds=told["seconds"],
        is_suite=True,
        is_finished=told["finished"] and all(run.finished == run.planned for run in runs),
    )


def _checked(path: Path, read: Callable[[], Document]) -> Document:
    """Read something that may lack what gnndrop writes, or hold it in other types."""
    try:
        return read()
    except GnndropError:  # as of data that are missing; some are the errors below, too
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ParameterError(
            f"{path} and what lies beside it must be as gnndrop wrote them, got something else "
            f"({type(error).__name__}); give another folder"
        ) from error


def _read_run(folder: Path, root: Path | None) -> Run:
    document = _read_document(folder / "config.json")
    config = TypeAdapter(CompareConfig).validate_python(document["config"])
    graphs = _read_graphs(folder, document, config, root)
    trials = plan(config, {graph.name: graph.splits for graph in graphs}, OPERATORS)
    results = Store(folder).results(trials)
    return Run(
        name=folder.resolve().name,
        comparison=summarize_results(
            config, graphs, trials, results, document.get("environment", {})
        ),
        finished=len(results),
        planned=len(trials),
        command=document.get("command") or "",  # a run from Python has none
    )


def _read_graphs(
    folder: Path, document: Mapping[str, Any], config: CompareConfig, root: Path | None
) -> list[GraphSummary]:
    """Return what the run says of its graphs, else what the data say that it ran on."""
    result = folder / "result.json"
    told = _read_document(result)["datasets"] if result.is_file() else document.get("graphs")
    if told is not None:
        return [_read_graph(fields) for fields in told]
    graphs = []
    for name in config.datasets:
        dataset = load(name, root)
        if fingerprint(dataset) != document["data"][name]:
            raise ParameterError(
                f"a report must read the data that its run was on, got another {name}; "
                "give their folder with --data-root"
            )
        graphs.append(summarize(dataset))
    return graphs


def _read_graph(fields: Mapping[str, Any]) -> GraphSummary:
    """Undo what JSON did: it has no NaN."""
    homophily = {
        name: math.nan if value is None else value for name, value in fields["homophily"].items()
    }
    return GraphSummary(**{**fields, "homophily": homophily})


def _read_document(path: Path) -> dict[str, Any]:
    """Read a JSON object of our schema."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"{path} must be a JSON document that gnndrop wrote, got: {error}"
        ) from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ParameterError(
            f"{path} must have the schema {SCHEMA}, got {schema!r}; "
            "report it with the version of gnndrop that ran it"
        )
    return dict(document)
