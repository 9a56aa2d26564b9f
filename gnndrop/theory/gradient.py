r"""The expected gradient through a dropped activation.

For a mask r that is kept with probability 1-p and then 1/(1-p), and one pre-activation a,

$$E[\partial f(r a) / \partial a] = E[r f'(r a)] = f'(a/(1-p)).$$

The derivative of ReLU does not change with the scale of its argument (ReLU is positively
homogeneous): $f'(a/(1-p)) = f'(a) = 1[a > 0]$. **In this sense the gradient through ReLU does not
depend on p:** given the pre-activation, and for an upstream gradient that does not depend on this
mask, as at the last layer with dropout. Dropping after ReLU is the same, since r f(a) = f(r a).

It does not say that the gradient of a deep network's loss has an expectation without p: masks of
earlier layers move the pre-activations, nonlinear layers behind see the mask. Nor that a single
gradient does not depend on p: its variance is p/(1-p) where a > 0. Of other activations not even
the expectation is free of p: tanh saturates at a/(1-p) earlier than at a.

The argument is ours; the scaling is that of inverted dropout, Srivastava et al. (JMLR 2014).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gnndrop.masks import inverse_scale


def expected_gradient(
    activation: Callable[[Tensor], Tensor], preactivation: Tensor, p: float
) -> Tensor:
    """Return the expectation of the derivative of f(r a) by a.

    Args:
        activation: f, applied to every entry.
        preactivation: a, of any shape.
        p: the rate, in [0, 1]; at 1 nothing is kept, and all gradients are 0.

    Returns:
        f'(a/(1-p)), the shape of a.

    Example:
        >>> a = torch.tensor([-1.0, 1.0])
        >>> [expected_gradient(torch.relu, a, p).tolist() for p in (0.0, 0.9)]
        [[0.0, 1.0], [0.0, 1.0]]
    """
    if p == 1:
        return torch.zeros_like(preactivation)
    scaled = (preactivation.detach() * inverse_scale(p)).requires_grad_()
    (gradient,) = torch.autograd.grad(activation(scaled).sum(), scaled)
    return gradient


def relu_gradient_variance(preactivation: Tensor, p: float) -> Tensor:
    """Return the variance of the derivative of ReLU(r a) by a.

    Args:
        preactivation: a, of any shape.
        p: the rate, in [0, 1].

    Returns:
        p/(1-p) where a is above 0, else 0; 0 at p = 1, where all gradients are.

    Example:
        >>> relu_gradient_variance(torch.tensor([-1.0, 1.0]), p=0.5).tolist()
        [0.0, 1.0]
    """
    return p * inverse_scale(p) * (preactivation > 0).to(preactivation.dtype)
