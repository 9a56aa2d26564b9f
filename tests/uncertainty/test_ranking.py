"""Ranking, against loops, all orders of ties, and scikit-learn; numbers are the reference's."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from gnndrop.errors import ParameterError
from gnndrop.uncertainty.ranking import (
    aurc,
    average_precision,
    excess_aurc,
    fpr95,
    misclassification_auroc,
    pavpu,
    refer,
    risk_coverage,
)

DETECTION = [misclassification_auroc, average_precision, fpr95]
EVERY = [aurc, excess_aurc, pavpu, risk_coverage, *DETECTION]

# Few values, so that most draws have ties.
pairs = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=25)
both = pairs.filter(lambda drawn: len({right for _, right in drawn}) == 2)


def split(drawn):
    scores, right = zip(*drawn, strict=True)
    return np.array(scores) / 4, np.array(right)


def plain_risks(right):
    return [1 - np.mean(right[: k + 1]) for k in range(len(right))]


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.randoms())
def test_risks_without_ties_are_those_of_the_loop(right, random):
    confidence = random.sample(range(100), len(right))
    order = np.argsort(confidence)[::-1]
    curve = risk_coverage(confidence, right)
    np.testing.assert_allclose(curve.risk, plain_risks(np.array(right)[order]), atol=1e-12)
    np.testing.assert_allclose(curve.coverage, np.arange(1, len(right) + 1) / len(right))
    assert aurc(confidence, right) == pytest.approx(np.mean(plain_risks(np.array(right)[order])))


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=6))
def test_28_ties_have_the_mean_over_all_orders(drawn):
    confidence, right = split(drawn)
    orders = [
        order
        for order in itertools.permutations(range(len(right)))
        if all(confidence[i] >= confidence[j] for i, j in itertools.pairwise(order))
    ]
    expected = np.mean([plain_risks(right[list(order)]) for order in orders], axis=0)
    np.testing.assert_allclose(risk_coverage(confidence, right).risk, expected, atol=1e-12)


@given(pairs, st.randoms())
def test_28_the_order_of_nodes_has_no_say(drawn, random):
    shuffled = random.sample(drawn, len(drawn))
    for measure in (aurc, excess_aurc, *DETECTION):
        before, after = measure(*split(drawn)), measure(*split(shuffled))
        assert after == pytest.approx(before, nan_ok=True)


def test_28_one_node_and_no_errors():
    assert (aurc([0.3], [True]), aurc([0.3], [False])) == (0, 1)
    assert (excess_aurc([0.3], [True]), excess_aurc([0.3], [False])) == (0, 0)
    assert aurc([0.1, 0.2, 0.2], [True] * 3) == 0
    assert excess_aurc([0.1, 0.2, 0.2], [True] * 3) == 0


@given(st.integers(0, 30), st.integers(0, 30))
def test_28_the_perfect_ranking_has_no_excess(successes, errors):
    assume(successes + errors > 0)
    right = np.array([True] * successes + [False] * errors)
    assert excess_aurc(right.astype(float), right) == pytest.approx(0, abs=1e-12)
    untied = -np.arange(len(right))
    assert excess_aurc(untied, right) == pytest.approx(0, abs=1e-12)


@given(pairs)
def test_28_the_excess_is_over_the_best_and_never_negative(drawn):
    confidence, right = split(drawn)
    best = np.mean(plain_risks(np.sort(right)[::-1]))
    assert excess_aurc(confidence, right) == pytest.approx(
        aurc(confidence, right) - best, abs=1e-12
    )
    assert excess_aurc(confidence, right) >= -1e-12


def test_28_the_best_aurc_is_near_its_limit():
    """Reference 1.3: the best ranking of a risk r has r + (1 - r) ln(1 - r)."""
    right = np.arange(20_000) < 16_000
    assert aurc(right, right) == pytest.approx(0.2 + 0.8 * math.log(0.8), abs=1e-4)


@given(both)
def test_26_auroc_is_the_chance_that_an_error_is_more_uncertain(drawn):
    uncertainty, right = split(drawn)
    won = [
        (wrong > fine) + (wrong == fine) / 2
        for wrong in uncertainty[~right]
        for fine in uncertainty[right]
    ]
    assert misclassification_auroc(uncertainty, right) == pytest.approx(np.mean(won))


@given(both)
def test_26_swapping_the_sign_flips_it(drawn):
    uncertainty, right = split(drawn)
    area = misclassification_auroc(uncertainty, right)
    assert misclassification_auroc(-uncertainty, right) == pytest.approx(1 - area)
    assert area == pytest.approx(roc_auc_score(~right, uncertainty))


def test_26_high_uncertainty_is_an_error_and_high_confidence_is_none():
    assert misclassification_auroc([0.9, 0.1], [False, True]) == 1
    assert average_precision([0.9, 0.1], [False, True]) == 1
    assert average_precision([0.9, 0.1], [False, True], positive="success") == 1
    assert fpr95([0.9, 0.1], [False, True]) == 0
    assert fpr95([0.1, 0.9], [False, True]) == 1
    assert excess_aurc([0.1, 0.9], [False, True]) == 0


@given(both)
def test_27_aupr_is_average_precision(drawn):
    """By the sum of its definition over distinct thresholds; not the trapezoid."""
    uncertainty, right = split(drawn)
    for positive, scores, hits in (
        ("error", uncertainty, ~right),
        ("success", -uncertainty, right),
    ):
        total, recall = 0.0, 0.0
        for threshold in np.unique(scores)[::-1]:
            alarms = scores >= threshold
            reached = (hits & alarms).sum() / hits.sum()
            total += (reached - recall) * (hits & alarms).sum() / alarms.sum()
            recall = reached
        assert average_precision(uncertainty, right, positive) == pytest.approx(total)


def test_27_what_knows_nothing_has_the_share_of_positives():
    right = [True] * 15 + [False] * 5
    assert average_precision([0.5] * 20, right) == 0.25
    assert average_precision([0.5] * 20, right, positive="success") == 0.75
    with pytest.raises(ParameterError, match="error or success"):
        average_precision([0.5] * 20, right, positive="failure")


@given(both)
def test_fpr95_is_the_least_over_thresholds(drawn):
    uncertainty, right = split(drawn)
    rates = [
        (uncertainty[right] >= threshold).mean()
        for threshold in np.unique(uncertainty)
        if (uncertainty[~right] >= threshold).mean() >= 0.95
    ]
    assert fpr95(uncertainty, right) == pytest.approx(min(rates))


@pytest.mark.parametrize("measure", DETECTION)
@pytest.mark.parametrize("right", [[True, True], [False, False]])
def test_29_a_single_class_is_nan_and_says_why(measure, right):
    assert math.isnan(measure([0.1, 0.2], right))
    assert "nan where all nodes are right or all are wrong" in " ".join(measure.__doc__.split())


@given(pairs)
def test_30_pavpu_by_its_definition_and_the_accuracy_at_the_highest_threshold(drawn):
    uncertainty, right = split(drawn)
    found = pavpu(uncertainty, right)
    assert found.value[-1] == pytest.approx(right.mean())
    assert found.trivial == pytest.approx(right.mean())
    for i, threshold in enumerate(found.thresholds.tolist()):
        certain = uncertainty <= threshold
        assert certain.any()
        value = ((certain & right).sum() + (~certain & ~right).sum()) / len(right)
        assert found.value[i] == pytest.approx(value)
        assert found.accurate_if_certain[i] == pytest.approx(right[certain].mean())
        if not right.all():
            assert found.uncertain_if_inaccurate[i] == pytest.approx((~certain)[~right].mean())
    expected = np.linspace(uncertainty.min(), uncertainty.max(), 11)
    np.testing.assert_allclose(found.thresholds, expected, atol=1e-12)
    assert found.area == pytest.approx(np.trapezoid(found.value, np.linspace(0, 1, 11)))


def test_30_zero_by_zero_is_nan_and_equal_uncertainties_are_trivial():
    found = pavpu([0.1, 0.5, 0.9], [True, True, True])
    assert found.uncertain_if_inaccurate.isnan().all()
    assert found.accurate_if_certain.tolist() == [1.0] * 11
    flat = pavpu([0.3, 0.3, 0.3], [True, False, True])
    assert (flat.area, flat.trivial) == pytest.approx((2 / 3, 2 / 3))


@given(pairs, st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0]))
def test_referral_keeps_the_most_nodes_at_the_wished_risk(drawn, risk):
    confidence, right = split(drawn)
    referral = refer(confidence, right, risk)
    kept = ~referral.mask(confidence).numpy()
    best = max(
        (
            (confidence >= threshold).sum()
            for threshold in np.unique(confidence)
            if 1 - right[confidence >= threshold].mean() <= risk + 1e-12
        ),
        default=0,
    )
    assert kept.sum() == best
    assert referral.coverage == pytest.approx(best / len(right))
    if best:
        assert referral.risk == pytest.approx(1 - right[kept].mean())
        assert referral.risk <= risk
        assert referral.threshold == confidence[kept].min()
    else:
        assert (referral.threshold, math.isnan(referral.risk)) == (math.inf, True)
        assert referral.mask([1.0, math.inf]).tolist() == [True, False]


def test_the_risk_of_a_referral_is_an_estimate_for_other_nodes():
    """On nodes drawn alike: the mean risk is near the wished one, within the error of the draws."""
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, (200, 400))
    right = generator.random((200, 400)) < confidence
    other = generator.uniform(0.5, 1, 100_000)
    other_right = generator.random(100_000) < other
    risks = []
    for scores, truth in zip(confidence, right, strict=True):
        kept = ~refer(scores, truth, 0.1).mask(other).numpy()
        risks.append(1 - other_right[kept].mean())
    error = np.std(risks) / math.sqrt(len(risks))
    assert (
        0.1 - 4 * error < np.mean(risks) < 0.13
    )  # optimistic: chosen on the nodes it is judged on
    assert np.mean(np.array(risks) > 0.1) > 0.2  # and thus no guarantee


def test_a_group_of_equals_is_kept_whole_or_not_at_all():
    referral = refer([0.9, 0.8, 0.8, 0.7], [True, True, False, True], risk=0.3)
    assert (referral.threshold, referral.coverage, referral.risk) == (0.7, 1.0, 0.25)
    referral = refer([0.9, 0.8, 0.8, 0.7], [True, True, False, False], risk=0.3)
    assert (referral.threshold, referral.coverage, referral.risk) == (0.9, 0.25, 0.0)


@pytest.mark.parametrize("measure", EVERY)
@pytest.mark.parametrize(
    ("scores", "right", "match"),
    [
        ([], [], "at least one"),
        ([0.1, 0.2], [True], "same nodes"),
        ([[0.1, 0.2]], [[True, False]], "one number for each node"),
        ([0.1, math.nan], [True, False], "nan"),
        ([0.1, 0.2], [2, 0], "predicted == y"),
        ([0.1, 0.2], [0.5, 1], "predicted == y"),
    ],
)
def test_what_is_no_pair_of_scores_and_answers_is_refused(measure, scores, right, match):
    with pytest.raises(ParameterError, match=match):
        measure(scores, right)


@pytest.mark.parametrize("measure", [pavpu, *DETECTION])
def test_what_is_infinite_has_no_detection(measure):
    with pytest.raises(ParameterError, match="finite"):
        measure([0.1, math.inf], [True, False])
    assert aurc([0.1, math.inf], [False, True]) == 0.25


@pytest.mark.parametrize("risk", [-0.1, 1.1, math.nan])
def test_a_risk_is_a_share(risk):
    with pytest.raises(ParameterError, match="share of errors"):
        refer([0.1], [True], risk)


def test_answers_may_be_tensors_or_numbers():
    scores, right = torch.tensor([0.3, 0.1, 0.2]), torch.tensor([0, 1, 1])
    assert misclassification_auroc(scores, right) == 1
    assert aurc(scores.half(), right.bool()) == aurc(scores.numpy(), right.numpy())
