"""How the outputs of a model become samples, and samples a summary, task by task."""

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.uncertainty.measures import SampleSummary
from gnndrop.uncertainty.moments import Moments


class Task(Protocol):
    """Takes in the outputs of passes and summarizes them."""

    def add(self, outputs: list[Any]) -> None:
        """Take in the outputs of some passes, as the model returned them."""

    def standard_error(self) -> Tensor:
        """Return the Monte-Carlo error of the mean, so far."""

    def summary(self) -> dict[str, Tensor]:
        """Return the fields of a `Prediction`."""


class Classification:
    """Samples of class probabilities: the softmax of logits of shape (N, C).

    Args:
        keep: whether to keep the samples.
    """

    def __init__(self, keep: bool) -> None:
        self.kept: list[Tensor] | None = [] if keep else None
        self.traced: list[Tensor] = []
        self._summary = SampleSummary()
        self.shape: tuple[int, ...] | None = None

    def add(self, outputs: list[Any]) -> None:
        """Take in logits."""
        logits = _stack(outputs)
        if self.shape is None:
            self.check(logits)
            self.shape = tuple(logits.shape[1:])
        is_half = logits.dtype.itemsize < 4
        logarithms = self.logarithms(logits.float() if is_half else logits)
        probs = logarithms.exp()
        if probs.requires_grad:
            self.traced.append(probs)
        self._summary.add(probs.detach(), logarithms.detach())
        # Of an infinite logit p log p is nan: the sums tell, without a look at all logits.
        _check_finite(self._summary.is_finite)
        if self.kept is not None:
            self.kept.append(self.shown(probs))

    def check(self, logits: Tensor) -> None:
        """Refuse what are no logits of several classes."""
        if logits.dim() != 3 or logits.size(-1) < 2:
            raise ParameterError(
                "the model must return logits of shape (N, C) with C >= 2 classes, got "
                f"{tuple(logits.shape[1:])}; independent labels are task='multilabel'"
            )
        if not logits.numel() or bool(logits.min() < 0):
            return
        tolerance = max(1e-3, 2 * torch.finfo(logits.dtype).eps)
        if bool(((logits.float().sum(-1) - 1).abs() < tolerance).all()):
            raise ParameterError(
                "the model must return logits, got rows that are probabilities already; "
                "return what comes before the softmax"
            )

    def logarithms(self, logits: Tensor) -> Tensor:
        """Return the logarithms of probabilities, shape (S, N, C)."""
        return logits.mT.contiguous().log_softmax(-2).mT  # along a short last axis it is slow

    def shown(self, values: Tensor) -> Tensor:
        """Return probabilities, by sample or not, in the shape of the model's outputs."""
        return values

    def per_item(self, values: Tensor) -> Tensor:
        """Return one value for every decision in their shape."""
        return values

    def standard_error(self) -> Tensor:
        """Return the Monte-Carlo error of the mean, so far."""
        return self.shown(self._summary.mean_error)

    def summary(self) -> dict[str, Tensor]:
        """Return the fields of a `Prediction`."""
        summary = self._summary
        mean, entropy = summary.mean, summary.entropy
        expected, information = summary.expected_entropy, summary.mutual_information
        if self.traced:  # once more, with derivatives
            samples = torch.cat(self.traced).double().clamp(min=torch.finfo(torch.float64).tiny)
            mean = samples.mean(0)
            entropy = torch.special.entr(mean).sum(-1)
            expected = torch.special.entr(samples).sum(-1).mean(0)
            information = (entropy - expected).clamp(min=0)
        fields = {
            "mean": self.shown(mean),
            "std": self.shown(summary.std),
            "standard_error": self.shown(summary.mean_error),
            "entropy": self.per_item(entropy),
            "expected_entropy": self.per_item(expected),
            "mutual_information": self.per_item(information),
        }
        if self.kept is not None:
            fields["samples"] = torch.cat(self.kept)
        return fields


