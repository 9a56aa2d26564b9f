"""What the commands print; the only file that imports rich."""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gnndrop.errors import ParameterError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.registry import format_spec, parse_spec
from gnndrop.study.report import Cell, Comparison, Failure, GraphSummary
from gnndrop.study.statistics import Verdict

MARKS = {
    "better": Text("▲", "green"),
    "worse": Text("▼", "red"),
    "equivalent": Text("="),
    "undecided": Text("?"),
}
LEGEND = (
    "Mean and standard deviation over runs, in points of the metric. Against none: "
    "▲ better, ▼ worse, = equivalent, ? undecided."
)
TESTS = {
    "paired-t": "plain where one split is fixed",
    "nadeau-bengio-t": "with the Nadeau-Bengio correction where splits vary",
}
DATASET_FACTS = ("name", "nodes", "edges", "features", "classes", "homophily", "splits", "files")
DATASET_LEGEND = (
    "homophily: of edges. files: here, or what a download takes; none: it needs no files. More of "
    "each, as metric, licence and citation: --json."
)
CHECK_LEGEND = (
    "Every quantity at the rate p and the entry where theory and measurement are the farthest "
    "apart, in units of the bound: 5.5 standard errors, and rounding. All rates: --json, --plot."
)
OPERATOR_WIDTH, CELL_WIDTH, TABLE_WIDTH = 26, 15, 56


def write(text: str) -> None:
    """Write to stdout; a reader that has gone (`| head`) has what it wanted.

    Raises:
        ParameterError: if the result cannot be written: where it goes to is the user's choice.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What Python still holds for stdout when it exits must go nowhere, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise ParameterError(f"the output must be writable, got: {error.strerror}") from error


def write_json(document: object) -> None:
    """Write one JSON document to stdout."""
    write(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_pairs(values: Mapping[str, object]) -> None:
    """Write names and values to stdout, in two columns."""
    write_rich(_pairs((name, str(value)) for name, value in values.items()))


def write_listing(entries: Iterable[Mapping[str, Any]]) -> None:
    """Write the entries of `gnndrop list` to stdout."""
    write_rich(_pairs((entry["name"], "\n".join(_lines(entry))) for entry in entries))


def write_datasets(entries: Sequence[Mapping[str, Any]]) -> None:
    """Write the graphs of `gnndrop list` to stdout, one to a line, and what their specs may set."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="")  # 80 columns will do
    for fact in DATASET_FACTS:
        table.add_column(fact, justify="left" if fact in ("name", "files") else "right")
    for entry in entries:
        table.add_row(*(_fact(entry, fact) for fact in DATASET_FACTS))
    options = (
        (entry["name"], ", ".join(_option(*item) for item in entry["options"].items()))
        for entry in entries
        if entry["options"]
    )
    legend = Text(f"\n{DATASET_LEGEND}\n\nOptions, as name:option=value:")
    write_rich(table, legend, _pairs(options))


def write_checks(sentences: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what `gnndrop check` found to stdout: a line for each operator, then a table."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="")
    for column in ("subject", "quantity"):
        table.add_column(column, overflow="fold")
    for column in ("p", "theory", "measured", "± bound", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["subject"], row["quantity"], f"{row['p']:g}", *_measured(row))
    write_rich(*sentences)
    if rows:
        write_rich("", table, f"\n{CHECK_LEGEND}")


def _measured(row: Mapping[str, Any]) -> tuple[str, str, str, Text]:
    """Return the cells of a measurement: the values, and whether they agree."""
    measured = "nan" if row["measured"] is None else f"{row['measured']:.4g}"
    mark = Text("ok") if row["passed"] else Text("OFF", "red")
    return f"{row['theory']:.4g}", measured, f"{row['bound']:.2g}", mark


def write_comparison(comparison: Comparison) -> None:
    """Write the tables, the verdicts, the failures and the protocol of a comparison to stdout."""
    groups = [
        Group(title, *(table for graph in graphs for table in _tables(comparison, graph)))
        for title, graphs in group_graphs(comparison.datasets)
    ]
    write_rich(
        Columns(groups, padding=(0, 4)),
        LEGEND,
        *section("Verdicts", comparison.sentences()),
        *section("Failed trials", list_failures(comparison.failures)),
        *section("Protocol", _protocol(comparison)),
    )


@contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int, object], None]]:
    """Show a bar on stderr while the context lasts, if stderr is a terminal.

    Yields:
        What to call with the number done, the number of all, and the last result.
    """
    console = Console(stderr=True)
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(unit, total=None)

        def on_result(done: int, total: int, result: object) -> None:
            if result is None:  # the first call: these were found done, and tell nothing of speed
                bar.reset(task, completed=done, total=total)
            bar.update(task, completed=done)

        yield on_result


