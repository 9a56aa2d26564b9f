"""Means and squared deviations of samples that come in chunks."""

import torch
from torch import Tensor


class Moments:
    """Means and sums of squared deviations (or of products, along the last axis) over samples.

    Merged chunk by chunk: Chan, Golub and LeVeque, "Algorithms for computing the sample variance"
    (The American Statistician 1983).

    Args:
        products: of values of shape (S, N, C) all products of two of the C, not the squares alone.

    Example:
        >>> moments = Moments()
        >>> moments.update(torch.tensor([[1.0], [2.0]]))
        >>> moments.update(torch.tensor([[6.0]]))
        >>> moments.mean, moments.variance
        (tensor([3.]), tensor([7.]))
    """

    def __init__(self, products: bool = False) -> None:
        self.products = products
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
        between = self._squares(step[None]) * (known * added / total)
        self.deviations = self.deviations.to(mean) + between + self._squares(values - mean)
        self.mean = mean - step * (known / total)
        self.count = total

    def _squares(self, values: Tensor) -> Tensor:
        if self.products:
            return torch.einsum("snc,snd->ncd", values, values)
        return values.square().sum(0)
