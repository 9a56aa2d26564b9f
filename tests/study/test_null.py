"""Under the null hypothesis: how often a verdict is wrong, in thousands of simulated runs.

Each error rate is held against the binomial interval that a true rate leaves with a probability of
one in a million.
"""

import numpy as np
import pytest
from scipy import stats

from gnndrop.study.statistics import (
    Pairing,
    difference_p,
    equivalence_p,
    holm,
    judge,
    nadeau_bengio,
)

ALPHA, MARGIN = 0.05, 0.01
RUNS = 20_000
TEST, TRAIN = 20, 48  # the proportions of the Geom-GCN splits
RATIO = TEST / TRAIN
RESPLITS = 10


def rates(count, runs=RUNS, rate=ALPHA):
    """Return the counts that a rate allows."""
    low, high = stats.binom(runs, rate).interval(1 - 1e-6)
    return low <= count <= high


def p_of(differences, ratio):
    mean, error = differences.mean(axis=-1), np.sqrt(nadeau_bengio(differences, ratio))
    return difference_p(mean, error, differences.shape[-1] - 1)


def seeds(generator, *shape):
    """Differences between two runs of the same operator under other seeds, on one split."""
    first, second = generator.normal(0.8, 0.01, (2, *shape))
    return first - second


def correlated(generator, *shape):
    """Gaussian differences on re-splits, of the correlation that Nadeau and Bengio assume."""
    rho = TEST / (TEST + TRAIN)
    shared = generator.normal(0, np.sqrt(rho), (*shape[:-1], 1))
    return 0.01 * (shared + generator.normal(0, np.sqrt(1 - rho), shape))


def resplit(generator, runs, count):
    """Differences on random re-splits of a finite sample.

    Two learners are equally good in the population, but not on each node: a sample is drawn from
    it, and the test nodes of each re-split from the sample.
    """
    nodes = generator.normal(0, 0.1, (runs, 1, TEST + TRAIN))
    order = generator.random((runs, count, TEST + TRAIN))
    tested = np.argpartition(order, TEST, axis=-1)[..., :TEST]
    return np.take_along_axis(nodes, tested, axis=-1).mean(axis=-1)


@pytest.mark.parametrize("count", [6, 10])
def test_seeds_on_one_split_keep_the_level(count):
    differences = seeds(np.random.default_rng(0), RUNS, count)
    assert rates((p_of(differences, 0.0) <= ALPHA).sum())


@pytest.mark.parametrize("count", [6, RESPLITS])
def test_correlated_resplits_keep_the_level(count):
    differences = correlated(np.random.default_rng(1), RUNS, count)
    assert rates((p_of(differences, RATIO) <= ALPHA).sum())


def test_resplits_of_a_finite_sample_keep_the_level():
    differences = resplit(np.random.default_rng(2), 5000, RESPLITS)
    assert rates((p_of(differences, RATIO) <= ALPHA).sum(), 5000)


@pytest.mark.parametrize("draw", [correlated, resplit])
def test_without_the_correction_they_do_not(draw):
    """The simulation can tell: the plain t errs at least four times as often."""
    differences = draw(np.random.default_rng(3), 5000, RESPLITS)
    assert (p_of(differences, 0.0) <= ALPHA).mean() > 4 * ALPHA


@pytest.mark.parametrize("draw", [seeds, correlated])
def test_the_interval_covers_the_truth(draw):
    """The interval holds the truth exactly where the test of it does not reject."""
    truth = 0.004
    differences = truth + draw(np.random.default_rng(4), RUNS, RESPLITS)
    ratio = 0.0 if draw is seeds else RATIO
    missed = (p_of(differences - truth, ratio) <= ALPHA).sum()
    assert rates(missed)


@pytest.mark.parametrize("draw", [seeds, correlated])
@pytest.mark.parametrize("side", [-1, 1])
def test_equivalence_errs_at_the_margin_at_its_level(draw, side):
    """A difference of exactly the margin is called equivalent with probability alpha."""
    ratio = 0.0 if draw is seeds else RATIO
    # A tenth of the spread: the other side of the margin is out of reach.
    differences = side * MARGIN + draw(np.random.default_rng(5), RUNS, RESPLITS) / 10
    error = np.sqrt(nadeau_bengio(differences, ratio))
    p_values = equivalence_p(differences.mean(-1), error, RESPLITS - 1, MARGIN)
    assert rates((p_values <= ALPHA).sum())


def test_holm_keeps_the_error_of_the_family():
    """Twenty operators against one baseline: any of them wrong in at most alpha of the runs."""
    generator = np.random.default_rng(6)
    runs, operators = 4000, 20
    scores = generator.normal(0.8, 0.01, (runs, operators + 1, RESPLITS))
    p_values = p_of(scores[:, 1:] - scores[:, :1], 0.0)
    wrong = sum(holm(family).min() <= ALPHA for family in p_values)
    assert wrong <= stats.binom(runs, ALPHA).ppf(1 - 1e-6)
    assert (p_values.min(axis=1) <= ALPHA).mean() > 4 * ALPHA  # unadjusted


@pytest.mark.parametrize(("draw", "ratio"), [(seeds, 0.0), (correlated, RATIO)])
def test_verdicts_of_whole_runs_keep_the_error(draw, ratio, monkeypatch):
    """Through `judge` itself: five verdicts a run, accuracies of 200 test nodes."""
    # Wilcoxon's p decides nothing, and with ties takes scipy most of the time.
    monkeypatch.setattr("gnndrop.study.statistics.wilcoxon", lambda differences: 1.0)
    generator = np.random.default_rng(7)
    runs = 400
    wrong = 0
    for differences in np.round(draw(generator, runs, 5, RESPLITS) * 200) / 200:
        pairings = [Pairing("graph", "gcn", "op", "none", tuple(d), ratio) for d in differences]
        wrong += any(verdict.verdict in ("better", "worse") for verdict in judge(pairings))
    assert wrong <= stats.binom(runs, ALPHA).ppf(1 - 1e-6)