def _width() -> int:
    return shutil.get_terminal_size().columns  # or COLUMNS; 80 in a pipe


def write_rich(*parts: RenderableType) -> None:
    """Write texts and tables to stdout: colours and line breaks on a terminal alone."""
    text = io.StringIO()
    is_terminal = sys.stdout.isatty()
    console = Console(
        file=text,
        force_terminal=is_terminal or None,  # None: FORCE_COLOR may ask for it
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        width=_width(),
        highlight=False,
        markup=False,
        emoji=False,
    )
    for part in parts:
        # In a file a sentence is one line; on a terminal it breaks between words.
        console.print(part, soft_wrap=isinstance(part, str) and not is_terminal)
    write("".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()))


def _pairs(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        table.add_row(name, Text(text))
    return table


def _lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that describe an entry of a listing."""
    yield entry["summary"]
    if entry.get("axes"):
        yield f"site: {entry['site']}; mask axes: {' x '.join(entry['axes'])}"
    if entry["options"]:
        yield "options: " + ", ".join(_option(*item) for item in entry["options"].items())
    if entry["source"]:
        yield f"source: {entry['source']}"


def _fact(entry: Mapping[str, Any], fact: str) -> str:
    """Return what the table of graphs says of one in a column."""
    if fact == "files":
        return "none" if entry["is_offline"] else _files(entry)
    if fact == "homophily":
        return "?" if entry[fact] is None else f"{entry[fact]:.2f}"
    return "random" if entry[fact] is None else str(entry[fact])


def _files(entry: Mapping[str, Any]) -> str:
    if entry["is_here"]:
        return "here"
    return "? MB" if entry["bytes"] is None else f"{entry['bytes'] / 1e6:.1f} MB"


def _option(name: str, default: object) -> str:
    """Return an option as a spec would set it; its name alone where the default is to decide."""
    return name if default is None else f"{name}={str(default).lower()}"


def group_graphs(graphs: Iterable[GraphSummary]) -> Iterator[tuple[str, list[GraphSummary]]]:
    """Yield a title and its graphs, the homophilous ones first."""
    for title, homophilous in (("HOMOPHILOUS", True), ("HETEROPHILOUS", False)):
        members = [graph for graph in graphs if graph.homophilous == homophilous]
        if members:
            yield title, members


def _tables(comparison: Comparison, graph: GraphSummary) -> Iterator[Table]:
    """Yield a dataset's table, or several where its models do not fit side by side."""
    rows = [row for row in comparison.rows() if row[0].dataset == graph.name]
    models = list(dict.fromkeys(cell.model for cell, _ in rows))
    fitting = max(1, (_width() - OPERATOR_WIDTH) // CELL_WIDTH)
    for first in range(0, len(models), fitting):
        yield _table(graph, models[first : first + fitting], rows)


def _table(
    graph: GraphSummary, models: list[str], rows: list[tuple[Cell, Verdict | None]]
) -> Table:
    table = Table(
        title=Text(
            f"\n{graph.name}: nodes {graph.nodes}, edges {graph.edges}, splits {graph.splits}, "
            f"metric {graph.metric}\n{homophily(graph)}",
            overflow="fold",  # the path of an own graph may be long
        ),
        title_justify="left",
        title_style="",
        header_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        min_width=TABLE_WIDTH,
    )
    table.add_column("operator", overflow="fold", max_width=OPERATOR_WIDTH)
    for model in models:
        table.add_column(model, overflow="fold")
    texts = {(cell.operator, cell.model): _score(cell, verdict) for cell, verdict in rows}
    for operator in dict.fromkeys(cell.operator for cell, _ in rows):
        table.add_row(operator, *(texts[operator, model] for model in models))
    return table


def _score(cell: Cell, verdict: Verdict | None) -> Text:
    known = sum(score is not None for score in cell.scores)
    text = Text(cell.status if cell.mean is None else f"{100 * cell.mean:.1f}")
    if cell.std is not None:
        text.append(f" ± {100 * cell.std:.1f}")
    if 0 < known < len(cell.scores):
        text.append(f" ({known}/{len(cell.scores)})")
    if verdict is not None:
        text = Text.assemble(text, " ", MARKS[verdict.verdict])
    return text


def section(title: str, lines: list[str]) -> list[str]:
    """Return a title and a list below it; nothing where the list is empty."""
    return ["", f"{title}:", *(f"- {line}" for line in lines)] if lines else []


def list_failures(failures: Iterable[Failure]) -> list[str]:
    """Return a line for each operator, model, dataset and reason, with the seeds that it struck."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for one in failures:
        place = f"{one.operator} in {one.model} on {one.dataset}"
        seeds.setdefault((place, one.error), []).append(str(one.seed))
    return [
        f"{place}, seeds {', '.join(dict.fromkeys(struck))}: {error}"
        for (place, error), struck in seeds.items()
    ]


def homophily(graph: GraphSummary) -> str:
    """Return a line with a graph's homophily by every measure."""
    measures = (f"{name.replace('_', '-')} {value:.2f}" for name, value in graph.homophily.items())
    return f"homophily: {', '.join(measures)}"


def _protocol(comparison: Comparison) -> list[str]:
    """Return how scores and verdicts were reached."""
    asked = comparison.protocol
    train = asked["train"]
    splits = "each on every split" if asked["splits"] == "all" else "seed k on split k mod n"
    stop = f" (patience {train['patience']})" if train["patience"] else ""
    rows = ", bag-of-words rows sum to one" if train["normalize_features"] else ""
    lines = [
        f"{asked['seeds']} seeds, {splits}; {_rates(asked)}",
        f"{'; '.join(map(full_model, asked['models']))}; on {asked['device']}",
        f"Adam, learning rate {train['learning_rate']:g}, weight decay {train['weight_decay']:g}, "
        f"at most {train['epochs']} epochs{stop}, best validation weights{rows}",
    ]
    used = dict.fromkeys(TESTS[verdict.test] for verdict in comparison.verdicts)
    if used:
        lines.append(
            f"paired t test, {' or '.join(used)}; Holm over all {len(comparison.verdicts)} at "
            f"{asked['alpha']:g}; equivalence margin {100 * asked['margin']:g} points"
        )
    return lines + [f"{graph.name}: {graph.note}" for graph in comparison.datasets if graph.note]


def _rates(asked: Mapping[str, Any]) -> str:
    if asked["rates"]:
        return f"rates chosen on validation from {', '.join(map(str, asked['rates']))}"
    # An operator's own spec says its rate, given or not.
    return ", ".join(OPERATORS.make(spec).spec for spec in asked["operators"])


def full_model(spec: str) -> str:
    """Return the spec of a model with its defaults written out."""
    name, given = parse_spec(spec)
    options = {**MODELS.options(name), **given}
    return format_spec(name, {key: options[key] for key in options if key != "out_channels"})
