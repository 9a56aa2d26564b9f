"""The geometric mean of all subnetworks of a linear softmax classifier.

Dropout trains 2^d subnetworks at once. For one linear layer and softmax, the normalized geometric
mean of their predictions, each to the power of its mask's probability, is exactly the prediction
without a mask: the logits are linear in the mask, and the normalization takes what all classes
share. The arithmetic mean, which Monte-Carlo sampling estimates, is another.

Source: Goodfellow, Bengio and Courville, "Deep learning" (MIT Press, 2016), chapter 7.
"""

from torch import Tensor

from gnndrop.masks import inverse_scale
from gnndrop.theory.enumeration import masks


def subnetworks(weight: Tensor, bias: Tensor, x: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of every subnetwork, and how probable its mask is.

    Args:
        weight: shape (classes, d), d at most 16.
        bias: shape (classes,).
        x: one input, shape (d,).
        p: the rate, in [0, 1]; kept inputs are multiplied by 1/(1-p).

    Returns:
        Log-probabilities, shape (2^d, classes), and probabilities, shape (2^d,).

    Raises:
        ParameterError: if there are more inputs, or `p` is no rate.

    Example:
        >>> import torch
        >>> subnetworks(torch.ones(3, 2), torch.zeros(3), torch.ones(2), 0.5)[0].shape
        torch.Size([4, 3])
    """
    outcomes, probability = masks(len(x), p)
    inputs = x * outcomes.to(x.dtype) * inverse_scale(p)
    return (inputs @ weight.T + bias).log_softmax(1), probability.to(x.dtype)


def geometric_mean(weight: Tensor, bias: Tensor, x: Tensor, p: float) -> Tensor:
    """Return the normalized geometric mean of all subnetworks' predictions, by enumeration.

    Args:
        weight: see `subnetworks`.
        bias: see `subnetworks`.
        x: see `subnetworks`.
        p: the rate, in [0, 1).

    Returns:
        Probabilities, shape (classes,): those of softmax(W x + b).

    Raises:
        ParameterError: see `subnetworks`.

    Example:
        >>> import torch
        >>> weight, x = torch.eye(2), torch.tensor([1.0, 0.0])
        >>> mean = geometric_mean(weight, torch.zeros(2), x, p=0.5)
        >>> torch.allclose(mean, (weight @ x).softmax(0))
        True
    """
    logs, probability = subnetworks(weight, bias, x, p)
    return (probability @ logs).softmax(0)