class Multilabel(Classification):
    """Samples of the probabilities of independent labels: the sigmoid of logits of shape (N, L).

    Every label is a classification of two classes.
    """

    def check(self, logits: Tensor) -> None:
        """Refuse what are no logits of labels."""
        if logits.dim() != 3:
            raise ParameterError(
                f"the model must return logits of shape (N, L), got {tuple(logits.shape[1:])}"
            )
        # A few logits may well lie there.
        if logits.numel() >= 20 and bool(((logits >= 0) & (logits <= 1)).all()):
            raise ParameterError(
                "the model must return logits, got numbers that all lie in [0, 1]; "
                "return what comes before the sigmoid"
            )

    def logarithms(self, logits: Tensor) -> Tensor:
        """Return the logarithms of probabilities, shape (S, N * L, 2)."""
        return F.logsigmoid(torch.stack([-logits, logits], 1)).flatten(2).mT

    def shown(self, values: Tensor) -> Tensor:
        """Return the probability of the label."""
        return self.per_item(values[..., 1])

    def per_item(self, values: Tensor) -> Tensor:
        """Return shape (..., N, L)."""
        return values.reshape(*values.shape[:-1], *(self.shape or ()))


class Regression:
    r"""Samples of outputs of any shape; of a pair (mean, variance) both parts of the variance.

    $\mathrm{Var}\,y = \mathbb{E}_t \sigma_t^2 + \mathrm{Var}_t \mu_t$.

    Source: Kendall and Gal, "What uncertainties do we need in Bayesian deep learning for computer
    vision?" (NeurIPS 2017).

    Args:
        keep: whether to keep the samples.
    """

    def __init__(self, keep: bool) -> None:
        self.kept: list[Tensor] | None = [] if keep else None
        self._moments = Moments()
        self._noise = torch.zeros(())

    def add(self, outputs: list[Any]) -> None:
        """Take in outputs, or pairs of outputs and their variances."""
        if isinstance(outputs[0], tuple | list):
            outputs, noise = (list(part) for part in zip(*outputs, strict=True))
            variances = _stack(noise).double()
            _check_finite(_is_finite(variances))
            if bool((variances < 0).any()):
                raise ParameterError(
                    "the second output of a regression must be a variance, got negative numbers; "
                    "return exp() of a logarithm"
                )
            self._noise = self._noise + variances.sum(0)
        values = _stack(outputs).double()
        _check_finite(_is_finite(values))
        if self.kept is not None:
            self.kept.append(values)
        self._moments.update(values)

    def standard_error(self) -> Tensor:
        """Return the Monte-Carlo error of the mean, so far."""
        return (self._moments.variance / self._moments.count).sqrt()

    def summary(self) -> dict[str, Tensor]:
        """Return the fields of a `Prediction`."""
        spread = self._moments.variance
        fields = {
            "mean": self._moments.mean,
            "std": spread.sqrt(),
            "standard_error": self.standard_error(),
            "variance": self._noise / self._moments.count + spread,
        }
        if self.kept is not None:
            fields["samples"] = torch.cat(self.kept)
        return fields


TASKS: dict[str, type[Classification] | type[Regression]] = {
    "classification": Classification,
    "multilabel": Multilabel,
    "regression": Regression,
}


def _stack(outputs: list[Any]) -> Tensor:
    for output in outputs:
        if not (isinstance(output, Tensor) and output.is_floating_point()):
            raise ParameterError(
                "the model must return one floating point tensor, "
                f"got {type(output).__name__}; wrap it in a module that returns that"
            )
    return torch.stack(outputs) if len(outputs) > 1 else outputs[0][None]


def _is_finite(values: Tensor) -> bool:
    return math.isfinite(float(values.detach().sum(dtype=torch.float64)))


def _check_finite(is_finite: bool) -> None:
    if not is_finite:
        raise ParameterError(
            "the model's outputs must be finite, got NaN or infinity; "
            "look at the inputs and at the weights"
        )
