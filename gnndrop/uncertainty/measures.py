"""What a set of sampled predictions says, per node: one definition each, on plain arrays.

`samples` are probabilities p_t of shape (T, N, C): T samples, N nodes, C classes. `probs` are
probabilities of shape (N, C), such as the mean over samples, p̄ = samples.mean(0). Both may be
tensors, numpy arrays or nested lists, of any precision; sums are taken in float64, which is
what comes back. Entropies are in nats unless a `base` is given. Logits are never guessed at:
rows that are no probabilities are refused.

With H(p) = -Σ_c p_c log p_c and 0 log 0 = 0, the total uncertainty H(p̄) is the expected entropy
mean_t H(p_t), the part that more samples would not remove, plus the mutual information of the
prediction and the mask, the part that samples disagree on.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.uncertainty.moments import Moments

# How far from 1 the probabilities of a node may sum: a row of float16 is off by up to 5e-4.
TOLERANCE = 1e-3

Array = Any
"""A tensor, or what numpy makes an array of."""


def as_tensor(values: Array) -> Tensor:
    """Return values as a tensor without a gradient; Python numbers keep their double precision.

    Args:
        values: a tensor, or what numpy makes an array of.

    Returns:
        A tensor that shares memory with a given one, and with nothing else.

    Raises:
        ParameterError: if they are no numbers of one shape.

    Example:
        >>> as_tensor([0.1, 0.2])
        tensor([0.1000, 0.2000], dtype=torch.float64)
    """
    if isinstance(values, Tensor):
        return values.detach()
    try:
        return torch.tensor(np.ascontiguousarray(values))
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"values must be numbers in a rectangular array, got {type(values).__name__}; {error}"
        ) from error


def as_samples(samples: Array, minimum: int = 1) -> Tensor:
    """Return samples as float64 once they are known to be probabilities.

    Args:
        samples: shape (T, N, C).
        minimum: the least T that makes sense.

    Returns:
        float64 of shape (T, N, C).

    Raises:
        ParameterError: if there are not three axes, T is below the minimum, there is no class, or
            a row does not lie in [0, 1] and sum to 1 within 0.001 (nan included).

    Example:
        >>> as_samples([[[0.25, 0.75]]]).shape
        torch.Size([1, 1, 2])
    """
    values = as_tensor(samples)
    if values.ndim != 3:
        raise ParameterError(
            "samples must have three axes, samples x nodes x classes, "
            f"got shape {tuple(values.shape)}; for one prediction pass probs[None]"
        )
    if len(values) < minimum:
        raise ParameterError(
            f"this measure needs at least {minimum} samples, got {len(values)}; sample more"
        )
    return _as_probabilities(values)


def as_probs(probs: Array) -> Tensor:
    """Return one prediction as float64 once it is known to be probabilities.

    Args:
        probs: shape (N, C).

    Returns:
        float64 of shape (N, C).

    Raises:
        ParameterError: if there are not two axes, there is no class, or a row does not lie in
            [0, 1] and sum to 1 within 0.001 (nan included).

    Example:
        >>> as_probs([[0.25, 0.75]])
        tensor([[0.2500, 0.7500]], dtype=torch.float64)
    """
    values = as_tensor(probs)
    if values.ndim != 2:
        raise ParameterError(
            "probabilities must have two axes, nodes x classes, "
            f"got shape {tuple(values.shape)}; average samples first: samples.mean(0)"
        )
    return _as_probabilities(values)


def _as_probabilities(values: Tensor) -> Tensor:
    if values.is_complex() or values.size(-1) == 0:
        raise ParameterError(
            "probabilities must be real and of at least one class, "
            f"got {values.dtype} of shape {tuple(values.shape)}"
        )
    values = values.double()
    if not values.numel():
        return values
    off = (values.sum(-1) - 1).abs().max()  # nan where a value is nan
    lowest = values.min()
    if not (off <= TOLERANCE and lowest >= 0):
        raise ParameterError(
            "probabilities must lie in [0, 1] and sum to 1 in every row, "
            f"got a sum that is off by {float(off):.3g} and a lowest value of {float(lowest):.3g}; "
            "if these are logits, apply softmax first"
        )
    return values


def labelled(values: Tensor, y: Array) -> tuple[Tensor, Tensor]:
    """Return the rows of the labelled nodes, and their labels; -1 stands for no label.

    Args:
        values: shape (N, C), probabilities or logits.
        y: integer labels of shape (N,) in {-1, 0, ..., C - 1}.

    Returns:
        The rows where y >= 0, and int64 labels on their device.

    Raises:
        ParameterError: if y is no integer array of shape (N,), holds another value, or labels no
            node.

    Example:
        >>> labelled(torch.eye(2), [1, -1])
        (tensor([[1., 0.]]), tensor([1]))
    """
    labels = as_tensor(y).to(values.device)
    if labels.is_floating_point() or labels.is_complex() or labels.shape != values.shape[:1]:
        raise ParameterError(
            f"labels must be {len(values)} integers, one for each node, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    labels = labels.long()
    if labels.numel() and not (labels.min() >= -1 and labels.max() < values.size(1)):
        raise ParameterError(
            f"labels must lie in 0 to {values.size(1) - 1}, or be -1 for none, "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    known = labels >= 0
    if not known.any():
        raise ParameterError(
            f"a score needs at least one labelled node, got {len(labels)} nodes without a label; "
            "pass nodes whose label is known"
        )
    return values[known], labels[known]


def entropy(probs: Array, base: float = math.e) -> Tensor:
    """Return the entropy of each node's prediction, H(p) = -Σ_c p_c log p_c.

    Args:
        probs: shape (N, C).
        base: base of the logarithm, above 1; e gives nats, 2 bits, C a value in [0, 1].

    Returns:
        float64 of shape (N,), in [0, log C].

    Raises:
        ParameterError: if probs are no probabilities, or the base is not above 1.

    Example:
        >>> entropy([[0.5, 0.5], [1.0, 0.0]], base=2)
        tensor([1., 0.], dtype=torch.float64)
    """
    return _entropy(as_probs(probs)) / _log(base)


def predictive_entropy(samples: Array, base: float = math.e) -> Tensor:
    """Return the total uncertainty: the entropy of the mean prediction, H(p̄).

    Of the mean of probabilities, not of logits.

    Args:
        samples: shape (T, N, C).
        base: base of the logarithm, above 1.

    Returns:
        float64 of shape (N,), at least the expected entropy.

    Raises:
        ParameterError: if samples are no probabilities, or the base is not above 1.

    Example:
        >>> predictive_entropy([[[1.0, 0.0]], [[0.0, 1.0]]])
        tensor([0.6931], dtype=torch.float64)
    """
    return _entropy(as_samples(samples).mean(0)) / _log(base)


def expected_entropy(samples: Array, base: float = math.e) -> Tensor:
    """Return the mean over samples of their entropies, mean_t H(p_t); "aleatoric" uncertainty.

    Args:
        samples: shape (T, N, C).
        base: base of the logarithm, above 1.

    Returns:
        float64 of shape (N,).

    Raises:
        ParameterError: if samples are no probabilities, or the base is not above 1.

    Example:
        >>> expected_entropy([[[1.0, 0.0]], [[0.5, 0.5]]], base=2)
        tensor([0.5000], dtype=torch.float64)
    """
    return _entropy(as_samples(samples)).mean(0) / _log(base)


def mutual_information(samples: Array, corrected: bool = False, base: float = math.e) -> Tensor:
    """Return what samples disagree on, H(p̄) - mean_t H(p_t); "epistemic" uncertainty, or BALD.

    Equal to mean_t KL(p_t ‖ p̄), hence never negative; what rounding leaves below 0 is set to 0
    node by node. T samples underestimate it: E[MI_T] ≈ MI (1 - 1/T), which `corrected` undoes.

    Houlsby et al., "Bayesian active learning for classification and preference learning" (2011).

    Args:
        samples: shape (T, N, C), T >= 2.
        corrected: multiply by T / (T - 1). The bias is then of second order; with few samples the
            product may exceed log C.
        base: base of the logarithm, above 1.

    Returns:
        float64 of shape (N,).

    Raises:
        ParameterError: if samples are fewer than two or no probabilities, or the base is not
            above 1.

    Example:
        >>> mutual_information([[[1.0, 0.0]], [[0.0, 1.0]]])
        tensor([0.6931], dtype=torch.float64)
        >>> mutual_information([[[0.9, 0.1]], [[0.9, 0.1]]])
        tensor([0.], dtype=torch.float64)
    """
    values = as_samples(samples, minimum=2)
    difference = _entropy(values.mean(0)) - _entropy(values).mean(0)
    factor = len(values) / (len(values) - 1) if corrected else 1.0
    return difference.clamp_min(0) * factor / _log(base)


def mutual_information_error(samples: Array, base: float = math.e) -> Tensor:
    r"""Return the Monte-Carlo standard error of the mutual information, by the delta method.

    A sample moves $H(\bar p) - \mathrm{mean}_t H(p_t)$ by $KL(p_t \| \bar p)$ in first order, so
    that the standard error is $\sqrt{\mathrm{Var}_t\, KL(p_t \| \bar p) / T}$, the variance with
    T - 1. It is of first order: where every sample is as far from the mean (two opposite one-hots,
    equally often) it is 0, and the error left is of order 1/T. Multiply by T / (T - 1) for the
    corrected value.

    Args:
        samples: shape (T, N, C), T >= 2, independent.
        base: base of the logarithm, above 1.

    Returns:
        float64 of shape (N,).

    Raises:
        ParameterError: if samples are fewer than two or no probabilities, or the base is not
            above 1.

    Example:
        >>> mutual_information_error([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
        tensor([0.2310], dtype=torch.float64)
    """
    values = as_samples(samples, minimum=2)
    divergence = (values * (_safe_log(values) - _safe_log(values.mean(0)))).sum(-1)
    return (divergence.var(0) / len(values)).sqrt() / _log(base)


def variance(samples: Array) -> Tensor:
    """Return the sum over classes of the variance over samples, Σ_c Var_t p_tc.

    The unbiased variance, with T - 1, so that its expectation does not depend on T.

    Args:
        samples: shape (T, N, C), T >= 2.

    Returns:
        float64 of shape (N,), in [0, T / (T - 1)].

    Raises:
        ParameterError: if samples are fewer than two or no probabilities.

    Example:
        >>> variance([[[1.0, 0.0]], [[0.0, 1.0]]])
        tensor([1.], dtype=torch.float64)
    """
    return as_samples(samples, minimum=2).var(0).sum(-1)


def variation_ratio(samples: Array) -> Tensor:
    """Return the share of samples whose predicted class is not the most frequent one.

    1 - n_mode / T. A sample with two highest classes counts for the first of them.

    Freeman, "Elementary applied statistics" (1965).

    Args:
        samples: shape (T, N, C), T >= 2.

    Returns:
        float64 of shape (N,), in [0, 1 - 1/C].

    Raises:
        ParameterError: if samples are fewer than two or no probabilities.

    Example:
        >>> variation_ratio([[[0.9, 0.1]], [[0.8, 0.2]], [[0.6, 0.4]], [[0.3, 0.7]]])
        tensor([0.2500], dtype=torch.float64)
    """
    predicted = as_samples(samples, minimum=2).argmax(-1)
    return (predicted != predicted.mode(0).values).double().mean(0)


def confidence(probs: Array) -> Tensor:
    """Return the probability of the predicted class, max_c p_c; high means sure.

    Args:
        probs: shape (N, C).

    Returns:
        float64 of shape (N,), in [1/C, 1].

    Raises:
        ParameterError: if probs are no probabilities.

    Example:
        >>> confidence([[0.25, 0.75]])
        tensor([0.7500], dtype=torch.float64)
    """
    return as_probs(probs).amax(-1)


def margin(probs: Array) -> Tensor:
    """Return by how much the highest probability exceeds the second; high means sure.

    Args:
        probs: shape (N, C), C >= 2.

    Returns:
        float64 of shape (N,), in [0, 1].

    Raises:
        ParameterError: if probs are no probabilities, or of a single class.

    Example:
        >>> margin([[0.25, 0.75]])
        tensor([0.5000], dtype=torch.float64)
    """
    values = as_probs(probs)
    if values.size(1) < 2:
        raise ParameterError("a margin needs at least two classes, got one; use confidence")
    highest = values.topk(2, dim=-1).values
    return highest[:, 0] - highest[:, 1]


def energy(logits: Array) -> Tensor:
    """Return the energy -log Σ_c exp(z_c) of logits; high means unsure.

    Unlike every other measure it needs the logits, whose common offset softmax removes.

    Liu et al., "Energy-based out-of-distribution detection" (NeurIPS 2020), at temperature 1.

    Args:
        logits: shape (N, C).

    Returns:
        float64 of shape (N,).

    Raises:
        ParameterError: if logits do not have two axes, or are not finite.

    Example:
        >>> energy([[0.0, 0.0]])
        tensor([-0.6931], dtype=torch.float64)
    """
    return -as_logits(logits).logsumexp(-1)


def as_logits(logits: Array) -> Tensor:
    """Return logits as float64 once they are known to be finite.

    Args:
        logits: shape (N, C).

    Returns:
        float64 of shape (N, C).

    Raises:
        ParameterError: if there are not two axes, there is no class, or a value is not finite.

    Example:
        >>> as_logits([[1, -1]])
        tensor([[ 1., -1.]], dtype=torch.float64)
    """
    values = as_tensor(logits)
    if values.ndim != 2 or values.size(1) == 0:
        raise ParameterError(
            "logits must have two axes, nodes x classes, and at least one class, "
            f"got shape {tuple(values.shape)}"
        )
    if not values.isfinite().all():
        raise ParameterError(
            f"logits must be finite, got {int((~values.isfinite()).sum())} that are not; "
            "look at the model's weights"
        )
    return values.double()


def negative_log_likelihood(probs: Array, y: Array) -> float:
    """Return the mean over nodes of -log p_y, in nats, of one prediction.

    For samples pass their mean: the likelihood of the mixture, never above the mean of theirs.

    Args:
        probs: shape (N, C).
        y: integer labels of shape (N,); nodes labelled -1 are dropped.

    Returns:
        A number of at least 0; infinite where a label has probability 0.

    Raises:
        ParameterError: if probs are no probabilities, or no label is in 0 to C - 1.

    Example:
        >>> round(negative_log_likelihood([[0.5, 0.5], [0.5, 0.5]], [0, 1]), 4)
        0.6931
    """
    values, labels = labelled(as_probs(probs), y)
    # Of probabilities that sum to 1 + 1e-7 the highest may exceed 1.
    return float(-values.gather(1, labels[:, None]).clamp_max(1).log().mean())


def brier_score(probs: Array, y: Array) -> float:
    """Return the mean over nodes of Σ_c (p_c - 1[y = c])²: the sum over classes, not their mean.

    For samples pass their mean. Other conventions give another number for the same prediction:
    the mean over classes is C times smaller, and scikit-learn halves the sum where C = 2.

    Brier, "Verification of forecasts expressed in terms of probability" (1950).

    Args:
        probs: shape (N, C).
        y: integer labels of shape (N,); nodes labelled -1 are dropped.

    Returns:
        A number in [0, 2].

    Raises:
        ParameterError: if probs are no probabilities, or no label is in 0 to C - 1.

    Example:
        >>> brier_score([[0.5, 0.5]], [0])
        0.5
    """
    values, labels = labelled(as_probs(probs), y)
    target = torch.nn.functional.one_hot(labels, values.size(1))
    return float((values - target).square().sum(-1).mean())


class SampleSummary:
    """The measures of samples that come in chunks, without keeping them: O(N C) memory.

    Sums are of deviations from the first sample (`gnndrop.uncertainty.moments.Moments`), so that
    every property is that of the stacked samples to rounding, however they were cut. Everything is
    float64.

    Example:
        >>> summary = SampleSummary()
        >>> summary.update([[[1.0, 0.0]]])
        >>> summary.update([[[0.0, 1.0]], [[0.5, 0.5]]])
        >>> summary.count, summary.mean
        (3, tensor([[0.5000, 0.5000]], dtype=torch.float64))
        >>> summary.mutual_information
        tensor([0.4621], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self._probs = Moments()  # of shape (C, N): along many nodes loops are vectorised

    @property
    def count(self) -> int:
        """How many samples there were."""
        return self._probs.count

    def update(self, probs: Array) -> None:
        """Take in some more samples.

        Args:
            probs: probabilities of shape (S, N, C), S >= 1; N and C as before.

        Raises:
            ParameterError: if they are no probabilities, or of another shape than those before.
                The summary is then as it was.

        Example:
            >>> summary = SampleSummary()
            >>> summary.update([[[0.5, 0.5]]])
            >>> summary.count
            1
        """
        self.add(as_samples(probs))

    def add(self, values: Tensor, logarithms: Tensor | None = None) -> None:
        """Take in samples that are known to be probabilities, without looking at them again.

        Args:
            values: floating, of shape (S, N, C); fastest where the nodes stand side by side.
            logarithms: of the samples, in their shape, where they are known already.

        Raises:
            ParameterError: if they are of another shape than those before.
        """
        nodes, classes = values.shape[1:]
        if self.count and self._probs.first.shape != (classes, nodes):
            raise ParameterError(
                "samples must have the nodes and classes of those before, "
                f"{tuple(self.mean.shape)}, got {(nodes, classes)}; "
                "begin a new summary for another graph"
            )
        logarithms = _safe_log(values) if logarithms is None else logarithms
        self._probs.update(values.mT, logarithms.mT)

    @property
    def is_finite(self) -> bool:
        """Whether all samples were, and the logarithms that they were given with."""
        return math.isfinite(float(self._probs.products.sum()))

    def _known(self, minimum: int = 1) -> None:
        if self.count < minimum:
            raise ParameterError(
                f"this summary needs at least {minimum} samples, got {self.count}; "
                "update it with more"
            )

    @property
    def mean(self) -> Tensor:
        """Shape (N, C): the mean prediction p̄."""
        self._known()
        return self._probs.mean.mT.contiguous()

    @property
    def std(self) -> Tensor:
        """Shape (N, C): the standard deviation over samples of each probability, with T - 1."""
        self._known(2)
        return self._probs.variance.sqrt().mT.contiguous()

    @property
    def mean_error(self) -> Tensor:
        """Shape (N, C): the Monte-Carlo standard error of the mean, std / √T."""
        return self.std / math.sqrt(self.count)

    @property
    def entropy(self) -> Tensor:
        """Shape (N,): the total uncertainty H(p̄), in nats; see `predictive_entropy`."""
        self._known()
        return _entropy(self._probs.mean.mT)

    @property
    def expected_entropy(self) -> Tensor:
        """Shape (N,): mean_t H(p_t), in nats."""
        self._known()
        return 0 - self._probs.products.sum(0) / self.count  # 0 - 0 is 0, and not -0

    @property
    def mutual_information(self) -> Tensor:
        """Shape (N,): H(p̄) - mean_t H(p_t), in nats, at least 0; not corrected for T."""
        self._known(2)
        return (self.entropy - self.expected_entropy).clamp_min(0)


def _entropy(probs: Tensor) -> Tensor:
    """Return -Σ p log p; half the time of `torch.special.entr`, which looks for negative values."""
    return 0 - (probs * _safe_log(probs)).sum(-1)  # 0 - 0 is 0, and not -0


def _safe_log(probs: Tensor) -> Tensor:
    """Return log p, and of 0 something finite, so that 0 log 0 = 0."""
    return probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


def _log(base: float) -> float:
    if not base > 1:
        raise ParameterError(
            f"the base of a logarithm must be above 1, got {base}; leave it out for nats"
        )
    return math.log(base)
