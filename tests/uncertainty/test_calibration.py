"""Calibration, against numpy loops and cases worked out by hand; numbers are the reference's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.nn.functional import cross_entropy

from gnndrop.errors import ParameterError
from gnndrop.uncertainty.calibration import (
    expected_calibration_error,
    reliability_diagram,
    temperature_scale,
)
from gnndrop.uncertainty.measures import negative_log_likelihood

# Multiples of 1/20 make ties and confidences on edges.
binary = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1)), min_size=1, max_size=30)
binnings = st.sampled_from(["width", "mass"])
norms = st.sampled_from(["l1", "l2", "max"])


def of_pairs(pairs):
    p, y = np.array(pairs).T
    return np.stack([1 - p / 20, p / 20], 1), y


def predictions(nodes, classes, seed=0):
    """Draw probabilities, and labels that they are true of."""
    generator = np.random.default_rng(seed)
    probs = generator.dirichlet(np.ones(classes), nodes)
    return probs, (probs.cumsum(1) > generator.random((nodes, 1))).argmax(1)


def plain_error(confidence, right, bins, norm):
    """Equal-width bins in a loop over the bins, closed above; the first holds 0."""
    gaps, shares = [], []
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [
            i
            for i, c in enumerate(confidence)
            if (low + 1e-6 < c or (b == 0 and c <= low + 1e-6)) and c <= high + 1e-6
        ]
        if inside:
            gaps.append(abs(np.mean(confidence[inside]) - np.mean(right[inside])))
            shares.append(len(inside) / len(confidence))
    gaps, shares = np.array(gaps), np.array(shares)
    return {
        "l1": (shares * gaps).sum(),
        "l2": math.sqrt((shares * gaps**2).sum()),
        "max": gaps.max(),
    }[norm]


@given(binary, st.integers(1, 25), norms)
def test_equal_width_is_its_definition_in_a_loop(pairs, bins, norm):
    probs, y = of_pairs(pairs)
    top, right = probs.max(1), (probs.argmax(1) == y).astype(float)
    ours = expected_calibration_error(probs, y, bins=bins, norm=norm)
    assert ours == pytest.approx(plain_error(top, right, bins, norm), abs=1e-12)
    per_class = [plain_error(probs[:, c], (y == c).astype(float), bins, norm) for c in (0, 1)]
    ours = expected_calibration_error(probs, y, bins=bins, norm=norm, classwise=True)
    assert ours == pytest.approx(np.mean(per_class), abs=1e-12)


def test_19_a_confidence_of_1_is_in_the_last_bin():
    probs, y = [[0.05, 0.95], [0.0, 1.0]], [1, 0]
    assert expected_calibration_error(probs, y, bins=10) == pytest.approx(0.475)
    assert reliability_diagram(probs, y, bins=10).counts.tolist() == [0] * 9 + [2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [5, 10])
def test_19_a_confidence_on_an_edge_is_below_it(dtype, bins):
    confidence = np.arange(bins // 2, bins + 1) / bins  # at least a half: the highest of two
    confidence = confidence[confidence >= 0.5]
    probs = np.stack([confidence, 1 - confidence], 1).astype(dtype)
    counts = reliability_diagram(probs, [0] * len(probs), bins=bins).counts.tolist()
    assert counts == [0] * (bins - len(probs)) + [1] * len(probs)


def test_19_a_probability_of_0_is_in_the_first_bin():
    """Class-wise over one node: both probabilities are right and no bin is left out."""
    assert expected_calibration_error([[1.0, 0.0]], [0], classwise=True) == 0
    assert expected_calibration_error([[1.0, 0.0]], [1], classwise=True) == 1


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_20_empty_bins_say_nothing(binning):
    probs, y = [[0.6, 0.4]] * 3, [0, 0, 1]
    found = reliability_diagram(probs, y, bins=20, binning=binning)
    assert sorted(found.counts.tolist()) == [0] * 19 + [3]
    empty = found.counts == 0
    for values in (found.confidence, found.accuracy, found.low, found.high, found.gap):
        assert torch.equal(values.isnan(), empty)
    for norm in ("l1", "l2", "max"):
        error = expected_calibration_error(probs, y, bins=20, binning=binning, norm=norm)
        assert error == pytest.approx(2 / 3 - 0.6)


@given(st.integers(1, 60), st.integers(1, 20))
def test_21_equal_mass_differs_by_at_most_one(nodes, bins):
    probs, y = predictions(nodes, 3)
    found = reliability_diagram(probs, y, bins=bins, binning="mass")
    assert found.counts.sum() == nodes
    assert found.counts.max() - found.counts.min() <= 1


@pytest.mark.parametrize(
    ("tenths", "bins", "counts"),
    [
        ([5, 7, 7, 9], 2, [3, 1]),  # its ranks are 1 and 2 of 0 to 3: the middle is in the first
        ([5, 5, 7, 7, 7, 7], 3, [2, 4, 0]),
        ([5, 7, 7, 7, 7, 9], 2, [5, 1]),
        ([5, 5, 5, 5, 7, 9], 3, [4, 0, 2]),
    ],
)
def test_21_ties_go_where_the_middle_of_their_ranks_lies(tenths, bins, counts):
    probs = np.array([[tenth / 10, 1 - tenth / 10] for tenth in tenths])
    found = reliability_diagram(probs, [0] * len(probs), bins=bins, binning="mass")
    assert found.counts.tolist() == counts


@given(binary, st.integers(1, 12), binnings, norms, st.booleans(), st.randoms())
def test_21_the_order_of_nodes_has_no_say(pairs, bins, binning, norm, classwise, random):
    options = {"bins": bins, "binning": binning, "norm": norm, "classwise": classwise}
    before = expected_calibration_error(*of_pairs(pairs), **options)
    shuffled = random.sample(pairs, len(pairs))
    assert expected_calibration_error(*of_pairs(shuffled), **options) == pytest.approx(before)


@given(binary, st.integers(1, 12), binnings)
def test_21_bins_are_sorted_and_hold_what_their_edges_say(pairs, bins, binning):
    probs, y = of_pairs(pairs)
    found = reliability_diagram(probs, y, bins=bins, binning=binning)
    top = probs.max(1)
    edges = found.edges.numpy()
    assert (np.diff(edges) >= 0).all()
    assert (edges[0], edges[-1]) == (0, 1)
    inside = (top[:, None] > edges[:-1] + 1e-6) & (top[:, None] <= edges[1:] + 1e-6)
    assert inside.sum(0).tolist() == found.counts.tolist()
    filled = found.counts > 0
    order = found.confidence[filled]
    assert torch.equal(order, order.sort().values)


def test_22_classwise_goes_by_the_probability_of_the_class_not_by_the_true_class():
    probs, y = [[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2]], [0, 0, 0, 0, 1]
    assert expected_calibration_error(probs, y, classwise=True) == pytest.approx(0, abs=1e-12)
    # By true class the errors would be |1 - .8| and |0 - .8|.


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("classwise", [False, True])
def test_23_a_perfect_predictor_has_0_and_a_constant_one_its_gap(binning, norm, classwise):
    options = {"binning": binning, "norm": norm, "classwise": classwise}
    y = np.arange(40) % 4
    assert expected_calibration_error(np.eye(4)[y], y, **options) == 0
    constant = np.tile([0.7, 0.3], (40, 1))
    right = np.arange(40) >= 20  # half of them are class 0
    assert expected_calibration_error(constant, 1 - right, **options) == pytest.approx(0.2)


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("classwise", [False, True])
def test_23_what_is_calibrated_has_an_error_of_the_order_of_chance(binning, classwise):
    """Σ_b n_b/n |gap_b| of a calibrated predictor is below Σ_b √(n_b/4) / n ≤ √(B / 4n)."""
    nodes, bins = 20_000, 10
    probs, y = predictions(nodes, 3)
    error = expected_calibration_error(probs, y, bins, binning, classwise)
    assert error < 1.5 * math.sqrt(bins / (4 * nodes))
    sharpened = probs**3 / (probs**3).sum(1, keepdims=True)
    assert expected_calibration_error(sharpened, y, bins, binning, classwise) > 0.1


def test_24_unlabelled_nodes_are_dropped():
    probs, y = predictions(50, 3)
    y[::7] = -1
    kept = y >= 0
    for options in ({}, {"binning": "mass"}, {"classwise": True}):
        whole = expected_calibration_error(probs, y, **options)
        assert whole == expected_calibration_error(probs[kept], y[kept], **options)
    assert reliability_diagram(probs, y).counts.sum() == kept.sum()
    logits = np.log(probs)
    assert temperature_scale(logits, y) == temperature_scale(logits[kept], y[kept])
    with pytest.raises(ParameterError, match="at least one labelled node"):
        expected_calibration_error(probs, np.full(50, -1))


@given(st.integers(0, 40), st.floats(0.2, 5), st.integers(2, 5))
def test_25_temperature_keeps_predictions_and_is_never_worse(seed, sharpness, classes):
    probs, y = predictions(40, classes, seed)
    logits = np.log(probs + 1e-9) * sharpness
    temperature = temperature_scale(logits, y)
    scaled = torch.softmax(torch.tensor(logits) / temperature, -1)
    plain = torch.softmax(torch.tensor(logits), -1)
    assert torch.equal(scaled.argmax(-1), plain.argmax(-1))
    best = negative_log_likelihood(scaled, y)
    assert best <= negative_log_likelihood(plain, y)
    # On a grid there is nothing better, but for the search's tolerance.
    for other in np.geomspace(0.02, 50, 60):
        assert best <= float(cross_entropy(torch.tensor(logits) / other, torch.tensor(y))) + 1e-5


@pytest.mark.parametrize("truth", [0.3, 1.0, 4.0])
def test_25_temperature_is_found(truth):
    probs, y = predictions(20_000, 4)
    # Its standard error is below 2 % for so many nodes.
    assert temperature_scale(np.log(probs) * truth, y) == pytest.approx(truth, rel=0.08)


def test_25_temperature_where_none_is_best():
    flat = torch.zeros(5, 3)
    assert temperature_scale(flat, [0, 1, 2, 0, 1]) == 1.0
    sure_and_right = torch.eye(3) * 5
    assert 0.01 <= temperature_scale(sure_and_right, [0, 1, 2]) < 0.2
    sure_and_wrong = -torch.eye(3) * 5
    assert 50 < temperature_scale(sure_and_wrong, [0, 1, 2]) <= 100


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_each_bin_has_wilsons_interval(level):
    probs, y = predictions(300, 3)
    found = reliability_diagram(probs, y, bins=8, level=level)
    z = stats.norm.ppf((1 + level) / 2)
    for n, p, low, high in zip(
        *(values.tolist() for values in (found.counts, found.accuracy, found.low, found.high)),
        strict=True,
    ):
        if n:
            centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
            half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
            assert (low, high) == pytest.approx((centre - half, centre + half))


@given(binary, st.integers(1, 12), binnings)
def test_the_diagram_adds_up_to_the_error(pairs, bins, binning):
    probs, y = of_pairs(pairs)
    found = reliability_diagram(probs, y, bins=bins, binning=binning)
    error = (found.counts.double() * found.gap.abs()).nansum() / len(pairs)
    ours = expected_calibration_error(probs, y, bins=bins, binning=binning)
    assert ours == pytest.approx(float(error), abs=1e-12)
    filled = found.counts > 0
    assert (found.low[filled] <= found.accuracy[filled] + 1e-12).all()
    assert (found.high[filled] >= found.accuracy[filled] - 1e-12).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"bins": 0}, "bins"),
        ({"bins": 2.5}, "bins"),
        ({"bins": True}, "bins"),
        ({"binning": "quantile"}, "binning"),
        ({"norm": "l3"}, "norm"),
    ],
)
def test_options_that_are_none_are_refused(options, match):
    with pytest.raises(ParameterError, match=match):
        expected_calibration_error([[0.5, 0.5]], [0], **options)


def test_logits_are_refused():
    with pytest.raises(ParameterError, match="softmax"):
        expected_calibration_error([[3.0, 0.1]], [0])
    with pytest.raises(ParameterError, match="softmax"):
        reliability_diagram([[3.0, 0.1]], [0])
    with pytest.raises(ParameterError, match="level"):
        reliability_diagram([[0.5, 0.5]], [0], level=1)
    with pytest.raises(ParameterError, match="finite"):
        temperature_scale([[math.nan, 0.1]], [0])
