"""Operators ranked over datasets: Friedman's test and Nemenyi's critical difference.

With the k operators ranked on each of N datasets (1 is the best, equal scores share their mean
rank), Friedman's test asks whether the mean ranks differ at all, and two of them differ where they
lie apart by at least CD = q sqrt(k (k + 1) / (6 N)), q being the 1 - alpha quantile of the range of
k standard normal variables, divided by sqrt(2) (Demšar, "Statistical comparisons of classifiers
over multiple data sets", Journal of Machine Learning Research 7, 2006).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from gnndrop.errors import ParameterError
from gnndrop.study.report import Comparison

MINIMUM_DATASETS = 5
MINIMUM_OPERATORS = 3


@dataclass(frozen=True)
class Ranking:
    """Operators by their mean rank over datasets.

    Args:
        operators: their specs, the best first.
        mean_ranks: their mean ranks, 1 to k.
        datasets: number of datasets, N.
        friedman_p: p-value of Friedman's test of equal mean ranks.
        critical_difference: mean ranks that lie apart by as much differ.
        groups: places (first, last) of operators that do not differ, as large as they get.
    """

    operators: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    datasets: int
    friedman_p: float
    critical_difference: float
    groups: tuple[tuple[int, int], ...]


def critical_difference(operators: int, datasets: int, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference of mean ranks.

    Args:
        operators: their number k, at least 2.
        datasets: their number N, at least 1.
        alpha: probability of any false difference.

    Example:
        >>> round(critical_difference(2, 6, alpha=0.05), 3)  # q is the normal quantile 1.96
        0.8
    """
    q = float(stats.studentized_range.ppf(1 - alpha, operators, math.inf)) / math.sqrt(2)
    return q * math.sqrt(operators * (operators + 1) / (6 * datasets))


def rank_operators(scores: ArrayLike, operators: tuple[str, ...], alpha: float = 0.05) -> Ranking:
    """Rank operators over datasets.

    Args:
        scores: mean scores, shape (N, k); the greater the better.
        operators: the k specs.
        alpha: level of the critical difference.

    Returns:
        The ranking.

    Raises:
        ParameterError: if there are fewer than 5 datasets or fewer than 3 operators.

    Example:
        >>> ranking = rank_operators([[0.5, 0.6, 0.7]] * 10, ("a", "b", "c"))
        >>> ranking.operators, ranking.mean_ranks, ranking.groups
        (('c', 'b', 'a'), (1.0, 2.0, 3.0), ((0, 1), (1, 2)))
    """
    # As in the tests of differences: scores that differ in the 13th digit are equal.
    values = np.round(np.asarray(scores, dtype=np.float64), 12)
    datasets, count = values.shape
    if datasets < MINIMUM_DATASETS or count < MINIMUM_OPERATORS:
        raise ParameterError(
            f"a ranking needs at least {MINIMUM_DATASETS} datasets and {MINIMUM_OPERATORS} "
            f"operators, got {datasets} and {count}"
        )
    ranks = stats.rankdata(-values, axis=1)
    means = ranks.mean(axis=0)
    order = np.argsort(means, kind="stable")
    ordered = tuple(float(means[place]) for place in order)
    differs = critical_difference(count, datasets, alpha)
    all_equal = bool((ranks == ranks[0, 0]).all())  # Friedman's statistic is then 0 / 0
    return Ranking(
        operators=tuple(operators[place] for place in order),
        mean_ranks=ordered,
        datasets=datasets,
        friedman_p=1.0 if all_equal else float(stats.friedmanchisquare(*values.T).pvalue),
        critical_difference=differs,
        groups=_groups(ordered, differs),
    )


def _groups(ranks: tuple[float, ...], differs: float) -> tuple[tuple[int, int], ...]:
    """Return the longest stretches of ascending ranks whose ends lie closer than `differs`."""
    groups: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place, other in enumerate(ranks) if other - rank < differs)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return tuple(groups)


def rank_in_model(comparison: Comparison, model: str) -> Ranking:
    """Rank the operators of a comparison in one model, over the datasets that have all scores.

    Operators that the model has no place for are left out, and datasets where a trial is missing.

    Args:
        comparison: the comparison.
        model: spec of the model.

    Raises:
        ParameterError: if too few datasets or operators are left.
    """
    cells = [
        cell for cell in comparison.cells if cell.model == model and cell.status != "not-applicable"
    ]
    operators = tuple(dict.fromkeys(cell.operator for cell in cells))
    means = {(cell.dataset, cell.operator): cell.mean for cell in cells if None not in cell.scores}
    rows = [
        [means.get((dataset, operator)) for operator in operators]
        for dataset in dict.fromkeys(cell.dataset for cell in cells)
    ]
    complete = [row for row in rows if None not in row]
    scores = np.array(complete, dtype=np.float64).reshape(len(complete), len(operators))
    return rank_operators(scores, operators, comparison.protocol["alpha"])
