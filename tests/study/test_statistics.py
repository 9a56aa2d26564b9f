"""Tests and verdicts, against scipy and against definitions written out."""

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from gnndrop.study.statistics import Pairing, holm, judge, nadeau_bengio, paired_test, wilcoxon

scores = st.integers(0, 1000).map(lambda count: count / 1000)
p_values = st.lists(st.floats(0, 1), max_size=6)


def pairing(differences, ratio=0.0, missing=0):
    return Pairing("cora", "gcn", "dropout", "none", tuple(differences), ratio, missing)


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=12), st.floats(0.01, 0.5))
def test_one_split_is_scipys_paired_t(pairs, alpha):
    ours, theirs = np.array(pairs).T
    assume(np.ptp(np.round(ours - theirs, 12)) > 0)
    expected = stats.ttest_rel(ours, theirs)
    test = paired_test(list(ours - theirs), alpha=alpha)
    assert test.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval(1 - alpha)
    assert test.interval == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert test.test == "paired-t"


@given(st.lists(scores, min_size=2, max_size=12), st.floats(0.01, 2), st.floats(0.001, 0.1))
def test_the_correction_by_its_definition(differences, ratio, margin):
    """Every number from the formulas of Nadeau and Bengio and of Schuirmann, one by one."""
    assume(np.ptp(differences) > 0)
    count = len(differences)
    mean = sum(differences) / count
    variance = sum((value - mean) ** 2 for value in differences) / (count - 1)
    error = ((1 / count + ratio) * variance) ** 0.5
    student = stats.t(count - 1)
    test = paired_test(differences, ratio, margin=margin)
    assert test.p_value == pytest.approx(2 * student.sf(abs(mean) / error), rel=1e-6)
    reach = student.ppf(0.975) * error
    assert test.interval == pytest.approx((mean - reach, mean + reach), rel=1e-6)
    one_sided = (student.sf((mean + margin) / error), student.cdf((mean - margin) / error))
    assert test.equivalence_p == pytest.approx(max(one_sided), rel=1e-6)
    assert test.test == "nadeau-bengio-t"


@given(st.lists(scores, min_size=2, max_size=12))
def test_without_the_ratio_it_is_the_variance_of_independent_pairs(differences):
    expected = stats.sem(differences) ** 2
    assert float(nadeau_bengio(differences)) == pytest.approx(expected, abs=1e-15)


@given(st.lists(scores.map(lambda score: 2 * score - 1), max_size=12), st.floats(0, 2))
def test_signs_mirror_and_nothing_warns(differences, ratio):
    test, mirror = (paired_test([sign * d for d in differences], ratio) for sign in (1, -1))
    assert (test.p_value, test.equivalence_p) == (mirror.p_value, mirror.equivalence_p)
    if test.interval:
        assert test.interval == pytest.approx((-mirror.interval[1], -mirror.interval[0]))
        assert test.interval[0] <= test.difference <= test.interval[1]
        assert 0 <= test.p_value <= 1
        assert 0 <= test.equivalence_p <= 1


def test_wilcoxon_leaves_out_zeros():
    assert wilcoxon([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0]) == 0.0625
    assert wilcoxon([0.0, 0.0]) == 1


@pytest.mark.parametrize("ratio", [0.0, 0.42])
def test_equal_scores(ratio):
    test = paired_test([0.0] * 10, ratio)
    assert (test.difference, test.interval) == (0, (0, 0))
    assert (test.p_value, test.equivalence_p) == (1, 0)


def test_rounding_is_no_difference():
    """0.1 + 0.2 - 0.3 in every pair is equality."""
    assert paired_test([0.1 + 0.2 - 0.3] * 10).p_value == 1


def test_a_constant_difference():
    test = paired_test([0.02] * 10)
    assert test.p_value == pytest.approx(0, abs=1e-12)
    assert test.interval == pytest.approx((0.02, 0.02))
    assert test.equivalence_p == pytest.approx(1)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_for_a_test(count):
    test = paired_test([0.5] * count)
    assert (test.pairs, test.difference) == (count, 0.5 if count else None)
    assert test.interval is test.p_value is test.equivalence_p is None


@given(p_values)
def test_holm_is_the_closed_bonferroni_test(values):
    """Holm's p of a hypothesis is the largest Bonferroni p of all sets that hold it."""
    expected = [
        max(
            min(1.0, len(chosen) * min(values[j] for j in chosen))
            for size in range(1, len(values) + 1)
            for chosen in itertools.combinations(range(len(values)), size)
            if i in chosen
        )
        for i in range(len(values))
    ]
    assert holm(values).tolist() == pytest.approx(expected)


@given(p_values, st.randoms())
def test_holm_does_not_depend_on_the_order(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    shuffled = holm([values[i] for i in order])
    assert shuffled.tolist() == holm(values)[order].tolist()


SPREAD = (-0.002, 0.001, 0.001, -0.001, 0.002, -0.001)


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.03, "better"), (-0.03, "worse"), (0.0, "equivalent")]
)
def test_verdicts(shift, verdict):
    (found,) = judge([pairing(shift + spread for spread in SPREAD)])
    assert found.verdict == verdict
    assert found.difference == pytest.approx(shift)


def test_a_wide_spread_is_undecided():
    assert judge([pairing(30 * spread for spread in SPREAD)])[0].verdict == "undecided"


def test_the_difference_goes_before_equivalence():
    """A difference within the margin that is certain is a difference."""
    (found,) = judge([pairing(0.004 + spread for spread in SPREAD)])
    assert found.equivalence_p_adjusted < 0.05
    assert found.verdict == "better"


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_five_pairs_decide_nothing(shift):
    (found,) = judge([pairing([shift] * 5)])
    assert found.verdict == "undecided"


def test_a_missing_pair_decides_nothing():
    (found,) = judge([pairing([0.3 + spread for spread in SPREAD] * 2, missing=1)])
    assert found.verdict == "undecided"
    assert found.p_value is found.p_adjusted is found.interval is found.equivalence_p is None


def test_holm_goes_over_the_run():
    """What holds alone is lost among twenty that hold not."""
    alone = pairing(0.0012 + spread for spread in SPREAD * 2)
    noise = pairing(30 * spread for spread in SPREAD)
    assert judge([alone])[0].p_value < 0.05
    assert judge([alone])[0].verdict == "better"
    crowd = judge([alone, *[noise] * 20])
    assert crowd[0].p_adjusted == pytest.approx(21 * crowd[0].p_value)
    assert crowd[0].verdict != "better"


def test_holm_leaves_missing_verdicts_out():
    tested, missing = pairing(SPREAD), pairing(SPREAD, missing=1)
    first, second = judge([missing, tested])
    assert first.p_adjusted is None
    assert second == replace(judge([tested])[0])


def test_statistics_need_no_torch():
    code = "import sys, gnndrop.study.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
