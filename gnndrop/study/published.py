"""Ours beside a published number: do the two agree within a stated margin?

With our scores y_1..y_n (mean y, standard deviation s) and a published mean m of r runs with the
standard deviation t, the difference y - m has the error sqrt(s^2 / n + t^2 / r) and Welch's degrees
of freedom (Welch, Biometrika 34, 1947). Where r is not known, t itself is taken for the error of m;
where t is not, m is taken as exact. Both ran on the same splits, so that what splits have in common
does not count against the difference; on other splits the interval is too narrow, and a row says so
in `differs`.

Agreement is shown by an interval within the margin (Schuirmann, Journal of Pharmacokinetics and
Biopharmaceutics 15, 1987), not by a test that fails to reject.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import special

from gnndrop.study.report import Cell
from gnndrop.study.suite import PublishedRow

Agreement = Literal["agrees", "differs", "undecided"]


@dataclass(frozen=True)
class Reproduction:
    """A published number and ours; all of them in units of the metric (0.01 is one point).

    Args:
        comparison: name of the comparison.
        dataset: spec of the graph.
        model: spec of the model.
        operator: spec of the operator.
        value: the published mean.
        spread: its standard deviation over runs; None where none is given.
        runs: the number of those runs; None where it is not known.
        margin: the difference within which the two agree.
        source: where the number stands.
        differs: how our setting differs from theirs.
        ours: our mean; None without scores, like all that follow.
        std: our standard deviation; None below two scores.
        scores: number of our scores.
        difference: ours minus theirs.
        interval: its confidence interval at 95 %; None below two scores.
        agreement: `agrees` if the interval lies within the margin; else `differs` if it excludes 0
            and the difference is beyond the margin; else `undecided`.
    """

    comparison: str
    dataset: str
    model: str
    operator: str
    value: float
    spread: float | None
    runs: int | None
    margin: float
    source: str
    differs: str
    ours: float | None
    std: float | None
    scores: int
    difference: float | None
    interval: tuple[float, float] | None
    agreement: Agreement


def reproduce(row: PublishedRow, cell: Cell | None) -> Reproduction:
    """Set a cell beside a published number.

    Args:
        row: the published number.
        cell: the cell that repeats it; None where the data left it out.

    Returns:
        The two and their agreement; `undecided` where a score is missing.

    Example:
        >>> names = {"dataset": "cora", "model": "gcn", "operator": "dropout"}
        >>> row = PublishedRow(comparison="c", **names, value=81.0, margin=1.0, source="s")
        >>> cell = Cell(**names, metric="accuracy", scores=(0.81, 0.811, 0.812), mean=0.811,
        ...     std=0.001, seconds=1.0, rates=(), status="ok")
        >>> reproduce(row, cell).agreement
        'agrees'
    """
    known = [score for score in (cell.scores if cell else ()) if score is not None]
    whole = cell is not None and cell.status == "ok"
    value, margin = row.value * row.scale, row.margin * row.scale
    spread = None if row.spread is None else row.spread * row.scale
    ours = statistics.fmean(known) if known else None
    interval = difference_interval(known, value, spread, row.runs) if whole else None
    difference = None if ours is None else ours - value
    return Reproduction(
        **row.model_dump(include={"comparison", "dataset", "model", "operator"}),
        value=value,
        spread=spread,
        runs=row.runs,
        margin=margin,
        source=row.source,
        differs=row.differs,
        ours=ours,
        std=statistics.stdev(known) if len(known) > 1 else None,
        scores=len(known),
        difference=difference,
        interval=interval,
        agreement=_agreement(difference, interval, margin),
    )


def difference_interval(
    scores: Sequence[float],
    value: float,
    spread: float | None = None,
    runs: int | None = None,
    alpha: float = 0.05,
) -> tuple[float, float] | None:
    """Return the confidence interval of our mean minus a published one.

    Args:
        scores: ours.
        value: the published mean.
        spread: its standard deviation over runs; None: it is taken as exact.
        runs: the number of those runs; None: the spread is the error of the mean.
        alpha: the interval covers 1 - alpha.

    Returns:
        Its ends; None below two scores.

    Example:
        >>> low, high = difference_interval([0.80, 0.82, 0.81], 0.80)
        >>> round(low, 4), round(high, 4)
        (-0.0148, 0.0348)
    """
    if len(scores) < 2:
        return None
    ours = statistics.variance(scores) / len(scores)
    theirs = (spread or 0.0) ** 2 / (runs or 1)
    error = math.sqrt(ours + theirs)
    # Of an error that is taken as known no degree of freedom is lost.
    lost = ours**2 / (len(scores) - 1) + (theirs**2 / (runs - 1) if runs else 0.0)
    degrees = (ours + theirs) ** 2 / lost if lost else math.inf
    quantile = special.stdtrit(degrees, 1 - alpha / 2) if lost else special.ndtri(1 - alpha / 2)
    difference = statistics.fmean(scores) - value
    return difference - float(quantile) * error, difference + float(quantile) * error


def _agreement(
    difference: float | None, interval: tuple[float, float] | None, margin: float
) -> Agreement:
    if difference is None or interval is None:
        return "undecided"
    low, high = interval
    if -margin <= low and high <= margin:
        return "agrees"
    return "differs" if (low > 0 or high < 0) and abs(difference) > margin else "undecided"
