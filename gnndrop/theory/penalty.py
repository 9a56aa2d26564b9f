r"""Dropout of a linear model's inputs is an L2 penalty.

Masks of mean one and variance p/(1-p) add noise to the prediction that is independent of the
error, so that the expected loss is the clean one and a penalty:

$$E\|y - (r \circ X) w\|^2/n = \|y - Xw\|^2/n + \frac{p}{1-p} \sum_g w_g^\top C_{gg} w_g,
  \qquad C = X^\top X/n,$$

where the features of a group g share a coin. A feature of its own is its own group: the penalty is
$\frac{p}{1-p} \sum_j C_{jj} w_j^2$, which weighs a weight by its feature's variance, and on
standardized data ($C_{jj} = 1$) the plain $\frac{p}{1-p} \|w\|^2$.

Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting"
(JMLR 2014), on linear regression; the form by groups follows in the same way.
"""

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.masks import check_rate


def dropout_penalty(x: Tensor, weight: Tensor, p: float, groups: Tensor | None = None) -> Tensor:
    r"""Return what dropout adds to the mean squared error in expectation.

    Args:
        x: the inputs, shape (n, d); centred ones make variances of second moments.
        weight: shape (d,).
        p: the rate, in [0, 1).
        groups: int64 of shape (d,): features of equal numbers share a coin; None: none do.

    Returns:
        $\frac{p}{1-p} \sum_g w_g^\top C_{gg} w_g$, a scalar tensor.

    Raises:
        ParameterError: if `p` is not in [0, 1): nothing is left to predict from at 1.

    Example:
        >>> x, weight = torch.ones(4, 2), torch.tensor([1.0, 2.0])
        >>> dropout_penalty(x, weight, p=0.5).item()
        5.0
        >>> dropout_penalty(x, weight, p=0.5, groups=torch.tensor([0, 0])).item()
        9.0
    """
    return _odds(p) * weight @ _shared(x, groups) @ weight


def dropout_weights(x: Tensor, y: Tensor, p: float, groups: Tensor | None = None) -> Tensor:
    """Return the weights that minimize the expected squared error under input dropout.

    Args:
        x: the inputs, shape (n, d), centred (there is no intercept).
        y: the targets, shape (n,).
        p: the rate, in [0, 1).
        groups: see `dropout_penalty`.

    Returns:
        Shape (d,): the solution of a ridge regression, of strength p/(1-p) per row where x is
        standardized.

    Raises:
        ParameterError: if `p` is not in [0, 1).

    Example:
        >>> x = torch.tensor([[1.0], [-1.0]])
        >>> dropout_weights(x, torch.tensor([2.0, -2.0]), p=0.5).tolist()
        [1.0]
    """
    moments = x.T @ x / len(x) + _odds(p) * _shared(x, groups)
    solution: Tensor = torch.linalg.solve(moments, x.T @ y / len(x))
    return solution


def _odds(p: float) -> float:
    p = check_rate(p)
    if p == 1:
        raise ParameterError("p must be below 1 for a penalty p/(1-p), got 1")
    return p / (1 - p)


def _shared(x: Tensor, groups: Tensor | None) -> Tensor:
    """Return the second moments of the features that share a coin; zeros elsewhere."""
    if groups is None:
        groups = torch.arange(x.size(1))
    return (x.T @ x / len(x)) * (groups[:, None] == groups)
