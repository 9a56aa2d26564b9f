r"""What evaluation without dropout misses: the gap E[g(a)] - g(E[a]).

In training a network computes g of masked values a, in evaluation g of their mean E[a]. Where g is
not linear the two differ. The mean of T Monte-Carlo passes closes the gap: it has the expectation
E[g(a)], and the mean squared error Var[g(a)]/T.

Source: Gal and Ghahramani, "Dropout as a Bayesian approximation" (ICML 2016), for the averaging.
"""

from collections.abc import Callable

from torch import Tensor

from gnndrop.masks import inverse_scale
from gnndrop.theory.enumeration import masks

Network = Callable[[Tensor], Tensor]


def output_moments(network: Network, x: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Return the exact mean and variance of a network's output under dropout of its input.

    Args:
        network: maps rows of shape (M, d) to outputs of shape (M, k).
        x: one input, shape (d,), d at most 16: all masks are run.
        p: the rate, in [0, 1].

    Returns:
        Mean and variance, shape (k,) each.

    Raises:
        ParameterError: if there are more inputs, or `p` is no rate.

    Example:
        >>> import torch
        >>> mean, variance = output_moments(torch.square, torch.tensor([1.0]), p=0.5)
        >>> mean.item(), variance.item()
        (2.0, 4.0)
    """
    outcomes, probability = masks(len(x), p)
    probability = probability.to(x.dtype)
    outputs = network(x * outcomes.to(x.dtype) * inverse_scale(p))
    mean = probability @ outputs
    return mean, probability @ (outputs - mean) ** 2


def train_test_gap(network: Network, x: Tensor, p: float) -> Tensor:
    """Return E[g(a)] - g(E[a]), exactly, for dropout of the input; 0 where g is linear.

    Args:
        network: see `output_moments`.
        x: one input, shape (d,), d at most 16.
        p: the rate, in [0, 1).

    Returns:
        Shape (k,).

    Raises:
        ParameterError: see `output_moments`.

    Example:
        >>> import torch
        >>> train_test_gap(torch.square, torch.tensor([1.0]), p=0.5).item()
        1.0
    """
    return output_moments(network, x, p)[0] - network(x[None])[0]
