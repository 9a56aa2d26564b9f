"""Gaussian dropout: a normal factor for every node and channel."""

from torch import Tensor

from gnndrop.kernels.noise import gaussian_multiply, gaussian_multiply_sparse
from gnndrop.masks import Mask, gaussian_deviation
from gnndrop.operators._base import FeatureOperator, Share, declare


@declare
class GaussianDropout(FeatureOperator):
    r"""Multiply every entry by a normal number that has the moments of inverted dropout.

    $\tilde x_{ic} = \xi_{ic} x_{ic}$ with $\xi_{ic} \sim N(1, p/(1-p))$.

    Nothing is dropped; mean and variance are those of `dropout`, higher moments are not. The
    numbers are a function of the same coins, by inversion: see `gnndrop.masks.normals`. Zeros stay
    zero, so that sparse features stay sparse.

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting"
    (JMLR 2014), section 10.

    Args:
        p: the rate of the dropout that has this variance, in [0, 1]; default 0.5; 1 gives zeros,
            though no limit of anything.
        share: `layer` (default) or `forward`; see `Operator`.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> import torch
        >>> x = GaussianDropout(p=0.5).start_pass(0)(torch.ones(1000, 10))
        >>> bool((x.mean() - 1).abs() < 0.05), bool((x.var() - 1).abs() < 0.1)
        (True, True)
    """

    name = "gaussian-dropout"
    axes = ("node", "channel")
    source = "Srivastava et al. 2014"
    distribution = "gaussian"
    rescales = ("inverse",)

    def __init__(self, p: float = 0.5, share: Share = "layer") -> None:
        super().__init__(p, share)

    @property
    def factor_cumulants(self) -> tuple[float, float, float]:
        """Mean, variance and fourth cumulant of the factor of an entry, in training."""
        return (1.0, gaussian_deviation(self.p) ** 2, 0.0) if self.p < 1 else (0.0, 0.0, 0.0)

    def multiply(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a matrix of nodes x channels."""
        return gaussian_multiply(x, mask)

    def multiply_sparse(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a sparse CSR matrix."""
        return gaussian_multiply_sparse(x, mask)
