"""Ranks over datasets: critical values as published, groups by hand, ties and too little data."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gnndrop.errors import ParameterError
from gnndrop.study.ranks import critical_difference, rank_operators

# q for k = 2, 3, ... at 0.05 and at 0.10, as tabulated in
# https://gist.github.com/garydoranjr/5016455, which cites Demšar (JMLR 7, 2006).
CRITICAL_VALUES = {
    0.05: (1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164),
    0.10: (1.645, 2.052, 2.291, 2.460, 2.589, 2.693, 2.780, 2.855, 2.920),
}


@pytest.mark.parametrize("alpha", CRITICAL_VALUES)
def test_critical_values_are_the_published_ones(alpha):
    for count, value in enumerate(CRITICAL_VALUES[alpha], start=2):
        scale = math.sqrt(count * (count + 1) / (6 * 14))
        assert critical_difference(count, 14, alpha) / scale == pytest.approx(value, abs=0.0011)


def test_two_operators_need_the_normal_quantile():
    assert critical_difference(2, 6) == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(1 / 6))


def test_equal_operators_are_told_apart_as_often_as_alpha_says():
    """Under the null the largest difference of mean ranks exceeds CD at 0.05, or less often."""
    generator = np.random.default_rng(0)
    studies, datasets, count = 4000, 30, 4
    ranks = stats.rankdata(generator.normal(size=(studies, datasets, count)), axis=2).mean(axis=1)
    rate = float((np.ptp(ranks, axis=1) >= critical_difference(count, datasets)).mean())
    assert rate == pytest.approx(0.05, abs=5 * math.sqrt(0.05 * 0.95 / studies))


def test_a_ranking_by_hand():
    """a is always first; b and c swap places in half of the datasets, d is always last."""
    rows = [[0.9, 0.8, 0.7, 0.1], [0.9, 0.7, 0.8, 0.1]] * 10
    ranking = rank_operators(rows, ("a", "b", "c", "d"))
    assert ranking.operators == ("a", "b", "c", "d")
    assert ranking.mean_ranks == (1.0, 2.5, 2.5, 4.0)
    assert ranking.critical_difference == pytest.approx(2.569 * math.sqrt(20 / 120), abs=1e-3)
    assert ranking.groups == ((1, 2),)
    # Friedman's chi-square: 12 N / (k (k + 1)) (sum of squared mean ranks - k (k + 1)^2 / 4).
    statistic = 12 * 20 / 20 * (1 + 2 * 2.5**2 + 16 - 25)
    assert ranking.friedman_p == pytest.approx(stats.chi2.sf(statistic, 3))


def test_equal_scores_share_their_rank():
    third = 0.1 + 0.2  # differs from 0.3 in its last digit
    ranking = rank_operators([[0.3, third, 0.3]] * 6, ("a", "b", "c"))
    assert ranking.mean_ranks == (2.0, 2.0, 2.0)
    assert (ranking.friedman_p, ranking.groups) == (1.0, ((0, 2),))


@given(
    st.integers(3, 6).flatmap(
        lambda count: st.lists(
            st.lists(st.integers(0, 5), min_size=count, max_size=count), min_size=5, max_size=9
        )
    )
)
def test_groups_hold_exactly_what_does_not_differ(rows):
    """Two operators share a group exactly when their mean ranks lie closer than CD."""
    names = tuple("abcdef"[: len(rows[0])])
    ranking = rank_operators(np.array(rows, dtype=float), names)
    ranks = ranking.mean_ranks
    assert list(ranks) == sorted(ranks)
    assert sum(ranks) == pytest.approx(len(names) * (len(names) + 1) / 2)
    for one in range(len(names)):
        for other in range(one + 1, len(names)):
            together = any(first <= one and other <= last for first, last in ranking.groups)
            assert together == (ranks[other] - ranks[one] < ranking.critical_difference)


@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (0, 0)])
def test_too_little_to_rank(shape):
    with pytest.raises(ParameterError, match=f"got {shape[0]} and {shape[1]}"):
        rank_operators(np.zeros(shape), ("a", "b", "c")[: shape[1]])
