r"""What dropout does to batch normalization that follows it: the variance shift.

Batch normalization remembers the variance of what it saw in training, where masks added to it; in
evaluation there are no masks, and its outputs have too little variance. For a channel
$y = w^\top x$ of inputs that are dropped at rate p,

$$\frac{\mathrm{Var}_{\mathrm{eval}}[y]}{\mathrm{Var}_{\mathrm{train}}[y]} =
  \frac{w^\top \Sigma w}{w^\top \Sigma w + \frac{p}{1-p} \sum_j w_j^2 E[x_j^2]}.$$

The fix: drop behind the last batch normalization, or normalize by layer. (Another: recompute the
running statistics in training mode without dropout, once training has ended.)

Source: Li et al., "Understanding the disharmony between dropout and batch normalization by variance
shift" (CVPR 2019).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import (
    _BatchNorm,
)  # the base of BatchNorm1d, 2d, 3d and SyncBatchNorm

from gnndrop.errors import ParameterError
from gnndrop.masks import check_rate, inverse_scale


def precedes_batch_norm(model: nn.Module, layers: Iterable[nn.Module]) -> bool:
    """Tell whether what is dropped at the input of these layers reaches a batch normalization.

    Read from the order in which the model registers its modules, which is that of most models'
    forward passes; no forward pass is run. Normalizations that keep no running statistics do not
    count: they use the batch's own in evaluation, too.

    Args:
        model: any module.
        layers: modules of it, at whose inputs something is dropped.

    Returns:
        Whether a batch normalization is registered behind the first of the layers.

    Example:
        >>> linear, norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        >>> precedes_batch_norm(nn.Sequential(linear, norm), [linear])
        True
        >>> precedes_batch_norm(nn.Sequential(norm, linear), [linear])
        False
    """
    dropped, reached = set(layers), False
    for module in model.modules():
        reached |= module in dropped
        if reached and isinstance(module, _BatchNorm) and module.track_running_stats:
            return True
    return False


def variance_shift(x: Tensor, p: float, weight: Tensor | None = None) -> Tensor:
    """Predict the variance of a batch normalization's outputs in evaluation, by channel.

    It normalizes to one in training; 1 here would be no shift.

    Args:
        x: what is dropped, shape (n, d), as it is without dropout.
        p: the rate at which each entry is dropped by a coin of its own, in [0, 1).
        weight: of the linear layer between dropout and normalization, shape (channels, d); None:
            there is none.

    Returns:
        Shape (channels,): the variance in evaluation over that in training.

    Raises:
        ParameterError: if `p` is not in [0, 1): nothing varies in training at 1.

    Example:
        >>> x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0], [0.0]])
        >>> variance_shift(x, p=0.5)
        tensor([0.5556])
    """
    if check_rate(p) == 1:
        raise ParameterError("p must be below 1 for variance to be left in training, got 1")
    if weight is None:
        weight = torch.eye(x.size(1), dtype=x.dtype, device=x.device)
    clean = (x @ weight.T).var(0)
    noise = p * inverse_scale(p) * weight**2 @ (x**2).mean(0)
    return clean / (clean + noise)
