"""What methods say of the nodes of one run, and how good it is: methods x scores x tasks.

Of one model (member 0 of a run) and its ensemble:

    softmax       softmax(z), dropout off
    energy        -log sum_c exp(z_c); it ranks nodes and has no probabilities of its own
    temperature   softmax(z / T), T fitted on validation nodes
    ensemble      the mean of the members' softmax
    mc-dropout    the mean over samples with dropout on

A *prediction* task judges probabilities, a *ranking* task an uncertainty (a score) by whether the
method's own errors come first. Everything is evaluated on labelled test nodes alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gnndrop.study.uncertainty_store import Outputs
from gnndrop.uncertainty.calibration import expected_calibration_error, temperature_scale
from gnndrop.uncertainty.measures import (
    brier_score,
    confidence,
    energy,
    entropy,
    mutual_information,
    negative_log_likelihood,
)
from gnndrop.uncertainty.ranking import (
    Referral,
    aurc,
    excess_aurc,
    misclassification_auroc,
    refer,
)
from gnndrop.uncertainty.strata import Strata

BINS = 15
"""Of equal width, in every ECE here."""

Key = tuple[str, str, str]
"""Method, score (empty for a prediction task) and task."""


@dataclass(frozen=True, eq=False)
class Run:
    """What the methods say of every node in one run.

    Args:
        logits: float64 of shape (M, N, C), dropout off, by member.
        sampled: the arrays of `sample_trial` for member 0.
        y: int64 of shape (N,); -1 without a label.
        validation: bool of shape (N,), labelled validation nodes.
        test: bool of shape (N,), labelled test nodes.

    Example:
        >>> import numpy as np
        >>> logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
        >>> none = np.zeros(2)
        >>> sampled = {"mean": logits[0].softmax(-1).numpy(), "expected_entropy": none}
        >>> sampled |= {"mutual_information": none, "variance": none}
        >>> everywhere = torch.tensor([True, True])
        >>> run = Run(logits, sampled, torch.tensor([0, 1]), everywhere, everywhere)
        >>> list(run.probs), run.scores()["softmax", "", "accuracy"]
        (['softmax', 'temperature', 'mc-dropout'], 1.0)
    """

    logits: Tensor
    sampled: Outputs
    y: Tensor
    validation: Tensor
    test: Tensor

    @cached_property
    def temperature(self) -> float:
        """The temperature that makes the validation labels most likely."""
        return temperature_scale(self.logits[0][self.validation], self.y[self.validation])

    @cached_property
    def probs(self) -> dict[str, Tensor]:
        """Probabilities of shape (N, C) by method; `ensemble` from two members on."""
        members = self.logits.softmax(-1)
        found = {
            "softmax": members[0],
            "temperature": (self.logits[0] / self.temperature).softmax(-1),
        }
        if len(members) > 1:
            found["ensemble"] = members.mean(0)
        return {**found, "mc-dropout": torch.from_numpy(self.sampled["mean"])}

    @cached_property
    def uncertainties(self) -> dict[tuple[str, str], Tensor]:
        """Uncertainties of shape (N,) by method and score, high where the method is not sure."""
        found: dict[tuple[str, str], Tensor] = {}
        for method, probs in self.probs.items():
            found[method, "max-probability"] = 1 - confidence(probs)
            found[method, "entropy"] = entropy(probs)
            if method == "softmax":
                found["energy", "energy"] = energy(self.logits[0])
            if method == "ensemble":
                found[method, "mutual-information"] = mutual_information(self.logits.softmax(-1))
        for name in ("expected_entropy", "mutual_information", "variance"):
            score = name.replace("_", "-")
            found["mc-dropout", score] = torch.from_numpy(self.sampled[name])
        return found

    def correct(self, method: str) -> Tensor:
        """Return where a method's prediction is right, bool of shape (N,); energy has softmax's."""
        probs = self.probs["softmax" if method == "energy" else method]
        return probs.argmax(-1) == self.y

    def scores(self) -> dict[Key, float]:
        """Return every method's score in every task on the test nodes; nan where undefined."""
        found: dict[Key, float] = {}
        y = self.y[self.test]
        for method, everywhere in self.probs.items():
            probs = everywhere[self.test]
            found |= {
                (method, "", "accuracy"): float(self.correct(method)[self.test].double().mean()),
                (method, "", "confidence"): float(confidence(probs).mean()),
                (method, "", "nll"): negative_log_likelihood(probs, y),
                (method, "", "brier"): brier_score(probs, y),
                (method, "", "ece"): expected_calibration_error(probs, y, bins=BINS),
            }
        for (method, score), values in self.uncertainties.items():
            unsure, right = values[self.test], self.correct(method)[self.test]
            found |= {
                (method, score, "aurc"): aurc(-unsure, right),
                (method, score, "e-aurc"): excess_aurc(-unsure, right),
                (method, score, "auroc"): misclassification_auroc(unsure, right),
            }
        return found

    def referral(self, method: str, risk: float) -> Referral:
        """Choose on validation nodes from which confidence on a prediction is kept."""
        sure = confidence(self.probs[method])
        return refer(sure[self.validation], self.correct(method)[self.validation], risk)

    def referred(self, method: str, risk: float) -> tuple[float, float]:
        """Return the share of test nodes that a referral keeps, and the share of errors in them."""
        mask = self.referral(method, risk).mask(confidence(self.probs[method]))
        kept = self.test & ~mask
        errors = float((~self.correct(method)[kept]).double().mean()) if kept.any() else math.nan
        return float(kept.sum() / self.test.sum()), errors

    def _scores_of_nodes(self, method: str) -> dict[str, Callable[[Tensor], float]]:
        """Return the scores of a method among the nodes that a mask names."""
        probs, right = self.probs[method], self.correct(method)
        unsure, sure = self.uncertainties[method, "entropy"], confidence(self.probs[method])
        return {
            "accuracy": lambda nodes: float(right[nodes].double().mean()),
            "confidence": lambda nodes: float(sure[nodes].mean()),
            "ece": lambda nodes: expected_calibration_error(probs[nodes], self.y[nodes], bins=BINS),
            "auroc": lambda nodes: misclassification_auroc(unsure[nodes], right[nodes]),
        }

    def by_stratum(
        self, groups: Mapping[str, Strata], methods: Sequence[str]
    ) -> dict[tuple[str, str, str], dict[str, float]]:
        """Return the scores within groups of nodes.

        Args:
            groups: partitions of the nodes by name.
            methods: methods with probabilities.

        Returns:
            By method, partition and group: `nodes`, the test nodes of the group, and where there
            are any `accuracy`, `confidence`, `ece`, and the `auroc` of the entropy.
        """
        found: dict[tuple[str, str, str], dict[str, float]] = {}
        for method in methods:
            scores = self._scores_of_nodes(method)
            for by, partition in groups.items():
                for group, size in zip(partition.names, partition.sizes(self.test), strict=True):
                    found[method, by, group] = {"nodes": float(size)}
                for name, score in scores.items():
                    for one in partition.measure(score, self.test):
                        if one.nodes:
                            found[method, by, one.name][name] = one.value
        return found
