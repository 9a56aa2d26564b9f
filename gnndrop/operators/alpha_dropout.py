"""Alpha dropout: dropped entries take SELU's saturation value, and all are mapped affinely."""

from dataclasses import replace

import torch
from torch import Tensor

from gnndrop.kernels import masked_multiply
from gnndrop.masks import Mask
from gnndrop.operators._base import FeatureOperator, Share, declare

SATURATION = -1.7580993408473766  # -lambda alpha: SELU at minus infinity


@declare
class AlphaDropout(FeatureOperator):
    r"""Dropout that keeps zero mean and unit variance, made for networks of SELUs.

    $\tilde x_{ic} = a (m_{ic} x_{ic} + (1 - m_{ic}) \alpha') + b$ with $m_{ic} \sim B(q)$, $q=1-p$,
    where $\alpha' = -\lambda\alpha$ is SELU's value at minus infinity,
    $a = (q + \alpha'^2 q (1-q))^{-1/2}$ and $b = -a (1-q) \alpha'$.

    An x of mean 0 and variance 1 keeps both. The mean over the mask alone is $a q x$: it is not
    unbiased. A dropped zero is no zero: sparse features become dense. Features far below variance
    1, such as bag-of-words rows that sum to one, drown in the noise: standardize them.

    Source: Klambauer et al., "Self-normalizing neural networks" (NeurIPS 2017).

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros, which is what a and b give in the limit.
        share: `layer` (default) or `forward`; see `Operator`.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> normal = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
        >>> x = torch.nn.functional.selu(normal)
        >>> out = AlphaDropout(p=0.3).start_pass(0)(x)
        >>> bool(out.mean().abs() < 0.05), bool((out.var() - 1).abs() < 0.05)
        (True, True)
    """

    name = "alpha-dropout"
    axes = ("node", "channel")
    source = "Klambauer et al. 2017"
    is_product = False
    keeps_zeros = False
    rescales = ("none",)

    def __init__(self, p: float = 0.5, share: Share = "layer") -> None:
        super().__init__(p, share, "none")

    @property
    def slope(self) -> float:
        """The factor a; 0 at p = 1."""
        keep = 1 - self.p
        return (keep + SATURATION**2 * keep * self.p) ** -0.5 if keep else 0.0

    @property
    def dropped_value(self) -> float:
        r"""The value $a \alpha' + b$ of a dropped entry."""
        return self.slope * SATURATION * (1 - self.p)

    def mean_factors(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Return the mean a (1-p) of every node's factors in training."""
        return torch.full((num_nodes,), self.slope * (1 - self.p), dtype=torch.float64)

    def feature_covariance(self, x: Tensor, edge_index: Tensor) -> Tensor:
        r"""Return the covariance of all masked entries of `x`, shape (N * C, N * C).

        They are independent, of variance $a^2 p (1-p) (x_{ic} - \alpha')^2$.
        """
        spread = self.slope**2 * self.p * (1 - self.p)
        return torch.diag(spread * (x - SATURATION).flatten() ** 2)

    def multiply(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a matrix of nodes x channels."""
        low = self.dropped_value
        shift = low - self.slope * SATURATION  # b
        return masked_multiply(x, replace(mask, scale=self.slope), shift=shift, dropped=low)

    def multiply_sparse(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a sparse CSR matrix; the result is dense."""
        return self.multiply(x.to_dense(), mask)
