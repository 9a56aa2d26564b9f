"""Whether an uncertainty ranks errors first: selective prediction and misclassification detection.

Two signs, which names tell: `confidence` is high where the model is sure (the highest probability,
the margin), `uncertainty` where it is not (an entropy, the mutual information, the energy). The
positive class of a detection is the error. Nodes of equal score are one group: where a group is
cut, the expectation over its orders counts, so that the order of nodes has no say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.uncertainty.measures import Array, as_tensor


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The risk of keeping the most confident nodes alone.

    Args:
        coverage: float64 of shape (N,), k / N for k = 1, ..., N.
        risk: float64 of shape (N,), the share of errors among the k most confident nodes.

    Example:
        >>> risk_coverage([0.9, 0.8, 0.7], [True, True, False]).coverage[-1]
        tensor(1., dtype=torch.float64)
    """

    coverage: Tensor
    risk: Tensor


@dataclass(frozen=True)
class Referral:
    """From which confidence on a prediction is kept; the rest is for a person to look at.

    Args:
        threshold: the least confidence that is kept; infinite where nothing is.
        coverage: share of the validation nodes that are kept.
        risk: share of errors among them; nan where nothing is kept.

    Example:
        >>> Referral(threshold=0.8, coverage=0.5, risk=0.0).mask([0.7, 0.8])
        tensor([ True, False])
    """

    threshold: float
    coverage: float
    risk: float

    def mask(self, confidence: Array) -> Tensor:
        """Return which nodes a person should look at: those below the threshold.

        Args:
            confidence: shape (N,), on the scale of the validation nodes'.

        Returns:
            bool of shape (N,).

        Raises:
            ParameterError: if confidence does not have one axis, or holds nan.

        Example:
            >>> Referral(threshold=float("inf"), coverage=0.0, risk=float("nan")).mask([1.0])
            tensor([True])
        """
        return _scores(confidence) < self.threshold


@dataclass(frozen=True, eq=False)
class PatchAccuracy:
    """Accuracy and certainty together, at eleven thresholds of uncertainty; see `pavpu`.

    Args:
        thresholds: float64 of shape (11,), from the lowest uncertainty to the highest.
        accurate_if_certain: float64 of shape (11,), p(right | certain).
        uncertain_if_inaccurate: float64 of shape (11,), p(uncertain | wrong); nan without errors.
        value: float64 of shape (11,), the share of nodes that are right and certain, or wrong and
            uncertain.
        area: under `value`, the thresholds scaled to [0, 1].
        trivial: the area that calling every node certain has: the accuracy.

    Example:
        >>> pavpu([0.0, 1.0], [True, False]).trivial
        0.5
    """

    thresholds: Tensor
    accurate_if_certain: Tensor
    uncertain_if_inaccurate: Tensor
    value: Tensor
    area: float
    trivial: float


def risk_coverage(confidence: Array, correct: Array) -> RiskCoverage:
    """Return the share of errors among the k most confident nodes, for every k.

    Geifman and El-Yaniv, "Selective classification for deep neural networks" (NeurIPS 2017).

    Args:
        confidence: shape (N,), high where the model is sure.
        correct: shape (N,), bool or 0 and 1.

    Returns:
        The curve. Where k cuts a group of equal confidence it is the expected risk over its orders.

    Raises:
        ParameterError: if the two are not of one shape (N,) with N >= 1, confidence holds nan, or
            correct another value.

    Example:
        >>> risk_coverage([0.9, 0.8, 0.8, 0.1], [True, False, True, False]).risk
        tensor([0.0000, 0.2500, 0.3333, 0.5000], dtype=torch.float64)
    """
    scores, right = _pair(confidence, correct)
    _, group, sizes = torch.unique(-scores, return_inverse=True, return_counts=True)
    wrong = torch.bincount(group, (~right).double()) / sizes
    ranks = torch.arange(1, len(scores) + 1, device=scores.device)
    errors = wrong.repeat_interleave(sizes).cumsum(0)
    return RiskCoverage(coverage=ranks.double() / len(scores), risk=errors / ranks)


def aurc(confidence: Array, correct: Array) -> float:
    """Return the area under the risk-coverage curve, the mean of its N risks.

    (1/N) Σ_k r(k/N), k = 1, ..., N; others take the trapezoid from coverage 1/N to 1.

    Args:
        confidence: shape (N,), high where the model is sure.
        correct: shape (N,), bool or 0 and 1.

    Returns:
        A number in [0, 1], 0 without errors; low is good.

    Raises:
        ParameterError: as `risk_coverage`.

    Example:
        >>> aurc([0.9, 0.1], [True, False])
        0.25
    """
    return float(risk_coverage(confidence, correct).risk.mean())


