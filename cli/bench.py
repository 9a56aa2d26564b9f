"""`gnndrop bench`: run a study that is written down in a file."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gnndrop.cli._exit import SOME_FAILED, resumable
from gnndrop.cli._options import DataRoot, Debug, Jobs, Json, check_folder
from gnndrop.errors import ParameterError

if TYPE_CHECKING:
    from gnndrop.study.bench import LeftOut, SuiteResult
    from gnndrop.study.factors import FactorEffect
    from gnndrop.study.published import Reproduction
    from gnndrop.study.suite import SuiteSettings


def bench(
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE",
            help="A built-in suite, or the path of a .toml file.",
            show_default=False,
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the built-in suites.")] = False,
    copy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Write a built-in suite to NAME.toml, to edit.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the trials and an estimate of time.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(help="Number of seeds of all that is run.", show_default="the suite's own"),
    ] = None,
    jobs: Jobs = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Keep the results in this folder; the same command resumes it.",
            callback=check_folder,
        ),
    ] = None,
    data_root: DataRoot = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a suite: comparisons, and assessments of uncertainty, written down in a file.

    A graph that cannot be had is named and left out. When a run is interrupted, the same command
    resumes it.
    """
    if (suite is not None) + list_ + (copy is not None) != 1:
        raise ParameterError(
            "bench needs one of a suite, --list and --copy NAME; gnndrop bench --list names them"
        )
    from gnndrop.study.builtin import builtin_suites, load_suite  # what --help can do without

    if list_:
        _list({name: load_suite(name).settings for name in builtin_suites()}, json)
    elif copy is not None:
        _copy(load_suite(copy).text, Path(f"{copy}.toml"))
    elif dry_run:
        _estimate(str(suite), seeds, jobs, data_root, json)
    else:
        _run(str(suite), seeds, jobs, out, data_root, json)


def _list(suites: "dict[str, SuiteSettings]", json: bool) -> None:
    from gnndrop.cli import _render

    if json:
        facts = {"title", "description", "budget"}
        _render.write_json(
            [{"name": name, **one.model_dump(include=facts)} for name, one in suites.items()]
        )
        return
    _render.write_pairs(
        {name: f"{one.title}\n{one.description}\n{one.budget}" for name, one in suites.items()}
    )


def _copy(text: str, path: Path) -> None:
    from gnndrop.study.files import write_text

    if path.exists():
        raise ParameterError(f"--copy must not overwrite a file, got {path}; move it away first")
    write_text(path, text)
    typer.echo(f"Wrote {path}; edit it, then run: gnndrop bench {path}", err=True)


def _estimate(
    name: str, seeds: int | None, jobs: int | None, root: Path | None, json: bool
) -> None:
    from dataclasses import asdict

    from gnndrop.cli import _render
    from gnndrop.study.builtin import load_suite
    from gnndrop.study.estimate import estimate_suite

    suite = load_suite(name)
    estimates, left_out = estimate_suite(suite, seeds=seeds, jobs=jobs, root=root)
    assessed = {one.name for one in suite.settings.uncertainty}
    if json:
        _render.write_json(
            {
                "suite": name,
                **{
                    key: [
                        {
                            "name": one.comparison,
                            "trials": one.trials,
                            "seconds": round(one.seconds, 1),
                        }
                        for one in estimates
                        if (one.comparison in assessed) == (key == "assessments")
                    ]
                    for key in ("comparisons", "assessments")
                },
                "left_out": [asdict(one) for one in left_out],
            }
        )
        return
    rows = [(one.comparison, str(one.trials), _duration(one.seconds)) for one in estimates]
    total = (
        "all",
        str(sum(one.trials for one in estimates)),
        _duration(sum(one.seconds for one in estimates)),
    )
    _render.write(_table([("comparison", "trials", "at most"), *rows, total]))
    _render.write(
        "\nAn estimate from a few timed epochs of every kind of trial, as if none stopped early.\n"
    )
    if assessed:
        _render.write(
            "Models of an assessment are its trials; the time to sample them is left out.\n"
        )
    _write_section("Left out", _left_out(left_out))


