"""Means and squared deviations of samples that come in chunks."""

import torch
from torch import Tensor


class Moments:
    """Means and sums of squared deviations over samples.

    Merged chunk by chunk: Chan, Golub and LeVeque, "Algorithms for computing the sample variance"
    (The American Statistician 1983).

    Example:
        >>> moments = Moments()
        >>> moments.update(torch.tensor([[1.0], [2.0]]))
        >>> moments.update(torch.tensor([[6.0]]))
        >>> moments.mean, moments.variance
        (tensor([3.]), tensor([7.]))
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.deviations = torch.zeros((), dtype=torch.float64)

    @property
    def variance(self) -> Tensor:
        """Over one less than the number of samples."""
        return self.deviations / (self.count - 1)

    def update(self, values: Tensor) -> None:
        """Take in samples along the first axis."""
        added, known, total = len(values), self.count, self.count + len(values)
        mean = values.mean(0)
        step = mean - self.mean.to(mean)
        between = step.square() * (known * added / total)
        self.deviations = self.deviations.to(mean) + between + (values - mean).square().sum(0)
        self.mean = mean - step * (known / total)
        self.count = total