def excess_aurc(confidence: Array, correct: Array) -> float:
    """Return the AURC minus that of the best ranking of as many errors, E-AURC.

    With e errors among N nodes the best ranking has (1/N) Σ_{j=1..e} j / (N - e + j).

    Geifman, Uziel and El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers"
    (ICLR 2019).

    Args:
        confidence: shape (N,), high where the model is sure.
        correct: shape (N,), bool or 0 and 1.

    Returns:
        A number of at least 0, but for rounding: 0 where every error has less confidence than
        every node that is right.

    Raises:
        ParameterError: as `risk_coverage`.

    Example:
        >>> excess_aurc([0.9, 0.1], [True, False]), excess_aurc([0.1, 0.9], [True, False])
        (0.0, 0.5)
    """
    scores, right = _pair(confidence, correct)
    nodes, errors = len(right), int((~right).sum())
    j = torch.arange(1, errors + 1, dtype=torch.float64)
    return aurc(scores, right) - float((j / (nodes - errors + j)).sum()) / nodes


def refer(confidence: Array, correct: Array, risk: float) -> Referral:
    """Choose which predictions to keep, so that the share of errors among them is at most `risk`.

    Takes the lowest of the confidences seen that keeps the risk of the labelled validation nodes
    at most the wished one. Both that risk and the coverage are estimates, on the nodes that chose
    the threshold: that of other nodes scatters about it and tends to be higher. It is no guarantee.

    Args:
        confidence: shape (N,), of labelled validation nodes; high where the model is sure.
        correct: shape (N,), bool or 0 and 1.
        risk: the wished share of errors among those kept, in [0, 1].

    Returns:
        The threshold, and what it does on the validation nodes; `.mask(confidence)` says of other
        nodes which ones a person should look at.

    Raises:
        ParameterError: as `risk_coverage`, or if risk is not in [0, 1].

    Example:
        >>> referral = refer([0.9, 0.8, 0.7, 0.6], [True, True, False, True], risk=0.1)
        >>> referral.threshold, referral.coverage
        (0.8, 0.5)
        >>> referral.mask([0.85, 0.75])
        tensor([False,  True])
    """
    if not 0 <= risk <= 1:
        raise ParameterError(f"risk must be a share of errors in [0, 1], got {risk}; try 0.05")
    scores, right = _pair(confidence, correct)
    negated, group, sizes = torch.unique(-scores, return_inverse=True, return_counts=True)
    kept = sizes.cumsum(0)  # a group of equals is kept whole or not at all
    risks = torch.bincount(group, (~right).double()).cumsum(0) / kept
    fits = (risks <= risk).nonzero()
    if not len(fits):
        return Referral(threshold=float("inf"), coverage=0.0, risk=float("nan"))
    last = int(fits[-1])
    return Referral(-float(negated[last]), int(kept[last]) / len(scores), float(risks[last]))


def misclassification_auroc(uncertainty: Array, correct: Array) -> float:
    """Return how well an uncertainty tells errors from the rest: the area under the ROC curve.

    The probability that an error is more uncertain than a node that is right; ties count half.
    Below 0.5 the uncertainty is inverted.

    Args:
        uncertainty: shape (N,), high where the model is not sure.
        correct: shape (N,), bool or 0 and 1.

    Returns:
        A number in [0, 1]; nan where all nodes are right or all are wrong, since there is then
        nothing to tell apart.

    Raises:
        ParameterError: if the two are not of one shape (N,) with N >= 1, uncertainty is not
            finite, or correct holds another value.

    Example:
        >>> misclassification_auroc([0.1, 0.2, 0.9], [True, False, False])
        1.0
        >>> misclassification_auroc([0.1, 0.2], [True, True])
        nan
    """
    from sklearn.metrics import roc_auc_score  # imported where it is used, for it is slow

    return _detect(roc_auc_score, uncertainty, correct)


def average_precision(uncertainty: Array, correct: Array, positive: str = "error") -> float:
    """Return the average precision of detecting errors, or successes (AUPR).

    Σ_k (R_k - R_{k-1}) P_k over thresholds, with precision P and recall R; not the trapezoid, which
    is too optimistic. An uncertainty that knows nothing has the share of positives.

    Args:
        uncertainty: shape (N,), high where the model is not sure.
        correct: shape (N,), bool or 0 and 1.
        positive: `error`, found at high uncertainty, or `success`, found at low.

    Returns:
        A number in (0, 1]; nan where all nodes are right or all are wrong.

    Raises:
        ParameterError: as `misclassification_auroc`, or if positive is another.

    Example:
        >>> average_precision([0.1, 0.2, 0.9], [True, False, False])
        1.0
        >>> average_precision([0.1, 0.2, 0.9], [False, True, True], positive="success")
        0.5833333333333333
    """
    from sklearn.metrics import average_precision_score  # imported where it is used

    if positive not in ("error", "success"):
        raise ParameterError(f"positive must be error or success, got {positive!r}")
    scores, right = _pair(uncertainty, correct)
    if positive == "success":
        scores, right = -scores, ~right
    return _detect(average_precision_score, scores, right)


