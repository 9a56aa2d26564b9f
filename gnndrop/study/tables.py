"""A study as tables for papers and programs: Markdown, LaTeX (booktabs), CSV."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gnndrop.study.reading import Run, Study
from gnndrop.study.report import CSV_COLUMNS, Cell
from gnndrop.study.statistics import Verdict
from gnndrop.study.words import MARKS, mark, p_text, points, signed_points, verdict_sentence

VERDICT_COLUMNS = ("dataset", "model", "operator", "difference", "interval", "p (Holm)", "verdict")
FACTOR_COLUMNS = ("factor", "against", "dataset", "operator", "effect", "p (Holm)", "verdict")
PUBLISHED_COLUMNS = ("dataset", "model", "operator", "published", "ours", "agreement", "source")

_URL = re.compile(r"(https?://[^\s|<>`]*[^\s|<>`.,;:)])")
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # would be an option of the line break before it
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "▲": r"$\uparrow$",
    "▼": r"$\downarrow$",
    "—": "---",
}
_LEGEND = "▲ better, ▼ worse, = equivalent, unmarked: undecided"


@dataclass(frozen=True)
class Table:
    """A table of texts, none of them escaped.

    Args:
        caption: what it shows.
        header: names of the columns.
        rows: the lines.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def escape_markdown(text: str) -> str:
    r"""Make Markdown show a text as it is, on one line, anywhere; URLs become links.

    Example:
        >>> print(escape_markdown("a|b <c> *d* https://a.org/b_c."))
        a\|b \<c\> \*d\* <https://a.org/b_c>.
    """
    parts = _URL.split(" ".join(text.split()))
    parts[::2] = [re.sub(r"([\\`*_{}\[\]<>|~&$])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"<{url}>" for url in parts[1::2]]
    # A sign that makes a list or a heading does so at the beginning alone.
    return re.sub(r"^(\d*)([#+.)-])", r"\1\\\2", "".join(parts))


def escape_latex(text: str) -> str:
    r"""Make LaTeX show a text as it is, on one line.

    Example:
        >>> print(escape_latex("50 % of a_b: -1.0 ± 1"))
        50 \% of a\_b: $-$1.0 $\pm$ 1
    """
    escaped = "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
    return re.sub(r"(?<!\S)-(?=\d)", "$-$", escaped)


def render_markdown(study: Study) -> str:
    """Write a study's verdicts and tables in Markdown.

    Args:
        study: the study.

    Example:
        >>> print(render_markdown(Study("mine", (), {"torch": "2.13"}, "gnndrop compare")))
        # mine
        <BLANKLINE>
        Made by `gnndrop compare` with torch 2.13.
        <BLANKLINE>
    """
    blocks = [f"# {escape_markdown(study.title)}"]
    blocks += [f"**{escape_markdown(line)}**" for line in unfinished(study)]
    for run in study.runs:
        margin = run.comparison.protocol["margin"]
        if study.is_suite:
            blocks.append(f"## {escape_markdown(run.name)}")
        claims = sorted(run.comparison.verdicts, key=lambda one: list(MARKS).index(one.verdict))
        blocks += _bullets(verdict_sentence(one, margin) for one in claims)
        blocks += [_markdown(table) for table in cell_tables(run)]
        if run.comparison.failures:
            blocks.append("### Failed trials")
            blocks += _bullets(
                f"{one.operator} in {one.model} on {one.dataset}, seed {one.seed}: {one.error}"
                for one in run.comparison.failures
            )
    blocks += [_markdown(table) for table in suite_tables(study)]
    if study.left_out:
        blocks += ["## Left out", *_bullets(study.left_out)]
    versions = ", ".join(f"{name} {value}" for name, value in study.environment.items())
    command = f" by {_code(study.command)}" if study.command else ""
    blocks.append(f"Made{command} with {escape_markdown(versions)}.")
    return "\n\n".join(blocks) + "\n"


def render_latex(study: Study) -> str:
    r"""Write a study's tables in LaTeX; they need the package booktabs.

    Args:
        study: the study.

    Example:
        >>> render_latex(Study("mine", (), {}, "")).splitlines()[0]
        '% mine; needs \\usepackage{booktabs}'
    """
    head = [f"% {' '.join(study.title.split())}; needs \\usepackage{{booktabs}}"]
    head += [f"% {line}" for line in unfinished(study)]
    tables = [
        table
        for run in study.runs
        for table in (*cell_tables(run), verdict_table(run))
        if table.rows
    ]
    return "\n\n".join(["\n".join(head), *map(_latex, [*tables, *suite_tables(study)])]) + "\n"


def render_csv(study: Study) -> str:
    """Write the cells and verdicts of a study as CSV, as `gnndrop compare --csv` does.

    A suite has the name of the comparison in a first column.

    Args:
        study: the study.

    Example:
        >>> render_csv(Study("mine", (), {}, "", is_suite=True))[:25]
        'comparison,dataset,model,'
    """
    if not study.is_suite:
        return "".join(run.comparison.to_csv() for run in study.runs)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("comparison", *CSV_COLUMNS))
    for run in study.runs:
        _, *rows = csv.reader(io.StringIO(run.comparison.to_csv()))
        writer.writerows((run.name, *row) for row in rows)
    return text.getvalue()


def unfinished(study: Study) -> list[str]:
    """Return the line that says how much of a study there is; none where it is finished."""
    if study.is_finished:
        return []
    finished, planned = (
        sum(getattr(run, name) for run in study.runs) for name in ("finished", "planned")
    )
    return [f"Unfinished: {finished} of {planned} trials; where pairs are missing, no verdict"]


def cell_tables(run: Run) -> list[Table]:
    """Return a table for every model: a line for each operator, a column for each dataset."""
    found = {
        (cell.model, cell.operator, cell.dataset): _score(cell, one)
        for cell, one in run.comparison.rows()
    }
    models, operators, datasets = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    caption = "test scores of {} in points, mean ± standard deviation; against {}: " + _LEGEND
    return [
        Table(
            caption.format(model, run.comparison.protocol["operators"][0]),
            ("operator", *datasets),
            tuple(
                (operator, *(found[model, operator, dataset] for dataset in datasets))
                for operator in operators
            ),
        )
        for model in models
    ]


def verdict_table(run: Run) -> Table:
    """Return the verdicts of a comparison as a table."""
    return Table(
        f"differences to {run.comparison.protocol['operators'][0]} in points",
        VERDICT_COLUMNS,
        tuple(
            (one.dataset, one.model, one.operator, *_numbers(one), one.verdict)
            for one in run.comparison.verdicts
        ),
    )


def suite_tables(study: Study) -> list[Table]:
    """Return what the comparisons of a suite say together: factors, published scores and ours."""
    factors = tuple(
        (
            *(str(row[name]) for name in ("comparison", "against", "dataset", "operator")),
            signed_points(row["effect"]) + _interval(row["interval"]),
            p_text(row["p_adjusted"]),
            str(row["verdict"]),
        )
        for row in study.factors
    )
    published = tuple(
        (
            *(str(row[name]) for name in ("dataset", "model", "operator")),
            _spread(row["value"], row["spread"]),
            _spread(row["ours"], row["std"]),
            str(row["agreement"]),
            str(row["source"]),
        )
        for row in study.published
    )
    tables = (
        Table("effects of factors on the gains of operators, in points", FACTOR_COLUMNS, factors),
        Table("published scores and ours, in points", PUBLISHED_COLUMNS, published),
    )
    return [table for table in tables if table.rows]


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f" [{points(ends[0])}, {points(ends[1])}]"


def _score(cell: Cell, verdict: Verdict | None) -> str:
    known = sum(score is not None for score in cell.scores)
    if cell.mean is None:
        return cell.status
    part = f" ({known}/{len(cell.scores)})" if known < len(cell.scores) else ""
    return _spread(cell.mean, cell.std) + part + mark(verdict.verdict if verdict else None)


def _spread(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return "—"
    return points(mean) + ("" if spread is None else f" ± {points(spread)}")


def _numbers(verdict: Verdict) -> tuple[str, str, str]:
    if verdict.difference is None or verdict.interval is None:
        return "—", "—", "—"
    low, high = map(points, verdict.interval)
    return signed_points(verdict.difference), f"[{low}, {high}]", p_text(verdict.p_adjusted)


def _bullets(lines: Iterable[str]) -> list[str]:
    text = "\n".join(f"- {escape_markdown(line)}" for line in lines)
    return [text] if text else []


def _code(text: str) -> str:
    """Return a code span; its fence is longer than any run of backticks in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, pad = "`" * (longest + 1), " " if "`" in text else ""
    return f"{fence}{pad}{' '.join(text.split())}{pad}{fence}"


def _markdown(table: Table) -> str:
    lines = [_line(row, escape_markdown) for row in (table.header, *table.rows)]
    lines.insert(1, "|" + " --- |" * len(table.header))
    return f"{escape_markdown(table.caption)}:\n\n" + "\n".join(lines)


def _line(row: Sequence[str], escape: Callable[[str], str]) -> str:
    return "| " + " | ".join(map(escape, row)) + " |"


def _latex(table: Table) -> str:
    lines = [" & ".join(map(escape_latex, row)) + r" \\" for row in (table.header, *table.rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.header)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )
