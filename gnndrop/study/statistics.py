"""From paired scores to verdicts: one test, its interval, equivalence, and Holm over the run.

Pure numpy and scipy. With J paired differences d_j (operator minus baseline), mean d and sample
variance s^2:

- one fixed split: the seeds vary the initial weights and masks alone, and the paired t test is
  d / sqrt(s^2 / J) against Student's t with J - 1 degrees of freedom;
- varying splits: re-splits of one sample share their data, so that the d_j are correlated with
  rho = n_test / (n_test + n_train) and s^2 / J is far too small. The corrected variance is
  (1/J + n_test/n_train) s^2 (Nadeau and Bengio, "Inference for the generalization error", Machine
  Learning 52, 2003, equation 9);
- equivalence: two one-sided tests at the margin, on the same t (Schuirmann, Journal of
  Pharmacokinetics and Biopharmaceutics 15, 1987);
- many verdicts: Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979), over the
  difference tests of a run and, separately, over its equivalence tests. Each kind of claim is wrong
  anywhere in the run with probability alpha at most. Intervals are not adjusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

MINIMUM_PAIRS = 6  # with five, the smallest two-sided Wilcoxon p is 0.0625

Decision = Literal["better", "worse", "equivalent", "undecided"]
Test = Literal["paired-t", "nadeau-bengio-t"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairedTest:
    """What a paired test says; None where there are too few pairs to say it.

    Args:
        difference: mean of the differences; None without a pair.
        interval: its confidence interval; None below two pairs, like the p-values.
        p_value: two-sided, of no difference.
        equivalence_p: of a difference beyond the margin (two one-sided tests, the larger).
        pairs: number of pairs, J.
        test: which t test.
    """

    difference: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    equivalence_p: float | None
    pairs: int
    test: Test


@dataclass(frozen=True)
class Pairing:
    """The paired scores of one operator and the baseline on one dataset in one model.

    Args:
        dataset: name of the dataset.
        model: spec of the model.
        operator: spec of the operator.
        baseline: spec of the baseline.
        differences: operator minus baseline for each unit of replication (a seed where one split
            is fixed, else a split, over whose seeds scores are averaged).
        test_train_ratio: n_test / n_train where splits vary, 0 where one is fixed.
        missing: units that lack a score on either side, because a trial failed.
    """

    dataset: str
    model: str
    operator: str
    baseline: str
    differences: tuple[float, ...]
    test_train_ratio: float
    missing: int = 0


@dataclass(frozen=True)
class Verdict:
    """What may be claimed of an operator against the baseline on one dataset in one model.

    Scores and differences are in units of the metric (0.01 is one point).

    Args:
        dataset: name of the dataset.
        model: spec of the model.
        operator: spec of the operator.
        baseline: spec of the baseline.
        difference: mean difference, operator minus baseline; None without a pair.
        interval: its confidence interval, not adjusted; None below two pairs or with missing ones.
        p_value: two-sided p of no difference.
        p_adjusted: the same after Holm over the run.
        equivalence_p: p of a difference beyond the margin.
        equivalence_p_adjusted: the same after Holm over the run.
        wilcoxon_p: two-sided p of Wilcoxon's signed-rank test, for comparison; decides nothing.
        test: `paired-t` (one fixed split) or `nadeau-bengio-t` (varying splits).
        pairs: number of pairs.
        missing: number of pairs that are lost to failed trials.
        verdict: the decision.
    """

    dataset: str
    model: str
    operator: str
    baseline: str
    difference: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    p_adjusted: float | None
    equivalence_p: float | None
    equivalence_p_adjusted: float | None
    wilcoxon_p: float | None
    test: Test
    pairs: int
    missing: int
    verdict: Decision


def nadeau_bengio(differences: ArrayLike, test_train_ratio: float = 0.0) -> Array:
    """Return the variance of the mean difference over re-splits of one sample.

    (1/J + n_test/n_train) s^2; with the ratio 0 it is the s^2 / J of independent pairs.

    Args:
        differences: shape (..., J), J at least 2.
        test_train_ratio: n_test / n_train.

    Returns:
        The variances, shape (...).

    Example:
        >>> float(nadeau_bengio([0.0, 2.0], test_train_ratio=0.5))
        2.0
    """
    values = np.asarray(differences, dtype=np.float64)
    return np.asarray((1 / values.shape[-1] + test_train_ratio) * values.var(axis=-1, ddof=1))


def difference_p(mean: ArrayLike, error: ArrayLike, degrees: int) -> Array:
    """Return the two-sided p-value of no difference, from Student's t.

    Without any variance (error 0) it is 1 for equal scores, else 0.

    Args:
        mean: mean differences, any shape.
        error: their standard errors, same shape.
        degrees: degrees of freedom, J - 1.

    Example:
        >>> difference_p([0.0, 0.1], [0.0, 0.0], degrees=9).tolist()
        [1.0, 0.0]
    """
    return np.asarray(2 * special.stdtr(degrees, -_ratio(np.abs(mean), error)))


def equivalence_p(mean: ArrayLike, error: ArrayLike, degrees: int, margin: float) -> Array:
    """Return the larger p-value of the two one-sided tests of |difference| >= margin.

    Args:
        mean: mean differences, any shape.
        error: their standard errors, same shape.
        degrees: degrees of freedom, J - 1.
        margin: half-width of the region of equivalence, in units of the differences.

    Example:
        >>> equivalence_p([0.0, 0.1], [0.0, 0.0], degrees=9, margin=0.01).tolist()
        [0.0, 1.0]
    """
    return np.asarray(special.stdtr(degrees, -_ratio(margin - np.abs(mean), error)))


def holm(p_values: ArrayLike) -> Array:
    """Adjust p-values for their number by Holm's step-down procedure.

    The i-th smallest of m is multiplied by m - i + 1, then made monotone and cut at 1. Rejecting
    what is at most alpha holds the family-wise error at alpha under any dependence.

    Args:
        p_values: shape (m,).

    Returns:
        The adjusted p-values in the order given, shape (m,).

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def wilcoxon(differences: ArrayLike) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test (Biometrics Bulletin 1, 1945).

    Args:
        differences: shape (J,); zeros are left out, as Wilcoxon did.

    Returns:
        scipy's p-value, without a correction for re-splits; 1 without any difference.

    Example:
        >>> wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0])
        0.0625
    """
    values = _rounded(differences)
    values = values[values != 0]
    return float(stats.wilcoxon(values).pvalue) if values.size else 1.0


def paired_test(
    differences: Sequence[float],
    test_train_ratio: float = 0.0,
    *,
    margin: float = 0.01,
    alpha: float = 0.05,
) -> PairedTest:
    """Test paired differences: the paired t, corrected by Nadeau and Bengio where splits vary.

    Args:
        differences: the J paired differences; finite.
        test_train_ratio: n_test / n_train where splits vary, 0 where one split is fixed.
        margin: half-width of the region of equivalence, in units of the differences.
        alpha: the interval covers 1 - alpha.

    Returns:
        The test. Equal scores give p = 1 and an interval of width 0.

    Example:
        >>> paired_test([0.01, 0.03, 0.02, 0.02, 0.03, 0.01]).p_value < 0.01
        True
        >>> paired_test([0.0] * 6).p_value
        1.0
    """
    values = _rounded(differences)
    pairs = values.size
    test: Test = "nadeau-bengio-t" if test_train_ratio else "paired-t"
    if pairs < 2:
        mean = float(values[0]) if pairs else None
        return PairedTest(mean, None, None, None, pairs, test)
    mean = float(values.mean())
    error = float(np.sqrt(nadeau_bengio(values, test_train_ratio)))
    reach = float(special.stdtrit(pairs - 1, 1 - alpha / 2)) * error
    return PairedTest(
        difference=mean,
        interval=(mean - reach, mean + reach),
        p_value=float(difference_p(mean, error, pairs - 1)),
        equivalence_p=float(equivalence_p(mean, error, pairs - 1, margin)),
        pairs=pairs,
        test=test,
    )


def pair(
    names: tuple[str, str, str, str],
    differences: Sequence[float | None],
    splits: Sequence[int],
    test_train_ratio: float,
) -> Pairing:
    """Average the differences of all runs over each unit of replication.

    The unit is the run, or where splits vary the split; one that lacks a difference is missing.

    Args:
        names: dataset, model, operator and baseline.
        differences: operator minus baseline, run by run; None where a trial failed.
        splits: index of the split of each run.
        test_train_ratio: n_test / n_train; counts where splits vary.

    Returns:
        The pairing.

    Example:
        >>> pair(("cora", "gcn", "dropout", "none"), [1.0, 3.0, 5.0, None], [0, 1, 0, 1], 0.5)
        Pairing(dataset='cora', ..., differences=(3.0,), test_train_ratio=0.5, missing=1)
    """
    varies = len(set(splits)) > 1
    units: dict[int, list[float | None]] = {}
    for run, (difference, split) in enumerate(zip(differences, splits, strict=True)):
        units.setdefault(split if varies else run, []).append(difference)
    complete = [
        [value for value in unit if value is not None]
        for unit in units.values()
        if None not in unit
    ]
    return Pairing(
        *names,
        differences=tuple(map(fmean, complete)),
        test_train_ratio=test_train_ratio if varies else 0.0,
        missing=len(units) - len(complete),
    )


def judge(
    pairings: Sequence[Pairing], *, margin: float = 0.01, alpha: float = 0.05
) -> list[Verdict]:
    """Reach the verdicts of a run, all of them together.

    `better` or `worse` where the difference test passes at alpha after Holm over the run, else
    `equivalent` where the equivalence test does, else `undecided`. Below six pairs, and where a
    pair is missing, always `undecided`.

    Args:
        pairings: one for each verdict, all of the run.
        margin: half-width of the region of equivalence, in units of the metric.
        alpha: level of the tests and of the intervals (1 - alpha).

    Returns:
        The verdicts in the order of the pairings.

    Example:
        >>> differences = (0.02, 0.03, 0.02, 0.03, 0.02, 0.03)
        >>> pairing = Pairing("cora", "gcn", "dropout", "none", differences, 0.0)
        >>> judge([pairing])[0].verdict
        'better'
    """
    tests = [
        paired_test(pairing.differences, pairing.test_train_ratio, margin=margin, alpha=alpha)
        for pairing in pairings
    ]
    # A test over the pairs that did not fail is no test of what was asked.
    tests = [
        replace(test, interval=None, p_value=None, equivalence_p=None) if pairing.missing else test
        for pairing, test in zip(pairings, tests, strict=True)
    ]
    differ = _holm_known([test.p_value for test in tests])
    equal = _holm_known([test.equivalence_p for test in tests])
    return [
        Verdict(
            dataset=pairing.dataset,
            model=pairing.model,
            operator=pairing.operator,
            baseline=pairing.baseline,
            difference=test.difference,
            interval=test.interval,
            p_value=test.p_value,
            p_adjusted=p_adjusted,
            equivalence_p=test.equivalence_p,
            equivalence_p_adjusted=p_equal,
            wilcoxon_p=wilcoxon(pairing.differences) if test.interval else None,
            test=test.test,
            pairs=test.pairs,
            missing=pairing.missing,
            verdict=_decide(test, p_adjusted, p_equal, alpha),
        )
        for pairing, test, p_adjusted, p_equal in zip(pairings, tests, differ, equal, strict=True)
    ]


def _decide(
    test: PairedTest, p_adjusted: float | None, p_equal: float | None, alpha: float
) -> Decision:
    if test.pairs < MINIMUM_PAIRS or test.difference is None:
        return "undecided"
    if p_adjusted is not None and p_adjusted <= alpha:
        return "better" if test.difference > 0 else "worse"
    if p_equal is not None and p_equal <= alpha:
        return "equivalent"
    return "undecided"


def _holm_known(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust over the p-values that exist."""
    adjusted = iter(holm([p for p in p_values if p is not None]).tolist())
    return [None if p is None else next(adjusted) for p in p_values]


def _rounded(differences: ArrayLike) -> Array:
    """Scores are fractions of counts: what differs in the 13th digit is equal, but for rounding."""
    return np.asarray(np.round(np.asarray(differences), 12), dtype=np.float64)


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Divide, with 0 / 0 = 0 and x / 0 infinite of the sign of x."""
    top = np.asarray(numerator, dtype=np.float64)
    bottom = np.broadcast_to(np.asarray(denominator, dtype=np.float64), top.shape)
    limit = np.where(top == 0, 0.0, np.copysign(np.inf, top))
    return np.asarray(np.divide(top, bottom, out=limit, where=bottom > 0))