def fpr95(uncertainty: Array, correct: Array) -> float:
    """Return how many right nodes are alarms when at least 95 % of the errors are.

    The lowest false-positive rate among the thresholds whose true-positive rate is at least 0.95;
    positive is the error.

    Args:
        uncertainty: shape (N,), high where the model is not sure.
        correct: shape (N,), bool or 0 and 1.

    Returns:
        A number in [0, 1], low is good; nan where all nodes are right or all are wrong.

    Raises:
        ParameterError: as `misclassification_auroc`.

    Example:
        >>> fpr95([0.1, 0.3, 0.2, 0.9], [True, True, False, False])
        0.5
    """
    from sklearn.metrics import roc_curve  # imported where it is used

    def lowest(errors: Any, scores: Any) -> float:
        false_positive, true_positive, _ = roc_curve(errors, scores, drop_intermediate=False)
        return float(false_positive[true_positive >= 0.95].min())

    return _detect(lowest, uncertainty, correct)


def pavpu(uncertainty: Array, correct: Array) -> PatchAccuracy:
    """Return how often accurate goes with certain and inaccurate with uncertain (PAvPU).

    At the thresholds min + i (max - min) / 10, i = 0, ..., 10, a node is certain where its
    uncertainty is at most the threshold, and

        PAvPU = (right and certain + wrong and uncertain) / N.

    "At most", and not "below": at the highest threshold every node is certain, and PAvPU is the
    accuracy, which is thus what a value has to beat.

    Mukhoti and Gal, "Evaluating Bayesian deep learning methods for semantic segmentation" (2018),
    with nodes for patches.

    Args:
        uncertainty: shape (N,), high where the model is not sure.
        correct: shape (N,), bool or 0 and 1.

    Returns:
        The curves, the area under PAvPU and its trivial value.

    Raises:
        ParameterError: as `misclassification_auroc`.

    Example:
        >>> found = pavpu([0.0, 0.1, 1.0], [True, True, False])
        >>> round(found.area, 3), round(found.trivial, 3)
        (0.967, 0.667)
    """
    scores, right = _pair(uncertainty, correct, finite=True)
    share = torch.linspace(0, 1, 11, dtype=torch.float64, device=scores.device)
    thresholds = torch.lerp(scores.min(), scores.max(), share)
    certain = scores <= thresholds[:, None]
    right_certain = (certain & right).sum(1).double()
    wrong_uncertain = (~certain & ~right).sum(1).double()
    value = (right_certain + wrong_uncertain) / len(right)
    return PatchAccuracy(
        thresholds=thresholds,
        accurate_if_certain=right_certain / certain.sum(1),
        uncertain_if_inaccurate=wrong_uncertain / (~right).sum(),
        value=value,
        area=float(torch.trapezoid(value, share)),
        trivial=float(right.double().mean()),
    )


def _detect(score: Callable[[Any, Any], float], uncertainty: Array, correct: Array) -> float:
    """Return a score of scikit-learn's, errors being positive; nan where it is not defined."""
    scores, right = _pair(uncertainty, correct, finite=True)
    if right.all() or not right.any():
        return float("nan")
    return float(score((~right).cpu().numpy(), scores.cpu().numpy()))


def _pair(scores: Array, correct: Array, finite: bool = False) -> tuple[Tensor, Tensor]:
    values = _scores(scores)
    right = as_tensor(correct).to(values.device)
    if right.shape != values.shape or not len(right):
        raise ParameterError(
            "scores and correct must have one value for each of the same nodes, at least one, "
            f"got shapes {tuple(values.shape)} and {tuple(right.shape)}"
        )
    if not ((right == 0) | (right == 1)).all():
        raise ParameterError(
            "correct must be True or False (1 or 0) for each node, "
            f"got values from {right.min().item()} to {right.max().item()}; "
            "pass predicted == y of the labelled nodes"
        )
    if finite and not values.isfinite().all():
        raise ParameterError(
            f"uncertainties must be finite, got {int((~values.isfinite()).sum())} that are not; "
            "leave these nodes out"
        )
    return values, right.bool()


def _scores(scores: Array) -> Tensor:
    values = as_tensor(scores)
    if values.ndim != 1 or values.isnan().any():
        raise ParameterError(
            "scores must be one number for each node and none of them nan, "
            f"got shape {tuple(values.shape)} with {int(values.isnan().sum())} nan"
        )
    return values.double()
