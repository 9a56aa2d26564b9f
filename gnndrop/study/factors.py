"""What makes the difference: the gain of an operator under two protocols that differ in one factor.

For a seed k, the gain of an operator is its score minus that of `none`. The effect of the factor is
the gain under one protocol minus the gain under the other: paired by seed and split, since both
protocols run the same ones. It is tested like every other difference (`gnndrop.study.statistics`),
with Holm's adjustment over all effects that are judged together.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gnndrop.study.report import Cell, Comparison
from gnndrop.study.statistics import Pairing, Verdict, judge, pair


@dataclass(frozen=True)
class Contrast:
    """Two comparisons that differ in one factor.

    Args:
        name: name of the comparison with the factor changed.
        against: name of the comparison that it is held against.
        changed: the outcome with the factor changed.
        base: the outcome that it is held against.
    """

    name: str
    against: str
    changed: Comparison
    base: Comparison


@dataclass(frozen=True)
class FactorEffect:
    """How a factor changes the gain of an operator on a graph, in units of the metric.

    Args:
        comparison: name of the comparison with the factor changed.
        against: name of the comparison that it is held against.
        dataset: spec of the graph.
        operator: spec of the operator.
        gain: mean gain of the operator with the factor changed.
        gain_against: mean gain in the comparison that it is held against.
        effect: gain minus gain_against.
        interval: confidence interval of the effect, not adjusted.
        p_adjusted: p-value of no effect after Holm over all effects.
        pairs: number of pairs.
        verdict: `better`: the factor raises the gain; `worse`: it lowers it; `equivalent` within
            the margin; `undecided`.
    """

    comparison: str
    against: str
    dataset: str
    operator: str
    gain: float
    gain_against: float
    effect: float
    interval: tuple[float, float] | None
    p_adjusted: float | None
    pairs: int
    verdict: str


def factor_effects(contrasts: Sequence[Contrast]) -> list[FactorEffect]:
    """Test the effects of all factors, together.

    The n-th model of a comparison is held against the n-th of the other, on the graphs and with the
    operators that both have; where a trial failed or the number of runs differs there is no effect.

    Args:
        contrasts: the pairs of comparisons; margin and alpha are those of the first.

    Returns:
        The effects in the order of the contrasts.

    Example:
        >>> from gnndrop.config import TrainConfig
        >>> from gnndrop.study.protocol import compare
        >>> graph, short = "csbm:nodes=60,classes=2,features=4", TrainConfig(epochs=2)
        >>> shallow, deep = (
        ...     compare(["dropout"], [graph], [model], seeds=2, train=short, jobs=1)
        ...     for model in ("mlp", "mlp:num_layers=3")
        ... )
        >>> effect = factor_effects([Contrast("deep", "shallow", deep, shallow)])[0]
        >>> effect.operator, effect.pairs
        ('dropout', 2)
    """
    found = [
        (contrast, changed, base)
        for contrast in contrasts
        for changed, base in _matches(contrast.changed, contrast.base)
    ]
    if not found:
        return []
    protocol = contrasts[0].base.protocol
    verdicts = judge(
        [_pairing(*one) for one in found], margin=protocol["margin"], alpha=protocol["alpha"]
    )
    return [
        _effect(contrast, changed, base, verdict)
        for (contrast, changed, base), verdict in zip(found, verdicts, strict=True)
    ]


Gains = tuple[Cell, list[float]]


def _matches(changed: Comparison, base: Comparison) -> list[tuple[Gains, Gains]]:
    """Return the gains that can be paired."""
    ours, theirs = _gains(changed), _gains(base)
    return [
        (ours[key], theirs[key])
        for key in ours
        if key in theirs and len(ours[key][1]) == len(theirs[key][1])
    ]


def _gains(comparison: Comparison) -> dict[tuple[str, int, str], Gains]:
    """Return the gain of every operator for every run, by dataset, place of the model, operator."""
    models: list[str] = list(comparison.protocol["models"])
    cells = {(cell.dataset, cell.model, cell.operator): cell for cell in comparison.cells}
    gains = {}
    for (dataset, model, operator), cell in cells.items():
        baseline = cells[dataset, model, "none"]
        if operator != "none" and cell.status == baseline.status == "ok":
            pairs = zip(cell.scores, baseline.scores, strict=True)
            gains[dataset, models.index(model), operator] = (
                cell,
                [ours - none for ours, none in pairs if ours is not None and none is not None],
            )
    return gains


def _pairing(contrast: Contrast, changed: Gains, base: Gains) -> Pairing:
    cell, gains = changed
    graph = next(one for one in contrast.changed.datasets if one.name == cell.dataset)
    names = (cell.dataset, cell.model, cell.operator, contrast.against)
    effects = [one - other for one, other in zip(gains, base[1], strict=True)]
    # Run k is on split k mod n, also where every seed is on all.
    splits = [run % graph.splits for run in range(len(gains))]
    return pair(names, effects, splits, graph.test_train_ratio)


def _effect(contrast: Contrast, changed: Gains, base: Gains, verdict: Verdict) -> FactorEffect:
    gain, gain_against = (statistics.fmean(gains) for _, gains in (changed, base))
    return FactorEffect(
        comparison=contrast.name,
        against=contrast.against,
        dataset=changed[0].dataset,
        operator=changed[0].operator,
        gain=gain,
        gain_against=gain_against,
        effect=gain - gain_against,
        interval=verdict.interval,
        p_adjusted=verdict.p_adjusted,
        pairs=verdict.pairs,
        verdict=verdict.verdict,
    )
