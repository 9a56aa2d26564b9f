"""Whether probabilities mean what they say: calibration errors, diagrams, temperature scaling.

Every number depends on how confidences are put into bins. Here bins are (low, high], the first
also holds 0, and the last holds 1; `width` bins are equally wide, `mass` bins hold equally many
nodes. Equal confidences are always in one bin, so that the order of nodes has no say.

Evaluate on nodes that neither the model nor its temperature was fitted on.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from gnndrop.errors import ParameterError
from gnndrop.uncertainty.measures import Array, as_logits, as_probs, labelled

Binning = Literal["width", "mass"]
Norm = Literal["l1", "l2", "max"]

# Where a temperature is looked for, as log T. Beyond it a softmax is one-hot or flat.
LOG_TEMPERATURES = (np.log(0.01), np.log(100.0))


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: how often nodes of each confidence are right.

    Args:
        binning: `width` or `mass`.
        level: of the intervals.
        edges: float64 of shape (B + 1,): bin b holds confidences in (edges[b], edges[b + 1]].
        counts: int64 of shape (B,), nodes in each bin.
        confidence: float64 of shape (B,), mean confidence; nan in an empty bin.
        accuracy: float64 of shape (B,), share of nodes that are right; nan in an empty bin.
        low: float64 of shape (B,), lower end of the accuracy's interval; nan in an empty bin.
        high: float64 of shape (B,), its upper end.

    Example:
        >>> diagram = reliability_diagram([[0.75, 0.25], [1.0, 0.0]], [0, 1], bins=2)
        >>> diagram.edges.tolist(), diagram.counts.tolist()
        ([0.0, 0.5, 1.0], [0, 2])
        >>> diagram.gap
        tensor([    nan, -0.3750], dtype=torch.float64)
    """

    binning: Binning
    level: float
    edges: Tensor
    counts: Tensor
    confidence: Tensor
    accuracy: Tensor
    low: Tensor
    high: Tensor

    @property
    def gap(self) -> Tensor:
        """Accuracy minus confidence, shape (B,): below 0 where overconfident."""
        return self.accuracy - self.confidence


def expected_calibration_error(
    probs: Array,
    y: Array,
    bins: int = 15,
    binning: Binning = "width",
    classwise: bool = False,
    norm: Norm = "l1",
) -> float:
    r"""Return how far confidence and accuracy are apart, over bins of confidence.

    With n_b of n nodes in bin b and the gap |acc_b - conf_b|:

    - `l1`: Σ_b n_b/n gap_b, the ECE;
    - `l2`: √(Σ_b n_b/n gap_b²);
    - `max`: max_b gap_b, the MCE; empty bins have no gap.

    Guo et al., "On calibration of modern neural networks" (ICML 2017); class-wise Kull et al.,
    "Beyond temperature scaling" (NeurIPS 2019).

    Args:
        probs: shape (N, C).
        y: integer labels of shape (N,); nodes labelled -1 are dropped.
        bins: how many; papers take 5 to 50, and their numbers do not compare. State it.
        binning: `width`, or `mass`: bins whose sizes differ by at most one where no two
            confidences are equal.
        classwise: False compares the highest probability with whether its class is right; True
            does so for each class c the probability p_c with 1[y = c], over all nodes, and returns
            the mean over classes.
        norm: `l1`, `l2` or `max`.

    Returns:
        A number in [0, 1].

    Raises:
        ParameterError: if probs are no probabilities, no label is in 0 to C - 1, bins is no
            positive integer, or binning or norm is another.

    Example:
        >>> round(expected_calibration_error([[0.05, 0.95], [0.0, 1.0]], [1, 0], bins=10), 3)
        0.475
    """
    values, labels = labelled(as_probs(probs), y)
    _check(bins, binning)
    if norm not in get_args(Norm):
        raise ParameterError(f"norm must be one of {', '.join(get_args(Norm))}, got {norm!r}")
    if not classwise:
        return _error(*_top(values, labels), bins, binning, norm)
    right = one_hot(labels, values.size(1)).double()
    per_class = [
        _error(values[:, label], right[:, label], bins, binning, norm)
        for label in range(values.size(1))
    ]
    return float(np.mean(per_class))


