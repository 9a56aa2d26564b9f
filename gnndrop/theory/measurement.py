"""A quantity by theory and as measured, with the bound on their difference."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

SIGMAS = 5.5  # the worst of 250 right operators was 4.8 off: a sampled covariance has heavy tails


@dataclass(frozen=True)
class Measurement:
    """One quantity at one rate: what theory says, what was measured, how far they may differ.

    Args:
        quantity: what was measured.
        p: the rate at which coordinates were dropped.
        theory: the exact values, one for each entry.
        measured: the measured ones.
        bound: how far the two may differ: `SIGMAS` standard errors and what rounding takes.

    Example:
        >>> heads = Measurement("heads", 0.5, (0.5, 0.5), (0.52, 0.46), (0.1, 0.1))
        >>> heads.passed, heads.worst
        (True, 1)
    """

    quantity: str
    p: float
    theory: tuple[float, ...]
    measured: tuple[float, ...]
    bound: tuple[float, ...]

    @classmethod
    def of(
        cls,
        quantity: str,
        p: float,
        theory: Tensor,
        measured: Tensor,
        error: Tensor,
        rounding: float,
    ) -> "Measurement":
        """Build it from tensors of one shape.

        Args:
            quantity: see the class.
            p: see the class.
            theory: the exact values.
            measured: the measured ones.
            error: the standard errors of the measured ones.
            rounding: the difference that rounding alone may make.

        Returns:
            The measurement, its entries flattened.

        Example:
            >>> import torch
            >>> one = torch.ones(())
            >>> Measurement.of("one", 0.0, one, one, torch.zeros(()), 0.25).bound
            (0.25,)
        """
        values = theory, measured, SIGMAS * error + rounding
        return cls(quantity, p, *(tuple(value.double().flatten().tolist()) for value in values))

    @classmethod
    def of_samples(
        cls, quantity: str, p: float, theory: Tensor, samples: Tensor, rounding: float = 1e-5
    ) -> "Measurement":
        """Build it from independent samples, (samples, ...), whose mean is what theory gives.

        The default of `rounding` is that of float32.

        Example:
            >>> import torch
            >>> samples = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
            >>> Measurement.of_samples("heads", 0.5, torch.tensor([0.5]), samples).measured
            (0.5,)
        """
        samples = samples.double()
        error = (samples.var(0) / len(samples)).sqrt()
        return cls.of(quantity, p, theory, samples.mean(0), error, rounding)

    @property
    def deviations(self) -> tuple[float, ...]:
        """How far each entry is off, in units of its bound; infinite where it is no number."""
        triples = zip(self.theory, self.measured, self.bound, strict=True)
        ratios = (abs(measured - theory) / bound for theory, measured, bound in triples)
        return tuple(ratio if ratio == ratio else float("inf") for ratio in ratios)

    @property
    def deviation(self) -> float:
        """How far the worst entry is off, in units of its bound."""
        return max(self.deviations)

    @property
    def worst(self) -> int:
        """The entry that is the farthest off, in units of its bound."""
        return self.deviations.index(self.deviation)

    @property
    def passed(self) -> bool:
        """Whether every entry is within its bound."""
        return self.deviation <= 1

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON tells of it: the worst entry, and the number of all.

        A measured value that is no number is null.

        Example:
            >>> Measurement("heads", 0.5, (0.5,), (0.75,), (0.5,)).to_dict()["passed"]
            True
        """
        worst = self.worst
        measured = self.measured[worst]
        return {
            "quantity": self.quantity,
            "p": self.p,
            "entries": len(self.theory),
            "theory": self.theory[worst],
            "measured": measured if abs(measured) < float("inf") else None,
            "bound": self.bound[worst],
            "passed": self.passed,
        }
