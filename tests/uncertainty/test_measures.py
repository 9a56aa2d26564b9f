"""The measures, against numpy loops and by their laws; numbers are the reference's mistakes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from gnndrop.errors import ParameterError
from gnndrop.uncertainty.measures import (
    SampleSummary,
    brier_score,
    confidence,
    energy,
    entropy,
    expected_entropy,
    margin,
    mutual_information,
    mutual_information_error,
    negative_log_likelihood,
    predictive_entropy,
    variance,
    variation_ratio,
)
from gnndrop.uncertainty.moments import Moments

OF_SAMPLES = [
    predictive_entropy,
    expected_entropy,
    mutual_information,
    mutual_information_error,
    variance,
    variation_ratio,
]
DISAGREEMENT = [mutual_information, mutual_information_error, variance, variation_ratio]
OF_PROBS = [
    entropy,
    confidence,
    margin,
    lambda probs: negative_log_likelihood(probs, [0] * len(probs)),
    lambda probs: brier_score(probs, [0] * len(probs)),
]


@st.composite
def sample_arrays(draw, least=2):
    """Draw T x N x C probabilities, zeros and one-hots among them; axes may be of one size."""
    shape = tuple(draw(st.integers(low, 4)) for low in (least, 1, 2))
    weights = draw(arrays(np.int64, shape, elements=st.integers(0, 20))).astype(float)
    weights[weights.sum(-1) == 0] = 1
    return weights / weights.sum(-1, keepdims=True)


def plain_entropy(row):
    return -sum(p * math.log(p) for p in row if p > 0)


def close(ours, theirs, tolerance=1e-12):
    return np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), 0, tolerance)


def softmax_samples(*shape, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(scale * torch.randn(*shape, generator=generator), -1)


@given(sample_arrays())
def test_every_measure_is_its_definition_in_a_loop(samples):
    count, nodes, classes = samples.shape
    for node in range(nodes):
        rows = [list(samples[t, node]) for t in range(count)]
        mean = [sum(row[c] for row in rows) / count for c in range(classes)]
        total, expected = plain_entropy(mean), sum(map(plain_entropy, rows)) / count
        close(predictive_entropy(samples)[node], total)
        close(expected_entropy(samples)[node], expected)
        close(mutual_information(samples)[node], max(0, total - expected))
        spread = sum(
            sum((row[c] - mean[c]) ** 2 for row in rows) / (count - 1) for c in range(classes)
        )
        close(variance(samples)[node], spread)
        votes = [row.index(max(row)) for row in rows]
        modal = max(votes.count(c) for c in range(classes))
        close(variation_ratio(samples)[node], 1 - modal / count)
        ordered = sorted(rows[0])
        close(confidence(samples[0])[node], ordered[-1])
        close(margin(samples[0])[node], ordered[-1] - ordered[-2])


@given(sample_arrays())
def test_the_error_of_mutual_information_is_the_spread_of_the_divergences(samples):
    divergence = stats.entropy(samples, samples.mean(0)[None], axis=-1)
    # The square root of a variance that rounding alone leaves.
    close(mutual_information_error(samples), stats.sem(divergence, axis=0), 1e-8)


def test_the_error_of_mutual_information_is_what_repetition_shows():
    """The same node 4000 times: the spread of its MI is the error, within the spread's own."""
    repeats = 4000
    samples = softmax_samples(50, repeats, 3, scale=1.0).double()
    observed = float(mutual_information(samples).std())
    claimed = float(mutual_information_error(samples).square().mean().sqrt())
    kurtosis = float(stats.kurtosis(mutual_information(samples).numpy()))
    relative = math.sqrt((2 + kurtosis) / (4 * repeats))
    # Its own bias is of the order 1/T = 2 %.
    assert abs(claimed / observed - 1) < 4 * relative + 0.03


@pytest.mark.parametrize(("samples", "corrected"), [(2, False), (5, False), (5, True), (20, True)])
def test_few_samples_bias_mutual_information_and_the_factor_undoes_it(samples, corrected):
    many = softmax_samples(20_000, 1, 3, scale=1.0)
    truth = float(mutual_information(many))
    few = mutual_information(many.reshape(samples, -1, 3), corrected=corrected)
    error = float(few.std()) / math.sqrt(len(few)) + float(mutual_information_error(many))
    expected = truth if corrected else truth * (1 - 1 / samples)
    # What remains is of second order, (1/T)².
    assert abs(float(few.mean()) - expected) < 4 * error + 0.1 * truth / samples**2


@given(sample_arrays())
def test_the_correction_is_one_factor(samples):
    factor = len(samples) / (len(samples) - 1)
    corrected = mutual_information(samples, corrected=True)
    close(corrected, factor * mutual_information(samples))


