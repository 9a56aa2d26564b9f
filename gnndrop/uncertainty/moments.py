"""Means and squared deviations of samples that come in chunks."""

import torch
from torch import Tensor

from gnndrop.kernels._dispatch import COMPILED


class Moments:
    r"""Means and variances over samples, in float64.

    With the deviations $d_t = x_t - x_1$ from the first sample, the mean is $x_1 + \bar d$ and the
    sum of squared deviations $\sum_t d_t^2 - T \bar d^2$, which is at least $T \bar d^2 / (T - 1)$:
    the difference loses at most a factor T of precision, whatever the samples. It needs neither a
    second pass nor the mean of a chunk: Chan, Golub and LeVeque, "Algorithms for computing the
    sample variance" (The American Statistician 1983), on shifted data.

    Example:
        >>> moments = Moments()
        >>> moments.update(torch.tensor([[1.0], [2.0]]))
        >>> moments.update(torch.tensor([[6.0]]))
        >>> moments.mean, moments.variance
        (tensor([3.], dtype=torch.float64), tensor([7.], dtype=torch.float64))
    """

    def __init__(self) -> None:
        self.count = 0
        zero = torch.zeros((), dtype=torch.float64)
        self.first, self._sums, self._squares = zero, zero, zero
        self.products = zero
        """Sums of products with the factors that samples came with."""

    @property
    def mean(self) -> Tensor:
        """Over all samples."""
        return self.first + self._sums / self.count

    @property
    def variance(self) -> Tensor:
        """Over one less than the number of samples."""
        deviations = self._squares - self._sums.square() / self.count
        return deviations / (self.count - 1)

    def update(self, values: Tensor, factors: Tensor | None = None) -> None:
        """Take in samples along the first axis, with factors of their shape."""
        if not self.count:
            self.first = values[0].double().clone(memory_format=torch.contiguous_format)
            zeros = torch.zeros(3, *self.first.shape, dtype=torch.float64, device=values.device)
            self._sums, self._squares, self.products = zeros
        self.count += len(values)
        has_derivatives = values.requires_grad or self._sums.requires_grad
        if values.is_cpu and values.dtype in COMPILED and not has_derivatives:
            from gnndrop.kernels._summaries import add_samples  # half a second, at first use

            sums = self._sums, self._squares, self.products
            add_samples(values, factors, self.first, *sums)
            return
        deviations = values.double() - self.first
        self._sums = self._sums + deviations.sum(0)
        self._squares = self._squares + deviations.square().sum(0)
        if factors is not None:
            self.products = self.products + (values.double() * factors.double()).sum(0)