def reliability_diagram(
    probs: Array,
    y: Array,
    bins: int = 15,
    binning: Binning = "width",
    level: float = 0.95,
) -> Reliability:
    """Return what a reliability diagram shows, with Wilson's interval of each bin's accuracy.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927), as
    `scipy.stats.binomtest` has it: nodes are taken as independent, which neighbours are not.

    Args:
        probs: shape (N, C).
        y: integer labels of shape (N,); nodes labelled -1 are dropped.
        bins: how many.
        binning: `width` or `mass`, as in `expected_calibration_error`.
        level: of the intervals, in (0, 1).

    Returns:
        The diagram, of the highest probabilities.

    Raises:
        ParameterError: if probs are no probabilities, no label is in 0 to C - 1, bins is no
            positive integer, binning is another, or the level is not in (0, 1).

    Example:
        >>> diagram = reliability_diagram([[0.8, 0.2]] * 10, [0] * 8 + [1] * 2, bins=5)
        >>> diagram.accuracy[-2:].tolist(), round(float(diagram.low[3]), 2)
        ([0.8, nan], 0.49)
    """
    values, labels = labelled(as_probs(probs), y)
    _check(bins, binning)
    if not 0 < level < 1:
        raise ParameterError(f"level must be above 0 and below 1, got {level}; 0.95 is usual")
    top, right = _top(values, labels)
    edges, place = _bins(top, bins, binning)
    counts, confidence, correct = _sums(top, right, place, bins)
    intervals = [
        binomtest(hits, nodes).proportion_ci(level, "wilson") if nodes else (np.nan, np.nan)
        for hits, nodes in zip(correct.long().tolist(), counts.tolist(), strict=True)
    ]
    low, high = torch.tensor(intervals, dtype=torch.float64, device=edges.device).unbind(1)
    return Reliability(
        binning=binning,
        level=level,
        edges=edges,
        counts=counts,
        confidence=confidence / counts,
        accuracy=correct / counts,
        low=low,
        high=high,
    )


def temperature_scale(logits: Array, y: Array) -> float:
    """Return the temperature T that makes softmax(logits / T) most likely on validation nodes.

    Minimizes the mean negative log-likelihood, which is convex in 1/T, for T in [0.01, 100] (a
    bounded search over log T). Dividing by T keeps every prediction; T > 1 makes a model less sure.

    Guo et al., "On calibration of modern neural networks" (ICML 2017).

    Args:
        logits: shape (N, C), of validation nodes: never of those that are evaluated.
        y: integer labels of shape (N,); nodes labelled -1 are dropped.

    Returns:
        The temperature; 1 where none is better.

    Raises:
        ParameterError: if logits are not finite, or no label is in 0 to C - 1.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]] * 4)
        >>> temperature = temperature_scale(logits, [0, 0, 0, 1])
        >>> torch.softmax(logits[0] / temperature, 0)
        tensor([0.7500, 0.2500])
    """
    values, labels = labelled(as_logits(logits), y)

    def loss(log_temperature: float) -> float:
        return float(cross_entropy(values * np.exp(-log_temperature), labels))

    found = minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def _check(bins: int, binning: str) -> None:
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ParameterError(f"bins must be a positive integer, got {bins!r}; 15 is usual")
    if binning not in get_args(Binning):
        raise ParameterError(
            f"binning must be one of {', '.join(get_args(Binning))}, got {binning!r}"
        )


def _top(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return each node's confidence, and 1 where the predicted class is its label, else 0."""
    confidence, predicted = probs.max(-1)
    return confidence, (predicted == labels).double()


def _error(confidence: Tensor, right: Tensor, bins: int, binning: Binning, norm: Norm) -> float:
    _, place = _bins(confidence, bins, binning)
    counts, confidences, correct = _sums(confidence, right, place, bins)
    filled = counts > 0
    gaps = ((correct - confidences)[filled] / counts[filled]).abs()
    share = counts[filled].double() / len(confidence)
    if norm == "max":
        return float(gaps.max())
    if norm == "l2":
        return float((share * gaps.square()).sum().sqrt())
    return float((share * gaps).sum())


def _bins(confidence: Tensor, bins: int, binning: Binning) -> tuple[Tensor, Tensor]:
    """Return the B + 1 edges of the bins, and the bin of every node."""
    if binning == "width":
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)
        # At single precision, so that 0.3 of float32 and of float64 are in the same bin.
        return edges, torch.bucketize(confidence.float(), edges[1:-1].float())
    values, group, sizes = torch.unique(confidence, return_inverse=True, return_counts=True)
    # A group of equals goes where the middle of its ranks lies.
    twice_middle = 2 * sizes.cumsum(0) - sizes - 1
    place = twice_middle * bins // (2 * len(confidence))
    last = torch.searchsorted(place, torch.arange(bins - 1, device=place.device), right=True)
    inner = torch.cat([values.new_zeros(1), values])[last]  # an empty bin is as wide as nothing
    return torch.cat([values.new_zeros(1), inner, values.new_ones(1)]), place[group]


def _sums(
    confidence: Tensor, right: Tensor, place: Tensor, bins: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for every bin, its nodes, the sum of their confidences and how many are right."""
    return (
        torch.bincount(place, minlength=bins),
        torch.bincount(place, confidence, minlength=bins),
        torch.bincount(place, right, minlength=bins),
    )