@pytest.mark.parametrize("tiny", [1e-3, 1e-12, 1e-100, 1e-300])
def test_12_the_smallest_probability_counts(tiny):
    """No epsilon inside the logarithm: of the reference's zoo 1e-7 would change the second one."""
    expected = -tiny * math.log(tiny) - (1 - tiny) * math.log1p(-tiny)
    assert float(entropy([[tiny, 1 - tiny]])) == pytest.approx(expected, rel=1e-3, abs=1e-16)
    divergence = [math.log(2), math.log1p(-tiny) - math.log1p(-tiny / 2)]
    error = mutual_information_error([[[0.0, 1.0]], [[tiny, 1 - tiny]]])
    kl = tiny * divergence[0] + (1 - tiny) * divergence[1], -math.log1p(-tiny / 2)
    assert float(error) == pytest.approx(abs(kl[0] - kl[1]) / 2, rel=1e-3, abs=1e-16)


@given(sample_arrays())
def test_12_the_total_is_at_least_its_parts(samples):
    information = mutual_information(samples)
    assert (information >= 0).all()
    close(predictive_entropy(samples), expected_entropy(samples) + information)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_12_identical_samples_share_no_information(dtype):
    samples = softmax_samples(1, 1000, 7).to(dtype).expand(10, -1, -1)
    information = mutual_information(samples)
    assert (information >= 0).all()
    assert information.max() < 1e-6
    assert float(variance(samples).max()) < 1e-12
    assert not variation_ratio(samples).any()


def test_12_opposite_one_hots_share_log_2_and_a_one_hot_has_entropy_0():
    opposite = [[[1.0, 0.0]], [[0.0, 1.0]]]
    assert float(mutual_information(opposite)) == pytest.approx(math.log(2), abs=1e-15)
    assert expected_entropy(opposite).tolist() == [0.0]
    assert str(entropy([[1, 0, 0]]).item()) == "0.0"
    assert mutual_information_error([[[1, 0]], [[1, 0]]]).tolist() == [0.0]


@given(sample_arrays(), st.floats(1.1, 100))
def test_13_the_base_divides_by_its_logarithm(samples, base):
    for measure in (
        predictive_entropy,
        expected_entropy,
        mutual_information,
        mutual_information_error,
    ):
        close(measure(samples, base=base), measure(samples) / math.log(base), 1e-9)
    classes = samples.shape[2]
    assert (entropy(samples[0], base=classes) <= 1 + 1e-12).all()
    uniform = np.full((1, classes), 1 / classes)
    close(entropy(uniform, base=classes), 1)


@pytest.mark.parametrize("base", [1, 0.5, 0, -2, math.nan])
def test_13_a_base_that_is_none_is_refused(base):
    with pytest.raises(ParameterError, match="base"):
        entropy([[0.5, 0.5]], base=base)


@pytest.mark.parametrize("measure", DISAGREEMENT)
def test_14_one_sample_is_refused_where_it_cannot_disagree(measure):
    with pytest.raises(ParameterError, match="at least 2 samples, got 1"):
        measure([[[0.5, 0.5]]])


def test_14_one_sample_has_entropies():
    samples = softmax_samples(1, 5, 3)
    close(predictive_entropy(samples), expected_entropy(samples))
    close(predictive_entropy(samples), entropy(samples[0]))


@pytest.mark.parametrize("shape", [(5, 4, 3), (3, 3, 3), (2, 6, 2)])
@pytest.mark.parametrize("measure", OF_SAMPLES)
def test_15_the_axes_are_samples_nodes_classes(measure, shape):
    samples = softmax_samples(*shape)
    together = measure(samples)
    assert together.shape == shape[1:2]
    assert together.dtype == torch.float64
    one_by_one = [measure(samples[:, node : node + 1]).item() for node in range(shape[1])]
    close(together, one_by_one, 1e-9)
    shuffled = torch.randperm(shape[1], generator=torch.Generator().manual_seed(1))
    close(measure(samples[:, shuffled]), together[shuffled], 1e-9)


@pytest.mark.parametrize("measure", OF_SAMPLES)
def test_15_another_number_of_axes_is_refused(measure):
    with pytest.raises(ParameterError, match="samples x nodes x classes"):
        measure([[0.5, 0.5]])


@pytest.mark.parametrize("measure", OF_PROBS)
def test_15_samples_are_no_prediction(measure):
    with pytest.raises(ParameterError, match=r"samples\.mean\(0\)"):
        measure([[[0.5, 0.5]], [[0.5, 0.5]]])