def _run(
    name: str,
    seeds: int | None,
    jobs: int | None,
    out: Path | None,
    root: Path | None,
    json: bool,
) -> None:
    with resumable("trials") as command:
        from gnndrop.cli import _render
        from gnndrop.study.bench import run_suite
        from gnndrop.study.builtin import load_suite

        with _render.progress("trials") as show:
            result = run_suite(
                load_suite(name),
                seeds=seeds,
                out=out,
                jobs=jobs,
                root=root,
                command=command,
                on_result=_tell(show),
            )
    if json:
        _render.write_json(result.to_dict())
    else:
        _write_result(result)
    if result.failures:
        raise typer.Exit(SOME_FAILED)


def _tell(show: Callable[[int, int, object], None]) -> Callable[[str, int, int, object], None]:
    """Return what names every comparison on stderr as it begins."""

    def on_result(comparison: str, done: int, total: int, result: object) -> None:
        if result is None:
            found = f", {done} of them found finished" if done else ""
            typer.echo(f"{comparison}: {total} trials{found}", err=True)
        show(done, total, result)

    return on_result


def _write_result(result: "SuiteResult") -> None:
    from gnndrop.cli import _render, _uncertainty_text

    settings = result.suite.settings
    _render.write(f"{settings.title}\n{settings.description}\n")
    if result.seeds is not None:
        _render.write(
            f"With --seeds {result.seeds}, in the place of the suite's own number of seeds.\n"
        )
    notes = {one.name: one.note for one in settings.parts}
    for name, comparison in result.comparisons.items():
        _write_title(name, notes[name])
        _render.write_comparison(comparison)
    for name, assessment in result.assessments.items():
        _write_title(name, notes[name])
        _uncertainty_text.write_study(assessment)
    if result.published:
        _render.write("\nOurs beside published numbers, in points:\n\n")
        _render.write(_table(_published(result.published)))
        _write_section("Sources", dict.fromkeys(one.source for one in result.published))
        differing = dict.fromkeys(
            f"{one.comparison}: {one.differs}" for one in result.published if one.differs
        )
        _write_section("How the settings differ", differing)
    if result.factors:
        _render.write("\nWhat a factor does to the gain over none, in points:\n\n")
        _render.write(_table(_factors(result.factors)))
    _write_section("Left out", _left_out(result.left_out))
    _write_section("Notes", settings.notes)


def _write_title(name: str, note: str) -> None:
    from gnndrop.cli import _render

    title = f"{name}: {note}" if note else name
    _render.write(f"\n{'=' * len(title)}\n{title}\n{'=' * len(title)}\n")


def _published(rows: "Sequence[Reproduction]") -> list[tuple[str, ...]]:
    head = ("dataset", "model", "operator", "published", "ours", "difference", "margin", "")
    return [
        head,
        *(
            (
                one.dataset,
                one.model,
                one.operator,
                _mean(one.value, one.spread),
                _mean(one.ours, one.std),
                _with_interval(one.difference, one.interval),
                f"{100 * one.margin:g}",
                one.agreement,
            )
            for one in rows
        ),
    ]


def _factors(rows: "Sequence[FactorEffect]") -> list[tuple[str, ...]]:
    head = ("changed", "against", "dataset", "operator", "gain", "before", "effect", "")
    return [
        head,
        *(
            (
                one.comparison,
                one.against,
                one.dataset,
                one.operator,
                f"{100 * one.gain:+.1f}",
                f"{100 * one.gain_against:+.1f}",
                _with_interval(one.effect, one.interval),
                {"better": "raises it", "worse": "lowers it"}.get(one.verdict, one.verdict),
            )
            for one in rows
        ),
    ]


def _left_out(rows: "Sequence[LeftOut]") -> list[str]:
    return [f"{one.dataset} in {one.comparison}: {one.reason}" for one in rows]


def _mean(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    ends = "" if interval is None else " ({:+.1f} to {:+.1f})".format(*(100 * x for x in interval))
    return f"{100 * value:+.1f}{ends}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return columns of text; plain, since a cell may be longer than a terminal is wide."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in rows
    )


def _write_section(title: str, lines: Iterable[str]) -> None:
    from gnndrop.cli import _render

    listed = list(lines)
    if listed:
        _render.write(f"\n{title}:\n" + "".join(f"- {line}\n" for line in listed))