@given(sample_arrays(), st.integers(0, 3))
def test_16_scores_of_the_mean_are_at_most_the_mean_of_the_scores(samples, seed):
    y = np.random.default_rng(seed).integers(0, samples.shape[2], samples.shape[1])
    for score in (negative_log_likelihood, brier_score):
        assert score(samples.mean(0), y) <= np.mean([score(one, y) for one in samples]) + 1e-9


def test_16_probabilities_are_averaged_not_logits():
    logits = torch.tensor([[[8.0, 0.0]], [[0.0, 1.0]]]).double()
    probs = torch.softmax(logits, -1)
    close(predictive_entropy(probs), entropy(probs.mean(0)))
    of_logits = entropy(torch.softmax(logits.mean(0), -1))
    assert abs(float(predictive_entropy(probs)) - float(of_logits)) > 0.1


@pytest.mark.parametrize("measure", OF_SAMPLES)
def test_17_half_precision_is_taken_as_probabilities(measure):
    exact = softmax_samples(20, 50, 7)
    close(measure(exact.half()), measure(exact), 0.05 if measure is variation_ratio else 2e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        [[2.0, -1.0]],  # sums to 1
        [[3.0, 0.5]],
        [[0.5, 0.502]],
        [[0.5, 0.498]],
        [[math.nan, 1.0]],
        [[math.inf, 0.0]],
    ],
)
@pytest.mark.parametrize("measure", OF_PROBS)
def test_17_logits_are_refused_and_never_guessed_at(measure, wrong):
    with pytest.raises(ParameterError, match="apply softmax first"):
        measure(wrong)
    with pytest.raises(ParameterError, match="apply softmax first"):
        predictive_entropy([wrong])


def test_17_a_row_may_be_off_by_a_thousandth():
    assert confidence([[0.5, 0.5009]]).tolist() == [0.5009]


@pytest.mark.parametrize("wrong", [[["a", "b"]], [[0.5, 0.5], [1.0]], np.empty((2, 0)), [[1j, 1]]])
def test_what_is_no_array_of_probabilities_is_refused(wrong):
    with pytest.raises(ParameterError):
        entropy(wrong)


def test_18_brier_is_the_sum_over_classes_and_neither_their_mean_nor_the_norm():
    """One case that has .860, .287 and .927 by the three conventions of reference 1.2."""
    difference = np.array([0.3, 0.6, 0.1]) - [1, 0, 0]
    assert np.mean(difference**2) == pytest.approx(0.287, abs=5e-4)
    assert np.linalg.norm(difference) == pytest.approx(0.927, abs=5e-4)
    assert brier_score([[0.3, 0.6, 0.1]], [0]) == pytest.approx(0.860)


def test_18_scikit_learn_halves_what_has_two_classes():
    from sklearn.metrics import brier_score_loss

    probs, y = softmax_samples(40, 2).numpy(), np.arange(40) % 2
    assert brier_score(probs, y) == pytest.approx(2 * brier_score_loss(y, probs[:, 1]), abs=1e-6)


def test_nll_is_that_of_torch_and_infinite_where_a_label_is_impossible():
    logits = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    y = torch.arange(30) % 4
    expected = torch.nn.functional.cross_entropy(logits, y)
    assert negative_log_likelihood(logits.softmax(-1), y) == pytest.approx(float(expected))
    assert negative_log_likelihood([[1.0, 0.0]], [1]) == math.inf
    assert negative_log_likelihood([[1.0000001, 0.0]], [0]) == 0


@pytest.mark.parametrize("score", [negative_log_likelihood, brier_score])
def test_24_unlabelled_nodes_are_dropped(score):
    probs, y = softmax_samples(6, 3), np.array([0, -1, 2, -1, 1, 1])
    assert score(probs, y) == score(probs[y >= 0], y[y >= 0])
    for wrong in ([-1] * 6, [3] + [0] * 5, [-2] + [0] * 5, [0] * 5, [0.0] * 6, [[0]] * 6):
        with pytest.raises(ParameterError, match="label"):
            score(probs, wrong)


def test_energy_is_the_negative_log_of_the_sum_and_stays_finite():
    logits = torch.tensor([[1.0, 2.0, 3.0], [1000.0, 0.0, 0.0]])
    close(energy(logits), [-math.log(sum(map(math.exp, (1, 2, 3)))), -1000])
    assert energy([[5.0, 0.0]]) < energy([[1.0, 0.0]])  # sure is low
    for wrong in ([1.0], [[math.nan]], [[math.inf]], [[]]):
        with pytest.raises(ParameterError, match="logits"):
            energy(wrong)


@pytest.mark.usefixtures("generators_untouched")
def test_inputs_are_left_alone():
    samples = softmax_samples(4, 3, 2).double().requires_grad_()
    before = samples.detach().clone()
    for measure in OF_SAMPLES:
        assert not measure(samples).requires_grad
    summary = SampleSummary()
    summary.update(samples)
    summary.update(samples)
    assert torch.equal(samples, before)
    frozen = before.numpy()
    frozen.flags.writeable = False
    close(variance(frozen), variance(before))
    close(variance(frozen[::-1]), variance(before))


def summaries(samples, cuts):
    summary = SampleSummary()
    for chunk in np.split(samples, sorted(cuts)):
        if len(chunk):
            summary.update(chunk)
    return summary


@given(sample_arrays(), st.lists(st.integers(0, 4), max_size=4))
def test_the_summary_is_the_measures_of_the_stacked_samples(samples, cuts):
    summary = summaries(samples, [min(cut, len(samples)) for cut in cuts])
    assert summary.count == len(samples)
    close(summary.mean, samples.mean(0))
    close(summary.std, samples.std(0, ddof=1), 1e-7)
    close(summary.std.square().sum(-1), variance(samples))
    close(summary.mean_error, stats.sem(samples, axis=0), 1e-7)
    close(summary.entropy, predictive_entropy(samples))
    close(summary.expected_entropy, expected_entropy(samples))
    close(summary.mutual_information, mutual_information(samples))


def test_the_summary_does_not_depend_on_chunks_and_stays_exact_for_thousands():
    samples = softmax_samples(3000, 4, 5, scale=1e-3).double().numpy()
    whole = summaries(samples, [])
    for cuts in (range(1, 3000), [1], [7, 8, 2500], [2999]):
        cut = summaries(samples, cuts)
        np.testing.assert_allclose(cut.mean, whole.mean, 1e-12)
        np.testing.assert_allclose(cut.std, whole.std, 1e-9)
        close(cut.mutual_information, whole.mutual_information, 1e-13)
    # A plain sum of squares would lose half the digits of so small a spread.
    np.testing.assert_allclose(whole.std, samples.std(0, ddof=1), 1e-10)


def test_the_summary_keeps_no_samples():
    def held(summary):
        tensors = [one for one in vars(summary._probs).values() if isinstance(one, torch.Tensor)]
        storages = {one.untyped_storage() for one in tensors}
        return sum(storage.nbytes() for storage in storages)

    few, many = (summaries(softmax_samples(count, 6, 3).numpy(), []) for count in (2, 200))
    assert held(few) == held(many)


def test_the_summary_refuses_what_it_cannot_say():
    summary = SampleSummary()
    with pytest.raises(ParameterError, match="at least 1 samples, got 0"):
        _ = summary.mean
    summary.update([[[0.5, 0.5]]])
    for name in ("std", "mean_error", "mutual_information"):
        with pytest.raises(ParameterError, match="at least 2 samples, got 1"):
            getattr(summary, name)
    for wrong in ([[[1.0]]], [[[0.5, 0.5]] * 2], [[[2.0, 0.5]]], [[0.5, 0.5]], np.empty((0, 1, 2))):
        with pytest.raises(ParameterError):
            summary.update(wrong)
    assert summary.count == 1


@given(
    arrays(np.int64, st.tuples(st.integers(2, 6), st.integers(1, 4)), elements=st.integers(-9, 9)),
    st.integers(1, 6),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
def test_moments_are_those_of_all_samples(whole, cut, dtype, has_derivatives):
    # Far from zero a sum of squares alone would lose the variance; integers are exact in float32.
    samples = torch.tensor(whole + 1_000_000, dtype=dtype, requires_grad=has_derivatives)
    moments = Moments()
    for chunk in samples.split(cut):
        moments.update(chunk, 2 * chunk.detach())
    assert moments.count == len(whole)
    assert moments.mean.requires_grad == has_derivatives
    close(moments.mean.detach(), whole.mean(0) + 1_000_000, 1e-9)
    close(moments.variance.detach(), whole.var(0, ddof=1), 1e-12)
    np.testing.assert_array_equal(moments.products.detach(), (2 * (whole + 1_000_000) ** 2).sum(0))


def test_moments_of_many_entries_do_not_depend_on_the_number_of_threads():
    samples = torch.randn(5, 2**20 + 1, generator=torch.Generator().manual_seed(0))
    known, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            moments = Moments()
            moments.update(samples)
            found.append((moments.mean, moments.variance))
    finally:
        torch.set_num_threads(known)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)
    np.testing.assert_allclose(found[0][1], samples.double().var(0), 1e-13)


def test_equal_samples_have_no_spread():
    probs = softmax_samples(1, 50, 7).expand(40, -1, -1)
    summary = SampleSummary()
    summary.add(probs, probs.log())
    assert not summary.std.any()
    assert summary.mutual_information.max() < 1e-6
